"""Similarity of representations: how close a projection of features comes to the features after fine-tuning.

The paper's Fig. 3 shows four t-SNE pictures and reads off them that NCA resembles the fine-tuned features more than LDA
does. A t-SNE picture has no scale, so this module measures the same on the features themselves.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from companion.errors import InputError

NEIGHBOURS = 10
EVALUATED = 5  # neighbours whose classes are counted, as in the proposed score
# Column -> what it is.
MEASURES = {
    "overlap": f"share of the {NEIGHBOURS} nearest neighbours that are also nearest after fine-tuning",
    "cka": "linear CKA with the fine-tuned features",
    "separation": f"share of the true class among the {EVALUATED} nearest other points",
}


def _points(*given: ArrayLike) -> list[NDArray[np.float64]]:
    found = [np.asarray(values, dtype=float) for values in given]
    for points in found:
        if points.ndim != 2 or len(points) <= NEIGHBOURS or not np.isfinite(points).all():
            raise InputError(
                f"points of shape {points.shape}: wanted are finite points (n, d), more than {NEIGHBOURS} of them"
            )
    if len({len(points) for points in found}) > 1:
        raise InputError(f"one representation has {len(found[0])} rows but the other {len(found[1])}")
    return found


def _neighbours(points: np.ndarray, k: int) -> np.ndarray:
    """Places of the k nearest other points of each, (n, k)."""
    from sklearn.neighbors import NearestNeighbors

    return NearestNeighbors(n_neighbors=k).fit(points).kneighbors(return_distance=False)


def neighbour_overlap(points: ArrayLike, reference: ArrayLike) -> float:
    """Mean share of a point's ten nearest neighbours that both representations, (n, d) and (n, e), have.

    Returns
    -------
    float
        0 to 1; two unrelated representations come to 10 / (n - 1).

    Raises
    ------
    InputError
        If the arrays are no finite points, or not the same number of them.
    """
    one, other = (_neighbours(found, NEIGHBOURS) for found in _points(points, reference))
    shared = [len(np.intersect1d(a, b)) for a, b in zip(one, other, strict=True)]
    return float(np.mean(shared) / NEIGHBOURS)


def linear_cka(points: ArrayLike, reference: ArrayLike) -> float:
    r"""Linear centred kernel alignment of two representations, (n, d) and (n, e), of the same samples.

    .. math:: \frac{\lVert Y^\top X\rVert_F^2}{\lVert X^\top X\rVert_F\,\lVert Y^\top Y\rVert_F}

    with centred columns. It does not change under rotation or one common scale of either side.

    Returns
    -------
    float
        0 to 1; NaN where either side is constant.

    Raises
    ------
    InputError
        If the arrays are no finite points, or not the same number of them.

    References
    ----------
    Kornblith, Norouzi, Lee and Hinton (2019). Similarity of neural network representations revisited. ICML.
    """
    one, other = (found - found.mean(0) for found in _points(points, reference))
    # n x n kernels, whatever the number of columns.
    a, b = one @ one.T, other @ other.T
    scale = np.linalg.norm(a) * np.linalg.norm(b)
    return float((a * b).sum() / scale) if scale > 0 else float("nan")


def separation(points: ArrayLike, labels: ArrayLike) -> float:
    """Mean share of the true class among the five nearest other points; (n, d) and (n,), from 0 to 1."""
    classes = np.asarray(labels)
    return float((classes[_neighbours(_points(points)[0], EVALUATED)] == classes[:, None]).mean())


def compare(representations: Mapping[str, ArrayLike], labels: ArrayLike) -> pd.DataFrame:
    """Measure every representation, name -> (n, d), against ``"after"``, the one after fine-tuning.

    Returns
    -------
    pandas.DataFrame
        Representations by ``overlap``, ``cka`` and ``separation``, see `MEASURES`.
    """
    after = representations["after"]
    rows = {
        name: [neighbour_overlap(points, after), linear_cka(points, after), separation(points, labels)]
        for name, points in representations.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(MEASURES)).rename_axis("representation")


def leads(table: pd.DataFrame, over: str = "lda", *, draws: int = 2000, seed: int = 24) -> pd.DataFrame:
    """How much closer NCA comes to the fine-tuned features than another representation, with intervals over sources.

    Parameters
    ----------
    table
        Columns ``source``, ``fold``, ``representation`` and those of `MEASURES`: several sources, several folds each.
    over
        What NCA is compared with: ``"lda"``, or ``"before"``, the features as they were.
    draws, seed
        Resamples of the sources, with replacement, all folds of a source together.

    Returns
    -------
    pandas.DataFrame
        One row a measure: ``nca`` and ``other`` (means; for ``separation`` the distance to the separation after
        fine-tuning), and ``lead`` of NCA with its 95 % interval ``low`` to ``high``.
    """
    wide = table.set_index(["source", "fold", "representation"])[list(MEASURES)].unstack("representation")
    sources = wide.index.get_level_values("source").unique()
    chosen = np.random.default_rng(seed).integers(len(sources), size=(draws, len(sources)))
    rows = {}
    for measure in MEASURES:
        nca, other = wide[measure, "nca"], wide[measure, over]
        lead = nca - other
        if measure == "separation":  # closer is better, on whichever side
            nca, other = ((found - wide[measure, "after"]).abs() for found in (nca, other))
            lead = other - nca
        by_source = lead.groupby("source").mean().reindex(sources).to_numpy()
        low, high = np.quantile(by_source[chosen].mean(axis=1), [0.025, 0.975])
        rows[measure] = [nca.mean(), other.mean(), by_source.mean(), low, high]
    columns = ["nca", "other", "lead", "low", "high"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("measure")
