"""Natural images to pre-train small models on: a seeded subset of CIFAR-10, made once from the official archive."""

from __future__ import annotations

import tarfile
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from companion import store
from companion.datasets.images import Progress

NAME = "cifar10_32"
URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CHECKSUM = "md5:c32a1d4ab5d03f1284b67883e8d87530"  # as published on the page of the dataset
CLASSES = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())
PER_CLASS = {"train": 300, "val": 30, "test": 60}
SEED = 24
_SIDE = 32
_RECORD = 1 + 3 * _SIDE * _SIDE  # a label, then red, green and blue planes


def make(path: Path, *, progress: Progress | None = None) -> Path:
    """Download CIFAR-10's binary archive, kept beside `path`, and write the subset as `path`, a ``.npz``.

    Its checksum is the published one; nothing in it is unpickled or extracted to disk.
    """
    if progress:
        progress(f"downloading CIFAR-10 to {path.parent} (170 MB, once)")
    archive = store.fetch(URL, path.with_name(URL.rsplit("/", 1)[-1]), checksum=CHECKSUM)
    batches = {}
    with tarfile.open(archive, "r:gz") as opened:
        for member in opened:
            if member.name.endswith(".bin") and (stream := opened.extractfile(member)):
                records = np.frombuffer(stream.read(), np.uint8).reshape(-1, _RECORD)
                batches[PurePosixPath(member.name).name] = records
    rng = np.random.default_rng(SEED)
    test = batches.pop("test_batch.bin")
    training = np.concatenate([batches[name] for name in sorted(batches)])
    drawn = _draw(training, ("train", "val"), rng) | _draw(test, ("test",), rng)
    arrays: dict[str, Any] = {}
    for split, records in drawn.items():
        planes = records[:, 1:].reshape(-1, 3, _SIDE, _SIDE)
        arrays[f"{split}_images"] = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
        arrays[f"{split}_labels"] = np.array(CLASSES)[records[:, 0]]
    with store.atomic_path(path) as temporary, open(temporary, "wb") as stream:
        np.savez_compressed(stream, **arrays)
    return path


def _draw(records: np.ndarray, splits: tuple[str, ...], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw each split's number of images a class, without replacement; the splits share none."""
    parts: dict[str, list[np.ndarray]] = {split: [] for split in splits}
    ends = np.cumsum([PER_CLASS[split] for split in splits])
    for label in range(len(CLASSES)):
        members = rng.permutation(np.flatnonzero(records[:, 0] == label))
        for split, chosen in zip(splits, np.split(members[: ends[-1]], ends[:-1]), strict=True):
            parts[split].append(records[chosen])
    return {split: np.concatenate(found) for split, found in parts.items()}
