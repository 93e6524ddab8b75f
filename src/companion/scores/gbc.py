"""GBC: overlap of the classes as Gaussians, by the Bhattacharyya coefficient."""

import numpy as np
from numpy.typing import ArrayLike

from companion.scores._prepared import prepare

COMPONENTS = 64
# Relative floor of a class variance, so that a class of one point is far, not infinitely far.
VARIANCE_FLOOR = 1e-6


def gbc(features: ArrayLike, labels: ArrayLike) -> float:
    r"""Minus the summed overlap of every ordered pair of classes.

    Features are projected on 64 principal components (or as many as there are); every class becomes a Gaussian with
    mean :math:`\mu_c` and spherical covariance :math:`\Sigma_c`, at least 1e-6 of the features' variance. With
    :math:`\bar\Sigma=\tfrac12(\Sigma_a+\Sigma_b)`,

    .. math::

        D_B(a,b)=\tfrac18(\mu_a-\mu_b)^\top\bar\Sigma^{-1}(\mu_a-\mu_b)
            +\tfrac12\log\frac{\det\bar\Sigma}{\sqrt{\det\Sigma_a\det\Sigma_b}},\qquad
        \mathrm{GBC}=-\sum_{a\ne b}e^{-D_B(a,b)} .

    Returns
    -------
    float
        In [-C(C - 1), 0]; higher is better.

    Notes
    -----
    Cost: O(nd min(n, d)) time, O(nd + min(n, d)²) memory. Weaknesses: a sum over pairs of classes, so values compare
    within one target only; few points a class look apart. Source: Pándy et al. (2022). CVPR, arXiv:2111.12780.
    """
    p = prepare(features, labels)
    x = p.pca(COMPONENTS)
    means, variances = p.class_means(x), p.class_means(p.within(x) ** 2).mean(axis=1)
    variances = np.maximum(variances, VARIANCE_FLOOR * x.var(axis=0).mean())
    overlap = 0.0
    for a in range(len(means)):
        b = slice(a + 1, None)
        middle = (variances[a] + variances[b]) / 2
        far = ((means[a] - means[b]) ** 2).sum(axis=1) / middle / 8
        shape = x.shape[1] * (np.log(middle) - (np.log(variances[a]) + np.log(variances[b])) / 2) / 2
        overlap += 2 * np.exp(-far - shape).sum()
    return float(-overlap)
