"""Which sources can be ranked against each other, in what order they then stand, and whether other scores agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from companion.models import family
from companion.scores import INVERTED_ACROSS_DOMAINS, PAPER_SCORE, REGISTRY, TERMS, combine, combine_ncti

if TYPE_CHECKING:
    from companion.ranking.scoring import Scored

MIN_CANDIDATES = 4
SCALE_INVARIANT = "gradient_ratio_scale_invariant"
# Two columns of a table hold a product of NCA and a gradient ratio. PAPER_SCORE ("proposed") is the paper's, with the
# ratio as published. COMBINED ("combined") is what the order goes by: among sources of one architecture it has the
# scale-invariant ratio, since that ranks better in the second replication and does not depend on how a file was written
# (a test holds both); among architectures, of which the replication has one, it is the paper's.
COMBINED = "combined"
FEATURE_RANK = "feature_rank"  # mean rank by FEATURE_SCORES, which mean something without other candidates
FEATURE_SCORES = ("linear_probe", "knn", "nca", "logme")
NO_VOTE = (COMBINED, PAPER_SCORE, "gradient_ratio")  # products, and the other form of a score
ALWAYS = tuple(dict.fromkeys((*TERMS, SCALE_INVARIANT, *FEATURE_SCORES)))  # what orders rest on


@dataclass(frozen=True)
class CandidateSet:
    """Sources that can be ranked against each other, and their order."""

    kind: str
    """``"source_datasets"`` (one architecture), ``"architectures"`` (one pre-training: both terms are inverted),
    or ``"mixed"`` (too few of one kind: no combined score)."""
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
    def by(self) -> str:
        """Column that the order goes by: the combined score, or where that gives none the mean rank by features."""
        return COMBINED if self.ordered else FEATURE_RANK

    @property
    def advised(self) -> list[str]:
        """Sources in the order in which to try them."""
        known = merits(self.table, self.by).dropna()
        return list(known.sort_values(ascending=False, kind="stable").index)


def merits(table: pd.DataFrame, by: str) -> pd.Series:
    """What an order goes by, source -> value, higher is better."""
    values = table.set_index("source")[by].astype(float)
    return -values if by == FEATURE_RANK else values


def ratio_of(kind: str) -> str:
    """Form of the gradient ratio that the order of a kind of candidate set goes by; see `COMBINED`."""
    return "gradient_ratio" if kind == "architectures" else SCALE_INVARIANT


def candidate_sets(scored: Sequence[Scored], *, variant: str) -> list[CandidateSet]:
    """Put the sources of each candidate set in order."""
    sets = []
    for kind, title, places in grouped(scored):
        members = [scored[place] for place in places]
        rows = [
            {
                "source": one.name,
                **one.scores,
                "architecture": one.architecture,
                "pretraining": one.pretraining,
            }
            for one in members
        ]
        block = pd.DataFrame(rows)
        terms = np.array([one.ncti_terms or (np.nan,) * 3 for one in members])
        if kind != "mixed" and np.isfinite(terms).any():
            block["ncti"] = combine_ncti(terms, variant=variant)
        table, reason = order(block, kind=kind)
        sets.append(CandidateSet(kind, title, table, reason, tuple(_warnings(members))))
    return sets


def grouped(models: Sequence[Any]) -> list[tuple[str, str, list[int]]]:
    """Group what has an ``architecture`` and a ``pretraining`` into sets: kind, title and places of the members.

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
    return [*found, *([("mixed", "without a combined score", rest)] if rest else [])]


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
    ratio = ratio_of(kind) if ratio_of(kind) in table else "gradient_ratio"
    features = [name for name in FEATURE_SCORES if name in table and table[name].notna().all()]
    table[FEATURE_RANK] = table[features].rank(ascending=False).mean(axis=1)
    table[PAPER_SCORE] = combine(table["nca"], table["gradient_ratio"], invert=inverted)
    table[COMBINED] = combine(table["nca"], table[ratio], invert=inverted)
    table["rank"] = pd.array([pd.NA] * len(table), dtype="Int64")
    table["gap"], table["order"] = np.nan, "undetermined"
    if kind == "mixed" or len(table) < MIN_CANDIDATES:
        table[[COMBINED, PAPER_SCORE]] = np.nan
        reason = f"it needs {MIN_CANDIDATES} candidates of one architecture, or of one pre-training"
        if "architecture" in table:
            kinds = table["architecture"].value_counts().items()
            reason += f"; here are {', '.join(f'{count} of {name}' for name, count in kinds)}"
    else:
        reason = _undetermined(table, ("nca", ratio))
    if reason:
        return table.sort_values(FEATURE_RANK, kind="stable"), reason
    tied = table[COMBINED].duplicated(keep=False)
    table["rank"] = table[COMBINED].rank(ascending=False, method="min").astype("Int64")
    table["order"] = np.where(tied, "undetermined", "determined")
    table = table.sort_values(COMBINED, ascending=False, kind="stable")
    table["gap"] = table[COMBINED].diff(-1)
    worst = "highest" if inverted else "lowest"
    zero = f"A combined score of 0 means the {worst} here in NCA or gradient ratio, whatever the other, not worthless"
    return table, f"{zero}; the last are tied" if tied.any() else zero


