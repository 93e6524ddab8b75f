"""Listed image files are surveyed, which `inspect` reports, and become a `Dataset` where nothing stands against it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from companion.datasets.dataset import SIZES, Dataset, check_classes, class_counts, task_of
from companion.datasets.images import Header, ImageFiles, Progress, file_digest, in_parallel, probe, read
from companion.datasets.listing import Listing, Options, below
from companion.datasets.splits import add_val, draw_splits
from companion.errors import InputError

IN_MEMORY = 1 << 30  # bytes; what is larger stays on disk, and is decoded as it is drawn
COMPARED = 224  # side in pixels at which images are compared
NAMED = 3  # unreadable files that a line names


@dataclass(frozen=True)
class Survey:
    """What is known of listed files, and what stands against loading them."""

    # Without what the options leave out; its table has the columns header (or `InputError`), pixels (digest of the
    # decoded image, or `InputError`) and content (digest of the file) too, and the patients of DICOM headers.
    listing: Listing
    parts: dict[str, np.ndarray]  # split -> indices; "all" where no splits can be drawn
    counts: dict[str, dict[str, int]]  # split -> class -> images
    unreadable: tuple[tuple[str, str], ...]  # (file, why)
    errors: tuple[str, ...]  # why `companion.load_dataset` refuses these files, in its words
    remarks: tuple[str, ...]  # what was decided on the way that people should know

    @property
    def headers(self) -> list[Header]:
        """Headers of the files that can be read."""
        return [header for header in self.listing.table["header"] if isinstance(header, Header)]

    @property
    def decoding(self) -> dict[str, Any]:
        """Options of `ImageFiles`: grey only if all are, and the bits of grey values of more than 8 bits."""
        return {"grey": all(header.grey for header in self.headers), "bits": _bits(self.headers)}


def survey(
    listing: Listing, options: Options, *, seed: int, decode: bool = False, progress: Progress | None = None
) -> Survey:
    """Read the headers and contents of all files, and divide them into splits.

    With `decode`, and where a file is damaged or may be left out, every image is decoded once and forgotten: only that
    finds all that cannot be read.
    """
    paths, errors = list(listing.table["path"]), []
    headers = in_parallel(_or_error(probe), paths, what="reading headers", progress=progress)
    damaged = any(isinstance(header, InputError) for header in headers)
    pixels = _pixels(paths, headers, progress) if decode or damaged or options.skip_unreadable else headers
    bad = {at: str(why) for at, why in enumerate(pixels) if isinstance(why, InputError)}
    unreadable = tuple((below(paths[at], listing.root), why) for at, why in bad.items())
    listing = replace(listing, table=listing.table.assign(header=headers, pixels=pixels))
    if bad and options.skip_unreadable:
        remark = f"{len(bad)} unreadable file(s) left out: companion inspect lists them"
        listing = listing.only([at for at in range(len(paths)) if at not in bad], remark)
    elif bad:
        errors.append(_refusal(unreadable))
    listing = _with_patients(listing)
    content = in_parallel(_content, list(listing.table["path"]), what="comparing files", progress=progress)
    listing = replace(listing, table=listing.table.assign(content=content))
    parts, remarks = listing.parts or {"all": np.arange(len(content))}, list(listing.remarks)
    try:
        listing.check_patients()
        if listing.parts:
            parts, remark = add_val(listing.table, parts, seed=seed)
            remarks += [remark] if remark else []
        else:
            parts = draw_splits(listing.table, seed=seed)
    except InputError as error:
        errors.append(str(error))
    labels, classes = listing.labels, listing.classes
    counts = {split: class_counts(labels[index], classes) for split, index in parts.items()}
    try:
        check_classes(listing.name, counts.get("train") or counts["all"])
    except InputError as error:
        errors.append(str(error))
    if not listing.has_patients:
        remarks.append(
            "patients unknown: where images of one patient lie in several splits, what is tested has been seen; a "
            "manifest with a column patient, or --patients-from-folder, names them"
        )
    return Survey(listing, parts, counts, unreadable, tuple(errors), tuple(remarks))


def _or_error(work: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return the `InputError` of an item instead of raising it."""

    def tried(item: Any) -> Any:
        try:
            return work(item)
        except InputError as error:
            return error

    return tried


