"""How noisy the ground truth is: its reliability, and what a perfect score could reach, from the fine-tuning runs.

The ground truth of a pair is the test AUC of the one run, of a grid of up to about 120, with the lowest validation
loss. Another draw of the runs gives another order of the sources. How far two draws agree is the *reliability* of the
ground truth. It is no ceiling: two draws differ by the noise of both, a perfect score and one draw by the noise of one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from companion import published
from companion.errors import InputError
from companion.evaluation.agreement import published_pairs, weighted_tau
from companion.evaluation.intervals import tau_draws
from companion.scores import PAPER_SCORE

_GRID = ["lr", "momentum", "weight_decay", "batch_size"]
PART = 20  # settings of the grid in a draw of `partial_grids`

# Column of the summaries -> what it is.
GROUND_TRUTHS = {
    "auc_at_min_val_loss": "run with the lowest validation loss",
    "auc_mean_of_10_lowest_val_loss": "mean of the ten lowest validation losses",
    "auc_at_max_val_auc": "run with the highest validation AUC",
    "auc_median": "median of all runs",
}


class NoiseCeiling(NamedTuple):
    """Reliability of the ground truth, and the attainable maximum, both as τ_w."""

    targets: pd.DataFrame
    """Targets by ``reliability, halves``, ``reliability, resamples``, ``attainable, halves`` and ``attainable,
    resamples``: mean τ_w over the draws."""
    mean: pd.DataFrame
    """The same four, each with ``mean``, ``low``, ``high`` of the mean τ_w over the targets."""
    draws: int
    runs: int
    """Median number of finished runs a pair."""


class Grid(NamedTuple):
    """One target's runs, (sources, settings of the grid); where one is missing, loss and AUC are NaN."""

    sources: list[str]
    loss: np.ndarray
    auc: np.ndarray

    def by_loss(self, kept: np.ndarray) -> np.ndarray:
        """AUC of the runs kept, the lowest loss first, the missing ones last; its first is the ground truth.

        `kept` are places in the grid, (draws, sources or 1, runs); the result is (draws, sources, runs).
        """
        loss, auc = (np.take_along_axis(found[None], kept, axis=-1) for found in (self.loss, self.auc))
        return np.take_along_axis(auc, loss.argsort(axis=-1, kind="stable"), axis=-1)


def expected(auc: np.ndarray) -> np.ndarray:
    """Mean of the ground truth over all draws, with replacement, of as many runs as there are: a bagged ground truth.

    `auc` is as `Grid.by_loss` returns it. Of n runs in order of their loss, the first that such a draw holds is that at
    place r or later with the probability (1 - r/n)^n.
    """
    count = np.isfinite(auc).sum(axis=-1, keepdims=True)
    later = np.clip(1 - np.arange(auc.shape[-1] + 1) / np.maximum(count, 1), 0, 1) ** count
    mean = (-np.diff(later, axis=-1) * np.nan_to_num(auc)).sum(axis=-1)
    return np.where(count[..., 0] > 0, mean, np.nan)


def grids(runs: pd.DataFrame | None, setting: str, pairs: pd.DataFrame | None = None) -> dict[str, Grid]:
    """Finished runs of a setting by target; of the given pairs only, or of all that have scores."""
    pairs = published_pairs(setting) if pairs is None else pairs
    frame = published.runs() if runs is None else runs
    missing = sorted({"setting", "source", "target", "val_loss", "test_auc", "status", *_GRID} - set(frame))
    if missing:
        raise InputError(f"the table of runs lacks the column(s) {', '.join(missing)}: see published.runs")
    frame = frame[(frame["setting"] == setting) & (frame["status"] == "FINISHED")]
    frame = frame.astype({"source": str, "target": str}).merge(pairs[["source", "target"]].drop_duplicates())
    if frame.empty:
        raise InputError(f"the table of runs has no finished run of {setting} for the pairs compared")
    # A few settings were run twice; the second is a place of its own.
    frame = frame.assign(again=frame.groupby(["source", "target", *_GRID]).cumcount())
    found = {}
    for target, block in frame.groupby("target"):
        wide = block.pivot(index="source", columns=[*_GRID, "again"], values=["val_loss", "test_auc"])
        loss, auc = (wide[name].to_numpy(dtype=float) for name in ("val_loss", "test_auc"))
        found[str(target)] = Grid(list(wide.index), loss, np.where(np.isfinite(loss), auc, np.nan))
    return found


def _orders(rng: np.random.Generator, draws: int, rows: int, places: int) -> np.ndarray:
    """Random orders of the places, (draws, rows, places)."""
    return np.argsort(rng.random((draws, rows, places), dtype=np.float32), axis=-1)


