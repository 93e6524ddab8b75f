"""PARC: Pearson distances among features against distances among labels."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from companion.scores._arrays import check_variant, stratified_subsample
from companion.scores._shared import Matrix, Prepared

COMPONENTS = 32
MOST_POINTS = 15_000
PUBLISHED_SEED = 1919


def parc(
    features: ArrayLike,
    labels: ArrayLike,
    *,
    variant: str = "corrected",
    random_state: int | np.random.RandomState | None = 0,
) -> float:
    r"""Rank correlation (x 100) of pairwise feature distances with pairwise label distances.

    Features are projected on 32 principal components and standardised. With :math:`\rho` the Pearson
    correlation between two points,

    .. math::

        \mathrm{PARC} =
        100\cdot\mathrm{spearman}\bigl(\{1-\rho(x_i,x_j)\},\{1-\rho(e_{y_i},e_{y_j})\}\bigr)_{i<j}

    with :math:`e_y` the one-hot label. The label distance takes two values (same class or not), so Spearman's
    correlation needs only the mean rank of the same-class pairs; ties in the features share their rank.

    Parameters
    ----------
    features : array-like of shape (n, d)
        Features.
    labels : array-like of shape (n,) or (n, 1)
        Target labels.
    variant : {"corrected", "published"}, default "corrected"
        "published": randomised PCA (seed 1919, one power iteration), which needs n and d of at least 32, and
        the rounding of ``np.corrcoef`` on one-hot labels, which splits some ties of the label distances.
        "corrected": exact PCA with as many of the 32 components as the features have; beyond 15,000 points a
        stratified subsample of features and labels.
    random_state : int, RandomState or None, default 0
        Seed of that subsample; without effect up to 15,000 points.

    Returns
    -------
    float
        In [-100, 100]; higher is better.

    Raises
    ------
    ValueError
        Bad arrays; a point whose standardised components are all equal (its correlation is undefined; any
        features of rank 1); no two points of one class; published with n or d below 32 or n above 15,000.

    Notes
    -----
    Cost: O(nd min(n, d)) for the PCA and O(n² log n) for the ranks; memory O(nd + n²). C does not matter.

    Weaknesses: the sign of a principal component is arbitrary, but a correlation across components depends on
    it; here, as in scikit-learn, the largest loading is made positive, and other signs had a standard
    deviation of .3 (n = 1100, d = 512) to .9 (n = 200) around scores of 10 to 21. The number of components
    (32) is part of the result; whitening raises noise directions to the weight of the leading ones. Under
    shuffled labels it is near 0: -.03 with a standard deviation of .1 over seeds (n = 900), .6 (n = 200).

    References
    ----------
    Bolya, Mittapalli, Hoffman (2021). Scalable diverse model selection for accessible transfer learning.
    NeurIPS, arXiv:2111.06977.
    """
    check_variant(variant)
    return compute(Prepared(features, labels), variant=variant, random_state=random_state)


def compute(
    prepared: Prepared, *, variant: str = "corrected", random_state: int | np.random.RandomState | None = 0
) -> float:
    """PARC of prepared arrays."""
    if variant == "published":
        return 100.0 * _released_rank_correlation(_standardised(_released_projection(prepared)), prepared)
    if prepared.n > MOST_POINTS:
        rows = stratified_subsample(prepared.codes, MOST_POINTS, random_state=random_state)
        prepared = Prepared(prepared.x[rows], prepared.codes[rows])
    return 100.0 * _same_class_rank_correlation(_standardised(_projection(prepared)), prepared.codes)


def _standardised(x: Matrix) -> Matrix:
    spread = x.std(axis=0)
    spread[spread == 0] = 1.0
    return (x - x.mean(axis=0)) / spread


def _projection(prepared: Prepared) -> Matrix:
    """Exact principal components, each with its largest loading positive (the signs matter)."""
    x = prepared.pca(COMPONENTS)
    loadings = prepared.centred.T @ x if prepared.wide else prepared.components(COMPONENTS)[1]
    largest = loadings[np.abs(loadings).argmax(axis=0), np.arange(x.shape[1])]
    return x * np.sign(largest)


def _released_projection(prepared: Prepared) -> Matrix:
    from sklearn.decomposition import PCA

    n, d = prepared.n, prepared.d
    if min(n, d) < COMPONENTS or n > MOST_POINTS:
        raise ValueError(
            f"features: published PARC needs {COMPONENTS} columns and {COMPONENTS} to {MOST_POINTS} points, "
            f"found shape {(n, d)}; the corrected variant takes any"
        )
    pca = PCA(COMPONENTS, svd_solver="randomized", random_state=PUBLISHED_SEED, iterated_power=1)
    return pca.fit_transform(prepared.as_given()).astype(float)


def _similarity(x: Matrix) -> Matrix:
    """Pearson correlation between rows."""
    x = x - x.mean(axis=1, keepdims=True)
    length = np.linalg.norm(x, axis=1)
    flat = length <= 1e-12 * length.max()
    if flat.any():
        raise ValueError(
            f"features: point {int(np.argmax(flat))} is constant over its {x.shape[1]} standardised "
            f"components, so its correlation with other points is undefined"
        )
    x /= length[:, None]
    return x @ x.T


def _lower(matrix: Matrix) -> Matrix:
    """Entries below the diagonal, row by row."""
    return np.concatenate([matrix[i, :i] for i in range(1, len(matrix))])


def _rank_sum(values: Matrix, ordered: Matrix) -> float:
    """Sum of the ranks (from 1, ties averaged) that `values` have among `ordered`."""
    values = np.sort(values)
    twice = np.searchsorted(ordered, values, "left").sum() + np.searchsorted(ordered, values, "right").sum()
    return (float(twice) + len(values)) / 2.0


def _rank_variance(ordered: Matrix) -> float:
    """Variance of the tie-averaged ranks of sorted values."""
    total = len(ordered)
    variance = (total**2 - 1.0) / 12.0
    tied = ordered[1:] == ordered[:-1]
    if tied.any():
        edges = np.flatnonzero(~tied)
        runs = np.diff(np.concatenate([[-1], edges, [total - 1]]))
        runs = runs[runs > 1].astype(float)
        variance -= (runs * (runs * runs - 1.0)).sum() / total / 12.0
    return variance


def _same_class_rank_correlation(x: Matrix, codes: NDArray[np.intp]) -> float:
    """Spearman correlation over pairs of points between their correlation and having the same class."""
    similarity = _similarity(x[np.argsort(codes, kind="stable")])
    bounds = np.concatenate([[0], np.cumsum(np.bincount(codes))])
    same = np.concatenate(
        [_lower(similarity[a:b, a:b]) for a, b in pairwise(bounds) if b - a > 1] or [np.empty(0)]
    )
    if not len(same):
        raise ValueError("labels: PARC needs two points of one class, found one point in every class")
    pairs = _lower(similarity)
    del similarity
    pairs.sort()
    variance = _rank_variance(pairs)
    if variance <= 0:
        raise ValueError("features: all pairs of points are equally correlated, so PARC is undefined")
    total, m = len(pairs), len(same)
    share = m / total
    return float((_rank_sum(same, pairs) / m - (total + 1) / 2.0) * np.sqrt(share / (1.0 - share) / variance))


def _released_rank_correlation(x: Matrix, prepared: Prepared) -> float:
    """Spearman correlation of both distances with the rounding of the label correlations left in.

    ``np.corrcoef`` of one-hot labels returns values a rounding apart for pairs that are equally alike;
    Spearman then ranks them apart, which can move the score by a percent.
    """
    pairs = _lower(1.0 - _similarity(x))
    label_pairs = _lower(1.0 - np.asarray(np.corrcoef(prepared.indicator)))
    ordered = np.sort(pairs)
    groups = []
    left_values, left_pairs = label_pairs, pairs
    while len(left_values):
        inside = left_values == left_values[0]
        groups.append((left_values[0], left_pairs[inside]))
        left_values, left_pairs = left_values[~inside], left_pairs[~inside]
    groups.sort(key=lambda group: group[0])
    total = len(pairs)
    sizes = np.array([len(members) for _, members in groups], dtype=float)
    ranks = np.cumsum(sizes) - (sizes - 1.0) / 2.0
    sums = np.array([_rank_sum(members, ordered) for _, members in groups])
    centre = (total + 1) / 2.0
    variance = _rank_variance(ordered) * float((sizes * (ranks - centre) ** 2).sum() / total)
    if variance <= 0:
        raise ValueError(
            "features: all pairs of points are equally correlated or alike, so PARC is undefined"
        )
    return float(((ranks - centre) @ (sums - sizes * centre)) / total / np.sqrt(variance))
