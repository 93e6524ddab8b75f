"""Three caveats shown on synthetic features: LogME and width, a point among its own neighbours, an unseeded mixture.

The features are made here, so the numbers are this project's own and say which way a score errs, not by how much it
errs on medical images.
"""

from __future__ import annotations

import functools

import numpy as np

from companion.scores import logme as score_logme
from companion.scores import nca as score_nca
from companion.scores import nleep as score_nleep

POINTS, WIDTH = 900, 64


def noise(n: int, d: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian features (n, d) and binary labels (n,) that have nothing to do with each other."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)), np.arange(n) % 2


@functools.cache
def logme_on_noise(width: int, variant: str, *, n: int = 200, repeats: int = 5) -> float:
    """Mean LogME of pure noise with `width` features and `n` points; the features can tell nothing of the labels."""
    return float(np.mean([score_logme(*noise(n, width, seed), variant=variant) for seed in range(repeats)]))


@functools.cache
def nca_on_noise(variant: str, *, repeats: int = 3) -> float:
    """Mean NCA score of pure noise, two classes: chance is one half."""
    return float(
        np.mean([score_nca(*noise(POINTS, WIDTH, seed), variant=variant) for seed in range(repeats)])
    )


@functools.cache
def nleep_over_seeds(*, repeats: int = 10) -> tuple[float, ...]:
    """NLEEP of one set of features whose classes overlap, for several seeds of its mixture."""
    features, labels = noise(300, WIDTH, 0)
    features[labels == 1, :8] += 0.5
    return tuple(score_nleep(features, labels, random_state=seed) for seed in range(repeats))