def _pixels(paths: Sequence[Path], headers: Sequence[Header | InputError], progress: Progress | None) -> list:
    """Digest of every image at `COMPARED` pixels, or why it cannot be decoded."""
    bits = _bits([header for header in headers if isinstance(header, Header)])

    def digest(index: int) -> bytes | InputError:
        header = headers[index]
        if isinstance(header, InputError):
            return header
        image = read(paths[index], COMPARED, grey=header.grey, bits=bits)
        return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).digest()

    return in_parallel(_or_error(digest), range(len(paths)), what="comparing images", progress=progress)


def _content(path: Path) -> bytes:
    """Digest of a file; one that cannot be read is like no other."""
    try:
        return file_digest(path)
    except OSError:
        return os.fsencode(path)


def _bits(headers: Sequence[Header]) -> int:
    """Bits that the grey values of more than 8 bits take, over all files: 12-bit scans are often stored in 16."""
    highest = max((header.highest for header in headers), default=0)
    return max(8, highest.bit_length()) if highest else 16


def _refusal(unreadable: Sequence[tuple[str, str]]) -> str:
    (_, why), *more = unreadable
    named = ", ".join(name for name, _ in more[:NAMED]) + (", …" if len(more) > NAMED else "")
    others = f"; {len(more)} more cannot be read: {named}" if more else ""
    return f"{why}{others}; --skip-unreadable leaves out what cannot be read"


def _with_patients(listing: Listing) -> Listing:
    """Name the patients as DICOM headers do, where nobody else names them.

    One identifier for all, as anonymised files often have, says nothing.
    """
    named = [getattr(header, "patient", "") for header in listing.table["header"]]
    if listing.has_patients or not all(named) or len(set(named)) < 2:
        return listing
    return replace(listing, table=listing.table.assign(patient=named))


def load_files(
    listing: Listing, options: Options, size: int | None, *, seed: int, progress: Progress | None = None
) -> Dataset:
    """Read listed files as a dataset; what is over `IN_MEMORY` stays on disk."""
    found = survey(listing, options, seed=seed, progress=progress)
    if found.errors:
        raise InputError(found.errors[0])
    listing, decoding, notes = found.listing, found.decoding, list(found.remarks)
    if size is None:
        half = float(np.median([max(header.width, header.height) for header in found.headers]))
        size = next((offered for offered in SIZES if offered >= half), SIZES[-1])
        notes.append(
            f"brought to {size} px a side, as half of the images have {half:.0f} px or more; --size gives another, and "
            "twice the side takes four times as long"
        )
    if highest := max(header.highest for header in found.headers):
        reach = f"0 to {2 ** decoding['bits'] - 1} became 0 to 255"
        notes.append(f"grey values of more than 8 bits reach {highest}: {reach}")
    if listing.skipped:
        notes.append(f"{len(listing.skipped)} files or folders were left out: companion inspect lists them")
    images: dict[str, Any] = {
        split: ImageFiles(list(listing.table["path"].iloc[index]), size, **decoding)
        for split, index in found.parts.items()
    }
    if (whole := sum(files.nbytes for files in images.values())) > IN_MEMORY:
        notes.append(f"{whole / 1e9:.1f} GB of images stay on disk and are decoded as they are drawn")
    else:
        try:
            images = {
                split: files.decode(np.arange(len(files)), progress=progress)
                for split, files in images.items()
            }
        except InputError:  # headers do not show all damage: name every file that has some
            raise InputError(survey(listing, options, seed=seed, decode=True).errors[0]) from None
    labels, patients = listing.labels, listing.table["patient"].to_numpy(str)
    return Dataset(
        name=listing.name,
        images=images,
        labels={split: labels[index] for split, index in found.parts.items()},
        classes=listing.classes,
        task=task_of(listing.classes),
        origin=listing.origin,
        official_split=bool(listing.parts),
        notes=tuple(notes),
        patients={split: patients[index] for split, index in found.parts.items() if listing.has_patients},
        files_hash=hashlib.sha256(b"".join(sorted(listing.table["content"]))).hexdigest(),
    )
