"""A folder of class folders, with or without train, val and test above them, becomes a list of files."""

from __future__ import annotations

import os
from pathlib import Path

from companion.datasets.images import DICOM_SUFFIXES, IMAGE_SUFFIXES, is_dicom, shown
from companion.datasets.listing import Entry, Listing
from companion.errors import InputError

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
_VOLUMES = (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd")
_MANIFESTS = (".csv", ".tsv")


def scan(root: Path) -> Listing:
    """List the images of a folder.

    Class folders may hold folders of their own; everything below belongs to the class. Links are followed.

    Raises
    ------
    InputError
        If there are no images, only one class, two folders of one split or none to train on, a link that leads
        back, or a class whose name is not UTF-8.
    """
    skipped: list[tuple[Path, str]] = []
    top = _folders(root, skipped)
    by_split: dict[str, Path] = {}
    for folder in top:
        split = SPLIT_NAMES.get(folder.name.lower())
        if split in by_split:
            raise InputError(
                f"{shown(root)} has two folders for {split}: {shown(by_split[split].name)} and {shown(folder.name)}"
            )
        if split:
            by_split[split] = folder
    if by_split and "train" not in by_split:
        raise InputError(
            f"{shown(root)} has a folder {next(iter(by_split.values())).name} but none named train"
        )
    if by_split:
        skipped += [
            (folder, "beside the folders of the splits") for folder in top if folder not in by_split.values()
        ]
    entries: list[Entry] = []
    for split, above in (by_split or {"": root}).items():
        for folder in _folders(above, skipped) if by_split else top:
            files = _images(folder, skipped)
            if not files:
                skipped.append((folder, "no images in it"))
            entries += [Entry(file, _class_name(folder), split) for file in files]
        skipped += [(file, _stray(file)) for file in _files(above)]
    if by_split:
        skipped += [(file, _stray(file)) for file in _files(root)]
    _check(root, entries)
    found = tuple(sorted((shown(path.relative_to(root)), why) for path, why in set(skipped)))
    return Listing(root, shown(root.resolve().name), f"folder {shown(root.name)}", tuple(entries), found)


def _check(root: Path, entries: list[Entry]) -> None:
    names = sorted({entry.label for entry in entries})
    manifest = next((f.name for f in _files(root) if f.suffix.lower() in _MANIFESTS), None)
    hint = f"; if {shown(manifest)} lists paths and labels, name that file as the target" if manifest else ""
    if not names:
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES | DICOM_SUFFIXES))
        raise InputError(
            f"{shown(root)} has no images: wanted are folders named by class, holding files ending in {suffixes}{hint}"
        )
    if len(names) == 1:
        raise InputError(
            f"{shown(root)} has images of one class only ({names[0]!r}): at least two class folders are needed{hint}"
        )


def _class_name(folder: Path) -> str:
    try:
        folder.name.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(f"{shown(folder)}: the name of this class is not valid UTF-8: rename it") from None
    if not folder.name.isprintable():
        raise InputError(f"{shown(folder)}: the name of this class cannot be printed: rename it")
    return folder.name


def _hidden(path: Path) -> bool:
    return path.name.startswith(".") or path.name == "__MACOSX"


def _children(folder: Path) -> list[Path]:
    return sorted(folder.iterdir(), key=lambda path: os.fsencode(path.name))


def _folders(folder: Path, skipped: list[tuple[Path, str]]) -> list[Path]:
    found = [child for child in _children(folder) if child.is_dir()]
    skipped += [(child, "hidden") for child in found if _hidden(child)]
    return [child for child in found if not _hidden(child)]


def _files(folder: Path) -> list[Path]:
    return [child for child in _children(folder) if not child.is_dir()]


def _stray(path: Path) -> str:
    """Say why a file outside the class folders, or of another kind, is left out."""
    suffix = path.suffix.lower()
    if _hidden(path):
        return "hidden"
    if path.is_symlink() and not path.exists():
        return "a link that leads nowhere"
    if path.name.lower().endswith(_VOLUMES):
        return "a volume: export the slices you mean as images"
    if suffix in IMAGE_SUFFIXES or is_dicom(path):
        return "in no class folder"
    return f"not an image ({suffix or 'no suffix'})"


def _images(folder: Path, skipped: list[tuple[Path, str]], above: tuple[Path, ...] = ()) -> list[Path]:
    """Images in a folder and below; a link that leads back to a folder it lies in would never end."""
    try:
        real = folder.resolve(strict=True)
    except (OSError, RuntimeError):
        real = None
    if real is None or real in above:
        raise InputError(f"{shown(folder)} is a link that leads back to a folder it lies in: remove it")
    found = []
    for child in _children(folder):
        if child.is_dir():
            if _hidden(child):
                skipped.append((child, "hidden"))
            else:
                found += _images(child, skipped, (*above, real))
        elif (
            not _hidden(child)
            and child.is_file()
            and (child.suffix.lower() in IMAGE_SUFFIXES or is_dicom(child))
        ):
            found.append(child)
        else:
            skipped.append((child, _stray(child)))
    return found
