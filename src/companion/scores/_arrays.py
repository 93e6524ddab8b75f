"""Input checks that every score shares, so that bad arrays fail alike everywhere."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Matrix = NDArray[np.float64]
Seed = int | np.random.RandomState | None

# Scores use squares and fourth powers of the features; beyond these bounds float64 would overflow or vanish.
LARGEST = 1e60
SMALLEST_SPREAD = 1e-60


class ScoreWarning(UserWarning):
    """A score is defined for these arrays in general but says nothing here; the text is the reason."""


def _as_array(values: ArrayLike, name: str) -> NDArray:
    try:
        return np.asarray(values)
    except Exception as error:
        raise ValueError(f"{name}: not an array ({error})") from None


def _as_matrix(values: ArrayLike, name: str) -> Matrix:
    array = _as_array(values, name)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name}: numbers are needed, found dtype {array.dtype}")
    if array.ndim != 2:
        raise ValueError(f"{name}: a matrix (points x columns) is needed, found shape {array.shape}")
    array = np.ascontiguousarray(array, dtype=np.float64)
    for row, column in np.argwhere(~np.isfinite(array))[:1]:
        found = f"{array[row, column]} at row {row}, column {column}"
        raise ValueError(f"{name}: finite numbers are needed, found {found}")
    return array


def check_features(features: ArrayLike) -> Matrix:
    """Return features as a finite float64 matrix of at least 2 points with some spread."""
    array = _as_matrix(features, "features")
    if array.shape[0] < 2 or array.shape[1] < 1:
        raise ValueError(f"features: at least 2 points and 1 column are needed, found shape {array.shape}")
    largest, spread = float(np.abs(array).max()), float(np.ptp(array, axis=0).max())
    if largest > LARGEST:
        raise ValueError(f"features: magnitudes up to {LARGEST:g} can be scored, found {largest:g}")
    if spread == 0.0:
        kind = "all-zero" if largest == 0.0 else "the same in every row"
        raise ValueError(f"features: every point is identical ({kind}), so no score is defined")
    if spread < SMALLEST_SPREAD:
        raise ValueError(f"features: the largest spread of a column is {spread:g}, too small for float64")
    return array


def check_logits(logits: ArrayLike) -> Matrix:
    """Return source-class logits as a finite float64 matrix of at least 2 points and 1 class."""
    array = _as_matrix(logits, "logits")
    shape = array.shape
    if shape[1] == 0:
        raise ValueError(f"logits: the source has no classes (shape {shape}), so the score is not applicable")
    if shape[0] < 2:
        raise ValueError(f"logits: at least 2 points are needed, found shape {shape}")
    return array


def check_labels(labels: ArrayLike, n: int, *, of: str = "features") -> tuple[NDArray[np.intp], NDArray]:
    """Return n labels, one for each row of the argument `of`, as codes 0…C-1 and the 2 or more sorted classes."""
    array = _as_array(labels, "labels")
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        needed = "one label a point, shape (n,) or (n, 1), is needed"
        raise ValueError(f"labels: {needed}, found shape {array.shape}")
    if len(array) != n:
        raise ValueError(f"labels: {n} labels are needed, one for each row of {of}, found {len(array)}")
    found = ""
    if array.dtype.kind == "O":
        if not any(all(isinstance(v, kind) for v in array) for kind in (str, (int, np.integer))):
            found = f"objects of type {', '.join(sorted({type(value).__name__ for value in array}))}"
    elif array.dtype.kind == "f":
        whole = np.isfinite(array) & (array == np.floor(array))
        found = "" if whole.all() else str(array[~whole][0])
    elif array.dtype.kind not in "iubUS":
        found = f"dtype {array.dtype}"
    if found:
        raise ValueError(f"labels: integers or strings are needed, found {found}")
    classes, codes = np.unique(array, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"labels: at least 2 classes are needed, found only {classes.tolist()}")
    return codes.reshape(-1).astype(np.intp), classes


def check_variant(variant: str) -> str:
    """Return `variant` if it is one of the two that scores have."""
    if variant not in ("published", "corrected"):
        raise ValueError(f"variant: one of 'published', 'corrected' is needed, found {variant!r}")
    return variant


def fresh(seed: Seed) -> int | np.random.RandomState:
    """Return the seed, or a fresh one for None, so that the global generator is never used."""
    return int(np.random.default_rng().integers(2**31)) if seed is None else seed


def stratified_subsample(labels: ArrayLike, size: int, *, random_state: Seed = 0) -> NDArray[np.intp]:
    """Choose `size` points at random, each class in proportion, and return their sorted row numbers.

    Parameters
    ----------
    labels : array-like of shape (n,)
    size : int
        All are kept where it is n or more. Every class keeps at least one point, and the rest is shared out by largest
        remainder.
    random_state : int, RandomState or None, default 0

    Returns
    -------
    ndarray of shape (min(size, n),)
        Row numbers in ascending order.

    Raises
    ------
    ValueError
        Bad labels, or a `size` below the number of classes.
    """
    codes, classes = check_labels(labels, len(np.asarray(labels)), of="labels")
    n, least = len(codes), len(classes)
    if size >= n:
        return np.arange(n)
    if size < least:
        raise ValueError(f"size: at least one point for each of the {least} classes is needed, found {size}")
    if not isinstance(random_state, np.random.RandomState):
        random_state = np.random.RandomState(random_state)
    counts = np.bincount(codes)
    share = counts * (size / n)
    take = np.maximum(1, np.floor(share).astype(int))
    while take.sum() > size:  # the guaranteed single points can overshoot
        take[np.argmax(take)] -= 1
    for c in np.argsort(take - share, kind="stable"):
        take[c] += take.sum() < size and take[c] < counts[c]
    chosen = [random_state.permutation(np.flatnonzero(codes == c))[: take[c]] for c in range(least)]
    return np.sort(np.concatenate(chosen))
