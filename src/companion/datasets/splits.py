"""Splits where none are given: 70 % to train on, 10 % to validate, 20 % to test; drawn with a seed.

The same seed gives the same split on every machine: what counts is the order of the labels, not of the disk.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Hashable, Sequence

import numpy as np
import pandas as pd

from companion.errors import InputError

SPLITS = ("train", "val", "test")
PARTS = 10  # of which one validates and two test


def stratified_split(
    labels: np.ndarray, content: Sequence[Hashable] | None = None, *, seed: int = 0
) -> dict[str, np.ndarray]:
    """Draw a seeded 70/10/20 split, as indices, class by class; small classes keep their images for training.

    Of the images of equal `content` (n values) one is drawn, and the others follow it.
    """
    rng = np.random.default_rng(seed)
    copies, distinct = pd.factorize(pd.Series(range(len(labels)) if content is None else content))
    first = pd.Series(copies).drop_duplicates().index
    split = np.full(len(distinct), "train")
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels[first] == label))
        n_val, n_test = len(members) // 10, len(members) // 5
        split[members[:n_val]] = "val"
        split[members[n_val : n_val + n_test]] = "test"
    return {name: np.flatnonzero(split[copies] == name) for name in SPLITS}


def merged(groups: Sequence[str], content: Sequence[Hashable]) -> list[str]:
    """Merge groups (n identifiers) of which one has a copy of another's image into one, named by the first of them.

    Images of equal `content` (n values) are copies.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    names, known = pd.factorize(pd.Series(groups), sort=True)
    copies, distinct = pd.factorize(pd.Series(content))
    nodes = len(known) + len(distinct)
    # scipy 1.11 takes no larger integers
    pairs = names.astype(np.int32), (len(known) + copies).astype(np.int32)
    links = coo_array((np.ones(len(names)), pairs), shape=(nodes, nodes))
    of, _ = pd.factorize(connected_components(links, directed=False)[1][: len(known)])
    first = pd.Series(of).drop_duplicates().index
    return [known[first[of[name]]] for name in names]


def grouped_split(
    labels: np.ndarray, groups: Sequence[str], classes: Sequence[str], *, seed: int = 0
) -> dict[str, np.ndarray]:
    """Draw a seeded split of about 70/10/20, stratified as far as whole groups (n identifiers) allow.

    An `InputError` where there are too few groups for three splits with two training images of every class.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    count = min(PARTS, len(set(groups)), int(np.bincount(labels).max()))
    if count < len(SPLITS):
        raise InputError(
            f"{len(set(groups))} patients are too few to draw three splits from: give a split, or more patients"
        )
    # Its own shuffle differs between versions of scikit-learn; an order of the groups drawn here is the same in all.
    codes, distinct = pd.factorize(pd.Series(groups), sort=True)
    order = np.random.default_rng(seed).permutation(len(distinct))
    folds = StratifiedGroupKFold(count)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a class has fewer images than parts: looked after below
        parts = [np.sort(test) for _, test in folds.split(np.zeros(len(labels)), labels, order[codes])]
    for chosen in itertools.permutations(range(count), 1 + max(1, round(0.2 * count))):
        val, tested = chosen[0], list(chosen[1:])
        if tested != sorted(tested):
            continue
        train = np.setdiff1d(np.arange(len(labels)), np.concatenate([parts[part] for part in chosen]))
        counts = np.bincount(labels[train], minlength=len(classes))
        if counts.min() >= 2 and all(len(parts[part]) for part in chosen):
            test = np.sort(np.concatenate([parts[part] for part in tested]))
            return {"train": train, "val": parts[val], "test": test}
    raise InputError(
        f"class {classes[int(counts.argmin())]!r} has too few patients to draw splits from: give a split, or leave "
        "that class out"
    )
