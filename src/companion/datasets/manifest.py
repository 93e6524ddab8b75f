"""A table of paths and labels (CSV or TSV) becomes a list of files."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path

from companion.datasets.folders import SPLIT_NAMES
from companion.datasets.images import DICOM_SUFFIXES, IMAGE_SUFFIXES, shown
from companion.datasets.listing import Entry, Listing
from companion.errors import InputError, did_you_mean

MANIFEST_SUFFIXES = (".csv", ".tsv")
COLUMNS = {
    "path": ("path", "file", "filename", "image", "image_path"),
    "label": ("label", "class", "target", "diagnosis"),
    "split": ("split", "set", "subset"),
    "patient": ("patient", "patient_id", "patientid", "group", "subject", "subject_id"),
}
_MISSING = ("", "na", "n/a", "nan", "none", "null")
_SEVERAL = ("|", ";")


def scan(manifest: Path) -> Listing:
    """List the images of a manifest.

    The first row names the columns: ``path`` (relative to the manifest), ``label``, and where there are such
    ``split`` (train, val, test) and ``patient``. Commas, semicolons and tabs separate.

    Raises
    ------
    InputError
        If a column is missing, or a row has no label, no file, a path that leads out of the manifest's folder,
        several labels, or a split that is none.
    """
    rows, columns = _rows(manifest)
    root = manifest.resolve().parent
    entries: dict[Path, Entry] = {}
    gone = []
    for number, row in rows:
        where = f"{shown(manifest)}, line {number}"
        label = _label(row, columns, where)
        path = _path(row[columns["path"]].strip(), root, where)
        if path is None:
            gone.append((number, row[columns["path"]]))
            continue
        entry = Entry(path, label, _split(row, columns, where), _patient(row, columns, where))
        earlier = entries.setdefault(path, entry)
        if earlier.label != label:
            raise InputError(
                f"{where}: {shown(row[columns['path']])} is {label!r} here and {earlier.label!r} further up; the "
                "scores are defined for one label an image: several labels an image cannot be ranked for"
            )
        if earlier is not entry:
            raise InputError(
                f"{where}: {shown(row[columns['path']])} is listed twice: remove one of the lines"
            )
    if gone:
        more = f", nor {len(gone) - 1} more" if len(gone) > 1 else ""
        raise InputError(
            f"{shown(manifest)}, line {gone[0][0]}: {shown(gone[0][1])} is not there{more}; paths are relative to "
            f"{shown(root)}"
        )
    _check(manifest, list(entries.values()))
    ordered = tuple(sorted(entries.values(), key=lambda entry: os.fsencode(entry.path)))
    name, origin = shown(f"{root.name}/{manifest.stem}"), f"manifest {shown(manifest.name)}"
    return Listing(root, name, origin, ordered, _unlisted(root, set(entries)))


def _unlisted(root: Path, listed: set[Path]) -> tuple[tuple[str, str], ...]:
    """Images that lie beside listed ones and are not in the manifest."""
    found = [
        child
        for folder in {path.parent for path in listed}
        for child in folder.iterdir()
        if child.suffix.lower() in IMAGE_SUFFIXES | DICOM_SUFFIXES and child not in listed
    ]
    return tuple(sorted((shown(path.relative_to(root)), "not in the manifest") for path in found))


def _rows(manifest: Path) -> tuple[list[tuple[int, dict[str, str]]], dict[str, str]]:
    """Rows of the table with their line numbers, and which of its columns is which."""
    try:
        text = manifest.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{shown(manifest)} is not UTF-8 text: save it as CSV with UTF-8 encoding") from None
    first = text.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        names = [name.strip() for name in reader.fieldnames or []]
        reader.fieldnames = names
        rows = [(reader.line_num, row) for row in reader if any(row.values())]
    except csv.Error as error:
        raise InputError(
            f"{shown(manifest)}, line {reader.line_num}: {error}: it is not a whole table"
        ) from error
    columns = _columns(manifest, names, [row for _, row in rows])
    for number, row in rows:
        if None in row or any(row[column] is None for column in columns.values()):
            raise InputError(
                f"{shown(manifest)}, line {number} has not the {len(names)} cells of the first line: a cell with a "
                "separator in it needs quotes"
            )
    return rows, columns


def _columns(manifest: Path, names: list[str], rows: list[dict[str, str]]) -> dict[str, str]:
    lower = {name.lower(): name for name in reversed(names)}
    found = {}
    for column, known in COLUMNS.items():
        chosen = next((lower[name] for name in known if name in lower), None)
        if chosen is not None:
            found[column] = chosen
    for column in ("path", "label"):
        if column in found:
            continue
        flags = [n for n in names if rows and {row.get(n) for row in rows} <= {"0", "1", "0.0", "1.0"}]
        if column == "label" and len(flags) > 1:
            raise InputError(
                f"{shown(manifest)} has no column label but {len(flags)} columns of 0 and 1: several labels an image; "
                "the scores are defined for one label an image: give one column label"
            )
        near = next((hint for name in names if (hint := did_you_mean(name, [column]))), "")
        raise InputError(
            f"{shown(manifest)} has no column {column}: its first line has {shown(', '.join(names)) or 'nothing'}; "
            f"wanted are path and label, and where there are such split and patient.{near}"
        )
    return found


def _label(row: Mapping[str, str], columns: Mapping[str, str], where: str) -> str:
    label = row[columns["label"]].strip()
    if label.lower() in _MISSING:
        raise InputError(f"{where} has no label ({label!r}): give one, or remove the line")
    if any(mark in label for mark in _SEVERAL):
        raise InputError(
            f"{where} has several labels ({label!r}): the scores are defined for one label an image; give one, or "
            "write a name that is one without | and ;"
        )
    if not label.isprintable():
        raise InputError(f"{where} has a label that cannot be printed ({label!r}): rename it")
    return label


def _path(given: str, root: Path, where: str) -> Path | None:
    """File of a row, or None where there is none; it must lie below the manifest's folder, links followed."""
    if "\0" in given:
        raise InputError(f"{where}: a path cannot hold a zero byte")
    path = Path(os.path.normpath(root / given))
    if "\\" in given and not path.exists():
        path = Path(os.path.normpath(root / given.replace("\\", "/")))  # written on Windows
    try:
        real = path.resolve(strict=True)
    except FileNotFoundError:
        real = path.resolve()
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"{where}: {shown(given)} cannot be followed: a link that leads back to itself, or no file name"
        ) from error
    if not real.is_relative_to(root):
        raise InputError(
            f"{where}: {shown(given)} leads out of {shown(root)}: only what lies below the manifest is read; move the "
            "manifest to a folder above the images"
        )
    return path if given and real.is_file() else None


def _split(row: Mapping[str, str], columns: Mapping[str, str], where: str) -> str:
    if "split" not in columns:
        return ""
    given = row[columns["split"]].strip()
    if given.lower() not in SPLIT_NAMES:
        raise InputError(
            f"{where}: split {given!r} is none of train, val, test: every row needs one, or leave the column out"
        )
    return SPLIT_NAMES[given.lower()]


def _patient(row: Mapping[str, str], columns: Mapping[str, str], where: str) -> str:
    if "patient" not in columns:
        return ""
    given = row[columns["patient"]].strip()
    if given.lower() in _MISSING:
        raise InputError(f"{where} has no {columns['patient']}: every row needs one, or leave the column out")
    return given


def _check(manifest: Path, entries: list[Entry]) -> None:
    names = sorted({entry.label for entry in entries})
    if not names:
        raise InputError(f"{shown(manifest)} lists no images: there are no lines below the first")
    if len(names) == 1:
        raise InputError(f"{shown(manifest)} has one class only ({names[0]!r}): at least two are needed")
    if entries[0].split and not any(entry.split == "train" for entry in entries):
        raise InputError(f"{shown(manifest)} has no rows with split train: there is nothing to score")
