"""Agreement of a score with the ground truth: weighted and plain Kendall τ, Friedman's test, regret.

Works on tables with one row per (source, target); knows nothing of images or models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.stats

from companion import published
from companion.errors import InputError
from companion.scores import INVERTED_ACROSS_DOMAINS, PAPER_SCORE, TERMS, with_combined

MIN_SOURCES = 3  # on a target: τ_w of two is 1 or -1 and says nothing


def published_pairs(setting: str, *, inverted: bool | None = None) -> pd.DataFrame:
    """Published pairs of a setting that have scores and an AUC, the combined score added; without source == target.

    `setting` is ``"source_datasets"`` or ``"architectures"``; `inverted` is as for `weighted_tau`.
    """
    if setting not in published.SETTINGS:
        raise InputError(f"no published setting {setting!r}: there are {', '.join(published.SETTINGS)}")
    invert = setting == "architectures" if inverted is None else inverted
    # Min–max runs over all sources of a target, the cell source == target of the gradient term included, as
    # released; only then is that row left out.
    frame = with_combined(published.table(setting), invert=invert)
    frame.attrs = {}  # pandas copies them with every row that is taken
    if invert:
        frame[list(INVERTED_ACROSS_DOMAINS)] = 1 - frame[list(INVERTED_ACROSS_DOMAINS)]
    return frame[frame["auc"].notna() & frame["logme"].notna()].reset_index(drop=True)


def check_table(table: pd.DataFrame, needed: Sequence[str] = ("source", "target", "auc")) -> None:
    """Refuse a table that lacks a column or has two rows for a pair."""
    if missing := [name for name in needed if name not in table]:
        raise InputError(
            f"table lacks the column(s) {', '.join(missing)}: it needs {', '.join(needed)} and scores"
        )
    doubled = table[table.duplicated(["source", "target"])]
    if len(doubled):
        source, target = doubled.iloc[0][["source", "target"]]
        raise InputError(f"table has more than one row for source {source!r}, target {target!r}")


def comparable(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of a table that can be compared, at least one: with an AUC, source and target different, each pair once."""
    check_table(table)
    found = table[(table["source"] != table["target"]) & table["auc"].notna()]
    if found.empty:
        raise InputError(
            "table has no pair to compare: wanted are rows with an auc, source and target different"
        )
    return found


def score_columns(table: pd.DataFrame) -> list[str]:
    """Numeric columns of a table that can be scores: all but ``auc``, the paper's order first; at least one."""
    numeric = [c for c in table.columns if c != "auc" and pd.api.types.is_numeric_dtype(table[c])]
    if not numeric:
        raise InputError("table has no score column: add a numeric one beside source, target and auc")
    order = [name for name in (*published.METRICS, PAPER_SCORE, *TERMS) if name in numeric]
    return [*order, *(name for name in numeric if name not in order)]


def tau(scores: Sequence[float], auc: Sequence[float]) -> float:
    """Weighted Kendall τ between a score and the AUC over the sources of one target, -1 to 1.

    `scipy.stats.weightedtau` with its defaults: additive hyperbolic weights, ranks averaged over both orders. Sources
    with a missing score are left out; NaN where fewer than two remain or either side is constant.
    """
    score, truth = np.asarray(scores, dtype=float), np.asarray(auc, dtype=float)
    known = np.isfinite(score) & np.isfinite(truth)
    score, truth = score[known], truth[known]
    if len(score) < 2 or np.ptp(score) == 0 or np.ptp(truth) == 0:
        return float("nan")
    return float(scipy.stats.weightedtau(score, truth).statistic)


def weighted_tau(table: str | pd.DataFrame, *, inverted: bool | None = None) -> pd.DataFrame:
    """Agreement of every score with the ground truth, per target: the paper's τ_w tables.

    Parameters
    ----------
    table
        ``"source_datasets"`` or ``"architectures"`` (the published table, in the paper's orientation), or a
        table with the columns ``source``, ``target``, ``auc`` and one numeric column a score, higher better.
    inverted
        For a published setting: whether both terms of the proposed score and LEEP, NLEEP, PARC and NCTI are
        inverted; None is what the paper does (only in ``"architectures"``).

    Returns
    -------
    pandas.DataFrame
        Targets by scores, the combined score's column named ``proposed``; without the rows source == target. NaN where
        a score is constant or fewer than three sources have it. Where *some* sources lack a score, τ_w is over the
        others: to compare such scores, take the differences of `bootstrap`.

    Raises
    ------
    InputError
        If the setting is unknown or the table lacks a column.
    """
    frame = published_pairs(table, inverted=inverted) if isinstance(table, str) else comparable(table)
    columns, rows = score_columns(frame), {}
    for target, block in frame.groupby("target"):
        enough = np.isfinite(block[columns].astype(float)).sum() >= MIN_SOURCES
        rows[target] = [tau(block[name], block["auc"]) if enough[name] else np.nan for name in columns]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("target")


class FriedmanResult(NamedTuple):
    """Friedman's test over targets: whether any score ranks differently from the others."""

    chi2: float
    p: float
    ranks: pd.DataFrame
    """Targets by scores, 1 = best; an undefined τ_w ranks last."""


def friedman(taus: pd.DataFrame, columns: Sequence[str] | None = None) -> FriedmanResult:
    """Friedman's test on the ranks of the scores over the targets.

    `taus` are targets by scores, as `weighted_tau` gives them; `columns` the scores compared, at least three, on at
    least two targets: by default the six published baselines and the proposed score, or all where the table is another.
    """
    if columns is None:
        seven = [*published.METRICS, PAPER_SCORE]
        columns = seven if set(seven) <= set(taus.columns) else list(taus.columns)
    block = taus[list(columns)]
    if block.shape[1] < 3 or block.shape[0] < 2:
        raise InputError(
            f"Friedman's test needs 3 scores and 2 targets: got {block.shape[1]} and {block.shape[0]}"
        )
    ranks = block.fillna(-np.inf).rank(axis=1, ascending=False)
    outcome = scipy.stats.friedmanchisquare(*(ranks[column] for column in block.columns))
    return FriedmanResult(float(outcome.statistic), float(outcome.pvalue), ranks)


def nemenyi(ranks: pd.DataFrame) -> pd.DataFrame:
    """Nemenyi's test on the ranks of a Friedman test: scores by scores, p of each pair."""
    import scikit_posthocs

    found = scikit_posthocs.posthoc_nemenyi_friedman(ranks.to_numpy())
    return found.set_axis(ranks.columns).set_axis(ranks.columns, axis=1)


def regret(table: pd.DataFrame, choose: str | Callable[[pd.DataFrame], str]) -> pd.Series:
    """Top-1 regret by target, 0 to 1: AUC of the best source less that of the chosen one.

    `table` has ``source``, ``target``, ``auc`` and the scores, without source == target; `choose` is a score's column
    (its highest value chooses; of ties the mean counts) or a function from one target's rows to a source. NaN where the
    score is missing or the chosen source is not among the rows.
    """
    lost = {}
    for target, rows in table.groupby("target"):
        chosen = rows["source"] == choose(rows) if callable(choose) else rows[choose] == rows[choose].max()
        lost[target] = rows["auc"].max() - rows.loc[chosen, "auc"].mean()
    return pd.Series(lost, name="regret", dtype=float).rename_axis("target")
