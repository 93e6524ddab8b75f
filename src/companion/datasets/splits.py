"""Splits where none are given: 70 % to train on, 10 % to validate, 20 % to test; drawn with a seed.

The same seed gives the same split on every machine: what counts is the order of the labels, not of the disk.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import pandas as pd

from companion.errors import InputError

SPLITS = ("train", "val", "test")
ALL_SPLITS = {"val": 10, "test": 5}  # one image in so many
VAL_ONLY = {"val": 8}  # what 10 of 80 are


def draw_splits(
    images: pd.DataFrame, *, seed: int = 0, shares: Mapping[str, int] = ALL_SPLITS
) -> dict[str, np.ndarray]:
    """Draw splits, stratified, with all copies of an image and all images of a patient in one of them.

    A row of `images` has a label, a content (equal for copies) and a patient ("" for all where unknown). Of so many
    images as `shares` says one goes to a split; small classes are for training. Returns split -> sorted indices; an
    `InputError` says that there are too few patients.
    """
    rng = np.random.default_rng(seed)
    if (images["patient"] != "").any():
        return _by_patient(images, rng, shares)
    labels = images["label"].to_numpy()
    copies, distinct = pd.factorize(images["content"])
    first = pd.Series(copies).drop_duplicates().index  # of copies one is drawn, and the others follow it
    split = np.full(len(distinct), "train")
    for label in sorted(set(labels)):
        members = rng.permutation(np.flatnonzero(labels[first] == label))
        ends = np.cumsum([len(members) // share for share in shares.values()])
        for name, chosen in zip(shares, np.split(members, ends), strict=False):
            split[chosen] = name
    return {name: np.flatnonzero(split[copies] == name) for name in ("train", *shares)}


def divide(images: pd.DataFrame, *, seed: int = 0) -> tuple[dict[str, np.ndarray], str, str]:
    """Take the splits that are given (column split), or draw them; see `draw_splits` for the other columns.

    Where there is a test split and none to validate on, an eighth of train becomes val. Returns split -> sorted
    indices, a remark, and what stands against these splits; either may be empty.
    """
    given = images["split"].to_numpy()
    parts = {split: np.flatnonzero(given == split) for split in SPLITS if (given == split).any()}
    if not parts:
        try:
            return draw_splits(images, seed=seed), "", ""
        except InputError as error:
            return {"train": np.arange(len(images))}, "", str(error)
    for patient, found in images[images["patient"] != ""].groupby("patient")["split"].unique().items():
        if len(found) > 1:
            both = " and ".join(split for split in SPLITS if split in found)
            advice = "what is tested has been seen: leave the splits out and they are drawn here"
            return parts, "", f"patient {patient!r} is in {both}, and so {advice}"
    if "val" in parts or "test" not in parts:
        return parts, "", ""
    train = parts["train"]
    try:
        drawn = draw_splits(images.iloc[train], seed=seed, shares=VAL_ONLY)
    except InputError as error:
        return parts, f"no val split is given, and none can be drawn: {error}", ""
    if not len(drawn["val"]):
        return parts, "no val split is given, and train is too small to draw one from", ""
    how = "patient and class" if (images["patient"] != "").any() else "class"
    remark = f"no val split is given: {len(drawn['val'])} images of train became val, an eighth by {how}"
    return {split: train[index] for split, index in drawn.items()} | {"test": parts["test"]}, remark, ""


def merged(groups: Sequence[str], content: Sequence[Hashable]) -> list[str]:
    """Merge groups (n identifiers) of which one has a copy of another's image into one, named by the first of them."""
    group, before = pd.Series(list(groups)), None
    while before is None or not group.equals(before):
        before = group
        of_copies = group.groupby(list(content)).transform("min")
        group = of_copies.groupby(group).transform("min")
    return group.tolist()


def _by_patient(
    images: pd.DataFrame, rng: np.random.Generator, shares: Mapping[str, int]
) -> dict[str, np.ndarray]:
    """Draw whole patients, stratified as far as they allow, with two training images of every class."""
    from sklearn.model_selection import StratifiedGroupKFold

    labels, classes = pd.factorize(images["label"], sort=True)
    patients, distinct = pd.factorize(np.array(merged(images["patient"], images["content"])), sort=True)
    count = min(max(shares.values()), len(distinct), int(np.bincount(labels).max()))
    if count <= len(shares):
        wanted = "three splits" if len(shares) > 1 else "val"
        few = f"{len(distinct)} patients are too few to draw {wanted} from"
        raise InputError(f"{few}: give a split, or more patients")
    # Its own shuffle differs between versions of scikit-learn; an order drawn here is the same in all.
    order, part = rng.permutation(len(distinct)), np.zeros(len(labels), int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a class has fewer images than parts: looked after below
        for number, (_, index) in enumerate(StratifiedGroupKFold(count).split(part, labels, order[patients])):
            part[index] = number
    tested = max(1, round(count / shares["test"])) if "test" in shares else 0
    for val, *test in itertools.permutations(range(count), 1 + tested):
        split = np.where(part == val, "val", np.where(np.isin(part, test), "test", "train"))
        left = np.bincount(labels[split == "train"], minlength=len(classes))
        if test == sorted(test) and left.min() >= 2 and np.isin([val, *test], part).all():
            return {name: np.flatnonzero(split == name) for name in ("train", *shares)}
    few = f"class {classes[int(left.argmin())]!r} has too few patients to draw splits from"
    raise InputError(f"{few}: give a split, or leave that class out")
