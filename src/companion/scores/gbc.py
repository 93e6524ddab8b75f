"""GBC: overlap of the classes as Gaussians, by the Bhattacharyya coefficient."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from companion.scores._arrays import check_count
from companion.scores._shared import Prepared, class_means

COMPONENTS = 64
# Relative floor of a class variance, so that a class without spread in a direction is far, not infinitely
# far.
VARIANCE_FLOOR = 1e-6


def gbc(
    features: ArrayLike, labels: ArrayLike, *, covariance: str = "spherical", components: int = COMPONENTS
) -> float:
    r"""Minus the summed overlap of every ordered pair of classes.

    Features are projected on 64 principal components; every class becomes a Gaussian with mean :math:`\mu_c`
    and spherical or diagonal covariance :math:`\Sigma_c`. With
    :math:`\bar\Sigma=\tfrac12(\Sigma_a+\Sigma_b)`,

    .. math::

        D_B(a,b)=\tfrac18(\mu_a-\mu_b)^\top\bar\Sigma^{-1}(\mu_a-\mu_b)
            +\tfrac12\log\frac{\det\bar\Sigma}{\sqrt{\det\Sigma_a\det\Sigma_b}},\qquad
        \mathrm{GBC}=-\sum_{a\ne b}e^{-D_B(a,b)} .

    Parameters
    ----------
    features : array-like of shape (n, d)
        Features.
    labels : array-like of shape (n,) or (n, 1)
        Target labels.
    covariance : {"spherical", "diagonal"}, default "spherical"
        Shape of the class Gaussians.
    components : int, default 64
        Principal components kept; as many as the features have, if fewer.

    Returns
    -------
    float
        In [-C(C - 1), 0]; higher is better.

    Raises
    ------
    ValueError
        Bad arrays, or an unknown `covariance` or impossible `components`.

    Notes
    -----
    Cost: O(nd min(n, d)) for the PCA and O(C² · 64) for the pairs; memory O(nd + min(n, d)²). No chance
    enters. Class variances have divisor n_c and a floor of 1e-6 of the features' variance in that direction
    (of the mean variance when spherical), so a class with a single point stays finite. Invariant to rotation
    and scale.

    Weaknesses: a sum over C(C - 1) pairs, so values compare within one target only; an overlap needs common
    directions of spread, so few points a class look apart: shuffled binary labels gave -1.93 of -2 at n = 900
    and -1.72 at n = 200 (d = 512).

    References
    ----------
    Pándy, Agostinelli, Uijlings, Ferrari, Mensink (2022). Transferability estimation using Bhattacharyya
    class separability. CVPR, arXiv:2111.12780.
    """
    _check(covariance)
    return compute(Prepared(features, labels), covariance=covariance, components=components)


def _check(covariance: str) -> None:
    if covariance not in ("spherical", "diagonal"):
        raise ValueError(f"covariance: one of 'spherical', 'diagonal' is needed, found {covariance!r}")


def compute(prepared: Prepared, *, covariance: str = "spherical", components: int = COMPONENTS) -> float:
    """GBC of prepared arrays."""
    x = prepared.pca(check_count(components, "components"))
    means = class_means(x, prepared.codes, prepared.counts)
    variances = class_means((x - means[prepared.codes]) ** 2, prepared.codes, prepared.counts)
    total = x.var(axis=0)
    if covariance == "spherical":
        variances = np.repeat(variances.mean(axis=1, keepdims=True), x.shape[1], axis=1)
        total = np.full_like(total, total.mean())
    variances = np.maximum(variances, VARIANCE_FLOOR * total)
    overlap = 0.0
    for a in range(prepared.n_classes):
        b = slice(a + 1, None)
        middle = (variances[a] + variances[b]) / 2.0
        far = ((means[a] - means[b]) ** 2 / middle).sum(axis=1) / 8.0
        shape = (np.log(middle) - 0.5 * (np.log(variances[a]) + np.log(variances[b]))).sum(axis=1) / 2.0
        overlap += 2.0 * np.exp(-far - shape).sum()
    return float(-overlap)
