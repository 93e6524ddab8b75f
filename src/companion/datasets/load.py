"""`load_dataset`: a name or a path becomes a `Dataset`."""

from __future__ import annotations

import functools
import importlib.util
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from companion import store
from companion.datasets import natural, procedural
from companion.datasets.dataset import SIZES, SPLITS, Dataset, check, stratified_split
from companion.errors import InputError, SurroundingsError, did_you_mean

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
DEFAULT_FOLDER_SIZE = 224
# Pillow's own guard against decompression bombs sits higher; a scan of 12,000 x 12,000 px still passes.
PIXEL_LIMIT = 150_000_000


@functools.cache
def _medmnist_info() -> dict[str, dict]:
    """MedMNIST's own table of its datasets, read without importing the package (which imports torch)."""
    found = importlib.util.find_spec("medmnist")
    if found is None or not found.submodule_search_locations:
        raise SurroundingsError("medmnist is not installed: run  pip install medmnist")
    path = Path(next(iter(found.submodule_search_locations))) / "info.py"
    spec = importlib.util.spec_from_file_location("companion._medmnist_info", path)
    if spec is None or spec.loader is None:
        raise SurroundingsError(f"{path} cannot be read: reinstall medmnist")
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
        with or without ``train``/``val``/``test`` above them; the name of such a file or folder in the data
        directory; ``"cifar10_32"``, a subset of CIFAR-10 (natural images); or ``"procedural:NAME"`` (synthetic).
    size
        Side of the images in pixels. MedMNIST: 28 (default), 64, 128 or 224, each a file of its own. Others:
        28, 64, 128 or 224; by default a ``.npz`` keeps its size, a folder is brought to 224, synthetic
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
    SurroundingsError
        If a download fails or a directory cannot be written.
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
        if path.is_dir():
            return _load_folder(path, size or DEFAULT_FOLDER_SIZE, seed=seed)
        return _load_npz(path, name=name, size=size)


def find(name: str) -> None:
    """Refuse a name that `load_dataset` does not know; nothing is loaded.

    Raises
    ------
    InputError
        If there is no such dataset, file or folder.
    """
    if name.startswith("procedural:"):
        procedural.generator(name.removeprefix("procedural:"))
    elif name != natural.NAME and name not in _medmnist_info():
        _find_path(name)


def _find_path(name: str) -> Path:
    """Path of a file or folder named directly or by its name in the data directory."""
    direct = Path(name).expanduser()
    if direct.exists():
        return direct
    if Path(name).name == name:
        found = _look_up(f"{name}.npz") or _look_up(name)
        if found:
            return found
    if direct.suffix or Path(name).name != name:
        raise InputError(f"{name}: there is no such file or folder")
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


def _load_medmnist(
    flag: str, size: int, *, checksum: str | None, trust: bool, progress: Callable[[str], None] | None
) -> Dataset:
    info = _medmnist_info()[flag]
    suffix = "" if size == 28 else f"_{size}"
    filename = f"{flag}{suffix}.npz"
    published = info.get(f"MD5{suffix}")
    if checksum is None and published:
        checksum = f"md5:{published}"
    theirs = Path("~/.medmnist").expanduser() / filename
    path = _look_up(filename) or (theirs if theirs.is_file() else store.data_dir() / filename)
    if progress and not path.is_file():
        progress(f"downloading {filename} to {path.parent}")
    store.fetch(info[f"url{suffix}"], path, checksum=checksum, trust=trust)
    arrays = _read_npz(path)
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
            origin=f"MedMNIST, {info['license']}",
        )
    )


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    """Arrays of a ``.npz`` file. Nothing is ever unpickled."""
    try:
        opened = np.load(path, allow_pickle=False)
        if not isinstance(opened, np.lib.npyio.NpzFile):
            raise InputError(f"{path} is a single array, not a .npz archive")
        with opened as archive:
            found = {key: archive[key] for key in archive.files}
    except InputError:
        raise
    except Exception as error:
        # A damaged file makes zipfile, zlib and NumPy's header parser raise a dozen types.
        if "allow_pickle" in str(error) and zipfile.is_zipfile(path):
            raise InputError(
                f"{path} holds pickled objects, which are never loaded: save plain arrays"
            ) from error
        reason = "cannot be read" if isinstance(error, PermissionError) else "is not a whole .npz file"
        raise InputError(f"{path} {reason}") from error
    # A member that is no array comes back as its bytes.
    return {key: values for key, values in found.items() if isinstance(values, np.ndarray)}


