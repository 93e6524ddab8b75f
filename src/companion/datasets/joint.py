"""Several datasets as one, in a joint label space: what a leave-target-out source is trained on.

The paper's rules: every class of every dataset is a column of its own, but for three cases. The three organ sets
(axial, coronal, sagittal) share their eleven organs. ChestMNIST brings its fourteen findings and a fifteenth column,
"no finding". PneumoniaMNIST shares ChestMNIST's pneumonia and "no finding", where ChestMNIST is in the pool. All
twelve MedMNIST sets together have 69 columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from companion.datasets.dataset import Dataset, check
from companion.errors import InputError

CHEST, PNEUMONIA = "chestmnist", "pneumoniamnist"
NO_FINDING = "no finding"
ORGANS = ("organamnist", "organcmnist", "organsmnist")


def joint_columns(classes: Mapping[str, Sequence[str]]) -> dict[str, list[int]]:
    """Where each class of each dataset lies in the joint label space.

    Parameters
    ----------
    classes
        Dataset name -> class names, in the order of the pool.

    Returns
    -------
    dict
        Dataset name -> joint column of each of its classes; ChestMNIST's list ends with that of "no finding". The
        number of columns is the largest entry + 1.
    """
    columns: dict[tuple[str, str], int] = {}
    for name in sorted(
        classes, key=lambda name: name == PNEUMONIA
    ):  # chest lends its columns, so it comes first
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
    """Pool datasets into one multi-label dataset.

    Parameters
    ----------
    datasets
        Two or more, of one image size.
    total
        At most this many training images, drawn from the pooled ones with `seed`, so that a pool can be compared with
        a single dataset of that size; None takes all.
    seed
        Seed of that draw.

    Returns
    -------
    Dataset
        Labels (n, columns) of 0 and 1; grey images become RGB where any dataset is in colour.

    Raises
    ------
    InputError
        If there are fewer than two datasets, one comes twice, or sizes differ.
    """
    names = [dataset.name for dataset in datasets]
    if len(names) < 2 or len(set(names)) < len(names):
        raise InputError(f"a pool needs two or more different datasets, got {', '.join(names) or 'none'}")
    sizes = {dataset.name: dataset.size for dataset in datasets}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name} {size} px" for name, size in sizes.items())
        raise InputError(f"a pool needs images of one size, got {listed}: name a size")
    where = joint_columns({dataset.name: dataset.classes for dataset in datasets})
    width = 1 + max(max(columns) for columns in where.values())
    titles = [""] * width
    for dataset in sorted(datasets, key=lambda dataset: dataset.name == PNEUMONIA):
        labels = (*dataset.classes, NO_FINDING) if dataset.name == CHEST else dataset.classes
        for column, label in zip(where[dataset.name], labels, strict=True):
            titles[column] = titles[column] or f"{dataset.name}: {label}"
    colour = any(dataset.channels == 3 for dataset in datasets)
    images: dict[str, list[np.ndarray]] = {}
    targets: dict[str, list[np.ndarray]] = {}
    for dataset in datasets:
        for split, own in dataset.labels.items():
            chosen = dataset.images[split][:]
            if colour and chosen.ndim == 3:
                chosen = np.repeat(chosen[..., None], 3, axis=-1)
            images.setdefault(split, []).append(chosen)
            targets.setdefault(split, []).append(_many_hot(own, where[dataset.name], width))
    joined = {split: (np.concatenate(images[split]), np.concatenate(targets[split])) for split in images}
    if total is not None:
        kept = np.sort(np.random.default_rng(seed).permutation(len(joined["train"][1]))[:total])
        joined["train"] = joined["train"][0][kept], joined["train"][1][kept]
    return check(
        Dataset(
            name="+".join(names) + ("" if total is None else f"@{total}"),
            images={split: both[0] for split, both in joined.items()},
            labels={split: both[1] for split, both in joined.items()},
            classes=tuple(titles),
            task="multi-label",
            origin="; ".join(dict.fromkeys(dataset.origin for dataset in datasets)),
            synthetic=any(dataset.synthetic for dataset in datasets),
            official_split=all(dataset.official_split for dataset in datasets),
            parts=tuple(sorted(set().union(*(dataset.lineage for dataset in datasets)))),
        )
    )


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
