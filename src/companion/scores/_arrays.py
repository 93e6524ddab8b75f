"""Input checks that every score shares, so that bad arrays fail alike everywhere.

Each check returns arrays of the package's own making or the caller's own array untouched: nothing here, and
no score, ever writes into what it was given. Every error is a ``ValueError`` of one line that names the
argument and what was found in it.

Not for: loading features, or guessing what an odd array was meant to be.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Scores use squares and fourth powers of the features; beyond these bounds float64 would overflow or vanish.
LARGEST = 1e60
SMALLEST_SPREAD = 1e-60


class ScoreWarning(UserWarning):
    """A score is defined for these arrays in general but says nothing here; the text is the reason."""


class Labels(NamedTuple):
    """Checked labels: integer codes 0…C-1 and the classes they stand for, in sorted order."""

    codes: NDArray[np.intp]
    classes: NDArray


def _as_matrix(values: ArrayLike, name: str) -> NDArray[np.float64]:
    try:
        array = np.asarray(values)
    except Exception as error:
        raise ValueError(f"{name}: not an array ({error})") from None
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name}: numbers are needed, found dtype {array.dtype}")
    if array.ndim != 2:
        raise ValueError(f"{name}: a matrix (points x columns) is needed, found shape {array.shape}")
    array = np.ascontiguousarray(array, dtype=np.float64)
    if array.size:
        # A sum is finite only if its parts are: one pass, and the exact look only when it is needed.
        with np.errstate(over="ignore", invalid="ignore"):
            suspicious = not np.isfinite(array.sum())
        if suspicious and not np.isfinite(array).all():
            row, column = np.argwhere(~np.isfinite(array))[0]
            found = array[row, column]
            raise ValueError(
                f"{name}: finite numbers are needed, found {found} at row {row}, column {column}"
            )
    return array


def check_features(features: ArrayLike) -> NDArray[np.float64]:
    """Return features as a finite float64 C-contiguous matrix with some spread.

    Parameters
    ----------
    features : array-like of shape (n, d)
        float32, float64 or integers.

    Returns
    -------
    ndarray of shape (n, d)
        float64; the caller's own array where nothing had to change, so never to be written into.

    Raises
    ------
    ValueError
        Not a matrix, no row or column, NaN or infinity, a magnitude that overflows, or no spread at all.
    """
    array = _as_matrix(features, "features")
    n, d = array.shape
    if n < 2 or d < 1:
        raise ValueError(f"features: at least 2 points and 1 column are needed, found shape {(n, d)}")
    low, high = array.min(axis=0), array.max(axis=0)
    largest = max(-float(low.min()), float(high.max()))
    if largest > LARGEST:
        raise ValueError(f"features: magnitudes up to {LARGEST:g} can be scored, found {largest:g}")
    spread = float((high - low).max())
    if spread == 0.0:
        kind = "all-zero" if largest == 0.0 else "the same in every row"
        raise ValueError(f"features: every point is identical ({kind}), so no score is defined")
    if spread < SMALLEST_SPREAD:
        raise ValueError(f"features: the largest spread of a column is {spread:g}, too small for float64")
    return array


def check_labels(labels: ArrayLike, n: int, *, of: str = "features") -> Labels:
    """Return labels as integer codes and the sorted list of classes.

    Parameters
    ----------
    labels : array-like of shape (n,) or (n, 1)
        Integers, booleans, whole-number floats or strings; any values, gaps allowed.
    n : int
        How many labels there must be.
    of : str, default "features"
        The argument that fixes `n`, for the message.

    Returns
    -------
    Labels
        Codes 0…C-1 and classes, C at least 2.

    Raises
    ------
    ValueError
        Wrong shape or number, values that are no class names, or a single class.
    """
    try:
        array = np.asarray(labels)
    except Exception as error:
        raise ValueError(f"labels: not an array ({error})") from None
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise ValueError(
            f"labels: one label a point, shape (n,) or (n, 1), is needed, found shape {array.shape}"
        )
    if len(array) != n:
        raise ValueError(f"labels: {n} labels are needed, one for each row of {of}, found {len(array)}")
    if array.dtype.kind == "O":
        kinds = sorted({type(value).__name__ for value in array})
        if not (
            all(isinstance(v, str) for v in array) or all(isinstance(v, (int, np.integer)) for v in array)
        ):
            raise ValueError(
                f"labels: integers or strings are needed, found objects of type {', '.join(kinds)}"
            )
    elif array.dtype.kind == "f":
        whole = np.isfinite(array) & (array == np.floor(array))
        if not whole.all():
            raise ValueError(f"labels: integers or strings are needed, found {array[~whole][0]}")
    elif array.dtype.kind not in "iubUS":
        raise ValueError(f"labels: integers or strings are needed, found dtype {array.dtype}")
    classes, codes = np.unique(array, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"labels: at least 2 classes are needed, found only {classes.tolist()}")
    return Labels(codes.reshape(-1).astype(np.intp), classes)


def check_logits(logits: ArrayLike) -> NDArray[np.float64]:
    """Return source-class logits as a finite float64 matrix.

    Parameters
    ----------
    logits : array-like of shape (n, source classes)
        Outputs of the source model's head, before any softmax.

    Returns
    -------
    ndarray of shape (n, source classes)
        float64.

    Raises
    ------
    ValueError
        Not a matrix, NaN or infinity, no row, or a model without source classes.
    """
    array = _as_matrix(logits, "logits")
    n, columns = array.shape
    if columns == 0:
        raise ValueError(
            f"logits: the source has no classes (shape {(n, 0)}), so the score is not applicable"
        )
    if n < 2:
        raise ValueError(f"logits: at least 2 points are needed, found shape {(n, columns)}")
    return array


def check_variant(variant: str, allowed: tuple[str, ...] = ("published", "corrected")) -> str:
    """Return `variant` if it is one of `allowed`, else raise ``ValueError`` naming them."""
    if variant not in allowed:
        raise ValueError(f"variant: one of {', '.join(map(repr, allowed))} is needed, found {variant!r}")
    return variant


def check_count(value: int, name: str, *, least: int = 1) -> int:
    """Return `value` as an int of at least `least`, else raise ``ValueError`` naming the argument."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name}: a whole number of at least {least} is needed, found {value!r}")
    return int(value)


