"""`load_dataset`: a name or a path becomes a `Dataset`."""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from companion import store
from companion.datasets import folders, manifest, natural, procedural
from companion.datasets.arrays import load_npz, read_npz
from companion.datasets.dataset import SIZES, SPLITS, Dataset, check
from companion.datasets.images import shown
from companion.datasets.listing import Listing, assemble
from companion.errors import EnvironmentFailure, InputError, did_you_mean

DEFAULT_FOLDER_SIZE = 224


@functools.cache
def _medmnist_info() -> dict[str, dict]:
    """MedMNIST's own table of its datasets, read without importing the package (which imports torch)."""
    found = importlib.util.find_spec("medmnist")
    if found is None or not found.submodule_search_locations:
        raise EnvironmentFailure("medmnist is not installed: run  pip install medmnist")
    path = Path(next(iter(found.submodule_search_locations))) / "info.py"
    spec = importlib.util.spec_from_file_location("companion._medmnist_info", path)
    if spec is None or spec.loader is None:
        raise EnvironmentFailure(f"{path} cannot be read: reinstall medmnist")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {flag: info for flag, info in module.INFO.items() if not flag.endswith("3d")}


def medmnist_flags(*, single_label: bool = False) -> tuple[str, ...]:
    """Return the flags of the twelve MedMNIST 2D datasets (the eleven single-label ones on request)."""
    return tuple(
        flag
        for flag, info in _medmnist_info().items()
        if not (single_label and "multi-label" in info["task"])
    )


def medmnist_classes() -> dict[str, list[str]]:
    """Class names of every MedMNIST 2D dataset (findings of ChestMNIST), in the order of their labels."""
    return {flag: list(info["label"].values()) for flag, info in _medmnist_info().items()}


def medmnist_samples() -> dict[str, dict[str, int]]:
    """Number of images of every split of every MedMNIST 2D dataset, as its publisher gives them."""
    return {flag: dict(info["n_samples"]) for flag, info in _medmnist_info().items()}


def medmnist_origin(flag: str) -> str:
    """Where the images of a MedMNIST flag come from and their licence, in words."""
    return f"MedMNIST, {_medmnist_info()[flag]['license']}"


