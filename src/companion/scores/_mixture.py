"""The Gaussian mixture that NLEEP needs: scikit-learn's EM with full covariances, arranged for hard clusters.

Start (k-means from the same random numbers), steps, floor and stopping are those of scikit-learn's
``GaussianMixture`` with its defaults, and so are the posteriors, up to rounding. What differs is the work:
with five components a class most components hold few points, so a covariance is summed over the points that
it holds, and where they are fewer than the dimensions its inverse is taken in their span (Woodbury) instead
of being formed.

Not for: a mixture to be kept or inspected; only the posteriors of its own points come back.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np

from companion.scores._shared import Matrix

MAX_STEPS = 100
TOLERANCE = 1e-3
FLOOR = 1e-6
# Below this responsibility a point adds less than rounding to a component's covariance.
NEGLIGIBLE = 1e-18

Distance = Callable[[Matrix, Matrix], tuple[Matrix, float]]


def responsibilities(x: Matrix, clusters: int, random_state: int | np.random.RandomState) -> Matrix:
    """Posterior probabilities of a fitted mixture of full Gaussians, shape (n, clusters)."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.utils import check_random_state

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        start = KMeans(clusters, n_init=1, random_state=check_random_state(random_state)).fit(x).labels_
    posterior = np.eye(clusters)[start]
    parameters = _maximise(x, posterior)
    bound = -np.inf
    for _ in range(MAX_STEPS):
        previous = bound
        bound, posterior = _expect(x, *parameters)
        parameters = _maximise(x, posterior)
        if abs(bound - previous) < TOLERANCE:
            break
    return _expect(x, *parameters)[1]


def _maximise(x: Matrix, posterior: Matrix) -> tuple[Matrix, Matrix, list[Distance]]:
    """Weights, means and, for each component, a function to its Mahalanobis distances and log-determinant."""
    mass = posterior.sum(axis=0) + 10 * np.finfo(float).eps
    means = (posterior.T @ x) / mass[:, None]
    distances = []
    for k, size in enumerate(mass):
        held = np.flatnonzero(posterior[:, k] > NEGLIGIBLE)
        rows = (x[held] - means[k]) * np.sqrt(posterior[held, k] / size)[:, None]
        distances.append(_in_span(rows) if 2 * len(rows) < x.shape[1] else _in_full(rows))
    return mass / mass.sum(), means, distances


def _in_full(rows: Matrix) -> Distance:
    covariance = rows.T @ rows
    covariance.flat[:: len(covariance) + 1] += FLOOR
    try:
        factor = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:  # the floor is below the rounding of very large features
        return _in_span(rows)
    inverse = np.linalg.inv(factor)
    log_det = 2.0 * float(np.log(np.diag(factor)).sum())

    def distance(x: Matrix, mean: Matrix) -> tuple[Matrix, float]:
        scaled = x @ inverse.T
        scaled -= inverse @ mean
        return np.einsum("ij,ij->i", scaled, scaled), log_det

    return distance


def _in_span(rows: Matrix) -> Distance:
    """Distances under rowsᵀrows + floor·I, split into the span of the rows and what lies outside it."""
    p = rows.shape[1]
    values, basis = np.linalg.eigh(rows @ rows.T)
    kept = values > max(rows.shape) * np.finfo(float).eps * values[-1] if len(values) else values > 0
    values = values[kept]
    axes = rows.T @ (basis[:, kept] / np.sqrt(values))
    log_det = float(np.log(values + FLOOR).sum() + (p - len(values)) * np.log(FLOOR))

    def distance(x: Matrix, mean: Matrix) -> tuple[Matrix, float]:
        offsets = x - mean
        inside = (offsets @ axes) ** 2
        outside = np.maximum(np.einsum("ij,ij->i", offsets, offsets) - inside.sum(axis=1), 0.0)
        return inside @ (1.0 / (values + FLOOR)) + outside / FLOOR, log_det

    return distance


def _expect(x: Matrix, weights: Matrix, means: Matrix, distances: list[Distance]) -> tuple[float, Matrix]:
    """Mean log-likelihood and posteriors."""
    joint = np.empty((len(x), len(weights)))
    for k, distance in enumerate(distances):
        squared, log_det = distance(x, means[k])
        joint[:, k] = -0.5 * (x.shape[1] * np.log(2.0 * np.pi) + squared + log_det) + np.log(weights[k])
    top = joint.max(axis=1, keepdims=True)
    posterior = np.exp(joint - top)
    total = posterior.sum(axis=1, keepdims=True)
    return float((top + np.log(total)).mean()), posterior / total
