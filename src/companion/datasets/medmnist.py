"""The MedMNIST 2D datasets: what they hold, where their files are, and how one becomes a `Dataset`."""

from __future__ import annotations

import functools
import importlib.metadata
import runpy
from pathlib import Path

import numpy as np

from companion import store
from companion.datasets.arrays import read_npz
from companion.datasets.dataset import Dataset, task_of
from companion.datasets.images import Progress


@functools.cache
def info() -> dict[str, dict]:
    """MedMNIST's own table of its 2D datasets, read without importing the package (which imports torch)."""
    table = runpy.run_path(str(importlib.metadata.distribution("medmnist").locate_file("medmnist/info.py")))
    return {flag: about for flag, about in table["INFO"].items() if not flag.endswith("3d")}


def medmnist_flags(*, single_label: bool = False) -> tuple[str, ...]:
    """Return the flags of the twelve MedMNIST 2D datasets (the eleven single-label ones on request)."""
    return tuple(
        flag for flag, about in info().items() if not (single_label and "multi-label" in about["task"])
    )


def medmnist_classes() -> dict[str, list[str]]:
    """Class names of every MedMNIST 2D dataset (findings of ChestMNIST), in the order of their labels."""
    return {flag: list(about["label"].values()) for flag, about in info().items()}


def medmnist_samples() -> dict[str, dict[str, int]]:
    """Number of images of every split of every MedMNIST 2D dataset, as its publisher gives them."""
    return {flag: dict(about["n_samples"]) for flag, about in info().items()}


def cached_file(flag: str, size: int) -> Path | None:
    """File of a MedMNIST flag where it is on this machine; None where it would be downloaded."""
    filename = f"{flag}{_suffix(size)}.npz"
    theirs = Path("~/.medmnist").expanduser() / filename
    return store.look_up(filename) or (theirs if theirs.is_file() else None)


def _suffix(size: int) -> str:
    return "" if size == 28 else f"_{size}"


def load(flag: str, size: int, *, progress: Progress | None = None) -> Dataset:
    """Load a MedMNIST dataset, downloading its file where it is not on this machine."""
    about, suffix = info()[flag], _suffix(size)
    path = cached_file(flag, size) or store.data_dir() / f"{flag}{suffix}.npz"
    if progress and not path.is_file():
        progress(f"downloading {path.name} to {path.parent}")
    store.fetch(about[f"url{suffix}"], path, checksum=f"md5:{about[f'MD5{suffix}']}")
    arrays = read_npz(path)
    multi_label = "multi-label" in about["task"]
    labels = {split: values.astype(np.int64) for split, (_, values) in arrays.items()}
    if not multi_label:
        labels = {split: values.reshape(len(values)) for split, values in labels.items()}
    classes = tuple(about["label"][str(index)] for index in range(len(about["label"])))
    return Dataset(
        name=flag,
        images={split: images for split, (images, _) in arrays.items()},
        labels=labels,
        classes=classes,
        task="multi-label" if multi_label else task_of(classes),
        origin=f"MedMNIST, {about['license']}",
    )
