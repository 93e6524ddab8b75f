"""k-NN: leave-one-out accuracy of the nearest neighbours in the features as they are."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from companion.scores._arrays import check_count
from companion.scores._shared import Prepared, neighbour_votes
from companion.scores.nca import require_pairs

NEIGHBOURS = 5


def knn(features: ArrayLike, labels: ArrayLike, *, n_neighbors: int = NEIGHBOURS) -> float:
    r"""Share of points whose nearest neighbours, the point itself left out, vote for its class.

    .. math:: \mathrm{kNN} = \frac1n\sum_i \mathbb 1\bigl[y_i=\arg\max_c\,\#\{j\in N_k(i): y_j=c\}\bigr]

    with Euclidean neighbours. Classes tied for the most votes share the point equally, and points tied with
    the k-th neighbour share its place.

    Parameters
    ----------
    features : array-like of shape (n, d)
        Features.
    labels : array-like of shape (n,) or (n, 1)
        Target labels.
    n_neighbors : int, default 5
        Neighbours that vote; n - 1, if fewer.

    Returns
    -------
    float
        Accuracy in [0, 1]; higher is better.

    Raises
    ------
    ValueError
        Bad arrays; a class with fewer than 2 points; `n_neighbors` below 1.

    Notes
    -----
    Cost: O(n² min(n, d)) time, O(n² + nd) memory. No chance enters. Invariant to rotation, shift, scale, row
    order and class names. Held out, so shuffled labels score near chance: .48–.50 (n = 900, C = 2), .087–.098
    (n = 1100, C = 11).

    Weaknesses: columns of large scale decide alone; few neighbours make it coarse.

    References
    ----------
    Cover, Hart (1967). Nearest neighbor pattern classification. IEEE Transactions on Information Theory 13,
    21–27. As a transferability baseline: Renggli et al. (2022). Which model to transfer? CVPR,
    arXiv:2010.06402.
    """
    return compute(Prepared(features, labels), n_neighbors=n_neighbors)


def compute(prepared: Prepared, *, n_neighbors: int = NEIGHBOURS) -> float:
    """k-NN accuracy of prepared arrays."""
    k = min(check_count(n_neighbors, "n_neighbors"), prepared.n - 1)
    require_pairs(prepared, "leave-one-out k-NN")
    votes = neighbour_votes(prepared.reduced, prepared.codes, prepared.n_classes, k, own=False)
    winners = votes >= votes.max(axis=1, keepdims=True) - 1e-9
    right = winners[np.arange(prepared.n), prepared.codes] / winners.sum(axis=1)
    return float(right.mean())
