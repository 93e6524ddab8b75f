"""`load_dataset`: a name or a path becomes a `Dataset`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from companion import store
from companion.datasets import medmnist, natural, procedural
from companion.datasets.arrays import load_npz
from companion.datasets.dataset import Dataset, Options
from companion.datasets.images import Progress
from companion.datasets.listing import list_images
from companion.datasets.reading import Reading, read_files
from companion.errors import InputError, did_you_mean, shown

SYNTHETIC = "procedural:"


def load_dataset(
    target: str | os.PathLike,
    *,
    size: int | None = None,
    data_dir: str | os.PathLike | None = None,
    seed: int = 0,
    root: str | os.PathLike | None = None,
    patients_from_folder: int | None = None,
    skip_unreadable: bool = False,
    drop_classes: Sequence[str] = (),
    progress: Progress | None = None,
) -> Dataset:
    """Load a dataset by name or path.

    Parameters
    ----------
    target
        A MedMNIST flag (``"breastmnist"``); a ``.npz`` file in MedMNIST's layout; a folder of class folders,
        with or without ``train``/``val``/``test`` above them; a manifest, which is a ``.csv`` or ``.tsv`` with the
        columns path and label, and split and patient where there are such; the name of such a file or folder in the
        data directory; ``"cifar10_32"``, a subset of CIFAR-10 (natural images, downloaded where it is not there); or
        ``"procedural:NAME"`` (synthetic). Files may be PNG, JPEG, TIFF, BMP or DICOM (extra ``dicom``).
    size
        Side of the images in pixels: 28, 64, 128 or 224. By default MedMNIST and synthetic images have 28, image files
        the least of these that is not below the longer side of half of them, and a ``.npz`` keeps its size.
    data_dir
        Data directory for this call; see `companion.store.data_dir`.
    seed
        Seed of the synthetic images and of splits drawn where none are given.
    root
        Folder that the paths of a manifest are relative to and must lie in; by default that of the manifest.
    patients_from_folder
        Which folder below a class folder names the patient: 1 for ``class/patient/image``, 2 for
        ``class/site/patient/image``; 0 says that none does.
    skip_unreadable
        Leave out image files that cannot be read, instead of refusing them.
    drop_classes
        Names of classes to leave out.
    progress
        Called with a line of text when something slow begins.

    Returns
    -------
    Dataset
        Its `notes` say what was left out, and which splits were drawn here.

    Raises
    ------
    InputError
        If the name is unknown, the size is not offered, or the content cannot be used or does not fit into memory.
    EnvironmentFailure
        If a download fails, a directory cannot be written, or an extra is missing.

    Notes
    -----
    Where no splits are given, 70 % are drawn to train on, 10 % to validate and 20 % to test; where there is a test but
    no val split, an eighth of train becomes val. Both are stratified, with all copies of a file in one split and,
    where patients are known (from the manifest, DICOM headers or folders), each patient in one only.
    """
    options = Options(size, data_dir, seed, root, patients_from_folder, skip_unreadable, drop_classes)
    found = read_target(target, options, progress)
    if found.errors:
        raise InputError(found.errors[0])
    return found.dataset


def read_target(target: str | os.PathLike, options: Options, progress: Progress | None = None) -> Reading:
    """Read what `load_dataset` loads, and keep what was seen on the way; its `errors` are not raised."""
    name, size = os.fspath(target), options.size
    of_files = ("root", "patients_from_folder", "skip_unreadable")
    with store.data_directory(options.data_dir):
        path = find(name)
        if path is None and name == natural.NAME:
            path = natural.make(store.data_dir() / f"{natural.NAME}.npz", progress=progress)
        if path is None:
            options.refuse("a dataset that comes with its own classes and splits", *of_files, "drop_classes")
            if name.startswith(SYNTHETIC):
                synthetic = name.removeprefix(SYNTHETIC)
                return Reading(procedural.generate(synthetic, size=size or 28, seed=options.seed))
            return Reading(medmnist.load(name, size or 28, progress=progress))
        if listing := list_images(path, options):
            return read_files(listing, options, progress)
        if path.suffix.lower() != ".npz":
            wanted = "wanted is a folder of class folders, a .csv or .tsv of paths and labels, or a .npz file"
            raise InputError(f"{shown(path)} is no target: {wanted}")
        options.refuse("a .npz file", *of_files)
        return load_npz(path, options, name=name)


def absent(name: str, size: int) -> tuple[int, int, int, int] | None:
    """Training, validation and test images and classes of what would be downloaded; None for what would not be."""
    if name in medmnist.info() and medmnist.cached_file(name, size) is None:
        counts = medmnist.medmnist_samples()[name]
        return counts["train"], counts["val"], counts["test"], len(medmnist.medmnist_classes()[name])
    if name == natural.NAME and find(name) is None:
        train, val, test = (len(natural.CLASSES) * count for count in natural.PER_CLASS.values())
        return train, val, test, len(natural.CLASSES)
    return None


def find(name: str) -> Path | None:
    """Find the file or folder that a name stands for; nothing is loaded.

    None for MedMNIST flags, synthetic images and what is yet to be downloaded; an `InputError` for what `load_dataset`
    does not know.
    """
    if name.startswith(SYNTHETIC):
        procedural.generator(name.removeprefix(SYNTHETIC))
    if name.startswith(SYNTHETIC) or name in medmnist.info():
        return None
    if not name.strip():
        wanted = "give a MedMNIST flag, a file, a folder or procedural:NAME"
        raise InputError(f"a dataset without a name: {wanted}")
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
