"""A ``.npz`` file in MedMNIST's layout becomes a `Dataset`. Nothing in it is ever unpickled."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from companion.datasets.dataset import Dataset, check, task_of
from companion.datasets.decoding import PIXEL_LIMIT
from companion.datasets.images import file_digest
from companion.datasets.splits import SPLITS
from companion.errors import InputError, shown

WANTED = tuple(f"{split}_{part}" for split in SPLITS for part in ("images", "labels"))
LARGEST_ARRAY = 32 << 30  # bytes; PathMNIST's training images at 224 px are 13.5 GB


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Images and labels of a ``.npz`` file; other members stay unread."""
    try:
        opened = np.load(path, allow_pickle=False)
        if not isinstance(opened, np.lib.npyio.NpzFile):
            raise InputError(f"{path} is a single array, not a .npz archive")
        with opened as archive:
            sizes = {info.filename: info.file_size for info in archive.zip.infolist()}  # type: ignore[union-attr]
            wanted = [key for key in WANTED if key in archive.files and f"{key}.npy" in sizes]
            if large := [key for key in wanted if sizes[f"{key}.npy"] > LARGEST_ARRAY]:
                raise InputError(
                    f"{path}: {large[0]} would take over {LARGEST_ARRAY >> 30} GB: make it smaller"
                )
            return {key: archive[key] for key in wanted}
    except InputError:
        raise
    except Exception as error:
        # A damaged file makes zipfile, zlib and NumPy's header parser raise a dozen types.
        reason = "cannot be read" if isinstance(error, PermissionError) else "is not a whole .npz file"
        if "allow_pickle" in str(error) and zipfile.is_zipfile(path):
            reason = "holds pickled objects, which are never loaded: save plain arrays"
        raise InputError(f"{path} {reason}") from error


def load_npz(path: Path, *, name: str, size: int | None) -> Dataset:
    """Load a ``.npz`` file, brought to `size` where one is given; what cannot be worked with is an `InputError`."""
    if path.suffix.lower() != ".npz":
        raise InputError(
            f"{shown(path)} is no target: wanted is a folder of class folders, a .csv or .tsv of paths and labels, or "
            "a .npz file"
        )
    arrays = read_npz(path)
    splits = [split for split in SPLITS if f"{split}_images" in arrays or f"{split}_labels" in arrays]
    needed = [key for key in WANTED if key.partition("_")[0] in {"train", *splits}]
    if missing := [key for key in needed if key not in arrays]:
        raise InputError(
            f"{path} lacks {', '.join(missing)}: wanted are train_images and train_labels, and val_… and test_… "
            f"where there are such; it has {', '.join(arrays) or 'nothing'} of them"
        )
    images = {split: _images(f"{path}: {split}_images", arrays[f"{split}_images"], size) for split in splits}
    labels = {split: _labels(f"{path}: {split}_labels", arrays[f"{split}_labels"]) for split in splits}
    if len({values.dtype.kind == "U" for values in labels.values()}) > 1:
        raise InputError(f"{path}: labels are numbers in one split and names in another")
    names = np.unique(np.concatenate(list(labels.values())))
    classes = tuple(str(name) for name in names)
    return check(
        Dataset(
            name=Path(name).stem if name.endswith(".npz") else name,
            images=images,
            labels={split: np.searchsorted(names, of).astype(np.int64) for split, of in labels.items()},
            classes=classes,
            task=task_of(classes),
            origin=f"file {path.name}",
            files_hash=file_digest(path).hex(),
        )
    )


def _labels(where: str, values: np.ndarray) -> np.ndarray:
    """Single labels of any integer or string type, (n,)."""
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise InputError(
            f"{where} has shape {values.shape}; the scores are defined for one label an image, (n,)"
        )
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise InputError(f"{where} contains NaN or infinite values")
        if (values != np.round(values)).any():
            raise InputError(f"{where} has fractions; class indices or names are wanted")
        return values.astype(np.int64)
    if values.dtype.kind not in "iubU":
        raise InputError(f"{where} has type {values.dtype}; integers or strings are wanted")
    return values


def _images(where: str, images: np.ndarray, size: int | None) -> np.ndarray:
    """Images of 8 bits a channel, square ones at `size`, bilinear with antialiasing; `check` refuses other shapes."""
    from PIL import Image

    if images.dtype.kind == "f" and not np.isfinite(images).all():
        raise InputError(f"{where} contains NaN or infinite values")
    if images.ndim > 2 and images.shape[1] * images.shape[2] > PIXEL_LIMIT:
        raise InputError(
            f"{where} has images of more pixels than the limit of {PIXEL_LIMIT}: make them smaller"
        )
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    if images.dtype != np.uint8:
        raise InputError(f"{where} has type {images.dtype}; uint8, 0 to 255, is wanted")
    if size is None or images.ndim not in (3, 4) or images.shape[1:3] == (size, size):
        return images
    resized = np.empty((len(images), size, size, *images.shape[3:]), np.uint8)
    for index, image in enumerate(images):
        resized[index] = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)
    return resized
