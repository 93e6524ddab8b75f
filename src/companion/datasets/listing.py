"""A list of labelled image files, wherever it came from, and how it becomes a `Dataset`."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from companion.datasets.dataset import SPLITS, Dataset, check
from companion.datasets.images import Header, ImageFiles, Progress, file_digest, in_parallel, probe, shown
from companion.datasets.splits import grouped_split, joined, stratified_split
from companion.errors import InputError

# What is larger stays on disk, and is decoded as it is drawn.
IN_MEMORY = 1 << 30


@dataclass(frozen=True)
class Entry:
    """One image file: its label, its split where one is given, and its patient or group where one is given."""

    path: Path
    label: str
    split: str = ""
    group: str = ""


@dataclass(frozen=True)
class Listing:
    """Labelled image files.

    Attributes
    ----------
    root
        The folder that paths are shown relative to.
    name, origin
        As of the `Dataset` they become.
    entries
        The files, in an order that depends on their names only.
    skipped
        (what, why) of everything found that is not an image of the dataset.
    """

    root: Path
    name: str
    origin: str
    entries: tuple[Entry, ...]
    skipped: tuple[tuple[str, str], ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, sorted."""
        return tuple(sorted({entry.label for entry in self.entries}))

    @property
    def labels(self) -> np.ndarray:
        """(n,) index of each entry's class."""
        return np.searchsorted(self.classes, [entry.label for entry in self.entries]).astype(np.int64)

    @property
    def has_splits(self) -> bool:
        """Whether the splits are given."""
        return bool(self.entries) and bool(self.entries[0].split)

    def relative(self, path: Path) -> str:
        """Path as it is shown to people."""
        return shown(path.relative_to(self.root) if path.is_relative_to(self.root) else path)


def headers(listing: Listing, *, progress: Progress | None = None) -> list[Header]:
    """Read the header of every file, in parallel.

    Raises
    ------
    InputError
        If one of them is no image.
    """
    return in_parallel(
        probe, [entry.path for entry in listing.entries], what="looking at files", progress=progress
    )


def groups(listing: Listing, found: Sequence[Header | None]) -> list[str]:
    """Patient or group of every entry: as given, else as DICOM headers say; empty where nobody says.

    One identifier for all, as anonymised files often have, says nothing.
    """
    if any(entry.group for entry in listing.entries):
        return [entry.group for entry in listing.entries]
    patients = [header.patient if header else "" for header in found]
    return patients if all(patients) and len(set(patients)) > 1 else [""] * len(patients)


def shared_groups(listing: Listing, of: Sequence[str]) -> dict[str, list[str]]:
    """Groups that lie in more than one of the given splits, with these."""
    where: dict[str, set[str]] = {}
    for entry, group in zip(listing.entries, of, strict=True):
        if group and entry.split:
            where.setdefault(group, set()).add(entry.split)
    return {
        group: [split for split in SPLITS if split in splits]
        for group, splits in sorted(where.items())
        if len(splits) > 1
    }


def divide(
    listing: Listing, of: Sequence[str], content: Sequence[bytes], *, seed: int
) -> Mapping[str, np.ndarray]:
    """Indices of every split: the given ones, or drawn stratified, every group and all copies of a file in one split.

    Raises
    ------
    InputError
        If a group lies in two given splits, or there are too few groups to draw splits from.
    """
    if listing.has_splits:
        shared = shared_groups(listing, of)
        if shared:
            group, splits = next(iter(shared.items()))
            others = f" ({len(shared) - 1} more do)" if len(shared) > 1 else ""
            raise InputError(
                f"{shown(listing.root)}: patient {group!r} is in {' and '.join(splits)}{others}: a patient's images "
                "belong in one split, or what is tested has been seen; leave the splits out and they are drawn here"
            )
        given = np.array([entry.split for entry in listing.entries])
        return {split: np.flatnonzero(given == split) for split in SPLITS if (given == split).any()}
    if any(of):
        return grouped_split(listing.labels, joined(of, content), listing.classes, seed=seed)
    return stratified_split(listing.labels, content, seed=seed)


def contents(listing: Listing, *, progress: Progress | None = None) -> list[bytes]:
    """Digest of every file."""
    paths = [entry.path for entry in listing.entries]
    return in_parallel(_content, paths, what="comparing files", progress=progress)


def _content(path: Path) -> bytes:
    """Digest of a file; one that cannot be read is like no other, and is told of by who decodes it."""
    try:
        return file_digest(path)
    except OSError:
        return os.fsencode(path)


def bits_of(found: Sequence[Header]) -> int:
    """Bits that the grey values of more than 8 bits take, over all files: 12-bit scans are often stored in 16."""
    highest = max((header.highest for header in found), default=0)
    return max(8, highest.bit_length()) if highest else 16


def assemble(listing: Listing, size: int, *, seed: int, progress: Progress | None = None) -> Dataset:
    """Read the files and return them as a dataset; what is over `IN_MEMORY` stays on disk.

    Raises
    ------
    InputError
        If a file cannot be read, or the whole cannot be worked with.
    """
    found = headers(listing, progress=progress)
    content = contents(listing, progress=progress)
    of = groups(listing, found)
    parts = divide(listing, of, content, seed=seed)
    grey = all(header.grey for header in found)
    bits, highest = bits_of(found), max(header.highest for header in found)
    notes = []
    if highest:
        notes.append(f"grey values of more than 8 bits reach {highest}: 0 to {2**bits - 1} became 0 to 255")
    if listing.skipped:
        notes.append(f"{len(listing.skipped)} files or folders were left out: companion inspect lists them")
    files = {
        split: ImageFiles([listing.entries[i].path for i in index], size, grey=grey, bits=bits)
        for split, index in parts.items()
    }
    labels = listing.labels
    whole = sum(held.nbytes for held in files.values())
    images: dict[str, Any] = dict(files)
    if whole > IN_MEMORY:
        notes.append(f"{whole / 1e9:.1f} GB of images stay on disk and are decoded as they are drawn")
    else:
        images = {
            split: held.decode(np.arange(len(held)), progress=progress) for split, held in files.items()
        }
    return check(
        Dataset(
            name=listing.name,
            images=images,
            labels={split: labels[index] for split, index in parts.items()},
            classes=listing.classes,
            task="binary" if len(listing.classes) == 2 else "multi-class",
            origin=listing.origin,
            official_split=listing.has_splits,
            notes=tuple(notes),
            patients={split: np.array(of)[index] for split, index in parts.items()} if any(of) else {},
            files_hash=hashlib.sha256(b"".join(sorted(content))).hexdigest(),
        )
    )
