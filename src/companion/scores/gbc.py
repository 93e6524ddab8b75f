"""GBC: overlap of the classes as Gaussians, by the Bhattacharyya coefficient."""

import numpy as np
from numpy.typing import ArrayLike

from companion.scores._arrays import check_choice, check_count
from companion.scores._prepared import prepare

# Relative floor of a class variance, so that a class without spread in a direction is far, not infinitely far.
VARIANCE_FLOOR = 1e-6


def gbc(
    features: ArrayLike, labels: ArrayLike, *, covariance: str = "spherical", components: int = 64
) -> float:
    r"""Minus the summed overlap of every ordered pair of classes.

    Features are projected on 64 principal components; every class becomes a Gaussian with mean :math:`\mu_c` and
    spherical or diagonal covariance :math:`\Sigma_c`. With :math:`\bar\Sigma=\tfrac12(\Sigma_a+\Sigma_b)`,

    .. math::

        D_B(a,b)=\tfrac18(\mu_a-\mu_b)^\top\bar\Sigma^{-1}(\mu_a-\mu_b)
            +\tfrac12\log\frac{\det\bar\Sigma}{\sqrt{\det\Sigma_a\det\Sigma_b}},\qquad
        \mathrm{GBC}=-\sum_{a\ne b}e^{-D_B(a,b)} .

    Parameters
    ----------
    features, labels : array-like of shape (n, d) and (n,)
        Features of the target's points, and their labels.
    covariance : {"spherical", "diagonal"}, default "spherical"
        Shape of the class Gaussians; a floor of 1e-6 of the features' variance keeps a class of one point finite.
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
    Cost: O(nd min(n, d)) time, O(nd + min(n, d)²) memory. Weaknesses: a sum over pairs of classes, so values compare
    within one target only; few points a class look apart: shuffled binary labels gave -1.93 at n = 900, -1.72 at n =
    200 (d = 512).

    References
    ----------
    Pándy et al. (2022). Transferability estimation using Bhattacharyya class separability. CVPR, arXiv:2111.12780.
    """
    check_choice(covariance, "covariance", ("spherical", "diagonal"))
    p = prepare(features, labels)
    x = p.pca(check_count(components, "components"))
    means, variances, total = p.class_means(x), p.class_means(p.within(x) ** 2), x.var(axis=0)
    if covariance == "spherical":
        variances = np.repeat(variances.mean(axis=1, keepdims=True), x.shape[1], axis=1)
        total = total.mean()
    variances = np.maximum(variances, VARIANCE_FLOOR * total)
    overlap = 0.0
    for a in range(len(means)):
        b = slice(a + 1, None)
        middle = (variances[a] + variances[b]) / 2
        far = ((means[a] - means[b]) ** 2 / middle).sum(axis=1) / 8
        shape = (np.log(middle) - (np.log(variances[a]) + np.log(variances[b])) / 2).sum(axis=1) / 2
        overlap += 2 * np.exp(-far - shape).sum()
    return float(-overlap)
