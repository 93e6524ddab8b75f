"""The statements of the second replication: quantities, intervals and rules as its plan fixes them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def interval(values: ArrayLike, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Student's interval for the mean over targets.

    Parameters
    ----------
    values
        (…, targets): one number per target, its noise over folds included; at least two.
    level
        Between 0 and 1.

    Returns
    -------
    low, high : numpy.ndarray
        (…,). It speaks of targets like these, since the spread between them is what it is made of; sources are fixed.
    """
    from scipy.stats import t

    given = np.asarray(values, dtype=float)
    count = given.shape[-1]
    half = t.ppf((1 + level) / 2, count - 1) * given.std(-1, ddof=1) / np.sqrt(count)
    return given.mean(-1) - half, given.mean(-1) + half
