"""How close a projection of features comes to the features after fine-tuning: Fig. 3 of the paper in numbers.

The paper shows four t-SNE pictures and reads off them that NCA resembles the fine-tuned features more than LDA does. A
t-SNE picture has no scale, so this module measures the same on the features themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from companion.errors import InputError

if TYPE_CHECKING:
    from companion.datasets import Dataset
    from companion.models import SourceModel
    from companion.training import FineTuning

NEIGHBOURS = 10
READ_OUT = 5  # neighbours whose classes are read, as in the proposed score
BEFORE, AFTER, NCA, LDA = "before", "after", "nca", "lda"
# Column -> what it is, and whether a higher value means closer to the fine-tuned features.
MEASURES = {
    "overlap": f"share of the {NEIGHBOURS} nearest neighbours that are also nearest after fine-tuning",
    "cka": "linear CKA with the fine-tuned features",
    "separation": f"share of the true class among the {READ_OUT} nearest other points",
}
SUPPORTED, CONTRADICTED, UNDECIDED = 1.0, -1.0, 0.0


def _points(values: ArrayLike, name: str) -> NDArray[np.float64]:
    points = np.asarray(values, dtype=float)
    if points.ndim != 2 or len(points) <= NEIGHBOURS or not np.isfinite(points).all():
        raise InputError(
            f"{name} has shape {points.shape}: wanted are finite points (n, d), more than {NEIGHBOURS} of them"
        )
    return points


def _neighbours(points: np.ndarray, k: int) -> np.ndarray:
    """Places of the k nearest other points of each, (n, k)."""
    from sklearn.neighbors import NearestNeighbors

    return NearestNeighbors(n_neighbors=k).fit(points).kneighbors(return_distance=False)


def neighbour_overlap(points: ArrayLike, reference: ArrayLike, *, k: int = NEIGHBOURS) -> float:
    """Mean share of a point's `k` nearest neighbours that both representations have.

    Parameters
    ----------
    points, reference
        (n, d) and (n, e): the same n samples, row by row.
    k
        Neighbours compared.

    Returns
    -------
    float
        0 to 1; two unrelated representations come to k / (n - 1).

    Raises
    ------
    InputError
        If the arrays are no finite points, or not the same number of them.
    """
    one, other = _points(points, "points"), _points(reference, "reference")
    if len(one) != len(other):
        raise InputError(f"points has {len(one)} rows but reference {len(other)}")
    shared = [
        len(np.intersect1d(a, b)) for a, b in zip(_neighbours(one, k), _neighbours(other, k), strict=True)
    ]
    return float(np.mean(shared) / k)


def linear_cka(points: ArrayLike, reference: ArrayLike) -> float:
    r"""Linear centred kernel alignment of two representations of the same samples.

    .. math:: \frac{\lVert Y^\top X\rVert_F^2}{\lVert X^\top X\rVert_F\,\lVert Y^\top Y\rVert_F}

    with centred columns. It does not change under rotation or one common scale of either side.

    Parameters
    ----------
    points, reference
        (n, d) and (n, e).

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
    one, other = _points(points, "points"), _points(reference, "reference")
    if len(one) != len(other):
        raise InputError(f"points has {len(one)} rows but reference {len(other)}")
    one, other = one - one.mean(0), other - other.mean(0)
    # n x n kernels, whatever the number of columns.
    a, b = one @ one.T, other @ other.T
    scale = np.linalg.norm(a) * np.linalg.norm(b)
    return float((a * b).sum() / scale) if scale > 0 else float("nan")


def separation(points: ArrayLike, labels: ArrayLike, *, k: int = READ_OUT) -> float:
    """Mean share of the true class among the `k` nearest other points.

    Parameters
    ----------
    points, labels
        (n, d) and (n,).
    k
        Neighbours read.

    Returns
    -------
    float
        0 to 1.
    """
    found = _points(points, "points")
    classes = np.asarray(labels)
    return float((classes[_neighbours(found, k)] == classes[:, None]).mean())


def projected(features: ArrayLike, labels: ArrayLike) -> dict[str, NDArray[np.float64]]:
    """NCA and LDA projections of features, as the scores of these names fit them.

    Parameters
    ----------
    features, labels
        (n, d) and (n,).

    Returns
    -------
    dict
        ``"nca"``: (n, at most 50); ``"lda"``: (n, at most C - 1).
    """
    from companion.scores.lda import project
    from companion.scores.nca import embed

    return {NCA: embed(features, labels), LDA: project(features, labels)}


