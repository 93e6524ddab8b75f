"""Several datasets as one, in a joint label space: what a leave-target-out source is trained on.

The paper's rules: every class of every dataset is a column of its own, but for three cases. The three organ sets
(axial, coronal, sagittal) share their eleven organs. ChestMNIST brings its fourteen findings and a fifteenth column,
"no finding". PneumoniaMNIST shares ChestMNIST's pneumonia and "no finding", where ChestMNIST is in the pool. All
twelve MedMNIST sets together have 69 columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from companion.datasets.dataset import Dataset
from companion.errors import InputError

CHEST, PNEUMONIA = "chestmnist", "pneumoniamnist"
NO_FINDING = "no finding"
ORGANS = ("organamnist", "organcmnist", "organsmnist")


def joint_columns(classes: Mapping[str, Sequence[str]]) -> dict[str, list[int]]:
    """Joint column of each class: dataset name -> columns, of dataset name -> class names in the order of the pool.

    ChestMNIST's list ends with the column of "no finding".
    """
    columns: dict[tuple[str, str], int] = {}
    # ChestMNIST lends its columns to PneumoniaMNIST, so it comes first.
    for name in sorted(classes, key=lambda name: name == PNEUMONIA):
        for key in _keys(name, classes):
            columns.setdefault(key, len(columns))
    return {name: [columns[key] for key in _keys(name, classes)] for name in classes}


def _keys(name: str, classes: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    if name in ORGANS:
        return [("organ", label) for label in classes[name]]
    if name == CHEST:
        return [(CHEST, label) for label in (*classes[name], NO_FINDING)]
    if name == PNEUMONIA and CHEST in classes:
        return [(CHEST, NO_FINDING if label == "normal" else label) for label in classes[name]]
    return [(name, label) for label in classes[name]]


def pool(datasets: Sequence[Dataset], *, total: int | None = None, seed: int = 24) -> Dataset:
    """Pool two or more datasets of one image size into one multi-label dataset, its labels (n, columns) of 0 and 1.

    Grey images become RGB where any dataset is in colour. `total` training images are drawn from the pooled ones with
    `seed`, so that a pool can be compared with a single dataset of that size; None takes all. Fewer than two datasets,
    the same one twice, or different sizes are an `InputError`.
    """
    names = [dataset.name for dataset in datasets]
    if len(names) < 2 or len(set(names)) < len(names):
        raise InputError(f"a pool needs two or more different datasets, got {', '.join(names) or 'none'}")
    if len({dataset.size for dataset in datasets}) > 1:
        listed = ", ".join(f"{dataset.name} {dataset.size} px" for dataset in datasets)
        raise InputError(f"a pool needs images of one size, got {listed}: name a size")
    where = joint_columns({dataset.name: dataset.classes for dataset in datasets})
    titles: dict[int, str] = {}
    for dataset in sorted(datasets, key=lambda dataset: dataset.name == PNEUMONIA):
        for column, label in zip(where[dataset.name], (*dataset.classes, NO_FINDING), strict=False):
            titles.setdefault(column, f"{dataset.name}: {label}")
    colour = any(dataset.channels == 3 for dataset in datasets)
    images, labels = {}, {}
    for split in dict.fromkeys(split for dataset in datasets for split in dataset.labels):
        having = [dataset for dataset in datasets if split in dataset.labels]
        pixels = [dataset.images[split] for dataset in having]
        images[split] = np.concatenate([_rgb(own) if colour else own for own in pixels])
        hot = [_many_hot(own.labels[split], where[own.name], len(titles)) for own in having]
        labels[split] = np.concatenate(hot)
    if total is not None:
        kept = np.sort(np.random.default_rng(seed).permutation(len(labels["train"]))[:total])
        images["train"], labels["train"] = images["train"][kept], labels["train"][kept]
    return Dataset(
        name="+".join(names) + ("" if total is None else f"@{total}"),
        images=images,
        labels=labels,
        classes=tuple(titles[column] for column in range(len(titles))),
        task="multi-label",
        origin="; ".join(dict.fromkeys(dataset.origin for dataset in datasets)),
        synthetic=any(dataset.synthetic for dataset in datasets),
        official_split=all(dataset.official_split for dataset in datasets),
        parts=tuple(sorted(set().union(*(dataset.lineage for dataset in datasets)))),
    )


def _rgb(images: np.ndarray) -> np.ndarray:
    return np.repeat(images[..., None], 3, axis=-1) if images.ndim == 3 else images


def _many_hot(labels: np.ndarray, columns: Sequence[int], width: int) -> np.ndarray:
    """Labels of one dataset in the joint space; a chest image without a finding gets the last of its columns."""
    hot = np.zeros((len(labels), width), dtype=np.int64)
    if labels.ndim == 1:
        hot[np.arange(len(labels)), np.asarray(columns)[labels]] = 1
    else:
        findings = columns[: labels.shape[1]]
        hot[:, findings] = labels
        if len(columns) > labels.shape[1]:
            hot[:, columns[-1]] = labels.sum(1) == 0
    return hot
