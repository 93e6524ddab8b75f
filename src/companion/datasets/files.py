"""Listed image files become a `Dataset`; the checks on the way are those that `inspect` reports."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
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


def with_patients(listing: Listing, found: Sequence[Header | InputError]) -> Listing:
    """Name the patients as DICOM headers do, where the listing names none.

    One identifier for all, as anonymised files often have, says nothing.
    """
    named = [header.patient if isinstance(header, Header) else "" for header in found]
    if any(entry.patient for entry in listing.entries) or not all(named) or len(set(named)) < 2:
        return listing
    pairs = zip(listing.entries, named, strict=True)
    return replace(listing, entries=tuple(entry._replace(patient=patient) for entry, patient in pairs))


def shared_patients(listing: Listing) -> dict[str, list[str]]:
    """Patients that lie in more than one of the given splits, with these."""
    where: dict[str, set[str]] = {}
    for entry in listing.entries:
        if entry.patient and entry.split:
            where.setdefault(entry.patient, set()).add(entry.split)
    return {
        patient: [split for split in SPLITS if split in splits]
        for patient, splits in sorted(where.items())
        if len(splits) > 1
    }


def divide(listing: Listing, content: Sequence[bytes], *, seed: int) -> Mapping[str, np.ndarray]:
    """Indices of every split: the given ones, or drawn stratified, every patient and all copies of a file in one.

    An `InputError` where a patient lies in two given splits, or there are too few patients to draw splits from.
    """
    if listing.has_splits:
        if shared := shared_patients(listing):
            patient, splits = next(iter(shared.items()))
            raise InputError(
                f"{shown(listing.root)}: patient {patient!r} is in {' and '.join(splits)}: a patient's images belong "
                "in one split, or what is tested has been seen; leave the splits out and they are drawn here"
            )
        given = np.array([entry.split for entry in listing.entries])
        return {split: np.flatnonzero(given == split) for split in SPLITS if (given == split).any()}
    patients = [entry.patient for entry in listing.entries]
    if any(patients):
        return grouped_split(listing.labels, merged(patients, content), listing.classes, seed=seed)
    return stratified_split(listing.labels, content, seed=seed)


def bits_of(found: Sequence[Header]) -> int:
    """Bits that the grey values of more than 8 bits take, over all files: 12-bit scans are often stored in 16."""
    highest = max((header.highest for header in found), default=0)
    return max(8, highest.bit_length()) if highest else 16


def assemble(listing: Listing, size: int, *, seed: int, progress: Progress | None = None) -> Dataset:
    """Read the files and return them as a dataset; what is over `IN_MEMORY` stays on disk."""
    found: list[Header] = []
    for header in headers(listing, progress=progress):
        if isinstance(header, InputError):
            raise header
        found.append(header)
    listing = with_patients(listing, found)
    content = contents(listing, progress=progress)
    parts = divide(listing, content, seed=seed)
    notes, bits = [], bits_of(found)
    if highest := max(header.highest for header in found):
        notes.append(f"grey values of more than 8 bits reach {highest}: 0 to {2**bits - 1} became 0 to 255")
    if listing.skipped:
        notes.append(f"{len(listing.skipped)} files or folders were left out: companion inspect lists them")
    grey, paths, labels = all(header.grey for header in found), np.array(listing.paths), listing.labels
    files = {split: ImageFiles(paths[index], size, grey=grey, bits=bits) for split, index in parts.items()}
    images: dict[str, Any] = dict(files)
    if (whole := sum(held.nbytes for held in files.values())) > IN_MEMORY:
        notes.append(f"{whole / 1e9:.1f} GB of images stay on disk and are decoded as they are drawn")
    else:
        images = {
            split: held.decode(np.arange(len(held)), progress=progress) for split, held in files.items()
        }
    patients = np.array([entry.patient for entry in listing.entries])
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
            patients={split: patients[index] for split, index in parts.items()} if any(patients) else {},
            files_hash=hashlib.sha256(b"".join(sorted(content))).hexdigest(),
        )
    )
