"""Confidence intervals: of τ_w over sources, by bootstrap, and of a mean over targets, by Student's t.

Thousands of τ_w are needed, and `scipy.stats.weightedtau` takes one list at a time. `tau_draws` computes the
same number for many resamples at once; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.stats
from numpy.typing import ArrayLike, NDArray

from companion.errors import InputError
from companion.evaluation.agreement import MIN_SOURCES, comparable, score_columns
from companion.scores import PAPER_SCORE

MAX_UNDEFINED = 0.05  # share of draws without τ_w, above which a target has no interval


def tau_draws(score: ArrayLike, truth: ArrayLike, counts: ArrayLike) -> NDArray[np.float64]:
    """τ_w of many lists at once; each source may be counted several times, or not at all.

    `score` and `truth` are (n,) or (draws, n), finite; `counts`, of either shape, says how often a source stands in the
    list. Returns (draws,) or a single number: what `scipy.stats.weightedtau` with its defaults gives for the list
    written out; NaN where either side is constant.
    """
    x, y, many = (np.asarray(given, dtype=float) for given in (score, truth, counts))
    above_x = np.sign(x[..., :, None] - x[..., None, :])
    above_y = np.sign(y[..., :, None] - y[..., None, :])

    def total(matrix: np.ndarray) -> np.ndarray:
        """Sum over the other sources, each as often as it is counted."""
        return np.einsum("...ij,...j->...i", matrix, many)

    agree, apart_x, apart_y = total(above_x * above_y), total(np.abs(above_x)), total(np.abs(above_y))
    alike = np.rint(total(((above_x == 0) & (above_y == 0)).astype(float))).astype(int)
    harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, int(many.sum(axis=-1).max()) + 1))])
    found: NDArray[np.float64] | float = 0.0
    for first, second in ((above_x, above_y), (above_y, above_x)):
        # The weight of rank r is 1 / (r + 1). Sources alike in both share the ranks they take up.
        better = ((first < 0) | ((first == 0) & (second < 0))).astype(float)
        rank = np.rint(total(better)).astype(int)
        weight = many * (harmonic[rank + alike] - harmonic[rank]) / np.maximum(alike, 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            scale = np.sqrt((weight * apart_x).sum(axis=-1) * (weight * apart_y).sum(axis=-1))
            found = found + np.where(scale > 0, (weight * agree).sum(axis=-1) / scale, np.nan) / 2
    return np.asarray(found)


class Intervals(NamedTuple):
    """Bootstrap intervals of τ_w."""

    targets: pd.DataFrame
    """One row per (target, score): ``tau``, ``low``, ``high``."""
    mean: pd.DataFrame
    """One row per score: mean τ_w over the targets, ``low``, ``high``."""
    differences: pd.DataFrame
    """One row per score: mean of τ_w less that of the score compared against, ``low``, ``high``; empty without one."""


def bootstrap(
    table: pd.DataFrame,
    *,
    columns: Sequence[str] | None = None,
    against: str | None = PAPER_SCORE,
    draws: int = 1000,
    seed: int = 24,
) -> Intervals:
    """Confidence intervals of τ_w over sources, per target and for the mean, and of paired differences.

    Sources are drawn with replacement, the same ones for every target and score, so that what a strong source
    adds to all targets stays together and differences are paired.

    Parameters
    ----------
    table
        Columns ``source``, ``target``, ``auc`` and the scores, higher better.
    columns
        Scores; all numeric columns by default.
    against
        The score that the differences are taken to; None, or one that the table lacks, gives none.
    draws
        Resamples, at least 2.
    seed
        Seed of the resamples.

    Returns
    -------
    Intervals
        95 % by percentiles; NaN where τ_w is undefined, on the target itself or in more than a twentieth of the draws.

    Raises
    ------
    InputError
        If the table cannot be compared, or there are too few draws.

    Notes
    -----
    The intervals say what other sources could have given; targets and measured AUCs are fixed. Where the population is
    known (14 sources, 11 targets, 400 repeats), the bias was below .01 and the 95 % interval held the value in 93–96 %.
    A difference counts only the sources for which both scores are defined, and the targets on which both have a τ_w.
    """
    frame = comparable(table)
    names = list(columns) if columns is not None else score_columns(frame)
    if draws < 2:
        raise InputError(f"at least 2 draws are needed, got {draws}")
    sources = sorted(frame["source"].unique())
    chance = np.full(len(sources), 1 / len(sources))
    drawn = np.random.default_rng(seed).multinomial(len(sources), chance, size=draws)
    counts = pd.DataFrame(np.vstack([np.ones(len(sources)), drawn]), columns=sources)
    taus, apart = {}, {}  # (target, score) -> τ_w of the sources themselves, then of the draws
    for target, block in frame.groupby("target"):
        often = counts[block["source"]].to_numpy()
        for name in names:
            taus[target, name] = _of_known(block, often, name, name)
            if against in names and name != against:
                ahead = _of_known(block, often, name, against) - _of_known(block, often, against, name)
                apart[target, name] = ahead
    found = pd.DataFrame(taus).rename_axis(["target", "score"], axis=1)
    targets, mean = _percentiles(found, "tau"), _percentiles(_over_targets(found), "mean")
    targets.loc[found.iloc[1:].isna().mean() > MAX_UNDEFINED, ["low", "high"]] = np.nan
    differences = pd.DataFrame(columns=["difference", "low", "high"])
    if apart:
        differences = _percentiles(_over_targets(pd.DataFrame(apart)), "difference")
    return Intervals(targets, mean, differences)


def _of_known(block: pd.DataFrame, counts: np.ndarray, score: str, other: str | None) -> np.ndarray:
    """τ_w of a score on one target over the sources that both scores have, by row of `counts`; NaN for too few."""
    known = np.isfinite(block[[score, other]].to_numpy(dtype=float)).all(axis=1)
    if known.sum() < MIN_SOURCES:
        return np.full(len(counts), np.nan)
    return tau_draws(
        block[score].to_numpy(dtype=float)[known], block["auc"].to_numpy()[known], counts[:, known]
    )


def _over_targets(found: pd.DataFrame) -> pd.DataFrame:
    """Mean over the targets, by draw and score."""
    return found.T.groupby(level=1, sort=False).mean().T.rename_axis("score", axis=1)


def _percentiles(found: pd.DataFrame, name: str) -> pd.DataFrame:
    """One row a column: the value, and the percentiles of its draws."""
    low, high = found.iloc[1:].quantile([0.025, 0.975]).to_numpy()
    return pd.DataFrame({name: found.iloc[0], "low": low, "high": high})


def interval(values: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Student's 95 % interval for the mean over targets: low and high, (…,), of `values`, (…, targets), at least two.

    It speaks of targets like these, since the spread between them is what it is made of; sources are fixed.
    """
    given = np.asarray(values, dtype=float)
    half = half_width(given.std(-1, ddof=1), given.shape[-1])
    return given.mean(-1) - half, given.mean(-1) + half


def half_width(deviation: ArrayLike, count: ArrayLike) -> np.ndarray:
    """Half of Student's 95 % interval for the mean of `count` values with this standard deviation."""
    return scipy.stats.t.ppf(0.975, np.subtract(count, 1)) * deviation / np.sqrt(count)
