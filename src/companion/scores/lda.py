"""LDA variant of the feature term: a linear discriminant projection, evaluated with k-NN as NCA is."""

import numpy as np
from numpy.typing import ArrayLike

from companion.scores._arrays import Matrix, check_variant
from companion.scores._prepared import Prepared, prepare
from companion.scores.nca import true_class_share

# Directions whose spread is below this share of the largest count as empty: float32 features carry rounding of about
# 1e-7 there, and whitening would blow it up.
RANK_TOLERANCE = 1e-5


def lda(features: ArrayLike, labels: ArrayLike, *, variant: str = "corrected") -> float:
    r"""Mean share of the true class among the 5 nearest neighbours in the linear discriminant projection.

    The projection of the paper's Fig. 3, evaluated as `nca` is so that the two compare: features are whitened by the
    within-class covariance (its pseudo-inverse) and projected on the span of the whitened class means, of at most C - 1
    dimensions.

    Parameters
    ----------
    features, labels : array-like of shape (n, d) and (n,)
    variant : {"corrected", "published"}, default "corrected"
        "published": a point counts among its own neighbours. "corrected": it is left out.

    Returns
    -------
    float
        In [0, 1]; higher is better.

    Raises
    ------
    ValueError
        No spread within the classes; corrected: a class with fewer than 2 points.

    Notes
    -----
    Cost: O(nd min(n, d) + n²) time, O(nd + n²) memory. Weaknesses: fitted to the labels it is evaluated with. Source:
    Fisher (1936). Annals of Eugenics 7, 179–188. Compared with NCA in Juodelyte et al. (2024), arXiv:2412.20172.
    """
    own = check_variant(variant) == "published"
    p = prepare(features, labels)
    if not own:
        p.require_pairs("LDA's k-NN without the point itself")
    return true_class_share(project(p, labels), p, own=own)


def project(features: ArrayLike | Prepared, labels: ArrayLike) -> Matrix:
    """Points in the discriminant projection, shape (n, at most C - 1).

    scikit-learn's where the within-class covariance is regular; where it is singular (n < d), scikit-learn's scaling of
    every column changes the pseudo-inverse, and with it the score.
    """
    p = prepare(features, labels)
    p.require_spread_within("LDA's projection")
    values, basis = np.linalg.eigh(np.atleast_2d(np.cov(p.within(p.span).T, bias=True)))
    kept = values > RANK_TOLERANCE**2 * values[-1]
    whitening = basis[:, kept] / np.sqrt(values[kept])
    means = np.sqrt(p.counts)[:, None] * p.class_means(p.span)
    _, sizes, axes = np.linalg.svd(means @ whitening, full_matrices=False)
    used = max(1, min(len(means) - 1, np.count_nonzero(sizes > 1e-10 * sizes[0])))
    return p.span @ (whitening @ axes[:used].T)