def load_dataset(
    target: str | os.PathLike,
    *,
    size: int | None = None,
    data_dir: str | os.PathLike | None = None,
    seed: int = 0,
    checksum: str | None = None,
    trust: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Dataset:
    """Load a dataset by name or path.

    Parameters
    ----------
    target
        A MedMNIST flag (``"breastmnist"``); a ``.npz`` file in MedMNIST's layout; a folder of class folders,
        with or without ``train``/``val``/``test`` above them; a ``.csv`` or ``.tsv`` with the columns path and
        label, and split and patient where there are such; the name of such a file or folder in the data
        directory; ``"cifar10_32"``, a subset of CIFAR-10 (natural images, downloaded where it is not there); or
        ``"procedural:NAME"`` (synthetic). Files may be PNG, JPEG, TIFF, BMP or DICOM (extra ``dicom``).
    size
        Side of the images in pixels. MedMNIST: 28 (default), 64, 128 or 224, each a file of its own. Others:
        28, 64, 128 or 224; by default a ``.npz`` keeps its size, image files are brought to 224, synthetic
        images to 28.
    data_dir
        Data directory for this call; see `companion.store.data_dir`.
    seed
        Seed of the synthetic images and of a split drawn where none is given.
    checksum, trust
        For a download without a published checksum; see `companion.store.fetch`.
    progress
        Called with a line of text when something slow begins.

    Returns
    -------
    Dataset

    Raises
    ------
    InputError
        If the name is unknown, the size is not offered, or the content cannot be used.
    EnvironmentFailure
        If a download fails, a directory cannot be written, or an extra is missing.

    Notes
    -----
    Where no splits are given, 70 % are drawn to train on, 10 % to validate and 20 % to test: stratified, with all
    copies of a file in one split and, where the manifest or DICOM headers name patients, each patient in one only.
    """
    name = os.fspath(target)
    if size is not None and size not in SIZES:
        raise InputError(f"size {size} is not offered: choose one of {', '.join(map(str, SIZES))}")
    with store.data_directory(data_dir):
        if name.startswith("procedural:"):
            return check(procedural.generate(name.removeprefix("procedural:"), size=size or 28, seed=seed))
        if name in _medmnist_info():
            return _load_medmnist(name, size or 28, checksum=checksum, trust=trust, progress=progress)
        if name == natural.NAME and not _look_up(f"{name}.npz"):
            if progress:
                progress(f"downloading CIFAR-10 to {store.data_dir()} (170 MB, once)")
            natural.make(store.data_dir() / f"{name}.npz")
        path = _find_path(name)
        listing = list_files(path)
        if listing is None:
            return load_npz(path, name=name, size=size)
        return assemble(listing, size or DEFAULT_FOLDER_SIZE, seed=seed, progress=progress)


def list_files(path: Path) -> Listing | None:
    """List the images of a folder or manifest; None where the path is a file of another kind."""
    if path.is_dir():
        return folders.scan(path)
    return manifest.scan(path) if path.suffix.lower() in manifest.MANIFEST_SUFFIXES else None


def find(name: str) -> Path | None:
    """Refuse a name that `load_dataset` does not know; nothing is loaded.

    Returns
    -------
    pathlib.Path or None
        The file or folder that the name stands for; None for MedMNIST flags, synthetic images and what is yet to be
        downloaded.

    Raises
    ------
    InputError
        If there is no such dataset, file or folder.
    """
    if name.startswith("procedural:"):
        procedural.generator(name.removeprefix("procedural:"))
        return None
    if name == natural.NAME and not _look_up(f"{name}.npz"):
        return None
    return None if name in _medmnist_info() else _find_path(name)


def _find_path(name: str) -> Path:
    """Path of a file or folder named directly or by its name in the data directory."""
    if not name.strip():
        raise InputError(
            "a dataset without a name: give a MedMNIST flag, a file, a folder or procedural:NAME"
        )
    direct = Path(name).expanduser()
    if direct.exists():
        return direct
    if Path(name).name == name:
        found = _look_up(f"{name}.npz") or _look_up(name)
        if found:
            return found
    if direct.suffix or Path(name).name != name:
        raise InputError(f"{shown(name)}: there is no such file or folder")
    flags = medmnist_flags()
    raise InputError(
        f"no dataset {name!r}: neither a MedMNIST flag ({', '.join(flags)}), nor a file or folder here or in "
        f"{store.data_dir()}, nor procedural:NAME ({', '.join(procedural.GENERATORS)})."
        + did_you_mean(name, [*flags, *(f"procedural:{known}" for known in procedural.GENERATORS)])
    )


def _look_up(filename: str) -> Path | None:
    """Find a file in the data directory, also one folder down."""
    root = store.data_dir()
    if not root.is_dir():
        return None
    if (root / filename).exists():
        return root / filename
    return next(iter(sorted(root.glob(f"*/{filename}"))), None)


def at_hand(flag: str, size: int) -> Path | None:
    """File of a MedMNIST flag where it is on this machine; None where it would be downloaded."""
    filename = _filename(flag, size)
    theirs = Path("~/.medmnist").expanduser() / filename
    return _look_up(filename) or (theirs if theirs.is_file() else None)


def _filename(flag: str, size: int) -> str:
    return f"{flag}.npz" if size == 28 else f"{flag}_{size}.npz"


def _load_medmnist(
    flag: str, size: int, *, checksum: str | None, trust: bool, progress: Callable[[str], None] | None
) -> Dataset:
    info = _medmnist_info()[flag]
    suffix = "" if size == 28 else f"_{size}"
    published = info.get(f"MD5{suffix}")
    if checksum is None and published:
        checksum = f"md5:{published}"
    path = at_hand(flag, size) or store.data_dir() / _filename(flag, size)
    if progress and not path.is_file():
        progress(f"downloading {path.name} to {path.parent}")
    store.fetch(info[f"url{suffix}"], path, checksum=checksum, trust=trust)
    arrays = read_npz(path)
    missing = [f"{split}_{part}" for split in SPLITS for part in ("images", "labels")]
    missing = [key for key in missing if key not in arrays]
    if missing:
        raise InputError(f"{path} lacks {', '.join(missing)}: it is not MedMNIST's file; delete it")
    images = {split: arrays[f"{split}_images"] for split in SPLITS}
    labels = {split: arrays[f"{split}_labels"] for split in SPLITS}
    multi = "multi-label" in info["task"]
    if not multi:
        labels = {split: values.reshape(len(values)) for split, values in labels.items()}
    classes = tuple(info["label"][str(index)] for index in range(len(info["label"])))
    return check(
        Dataset(
            name=flag,
            images=images,
            labels={split: values.astype(np.int64) for split, values in labels.items()},
            classes=classes,
            task="multi-label" if multi else "binary" if len(classes) == 2 else "multi-class",
            origin=medmnist_origin(flag),
        )
    )