def _codes(path: Path, labels: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Integer codes of single labels of any integer or string type, and the class names."""
    flat = {}
    for split, values in labels.items():
        if values.ndim == 2 and values.shape[1] == 1:
            values = values[:, 0]
        if values.ndim != 1:
            raise InputError(
                f"{path}: {split}_labels has shape {values.shape}; the scores are defined for one label an image, (n,)"
            )
        if values.dtype.kind == "f":
            if not np.isfinite(values).all():
                raise InputError(f"{path}: {split}_labels contains NaN or infinite values")
            if (values != np.round(values)).any():
                raise InputError(f"{path}: {split}_labels has fractions; class indices or names are wanted")
            values = values.astype(np.int64)
        elif values.dtype.kind not in "iubU":
            raise InputError(
                f"{path}: {split}_labels has type {values.dtype}; integers or strings are wanted"
            )
        flat[split] = values
    if len({values.dtype.kind == "U" for values in flat.values()}) > 1:
        raise InputError(f"{path}: labels are numbers in one split and names in another")
    names = np.unique(np.concatenate(list(flat.values())))
    return (
        {split: np.searchsorted(names, values).astype(np.int64) for split, values in flat.items()},
        tuple(str(name) for name in names),
    )


def _check_pixels(path: Path, key: str, images: np.ndarray) -> np.ndarray:
    if images.dtype.kind == "f" and not np.isfinite(images).all():
        raise InputError(f"{path}: {key} contains NaN or infinite values")
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    if images.dtype != np.uint8:
        raise InputError(f"{path}: {key} has type {images.dtype}; uint8, 0 to 255, is wanted")
    return images


def _load_npz(path: Path, *, name: str, size: int | None) -> Dataset:
    if not path.is_file():
        raise InputError(f"{path} is neither a file nor a folder")
    arrays = _read_npz(path)
    splits = [split for split in SPLITS if f"{split}_images" in arrays or f"{split}_labels" in arrays]
    missing = [
        f"{split}_{part}"
        for split in (splits or ["train"])
        for part in ("images", "labels")
        if f"{split}_{part}" not in arrays
    ]
    if missing or "train" not in splits:
        raise InputError(
            f"{path} lacks {', '.join(missing or ['train_images', 'train_labels'])}: wanted are train_images and "
            f"train_labels, and val_… and test_… where there are such; it has {', '.join(arrays) or 'nothing'}"
        )
    images = {split: _check_pixels(path, f"{split}_images", arrays[f"{split}_images"]) for split in splits}
    labels, classes = _codes(path, {split: arrays[f"{split}_labels"] for split in splits})
    if size is not None:
        images = {split: _resize(values, size) for split, values in images.items()}
    return check(
        Dataset(
            name=Path(name).stem if name.endswith(".npz") else name,
            images=images,
            labels=labels,
            classes=classes,
            task="binary" if len(classes) == 2 else "multi-class",
            origin=f"file {path.name}",
        )
    )


def _resize(images: np.ndarray, size: int) -> np.ndarray:
    """Square images at another size, bilinear with antialiasing."""
    from PIL import Image

    if images.ndim not in (3, 4) or images.shape[1:3] == (size, size):
        return images
    return (
        np.stack(
            [
                np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
                for image in images
            ]
        )
        if len(images)
        else np.empty((0, size, size, *images.shape[3:]), np.uint8)
    )


def _folders(path: Path) -> list[Path]:
    return sorted(child for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))


def _image_files(folder: Path) -> list[Path]:
    return sorted(
        child
        for child in folder.rglob("*")
        if child.is_file() and child.suffix.lower() in IMAGE_SUFFIXES and not child.name.startswith(".")
    )


def _read_image(path: Path, size: int, *, grey: bool) -> np.ndarray:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            if image.width * image.height > PIXEL_LIMIT:
                raise InputError(
                    f"{path} has {image.width} x {image.height} pixels, over the limit of {PIXEL_LIMIT}"
                )
            upright = ImageOps.exif_transpose(image)
            if upright.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
                upright = _to_eight_bits(path, np.asarray(upright))
            return np.asarray(
                upright.convert("L" if grey else "RGB").resize((size, size), Image.Resampling.BILINEAR)
            )
    except InputError:
        raise
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(
            f"{path} cannot be read as an image ({type(error).__name__}): mend or remove it"
        ) from error


def _to_eight_bits(path: Path, values: np.ndarray):
    """Grey values of more than 8 bits on 0..255: 16-bit files keep their scale, others must say theirs."""
    from PIL import Image

    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 65535:
        raise InputError(f"{path}: grey values lie outside 0 to 65535; save it as an 8-bit or 16-bit image")
    return Image.fromarray((values.astype(np.float64) / 257).round().astype(np.uint8))


def _is_grey(path: Path) -> bool:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.mode in ("1", "L", "I;16", "I;16B", "I;16L", "I", "F")
    except (OSError, Image.DecompressionBombError):
        return False  # reading it says what is wrong


def _load_folder(path: Path, size: int, *, seed: int) -> Dataset:
    aliases = {
        "train": "train",
        "training": "train",
        "val": "val",
        "valid": "val",
        "validation": "val",
        "test": "test",
    }
    top = _folders(path)
    by_split = {aliases[folder.name.lower()]: folder for folder in top if folder.name.lower() in aliases}
    if by_split and "train" not in by_split:
        raise InputError(f"{path} has a folder {next(iter(by_split.values())).name} but none named train")
    roots = by_split or {"all": path}
    listing = {
        split: {folder.name: _image_files(folder) for folder in _folders(root)}
        for split, root in roots.items()
    }
    names = sorted({name for found in listing.values() for name, files in found.items() if files})
    if not names:
        raise InputError(
            f"{path} has no images: wanted are folders named by class, holding files ending in "
            f"{', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    if len(names) == 1:
        raise InputError(
            f"{path} has images of one class only ({names[0]!r}): at least two class folders are needed"
        )
    files = {
        split: [(file, names.index(name)) for name, members in found.items() for file in members]
        for split, found in listing.items()
    }
    grey = all(_is_grey(file) for found in files.values() for file, _ in found)
    images, labels = {}, {}
    for split, found in files.items():
        shape = (0, size, size) if grey else (0, size, size, 3)
        images[split] = (
            np.stack([_read_image(file, size, grey=grey) for file, _ in found])
            if found
            else np.empty(shape, np.uint8)
        )
        labels[split] = np.array([label for _, label in found], dtype=np.int64)
    if not by_split:
        parts = stratified_split(labels["all"], seed=seed)
        images = {split: images["all"][index] for split, index in parts.items()}
        labels = {split: labels["all"][index] for split, index in parts.items()}
    return check(
        Dataset(
            name=path.name,
            images=images,
            labels=labels,
            classes=tuple(names),
            task="binary" if len(names) == 2 else "multi-class",
            origin=f"folder {path.name}",
            official_split=bool(by_split),
        )
    )
