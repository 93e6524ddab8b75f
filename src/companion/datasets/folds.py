"""Folds: which images a fine-tuning sees, frozen.

The paper fine-tunes on small draws from the official splits: 100 training and 25 validation images a class, without
stratification, five times. A fold here is drawn from its own seed, so that each can be made alone, and the digests
of the folds of the eleven MedMNIST targets are kept, so that a changed random generator cannot go unnoticed. They are
not the paper's own folds: those came from the state of one legacy generator, which no rule recovers.
"""

from __future__ import annotations

import csv
import functools
import hashlib
from dataclasses import dataclass
from importlib import resources

import numpy as np

from companion.datasets.dataset import Dataset
from companion.errors import EnvironmentFailure, InputError

FOLD_SEED = 24  # the paper's
TRAIN_PER_CLASS, VAL_PER_CLASS = 100, 25


@dataclass(frozen=True)
class Fold:
    """Indices (int64, in the order drawn) into the training and the validation split of a dataset."""

    number: int
    train: np.ndarray
    val: np.ndarray

    @property
    def checksum(self) -> str:
        """sha256 of the indices as little-endian int64, training first."""
        parts = (part.astype("<i8").tobytes() for part in (self.train, self.val))
        return hashlib.sha256(b"|".join(parts)).hexdigest()


def draw_fold(sizes: tuple[int, int], number: int, *, seed: int = FOLD_SEED, caps: tuple[int, int]) -> Fold:
    """Draw fold `number` (1, 2, …) from training and validation splits of these sizes, at most `caps` images of each.

    `seed` and `number` together are the seed; no images are needed, and no other fold.
    """
    train, val = (
        np.random.default_rng([seed, number, which]).permutation(size)[:cap]
        for which, (size, cap) in enumerate(zip(sizes, caps, strict=True))
    )
    return Fold(number, train, val)


def fold(
    dataset: Dataset,
    number: int = 1,
    *,
    seed: int = FOLD_SEED,
    train_per_class: int = TRAIN_PER_CLASS,
    val_per_class: int = VAL_PER_CLASS,
) -> Fold:
    """Draw fold `number` of a dataset that can be a target: at most so many images times classes of each split.

    Raises
    ------
    InputError
        If the dataset has several labels an image, lacks a split, a class has fewer than two training images in the
        fold, or the images to validate or test on are of one class.
    EnvironmentFailure
        If a frozen fold of a MedMNIST dataset comes out differently: numpy's generator has changed.
    """
    dataset.check_target()
    for split in ("val", "test"):
        if not len(dataset.labels.get(split, ())):
            raise InputError(f"{dataset.name} has no {split} images: fine-tuning needs all three splits")
    sizes = len(dataset.labels["train"]), len(dataset.labels["val"])
    caps = train_per_class * dataset.n_classes, val_per_class * dataset.n_classes
    drawn = draw_fold(sizes, number, seed=seed, caps=caps)
    frozen = _frozen().get((dataset.name, number))
    paper = (seed, train_per_class, val_per_class) == (FOLD_SEED, TRAIN_PER_CLASS, VAL_PER_CLASS)
    if paper and frozen and frozen[:2] == sizes and frozen[2] != drawn.checksum:
        raise EnvironmentFailure(
            f"fold {number} of {dataset.name} is not the frozen one: numpy {np.__version__} draws differently; "
            "install the version in requirements.lock"
        )
    dataset.check_drawn(dataset.labels["train"][drawn.train], f"to train on in fold {number}")
    for split, kept in (("val", drawn.val), ("test", slice(None))):
        if len(found := np.unique(dataset.labels[split][kept])) == 1:
            only = f"one class only, {dataset.classes[found[0]]!r}, among the {split} images of fold {number}"
            raise InputError(f"{dataset.name} has {only}: no AUC can be had; give more images of the others")
    return drawn


@functools.cache
def _frozen() -> dict[tuple[str, int], tuple[int, int, str]]:
    with resources.files(__package__).joinpath("folds.csv").open(encoding="utf-8") as stream:
        return {
            (row["target"], int(row["fold"])): (int(row["n_train"]), int(row["n_val"]), row["sha256"])
            for row in csv.DictReader(stream)
        }