def noise_ceiling(
    runs: pd.DataFrame | None = None,
    *,
    setting: str = "source_datasets",
    draws: int = 200,
    seed: int = 24,
    pairs: pd.DataFrame | None = None,
) -> NoiseCeiling:
    """Reliability of the ground truth, and the τ_w that a perfect score could reach against it.

    Two ways. ``halves``: the runs of every pair are split in two at random, and each half chooses its run with the
    lowest validation loss; the halves share no run, but each has half the grid to choose from. ``resamples``: two
    draws of the whole number of runs, with replacement; as large as the grid, but they share runs. The τ_w between the
    two orders of sources is the *reliability* of the ground truth. The *attainable* maximum is that between one of them
    and the expected ground truth, the mean over all draws: of the other half, and of all runs. In simulations with
    known AUCs a perfect score lay between the two attainable values. The one draw of images behind all runs is in none
    of them, so both are upper bounds.

    Parameters
    ----------
    runs
        As `companion.published.runs` returns them, which is called where None is given.
    setting
        ``"source_datasets"`` or ``"architectures"``.
    draws, seed
        How many draws, and their seed.
    pairs
        Table with ``source`` and ``target``: the pairs compared, where they have runs. All that have scores, by
        default.

    Raises
    ------
    InputError, EnvironmentFailure
        If the setting is unknown, the table is no table of runs, or the runs cannot be had.
    """
    rng = np.random.default_rng(seed)
    found: dict[tuple[str, str], np.ndarray] = {}
    by_target = grids(runs, setting, pairs)
    for target, grid in by_target.items():
        rows, places = grid.loss.shape
        order = _orders(rng, draws, rows, places)
        one, other = grid.by_loss(order[..., : places // 2]), grid.by_loss(order[..., places // 2 :])
        first, second = (grid.by_loss(drawn) for drawn in rng.integers(0, places, (2, draws, rows, places)))
        everything = expected(grid.by_loss(np.arange(places)[None, None])).repeat(draws, axis=0)
        found["reliability, halves", target] = _taus(one[..., 0], other[..., 0])
        found["reliability, resamples", target] = _taus(second[..., 0], first[..., 0])
        found["attainable, halves", target] = _taus(expected(one), other[..., 0])
        found["attainable, resamples", target] = _taus(everything, first[..., 0])
    frame = pd.DataFrame(found)  # draws by (way, target)
    means = frame.T.groupby(level=0, sort=False).mean().T
    mean = means.quantile([0.025, 0.975]).T.set_axis(["low", "high"], axis=1)
    mean.insert(0, "mean", means.mean())
    counts = [np.isfinite(grid.auc).sum(axis=1) for grid in by_target.values()]
    targets = frame.mean().unstack(0)[list(means)].rename_axis("target")
    return NoiseCeiling(targets, mean, draws, int(np.median(np.concatenate(counts))))


def _taus(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """τ_w of two orders, draw by draw; a source that is missing in either is left out of that draw."""
    known = np.isfinite(one) & np.isfinite(other)
    return tau_draws(np.where(known, one, 0.0), np.where(known, other, 0.0), known)


def partial_grids(runs: pd.DataFrame | None = None, *, draws: int = 200, seed: int = 24) -> pd.DataFrame:
    """Mean τ_w over the targets, draws by the seven scores, against ground truths from a random part of the grid.

    Among the source datasets. A draw keeps `PART` settings of the grid, the same ones for every source of a target.
    Parameters and errors are those of `noise_ceiling`.
    """
    scores = _seven().set_index(["target", "source"])
    rng = np.random.default_rng(seed)
    taus = {}
    for target, grid in grids(runs, "source_datasets").items():
        truth = grid.by_loss(_orders(rng, draws, 1, grid.loss.shape[1])[..., :PART])[..., 0]
        for name, values in scores.loc[target].loc[grid.sources].items():
            taus[name, target] = _taus(values.to_numpy(), truth)
    return pd.DataFrame(taus).T.groupby(level=0, sort=False).mean().T


def ground_truths() -> pd.DataFrame:
    """Mean τ_w over targets of the seven scores (rows) against other summaries of the same runs (columns).

    Among the source datasets.
    """
    scores, summaries = _seven(), published.table("run_summaries").query("setting == 'source_datasets'")
    merged = scores.merge(summaries, on=["source", "target"])
    means = {
        label: weighted_tau(merged[scores.columns].assign(auc=merged[column])).mean()
        for column, label in GROUND_TRUTHS.items()
    }
    return pd.DataFrame(means).rename_axis("score")


def _seven() -> pd.DataFrame:
    """The published baselines and the proposed score of every pair."""
    return published_pairs("source_datasets")[["source", "target", *published.METRICS, PAPER_SCORE]]
