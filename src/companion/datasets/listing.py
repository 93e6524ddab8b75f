"""A folder of class folders, or a table of paths and labels, becomes a list of labelled image files."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from companion.datasets.decoding import DICOM_SUFFIXES, IMAGE_SUFFIXES, is_image
from companion.errors import InputError, did_you_mean, shown

MANIFEST_SUFFIXES = (".csv", ".tsv")
VOLUME_SUFFIXES = (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd")
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
COLUMNS = {
    "path": ("path", "file", "filename", "image", "image_path"),
    "label": ("label", "class", "target", "diagnosis"),
    "split": ("split", "set", "subset"),
    "patient": ("patient", "patient_id", "patientid", "group", "subject", "subject_id"),
}
MISSING = ("", "na", "n/a", "nan", "none", "null")
ONE_LABEL = "the scores are defined for one label an image"


class Entry(NamedTuple):
    """One image file: its label, its split where one is given, and its patient or group where one is given."""

    path: Path
    label: str
    split: str = ""
    patient: str = ""


@dataclass(frozen=True)
class Listing:
    """Labelled image files; a `name` and an `origin` as of the `Dataset` they become."""

    root: Path  # the folder that paths are shown relative to
    name: str
    origin: str
    entries: tuple[Entry, ...]  # in an order that depends on their names only
    skipped: tuple[tuple[str, str], ...]  # (what, why) of everything that is no image of the dataset

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            there = f"images of one class only ({self.classes[0]!r})" if self.entries else "no images"
            suffixes = ", ".join(sorted(IMAGE_SUFFIXES | DICOM_SUFFIXES))
            raise InputError(
                f"{self.origin} has {there}: wanted are two or more folders named by class, holding files ending in "
                f"{suffixes}, or a .csv or .tsv that lists paths and labels"
            )
        if self.has_splits and not any(entry.split == "train" for entry in self.entries):
            raise InputError(f"{self.origin} has images to test or validate on but none with split train")

    @property
    def paths(self) -> list[Path]:
        """The files."""
        return [entry.path for entry in self.entries]

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
        return bool(self.entries[0].split)

    def relative(self, path: Path) -> str:
        """Path as it is shown to people."""
        return shown(path.relative_to(self.root) if path.is_relative_to(self.root) else path)


def list_images(path: Path) -> Listing | None:
    """List the images of a folder or manifest; None where the path is a file of another kind.

    In a folder everything below a class folder belongs to the class, and links are followed. A manifest's first row
    names its columns: ``path`` (relative to the manifest), ``label``, and where there are such ``split`` (train, val,
    test) and ``patient``. Commas, semicolons and tabs separate. What cannot be a dataset is an `InputError`.
    """
    if path.is_dir():
        return _list_folder(path)
    return _list_manifest(path) if path.suffix.lower() in MANIFEST_SUFFIXES else None


def _class_name(label: str, where: str) -> str:
    if not label.isprintable():  # so are bytes that are not UTF-8
        raise InputError(
            f"{where}: the name of this class cannot be printed or is not valid UTF-8: rename it"
        )
    return label


# --- folders ------------------------------------------------------------------------------------------------


def _list_folder(root: Path) -> Listing:
    splits = _split_folders(root)
    entries, skipped = [], []
    for path in _walk(root):
        below = path.relative_to(root)
        top, *inside = below.parts or ("",)
        why = _why_skipped(path)
        if not why and len(inside) < 1 + bool(splits):
            why = "in no class folder"
        elif not why and splits and top not in splits:
            why = "beside the folders of the splits"
        if why:
            skipped.append((shown(below), why))
        else:
            folder = root / top / inside[0] if splits else root / top
            entries.append(Entry(path, _class_name(folder.name, shown(folder)), splits.get(top, "")))
    name, origin = shown(root.resolve().name), f"folder {shown(root.name)}"
    return Listing(root, name, origin, tuple(entries), tuple(sorted(skipped)))


def _children(folder: Path) -> list[Path]:
    return sorted(folder.iterdir(), key=lambda path: os.fsencode(path.name))


def _hidden(path: Path) -> bool:
    return path.name.startswith(".") or path.name == "__MACOSX"


def _split_folders(root: Path) -> dict[str, str]:
    """Names of the folders of the splits, with their splits; none where the class folders lie at the top."""
    found: dict[str, str] = {}
    for folder in _children(root):
        split = SPLIT_NAMES.get(folder.name.lower())
        if split is None or not folder.is_dir():
            continue
        if split in found.values():
            raise InputError(f"{shown(root)} has two folders for {split}, one of them {shown(folder.name)}")
        found[folder.name] = split
    return found


def _walk(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Files in a folder and below, links followed; of folders only those that are hidden or empty."""
    real = folder.resolve()
    if real in above:
        raise InputError(f"{shown(folder)} is a link that leads back to a folder it lies in: remove it")
    children = _children(folder)
    if not children:
        yield folder
    for child in children:
        if child.is_dir() and not _hidden(child):
            yield from _walk(child, (*above, real))
        else:
            yield child


def _why_skipped(path: Path) -> str:
    """Say why what lies in a folder is left out; empty for an image."""
    if _hidden(path):
        return "hidden"
    if path.is_dir():
        return "no images in it"
    if not path.exists():
        return "a link that leads nowhere"
    if path.name.lower().endswith(VOLUME_SUFFIXES):
        return "a volume: export the slices you mean as images"
    return "" if path.is_file() and is_image(path) else f"not an image ({path.suffix.lower() or 'no suffix'})"


