"""A folder of class folders, or a manifest of paths and labels, becomes a table of labelled image files."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd

from companion.datasets.images import DICOM_SUFFIXES, IMAGE_SUFFIXES, is_image
from companion.datasets.splits import SPLITS
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
MANY = 5  # top folders, from which on they may be patients


@dataclass(frozen=True)
class Options:
    """How a target of one's own is read; `companion.load_dataset` explains each."""

    root: str | os.PathLike | None = None
    patients_from_folder: int | None = None
    skip_unreadable: bool = False
    drop_classes: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.root is not None and not Path(self.root).is_dir():
            raise InputError(f"--root {shown(self.root)}: there is no such folder")
        if self.patients_from_folder is not None and self.patients_from_folder < 0:
            raise InputError(f"--patients-from-folder {self.patients_from_folder}: 0 for none, or 1 and more")

    def check(self, kind: str, *used: str) -> None:
        """Raise `InputError` for an option that is given and that this kind of target does not use."""
        for each in fields(self):
            if each.name not in used and getattr(self, each.name) not in (each.default, [], False):
                raise InputError(f"--{each.name.replace('_', '-')} does not apply to {kind}")

    def keep(self, where: str, classes: Sequence[str]) -> np.ndarray:
        """Mask of the classes that are not dropped; an `InputError` for a name that cannot be, or is not there."""
        for name in classes:
            if not name.isprintable():  # so are bytes that are not UTF-8
                problem = "the name of this class cannot be printed or is not UTF-8"
                raise InputError(f"{where}: {shown(name)}: {problem}: rename it")
        for name in self.drop_classes:
            if name not in classes:
                hint = did_you_mean(name, classes)
                raise InputError(f"{where}: no class {name!r} to drop: there are {', '.join(classes)}.{hint}")
        return ~np.isin(classes, self.drop_classes)


@dataclass(frozen=True)
class Listing:
    """Labelled image files, in an order that depends on their names only."""

    root: Path  # the folder that paths are shown relative to
    name: str  # as of the `Dataset` they become, like the next
    origin: str
    table: pd.DataFrame  # path, label, split and patient of every image; the last two "" where nobody says
    skipped: tuple[tuple[str, str], ...]  # (what, why) of everything that is no image of the dataset
    remarks: tuple[str, ...] = ()  # what was decided on the way that people should know

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            there = f"images of one class only ({self.classes[0]!r})" if self.classes else "no images"
            suffixes = ", ".join(sorted(IMAGE_SUFFIXES | DICOM_SUFFIXES))
            raise InputError(
                f"{self.origin} has {there}: wanted are two or more folders named by class, holding files ending in "
                f"{suffixes}, or a .csv or .tsv that lists paths and labels"
            )
        if self.parts and "train" not in self.parts:
            raise InputError(f"{self.origin} has images to test or validate on but none with split train")

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, sorted."""
        return tuple(sorted(self.table["label"].unique()))

    @property
    def labels(self) -> np.ndarray:
        """(n,) index of each image's class."""
        return np.searchsorted(self.classes, self.table["label"]).astype(np.int64)

    @property
    def parts(self) -> dict[str, np.ndarray]:
        """Indices of the images of every split, where splits are given."""
        split = self.table["split"].to_numpy()
        return {name: np.flatnonzero(split == name) for name in SPLITS if (split == name).any()}

    @property
    def has_patients(self) -> bool:
        """Whether the patients are known."""
        return bool((self.table["patient"] != "").any())

    @property
    def shared_patients(self) -> dict[str, list[str]]:
        """Patients that lie in more than one of the given splits, with these."""
        if not self.has_patients:
            return {}
        found = self.table.groupby("patient")["split"].unique()
        return {who: [split for split in SPLITS if split in of] for who, of in found.items() if len(of) > 1}

    def check_patients(self) -> None:
        """Raise `InputError` where a patient lies in more than one of the given splits."""
        for patient, splits in self.shared_patients.items():
            raise InputError(
                f"{shown(self.root)}: patient {patient!r} is in {' and '.join(splits)}: a patient's images belong in "
                "one split, or what is tested has been seen; leave the splits out and they are drawn here"
            )

    def only(self, keep: Sequence[int], remark: str) -> Listing:
        """Return the images at `keep`, with a remark on the others."""
        return replace(self, table=self.table.iloc[keep], remarks=(*self.remarks, remark))


def below(path: Path, root: Path) -> str:
    """Path as it is shown to people: relative to `root` where it lies below it."""
    return shown(path.relative_to(root) if path.is_relative_to(root) else path)


