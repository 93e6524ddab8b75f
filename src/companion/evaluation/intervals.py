"""Confidence intervals of τ_w over sources: what another choice of candidates could have given.

Thousands of τ_w are needed, and `scipy.stats.weightedtau` takes one list at a time. `tau_draws` computes the
same number for many resamples at once; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from companion.errors import InputError
from companion.evaluation.agreement import FEWEST, check_table, score_columns, tau, weighted_tau
from companion.scores import COMBINED


def tau_draws(
    score: ArrayLike, truth: ArrayLike, counts: ArrayLike | None = None, *, weighted: bool = True
) -> NDArray[np.float64]:
    """Kendall τ of many lists at once; each source may be counted several times, or not at all.

    Parameters
    ----------
    score, truth
        (n,) or (draws, n), finite.
    counts
        (n,) or (draws, n) whole numbers: how often a source stands in the list. Once each by default.
    weighted
        τ_w as `scipy.stats.weightedtau` with its defaults defines it; else τ-b.

    Returns
    -------
    numpy.ndarray
        (draws,) or a single number, what scipy gives for the list written out; NaN where either side is constant.
    """
    x, y = np.asarray(score, dtype=float), np.asarray(truth, dtype=float)
    many = np.ones(x.shape[-1]) if counts is None else np.asarray(counts, dtype=float)
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
        if weighted:
            # The weight of rank r is 1 / (r + 1). Sources alike in both share the ranks they take up.
            better = ((first < 0) | ((first == 0) & (second < 0))).astype(float)
            rank = np.rint(total(better)).astype(int)
            weight = many * (harmonic[rank + alike] - harmonic[rank]) / np.maximum(alike, 1)
        else:
            weight = many
        with np.errstate(invalid="ignore", divide="ignore"):
            scale = np.sqrt((weight * apart_x).sum(axis=-1) * (weight * apart_y).sum(axis=-1))
            found = found + np.where(scale > 0, (weight * agree).sum(axis=-1) / scale, np.nan) / 2
    return np.asarray(found)


MOST_UNDEFINED = 0.05  # share of draws without τ_w, above which a target has no interval


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
    against: str | None = COMBINED,
    draws: int = 1000,
    level: float = 0.95,
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
    level
        Between 0 and 1.
    seed
        Seed of the resamples.

    Returns
    -------
    Intervals
        Percentile intervals; NaN where τ_w is undefined, on the target itself or in more than a twentieth of the draws.

    Raises
    ------
    InputError
        If the table cannot be compared, or `draws` or `level` is out of range.

    Notes
    -----
    A source drawn twice is tied with itself on both sides. τ_w leaves such pairs out of numerator and denominator, so
    they do not pull it either way. Measured where the truth is known (14 sources drawn at random, 11 targets, 400
    repeats, population τ_w 0, .43 and .63): bias below .01; the 95 % interval held the population value in 94–95 %
    for one target and in 93–96 % for the mean. The jackknife came to 93–98 % with intervals a fifth wider. On the
    published tables the mean of the draws lies up to .02 below the value. With few sources all intervals are wide:
    that is what few sources can tell.

    A difference counts only the sources for which both scores are defined, and only the targets on which both have a
    τ_w: a score that is missing for a source is not compared with one that has to order it.

    The intervals say what other sources could have given. They hold the targets and the measured AUCs fixed.
    """
    frame = check_table(table)
    names = list(columns) if columns is not None else score_columns(frame)
    if not names:
        raise InputError(
            "table has no score column: add one numeric column a score beside source, target and auc"
        )
    if draws < 2 or not 0 < level < 1:
        raise InputError(f"at least 2 draws and a level between 0 and 1 are needed: got {draws} and {level}")
    sources = sorted(frame["source"].unique())
    chance = np.full(len(sources), 1 / len(sources))
    counts = pd.DataFrame(
        np.random.default_rng(seed).multinomial(len(sources), chance, size=draws), columns=sources
    )
    targets = sorted(frame["target"].unique())
    drawn = np.full((len(targets), len(names), draws), np.nan)
    apart = drawn.copy()
    exactly_apart = np.full((len(targets), len(names)), np.nan)

    def draws_of(name: str, rows: pd.DataFrame) -> np.ndarray:
        return tau_draws(rows[name], rows["auc"], counts[rows["source"]])

    for row, target in enumerate(targets):
        block = frame[frame["target"] == target]
        for place, name in enumerate(names):
            known = block[np.isfinite(block[name].to_numpy(dtype=float))]
            if len(known) >= FEWEST:
                drawn[row, place] = draws_of(name, known)
            if against in names:
                both = known[np.isfinite(known[against].to_numpy(dtype=float))]
                if len(both) >= FEWEST:
                    exactly_apart[row, place] = tau(both[name], both["auc"]) - tau(both[against], both["auc"])
                if np.isfinite(exactly_apart[row, place]):
                    apart[row, place] = draws_of(name, both) - draws_of(str(against), both)
    exact = weighted_tau(frame[["source", "target", "auc", *names]])[names]
    tails = [(1 - level) / 2, (1 + level) / 2]

    def limits(values: np.ndarray) -> np.ndarray:
        """Quantiles over the draws, which are the last axis; NaN where no draw has a value."""
        found = np.full((*values.shape[:-1], 2), np.nan)
        some = np.isfinite(values).any(axis=-1)
        found[some] = np.nanquantile(values[some], tails, axis=-1).T
        return found

    per_target = pd.DataFrame(
        {
            "tau": exact.loc[targets].to_numpy().ravel(),
            **dict(zip(("low", "high"), limits(drawn).reshape(-1, 2).T, strict=True)),
        },
        index=pd.MultiIndex.from_product([targets, names], names=["target", "score"]),
    )
    # Draws in which the score is constant are left out, and an interval from the others need not hold the value.
    often = np.isnan(drawn).mean(axis=-1).ravel() > MOST_UNDEFINED
    per_target.loc[per_target["tau"].isna() | often, ["low", "high"]] = np.nan
    # A score without τ_w on a target has its mean over the others, in every draw alike.
    drawn[exact.loc[targets].isna().to_numpy()] = np.nan
    means = mean_over_targets(drawn)
    low, high = limits(means).T
    mean = pd.DataFrame({"mean": exact.mean(), "low": low, "high": high}).rename_axis("score")
    if against not in names:
        return Intervals(per_target, mean, mean.iloc[:0].rename(columns={"mean": "difference"}))
    low, high = limits(mean_over_targets(apart)).T
    difference = pd.DataFrame(
        {"difference": mean_over_targets(exactly_apart), "low": low, "high": high},
        index=pd.Index(names, name="score"),
    )
    return Intervals(per_target, mean, difference.drop(index=against))


def mean_over_targets(drawn: np.ndarray) -> np.ndarray:
    """Mean over the first axis of what is defined; NaN where nothing is."""
    known = np.isfinite(drawn)
    with np.errstate(invalid="ignore"):
        return np.where(known, drawn, 0.0).sum(axis=0) / known.sum(axis=0)