# --- manifests ----------------------------------------------------------------------------------------------


def _list_manifest(manifest: Path) -> Listing:
    root = manifest.resolve().parent
    entries: dict[Path, Entry] = {}
    gone = []
    for number, row in _rows(manifest):
        where = f"{shown(manifest)}, line {number}"
        entry = _entry(row, root, where)
        if not entry.path.is_file():
            gone.append(f"{where}: {shown(row['path'])} is not there")
            continue
        earlier = entries.setdefault(entry.path, entry)
        if earlier.label != entry.label:
            both = f"{entry.label!r} here and {earlier.label!r} further up"
            raise InputError(f"{where}: {shown(row['path'])} is {both}, and {ONE_LABEL}")
        if earlier is not entry:
            raise InputError(f"{where}: {shown(row['path'])} is listed twice: remove one of the lines")
    if gone:
        more = f", nor {len(gone) - 1} more" if len(gone) > 1 else ""
        raise InputError(f"{gone[0]}{more}; paths are relative to {shown(root)}")
    ordered = tuple(sorted(entries.values(), key=lambda entry: os.fsencode(entry.path)))
    beside = (child for folder in {path.parent for path in entries} for child in folder.iterdir())
    unlisted = (path for path in beside if path not in entries and is_image(path))
    skipped = tuple(sorted((shown(path.relative_to(root)), "not in the manifest") for path in unlisted))
    name, origin = shown(f"{root.name}/{manifest.stem}"), f"manifest {shown(manifest.name)}"
    return Listing(root, name, origin, ordered, skipped)


def _rows(manifest: Path) -> list[tuple[int, dict[str, str]]]:
    """Cells of every row, by the names of `COLUMNS`, with the number of its line."""
    try:
        text = manifest.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{shown(manifest)} is not UTF-8 text: save it as CSV with UTF-8 encoding") from None
    separator = max(",;\t", key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        names = [name.strip() for name in next(reader, [])]
        rows = [(reader.line_num, row) for row in reader if any(row)]
    except csv.Error as error:
        where = f"{shown(manifest)}, line {reader.line_num}"
        raise InputError(f"{where}: {error}: it is not a whole table") from error
    for number, row in rows:
        if len(row) != len(names):
            where, advice = f"{shown(manifest)}, line {number}", "a cell with a separator in it needs quotes"
            raise InputError(f"{where} has not the {len(names)} cells of the first line: {advice}")
    columns = _columns(manifest, names, [row for _, row in rows])
    return [(number, {column: row[at].strip() for column, at in columns.items()}) for number, row in rows]


def _columns(manifest: Path, names: list[str], rows: list[list[str]]) -> dict[str, int]:
    """Where each of `COLUMNS` lies in the table."""
    lower = [name.lower() for name in names]
    chosen = {column: [name for name in known if name in lower] for column, known in COLUMNS.items()}
    if missing := [column for column in ("path", "label") if not chosen[column]]:
        flags = sum(set(cells) <= {"0", "1", "0.0", "1.0"} for cells in zip(*rows, strict=True))
        near = next((hint for name in names if (hint := did_you_mean(name, missing))), "")
        if missing == ["label"] and flags > 1:
            near = f" It has {flags} columns of 0 and 1: several labels an image; {ONE_LABEL}."
        raise InputError(
            f"{shown(manifest)} has no column {missing[0]}: its first line has {shown(', '.join(names)) or 'nothing'}; "
            f"wanted are path and label, and where there are such split and patient.{near}"
        )
    return {column: lower.index(found[0]) for column, found in chosen.items() if found}


def _entry(row: dict[str, str], root: Path, where: str) -> Entry:
    """Check one row."""
    label, split, patient = row["label"], row.get("split"), row.get("patient")
    if label.lower() in MISSING:
        raise InputError(f"{where} has no label ({label!r}): give one, or remove the line")
    if "|" in label or ";" in label:
        raise InputError(f"{where} has several labels ({label!r}), and {ONE_LABEL}; a name has no | and no ;")
    _class_name(label, f"{where}, {label!r}")
    if split is not None and split.lower() not in SPLIT_NAMES:
        advice = "every row needs one, or leave the column out"
        raise InputError(f"{where}: split {split!r} is none of train, val, test: {advice}")
    if patient is not None and patient.lower() in MISSING:
        raise InputError(f"{where} has no patient: every row needs one, or leave the column out")
    return Entry(
        _file(row["path"], root, where), label, SPLIT_NAMES.get((split or "").lower(), ""), patient or ""
    )


def _file(given: str, root: Path, where: str) -> Path:
    """File of a row, there or not; it must lie below the manifest's folder, links followed."""
    path = Path(os.path.normpath(root / given))
    try:
        if "\\" in given and not path.exists():
            path = Path(os.path.normpath(root / given.replace("\\", "/")))  # written on Windows
        real = path.resolve(strict=path.is_symlink())
    except (OSError, RuntimeError, ValueError) as error:
        problem = "a link that leads nowhere or back to itself, or no file name"
        raise InputError(f"{where}: {shown(given)} cannot be followed: {problem}") from error
    if not real.is_relative_to(root):
        advice = "only what lies below the manifest is read; move it to a folder above the images"
        raise InputError(f"{where}: {shown(given)} leads out of {shown(root)}: {advice}")
    return path
