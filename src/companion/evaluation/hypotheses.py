"""Tests of the hypotheses of the second replication: quantities, intervals and rules as its plan fixes them.

Every quantity is one number per target; its interval is Student's for the mean over targets. The rules stand on the
page "What was decided before the second replication"; this module applies them, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from companion import published
from companion.evaluation.agreement import weighted_tau
from companion.evaluation.baselines import BASELINES, baselines
from companion.scores import COMBINED, combine, min_max

RANDOM, POOLED, MATCHED = "scratch", "leave-target-out", "leave-target-out-matched"
IMAGENET = "imagenet_mobilenet_v2"
NATURAL = (IMAGENET, "inat2017_birds_mobilenet_v2", "inat2017_insects_mobilenet_v2", "tiny_imagenet")
RELEASED = NATURAL[:3]
MEDICAL = ("ham10000", "odir_fundus", "covid_ct", "kidney_ct", "mednist_64", "pneumoniamnist")
LARGEST_MEDICAL = "pneumoniamnist"
MARGIN = 0.2  # of τ_w, within which size does not matter
MIN_TARGETS = 5
SUPPORTED, CONTRADICTED, UNDECIDED, NOT_JUDGED = "supported", "contradicted", "undecided", "not judged"
INVARIANT = "gradient_ratio_scale_invariant"
PROPOSED_INVARIANT = "proposed, scale-invariant ratio"
RANKS, PRODUCT = "mean of the ranks by proposed score and elsewhere", "LogME × NCA × gradients"


def interval(values: ArrayLike, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Student's interval for the mean over targets.

    Parameters
    ----------
    values
        (…, targets): one number per target, its noise over folds included; at least two.
    level
        Between 0 and 1.

    Returns
    -------
    low, high : numpy.ndarray
        (…,). It speaks of targets like these, since the spread between them is what it is made of; sources are fixed.
    """
    given = np.asarray(values, dtype=float)
    half = _half_width(given.std(-1, ddof=1), given.shape[-1], level)
    return given.mean(-1) - half, given.mean(-1) + half


def _half_width(deviation: ArrayLike, count: ArrayLike, level: float = 0.95) -> np.ndarray:
    from scipy.stats import t

    return t.ppf((1 + level) / 2, np.subtract(count, 1)) * deviation / np.sqrt(count)


