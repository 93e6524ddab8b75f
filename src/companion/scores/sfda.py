"""SFDA: self-challenging Fisher discriminant analysis."""

import warnings

import numpy as np
from numpy.typing import ArrayLike

from companion.scores._arrays import Matrix, ScoreWarning, check_variant
from companion.scores._prepared import Prepared, prepare

SATURATION = 1e-9
SATURATED = (
    "sfda: saturated, every p(y|x) is 1 to 1e-9: the discriminant interpolates the labels (usual where "
    "n < d), so the score says nothing; use more points or fewer columns"
)


def sfda(features: ArrayLike, labels: ArrayLike, *, variant: str = "corrected") -> float:
    r"""Mean probability of the true class after a regularised discriminant and a confidence mix.

    With :math:`S_W` the within-class covariance and :math:`\lambda` its largest eigenvalue (three double power steps
    from its row sums), the shrinkage is :math:`s = \max(e^{-5\lambda}, 10^{-10})` and :math:`\tilde S = (1-s)S_W +
    s\,\tfrac{\mathrm{tr}S_W}{d}I`. The released code solves the generalised eigenproblem of :math:`(S_T - \tilde S,
    \tilde S)` and keeps all eigenvectors :math:`E`, for which :math:`EE^\top = \tilde S^{-1}`; the discriminant scores
    are therefore

    .. math:: g_c(x) = x^\top\tilde S^{-1}m_c - \tfrac12 m_c^\top\tilde S^{-1}m_c + \log\pi_c .

    Softmax is applied to them twice (:math:`q`), every point is moved to :math:`q_y x + (1-q_y)\bar m_{\neq y}` (the
    mean of the other classes' means), the discriminant is fitted again with the same :math:`s`, and the score is the
    mean of :math:`p(y\mid x)`.

    Parameters
    ----------
    features, labels : array-like of shape (n, d) and (n,)
    variant : {"corrected", "published"}, default "corrected"
        "corrected" returns NaN, with a `ScoreWarning`, where the fit is saturated: every p(y|x) is 1 to 1e-9.

    Returns
    -------
    float
        In [0, 1], higher is better; NaN where saturated (corrected).

    Raises
    ------
    ValueError
        No spread within the classes.

    Notes
    -----
    Cost: O(nd min(n, d)) time, O(nd + min(n, d)²) memory: the discriminant is solved in the span of the centred
    features. Weaknesses: not invariant to scale, nor to rotation; evaluated on the points it is fitted to, and
    saturated where n < d. Source: Shao et al. (2022). ECCV, arXiv:2207.03036.
    """
    from scipy.special import softmax

    check_variant(variant)
    p = prepare(features, labels)
    p.require_spread_within("SFDA's discriminant")
    shrinkage = max(np.exp(-5.0 * _largest_eigenvalue(p.centred_within)), 1e-10)
    own = np.arange(p.n), p.codes
    confidence = softmax(softmax(_discriminant(p.span, p, shrinkage), axis=1), axis=1)[own][:, None]
    means = p.class_means(p.span)
    others = (means.sum(axis=0) - means) / (len(means) - 1)
    mixed = confidence * p.span + (1.0 - confidence) * others[p.codes]
    probability = softmax(_discriminant(mixed, p, shrinkage), axis=1)[own]
    if variant == "corrected" and probability.min() >= 1.0 - SATURATION:
        warnings.warn(SATURATED, ScoreWarning, stacklevel=2)
        return float("nan")
    return float(probability.mean())


def _largest_eigenvalue(within: Matrix) -> float:
    """Power iteration on the within-class covariance, as far as the released code takes it."""

    def step(vector: Matrix) -> Matrix:
        return within.T @ (within @ vector) / len(within)

    def unit(vector: Matrix) -> Matrix:
        length = np.linalg.norm(vector)
        return vector / length if length > 0 else vector

    x = y = step(np.ones(within.shape[1]))
    for _ in range(3):
        y = unit(step(x))
        x = unit(step(y))
    return float(x @ step(y))


def _discriminant(x: Matrix, p: Prepared, shrinkage: float) -> Matrix:
    """Discriminant scores of the points, shape (n, C)."""
    from scipy.linalg import cho_factor, cho_solve

    within, means = p.within(x), p.class_means(x)
    covariance = within.T @ within / p.n
    floor = shrinkage * np.trace(covariance) / p.d * np.eye(len(covariance))
    coefficients = cho_solve(cho_factor((1.0 - shrinkage) * covariance + floor), means.T)
    return x @ coefficients - 0.5 * (means.T * coefficients).sum(axis=0) + np.log(p.counts / p.n)
