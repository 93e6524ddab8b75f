"""How noisy the ground truth is: its reliability, and what a perfect score could reach, from the fine-tuning runs.

The ground truth of a pair is the test AUC of the one run, of a grid of up to about 120, with the lowest validation
loss. Another draw of the runs gives another order of the sources. How far two draws agree is the *reliability* of the
ground truth. It is no ceiling: two draws differ by the noise of both, a perfect score and one draw by the noise of one.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import pandas as pd

from companion import published
from companion.errors import InputError
from companion.evaluation.agreement import published_pairs, weighted_tau
from companion.evaluation.intervals import tau_draws
from companion.scores import COMBINED

_GRID = ["lr", "momentum", "weight_decay", "batch_size"]

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


class PartialGrids(NamedTuple):
    """Mean τ_w of the scores against ground truths from fewer runs."""

    means: pd.DataFrame
    """Draws by scores: mean τ_w over the targets."""
    leads: pd.Series
    """Score -> share of the draws in which it has the highest mean, largest first."""
    runs: int
    """Runs a pair in each draw."""


class _Grid(NamedTuple):
    """One target's runs, sources by settings of the grid; a missing run has an infinite loss."""

    sources: list[str]
    loss: np.ndarray
    auc: np.ndarray

    def truth(self, kept: np.ndarray) -> np.ndarray:
        """Test AUC of the run with the lowest loss among those kept, (draws, sources); NaN where none is.

        Parameters
        ----------
        kept
            (draws, sources, runs) or (draws, 1, runs): places in the grid.
        """
        loss, auc = self._of(kept)
        best = loss.argmin(axis=-1)[..., None]
        finished = np.isfinite(np.take_along_axis(loss, best, axis=-1))
        return np.where(finished, np.take_along_axis(auc, best, axis=-1), np.nan)[..., 0]

    def expected(self, kept: np.ndarray) -> np.ndarray:
        """Mean of `truth` over all draws, with replacement, of as many runs as are kept: a bagged ground truth.

        Of n runs in order of their loss, the first that such a draw holds is that at place r or later with the
        probability (1 - r/n)^n.
        """
        loss, auc = self._of(kept)
        order = loss.argsort(axis=-1)
        loss, auc = np.take_along_axis(loss, order, axis=-1), np.take_along_axis(auc, order, axis=-1)
        count = np.isfinite(loss).sum(axis=-1, keepdims=True)
        later = np.clip(1 - np.arange(kept.shape[-1] + 1) / np.maximum(count, 1), 0, 1) ** count
        mean = (-np.diff(later, axis=-1) * np.where(np.isfinite(loss), auc, 0.0)).sum(axis=-1)
        return np.where(count[..., 0] > 0, mean, np.nan)

    def _of(self, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Loss and AUC of the runs kept, (draws, sources, runs)."""
        rows = np.arange(len(self.sources))[None, :, None]
        return self.loss[rows, kept], self.auc[rows, kept]


def _grids(runs: pd.DataFrame | None, setting: str, pairs: pd.DataFrame | None = None) -> dict[str, _Grid]:
    """Finished runs of a setting by target; of the given pairs only."""
    if setting not in published.SETTINGS:
        raise InputError(f"no published setting {setting!r}: there are {', '.join(published.SETTINGS)}")
    frame = published.runs() if runs is None else runs
    missing = sorted({"setting", "source", "target", "val_loss", "test_auc", "status", *_GRID} - set(frame))
    if missing:
        raise InputError(f"the table of runs lacks the column(s) {', '.join(missing)}: see published.runs")
    pairs = published_pairs(setting) if pairs is None else pairs
    frame = frame[(frame["setting"] == setting) & (frame["status"] == "FINISHED")]
    frame = frame.astype({"source": str, "target": str}).merge(pairs[["source", "target"]].drop_duplicates())
    if frame.empty:
        raise InputError(f"the table of runs has no finished run of {setting} for the pairs compared")
    # A few settings were run twice; the second is a place of its own.
    frame = frame.assign(again=frame.groupby(["source", "target", *_GRID]).cumcount())
    grids = {}
    for target, block in frame.groupby("target", sort=True):
        wide = block.pivot(index="source", columns=[*_GRID, "again"], values=["val_loss", "test_auc"])
        loss = wide["val_loss"].fillna(np.inf).to_numpy(dtype=float)
        grids[str(target)] = _Grid(list(wide.index), loss, wide["test_auc"].to_numpy(dtype=float))
    return grids


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
    known AUCs a perfect score lay between the two attainable values, and above the reliability of the halves.

    Parameters
    ----------
    runs
        As `companion.published.runs` returns them, which is called where None is given.
    setting
        ``"source_datasets"`` or ``"architectures"``.
    draws
        How many draws.
    seed
        Seed of the draws.
    pairs
        Table with ``source`` and ``target``: the pairs compared. All that have scores, by default.

    Raises
    ------
    InputError
        If the setting is unknown or the table is no table of runs.
    EnvironmentFailure
        If the runs are neither here nor can be downloaded.

    Notes
    -----
    All runs were fine-tuned on one draw of images and chosen on one validation set. That noise is in none of the
    draws, so the reliability is lower still, and so is the maximum for a score that does not share these images.
    """
    rng = np.random.default_rng(seed)
    found: dict[str, list[np.ndarray]] = {
        f"{what}, {way}": [] for what in ("reliability", "attainable") for way in ("halves", "resamples")
    }
    grids = _grids(runs, setting, pairs)
    for grid in grids.values():
        rows, places = grid.loss.shape
        order = _orders(rng, draws, rows, places)
        one, other = order[..., : places // 2], order[..., places // 2 :]
        drawn = rng.integers(0, places, (2, draws, rows, places))
        half, whole = grid.truth(other), grid.truth(drawn[0])
        everything = np.broadcast_to(np.arange(places), (draws, rows, places))
        found["reliability, halves"].append(_tau_draws(grid.truth(one), half))
        found["reliability, resamples"].append(_tau_draws(grid.truth(drawn[1]), whole))
        found["attainable, halves"].append(_tau_draws(grid.expected(one), half))
        found["attainable, resamples"].append(_tau_draws(grid.expected(everything), whole))
    means = {way: np.mean(values, axis=0) for way, values in found.items()}  # over the targets, by draw
    mean = pd.DataFrame(
        {way: [values.mean(), *np.quantile(values, [0.025, 0.975])] for way, values in means.items()},
        index=["mean", "low", "high"],
    ).T
    targets = pd.DataFrame(
        {way: np.mean(values, axis=1) for way, values in found.items()}, index=pd.Index(grids, name="target")
    )
    counts = [np.isfinite(grid.loss).sum(axis=1) for grid in grids.values()]
    return NoiseCeiling(targets, mean, draws, int(np.median(np.concatenate(counts))))


def _tau_draws(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """τ_w of two orders, draw by draw; a source that is missing in either is left out of that draw."""
    known = np.isfinite(one) & np.isfinite(other)
    return tau_draws(np.where(known, one, 0.0), np.where(known, other, 0.0), known)


def partial_grids(
    runs: pd.DataFrame | None = None,
    *,
    setting: str = "source_datasets",
    runs_per_draw: int = 20,
    draws: int = 200,
    seed: int = 24,
    table: pd.DataFrame | None = None,
) -> PartialGrids:
    """Mean τ_w of the scores against ground truths from a random part of the grid: who leads, and how often.

    Parameters
    ----------
    runs, setting, draws, seed
        As for `noise_ceiling`.
    runs_per_draw
        Settings of the grid that a draw keeps, the same ones for every source of a target.
    table
        Columns ``source``, ``target``, ``auc`` and the scores; by default the published baselines and the
        proposed score, in the paper's orientation.

    Raises
    ------
    InputError
        If the setting is unknown, the table is no table of runs, or `runs_per_draw` is below 1.
    EnvironmentFailure
        If the runs are neither here nor can be downloaded.
    """
    if runs_per_draw < 1:
        raise InputError(f"runs_per_draw: at least 1 is needed, got {runs_per_draw}")
    frame = _seven(setting) if table is None else table.drop(columns="auc")
    names = [column for column in frame.columns if column not in ("source", "target")]
    rng = np.random.default_rng(seed)
    taus = []
    for target, grid in _grids(runs, setting, frame).items():
        truth = grid.truth(_orders(rng, draws, 1, grid.loss.shape[1])[..., :runs_per_draw])
        block = frame[frame["target"] == target].set_index("source").loc[grid.sources]
        taus.append([_tau_draws(block[name].to_numpy(dtype=float), truth) for name in names])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of numpy, where a score has no τ_w in a draw
        means = pd.DataFrame(np.nanmean(taus, axis=0).T, columns=names)
    leads = means.idxmax(axis=1).value_counts(normalize=True).reindex(names, fill_value=0.0)
    return PartialGrids(means, leads.sort_values(ascending=False), runs_per_draw)


def ground_truths(setting: str = "source_datasets", table: pd.DataFrame | None = None) -> pd.DataFrame:
    """Mean τ_w of every score against other summaries of the same runs; needs the packaged summaries only.

    Parameters
    ----------
    setting
        ``"source_datasets"`` or ``"architectures"``.
    table
        As for `partial_grids`.

    Returns
    -------
    pandas.DataFrame
        Scores by summaries, mean τ_w over the targets. Pairs without runs are left out (among architectures
        ``resnet``, whose ground truth is that of ``imagenet`` in the other setting).
    """
    scores = _seven(setting) if table is None else table.drop(columns="auc")
    summaries = published.table("run_summaries")
    summaries = summaries.loc[summaries["setting"] == setting, ["source", "target", *GROUND_TRUTHS]]
    merged = scores.merge(summaries, on=["source", "target"])
    means = {
        label: weighted_tau(merged[scores.columns].assign(auc=merged[column])).mean()
        for column, label in GROUND_TRUTHS.items()
    }
    return pd.DataFrame(means).rename_axis("score")


def _seven(setting: str) -> pd.DataFrame:
    """The published baselines and the proposed score of every pair."""
    return published_pairs(setting)[["source", "target", *published.METRICS, COMBINED]]
