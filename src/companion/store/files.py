"""Directories, hashes and atomic writes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

import platformdirs

from companion.errors import InputError, SurroundingsError

# `--data-dir` sets this for the length of one command or one `with` block.
_data_directory: ContextVar[Path | None] = ContextVar("data_directory", default=None)


def cache_dir() -> Path:
    """Directory for what this package makes itself (models trained here, downloaded weights).

    The environment variable ``COMPANION_CACHE`` names it; otherwise it is the user's cache directory.
    """
    named = os.environ.get("COMPANION_CACHE")
    return Path(named).expanduser() if named else Path(platformdirs.user_cache_dir("companion"))


def data_dir() -> Path:
    """Directory where datasets are looked up and downloaded to.

    In this order: the directory set by `data_directory` (the command line's ``--data-dir``), the environment
    variable ``COMPANION_DATA``, the folder ``data`` in the user's cache directory.
    """
    if (chosen := _data_directory.get()) is not None:
        return chosen
    named = os.environ.get("COMPANION_DATA")
    return Path(named).expanduser() if named else cache_dir() / "data"


@contextlib.contextmanager
def data_directory(path: str | os.PathLike | None) -> Iterator[None]:
    """Use `path` as the data directory inside the ``with`` block; None leaves the setting as it is.

    Raises
    ------
    InputError
        If `path` exists and is not a directory.
    """
    if path is None:
        yield
        return
    directory = Path(path).expanduser()
    if directory.exists() and not directory.is_dir():
        raise InputError(f"data directory {directory} is a file: name a folder")
    token = _data_directory.set(directory)
    try:
        yield
    finally:
        _data_directory.reset(token)


def file_hash(path: str | os.PathLike, algorithm: str = "sha256") -> str:
    """Hex digest of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path`, on any failure it is removed.

    A reader therefore sees the old file or the whole new one, never half of it.

    Raises
    ------
    SurroundingsError
        If the folder cannot be written or the disk is full.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
    except OSError as error:
        raise SurroundingsError(f"cannot write in {target.parent}: {error.strerror or error}") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files private; what is stored here is as readable as any other file of the user.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, target)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise SurroundingsError(f"cannot write {target}: {error.strerror}") from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: str | os.PathLike) -> None:
    """See before long work, and without writing anything, that a file can be written at `path`.

    Raises
    ------
    InputError
        If `path` is a folder, lies below a file, or its folder cannot be written.
    """
    target = Path(path)
    if target.is_dir():
        raise InputError(f"cannot write {target}: it is a folder")
    parent = next(folder for folder in target.absolute().parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(f"cannot write {target}: {parent} is not a folder that can be written")


def write_text(path: str | os.PathLike, text: str) -> Path:
    """Write `text` to `path` atomically, as UTF-8, and return the path."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)
