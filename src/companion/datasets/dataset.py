"""The dataset object, the options with which one is read, and the checks every way of reading goes through."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from companion.datasets.images import DICOM_SUFFIXES, IMAGE_SUFFIXES
from companion.errors import InputError, did_you_mean, shown

SIZES = (28, 64, 128, 224)


@dataclass(frozen=True)
class Dataset:
    """Images, labels and splits of one dataset."""

    name: str  # what it was asked for as
    images: Mapping[str, np.ndarray]  # split -> uint8, (n, height, width) grey or (n, height, width, 3) RGB
    labels: Mapping[str, np.ndarray]  # split -> int64, (n,) indices, or (n, findings) 0/1 if multi-label
    classes: tuple[str, ...]  # names, index = label
    task: str  # "binary", "multi-class" or "multi-label"
    origin: str  # where the images came from, in words
    synthetic: bool = False  # generated: every figure made from them says so
    official_split: bool = True  # the splits are the publisher's, not drawn by this package
    notes: tuple[str, ...] = ()  # what was decided on the way that people should know
    files_hash: str = ""  # sha256 of the files that the images come from, before any resizing
    parts: tuple[str, ...] = ()  # of a pool: the lineage of its datasets
    patients: Mapping[str, np.ndarray] = field(default_factory=dict)  # split -> (n,) strings, or empty
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)  # split -> (n,) files, or empty

    def __repr__(self) -> str:
        counts = ", ".join(f"{split} {len(labels)}" for split, labels in self.labels.items())
        kind = ", synthetic" if self.synthetic else ""
        return (
            f"Dataset({self.name!r}: {counts}; {self.n_classes} classes, {self.task}, "
            f"{self.size} px, {'RGB' if self.channels == 3 else 'grey'}{kind})"
        )

    @property
    def n_classes(self) -> int:
        """Number of classes (findings, where multi-label)."""
        return len(self.classes)

    @property
    def size(self) -> int:
        """Height of the images in pixels (they are square)."""
        return int(self.images["train"].shape[1])

    @property
    def channels(self) -> int:
        """1 for grey, 3 for RGB."""
        return 3 if self.images["train"].ndim == 4 else 1

    @cached_property
    def content_hash(self) -> str:
        """sha256 over all images, labels and class names: equal where the content is."""
        total = hashlib.sha256(repr((self.classes, self.task)).encode())
        for split in sorted(self.images):
            for array in (self.images[split], self.labels[split]):
                total.update(f"{split}{array.shape}{array.dtype}".encode())
                total.update(np.ascontiguousarray(array).data)
        return total.hexdigest()

    @property
    def lineage(self) -> frozenset[str]:
        """Hash of the images' files, or a published set's name, whatever the size; in a pool those of its datasets."""
        return frozenset((self.files_hash or self.name, *self.parts))

    def class_counts(self, split: str = "train") -> dict[str, int]:
        """Images per class (per finding, where multi-label) of a split."""
        labels = self.labels[split]
        counts = labels.sum(0) if labels.ndim == 2 else np.bincount(labels, minlength=self.n_classes)
        return dict(zip(self.classes, counts.tolist(), strict=True))

    def drawn(self, per_class: int = 100, *, seed: int = 24) -> np.ndarray:
        """Indices of the training images that `draw` gives, in its order."""
        size = len(self.labels["train"])
        return np.random.default_rng(seed).permutation(size)[: per_class * self.n_classes]

    def draw(self, per_class: int = 100, *, seed: int = 24) -> tuple[np.ndarray, np.ndarray]:
        """Draw the training images that are scored: ``per_class`` x classes of them, as the paper does.

        Without replacement and stratification, in random order; all of them where there are fewer. The order matters:
        the gradient term walks through it in batches, and those of a class-sorted folder would have one class each.

        Returns images, uint8, (m, height, width[, 3]), and labels, int64, (m,). A multi-label dataset, or a class with
        fewer than two images in the draw, is an `InputError`.
        """
        self.check_target()
        order = self.drawn(per_class, seed=seed)
        labels = self.labels["train"][order]
        self.check_drawn(labels, f"among the {len(order)} drawn with seed {seed}")
        return self.images["train"][order], labels

    def check_target(self) -> None:
        """Raise `InputError` if an image has several labels: no score is defined for that."""
        if self.task == "multi-label":
            raise InputError(f"{self.name} has several labels an image: it can be a source, not a target")

    def check_drawn(self, labels: np.ndarray, where: str) -> None:
        """Raise `InputError` if a class has fewer than two images among the labels drawn."""
        counts = np.bincount(labels, minlength=self.n_classes)
        if counts.min() < 2:
            rare = f"class {self.classes[int(counts.argmin())]!r} has {counts.min()} image(s) {where}"
            advice = "at least 2 are needed: draw more images a class, or leave that class out"
            raise InputError(f"{self.name}: {rare}; {advice}")


@dataclass(frozen=True)
class Options:
    """How a target is read; `companion.load_dataset` explains each."""

    size: int | None = None
    data_dir: str | os.PathLike | None = None
    seed: int = 0
    root: str | os.PathLike | None = None
    patients_from_folder: int | None = None
    skip_unreadable: bool = False
    drop_classes: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.size is not None and self.size not in SIZES:
            raise InputError(f"size {self.size} is not offered: choose one of {', '.join(map(str, SIZES))}")
        if self.root is not None and not Path(self.root).is_dir():
            raise InputError(f"--root {shown(self.root)}: there is no such folder")
        if self.patients_from_folder is not None and self.patients_from_folder < 0:
            raise InputError(f"--patients-from-folder {self.patients_from_folder}: 0 for none, or 1 and more")
        if isinstance(self.drop_classes, str):
            raise InputError(f"drop_classes is {self.drop_classes!r}: give a list of names")

    def refuse(self, kind: str, *unused: str) -> None:
        """Raise `InputError` for an option that is given and that this kind of target does not use."""
        for name in unused:
            if getattr(self, name) not in (None, False, (), []):
                raise InputError(f"--{name.replace('_', '-')} does not apply to {kind}")

    def kept(self, origin: str, table: pd.DataFrame) -> np.ndarray:
        """Which rows of a table (label, split) stay, as booleans, once classes are dropped.

        What is no dataset without them is an `InputError`, and so are names that cannot be printed or are not there.
        """
        classes = sorted(table["label"].unique())
        for name in classes:
            if not name.isprintable():  # so are bytes that are not UTF-8
                problem = "the name of this class cannot be printed or is not UTF-8"
                raise InputError(f"{origin}: {shown(name)}: {problem}: rename it")
        for name in self.drop_classes:
            if name not in classes:
                hint = did_you_mean(name, classes)
                raise InputError(
                    f"{origin}: no class {name!r} to drop: there are {', '.join(classes)}.{hint}"
                )
        kept = ~table["label"].isin(self.drop_classes)
        check_images(origin, table[kept])
        return kept.to_numpy()


def check_images(origin: str, table: pd.DataFrame) -> None:
    """Raise `InputError` where images, with label and split, are of fewer than two classes or none is to train on."""
    classes = sorted(table["label"].unique())
    if len(classes) < 2:
        there = f"images of one class only ({classes[0]!r})" if classes else "no images"
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES | DICOM_SUFFIXES))
        raise InputError(
            f"{origin} has {there}: wanted are two or more folders named by class, holding files ending in "
            f"{suffixes}, a .csv or .tsv that lists paths and labels, or a .npz file with two or more labels"
        )
    if (table["split"] != "").any() and not (table["split"] == "train").any():
        raise InputError(f"{origin} has images to test or validate on but none with split train")


def task_of(classes: Sequence[str]) -> str:
    """Task of a dataset with one label an image."""
    return "binary" if len(classes) == 2 else "multi-class"


def digests(images: np.ndarray) -> list[bytes]:
    """sha256 of the pixels of every image: the same for copies."""
    return [hashlib.sha256(np.ascontiguousarray(image).data).digest() for image in images]