def compare(representations: Mapping[str, ArrayLike], labels: ArrayLike) -> pd.DataFrame:
    """Measure every representation against the one after fine-tuning.

    Parameters
    ----------
    representations
        Name -> (n, d); ``"after"`` is the reference.
    labels
        (n,).

    Returns
    -------
    pandas.DataFrame
        Representations by ``overlap``, ``cka`` and ``separation``, see `MEASURES`.
    """
    after = representations[AFTER]
    return pd.DataFrame(
        {
            name: {
                "overlap": neighbour_overlap(points, after),
                "cka": linear_cka(points, after),
                "separation": separation(points, labels),
            }
            for name, points in representations.items()
        }
    ).T.rename_axis("representation")


def representations(
    model: SourceModel,
    dataset: Dataset,
    number: int,
    protocol: FineTuning,
    *,
    seed: int,
    device: str | None = None,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Features of a fold's training images before and after fine-tuning on it, and the two projections.

    Parameters
    ----------
    model, dataset, protocol
        The source, the target, and how it is fine-tuned; of the protocol's grid the first point is taken.
    number
        The fold.
    seed
        Of fine-tuning.
    device
        Where; the fastest there is by default.

    Returns
    -------
    representations : dict
        ``"before"``, ``"after"``, ``"nca"``, ``"lda"`` -> (n, d).
    labels : numpy.ndarray
        (n,).

    Raises
    ------
    InputError
        If fine-tuning diverges.
    """
    from dataclasses import replace

    from companion.datasets import fold
    from companion.models import best_device
    from companion.training import fine_tune

    chosen = best_device(device)
    drawn = fold(
        dataset,
        number,
        seed=protocol.fold_seed,
        train_per_class=protocol.train_per_class,
        val_per_class=protocol.val_per_class,
    )
    images, labels = dataset.images["train"][drawn.train], dataset.labels["train"][drawn.train]
    settings = protocol.settings(dataset.name)[0]
    tuned = fine_tune(model, dataset, drawn, settings, protocol, seed=seed, device=chosen)
    if tuned.row["status"] != "finished":
        raise InputError(f"fine-tuning {model.name} on {dataset.name} diverged: lower the learning rate")
    before = model.features(images, device=chosen)
    # The network has the source's backbone first, then dropout and the new layer.
    after = replace(model, backbone=tuned.network.get_submodule("0"), head=None).features(
        images, device=chosen
    )
    return {BEFORE: before, AFTER: after, **projected(before, labels)}, labels


def leads(table: pd.DataFrame, over: str = LDA, *, draws: int = 2000, seed: int = 24) -> pd.DataFrame:
    """How much closer NCA comes to the fine-tuned features than another representation, with intervals over sources.

    Parameters
    ----------
    table
        Columns ``source``, ``fold``, ``representation`` and those of `MEASURES`: several sources, several folds each.
    over
        What NCA is compared with: ``"lda"``, or ``"before"``, the features as they were.
    draws, seed
        Redraws of the sources, with replacement, all folds of a source together.

    Returns
    -------
    pandas.DataFrame
        One row a measure: ``nca`` and ``other`` (means; for ``separation`` the distance to the separation after
        fine-tuning), ``lead`` of NCA with its 95 % interval ``low`` to ``high``, and ``verdict`` (1 above 0, -1 below
        0, 0 undecided).
    """
    wide = table.set_index(["source", "fold", "representation"])[list(MEASURES)].unstack("representation")
    rng = np.random.default_rng(seed)
    sources = wide.index.get_level_values("source").unique()
    chosen = rng.integers(len(sources), size=(draws, len(sources)))
    rows = {}
    for measure in MEASURES:
        nca, other = wide[measure, NCA], wide[measure, over]
        sign = 1
        if measure == "separation":  # closer is better, on whichever side
            after, sign = wide[measure, AFTER], -1
            nca, other = (nca - after).abs(), (other - after).abs()
        by_source = (sign * (nca - other)).groupby("source").mean().reindex(sources).to_numpy()
        low, high = np.quantile(by_source[chosen].mean(axis=1), [0.025, 0.975])
        rows[measure] = {
            "nca": nca.mean(),
            "other": other.mean(),
            "lead": by_source.mean(),
            "low": low,
            "high": high,
            "verdict": SUPPORTED if low > 0 else CONTRADICTED if high < 0 else UNDECIDED,
        }
    return pd.DataFrame(rows).T.rename_axis("measure")
