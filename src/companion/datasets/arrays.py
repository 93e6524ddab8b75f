"""A ``.npz`` file in MedMNIST's layout is read. Nothing in it is ever unpickled."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

from companion.datasets.dataset import Options, digests
from companion.datasets.images import file_digest
from companion.datasets.listing import ONE_LABEL
from companion.datasets.reading import Reading, assemble, check_memory
from companion.datasets.splits import SPLITS
from companion.errors import InputError


def read_npz(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Split -> images and labels of a ``.npz`` file, train at least; other members stay unread."""
    wanted = [f"{split}_{part}" for split in SPLITS for part in ("images", "labels")]
    try:
        opened = np.load(path, allow_pickle=False)
        if not isinstance(opened, np.lib.npyio.NpzFile):
            raise InputError(f"{path} is a single array, not a .npz archive")
        with opened as archive:
            sizes = {info.filename: info.file_size for info in archive.zip.infolist()}  # type: ignore[union-attr]
            there = [key for key in wanted if key in archive.files and f"{key}.npy" in sizes]
            check_memory(str(path), 2 * sum(sizes[f"{key}.npy"] for key in there))
            arrays = {key: archive[key] for key in there}
    except InputError:
        raise
    except Exception as error:
        # A damaged file makes zipfile, zlib and NumPy's header parser raise a dozen types.
        reason = "cannot be read" if isinstance(error, PermissionError) else "is not a whole .npz file"
        if "allow_pickle" in str(error) and zipfile.is_zipfile(path):
            reason = "holds pickled objects, which are never loaded: save plain arrays"
        raise InputError(f"{path} {reason}") from error
    found = [split for split in SPLITS if split == "train" or any(key.startswith(split) for key in arrays)]
    if missing := [key for key in wanted if key.partition("_")[0] in found and key not in arrays]:
        raise InputError(
            f"{path} lacks {', '.join(missing)}: wanted are train_images and train_labels, and val_… and test_… "
            f"where there are such; it has {', '.join(arrays) or 'nothing'} of them"
        )
    return {split: (arrays[f"{split}_images"], arrays[f"{split}_labels"]) for split in found}


def load_npz(path: Path, options: Options, *, name: str) -> Reading:
    """Load a ``.npz`` file, brought to a size where one is given; what cannot be worked with is an `InputError`."""
    images, labels = {}, {}
    for split, (pixels, values) in read_npz(path).items():
        images[split] = _images(f"{path}: {split}_images", pixels, options.size)
        labels[split] = _labels(f"{path}: {split}_labels", values)
        shape, first = images[split].shape[1:], images["train"].shape[1:]
        if shape != first:
            raise InputError(f"{path}: {split} images have shape {shape}, train images {first}")
        if (n := len(images[split])) != len(labels[split]):
            raise InputError(f"{path}: {split} has {n} images but {len(labels[split])} labels")
    if len({values.dtype.kind == "U" for values in labels.values()}) > 1:
        raise InputError(f"{path}: labels are numbers in one split and names in another")
    values = np.concatenate(list(labels.values()))
    pixels = np.concatenate(list(images.values()))
    images.clear()  # now they are here once
    whose = np.repeat(list(labels), [len(of) for of in labels.values()])
    table = pd.DataFrame({"label": values.astype(str), "split": whose, "patient": ""})
    origin = f"file {path.name}"
    kept = options.kept(origin, table)
    table, pixels = table[kept].reset_index(drop=True), pixels if kept.all() else pixels[kept]
    table["content"] = digests(pixels)
    classes = [label for label in np.unique(values).astype(str).tolist() if label not in options.drop_classes]
    about = {"origin": origin, "files_hash": file_digest(path).hex()}
    name = Path(name).stem if name.endswith(".npz") else name
    return assemble(table, pixels, classes, seed=options.seed, name=name, **about)


def _labels(where: str, values: np.ndarray) -> np.ndarray:
    """Single labels of any integer or string type, (n,)."""
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise InputError(f"{where} has shape {values.shape}; {ONE_LABEL}, (n,)")
    if values.dtype.kind == "f":
        if not (np.isfinite(values) & (values == np.round(values))).all():
            raise InputError(f"{where} has fractions, NaN or infinity; class indices or names are wanted")
        return values.astype(np.int64)
    if values.dtype.kind not in "iubU":
        raise InputError(f"{where} has type {values.dtype}; integers or strings are wanted")
    return values.astype(np.int64) if values.dtype.kind == "u" else values  # beside signed ones


def _images(where: str, images: np.ndarray, size: int | None) -> np.ndarray:
    """Images (n, height, width[, 3]), channels moved last, at `size` bilinear with antialiasing."""
    from PIL import Image

    if images.dtype != np.uint8:
        raise InputError(f"{where} has type {images.dtype}; uint8, 0 to 255, is wanted")
    if images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[3] not in (1, 3):
        images = np.ascontiguousarray(np.moveaxis(images, 1, 3))
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    if images.ndim != 3 and images.shape[3:] != (3,):
        raise InputError(
            f"{where} has shape {images.shape}; wanted is (n, height, width) or (n, height, width, 3)"
        )
    height, width = images.shape[1:3]
    if size is None and height != width:
        raise InputError(
            f"{where}: images are {height} x {width} px; square ones are wanted, or a size to bring them to"
        )
    side = size or height
    if (height, width) == (side, side):
        return images
    shape = (len(images), side, side, *images.shape[3:])
    check_memory(where, 2 * math.prod(shape))  # once as they are read, once by split
    resized = np.empty(shape, np.uint8)
    for index, image in enumerate(images):
        resized[index] = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))
    return resized
