"""Which sources can be ranked against each other, in what order they then stand, and whether other scores agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from companion.models import SourceModel, family
from companion.scores import COMBINED, INVERTED_ACROSS_DOMAINS, REGISTRY, combine

MIN_CANDIDATES = 4
SCALE_INVARIANT = "gradient_ratio_scale_invariant"
# What the order goes by. Among sources of one architecture it is the product of NCA and the scale-invariant ratio, not
# the paper's own form, since it ranks better in the second replication and does not depend on how a file was written (a
# test holds both); among architectures, of which the replication has one, it is the paper's.
RECOMMENDED = "combined"
# Scores that mean something without other candidates.
FEATURE_SCORES = ("linear_probe", "knn", "nca", "logme")
LEFT_OUT = "left out: trained on the target itself"
TOO_FEW = "too few of one kind for a combined score"


def ratio_of(kind: str) -> str:
    """Form of the gradient ratio that the order of a kind of candidate set goes by; see `RECOMMENDED`."""
    return "gradient_ratio" if kind == "architectures" else SCALE_INVARIANT


@dataclass(frozen=True)
class CandidateSet:
    """Sources that can be ranked against each other, and their order."""

    kind: str
    """``"source_datasets"`` (one architecture), ``"architectures"`` (one pre-training: both terms are inverted),
    ``"mixed"`` (too few of one kind: no combined score), or ``"left_out"`` (trained on the target itself)."""
    title: str
    table: pd.DataFrame
    """One row per source, best first; see `order`."""
    reason: str = ""
    """Why there is no combined score, or how to read it where there is one."""
    warnings: tuple[str, ...] = ()

    @property
    def ratio(self) -> str:
        """Column of the gradient ratio that the order goes by."""
        return ratio_of(self.kind)

    @property
    def ordered(self) -> bool:
        """Whether the combined score gives an order."""
        return bool(self.table["rank"].notna().any())

    @property
    def advised(self) -> list[str]:
        """Sources in the order in which to try them: by the combined score, else by the scores of features."""
        if self.kind == "left_out":
            return []
        by = "rank" if self.ordered else "feature_rank"
        return list(self.table.dropna(subset=by).sort_values(by, kind="stable")["source"])


def candidate_sets(models: Sequence[SourceModel]) -> list[tuple[str, str, list[int]]]:
    """Group models into sets, each with its kind, its title and its members' positions.

    Models of one architecture (and its variants of other patch or input size) with different pre-training form a set,
    and so do architectures with one pre-training; one that shares its architecture with some and its pre-training with
    others is in two. Those in no set of four are shown together, without a combined score.
    """
    keys = [(family(model.architecture), model.pretraining) for model in models]
    found = []
    for kind, same, title in (
        ("source_datasets", 0, "{}, different pre-training"),
        ("architectures", 1, "architectures pre-trained on {}"),
    ):
        for shared in dict.fromkeys(key[same] for key in keys):
            members = [place for place, key in enumerate(keys) if key[same] == shared]
            several = len({keys[place][1 - same] for place in members}) > 1
            if several and len(members) >= MIN_CANDIDATES:
                found.append((kind, title.format(shared), members))
    rest = [place for place in range(len(models)) if not any(place in members for *_, members in found)]
    return [*found, *([("mixed", TOO_FEW, rest)] if rest else [])]


def order(scores: pd.DataFrame, *, kind: str) -> tuple[pd.DataFrame, str]:
    """Combine one candidate set's terms and order its rows, or say why there is no order.

    Parameters
    ----------
    scores
        One row per source with ``source``, ``nca``, ``gradient_ratio`` and, where the order is to rest on it,
        ``gradient_ratio_scale_invariant``.
    kind
        As of `CandidateSet`; among ``"architectures"`` both terms are inverted.

    Returns
    -------
    table : pandas.DataFrame
        The rows, best first, with ``proposed`` (the paper's form), ``combined`` (with the scale-invariant ratio where
        there is one, but for architectures), ``rank`` and ``gap`` (lead over the next) by the latter, ``order``, and
        ``feature_rank`` (mean rank by `FEATURE_SCORES`, 1 is best). Where the order is undetermined ``rank`` is
        missing.
    reason : str
        As of `CandidateSet`.
    """
    table, inverted = scores.reset_index(drop=True), kind == "architectures"
    features = [name for name in FEATURE_SCORES if name in table and table[name].notna().all()]
    table["feature_rank"] = table[features].rank(ascending=False).mean(axis=1)
    table[COMBINED] = combine(table["nca"], table["gradient_ratio"], invert=inverted)
    by, ratio = RECOMMENDED, ratio_of(kind) if ratio_of(kind) in table else "gradient_ratio"
    table[by] = combine(table["nca"], table[ratio], invert=inverted)
    table["rank"] = pd.array([pd.NA] * len(table), dtype="Int64")
    table["gap"], table["order"] = np.nan, "undetermined"
    tied = table[by].duplicated(keep=False)
    reason = _undetermined(table, kind, ("nca", ratio), list(table["source"][tied & (table[by] > 0)]))
    if reason:
        if kind == "mixed" or len(table) < MIN_CANDIDATES:
            table[[by, COMBINED]] = np.nan
        return table.sort_values("feature_rank", kind="stable"), reason
    table["rank"] = table[by].rank(ascending=False, method="min").astype("Int64")
    table["order"] = np.where(tied, "undetermined", "determined")
    table = table.sort_values(by, ascending=False, kind="stable")
    table["gap"] = table[by].diff(-1)
    lowest = "A combined score of 0 means the lowest here in NCA or gradient ratio, whatever the other, not worthless"
    return table, f"{lowest}; the last are tied" if tied.any() else lowest


def _undetermined(
    table: pd.DataFrame, kind: str, terms: tuple[str, str], tied_above_zero: Sequence[str]
) -> str:
    """Why the combined score gives no order; empty where it does."""
    if kind == "mixed" or len(table) < MIN_CANDIDATES:
        return f"it needs {MIN_CANDIDATES} candidates of one architecture, or of one pre-training, to be compared with"
    for term in terms:
        if table[term].isna().any():
            return f"{term} is not defined for every source"
        if table[term].nunique() < 2:
            return f"{term} is the same for every source"
    return f"{', '.join(tied_above_zero)} have the same combined score" if tied_above_zero else ""


def agreement(candidates: CandidateSet) -> pd.DataFrame:
    """Each score's first choice in a candidate set, and Kendall's τ of its order with the others'.

    Returns
    -------
    pandas.DataFrame
        One row per score: ``method``, ``first`` (the source it puts first), ``sources`` (how many it is defined for)
        and ``tau`` (mean over the other scores, -1 to 1; NaN for fewer than three sources). Scores that are not
        defined for two sources, or the same for all, are left out. Among architectures the paper's scores are
        inverted, as in `companion.evaluation`.
    """
    block = candidates.table.set_index("source")
    values = {}
    for name in (RECOMMENDED, COMBINED, *REGISTRY):
        if name not in block or block[name].nunique() < 2:
            continue
        inverted = candidates.kind == "architectures" and name in (*INVERTED_ACROSS_DOMAINS, SCALE_INVARIANT)
        values[name] = -block[name].astype(float) if inverted else block[name].astype(float)
    taus = pd.DataFrame(values).corr(method="kendall", min_periods=3) if values else pd.DataFrame()
    for name in values:
        taus.loc[name, name] = np.nan
    rows = [(name, one.idxmax(), int(one.notna().sum()), taus[name].mean()) for name, one in values.items()]
    return pd.DataFrame(rows, columns=["method", "first", "sources", "tau"])
