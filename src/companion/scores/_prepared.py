"""Checked features and labels with the work that several scores need: centring, principal components, class means.

Every score calls `prepare`, which takes its arrays or what is prepared already, so `suite` prepares once for all.
"""

from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from companion.scores._arrays import Matrix, check_features, check_labels


class Prepared:
    """Checked features and labels."""

    def __init__(self, features: ArrayLike, labels: ArrayLike) -> None:
        self.x = check_features(features)
        self.n, self.d = self.x.shape
        given = np.asarray(features)  # the released code computes in float32 where features come so
        self.given = given if given.dtype == np.float32 else self.x
        self.codes, self.classes = check_labels(labels, self.n)
        self.counts = np.bincount(self.codes)  # points of each class
        self.indicator = np.eye(len(self.classes))[self.codes]  # one-hot labels, shape (n, C)

    @cached_property
    def centred(self) -> Matrix:
        """Features less their mean, shape (n, d)."""
        return self.x - self.x.mean(axis=0)

    @cached_property
    def centred_within(self) -> Matrix:
        """Features less the mean of their class, shape (n, d)."""
        return self.within(self.centred)

    @cached_property
    def _eigen(self) -> tuple[Matrix, Matrix]:
        values, vectors = eigen(self.centred)
        return values[: self.n - 1], vectors[:, : self.n - 1]

    @property
    def values(self) -> Matrix:
        """Squared singular values of the centred features above rounding, descending, shape (rank,)."""
        return self._eigen[0]

    def pca(self, most: int | None = None) -> Matrix:
        """Coordinates along the first principal components, shape (n, at most the rank)."""
        values, vectors = self._eigen[0][:most], self._eigen[1][:, :most]
        return vectors * np.sqrt(values) if self.n < self.d else self.centred @ np.ascontiguousarray(vectors)

    @cached_property
    def points(self) -> Matrix:
        """Coordinates along all principal components, shape (n, rank): the centred features, rotated."""
        return self.pca()

    @property
    def span(self) -> Matrix:
        """Centred features in at most min(n, d) columns with the same inner products."""
        return self.points if self.n < self.d else self.centred

    def class_means(self, x: Matrix) -> Matrix:
        """Mean of the rows of each class, shape (C, columns)."""
        return self.indicator.T @ x / self.counts[:, None]

    def within(self, x: Matrix) -> Matrix:
        """Rows less the mean of their class."""
        return x - self.class_means(x)[self.codes]

    def require_spread_within(self, what: str) -> None:
        """Raise ``ValueError`` where the points of every class coincide, to 1e-12 of the spread."""
        if np.linalg.norm(self.centred_within) <= 1e-12 * np.linalg.norm(self.centred):
            raise ValueError(f"features: the points of every class coincide, so {what} is undefined")

    def require_pairs(self, what: str) -> None:
        """Raise ``ValueError`` where a class has a single point."""
        if self.counts.min() < 2:
            name = self.classes[self.counts.argmin()].item()
            raise ValueError(f"labels: {what} needs 2 points in every class, found 1 in class {name!r}")


def prepare(features: ArrayLike | Prepared, labels: ArrayLike) -> Prepared:
    """Check features and labels, unless they are prepared already."""
    return features if isinstance(features, Prepared) else Prepared(features, labels)


def eigen(x: Matrix) -> tuple[Matrix, Matrix]:
    """Eigenvalues of xᵀx (n ≥ d) or xxᵀ (n < d) above rounding, descending, and their eigenvectors as columns.

    They are the squared singular values of `x` and its right or left singular vectors, in a third of the time of a
    singular value decomposition, and without a d x d matrix where n < d.
    """
    n, d = x.shape
    values, vectors = np.linalg.eigh(x @ x.T if n < d else x.T @ x)
    rank = np.count_nonzero(values > max(n, d) * np.finfo(float).eps * values[-1])
    return values[::-1][:rank], vectors[:, ::-1][:, :rank]


def neighbour_votes(x: Matrix, prepared: Prepared, k: int, *, own: bool) -> Matrix:
    """Share of each class among the k nearest neighbours of every point (`own`: itself among them), shape (n, C).

    Points at the same distance as the k-th neighbour share its place equally, so the order of the rows never decides.
    """
    from sklearn.metrics.pairwise import euclidean_distances

    x = x - x.mean(axis=0)
    k = min(k, len(x) if own else len(x) - 1)
    distances = euclidean_distances(x, squared=True)
    slack = 64 * np.finfo(float).eps * (x**2).sum(axis=1).max()  # the rounding of a distance, about
    if not own:
        np.fill_diagonal(distances, np.inf)
    edge = np.partition(distances, k - 1, axis=1)[:, k - 1 : k]
    closer = distances < edge - slack
    tied = (distances <= edge + slack) & ~closer
    left = k - closer.sum(axis=1, keepdims=True)
    return (closer + tied * (left / tied.sum(axis=1, keepdims=True))) @ prepared.indicator / k