def _undetermined(table: pd.DataFrame, terms: Sequence[str]) -> str:
    """Why the combined score of enough candidates gives no order; empty where it does."""
    for term in terms:
        if table[term].isna().any():
            return f"{term} is not defined for every source"
        if table[term].nunique() < 2:
            return f"{term} is the same for every source"
    if not (table[COMBINED] > 0).any():
        return "every source is last in one of the two terms"
    tied = table["source"][table[COMBINED].duplicated(keep=False) & (table[COMBINED] > 0)]
    return f"{', '.join(tied)} have the same combined score" if len(tied) else ""


def _warnings(members: Sequence[Scored]) -> list[str]:
    """Warn where the gradient ratio as published cannot be compared, since it depends on how a network is written."""
    warnings = []
    for what, key in (
        ("images normalised otherwise", "normalisation"),
        ("networks without batch norm beside networks with it", "batch_norm"),
    ):
        kinds = [getattr(one, key) for one in members]
        if len(set(kinds)) > 1:
            rare = min(kinds, key=kinds.count)
            names = ", ".join(one.name for one, kind in zip(members, kinds, strict=True) if kind == rare)
            form = "the gradient ratio in the paper's form depends on that, the scale-invariant one does not"
            warnings.append(f"{what} ({names}): {form}")
    return warnings


def agreement(candidates: CandidateSet) -> pd.DataFrame:
    """Each score's first choice in a candidate set, and Kendall's τ of its order with the others'.

    Returns
    -------
    pandas.DataFrame
        One row per score: ``method``, ``first`` (the source it puts first), ``sources`` (how many it is defined for)
        and ``tau`` (mean over the other scores but for those of `NO_VOTE`, -1 to 1; NaN for fewer than three sources).
        Scores that are not defined for two sources, or the same for all, are left out. Among architectures the paper's
        scores are inverted, as in `companion.evaluation`.
    """
    block = candidates.table.set_index("source")
    inverted = (*INVERTED_ACROSS_DOMAINS, SCALE_INVARIANT) if candidates.kind == "architectures" else ()
    names = [name for name in (COMBINED, PAPER_SCORE, *REGISTRY) if name in block]
    values = block[[name for name in names if block[name].nunique() > 1]].astype(float)
    values = values.mul([-1 if name in inverted else 1 for name in values])
    taus = values.corr(method="kendall", min_periods=3)
    taus = taus.mask(np.eye(len(taus), dtype=bool)).drop(columns=list(NO_VOTE), errors="ignore").mean(axis=1)
    rows = [(name, one.idxmax(), int(one.notna().sum()), taus[name]) for name, one in values.items()]
    return pd.DataFrame(rows, columns=["method", "first", "sources", "tau"])
