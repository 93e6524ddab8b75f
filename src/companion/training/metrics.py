"""One-vs-rest AUC from class probabilities."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def auc_per_class(labels: NDArray[np.integer], probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """One-vs-rest ROC-AUC of every class, (C,), 0 to 1, from indices (n,) and probabilities (n, C).

    NaN for a class without positives or without negatives.
    """
    from sklearn.metrics import roc_auc_score

    hits = labels[:, None] == np.arange(probabilities.shape[1])
    return np.array(
        [
            roc_auc_score(hit, column) if hit.any() and not hit.all() else np.nan
            for hit, column in zip(hits.T, probabilities.T, strict=True)
        ]
    )


def macro_auc(per_class: NDArray[np.float64]) -> float:
    """Test AUC of the paper: that of index 1 of two classes, otherwise the mean over the classes that have one."""
    if len(per_class) == 2:
        return float(per_class[1])
    return float(np.nanmean(per_class)) if np.isfinite(per_class).any() else float("nan")
