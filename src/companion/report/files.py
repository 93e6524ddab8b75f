"""Folders of reports: looked at before any work, written whole or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from companion import store
from companion.errors import InputError

RANKING_FILES = ("ranking.csv", "ranking.json", "ranking.png", "ranking.html")


def check_folder(folder: Path, *, force: bool, files: Sequence[str] = RANKING_FILES) -> None:
    """See before any work that the report can be written where it is wanted.

    Raises
    ------
    InputError
        If the path is a file, cannot be written, or holds a report and `force` is False.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: name a folder with --out")
    present = [name for name in files if (folder / name).exists()]
    if present and not force:
        raise InputError(
            f"{folder} holds {present[0]} already: give another --out, or --force to overwrite it"
        )
    store.check_writable(folder / files[0])


def write_all(folder: Path, contents: Mapping[str, bytes]) -> list[Path]:
    """Write files by name; all of them or, on failure, none."""
    with contextlib.ExitStack() as stack:  # all are written before the first is put in place
        for name, content in contents.items():
            stack.enter_context(store.atomic_path(folder / name)).write_bytes(content)
    return [folder / name for name in contents]
