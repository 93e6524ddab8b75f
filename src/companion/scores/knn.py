"""k-NN: leave-one-out accuracy of the nearest neighbours in the features as they are."""

from numpy.typing import ArrayLike

from companion.scores._prepared import neighbour_votes, prepare

NEIGHBOURS = 5


def knn(features: ArrayLike, labels: ArrayLike) -> float:
    r"""Share of points whose 5 nearest neighbours, the point itself left out, vote for its class.

    .. math:: \mathrm{kNN} = \frac1n\sum_i \mathbb 1\bigl[y_i=\arg\max_c\,\#\{j\in N_k(i): y_j=c\}\bigr]

    with k = 5 (or n - 1) Euclidean neighbours. Classes tied for the most votes share the point equally, and
    points tied with the k-th neighbour share its place.

    Returns
    -------
    float
        In [0, 1]; higher is better.

    Raises
    ------
    ValueError
        A class with fewer than 2 points.

    Notes
    -----
    Cost: O(n² min(n, d)) time, O(n² + nd) memory. Weaknesses: columns of large scale decide alone; few neighbours make
    it coarse. Source: Cover, Hart (1967). IEEE Transactions on Information Theory 13, 21–27. As a transferability
    baseline: Renggli et al. (2022). CVPR, arXiv:2010.06402.
    """
    p = prepare(features, labels)
    p.require_pairs("leave-one-out k-NN")
    votes = neighbour_votes(p.span, p, NEIGHBOURS, own=False)
    winners = votes >= votes.max(axis=1, keepdims=True) - 1e-9
    return float(((winners * p.indicator).sum(axis=1) / winners.sum(axis=1)).mean())