def check_positive(value: float, name: str) -> float:
    """Return `value` as a float above zero, else raise ``ValueError`` naming the argument."""
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not number or not np.isfinite(value) or value <= 0:
        raise ValueError(f"{name}: a positive number is needed, found {value!r}")
    return float(value)


def stratified_subsample(
    labels: ArrayLike, size: int, *, random_state: int | np.random.RandomState | None = 0
) -> NDArray[np.intp]:
    """Choose `size` points at random, each class in proportion, and return their sorted row numbers.

    Parameters
    ----------
    labels : array-like of shape (n,) or (n, 1)
        Class labels.
    size : int
        How many points to keep; all are kept where `size` is n or more. Every class keeps at least one point
        (so `size` must be at least C), and the rest is shared out by largest remainder.
    random_state : int, RandomState or None, default 0
        Seed of the draw.

    Returns
    -------
    ndarray of shape (min(size, n),)
        Row numbers in ascending order.
    """
    codes, classes = check_labels(labels, len(np.asarray(labels)), of="labels")
    n = len(codes)
    size = check_count(size, "size")
    if size >= n:
        return np.arange(n)
    if size < len(classes):
        raise ValueError(
            f"size: at least one point for each of the {len(classes)} classes is needed, found {size}"
        )
    generator = (
        random_state
        if isinstance(random_state, np.random.RandomState)
        else np.random.RandomState(random_state)
    )
    counts = np.bincount(codes)
    share = counts * (size / n)
    take = np.maximum(1, np.floor(share).astype(int))
    while (
        take.sum() > size
    ):  # the guaranteed single points can overshoot: take them back from the largest class
        take[np.argmax(take)] -= 1
    for c in np.argsort(take - share, kind="stable"):
        if take.sum() == size:
            break
        take[c] += take[c] < counts[c]
    chosen = [generator.permutation(np.flatnonzero(codes == c))[: take[c]] for c in range(len(classes))]
    return np.sort(np.concatenate(chosen))
