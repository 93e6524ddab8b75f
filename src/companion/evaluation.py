"""How well a score orders sources: weighted Kendall τ, Friedman's test, the paper's combination.

Works on tables with one row per (source, target); knows nothing of images or models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from companion import published
from companion.errors import InputError

COMBINED = "proposed"
TERMS = ("nca", "gradient_ratio")

# The paper's cross-domain setting turns these round (1 - score), after the fact: see the reproduction notes.
INVERTED_ACROSS_DOMAINS = ("leep", "nleep", "parc", "ncti")


def min_max(values: np.ndarray, *, invert: bool = False) -> np.ndarray:
    """Rescale to 0..1 over the finite values; `invert` gives ``(max - x) / (max - min)``.

    NaN stays NaN. Where all finite values are equal there is no scale and the result is all NaN.
    """
    values = np.asarray(values, dtype=float)
    finite = values[np.isfinite(values)]
    if finite.size == 0 or finite.min() == finite.max():
        return np.full(values.shape, np.nan)
    scaled = (values - finite.min()) / (finite.max() - finite.min())
    return 1 - scaled if invert else scaled


def combine(nca: np.ndarray, gradient_ratio: np.ndarray, *, invert: bool = False) -> np.ndarray:
    """Combine the proposed score's two terms over one pool of sources for one target.

    ``minmax(nca) * minmax(gradient_ratio)``; with `invert` both terms are turned round first, as in the
    paper's cross-domain setting. The result is relative to the pool: adding or removing a source changes it.

    Parameters
    ----------
    nca, gradient_ratio
        Shape (sources,); NaN where a term is missing.
    """
    return min_max(nca, invert=invert) * min_max(gradient_ratio, invert=invert)


def _setting_table(setting: str, inverted: bool | None) -> pd.DataFrame:
    """Return the published table in an orientation, combined score included, without source == target."""
    if setting not in published.SETTINGS:
        raise InputError(f"no published setting {setting!r}: there are {', '.join(published.SETTINGS)}")
    turn = setting == "architectures" if inverted is None else inverted
    frame = published.table(setting)
    # Min–max runs over all sources of a target, the cell source == target of the gradient term included, as
    # released; only then is that row left out.
    frame[COMBINED] = np.nan
    for _, rows in frame.groupby("target").groups.items():
        block = frame.loc[rows]
        frame.loc[rows, COMBINED] = combine(block["nca"], block["gradient_ratio"], invert=turn)
    if turn:
        for column in (*INVERTED_ACROSS_DOMAINS, *TERMS):
            frame[column] = 1 - frame[column]
    scored = frame["auc"].notna() & frame["logme"].notna()
    return frame[scored].reset_index(drop=True)


def _check_table(table: pd.DataFrame) -> pd.DataFrame:
    missing = [name for name in ("source", "target", "auc") if name not in table.columns]
    if missing:
        raise InputError(
            f"table lacks the column(s) {', '.join(missing)}: it needs source, target, auc and scores"
        )
    doubled = table.duplicated(["source", "target"])
    if doubled.any():
        row = table[doubled].iloc[0]
        raise InputError(
            f"table has more than one row for source {row['source']!r}, target {row['target']!r}"
        )
    return table[(table["source"] != table["target"]) & table["auc"].notna()]


def score_columns(table: pd.DataFrame) -> list[str]:
    """Numeric columns of a table that can be scores: all but ``auc``, the paper's order first."""
    numeric = [c for c in table.columns if c != "auc" and pd.api.types.is_numeric_dtype(table[c])]
    order = [*published.METRICS, COMBINED, *TERMS]
    return sorted(
        numeric, key=lambda c: (order.index(c) if c in order else len(order), list(table.columns).index(c))
    )


def tau(scores: Sequence[float], auc: Sequence[float]) -> float:
    """Weighted Kendall τ between a score and the AUC over the sources of one target.

    `scipy.stats.weightedtau` with its defaults: additive hyperbolic weights, ranks averaged over both
    orders. Sources with a missing score are left out.

    Returns
    -------
    float
        -1 to 1; NaN where fewer than two sources remain or either side is constant.
    """
    from scipy.stats import weightedtau

    scores, auc = np.asarray(scores, dtype=float), np.asarray(auc, dtype=float)
    known = np.isfinite(scores) & np.isfinite(auc)
    scores, auc = scores[known], auc[known]
    if len(scores) < 2 or np.ptp(scores) == 0 or np.ptp(auc) == 0:
        return float("nan")
    return float(weightedtau(scores, auc).statistic)


def weighted_tau(table: str | pd.DataFrame, *, inverted: bool | None = None) -> pd.DataFrame:
    """Agreement of every score with the ground truth, per target: the paper's τ_w tables.

    Parameters
    ----------
    table
        ``"source_datasets"`` or ``"architectures"`` (the published table, in the paper's orientation), or a
        table with the columns ``source``, ``target``, ``auc`` and one numeric column a score, higher better.
    inverted
        For a published setting: True turns both terms of the proposed score and LEEP, NLEEP, PARC and NCTI
        round, False does not; None is what the paper does (only ``"architectures"`` is turned).

    Returns
    -------
    pandas.DataFrame
        Targets by scores, the combined score's column named ``proposed``. Rows where source and target are
        the same are left out of the published settings and of a given table alike. NaN where τ_w is
        undefined (a constant score).

    Raises
    ------
    InputError
        If the setting is unknown or the table lacks a column.

    Notes
    -----
    A score that is undefined for *some* sources of a target is compared on the others. For the table of an
    author's own, `benchmark` says how many those are.
    """
    if isinstance(table, str):
        frame = _setting_table(table, inverted)
    else:
        frame = _check_table(table)
    columns = score_columns(frame)
    if not columns:
        raise InputError(
            "table has no score column: add one numeric column a score beside source, target and auc"
        )
    rows = {
        target: {column: tau(block[column], block["auc"]) for column in columns}
        for target, block in frame.groupby("target", sort=True)
    }
    result = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    result.index.name = "target"
    return result


class FriedmanResult(NamedTuple):
    """Friedman's test over targets: does any score rank differently from the others?"""

    chi2: float
    p: float
    ranks: pd.DataFrame
    """Targets by scores, 1 = best; an undefined τ_w ranks last."""


def friedman(taus: pd.DataFrame, columns: Sequence[str] | None = None) -> FriedmanResult:
    """Friedman's test on the ranks of the scores over the targets.

    Parameters
    ----------
    taus
        Targets by scores, as `weighted_tau` gives them.
    columns
        Scores compared; by default the six published baselines and the proposed score, or all columns where
        the table is another one.

    Raises
    ------
    InputError
        If fewer than three scores or two targets are compared.
    """
    from scipy.stats import friedmanchisquare

    if columns is None:
        seven = [*published.METRICS, COMBINED]
        columns = seven if set(seven) <= set(taus.columns) else list(taus.columns)
    block = taus[list(columns)]
    if block.shape[1] < 3 or block.shape[0] < 2:
        raise InputError(
            f"Friedman's test needs 3 scores and 2 targets: got {block.shape[1]} and {block.shape[0]}"
        )
    ranks = block.fillna(-np.inf).rank(axis=1, ascending=False)
    outcome = friedmanchisquare(*(ranks[column] for column in block.columns))
    return FriedmanResult(float(outcome.statistic), float(outcome.pvalue), ranks)
