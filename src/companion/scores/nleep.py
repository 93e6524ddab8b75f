"""NLEEP: LEEP with a Gaussian mixture on the features in place of the source classes."""

import warnings

import numpy as np
from numpy.typing import ArrayLike

from companion.scores._arrays import Seed, check_variant, fresh
from companion.scores._prepared import prepare
from companion.scores.leep import expected_likelihood

VARIANCE_KEPT = 0.8
COMPONENTS_PER_CLASS = 5


def nleep(
    features: ArrayLike, labels: ArrayLike, *, variant: str = "corrected", random_state: Seed = 0
) -> float:
    r"""Mean likelihood of the labels under the clusters of a Gaussian mixture.

    Features are projected on the principal components that hold 80 % of the variance; a mixture of :math:`K = 5C`
    Gaussians with full covariances is fitted; with its posteriors :math:`\theta_{ik}` and the empirical
    :math:`\hat P(y\mid k)` as in LEEP,

    .. math:: \mathrm{NLEEP} = \frac1n\sum_i \sum_k \hat P(y_i \mid k)\,\theta_{ik} ,

    without the logarithm of the NLEEP paper, as the released code has it.

    Parameters
    ----------
    features, labels : array-like of shape (n, d) and (n,)
    variant : {"corrected", "published"}, default "corrected"
        "published" computes in the features' own precision; float32 rounding can move the score by .002. "corrected"
        computes in float64, and raises the covariance floor (1e-6) where features are too large for it.
    random_state : int, RandomState or None, default 0
        Seed of the mixture's k-means start; a released run had none.

    Returns
    -------
    float
        In (0, 1]; higher is better.

    Raises
    ------
    ValueError
        Fewer points than mixture components; published: features too large for the covariance floor.

    Notes
    -----
    Cost: O(nd min(n, d) + steps · n · 5C · p²) time with p components kept, O(nd + 5C (n + p²)) memory. Weaknesses: the
    seed moves it, by a standard deviation of .009 (n = 900, C = 2); evaluated on the points that made the clusters.
    Source: Li et al. (2021). CVPR, arXiv:2011.11200.
    """
    from sklearn.decomposition import PCA
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    check_variant(variant)
    p = prepare(features, labels)
    clusters = COMPONENTS_PER_CLASS * len(p.classes)
    if p.n < clusters:
        raise ValueError(
            f"features: NLEEP needs at least as many points as mixture components "
            f"({COMPONENTS_PER_CLASS} x {len(p.classes)} classes = {clusters}), found {p.n} points"
        )
    floor = 1e-6  # of the covariances, scikit-learn's
    if variant == "published":
        x = PCA(VARIANCE_KEPT, random_state=42).fit_transform(p.given)
    else:
        kept = np.cumsum(p.values) / p.values.sum()
        x = p.pca(int(np.searchsorted(kept, VARIANCE_KEPT, side="right")) + 1)
        floor = max(floor, 1e-11 * p.values.sum() / p.n)
    mixture = GaussianMixture(clusters, reg_covar=floor, random_state=fresh(random_state))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        try:
            theta = mixture.fit(x).predict_proba(x)
        except ValueError:  # the floor is below the rounding of large features
            raise ValueError(
                f"features: the released mixture has a singular covariance at this scale (largest magnitude "
                f"{np.abs(p.x).max():.3g}); the corrected variant takes it"
            ) from None
    return float(expected_likelihood(theta, p.indicator).mean())
