"""Images and what is said of each become a `Dataset`; listed files are decoded for that, at the size asked for."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from companion.datasets.dataset import SIZES, Dataset, Options, check_images, task_of
from companion.datasets.images import Header, Progress, in_parallel, probe, read
from companion.datasets.listing import Listing, below
from companion.datasets.splits import divide
from companion.errors import InputError

try:
    MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")  # bytes
except (AttributeError, ValueError):  # Windows
    MEMORY = 32 << 30
PATIENTS_UNKNOWN = (
    "patients unknown: where images of one patient lie in several splits, what is tested has been seen; a "
    "manifest with a column patient, or --patients-from-folder, names them"
)


@dataclass(frozen=True)
class Reading:
    """A dataset of what can be read, and what was seen on the way to it."""

    dataset: Dataset
    headers: Sequence[Header] = ()
    unreadable: tuple[tuple[str, str], ...] = ()  # (file, why)
    skipped: tuple[tuple[str, str], ...] = ()  # (what, why) of what is no image of the dataset
    errors: tuple[str, ...] = ()  # why `companion.load_dataset` refuses it


def check_memory(where: str, size: int) -> None:
    """Raise `InputError` for what takes more bytes than this machine has."""
    if size > MEMORY:
        room = f"{size / 1e9:.1f} GB of memory, more than this machine has"
        raise InputError(f"{where} would take {room}: give fewer images, or a smaller --size")


def assemble(
    table: pd.DataFrame, images: np.ndarray, classes: Sequence[str], *, seed: int, **about: Any
) -> Reading:
    """Divide images into splits and name their classes.

    A row of `table` has label, split, patient and content, as for `companion.datasets.splits.divide`, and a file's
    name; `about` is everything else of the `Dataset`.
    """
    parts, remark, problem = divide(table, seed=seed)
    patients = table["patient"].to_numpy(str)
    labels = pd.Categorical(table["label"], categories=list(classes)).codes.astype(np.int64)
    notes = (*filter(None, [remark]), *about.pop("notes", ()))
    dataset = Dataset(
        images={split: _taken(images, index) for split, index in parts.items()},
        labels={split: labels[index] for split, index in parts.items()},
        classes=tuple(classes),
        task=task_of(classes),
        official_split=bool((table["split"] != "").any()),
        patients={split: patients[index] for split, index in parts.items() if (patients != "").any()},
        names={
            split: table["name"].iloc[index].tolist() for split, index in parts.items() if "name" in table
        },
        notes=notes,
        **about,
    )
    errors = [problem] if problem else []
    if rare := [label for label, count in dataset.class_counts().items() if count < 2]:
        few = f"class {rare[0]!r} has {dataset.class_counts()[rare[0]]} training image(s)"
        leave = " ".join(f"--drop-classes {label!r}" for label in rare[:3])
        errors.append(f"{few}; at least 2 are needed, or leave the class out with {leave}")
    return Reading(dataset, errors=tuple(f"{dataset.name}: {error}" for error in errors))


def _taken(images: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Images at sorted indices: no copy where they lie together."""
    together = len(index) and index[-1] - index[0] + 1 == len(index)
    return images[index[0] : index[-1] + 1] if together else images[index]


def read_files(listing: Listing, options: Options, progress: Progress | None = None) -> Reading:
    """Decode all listed files, at the size asked for or one that fits them."""
    paths = list(listing.table["path"])
    headers = in_parallel(probe, paths, what="reading headers", progress=progress)
    images, failed, notes = _decoded(listing, headers, options.size, progress)
    kept = np.array([why is None for why in failed])
    unreadable = tuple(
        (below(path, listing.root), str(why)) for path, why in zip(paths, failed, strict=True) if why
    )
    table, images = listing.table[kept].reset_index(drop=True), images if kept.all() else images[kept]
    refusal = ""
    if unreadable and options.skip_unreadable:
        notes.insert(0, f"{len(unreadable)} unreadable file(s) left out: companion inspect lists them")
        check_images(listing.origin, table)
    elif unreadable:
        more = ", ".join(name for name, _ in unreadable[1:4]) + (", …" if len(unreadable) > 4 else "")
        others = f"; {len(unreadable) - 1} more cannot be read: {more}" if more else ""
        refusal = f"{unreadable[0][1]}{others}; --skip-unreadable leaves out what cannot be read"
        if table["label"].nunique() < 2 or not table["split"].isin(["", "train"]).any():
            raise InputError(refusal)
    headers = [header for header, good in zip(headers, kept, strict=True) if good]
    table["content"] = [header.digest for header in headers]
    table["name"] = [below(path, listing.root) for path in table["path"]]
    # Patients of DICOM headers where nobody else names them; one for all, as anonymised files have, says nothing.
    named = [header.patient for header in headers]
    if not (table["patient"] != "").any() and all(named) and len(set(named)) > 1:
        table["patient"] = named
    if listing.skipped:
        notes.append(f"{len(listing.skipped)} files or folders were left out: companion inspect lists them")
    if not (table["patient"] != "").any():
        notes.append(PATIENTS_UNKNOWN)
    about = {"name": listing.name, "origin": listing.origin, "notes": (*listing.notes, *notes)}
    files_hash = hashlib.sha256(b"".join(sorted(table["content"]))).hexdigest()
    classes = sorted(table["label"].unique())
    found = assemble(table, images, classes, seed=options.seed, files_hash=files_hash, **about)
    errors = (*filter(None, [refusal]), *found.errors)
    return replace(found, headers=headers, unreadable=unreadable, skipped=listing.skipped, errors=errors)


def _decoded(
    listing: Listing, headers: Sequence[Header | InputError], size: int | None, progress: Progress | None
) -> tuple[np.ndarray, list[InputError | None], list[str]]:
    """Images of all files, why one could not be decoded, and remarks: grey only if all are."""
    readable, notes = [header for header in headers if isinstance(header, Header)], []
    if size is None:  # the least that is offered and not below the longer side of half of the images
        half = float(np.median([max(header.width, header.height) for header in readable] or [0]))
        size = next((offered for offered in SIZES if offered >= half), SIZES[-1])
        notes.append(
            f"brought to {size} px a side, as half of the images have {half:.0f} px or more; --size gives another, and "
            "twice the side takes four times as long"
        )
    grey, highest = all(header.grey for header in readable), max((h.highest for h in readable), default=0)
    bits = max(8, highest.bit_length()) if highest else 16  # 12-bit scans are often stored in 16
    if highest:
        reach = f"0 to {2**bits - 1} became 0 to 255"
        notes.append(f"grey values of more than 8 bits reach {highest}: {reach}")
    paths = list(listing.table["path"])
    shape = (len(paths), size, size) if grey else (len(paths), size, size, 3)
    check_memory(listing.origin, 2 * math.prod(shape))  # once as they are listed, once by split
    images = np.empty(shape, np.uint8)

    def decode(at: int) -> None:
        if isinstance(header := headers[at], InputError):
            raise header
        images[at] = read(paths[at], size, grey=grey, bits=bits)

    failed = in_parallel(decode, range(len(paths)), what="reading images", progress=progress)
    return images, failed, notes