def list_images(path: Path, options: Options = Options()) -> Listing | None:
    """List the images of a folder or manifest; None where the path is a file of another kind.

    In a folder everything below a class folder belongs to the class, and links are followed. A manifest's first row
    names its columns: ``path`` (relative to the manifest), ``label``, and where there are such ``split`` (train, val,
    test) and ``patient``. Commas, semicolons and tabs separate. What cannot be a dataset is an `InputError`.
    """
    if path.is_dir():
        options.check("a folder", "patients_from_folder", "skip_unreadable", "drop_classes")
        found = _list_folder(path, options.patients_from_folder)
    elif path.suffix.lower() in MANIFEST_SUFFIXES:
        options.check("a manifest, which has a column for that", "root", "skip_unreadable", "drop_classes")
        found = _list_manifest(path, Path(options.root or path.parent))
    else:
        return None
    keep = options.keep(found.origin, found.classes)[found.labels]
    left_out = f"classes left out: {', '.join(options.drop_classes)}"
    return found if keep.all() else found.only(np.flatnonzero(keep).tolist(), left_out)


def _table(rows: list[tuple]) -> pd.DataFrame:
    # As objects: names that are not UTF-8 are refused later, and by name.
    return pd.DataFrame(rows, columns=["path", "label", "split", "patient"], dtype=object)


# --- folders ------------------------------------------------------------------------------------------------


def _list_folder(root: Path, level: int | None) -> Listing:
    splits = _split_folders(root)
    rows, skipped, tops, inside = [], [], set(), set()
    for top, split in (splits or {root: ""}).items():
        for path in (path for child in _children(top) for path in _walk(child)):
            folders = path.relative_to(top).parts[:-1]
            if why := _why_skipped(path) or ("" if folders else "in no class folder"):
                skipped.append((below(path, root), why))
                continue
            if level and len(folders) <= level:
                lacks = f"lies in no folder of a patient, {level} below that of its class"
                raise InputError(f"{shown(path)} {lacks}: --patients-from-folder")
            rows.append((path, folders[0], split, shown(folders[level]) if level else ""))
            tops.add(folders[0])
            inside.add(folders[1] if len(folders) > 1 else "")
    for path in (path for top in _children(root) if splits and top not in splits for path in _walk(top)):
        skipped.append((below(path, root), _why_skipped(path) or "beside the folders of the splits"))
    remarks: tuple[str, ...] = ()
    if level is None and inside - {""}:
        _check_order(root, tops, inside)
        remarks = ("class folders hold folders: where these are patients, say --patients-from-folder 1",)
    name, origin = shown(root.resolve().name), f"folder {shown(root.name)}"
    return Listing(root, name, origin, _table(rows), tuple(sorted(skipped)), remarks)


def _children(folder: Path) -> list[Path]:
    return sorted(folder.iterdir(), key=lambda path: os.fsencode(path.name))


def _hidden(path: Path) -> bool:
    return path.name.startswith(".") or path.name == "__MACOSX"


def _split_folders(root: Path) -> dict[Path, str]:
    """Folders of the splits, with their splits; none where the class folders lie at the top."""
    found: dict[Path, str] = {}
    for folder in _children(root):
        split = SPLIT_NAMES.get(folder.name.lower())
        if split is None or not folder.is_dir():
            continue
        if split in found.values():
            raise InputError(f"{shown(root)} has two folders for {split}, one of them {shown(folder.name)}")
        found[folder] = split
    return found


def _walk(path: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Files below a folder, links followed; the path itself where it is a file, hidden or empty."""
    children = _children(path) if path.is_dir() and not _hidden(path) else []
    if not children:
        yield path
        return
    real = path.resolve()
    if real in above:
        raise InputError(f"{shown(path)} is a link that leads back to a folder it lies in: remove it")
    for child in children:
        yield from _walk(child, (*above, real))


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
    root, content = root.resolve(), manifest.read_bytes()
    remarks: tuple[str, ...] = ()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("cp1252", "replace")  # as spreadsheets on Windows write it
        remarks = (f"{shown(manifest.name)} is not UTF-8 text and was read as Latin-1 (Windows-1252)",)
    rows: dict[Path, tuple] = {}
    for where, row in _rows(shown(manifest), text):
        path = _file(row["path"], root, where)
        if path in rows:
            labels = f"{rows[path][1]!r} further up and {row['label']!r} here"
            raise InputError(
                f"{where}: {shown(row['path'])} is listed twice, {labels}: remove one of the lines"
            )
        rows[path] = (path, *_checked(row, where))
    beside = (
        path for folder in {path.parent for path in rows if path.is_file()} for path in folder.iterdir()
    )
    unlisted = (below(path, root) for path in beside if path not in rows and is_image(path))
    skipped = tuple((path, "not in the manifest") for path in sorted(unlisted))
    table = _table([rows[path] for path in sorted(rows, key=os.fsencode)])
    name = shown(f"{manifest.resolve().parent.name}/{manifest.stem}")
    return Listing(root, name, f"manifest {shown(manifest.name)}", table, skipped, remarks)


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
