"""NCTI: the three neural-collapse terms of one source; `combine_ncti` makes a score of them."""

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from companion.scores._arrays import check_variant
from companion.scores._prepared import prepare

COMPONENTS = 64
LEAST_SHRINKAGE = 1e-10


class NCTITerms(NamedTuple):
    """The three terms of NCTI for one source: at least 0, in [0, 1], and any; the formulas stand in `ncti_terms`."""

    compactness: float
    confidence: float
    class_spread: float


def ncti_terms(features: ArrayLike, labels: ArrayLike, *, variant: str = "corrected") -> NCTITerms:
    r"""Three terms that say how far features are from neural collapse.

    Features are projected on 64 principal components with variances :math:`v_i`; the shrinkage is
    :math:`s=\max(\exp(-\sum_{i\le 32}v_i), 10^{-10})`; linear discriminant analysis is solved by SVD where
    :math:`s = 10^{-10}` and by eigenvectors of the covariance shrunk by s elsewhere. With :math:`F` the centred
    projection, :math:`P` the predicted probabilities and :math:`P_c` their rows of class c, the terms are

    .. math:: \lVert F\rVert_*,\qquad \frac1n\sum_i P_{i,y_i},\qquad \log\sum_c\lVert P_c\rVert_* .

    The score exists only over a candidate set of sources: each term scaled to [0, 1] over the set, then first + second
    *plus* third as published, *minus* third corrected.

    Parameters
    ----------
    features, labels : array-like of shape (n, d) and (n,)
    variant : {"corrected", "published"}, default "corrected"
        "published": 64 components; needs n and d of at least 64. "corrected": min(64, n - 1, d), otherwise the same.

    Returns
    -------
    NCTITerms
        Three floats. Higher is better for the first two; the third is better low.

    Raises
    ------
    ValueError
        No more points than classes; no spread within the classes; published with n or d below 64; a
        discriminant that has no solution.

    Notes
    -----
    The PCA is scikit-learn's with seed 42, randomised for most large arrays, which is part of the definition: an exact
    one moved the first term by .2 % (n = 1100, d = 512) to 2.4 % (n = 120, d = 4096). Cost: O(64 nd) time, O(nd)
    memory. Weaknesses: depends on the candidate set; 31 of 165 published cells exceed 2, which only the wrong sign can
    give. Source: Wang et al. (2023). How far pre-trained models are from neural collapse. ICCV.
    """
    from sklearn.decomposition import PCA
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    check_variant(variant)
    p = prepare(features, labels)
    if p.n <= len(p.classes):
        raise ValueError(
            f"labels: NCTI needs more points than classes, found {p.n} points in {len(p.classes)}"
        )
    components = COMPONENTS if variant == "published" else min(COMPONENTS, p.n - 1, p.d)
    if components > min(p.n, p.d):
        raise ValueError(
            f"features: published NCTI needs at least {COMPONENTS} points and columns, found shape {(p.n, p.d)}; "
            f"the corrected variant takes fewer"
        )
    p.require_spread_within("NCTI's discriminant")
    pca = PCA(components, random_state=42)
    x = pca.fit_transform(p.given).astype(float)
    shrinkage = max(np.exp(-pca.explained_variance_[:32].sum(dtype=float)), LEAST_SHRINKAGE)
    if shrinkage == LEAST_SHRINKAGE:
        discriminant = LinearDiscriminantAnalysis(solver="svd")
    else:
        discriminant = LinearDiscriminantAnalysis(solver="eigen", shrinkage=float(shrinkage))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Only one sample available")  # a class of one point
        try:
            low = discriminant.fit_transform(x, p.codes)
        except np.linalg.LinAlgError:
            raise ValueError("features: the shrunk covariance of NCTI's discriminant is singular") from None
    probability = discriminant.predict_proba(x)
    spread = sum(np.linalg.norm(probability[p.codes == c], "nuc") for c in range(len(p.classes)))
    return NCTITerms(
        float(np.linalg.norm(low - low.mean(axis=0), "nuc")),
        float((probability * p.indicator).sum(axis=1).mean()),
        float(np.log(spread)),
    )
