"""TransRate: mutual information of features and labels, by coding rates."""

import numpy as np
from numpy.typing import ArrayLike

from companion.scores._arrays import Matrix
from companion.scores._prepared import prepare

DISTORTION = 1e-4


def transrate(features: ArrayLike, labels: ArrayLike) -> float:
    r"""Coding rate of the features less their mean coding rate within classes.

    For centred features :math:`Z` with n rows, :math:`R(Z)=\tfrac12\log\det(I+\tfrac{1}{n\epsilon}Z^\top Z)` with
    :math:`\epsilon = 10^{-4}`,

    .. math:: \mathrm{TransRate} = R(Z) - \sum_c \frac{n_c}{n}\,R(Z_c) ,

    :math:`Z_c` being the rows of class c of the centred features (not centred again), as in the paper's listing, which
    averages the classes equally where the paper's formula and this weight them by size.

    Returns
    -------
    float
        At least 0; higher is better.

    Notes
    -----
    Cost: O(nd min(n, d)) time, O(nd + min(n, d)²) memory. Weaknesses: not invariant to scale, since the distortion is
    absolute; grows with d. Source: Huang et al. (2022). ICML, arXiv:2106.09362.
    """
    p = prepare(features, labels)
    whole = 0.5 * np.log1p(p.values / (p.n * DISTORTION)).sum()
    parts = [_rate(p.span[p.codes == c]) for c in range(len(p.counts))]
    return float(max(whole - p.counts @ parts / p.n, 0.0))


def _rate(z: Matrix) -> float:
    """Coding rate R(Z) of rows."""
    gram = z @ z.T if len(z) < z.shape[1] else z.T @ z
    return 0.5 * float(np.linalg.slogdet(np.eye(len(gram)) + gram / (len(z) * DISTORTION))[1])
