"""Listed image files become a `Dataset`; the checks on the way are those that `inspect` reports."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from companion.datasets.dataset import Dataset, check, task_of
from companion.datasets.decoding import Header, probe
from companion.datasets.images import ImageFiles, Progress, file_digest, in_parallel
from companion.datasets.listing import Listing
from companion.datasets.splits import SPLITS, grouped_split, merged, stratified_split
from companion.errors import InputError, shown

# What is larger stays on disk, and is decoded as it is drawn.
IN_MEMORY = 1 << 30


def headers(listing: Listing, *, progress: Progress | None = None) -> list[Header | InputError]:
    """Read the header of every file; of a file that is no image the error."""

    def header(path: Path) -> Header | InputError:
        try:
            return probe(path)
        except InputError as error:
            return error

    return in_parallel(header, listing.paths, what="reading headers", progress=progress)


def contents(listing: Listing, *, progress: Progress | None = None) -> list[bytes]:
    """Digest of every file; one that cannot be read is like no other."""

    def content(path: Path) -> bytes:
        try:
            return file_digest(path)
        except OSError:
            return os.fsencode(path)

    return in_parallel(content, listing.paths, what="comparing files", progress=progress)


def patients(listing: Listing, found: Sequence[Header | InputError]) -> list[str]:
    """Patient or group of every entry: as given, else as DICOM headers say; empty where nobody says.

    One identifier for all, as anonymised files often have, says nothing.
    """
    if any(entry.patient for entry in listing.entries):
        return [entry.patient for entry in listing.entries]
    named = [header.patient if isinstance(header, Header) else "" for header in found]
    return named if all(named) and len(set(named)) > 1 else [""] * len(named)


def shared_patients(listing: Listing, of: Sequence[str]) -> dict[str, list[str]]:
    """Patients that lie in more than one of the given splits, with these."""
    where: dict[str, set[str]] = {}
    for entry, patient in zip(listing.entries, of, strict=True):
        if patient and entry.split:
            where.setdefault(patient, set()).add(entry.split)
    return {
        patient: [split for split in SPLITS if split in splits]
        for patient, splits in sorted(where.items())
        if len(splits) > 1
    }


def divide(
    listing: Listing, of: Sequence[str], content: Sequence[bytes], *, seed: int
) -> Mapping[str, np.ndarray]:
    """Indices of every split: the given ones, or drawn stratified, every patient and all copies of a file in one.

    Raises
    ------
    InputError
        If a patient lies in two given splits, or there are too few patients to draw splits from.
    """
    if listing.has_splits:
        shared = shared_patients(listing, of)
        if shared:
            patient, splits = next(iter(shared.items()))
            others = f" ({len(shared) - 1} more do)" if len(shared) > 1 else ""
            raise InputError(
                f"{shown(listing.root)}: patient {patient!r} is in {' and '.join(splits)}{others}: a patient's images "
                "belong in one split, or what is tested has been seen; leave the splits out and they are drawn here"
            )
        given = np.array([entry.split for entry in listing.entries])
        return {split: np.flatnonzero(given == split) for split in SPLITS if (given == split).any()}
    if any(of):
        return grouped_split(listing.labels, merged(of, content), listing.classes, seed=seed)
    return stratified_split(listing.labels, content, seed=seed)


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
    found: list[Header] = []
    for header in headers(listing, progress=progress):
        if isinstance(header, InputError):
            raise header
        found.append(header)
    content = contents(listing, progress=progress)
    of = patients(listing, found)
    parts = divide(listing, of, content, seed=seed)
    paths, labels = listing.paths, listing.labels
    grey, bits = all(header.grey for header in found), bits_of(found)
    files = {
        split: ImageFiles([paths[i] for i in index], size, grey=grey, bits=bits)
        for split, index in parts.items()
    }
    notes = []
    if highest := max(header.highest for header in found):
        notes.append(f"grey values of more than 8 bits reach {highest}: 0 to {2**bits - 1} became 0 to 255")
    if listing.skipped:
        notes.append(f"{len(listing.skipped)} files or folders were left out: companion inspect lists them")
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
            task=task_of(listing.classes),
            origin=listing.origin,
            official_split=listing.has_splits,
            notes=tuple(notes),
            patients={split: np.array(of)[index] for split, index in parts.items()} if any(of) else {},
            files_hash=hashlib.sha256(b"".join(sorted(content))).hexdigest(),
        )
    )
