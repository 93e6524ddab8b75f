"""Which sources can be ranked against each other, in what order they then stand, and whether other scores agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from companion.models import SourceModel
from companion.scores import COMBINED, INVERTED_ACROSS_DOMAINS, REGISTRY, TERMS, combine

MIN_CANDIDATES = 4
LEFT_OUT = "left out: trained on the target itself"


@dataclass(frozen=True)
class CandidateSet:
    """Sources that can be ranked against each other, and their order."""

    kind: str
    """``"source_datasets"`` (one architecture), ``"architectures"`` (one pre-training: both terms are inverted), or
    ``"left_out"`` (trained on the target itself)."""
    title: str
    table: pd.DataFrame
    """One row per source, best first: ``rank``, ``source``, the combined score, ``gap``, ``order``, the scores."""
    reason: str = ""
    """Why the order is undetermined, or what of it is; empty where all of it is determined."""
    warnings: tuple[str, ...] = ()

    @property
    def ordered(self) -> bool:
        """Whether there is an order."""
        return bool(self.table["rank"].notna().any())


def candidate_sets(models: Sequence[SourceModel]) -> list[tuple[str, str, list[int]]]:
    """Group models into sets, each with its kind, its title and its members' positions.

    A model that shares nothing with another is a set of its own; one that shares its architecture with some and its
    pre-training with others is in two.
    """
    found = []
    for kind, same, other, title in (
        ("source_datasets", "architecture", "pretraining", "{}, different pre-training"),
        ("architectures", "pretraining", "architecture", "architectures pre-trained on {}"),
    ):
        for shared in dict.fromkeys(getattr(model, same) for model in models):
            members = [i for i, model in enumerate(models) if getattr(model, same) == shared]
            if len({getattr(models[i], other) for i in members}) > 1:
                found.append((kind, title.format(shared), members))
    alone = [i for i in range(len(models)) if not any(i in members for *_, members in found)]
    for architecture in dict.fromkeys(models[i].architecture for i in alone):
        members = [i for i in alone if models[i].architecture == architecture]
        found.append(("source_datasets", f"{architecture}, different pre-training", members))
    return found


def order(scores: pd.DataFrame, *, kind: str) -> tuple[pd.DataFrame, str]:
    """Combine one candidate set's terms and order its rows, or say why there is no order.

    Parameters
    ----------
    scores
        One row per source with the columns ``source``, ``nca`` and ``gradient_ratio``.
    kind
        ``"source_datasets"``, or ``"architectures"``, where both terms are inverted.

    Returns
    -------
    table : pandas.DataFrame
        The rows, best first, with ``rank``, ``proposed``, ``gap`` (lead over the next) and ``order``. Where
        the order is undetermined ``rank`` is missing and the rows stay as they were given.
    reason : str
        As of `CandidateSet`.
    """
    table = scores.copy()
    table[COMBINED] = combine(table["nca"], table["gradient_ratio"], invert=kind == "architectures")
    table["rank"] = pd.array([pd.NA] * len(table), dtype="Int64")
    table["gap"], table["order"] = np.nan, "undetermined"
    if len(table) < MIN_CANDIDATES:
        return table, (
            f"{len(table)} source(s) in the candidate set, and the combined score needs {MIN_CANDIDATES} to mean "
            "anything"
        )
    for term in TERMS:
        if table[term].isna().any():
            return table, f"{term} is not defined for every source"
        if table[term].nunique() < 2:
            return table, f"{term} is the same for every source"
    tied = table[COMBINED].duplicated(keep=False)
    if (tied & (table[COMBINED] > 0)).any():
        names = ", ".join(table["source"][tied & (table[COMBINED] > 0)])
        return table, f"{names} have the same combined score"
    table["rank"] = table[COMBINED].rank(ascending=False, method="min").astype("Int64")
    table["order"] = np.where(tied, "undetermined", "determined")
    table = table.sort_values(COMBINED, ascending=False, kind="stable")
    table["gap"] = table[COMBINED].diff(-1)
    # The lowest source in either term has 0, so two at 0 are the rule and say nothing about each other.
    return table, (
        "the last ones are tied at 0: each is the lowest of its candidate set in one of the two terms"
        if tied.any()
        else ""
    )


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
    for name in (COMBINED, *REGISTRY):
        if name not in block or block[name].nunique() < 2 or (name == COMBINED and not candidates.ordered):
            continue
        term = name in INVERTED_ACROSS_DOMAINS or name == "gradient_ratio_scale_invariant"
        inverted = candidates.kind == "architectures" and term
        values[name] = -block[name].astype(float) if inverted else block[name].astype(float)
    taus = pd.DataFrame(values).corr(method="kendall", min_periods=3) if values else pd.DataFrame()
    for name in values:
        taus.loc[name, name] = np.nan
    rows = [
        {
            "method": name,
            "first": column.idxmax(),
            "sources": int(column.notna().sum()),
            "tau": taus[name].mean(),
        }
        for name, column in values.items()
    ]
    return pd.DataFrame(rows, columns=["method", "first", "sources", "tau"])
