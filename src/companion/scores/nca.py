"""NCA: neighbourhood component analysis evaluated with k-nearest neighbours, the proposed feature term."""

import numpy as np
from numpy.typing import ArrayLike

from companion.scores._arrays import Matrix, check_variant
from companion.scores._prepared import Prepared, neighbour_votes, prepare

COMPONENTS = 50
NEIGHBOURS = 5
MAX_ITER = 50


def nca(features: ArrayLike, labels: ArrayLike, *, variant: str = "corrected") -> float:
    r"""Mean share of the true class among the 5 nearest neighbours in a learned 50-dimensional projection.

    Neighbourhood component analysis finds the linear map :math:`A` (50 x d, started at the principal components, at
    most 50 L-BFGS iterations) that maximises the expected number of points whose stochastic neighbour has their class,

    .. math::

        \sum_i\sum_{j\ne i,\,y_j=y_i}p_{ij},\qquad
        p_{ij}=\frac{\exp(-\lVert Ax_i-Ax_j\rVert^2)}{\sum_{k\ne i}\exp(-\lVert Ax_i-Ax_k\rVert^2)} .

    Parameters
    ----------
    features, labels : array-like of shape (n, d) and (n,)
    variant : {"corrected", "published"}, default "corrected"
        "published": a point counts among its own neighbours, and the start is scikit-learn's. "corrected": it is left
        out, and the start is exact.

    Returns
    -------
    float
        In [0, 1]; higher is better.

    Raises
    ------
    ValueError
        Corrected: a class with fewer than 2 points.

    Notes
    -----
    scikit-learn's estimator, in float64. Where a side of the features exceeds 500, its own start is a seeded random
    projection; from exact principal components the published score came out up to .09 away. Rounding of the released
    float32 features, which the optimiser amplifies, moves it by up to .04. With fewer than 50 dimensions of spread, or
    fewer than 5 (other) points, as many as there are are used; points tied with the fifth share its place.

    Cost: O(iterations · n (n + min(n, d)) · 50) time, O(nd + n²) memory. Weaknesses: fitted to the labels it is
    evaluated with. Large distances saturate the softmax: the optimiser then stops at its start. Source: Goldberger et
    al. (2004). NeurIPS. As a transferability score: Juodelyte et al. (2024), arXiv:2412.20172.
    """
    own = check_variant(variant) == "published"
    p = prepare(features, labels)
    if not own:
        p.require_pairs("NCA without the point itself")
    return true_class_share(embed(p, labels, released=own), p, own=own)


def true_class_share(points: Matrix, p: Prepared, *, own: bool) -> float:
    """Mean share of the true class among the 5 nearest neighbours; `own` counts a point among its neighbours."""
    return float((neighbour_votes(points, p, NEIGHBOURS, own=own) * p.indicator).sum(axis=1).mean())


def embed(features: ArrayLike | Prepared, labels: ArrayLike, *, released: bool = False) -> Matrix:
    """Points in the projection that neighbourhood component analysis finds, shape (n, at most 50).

    With `released` it starts at the principal components as scikit-learn gives them to the released code.
    """
    from sklearn.decomposition import PCA
    from sklearn.neighbors import NeighborhoodComponentsAnalysis
    from threadpoolctl import threadpool_limits

    p = prepare(features, labels)
    k = min(COMPONENTS, len(p.values))
    start = np.eye(k, len(p.values))  # the points are coordinates along the principal components
    if released:
        start = PCA(k, random_state=42).fit(p.x).components_ @ (p.centred.T @ p.points) / p.values
    model = NeighborhoodComponentsAnalysis(k, init=start, max_iter=MAX_ITER)
    # Many small products: one thread is no slower, and the result does not depend on how many there are.
    with threadpool_limits(1, user_api="blas"):
        return model.fit_transform(p.points, p.codes)
