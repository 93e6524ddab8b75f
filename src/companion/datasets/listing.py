"""A folder of class folders, or a manifest of paths and labels, becomes a table of labelled image files."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from companion.datasets.dataset import Options
from companion.datasets.images import is_image
from companion.errors import InputError, did_you_mean, shown

MANIFEST_SUFFIXES = (".csv", ".tsv")
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
MANY = 5  # top folders, from which on they may be patients


@dataclass(frozen=True)
class Listing:
    """Labelled image files, in an order that depends on their names only."""

    root: Path  # the folder that paths are shown relative to
    name: str  # as of the `Dataset` they become, like the next
    origin: str
    table: pd.DataFrame  # path, label, split and patient of every image; the last two "" where nobody says
    skipped: tuple[tuple[str, str], ...] = ()  # (what, why) of everything that is no image of the dataset
    notes: tuple[str, ...] = ()  # what was decided on the way that people should know


def below(path: Path, root: Path) -> str:
    """Path as it is shown to people: relative to `root` where it lies below it."""
    return shown(path.relative_to(root) if path.is_relative_to(root) else path)


def list_images(path: Path, options: Options) -> Listing | None:
    """List the images of a folder or manifest; None where the path is a file of another kind.

    In a folder everything below a class folder belongs to the class, and links are followed. A manifest's first row
    names its columns: ``path`` (relative to the manifest), ``label``, and where there are such ``split`` (train, val,
    test) and ``patient``. Commas, semicolons and tabs separate. What cannot be a dataset is an `InputError`.
    """
    if path.is_dir():
        options.refuse("a folder", "root")
        found = _list_folder(path, options.patients_from_folder)
    elif path.suffix.lower() in MANIFEST_SUFFIXES:
        options.refuse("a manifest, which has a column for that", "patients_from_folder")
        found = _list_manifest(path, Path(options.root or path.parent))
    else:
        return None
    kept = options.kept(found.origin, found.table)
    left_out = [f"classes left out: {', '.join(options.drop_classes)}"] if options.drop_classes else []
    return replace(found, table=found.table[kept], notes=(*found.notes, *left_out))


def _table(rows: list[tuple]) -> pd.DataFrame:
    # As objects: names that are not UTF-8 are refused later, and by name.
    return pd.DataFrame(rows, columns=["path", "label", "split", "patient"], dtype=object)


# --- folders ------------------------------------------------------------------------------------------------


def _list_folder(root: Path, level: int | None) -> Listing:
    splits = _split_folders(root)
    rows, skipped, tops, inside = [], [], set(), set()
    for path in _walk(root):
        top = root / path.relative_to(root).parts[0] if splits else root
        folders = path.relative_to(top).parts[:-1]
        why = ""
        if not (path.is_file() and is_image(path)):  # or a link that leads nowhere
            why = f"not an image ({path.suffix.lower() or 'no suffix'})"
        elif splits and top not in splits:
            why = "beside the folders of the splits"
        elif not folders:
            why = "in no class folder"
        if why:
            skipped.append((below(path, root), why))
            continue
        if level and len(folders) <= level:
            lacks = f"lies in no folder of a patient, {level} below that of its class"
            raise InputError(f"{shown(path)} {lacks}: --patients-from-folder")
        rows.append((path, folders[0], splits.get(top, ""), shown(folders[level]) if level else ""))
        tops.add(folders[0])
        inside.add(folders[1] if len(folders) > 1 else "")
    notes: tuple[str, ...] = ()
    if level is None and inside - {""}:
        _check_order(root, tops, inside)
        notes = ("class folders hold folders: where these are patients, say --patients-from-folder 1",)
    name, origin = shown(root.resolve().name), f"folder {shown(root.name)}"
    return Listing(root, name, origin, _table(rows), tuple(sorted(skipped)), notes)


def _children(folder: Path) -> list[Path]:
    """What lies in a folder and is not hidden, in an order that is the same everywhere."""
    seen = (path for path in folder.iterdir() if not path.name.startswith(".") and path.name != "__MACOSX")
    return sorted(seen, key=lambda path: os.fsencode(path.name))


def _split_folders(root: Path) -> dict[Path, str]:
    """Folders of the splits, with their splits; none where the class folders lie at the top."""
    found: dict[Path, str] = {}
    for folder in _children(root):
        split = SPLIT_NAMES.get(folder.name.lower())
        if split and folder.is_dir():
            if split in found.values():
                raise InputError(
                    f"{shown(root)} has two folders for {split}, one of them {shown(folder.name)}"
                )
            found[folder] = split
    return found


def _walk(path: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Files below a folder, links followed."""
    if not path.is_dir():
        yield path
        return
    real = path.resolve()
    if real in above:
        raise InputError(f"{shown(path)} is a link that leads back to a folder it lies in: remove it")
    for child in _children(path):
        yield from _walk(child, (*above, real))


