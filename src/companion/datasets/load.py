"""`load_dataset`: a name or a path becomes a `Dataset`."""

from __future__ import annotations

import os
from pathlib import Path

from companion import store
from companion.datasets import medmnist, natural, procedural
from companion.datasets.arrays import load_npz
from companion.datasets.dataset import SIZES, Dataset
from companion.datasets.files import assemble
from companion.datasets.images import Progress
from companion.datasets.listing import list_images
from companion.errors import InputError, did_you_mean, shown

SYNTHETIC = "procedural:"
FILES_SIZE = 224  # pixels a side that image files are brought to where nothing is said


def load_dataset(
    target: str | os.PathLike,
    *,
    size: int | None = None,
    data_dir: str | os.PathLike | None = None,
    seed: int = 0,
    checksum: str | None = None,
    trust: bool = False,
    progress: Progress | None = None,
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
        Side of the images in pixels: 28, 64, 128 or 224. By default MedMNIST and synthetic images have 28, image files
        are brought to 224, and a ``.npz`` keeps its size.
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
        path = find(name)
        if name.startswith(SYNTHETIC):
            return procedural.generate(name.removeprefix(SYNTHETIC), size=size or 28, seed=seed)
        if name in medmnist.info():
            return medmnist.load(name, size or 28, checksum=checksum, trust=trust, progress=progress)
        if path is None:
            path = natural.make(store.data_dir() / f"{natural.NAME}.npz", progress=progress)
        listing = list_images(path)
        if listing is not None:
            return assemble(listing, size or FILES_SIZE, seed=seed, progress=progress)
        return load_npz(path, name=name, size=size)


def find(name: str) -> Path | None:
    """Find the file or folder that a name stands for; nothing is loaded.

    None for MedMNIST flags, synthetic images and what is yet to be downloaded; an `InputError` for what `load_dataset`
    does not know.
    """
    if name.startswith(SYNTHETIC):
        procedural.generator(name.removeprefix(SYNTHETIC))
        return None
    if name in medmnist.info():
        return None
    if not name.strip():
        raise InputError(
            "a dataset without a name: give a MedMNIST flag, a file, a folder or procedural:NAME"
        )
    direct, is_bare = Path(name).expanduser(), Path(name).name == name
    if name != natural.NAME and direct.exists():
        return direct
    found = (store.look_up(f"{name}.npz") or store.look_up(name)) if is_bare else None
    if found or name == natural.NAME:
        return found
    if direct.suffix or not is_bare:
        raise InputError(f"{shown(name)}: there is no such file or folder")
    flags = medmnist.medmnist_flags()
    raise InputError(
        f"no dataset {name!r}: neither a MedMNIST flag ({', '.join(flags)}), nor a file or folder here or in "
        f"{store.data_dir()}, nor procedural:NAME ({', '.join(procedural.GENERATORS)})."
        + did_you_mean(name, [*flags, *(SYNTHETIC + known for known in procedural.GENERATORS)])
    )
