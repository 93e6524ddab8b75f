"""H-score with Ledoit–Wolf shrinkage: class-mean variance measured against the features' covariance."""

import numpy as np
from numpy.typing import ArrayLike

from companion.scores._prepared import prepare


def hscore(features: ArrayLike, labels: ArrayLike) -> float:
    r"""Regularised H-score: between-class variance in units of the (shrunk) total variance.

    With :math:`\Sigma` the covariance of the features (divisor n), :math:`\alpha` its Ledoit–Wolf shrinkage,
    :math:`\Sigma_\alpha=(1-\alpha)\Sigma+\alpha\tfrac{\mathrm{tr}\Sigma}{d}I` and :math:`\Sigma_B` the covariance of
    the class mean that a point carries,

    .. math:: H_\alpha = (1-\alpha)\,\mathrm{tr}\bigl(\Sigma_\alpha^{-1}\Sigma_B\bigr) .

    Returns
    -------
    float
        In [0, C - 1]; higher is better.

    Notes
    -----
    Cost: O(nd min(n, d)) time, O(nd + min(n, d)²) memory. Weaknesses: in-sample; blind to classes that differ in spread
    only. Source: Bao et al. (2019). ICIP. Shrinkage: Ibrahim et al. (2022). ECML PKDD, arXiv:2110.06893; Ledoit, Wolf
    (2004). Journal of Multivariate Analysis 88, 365–411.
    """
    p = prepare(features, labels)
    variances = p.values / p.n  # along the principal components, in which the covariance is diagonal
    # sklearn.covariance.ledoit_wolf_shrinkage in this basis: without products of d x d for n < d
    square = (variances**2).sum()
    noise = (((p.points**2).sum(axis=1) ** 2).mean() - square) / p.n
    distance = square - variances.sum() ** 2 / p.d
    alpha = np.clip(noise / distance, 0.0, 1.0) if p.d > 1 and distance > 0 else 0.0
    between = (p.counts / p.n) @ p.class_means(p.points) ** 2
    shrunk = (1.0 - alpha) * variances + alpha * variances.sum() / p.d
    return float((1.0 - alpha) * (between / shrunk).sum())
