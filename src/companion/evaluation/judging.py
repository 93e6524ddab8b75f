"""What the stored replication says of each statement that was written down before it was run.

The rules stand on the page "What was decided before our replication". Three things are stricter here, decided after
the results were known; none of them makes support easier. A verdict must not rest on one target, so the value has to
keep its sign without each of them. An interval that includes 0 supports nothing: that an effect does not matter needs a
margin fixed in advance. And two scores are compared on the sources that have both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from companion import published
from companion.errors import InputError
from companion.evaluation.agreement import FEWEST
from companion.evaluation.intervals import mean_over_targets, tau_draws
from companion.scores import TERMS, combine

RANDOM, POOLED = "scratch", "leave-target-out"
MEDICAL = ("breastmnist", "pneumoniamnist", "retinamnist", "mednist_64")
SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "undecided"
_FEATURE_SCORES = tuple(name for name in published.METRICS if name != "ncti")
KEPT = 6  # of seven sources, where a statement is about their order


@dataclass(frozen=True)
class _Cell:
    """One target: everything as arrays of sources by folds, since thousands of redraws pass through."""

    sources: list[str]
    auc: np.ndarray
    scores: dict[str, np.ndarray]
    ncti_terms: np.ndarray  # sources by folds by three
    sizes: np.ndarray


def judge_statements(
    runs: pd.DataFrame,
    scores: pd.DataFrame,
    *,
    draws: int = 2000,
    seed: int = 24,
    rule: str = "lowest_val_loss",
) -> pd.DataFrame:
    """Apply the rules written down before the replication to its results.

    Parameters
    ----------
    runs, scores
        As `companion.replication.runs` and `companion.replication.scores` return them.
    draws, seed
        Resamples of folds within each target (and of six of the seven sources, where an order is judged), and their
        seed.
    rule
        How the truth is chosen from the runs; the one written down is the default.

    Returns
    -------
    pandas.DataFrame
        One row a quantity: statement, quantity, value, low and high (95 % percentile interval), least and most (of the
        values without one target), verdict of the statement.

    Raises
    ------
    InputError
        If pairs or folds are missing: a statement is judged on the whole replication or not at all.

    Notes
    -----
    The intervals resample the folds (three, in the stored replication) of sources trained once: they say nothing of
    other targets, nor of the same sources trained again, and percentile intervals over three folds cover less than
    95 %.
    """
    cells = _cells(runs, scores, rule)
    rng = np.random.default_rng(seed)
    itself, redrawn = _quantities(cells), _quantities(cells, rng, draws)
    rows = []
    for (statement, quantity), values in redrawn.items():
        known = mean_over_targets(values)
        known = known[np.isfinite(known)]
        low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (np.nan, np.nan)
        own = itself[statement, quantity]
        fewer = [mean_over_targets(np.delete(own, place, axis=0))[0] for place in range(len(own))]
        rows.append(
            {
                "statement": statement,
                "quantity": quantity,
                "value": mean_over_targets(own)[0],
                "low": low,
                "high": high,
                "least": np.min(fewer),
                "most": np.max(fewer),
            }
        )
    table = pd.DataFrame(rows)
    verdicts = {name: _VERDICTS[name](block) for name, block in table.groupby("statement")}
    table["verdict"] = table["statement"].map(verdicts)
    return table


def _above(block: pd.DataFrame) -> str:
    if (block[["low", "least"]] > 0).all(axis=None):
        return SUPPORTED
    return CONTRADICTED if (block[["high", "most"]] < 0).all(axis=1).any() else UNDECIDED


def _no_relation(block: pd.DataFrame) -> str:
    return CONTRADICTED if (block[["low", "least"]] > 0).all(axis=None) else UNDECIDED


HELPS = "Transfer helps"
SIZE = "Size of the source does not matter"
DIVERSITY = "Pooled beats the largest single set (not controlled for size)"
FEATURES = "NCA × gradients ranks better than features alone"
TRIVIAL = "NCA × gradients ranks better than trivial rules"
_VERDICTS: Mapping[str, Callable[[pd.DataFrame], str]] = {
    HELPS: _above,
    SIZE: _no_relation,
    DIVERSITY: _above,
    FEATURES: _above,
    TRIVIAL: _above,
}


def _cells(runs: pd.DataFrame, scores: pd.DataFrame, rule: str) -> dict[str, _Cell]:
    planned = runs.attrs.get("provenance", {}).get("runs")
    if planned and planned["stored"] < planned["planned"]:
        raise InputError(
            f"the replication has {planned['stored']} of {planned['planned']} runs: the statements are judged once it "
            "is complete"
        )
    from companion.replication import select  # brings torch

    truth = select(runs, rule)
    cells = {}
    for target, block in truth.groupby("target"):
        auc = block.pivot(index="source", columns="fold", values="auc")
        own = scores[scores["target"] == target]

        def wide(column: str, own: pd.DataFrame = own, auc: pd.DataFrame = auc) -> np.ndarray:
            found = own.pivot(index="source", columns="fold", values=column)
            return found.reindex(index=auc.index, columns=auc.columns).to_numpy(dtype=float)

        if auc.isna().any(axis=None) or np.isnan(wide("nca")).any():
            raise InputError(
                f"the replication lacks runs or scores of {target}: run  companion replicate  to the end"
            )
        cells[str(target)] = _Cell(
            list(auc.index),
            auc.to_numpy(),
            {name: wide(name) for name in (*_FEATURE_SCORES, *TERMS)},
            np.stack([wide(f"ncti_term_{number}") for number in (1, 2, 3)], axis=-1),
            wide("training_images")[:, 0],
        )
    return cells


def _quantities(
    cells: Mapping[str, _Cell], rng: np.random.Generator | None = None, draws: int = 1
) -> dict[tuple[str, str], np.ndarray]:
    """Every quantity, targets by draws: on the data themselves, or, with a generator, on so many resamples."""
    from companion.ranking import pooled_ncti

    folds, auc, ranks = {}, {}, {}
    for target, cell in cells.items():
        count = cell.auc.shape[1]
        folds[target] = np.arange(count)[None] if rng is None else rng.integers(count, size=(draws, count))
        auc[target] = cell.auc[:, folds[target]].mean(-1).T
        ranks[target] = rankdata(-auc[target], axis=1)
    result: dict[tuple[str, str], list[np.ndarray]] = {}

    def add(statement: str, quantity: str, values: np.ndarray) -> None:
        result.setdefault((statement, quantity), []).append(values)

    for target, cell in cells.items():
        own = auc[target]
        at = {source: place for place, source in enumerate(cell.sources)}
        random = np.array([source == RANDOM for source in cell.sources])
        add(
            HELPS,
            "AUC of the other sources less that of random weights",
            (own[:, ~random] - own[:, random]).mean(1),
        )
        largest = max((cell.sizes[at[name]], name) for name in MEDICAL if name in at)[1]
        add(
            DIVERSITY,
            "AUC of leave-target-out less that of the largest single medical source",
            own[:, at[POOLED]] - own[:, at[largest]],
        )
        everyone = np.tile(np.arange(len(at)), (len(own), 1))
        kept = everyone if rng is None else np.sort(rng.permuted(everyone, axis=1)[:, :KEPT], axis=1)
        truth = np.take_along_axis(own, kept, axis=1)

        def of_kept(values: np.ndarray, kept: np.ndarray = kept) -> np.ndarray:
            return np.take_along_axis(np.broadcast_to(values, (len(kept), values.shape[-1])), kept, axis=1)

        def order(
            values: np.ndarray, counted: np.ndarray | None = None, truth: np.ndarray = truth
        ) -> np.ndarray:
            """τ_w against the truth; a source without the score, or not counted, is left out."""
            there = np.isfinite(values) if counted is None else np.isfinite(values) & counted
            found = tau_draws(np.nan_to_num(values), truth, there.astype(float))
            return np.where(there.sum(axis=-1) >= FEWEST, found, np.nan)

        drawn = {name: of_kept(found[:, folds[target]].mean(-1).T) for name, found in cell.scores.items()}
        terms = np.take_along_axis(
            cell.ncti_terms[:, folds[target]].mean(2).swapaxes(0, 1), kept[..., None], axis=1
        )
        drawn["ncti"] = np.stack([pooled_ncti(one) for one in terms])
        both = zip(*(drawn[term] for term in TERMS), strict=True)
        ours = np.stack([np.asarray(combine(*pair)) for pair in both])
        add(SIZE, "τ_w of training images against AUC", order(of_kept(cell.sizes), ~of_kept(random)))
        for metric in published.METRICS:
            there = np.isfinite(drawn[metric])
            less = order(ours, there) - order(drawn[metric])
            add(FEATURES, f"τ_w of the proposed score less that of {metric}", less)
        add(
            TRIVIAL,
            "τ_w of the proposed score less that of training images",
            order(ours) - order(of_kept(cell.sizes)),
        )
        elsewhere = -of_kept(_mean_rank_elsewhere(target, cell.sources, cells, ranks))
        add(
            TRIVIAL,
            "τ_w of the proposed score less that of the mean rank elsewhere",
            order(ours) - order(elsewhere),
        )
    return {key: np.stack(values) for key, values in result.items()}


def _mean_rank_elsewhere(
    target: str, sources: list[str], cells: Mapping[str, _Cell], ranks: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Mean AUC rank of each source over the other targets, in every redraw: (draws, sources)."""
    columns = []
    for source in sources:
        there = [name for name, cell in cells.items() if name != target and source in cell.sources]
        columns.append(np.mean([ranks[name][:, cells[name].sources.index(source)] for name in there], axis=0))
    return np.stack(columns, axis=1)
