"""Which sources can be ranked against each other, and in what order they then stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from companion.models import SourceModel
from companion.scores import COMBINED, TERMS, combine

SMALLEST_POOL = 4


@dataclass(frozen=True)
class Pool:
    """Sources that can be ranked against each other."""

    kind: str
    """``"source_datasets"`` (one architecture) or ``"architectures"`` (one pre-training)."""
    of: str
    """The architecture or the pre-training they share."""
    members: tuple[int, ...]
    """Positions in the list of sources."""

    @property
    def title(self) -> str:
        """One line for people."""
        if self.kind == "architectures":
            return f"architectures pre-trained on {self.of}"
        return f"{self.of}, different pre-training"


def pools(models: Sequence[SourceModel]) -> list[Pool]:
    """Group models into pools; one that shares nothing with another is a pool of its own."""
    found: list[Pool] = []
    for kind, same, other in (
        ("source_datasets", "architecture", "pretraining"),
        ("architectures", "pretraining", "architecture"),
    ):
        for shared in dict.fromkeys(getattr(model, same) for model in models):
            members = tuple(i for i, model in enumerate(models) if getattr(model, same) == shared)
            if len({getattr(models[i], other) for i in members}) > 1:
                found.append(Pool(kind, shared, members))
    pooled = {index for pool in found for index in pool.members}
    alone = [i for i in range(len(models)) if i not in pooled]
    for architecture in dict.fromkeys(models[i].architecture for i in alone):
        members = tuple(i for i in alone if models[i].architecture == architecture)
        found.append(Pool("source_datasets", architecture, members))
    return found


def rank_pool(cards: pd.DataFrame, *, kind: str) -> tuple[pd.DataFrame, str]:
    """Combine one pool's terms and order its rows, or say why there is no order.

    Parameters
    ----------
    cards
        One row per source with the columns ``nca`` and ``gradient_ratio``.
    kind
        ``"source_datasets"`` or ``"architectures"`` (both terms turned round).

    Returns
    -------
    table : pandas.DataFrame
        The rows, best first, with ``rank``, ``proposed``, ``gap`` (lead over the next) and ``order``. Where
        the order is undetermined ``rank`` is missing and the rows stay as they were given.
    reason : str
        Why the order is undetermined, or what of it is; empty where all of it is determined.
    """
    table = cards.copy()
    table[COMBINED] = combine(table["nca"], table["gradient_ratio"], invert=kind == "architectures")
    table["rank"] = pd.array([pd.NA] * len(table), dtype="Int64")
    table["gap"], table["order"] = np.nan, "undetermined"
    missing = [term for term in TERMS if table[term].isna().any()]
    constant = [term for term in TERMS if not missing and table[term].nunique() < 2]
    if len(table) < SMALLEST_POOL:
        return (
            table,
            f"{len(table)} source(s) in the pool, and the combined score needs {SMALLEST_POOL} to mean anything",
        )
    if missing:
        return table, f"{missing[0]} is not defined for every source"
    if constant:
        return table, f"{constant[0]} is the same for every source"
    table = table.sort_values(COMBINED, ascending=False, kind="stable")
    values = table[COMBINED].to_numpy()
    tied = pd.Series(values).duplicated(keep=False).to_numpy()
    table["rank"] = pd.Series(-values).rank(method="min").astype("Int64").to_numpy()
    table["order"] = np.where(tied, "undetermined", "determined")
    table["gap"] = np.append(values[:-1] - values[1:], np.nan)
    if (tied & (values > 0)).any():
        names = ", ".join(table["source"][tied & (values > 0)]) if "source" in table else "sources"
        table["rank"] = pd.array([pd.NA] * len(table), dtype="Int64")
        table["order"] = "undetermined"
        return table, f"{names} have the same combined score"
    if tied.any():
        # The lowest source in either term has 0, so two at 0 are the rule and say nothing about each other.
        return table, "the last ones are tied at 0: each is the lowest of the pool in one of the two terms"
    return table, ""
