"""A ``.npz`` file in MedMNIST's layout becomes a `Dataset`. Nothing in it is ever unpickled."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from companion.datasets.dataset import SPLITS, Dataset, check
from companion.datasets.images import PIXEL_LIMIT, file_digest, shown
from companion.errors import InputError

WANTED = frozenset(f"{split}_{part}" for split in SPLITS for part in ("images", "labels"))
LARGEST_ARRAY = 32 << 30  # bytes; PathMNIST's training images at 224 px are 13.5 GB


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Images and labels of a ``.npz`` file; other members stay unread. Nothing is ever unpickled."""
    try:
        opened = np.load(path, allow_pickle=False)
        if not isinstance(opened, np.lib.npyio.NpzFile):
            raise InputError(f"{path} is a single array, not a .npz archive")
        with opened as archive:
            sizes = {info.filename: info.file_size for info in archive.zip.infolist()}  # type: ignore[union-attr]
            wanted = [key for key in archive.files if key in WANTED and f"{key}.npy" in sizes]
            large = [key for key in wanted if sizes[f"{key}.npy"] > LARGEST_ARRAY]
            if large:
                raise InputError(
                    f"{path}: {large[0]} would take over {LARGEST_ARRAY >> 30} GB: make it smaller"
                )
            return {key: archive[key] for key in wanted}
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
    if images.ndim > 2 and images.shape[1] * images.shape[2] > PIXEL_LIMIT:
        raise InputError(
            f"{path}: {key} has images of more pixels than the limit of {PIXEL_LIMIT}: make them smaller"
        )
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    if images.dtype != np.uint8:
        raise InputError(f"{path}: {key} has type {images.dtype}; uint8, 0 to 255, is wanted")
    return images


def load_npz(path: Path, *, name: str, size: int | None) -> Dataset:
    """Load a ``.npz`` file, brought to `size` where one is given.

    Raises
    ------
    InputError
        If the file is damaged, lacks an array, or holds what cannot be worked with.
    """
    if not path.is_file():
        raise InputError(f"{path} is neither a file nor a folder")
    if path.suffix.lower() != ".npz":
        raise InputError(
            f"{shown(path)} is no target: wanted is a folder of class folders, a .csv or .tsv of paths and labels, or "
            "a .npz file"
        )
    arrays = read_npz(path)
    splits = [split for split in SPLITS if f"{split}_images" in arrays or f"{split}_labels" in arrays]
    missing = [
        f"{split}_{part}"
        for split in (splits or ["train"])
        for part in ("images", "labels")
        if f"{split}_{part}" not in arrays
    ]
    if missing or "train" not in splits:
        with np.load(path, allow_pickle=False) as archive:
            held = ", ".join(key for key in archive.files if f"{key}.npy" in archive.zip.namelist())
        raise InputError(
            f"{path} lacks {', '.join(missing or ['train_images', 'train_labels'])}: wanted are train_images and "
            f"train_labels, and val_… and test_… where there are such; it has {held or 'nothing'}"
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
            files_hash=file_digest(path).hex(),
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
