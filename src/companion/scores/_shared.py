"""Work that several scores need, done once: centring, class means, one eigendecomposition, PCA, distances.

`Prepared` holds checked arrays and computes each shared quantity on first use. A single score makes its own
`Prepared`; `suite` makes one for all, so both run the same code on the same numbers.

Everything past the centring lives in at most min(n, d) dimensions: for n < d the eigenvectors come from the n
x n matrix of inner products, never from a d x d one, so memory stays at n² + nd (d² ≤ nd where n ≥ d).

Not for: anything that belongs to one score only.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from companion.scores._arrays import check_features, check_labels

Matrix = NDArray[np.float64]
Codes = NDArray[np.intp]

# The most principal components that a score with a fixed number of them asks for.
LEADING = 64
# Few of many eigenvectors: below this many rows of the matrix all of them cost no more.
MANY = 256
# Eigenvalues closer than this share of the largest one are left to LAPACK, as is whatever ARPACK may have missed.
LEAST_GAP = 1e-9


class Prepared:
    """Checked features and labels, with the decompositions that scores share.

    Parameters
    ----------
    features : array-like of shape (n, d)
        Features.
    labels : array-like of shape (n,) or (n, 1)
        Labels.
    """

    def __init__(self, features: ArrayLike, labels: ArrayLike) -> None:
        self.x = check_features(features)
        self._given = features
        self.n, self.d = self.x.shape
        self.codes, self.classes = check_labels(labels, self.n)
        self.n_classes = len(self.classes)
        self.counts = np.bincount(self.codes, minlength=self.n_classes)
        self.wide = self.n < self.d
        self._few: dict[int, tuple[Matrix, Matrix]] = {}

    @cached_property
    def mean(self) -> Matrix:
        """Mean of the features, shape (d,)."""
        return self.x.mean(axis=0)

    @cached_property
    def centred(self) -> Matrix:
        """Features less their mean, shape (n, d)."""
        return self.x - self.mean

    def require_spread_within(self, what: str) -> None:
        """Raise ``ValueError`` where the points of every class coincide, to 1e-12 of the spread."""
        total = np.einsum("ij,ij->", self.centred, self.centred)
        if np.einsum("ij,ij->", self.within, self.within) <= 1e-24 * total:
            raise ValueError(f"features: the points of every class coincide, so {what} is undefined")

    def as_given(self) -> NDArray:
        """Features in float32 where they came so (the released code computes in it), else in float64."""
        given = np.asarray(self._given)
        return given if given.dtype == np.float32 else self.x

    @cached_property
    def indicator(self) -> Matrix:
        """One-hot labels, shape (n, C)."""
        return np.eye(self.n_classes)[self.codes]

    @cached_property
    def class_means(self) -> Matrix:
        """Class means of the centred features, shape (C, d)."""
        return class_means(self.centred, self.codes, self.counts)

    @cached_property
    def within(self) -> Matrix:
        """Features less their class's mean, shape (n, d)."""
        return self.centred - self.class_means[self.codes]

    @cached_property
    def _gram(self) -> Matrix:
        return self.centred @ self.centred.T if self.wide else self.centred.T @ self.centred

    @cached_property
    def _eigen(self) -> tuple[Matrix, Matrix]:
        values, vectors = np.linalg.eigh(self._gram)
        return np.maximum(values[::-1], 0.0), vectors[:, ::-1]

    def _leading(self, k: int) -> tuple[Matrix, Matrix]:
        if k not in self._few:
            self._few[k] = leading_eigenpairs(self._gram, k)
        return self._few[k]

    @property
    def spectrum(self) -> Matrix:
        """Squared singular values of the centred features, descending, shape (min(n, d),)."""
        return self._eigen[0]

    @property
    def vectors(self) -> Matrix:
        """Left singular vectors of the centred features where n < d, right ones elsewhere, as columns."""
        return self._eigen[1]

    def _tolerance(self, values: Matrix) -> float:
        return max(self.n, self.d) * np.finfo(float).eps * float(values[0])

    @cached_property
    def rank(self) -> int:
        """Numerical rank of the centred features."""
        return int(np.count_nonzero(self.spectrum[: self.n - 1] > self._tolerance(self.spectrum)))

    def components(self, most: int) -> tuple[Matrix, Matrix]:
        """Leading squared singular values and vectors, no more than `most` nor than the rank.

        A few leading ones cost a fraction of all of them, so they are computed alone unless all are there
        already.
        """
        full = "_eigen" in self.__dict__ or most > LEADING or min(self.n, self.d) < MANY
        values, vectors = self._eigen if full else self._leading(most)
        k = min(most, self.n - 1, int(np.count_nonzero(values > self._tolerance(values))))
        return values[:k], vectors[:, :k]

    def pca(self, most: int) -> Matrix:
        """Coordinates along the first principal components (no more than the rank), shape (n, k)."""
        values, vectors = self.components(most)
        if self.wide:
            return vectors * np.sqrt(values)
        return self.centred @ np.ascontiguousarray(vectors)

    @cached_property
    def reduced(self) -> Matrix:
        """Centred features in at most min(n, d) columns with the same inner products."""
        return self.pca(self.rank) if self.wide else self.centred


