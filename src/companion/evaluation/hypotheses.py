"""Tests of the hypotheses of the second replication: quantities, intervals and rules as its plan fixes them.

Every quantity is one number per target; its interval is Student's for the mean over targets. The rules stand on the
page "What was decided before the second replication"; this module applies them, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import scipy.stats

from companion import published
from companion.evaluation.agreement import weighted_tau
from companion.evaluation.baselines import BASELINES, baselines
from companion.evaluation.intervals import half_width, interval
from companion.scores import PAPER_SCORE, combine, min_max

__all__ = ["interval", "judge", "quantities", "statements", "targets_needed", "with_combinations", "word"]

RANDOM, POOLED, MATCHED = "scratch", "leave-target-out", "leave-target-out-matched"
IMAGENET = "imagenet_mobilenet_v2"
NATURAL = (IMAGENET, "inat2017_birds_mobilenet_v2", "inat2017_insects_mobilenet_v2", "tiny_imagenet")
RELEASED = NATURAL[:3]
MEDICAL = ("ham10000", "odir_fundus", "covid_ct", "kidney_ct", "mednist_64", "pneumoniamnist")
LARGEST_MEDICAL = "pneumoniamnist"
MARGIN = 0.2  # of τ_w, within which size does not matter
MIN_TARGETS = 5
SUPPORTED, CONTRADICTED, UNDECIDED, NOT_JUDGED = "supported", "contradicted", "undecided", "not judged"
RANKS, PRODUCT = "mean of the ranks by proposed score and elsewhere", "LogME × NCA × gradients"
# Suffix of a combination -> the form of the gradient ratio that it is made of.
RATIOS = {"": "gradient_ratio", ", scale-invariant": "gradient_ratio_scale_invariant"}
PROPOSED_INVARIANT = "proposed, scale-invariant ratio"
COMBINATIONS = [title + suffix for title in (RANKS, PRODUCT) for suffix in RATIOS]


def quantities(truth: pd.DataFrame, scores: pd.DataFrame) -> dict[tuple[str, str], pd.Series]:
    """Compute every judged quantity of the plan: (statement, quantity) -> number per target, NaN where undefined.

    `truth` has one row per (source, target, fold) with ``auc``, as `companion.replication.select` returns it, complete
    folds only; `scores` one per (source, target) with ``training_images`` and the scores, means over the same folds,
    NCTI combined within the target.
    """
    by_fold = truth.pivot_table(index=["target", "source"], columns="fold", values="auc")
    auc = by_fold.mean(axis=1).unstack("source")
    medical = auc.reindex(columns=list(MEDICAL)).mean(axis=1)
    natural = auc[list(RELEASED)].mean(axis=1)
    against_best = by_fold.groupby(level="target").apply(
        lambda folds: _against_best(folds.droplevel("target"))
    )
    found = {
        ("1", "released natural sources minus random weights"): natural - auc[RANDOM],
        ("1", "single medical sources minus random weights"): medical - auc[RANDOM],
        ("2", "ImageNet minus the mean of the single medical sources"): auc[IMAGENET] - medical,
        ("2", "ImageNet minus the best single medical source, chosen on the other folds"): against_best,
        ("3a", "matched pool minus the largest single medical source"): auc[MATCHED] - auc[LARGEST_MEDICAL],
        ("3b", "whole pool minus matched pool"): auc[POOLED] - auc[MATCHED],
    }
    taus = _taus(with_combinations(scores, auc))
    proposed = taus[PAPER_SCORE]
    features = [name for name in published.METRICS if name in taus]
    found["4", "τ_w of training images, all sources"] = taus["size"]
    found["4", "τ_w of training images, without the natural ones"] = taus["size, not natural"]
    found["5", "proposed minus the mean of the feature scores"] = proposed - taus[features].mean(axis=1)
    for name in [*features, *(name for name in BASELINES if name in taus)]:
        found["5, compared", f"proposed minus {name}"] = taus[f"proposed beside {name}"] - taus[name]
    found["6", "product minus NCA alone"] = proposed - taus["nca"]
    invariant = taus[PROPOSED_INVARIANT] - taus["nca"]
    found["6", "product with the scale-invariant ratio minus NCA alone"] = invariant
    for name in COMBINATIONS:
        found["8", f"{name} minus proposed"] = taus[name] - proposed
    return found


def _against_best(folds: pd.DataFrame) -> float:
    """ImageNet minus the medical source that is best on the other folds, mean over the folds of one target."""
    medical = folds.reindex(list(MEDICAL)).dropna()
    if folds.shape[1] < 2:
        return np.nan
    best = {fold: medical.drop(columns=fold).mean(axis=1).idxmax() for fold in folds}
    return float(np.mean([folds.at[IMAGENET, fold] - folds.at[best[fold], fold] for fold in folds]))


def with_combinations(scores: pd.DataFrame, auc: pd.DataFrame) -> pd.DataFrame:
    """Rows of the pre-trained sources with AUC, the proposed score in both forms, the baselines and statement 8's two.

    `scores` is as for `quantities`; `auc` is targets by sources.
    """
    frame = scores.merge(auc.stack().rename("auc").reset_index(), on=["source", "target"])
    frame = frame[(frame["source"] != RANDOM) & (frame["source"] != frame["target"])].reset_index(drop=True)
    named = frame.replace({"source": {IMAGENET: "imagenet"}})
    frame = frame.join(baselines(named).drop(columns=["source", "target", "auc"]))
    for _, block in frame.groupby("target"):
        at, elsewhere = block.index, block["mean_rank_elsewhere"].rank()
        for suffix, ratio in RATIOS.items():
            proposed = pd.Series(combine(block["nca"], block[ratio]), at)
            frame.loc[at, PROPOSED_INVARIANT if suffix else PAPER_SCORE] = proposed
            frame.loc[at, f"{RANKS}{suffix}"] = (proposed.rank() + elsewhere) / 2
            frame.loc[at, f"{PRODUCT}{suffix}"] = min_max(block["logme"]) * proposed
    return frame


def _taus(frame: pd.DataFrame) -> pd.DataFrame:
    """τ_w per target: of every score, and of the proposed one on the sources that another score has."""
    compared = [name for name in (*published.METRICS, *BASELINES) if name in frame]
    extra = {f"proposed beside {name}": frame[PAPER_SCORE].where(frame[name].notna()) for name in compared}
    extra["size"] = frame["training_images"]
    extra["size, not natural"] = frame["training_images"].where(~frame["source"].isin(NATURAL))
    columns = [*compared, "nca", *COMBINATIONS, PAPER_SCORE, PROPOSED_INVARIANT]
    return weighted_tau(frame[["source", "target", "auc", *columns]].assign(**extra))


def word(values: np.ndarray, statement: str) -> str:
    """Apply the plan's rule to one quantity: supported, contradicted, undecided or not judged."""
    if len(values) < 2:
        return NOT_JUDGED
    low, high = interval(values)
    if statement == "4":  # size does not matter
        if -MARGIN <= low and high <= MARGIN:
            return SUPPORTED
        return CONTRADICTED if low > MARGIN or high < -MARGIN else UNDECIDED
    return SUPPORTED if low > 0 else CONTRADICTED if high < 0 else UNDECIDED


