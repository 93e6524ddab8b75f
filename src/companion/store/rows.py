"""A store of result rows that survives anything: one small file a row, written whole or not at all.

Rows are named by a key that is a digest of everything that decides the result, so rows of another protocol, other data
or another results version can lie in the same folder and are never mixed up.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from companion.errors import SurroundingsError
from companion.store.files import write_text
from companion.store.provenance import digest


class RowStore:
    """Rows in a folder.

    Parameters
    ----------
    folder
        Made where it is missing. Below it: ``rows`` (one JSON file each), ``locks`` (who works on what) and
        ``set-aside`` (files that could not be read).
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = Path(folder)

    def path(self, key: str) -> Path:
        """File of a row."""
        return self.folder / "rows" / f"{key}.json"

    def write(self, key: str, row: dict[str, Any]) -> None:
        """Store a row under its key, atomically; one that is there already is kept.

        Raises
        ------
        SurroundingsError
            If the disk is full or the folder cannot be written; nothing half-written stays.
        """
        if not self.path(key).exists():
            write_text(self.path(key), json.dumps({"key": key, "check": digest(row), "row": row}))

    def read(self, keys: Iterable[str]) -> tuple[dict[str, dict[str, Any]], list[Path]]:
        """Read the rows that are there.

        Returns
        -------
        rows
            Key -> row.
        set_aside
            Where files that were damaged have been moved to; their rows are missing now and can be made again.
        """
        rows, damaged = {}, []
        for key in keys:
            path = self.path(key)
            try:
                stored = json.loads(path.read_text(encoding="utf-8"))
                if stored["key"] != key or stored["check"] != digest(stored["row"]):
                    raise ValueError("another row, or a changed one")
                rows[key] = stored["row"]
            except FileNotFoundError:
                continue
            except (ValueError, KeyError, TypeError, RecursionError):
                aside = self.folder / "set-aside" / path.name
                aside.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileNotFoundError):  # another process was quicker
                    os.replace(path, aside)
                    damaged.append(aside)
        return rows, damaged

    @contextlib.contextmanager
    def claim(self, key: str) -> Iterator[bool]:
        """Claim a row for this process; False where another one is at work on it.

        The operating system takes the claim back when a process ends, however it ends.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self.folder / "locks" / f"{key}.lock", timeout=0)
        try:
            Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            yield False
            return
        except OSError as error:
            raise SurroundingsError(f"cannot write in {self.folder}: {error.strerror or error}") from error
        try:
            yield True
        finally:
            with contextlib.suppress(FileNotFoundError):
                Path(lock.lock_file).unlink()
            lock.release()