def quantities(truth: pd.DataFrame, scores: pd.DataFrame) -> dict[tuple[str, str], pd.Series]:
    """Compute every judged quantity of the plan.

    Parameters
    ----------
    truth
        One row per (source, target, fold) with ``auc``, as `companion.replication.select` returns it; complete folds
        only.
    scores
        One row per (source, target) with ``training_images`` and the scores, means over the same folds, NCTI combined
        within the target.

    Returns
    -------
    dict
        (statement, quantity) -> number per target; NaN where it is not defined on a target.
    """
    by_fold = truth.pivot_table(index=["target", "source"], columns="fold", values="auc")
    auc = by_fold.mean(axis=1).unstack("source")
    folds = {target: block.droplevel("target") for target, block in by_fold.groupby(level="target")}
    single = auc.reindex(columns=list(MEDICAL))
    found = {
        ("1", "released natural sources minus random weights"): auc[list(RELEASED)].mean(axis=1)
        - auc[RANDOM],
        ("1", "single medical sources minus random weights"): single.mean(axis=1) - auc[RANDOM],
        ("2", "ImageNet minus the mean of the single medical sources"): auc[IMAGENET] - single.mean(axis=1),
        ("2", "ImageNet minus the best single medical source, chosen on the other folds"): pd.Series(
            {target: _against_best(block) for target, block in folds.items()}
        ),
        ("3a", "matched pool minus the largest single medical source"): auc[MATCHED] - auc[LARGEST_MEDICAL],
        ("3b", "whole pool minus matched pool"): auc[POOLED] - auc[MATCHED],
    }
    taus = _taus(auc, scores)
    for title, column in (("all sources", "size"), ("without the natural ones", "size, not natural")):
        found["4", f"τ_w of training images, {title}"] = taus[column]
    features = [name for name in published.METRICS if name in taus]
    found["5", "proposed minus the mean of the feature scores"] = taus[COMBINED] - taus[features].mean(axis=1)
    for name in [*features, *(name for name in BASELINES if name in taus)]:
        found["5, compared", f"proposed minus {name}"] = taus[f"proposed beside {name}"] - taus[name]
    found["6", "product minus NCA alone"] = taus[COMBINED] - taus["nca"]
    found["6", "product with the scale-invariant ratio minus NCA alone"] = (
        taus[PROPOSED_INVARIANT] - taus["nca"]
    )
    for name in (RANKS, PRODUCT):
        for ratio in ("", ", scale-invariant"):
            found["8", f"{name}{ratio} minus proposed"] = taus[f"{name}{ratio}"] - taus[COMBINED]
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

    Parameters
    ----------
    scores
        As for `quantities`.
    auc
        Targets by sources.
    """
    truth = auc.stack().rename("auc").reset_index()
    frame = scores.merge(truth, on=["source", "target"])
    frame = frame[(frame["source"] != RANDOM) & (frame["source"] != frame["target"])].reset_index(drop=True)
    named = frame.replace({"source": {IMAGENET: "imagenet"}})
    frame = frame.join(baselines(named).drop(columns=["source", "target", "auc"]))
    for _, block in frame.groupby("target"):
        at = block.index
        for suffix, ratio, title in (
            ("", "gradient_ratio", COMBINED),
            (", scale-invariant", INVARIANT, PROPOSED_INVARIANT),
        ):
            frame.loc[at, title] = combine(block["nca"], block[ratio])
            ranks = frame.loc[at, title].rank(), block["mean_rank_elsewhere"].rank()
            frame.loc[at, f"{RANKS}{suffix}"] = (ranks[0] + ranks[1]) / 2
            frame.loc[at, f"{PRODUCT}{suffix}"] = min_max(block["logme"]) * frame.loc[at, title]
    return frame


def _taus(auc: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """τ_w per target: of every score, and of the proposed one on the sources that another score has."""
    frame = with_combinations(scores, auc)
    compared = [name for name in (*published.METRICS, *BASELINES) if name in frame]
    extra = {f"proposed beside {name}": frame[COMBINED].where(frame[name].notna()) for name in compared}
    extra["size"] = frame["training_images"]
    extra["size, not natural"] = frame["training_images"].where(~frame["source"].isin(NATURAL))
    combinations = [title + suffix for title in (RANKS, PRODUCT) for suffix in ("", ", scale-invariant")]
    columns = [*compared, "nca", *combinations, COMBINED, PROPOSED_INVARIANT]
    return weighted_tau(frame[["source", "target", "auc", *columns]].assign(**extra))


def word(values: np.ndarray, statement: str) -> str:
    """Apply the plan's rule to one quantity: supported, contradicted, undecided or not judged."""
    if len(values) < 2:
        return NOT_JUDGED
    low, high = interval(values)
    if statement == "4":
        if -MARGIN <= low and high <= MARGIN:
            return SUPPORTED
        return CONTRADICTED if low > MARGIN or high < -MARGIN else UNDECIDED
    return SUPPORTED if low > 0 else CONTRADICTED if high < 0 else UNDECIDED


def targets_needed(values: np.ndarray, most: int = 1000) -> float:
    """Targets with which the half width of the interval falls below the effect seen; infinite above `most`."""
    counts = np.arange(2, most + 1)
    enough = counts[_half_width(values.std(ddof=1), counts) < abs(values.mean())]
    return float(enough[0]) if len(enough) else np.inf


def judge(found: Mapping[tuple[str, str], pd.Series]) -> pd.DataFrame:
    """Give every quantity its effect, its interval, and only then its word.

    Parameters
    ----------
    found
        As `quantities` returns it.

    Returns
    -------
    pandas.DataFrame
        One row a quantity: ``statement``, ``quantity``, ``value`` (mean over targets), ``low``, ``high`` (95 %),
        ``targets``, ``word``, ``least``, ``most`` (mean without one target), ``stable`` (whether the word is the same
        without each single target), ``needed`` (targets that would decide), ``p`` (paired t-test, adjusted by Holm's
        method within the comparisons of statement 5; NaN elsewhere).
    """
    from scipy.stats import ttest_1samp

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
            row["needed"] = targets_needed(values) if row["word"] == UNDECIDED else np.nan
            row["p"] = ttest_1samp(values, 0).pvalue if statement == "5, compared" else np.nan
        rows.append(row)
    columns = ["statement", "quantity", "value", "low", "high", "targets", "word"]
    table = pd.DataFrame(rows).reindex(columns=[*columns, "least", "most", "stable", "needed", "p"])
    table["p"] = _holm(table["p"])
    compared = table["p"].notna()
    table.loc[compared & (table["p"] >= 0.05), "word"] = UNDECIDED
    return table


def _holm(values: pd.Series) -> pd.Series:
    known = values.dropna().sort_values()
    adjusted = (known * np.arange(len(known), 0, -1)).clip(upper=1).cummax()
    return adjusted.reindex(values.index)


def statements() -> pd.DataFrame:
    """What the stored replication says of the plan's statements, on its complete folds; see `judge`."""
    from companion import replication  # brings torch

    return judge(quantities(replication.ground_truth(), replication.pair_scores()))