def leading_eigenpairs(matrix: Matrix, k: int) -> tuple[Matrix, Matrix]:
    """Largest k eigenvalues (descending, at least 0) and eigenvectors of a symmetric positive matrix.

    ARPACK finds them to rounding in a quarter of the time of LAPACK, from a fixed start, so the same matrix
    gives the same numbers. It may miss a copy of a repeated eigenvalue, and how it goes on after a breakdown
    depends on earlier calls. So what it found is used only where no two values nearly coincide and no larger
    value is left once the found ones are taken out; LAPACK does the rest.

    Parameters
    ----------
    matrix : ndarray of shape (m, m)
        Symmetric, positive semi-definite.
    k : int
        How many, below m.

    Returns
    -------
    values : ndarray of shape (k,)
        Descending.
    vectors : ndarray of shape (m, k)
        Columns; their signs are arbitrary.
    """
    from scipy.linalg import eigh
    from scipy.linalg.blas import dsymv
    from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

    size = len(matrix)
    columns = matrix.T  # BLAS wants columns first, and the matrix is symmetric
    start = np.random.default_rng(0).standard_normal((2, size))

    def product(vector: Matrix) -> Matrix:
        return dsymv(1.0, columns, vector.ravel())

    def remainder(vector: Matrix) -> Matrix:
        vector = vector.ravel()
        return product(vector) - vectors @ (values * (vectors.T @ vector))

    def operator(function: Callable[[Matrix], Matrix]) -> LinearOperator:
        return LinearOperator(matrix.shape, matvec=function, dtype=float)

    try:
        values, vectors = eigsh(operator(product), k=k, v0=start[0])
        values, vectors = values[::-1], np.ascontiguousarray(vectors[:, ::-1])
        apart = (-np.diff(values)).min(initial=np.inf) > LEAST_GAP * values[0]
        if apart and values[-1] > LEAST_GAP * values[0]:
            left = eigsh(operator(remainder), k=1, v0=start[1], tol=1e-4, return_eigenvectors=False)
            if left[0] < values[-1]:
                return values, vectors
    except ArpackError:
        pass
    values, vectors = eigh(matrix, subset_by_index=[size - k, size - 1], check_finite=False)
    return np.maximum(values[::-1], 0.0), vectors[:, ::-1]


def one_thread(points: int) -> AbstractContextManager:
    """Context in which small linear algebra runs in one thread.

    An optimiser calls many small products one after the other. Handing each to several threads costs more than it
    saves, several times over where other work shares the cores, and makes the result depend on how many there are.
    """
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1, user_api="blas") if points < 3000 else nullcontext()


def class_means(x: Matrix, codes: Codes, counts: Codes) -> Matrix:
    """Mean of the rows of each class, shape (C, columns)."""
    indicator = np.zeros((len(counts), len(x)))
    indicator[codes, np.arange(len(x))] = 1.0
    return indicator @ x / counts[:, None]


def squared_distances(x: Matrix) -> Matrix:
    """Squared Euclidean distances between all rows, with an exactly zero diagonal and none below zero."""
    squares = np.einsum("ij,ij->i", x, x)
    distances = x @ x.T
    distances *= -2.0
    distances += squares[:, None]
    distances += squares
    np.maximum(distances, 0.0, out=distances)
    np.fill_diagonal(distances, 0.0)
    return distances


def neighbour_votes(x: Matrix, codes: Codes, n_classes: int, k: int, *, own: bool) -> Matrix:
    """Share of each class among the k nearest neighbours of every point.

    Points at the same distance as the k-th neighbour share its place equally, so that the order of the rows
    never decides. `own` says whether a point counts among its neighbours.

    Parameters
    ----------
    x : ndarray of shape (n, columns)
        Points.
    codes : ndarray of shape (n,)
        Class codes.
    n_classes : int
        How many classes there are.
    k : int
        Neighbours, at most n (n - 1 without the point itself).
    own : bool
        Whether a point is its own neighbour.

    Returns
    -------
    ndarray of shape (n, n_classes)
        Rows sum to one.
    """
    x = x - x.mean(axis=0)
    distances = squared_distances(x)
    # Rounding of the inner products moves a distance by about eps times the largest square.
    slack = 64 * np.finfo(float).eps * float(np.einsum("ij,ij->i", x, x).max())
    if not own:
        np.fill_diagonal(distances, np.inf)
    edge = np.partition(distances, k - 1, axis=1)[:, k - 1 : k]
    closer = distances < edge - slack
    tied = (distances <= edge + slack) & ~closer
    indicator = np.eye(n_classes)[codes]
    inside = closer.sum(axis=1, keepdims=True)
    weights = closer + tied * ((k - inside) / tied.sum(axis=1, keepdims=True))
    return weights @ indicator / k


def softmax(scores: Matrix) -> Matrix:
    """Softmax over the columns."""
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)
