"""TransRate: mutual information of features and labels, by coding rates."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from companion.scores._arrays import check_positive
from companion.scores._shared import Matrix, Prepared


def transrate(features: ArrayLike, labels: ArrayLike, *, distortion: float = 1e-4) -> float:
    r"""Coding rate of the features less their mean coding rate within classes.

    For centred features :math:`Z` with n rows, :math:`R(Z)=\tfrac12\log\det(I+\tfrac{1}{n\epsilon}Z^\top Z)`
    and

    .. math:: \mathrm{TransRate} = R(Z) - \sum_c \frac{n_c}{n}\,R(Z_c) ,

    :math:`Z_c` being the rows of class c of the centred features (not centred again), as in the paper's
    listing.

    Parameters
    ----------
    features : array-like of shape (n, d)
        Features.
    labels : array-like of shape (n,) or (n, 1)
        Target labels.
    distortion : float, default 1e-4
        The :math:`\epsilon` above.

    Returns
    -------
    float
        At least 0; higher is better.

    Raises
    ------
    ValueError
        Bad arrays, or a `distortion` that is no positive number.

    Notes
    -----
    Classes are weighted by their size, as in the paper's formula; its listing averages them equally, which is
    the same for balanced classes. Cost: :math:`O(nd\min(n,d))`, each class in the smaller of n_c and d
    dimensions; memory :math:`O(nd + \min(n,d)^2)`. No chance enters. Invariant to rotation, row order and
    class names.

    Weaknesses: not invariant to scale, since the distortion is absolute; grows with d. In-sample:
    shuffled binary labels (n = 900) scored 1.2 at d = 64, 5.2 at d = 128 and 110 at d = 512.

    References
    ----------
    Huang, Huang, Rong, Yang, Wei (2022). Frustratingly easy transferability estimation. ICML,
    arXiv:2106.09362.
    """
    distortion = check_positive(distortion, "distortion")
    return compute(Prepared(features, labels), distortion=distortion)


def compute(prepared: Prepared, *, distortion: float = 1e-4) -> float:
    """TransRate of prepared arrays."""
    n = prepared.n
    whole = 0.5 * np.log1p(prepared.spectrum / (n * distortion)).sum()
    x = prepared.centred
    parts = [size / n * _rate(x[prepared.codes == c], distortion) for c, size in enumerate(prepared.counts)]
    return float(max(whole - sum(parts), 0.0))


def _rate(z: Matrix, distortion: float) -> float:
    gram = z @ z.T if len(z) < z.shape[1] else z.T @ z
    gram /= len(z) * distortion
    gram[np.diag_indices_from(gram)] += 1.0
    return 0.5 * float(np.linalg.slogdet(gram)[1])
