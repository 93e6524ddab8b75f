"""LogME: log marginal evidence of a Bayesian linear model of the labels given the features."""

import numpy as np
from numpy.typing import ArrayLike

from companion.scores._arrays import Matrix, check_variant
from companion.scores._prepared import eigen, prepare

MAX_STEPS = 11
RELATIVE_STOP = 1e-3
DAMPING = 1e-5


def logme(features: ArrayLike, labels: ArrayLike, *, variant: str = "corrected") -> float:
    r"""Maximum log evidence per point of a Bayesian linear regression on each class indicator.

    For every class with indicator :math:`y`, weights have prior precision :math:`\alpha` and the noise precision is
    :math:`\beta`; with :math:`\sigma_i` the squared singular values of the (uncentred) features and :math:`m` the
    posterior mean,

    .. math::

        \mathcal{L} = \tfrac{d}{2}\log\alpha + \tfrac{n}{2}\log\beta
            - \tfrac{1}{2}\sum_{i=1}^{d}\log(\alpha + \beta\sigma_i)
            - \tfrac{\beta}{2}\lVert y - Xm\rVert^2 - \tfrac{\alpha}{2}\lVert m\rVert^2 - \tfrac{n}{2}\log 2\pi .

    A fixed point from :math:`\alpha = \beta = 1` (at most 11 steps, stopping when :math:`\alpha/\beta` moves by 1e-3 or
    less, 1e-5 added to both denominators) maximises it. The score is the mean over classes of :math:`\mathcal{L}/n`.

    Parameters
    ----------
    features, labels : array-like of shape (n, d) and (n,)
    variant : {"corrected", "published"}, default "corrected"
        "published": the log-determinant has min(n, d) terms only, which is wrong whenever n < d, and the mean runs over
        every label up to the largest, so a gap in integer labels counts as a class. Elsewhere the two are equal.

    Returns
    -------
    float
        Any real number; higher is better.

    Notes
    -----
    Cost: O(nd min(n, d)) time, O(nd + min(n, d)²) memory. Weaknesses: as published, width alone wins: noise with random
    binary labels (n = 200) scored 4.3 at d = 512 and 86 at d = 4096, against -1.14 and -1.11 corrected. The level
    depends on C, class balance and scale, so values compare within one target only. Source: You et al. (2021). ICML,
    arXiv:2102.11005.
    """
    check_variant(variant)
    p = prepare(features, labels)
    sigma, vectors = eigen(p.x)
    # Squared coordinates of the class indicators along the left singular vectors, shape (rank, C).
    if p.n < p.d:
        along = (vectors.T @ p.indicator) ** 2
    else:
        along = (vectors.T @ (p.x.T @ p.indicator)) ** 2 / sigma[:, None]
    terms = p.d if variant == "corrected" else min(p.n, p.d)
    evidences = [
        _evidence(sigma, z, size, p.n, p.d, terms) for z, size in zip(along.T, p.counts, strict=True)
    ]
    total, classes = sum(evidences), len(evidences)
    if variant == "published" and p.classes.dtype.kind in "iuf" and p.classes[0] >= 0:
        # The released code counts classes up to the largest label, whether a point has them or not.
        empty = int(p.classes[-1]) + 1 - classes
        total += empty * _evidence(sigma, np.zeros_like(sigma), 0, p.n, p.d, terms)
        classes += empty
    return float(total / classes / p.n)


def _evidence(sigma: Matrix, z: Matrix, size: int, n: int, d: int, terms: int) -> float:
    """Maximum log evidence of an indicator of `size` ones with squared coordinates `z`."""
    outside = max(size - z.sum(), 0.0)
    alpha = beta = 1.0
    for _ in range(MAX_STEPS):
        t = alpha / beta
        kept = sigma / (sigma + t)
        length = (kept * z / (sigma + t)).sum()
        residual = ((1.0 - kept) ** 2 * z).sum() + outside
        alpha = kept.sum() / (length + DAMPING)
        beta = (n - len(sigma) + (t / (sigma + t)).sum()) / (residual + DAMPING)
        if abs(alpha / beta - t) / t <= RELATIVE_STOP:
            break
    log_det = np.log(alpha + beta * sigma).sum() + (terms - len(sigma)) * np.log(alpha)
    fit = d * np.log(alpha) + n * np.log(beta) - log_det - beta * residual - alpha * length
    return 0.5 * (fit - n * np.log(2.0 * np.pi))