def targets_needed(values: np.ndarray, margin: float = 0.0, most: int = 1000) -> float:
    """Targets with which an interval about the mean seen lies on one side of ± `margin`; infinite above `most`."""
    counts = np.arange(2, most + 1)
    enough = counts[half_width(values.std(ddof=1), counts) < abs(abs(values.mean()) - margin)]
    return float(enough[0]) if len(enough) else np.inf


def judge(found: Mapping[tuple[str, str], pd.Series]) -> pd.DataFrame:
    """Give every quantity, as `quantities` returns them, its effect, its interval, and only then its word.

    One row a quantity: ``statement``, ``quantity``, ``value`` (mean over targets), ``low``, ``high`` (95 %),
    ``targets``, ``word``, ``least``, ``most`` (mean without one target), ``stable`` (whether the word is the same
    without each single target), ``needed`` (targets that would decide), ``p`` (paired t-test, adjusted by Holm's method
    within the comparisons of statement 5; NaN elsewhere).
    """
    rows = []
    for (statement, quantity), per_target in found.items():
        values = per_target.dropna().to_numpy()
        row = {"statement": statement, "quantity": quantity, "targets": len(values), "word": NOT_JUDGED}
        if len(values) >= MIN_TARGETS:
            low, high = interval(values)
            without = [np.delete(values, place) for place in range(len(values))]
            means = [part.mean() for part in without]
            row |= {"value": values.mean(), "low": float(low), "high": float(high)}
            row |= {"least": min(means), "most": max(means), "word": word(values, statement)}
            row["stable"] = all(word(part, statement) == row["word"] for part in without)
            margin = MARGIN if statement == "4" else 0.0
            row["needed"] = targets_needed(values, margin) if row["word"] == UNDECIDED else np.nan
            row["p"] = scipy.stats.ttest_1samp(values, 0).pvalue if statement == "5, compared" else np.nan
        rows.append(row)
    columns = ["statement", "quantity", "value", "low", "high", "targets", "word"]
    table = pd.DataFrame(rows).reindex(columns=[*columns, "least", "most", "stable", "needed", "p"])
    ordered = table["p"].dropna().sort_values()  # Holm's method
    table["p"] = (ordered * np.arange(len(ordered), 0, -1)).clip(upper=1).cummax().reindex(table.index)
    table.loc[table["p"] >= 0.05, "word"] = UNDECIDED
    return table


def statements() -> pd.DataFrame:
    """What the stored replication says of the plan's statements, on its complete folds; see `judge`."""
    from companion import replication  # brings torch

    return judge(quantities(replication.ground_truth(), replication.pair_scores()))
