"""NLEEP: LEEP with a Gaussian mixture on the features in place of the source classes."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import ArrayLike

from companion.scores._arrays import check_variant
from companion.scores._mixture import responsibilities
from companion.scores._shared import Matrix, Prepared
from companion.scores.leep import expected_likelihood

VARIANCE_KEPT = 0.8
COMPONENTS_PER_CLASS = 5
PUBLISHED_SEED = 42


def nleep(
    features: ArrayLike,
    labels: ArrayLike,
    *,
    variant: str = "corrected",
    random_state: int | np.random.RandomState | None = 0,
) -> float:
    r"""Mean likelihood of the labels under the clusters of a Gaussian mixture.

    Features are projected on the principal components that hold 80 % of the variance; a mixture of
    :math:`K = 5C` Gaussians with full covariances is fitted; with its posteriors :math:`\theta_{ik}` and the
    empirical :math:`\hat P(y\mid k)` as in LEEP,

    .. math:: \mathrm{NLEEP} = \frac1n\sum_i \sum_k \hat P(y_i \mid k)\,\theta_{ik} ,

    without the logarithm of the NLEEP paper, as the released code has it.

    Parameters
    ----------
    features : array-like of shape (n, d)
        Features.
    labels : array-like of shape (n,) or (n, 1)
        Target labels.
    variant : {"corrected", "published"}, default "corrected"
        The released code leaves the mixture unseeded; here both variants are seeded by `random_state`.
        "published" runs scikit-learn's PCA and mixture in the features' own precision, and 1e-7 of rounding
        in float32 can move the score by .002; "corrected" computes in float64.
    random_state : int, RandomState or None, default 0
        Seed of the k-means start of the mixture. None draws a fresh seed, as a released run did; the global
        generator is never used.

    Returns
    -------
    float
        In (0, 1]; higher is better.

    Raises
    ------
    ValueError
        Bad arrays, or fewer points than mixture components.

    Notes
    -----
    Cost: O(nd min(n, d)) for the PCA and O(steps · n · 5C · p²) for the mixture, p being the components kept;
    memory O(nd + 5C (n + p²)).

    Weaknesses: the seed moves it, by a standard deviation of .009 over 20 seeds on synthetic features (n =
    900, C = 2 and n = 1100, C = 11). Clusters are read on the points that made them: shuffled labels gave
    .506 (n = 900, C = 2, chance .500), .517 (n = 200) and .137 (n = 1100, C = 11, chance .091). A covariance
    floor of 1e-6 makes it depend on scale for very small features.

    References
    ----------
    Li, Jia, Sang, Zhu, Green, Wang, Gong (2021). Ranking neural checkpoints. CVPR, arXiv:2011.11200.
    """
    check_variant(variant)
    return compute(Prepared(features, labels), variant=variant, random_state=random_state)


def compute(
    prepared: Prepared, *, variant: str = "corrected", random_state: int | np.random.RandomState | None = 0
) -> float:
    """NLEEP of prepared arrays."""
    clusters = COMPONENTS_PER_CLASS * prepared.n_classes
    if prepared.n < clusters:
        raise ValueError(
            f"features: NLEEP needs at least as many points as mixture components "
            f"({COMPONENTS_PER_CLASS} x {prepared.n_classes} classes = {clusters}), found {prepared.n} points"
        )
    if random_state is None:
        random_state = int(np.random.default_rng().integers(2**31))
    if variant == "published":
        theta = _released_mixture(prepared, clusters, random_state)
        return float(expected_likelihood(theta, prepared.codes, prepared.n_classes).mean())
    kept = np.cumsum(prepared.spectrum) / prepared.spectrum.sum()
    components = int(np.searchsorted(kept, VARIANCE_KEPT, side="right")) + 1
    theta = responsibilities(prepared.pca(components), clusters, random_state)
    return float(expected_likelihood(theta, prepared.codes, prepared.n_classes).mean())


def _released_mixture(prepared: Prepared, clusters: int, random_state: int | np.random.RandomState) -> Matrix:
    from sklearn.decomposition import PCA
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    projected = PCA(VARIANCE_KEPT, random_state=PUBLISHED_SEED).fit_transform(prepared.as_given())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        try:
            return (
                GaussianMixture(clusters, random_state=random_state).fit(projected).predict_proba(projected)
            )
        except ValueError:  # its covariance floor is below the rounding of large features
            raise ValueError(
                f"features: the released mixture has a singular covariance at this scale (largest magnitude "
                f"{np.abs(prepared.x).max():.3g}); the corrected variant takes it"
            ) from None
