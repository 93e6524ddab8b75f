"""Many image files: work on them on several threads, and images that stay on disk until they are asked for."""

from __future__ import annotations

import functools
import hashlib
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from companion.datasets.decoding import read

WORKERS = min(8, os.cpu_count() or 1)

Item = TypeVar("Item")
Result = TypeVar("Result")
Progress = Callable[[str], None]


def in_parallel(
    work: Callable[[Item], Result], items: Sequence[Item], *, what: str, progress: Progress | None = None
) -> list[Result]:
    """Apply `work` to every item on several threads, in order; of several errors the first item's is raised.

    Pillow and pydicom's decoders let other threads run meanwhile. After an error or Ctrl-C nothing new begins.
    """
    found: list[Result] = []
    with warnings.catch_warnings(), ThreadPoolExecutor(WORKERS) as pool:
        # Remarks on odd metadata, and on sizes under the limit that is checked here.
        warnings.simplefilter("ignore")
        for result in pool.map(work, items):
            found.append(result)
            if progress and (len(found) % 50 == 0 or len(found) == len(items)):
                progress(f"{what}: {len(found):,} of {len(items):,}")
    return found


def file_digest(path: Path) -> bytes:
    """sha256 of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


class ImageFiles:
    """Images that stay on disk and are decoded when they are asked for; otherwise like the array they would make.

    `size`, `grey` and `bits` are those of `companion.datasets.decoding.read`.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, paths: Sequence[Path], size: int, *, grey: bool, bits: int = 16) -> None:
        self.paths, self._options = list(paths), {"grey": grey, "bits": bits}
        self.shape = (len(self.paths), size, size) if grey else (len(self.paths), size, size, 3)
        self.ndim, self.nbytes = len(self.shape), int(np.prod(self.shape))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Any) -> np.ndarray:
        if isinstance(index, tuple):
            return np.asarray(self)[index]
        chosen = np.arange(len(self))[index]
        return self._read(int(chosen)) if chosen.ndim == 0 else self.decode(chosen)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.decode(np.arange(len(self))).astype(dtype or self.dtype, copy=False)

    def _read(self, index: int) -> np.ndarray:
        return read(self.paths[index], self.shape[1], **self._options)  # type: ignore[arg-type]

    def decode(self, index: np.ndarray, *, progress: Progress | None = None) -> np.ndarray:
        """Images `index` as one array; each is decoded straight to its place."""
        out = np.empty((len(index), *self.shape[1:]), np.uint8)

        def place(position: int) -> None:
            out[position] = self._read(int(index[position]))

        in_parallel(place, range(len(index)), what="reading images", progress=progress)
        return out

    @functools.cached_property
    def digests(self) -> list[bytes]:
        """sha256 of the bytes of every file."""
        return in_parallel(file_digest, self.paths, what="hashing")

    def file_digest(self) -> bytes:
        """sha256 over the bytes of the files and the form they are decoded to."""
        total = hashlib.sha256(repr((self.shape, self._options)).encode())
        for digest in self.digests:
            total.update(digest)
        return total.digest()