def _check_order(root: Path, tops: set[str], inside: set[str]) -> None:
    """Refuse folders of patients that hold class folders: many at the top, and the same few names in all."""
    if "" not in inside and len(tops) >= MANY and 2 <= len(inside) <= len(tops) // 2:
        same = f"its {len(tops)} folders hold the same few ({shown(', '.join(sorted(inside)[:3]))})"
        raise InputError(
            f"{shown(root)}: {same}, like patients that hold classes: put the class folders on top, or list the files "
            "in a .csv with path, label and patient; if the top folders are classes, say --patients-from-folder 0"
        )


# --- manifests ----------------------------------------------------------------------------------------------


def _list_manifest(manifest: Path, root: Path) -> Listing:
    root, content, notes = root.resolve(), manifest.read_bytes(), []
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("cp1252", "replace")  # as spreadsheets on Windows write it
        notes.append(f"{shown(manifest.name)} is not UTF-8 text and was read as Latin-1 (Windows-1252)")
    rows: dict[Path, tuple] = {}
    for where, row in _rows(shown(manifest), text):
        path, label = _file(row["path"], root, where), row["label"]
        if path in rows:
            labels = f"{rows[path][1]!r} further up and {label!r} here"
            raise InputError(
                f"{where}: {shown(row['path'])} is listed twice, {labels}: remove one of the lines"
            )
        rows[path] = (path, *_checked(row, where))
    table = _table([rows[path] for path in sorted(rows, key=os.fsencode)])
    name = shown(f"{manifest.resolve().parent.name}/{manifest.stem}")
    return Listing(root, name, f"manifest {shown(manifest.name)}", table, notes=tuple(notes))


def _rows(manifest: str, text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Where each row stands, for an error, and its cells by the names of `COLUMNS`."""
    separator = max(",;\t", key=text.partition("\n")[0].count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        columns = _columns(manifest, list(reader.fieldnames or ()))
        for row in reader:
            where = f"{manifest}, line {reader.line_num}"
            if None in row or None in row.values():
                cells = f"has not the {len(reader.fieldnames or ())} cells of the first line"
                raise InputError(f"{where} {cells}: a cell with a separator in it needs quotes")
            if any(row.values()):
                yield where, {column: row[name].strip() for column, name in columns.items()}
    except csv.Error as error:
        raise InputError(f"{manifest}, line {reader.line_num}: {error}: it is not a whole table") from error


def _columns(manifest: str, names: list[str]) -> dict[str, str]:
    """What each of `COLUMNS` is called in the table."""
    called = {name.strip().lower(): name for name in reversed(names)}
    found = {
        column: called[name]
        for column, known in COLUMNS.items()
        for name in reversed(known)
        if name in called
    }
    if missing := [column for column in ("path", "label") if column not in found]:
        near = next((hint for name in names if (hint := did_you_mean(name, missing))), "")
        raise InputError(
            f"{manifest} has no column {missing[0]}: its first line has {shown(', '.join(names)) or 'nothing'}; "
            f"wanted are path and label ({ONE_LABEL}), and where there are such split and patient.{near}"
        )
    return found


def _checked(row: dict[str, str], where: str) -> tuple[str, str, str]:
    """Label, split and patient of a row."""
    label, split, patient = row["label"], row.get("split"), row.get("patient")
    if label.lower() in MISSING:
        raise InputError(f"{where} has no label ({label!r}): give one, or remove the line")
    if "|" in label or ";" in label:
        raise InputError(f"{where} has several labels ({label!r}), and {ONE_LABEL}; a name has no | and no ;")
    advice = "every row needs one, or leave the column out"
    if split is not None and split.lower() not in SPLIT_NAMES:
        raise InputError(f"{where}: split {split!r} is none of train, val, test: {advice}")
    if patient is not None and patient.lower() in MISSING:
        raise InputError(f"{where} has no patient: {advice}")
    return label, SPLIT_NAMES.get((split or "").lower(), ""), shown(patient or "")


def _file(given: str, root: Path, where: str) -> Path:
    """File of a row, there or not; it must lie below `root`, links followed."""
    path = Path(os.path.normpath(root / given))
    try:
        if "\\" in given and not path.exists():
            path = Path(os.path.normpath(root / given.replace("\\", "/")))  # written on Windows
        real = path.resolve(strict=path.is_symlink())
    except (OSError, RuntimeError, ValueError) as error:
        problem = "a link that leads nowhere or back to itself, or no file name"
        raise InputError(f"{where}: {shown(given)} cannot be followed: {problem}") from error
    if not real.is_relative_to(root):
        advice = "only what lies below that folder is read; --root DIR names another"
        raise InputError(f"{where}: {shown(given)} leads out of {shown(root)}: {advice}")
    return path
