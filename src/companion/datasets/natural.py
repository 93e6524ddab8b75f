"""Natural images to pre-train small models on: a seeded subset of CIFAR-10, made once from the official archive."""

from __future__ import annotations

import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from companion import store
from companion.datasets.images import Progress
from companion.errors import InputError

NAME = "cifar10_32"
URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CHECKSUM = "md5:c32a1d4ab5d03f1284b67883e8d87530"  # as published on the page of the dataset
CLASSES = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())
PER_CLASS = {"train": 300, "val": 30, "test": 60}
SEED = 24
_SIDE = 32
_RECORD = 1 + 3 * _SIDE * _SIDE  # a label, then red, green and blue planes
_TEST = "test_batch.bin"
_LARGEST = 64 << 20  # bytes of one member; the official ones have 31 MB


def make(path: Path, *, progress: Progress | None = None) -> Path:
    """Download CIFAR-10's binary archive, kept beside `path`, and write the subset as `path`, a ``.npz``.

    Nothing in it is unpickled or extracted to disk; a damaged one is an `InputError`.
    """
    if progress:
        progress(f"downloading CIFAR-10 to {path.parent} (170 MB, once)")
    archive = store.fetch(URL, path.with_name(URL.rsplit("/", 1)[-1]), checksum=CHECKSUM)
    batches = _batches(archive)
    rng = np.random.default_rng(SEED)
    test = batches.pop(_TEST)
    training = np.concatenate([batches[name] for name in sorted(batches)])
    drawn = _draw(training, ("train", "val"), rng, archive) | _draw(test, ("test",), rng, archive)
    arrays: dict[str, Any] = {}
    for split, records in drawn.items():
        planes = records[:, 1:].reshape(-1, 3, _SIDE, _SIDE)
        arrays[f"{split}_images"] = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
        arrays[f"{split}_labels"] = np.array(CLASSES)[records[:, 0]]
    with store.atomic_path(path) as temporary, open(temporary, "wb") as stream:
        np.savez_compressed(stream, **arrays)
    return path


def _batches(archive: Path) -> dict[str, np.ndarray]:
    """Records (n, 3073) of every batch of the archive, by file name."""
    found = {}
    try:
        with tarfile.open(archive, "r:gz") as opened:
            for member in opened:
                name = PurePosixPath(member.name).name
                if not name.endswith(".bin") or not member.isfile():
                    continue
                stream = opened.extractfile(member)
                if stream is None or member.size > _LARGEST or member.size % _RECORD:
                    raise InputError(f"{archive}: {member.name} is no batch of CIFAR-10; delete the archive")
                found[name] = np.frombuffer(stream.read(), np.uint8).reshape(-1, _RECORD)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise InputError(f"{archive} is not a whole archive: delete it and try again") from error
    if _TEST not in found or len(found) < 2:
        raise InputError(f"{archive} lacks CIFAR-10's binary batches: delete it and try again")
    return found


def _draw(
    records: np.ndarray, splits: tuple[str, ...], rng: np.random.Generator, archive: Path
) -> dict[str, np.ndarray]:
    """Draw each split's number of images a class, without replacement; the splits share none."""
    parts: dict[str, list[np.ndarray]] = {split: [] for split in splits}
    ends = np.cumsum([PER_CLASS[split] for split in splits])
    for label, name in enumerate(CLASSES):
        members = rng.permutation(np.flatnonzero(records[:, 0] == label))
        if len(members) < ends[-1]:
            raise InputError(f"{archive} has {len(members)} images of {name}: too few; delete it")
        for split, chosen in zip(splits, np.split(members[: ends[-1]], ends[:-1]), strict=True):
            parts[split].append(records[chosen])
    return {split: np.concatenate(found) for split, found in parts.items()}
