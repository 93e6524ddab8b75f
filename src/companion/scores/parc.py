"""PARC: Pearson distances among features against distances among labels."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from companion.scores._arrays import Matrix, Seed, check_variant, stratified_subsample
from companion.scores._prepared import Prepared, prepare

COMPONENTS = 32
MAX_POINTS = 15_000


def parc(
    features: ArrayLike, labels: ArrayLike, *, variant: str = "corrected", random_state: Seed = 0
) -> float:
    r"""Rank correlation (x 100) of pairwise feature distances with pairwise label distances.

    Features are projected on 32 principal components and standardised. With :math:`\rho` the Pearson correlation
    between two points and :math:`e_y` the one-hot label,

    .. math::

        \mathrm{PARC} =
        100\cdot\mathrm{spearman}\bigl(\{1-\rho(x_i,x_j)\},\{1-\rho(e_{y_i},e_{y_j})\}\bigr)_{i<j} .

    Parameters
    ----------
    features, labels : array-like of shape (n, d) and (n,)
    variant : {"corrected", "published"}, default "corrected"
        "published": randomised PCA (seed 1919, one power iteration), and the rounding of ``np.corrcoef`` on one-hot
        labels, which ranks some pairs apart that are equally alike. "corrected": exact PCA with as many of the 32
        components as the features have; beyond 15,000 points a stratified subsample of features and labels.
    random_state : int, RandomState or None, default 0
        Seed of that subsample.

    Returns
    -------
    float
        In [-100, 100]; higher is better.

    Raises
    ------
    ValueError
        A point whose standardised components are all equal (its correlation is undefined; any features of
        rank 1); no two points of one class; published with n or d below 32 or n above 15,000.

    Notes
    -----
    Cost: O(nd min(n, d) + n² log n) time, O(nd + n²) memory. Weaknesses: the sign of a principal component is
    arbitrary, but correlations depend on it; here, as in scikit-learn, the largest loading is positive, and other signs
    had a standard deviation of .3 (n = 1100, d = 512) to .9 (n = 200) around scores of 10 to 21. Source: Bolya et al.
    (2021). NeurIPS, arXiv:2111.06977.
    """
    from scipy.spatial.distance import squareform
    from scipy.stats import spearmanr

    check_variant(variant)
    p = prepare(features, labels)
    if variant == "corrected" and p.n > MAX_POINTS:
        rows = stratified_subsample(p.codes, MAX_POINTS, random_state=random_state)
        p = Prepared(p.x[rows], p.codes[rows])
    if p.counts.max() < 2:
        raise ValueError("labels: PARC needs two points of one class, found one point in every class")
    x = _components(p) if variant == "corrected" else _released_components(p)
    correlation = squareform(_correlation(x), checks=False)  # one entry for each pair of points
    if np.ptp(correlation) == 0:
        raise ValueError("features: all pairs of points are equally correlated, so PARC is undefined")
    if variant == "corrected":
        return 100.0 * _rank_correlation(
            correlation, squareform(np.equal.outer(p.codes, p.codes), checks=False)
        )
    label_distance = squareform(1.0 - np.corrcoef(p.indicator), checks=False)
    return 100.0 * float(spearmanr(1.0 - correlation, label_distance).statistic)


def _components(p: Prepared) -> Matrix:
    """Exact principal components, each with its largest loading positive (the signs matter)."""
    x = p.pca(COMPONENTS)
    loadings = p.centred.T @ x
    return x * np.sign(loadings[np.abs(loadings).argmax(axis=0), np.arange(x.shape[1])])


def _released_components(p: Prepared) -> Matrix:
    from sklearn.decomposition import PCA

    if min(p.n, p.d) < COMPONENTS or p.n > MAX_POINTS:
        raise ValueError(
            f"features: published PARC needs {COMPONENTS} columns and {COMPONENTS} to {MAX_POINTS} points, "
            f"found shape {(p.n, p.d)}; the corrected variant takes any"
        )
    pca = PCA(COMPONENTS, svd_solver="randomized", random_state=1919, iterated_power=1)
    return pca.fit_transform(p.given).astype(float)


def _correlation(x: Matrix) -> Matrix:
    """Pearson correlation of the points over their standardised components."""
    spread = x.std(axis=0)
    x = (x - x.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    x = x - x.mean(axis=1, keepdims=True)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    flat = length <= 1e-12 * length.max()
    if flat.any():
        raise ValueError(
            f"features: point {int(np.argmax(flat))} is constant over its {x.shape[1]} standardised "
            f"components, so its correlation with other points is undefined"
        )
    x /= length  # np.corrcoef would round twice, and rank pairs apart that are equal
    return x @ x.T


def _rank_correlation(values: Matrix, same: NDArray[np.bool_]) -> float:
    """Spearman's correlation of values with being of one class.

    With two values on one side it needs the mean rank of the same-class pairs and the variance of all ranks (ties share
    theirs), so that one sort is enough: a third of the time of ``scipy.stats.spearmanr``.
    """
    ordered, inside = np.sort(values), np.sort(values[same])
    ranks = (np.searchsorted(ordered, inside, "left") + np.searchsorted(ordered, inside, "right") + 1) / 2
    total, share = len(ordered), same.mean()
    edges = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1], [True]]))
    ties = np.diff(edges).astype(float)
    variance = (total**2 - 1 - (ties**3 - ties).sum() / total) / 12
    return float((ranks.mean() - (total + 1) / 2) * np.sqrt(share / (1 - share) / variance))
