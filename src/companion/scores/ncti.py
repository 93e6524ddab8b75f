"""NCTI: the three neural-collapse terms of one source; the pooled score is `companion.ranking`'s."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from companion.scores._arrays import check_variant
from companion.scores._shared import Codes, Matrix, Prepared, class_means, softmax

COMPONENTS = 64
SHRINKAGE_FROM = 32
LEAST_SHRINKAGE = 1e-10
SEED = 42
# Below this a direction counts as empty, as in scikit-learn's discriminant.
RANK_TOLERANCE = 1e-4


class NCTITerms(NamedTuple):
    """The three terms of NCTI for one source.

    Attributes
    ----------
    compactness : float
        Nuclear norm of the centred discriminant projection of all points; at least 0, larger is more spread.
    confidence : float
        Mean discriminant probability of the true class, in [0, 1].
    class_spread : float
        Logarithm of the sum over classes of the nuclear norm of the class's predicted probabilities.
    """

    compactness: float
    confidence: float
    class_spread: float


def ncti_terms(features: ArrayLike, labels: ArrayLike, *, variant: str = "corrected") -> NCTITerms:
    r"""Three terms that say how far features are from neural collapse.

    Features are projected on 64 principal components with variances :math:`v_i`; the shrinkage is
    :math:`s=\max(\exp(-\sum_{i\le 32}v_i), 10^{-10})`; linear discriminant analysis is solved by SVD where
    :math:`s = 10^{-10}` and by eigenvectors of the covariance shrunk by s elsewhere. With :math:`F` the
    centred projection, :math:`P` the predicted probabilities and :math:`P_c` their rows of class c, the terms
    are

    .. math:: \lVert F\rVert_*,\qquad \frac1n\sum_i P_{i,y_i},\qquad \log\sum_c\lVert P_c\rVert_* .

    The score exists only over a pool of sources: each term scaled to [0, 1] over the pool, then first +
    second *plus* third as published, *minus* third corrected.

    Parameters
    ----------
    features : array-like of shape (n, d)
        Features.
    labels : array-like of shape (n,) or (n, 1)
        Target labels.
    variant : {"corrected", "published"}, default "corrected"
        "published": 64 components; needs n and d of at least 64. "corrected": min(64, n - 1, d) components,
        otherwise the same (what is mended is the sign in the pooled score).

    Returns
    -------
    NCTITerms
        Three floats. Higher is better for the first two; the third is better low.

    Raises
    ------
    ValueError
        Bad arrays; no more points than classes; published with n or d below 64; a discriminant that has no
        solution.

    Notes
    -----
    The PCA is scikit-learn's with seed 42, which picks its randomised solver for most large arrays; the seed
    is part of the definition. Cost: O(64 nd) for the PCA, O(64² n) for the rest; memory O(nd).

    Weaknesses: depends on the pool; 31 of 165 published cells exceed 2, which only the wrong sign can give.
    Fitted and read on the same points: with shuffled labels the confidence term was .53 (n = 900, C = 2,
    chance .50), .65 (n = 200, d = 512) and .15 (n = 1100, C = 11, chance .09). The randomised PCA is part of
    the result: an exact one moved the first term by .2 % at n = 1100, d = 512 and by 2.4 % at n = 120, d =
    4096.

    References
    ----------
    Wang, Luo, Zheng, Huang, Baktashmotlagh (2023). How far pre-trained models are from neural collapse on the
    target dataset informs their transferability. ICCV.
    """
    check_variant(variant)
    return compute(Prepared(features, labels), variant=variant)


def compute(prepared: Prepared, *, variant: str = "corrected") -> NCTITerms:
    """NCTI terms of prepared arrays."""
    n, codes = prepared.n, prepared.codes
    if n <= prepared.n_classes:
        raise ValueError(
            f"labels: NCTI needs more points than classes, found {n} points in {prepared.n_classes}"
        )
    x, variances = _projection(prepared, variant)
    shrinkage = max(float(np.exp(-variances[:SHRINKAGE_FROM].sum())), LEAST_SHRINKAGE)
    means = class_means(x, codes, prepared.counts)
    within = x - means[codes]
    rounding = 64.0 * float(np.finfo(prepared.as_given().dtype).eps)
    if np.einsum("ij,ij->", within, within) <= rounding**2 * np.einsum("ij,ij->", x, x):
        raise ValueError("features: the points of every class coincide, so NCTI's discriminant is undefined")
    solve = _by_svd if shrinkage == LEAST_SHRINKAGE else _by_shrinkage
    low, decision = solve(x, within, means, prepared.counts, shrinkage)
    probability = softmax(decision)
    spread = sum(_nuclear_norm(probability[codes == c]) for c in range(prepared.n_classes))
    return NCTITerms(
        _nuclear_norm(low - low.mean(axis=0)),
        float(probability[np.arange(n), codes].mean()),
        float(np.log(spread)),
    )


def _projection(prepared: Prepared, variant: str) -> tuple[Matrix, Matrix]:
    from sklearn.decomposition import PCA

    n, d = prepared.n, prepared.d
    components = COMPONENTS if variant == "published" else min(COMPONENTS, n - 1, d)
    if components > min(n, d):
        raise ValueError(
            f"features: published NCTI needs at least {COMPONENTS} points and columns, found shape {(n, d)}; "
            f"the corrected variant takes fewer"
        )
    pca = PCA(components, random_state=SEED)
    x = pca.fit_transform(prepared.as_given())
    return x.astype(float), pca.explained_variance_.astype(float)


def _by_svd(x: Matrix, within: Matrix, means: Matrix, counts: Codes, _: float) -> tuple[Matrix, Matrix]:
    """Discriminant by whitening the within-class spread: projection and decision values.

    The within-class covariance has divisor n, as in recent scikit-learn and the released values.
    """
    n, classes = len(x), len(counts)
    deviation = within.std(axis=0)
    deviation[deviation == 0] = 1.0
    scaled = within / deviation
    values, basis = np.linalg.eigh(scaled.T @ scaled / n)
    sizes = np.sqrt(np.maximum(values, 0.0))
    kept = sizes > RANK_TOLERANCE
    whitening = basis[:, kept] / deviation[:, None] / sizes[kept]
    centre = counts @ means / n
    weighted = np.sqrt(counts / (classes - 1))[:, None] * (means - centre)
    sizes, directions = np.linalg.svd(weighted @ whitening, full_matrices=False)[1:]
    axes = whitening @ directions[sizes > RANK_TOLERANCE * sizes[0]].T
    low = (x - centre) @ axes
    heights = (means - centre) @ axes
    decision = low @ heights.T - 0.5 * (heights**2).sum(axis=1) + np.log(counts / n)
    return low[:, : classes - 1], decision


def _by_shrinkage(
    x: Matrix, within: Matrix, means: Matrix, counts: Codes, shrinkage: float
) -> tuple[Matrix, Matrix]:
    """Discriminant by the generalised eigenvectors of shrunk covariances: projection and decision values."""
    from scipy.linalg import eigh

    def shrunk(centred: Matrix) -> Matrix:
        covariance = (1.0 - shrinkage) * (centred.T @ centred) / len(centred)
        covariance.flat[:: len(covariance) + 1] += shrinkage * float((centred**2).sum()) / centred.size
        return covariance

    inner = shrunk(within)
    try:
        _, axes = eigh(shrunk(x - x.mean(axis=0)) - inner, inner)
    except np.linalg.LinAlgError:
        raise ValueError("features: the shrunk covariance of NCTI's discriminant is singular") from None
    axes = axes[:, ::-1]
    heights = means @ axes
    decision = (x @ axes) @ heights.T - 0.5 * (heights**2).sum(axis=1) + np.log(counts / len(x))
    return x @ axes[:, : len(counts) - 1], decision


def _nuclear_norm(matrix: Matrix) -> float:
    return float(np.linalg.svd(matrix, compute_uv=False).sum())
