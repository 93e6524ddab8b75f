"""What is known from fine-tunings elsewhere: how good such orders were, and how the candidates themselves did."""

from __future__ import annotations

import functools

import numpy as np
import pandas as pd

from companion import evaluation, published, replication
from companion.evaluation import hypotheses
from companion.ranking.sets import FEATURE_SCORES, CandidateSet
from companion.scores import PAPER_SCORE

BASELINE = "imagenet_then_size"
# Architectures whose sources have a ground truth on other targets.
KNOWN = {
    "resnet18": lambda: published.table("source_datasets"),
    "mobilenet_v2": lambda: replication.ground_truth(),
}


def as_published(one: CandidateSet) -> bool:
    """Whether a candidate set is of the kind that the paper's ground truth speaks of, ImageNet among its sources."""
    if not one.ordered:
        return False
    known = published.table(one.kind)["source"]
    if one.kind == "architectures":
        return bool(one.table["architecture"].isin(known).all())
    sources = one.table["pretraining"]
    like_theirs = sources.isin(known) | sources.str.startswith("nothing")
    of_one = set(one.table["architecture"]) == {"resnet18"}
    return bool(of_one and like_theirs.all() and "imagenet" in set(sources))


@functools.cache
def published_worth(kind: str) -> str:
    """Sentence on the order by the paper's score and on the baseline in the published ground truth."""
    pairs = evaluation.published_pairs(kind)
    taus = evaluation.weighted_tau(pairs.drop(columns=["gradient_ratio", "nca"])).mean()
    line = (
        f"In the published ground truth ({kind.replace('_', ' ')}) the order by the paper's score had a mean "
        f"weighted τ of {taus[PAPER_SCORE]:.2f}, and the mean regret of its first choice was "
        f"{evaluation.regret(pairs, PAPER_SCORE).mean():.4f} AUC"
    )
    if kind == "architectures":
        highest = f"the highest mean τ was {taus.idxmax()}'s"
        return f"{line}. Both terms are inverted there, decided after the fact; {highest}."
    simple = pairs[["source", "target", "auc"]].join(evaluation.baselines(pairs)[BASELINE])
    tau = evaluation.weighted_tau(simple)[BASELINE].mean()
    imagenet = evaluation.regret(pairs, lambda rows: "imagenet").mean()
    return f"{line}; ImageNet first, then training-set size: τ {tau:.2f}, regret {imagenet:.4f}."


@functools.cache
def replicated(combined: bool, target: str) -> pd.DataFrame:
    """How orders did on the second replication's targets other than `target`.

    Returns
    -------
    pandas.DataFrame
        One row per way of ordering (``here``: the product with the scale-invariant ratio, or where not `combined` the
        mean rank by the scores of features; ``paper``; ``baseline``: ImageNet first, then number of training images):
        ``tau`` (mean weighted τ), ``regret`` (mean AUC that its first choice gives up), ``gain`` of the order here over
        this one in τ, with its 95 % interval over targets ``low`` and ``high``; ``targets``, ``sources`` and ``folds``.
    """
    truth = replication.ground_truth()
    truth = truth[truth["target"] != target]
    auc = truth.pivot_table(index="target", columns="source", values="auc")
    frame = hypotheses.with_combinations(replication.pair_scores(), auc)
    features = frame.groupby("target")[list(FEATURE_SCORES)].rank(ascending=False).mean(axis=1)
    frame["here"] = frame[hypotheses.PROPOSED_INVARIANT] if combined else -features
    frame["paper"], frame["baseline"] = frame[PAPER_SCORE], frame[BASELINE]
    ways = ["here", "paper", "baseline"]
    taus = evaluation.weighted_tau(frame[["source", "target", "auc", *ways]])
    rows = []
    for way in ways:
        gain = (taus["here"] - taus[way]).to_numpy()
        low, high = hypotheses.interval(gain)
        rows.append((taus[way].mean(), evaluation.regret(frame, way).mean(), gain.mean(), low, high))
    found = pd.DataFrame(rows, ways, ["tau", "regret", "gain", "low", "high"])
    return found.assign(targets=len(auc), sources=frame["source"].nunique(), folds=truth["fold"].nunique())


def elsewhere(one: CandidateSet, target: str) -> pd.DataFrame:
    """Candidates that were fine-tuned on other targets, in the published or the replicated ground truth.

    Returns
    -------
    pandas.DataFrame
        One row per known source: ``source``, ``elsewhere`` (mean rank by AUC among these over the other targets, 1 is
        best), ``here`` (rank by the order of `one`), ``mean`` of both, ``targets``; empty for fewer than two.
    """
    found = [pd.DataFrame(columns=["source", "elsewhere", "here", "mean", "targets"])]
    for architecture, block in one.table.groupby("architecture"):
        if architecture in KNOWN:
            found.append(_of_one_architecture(one, block, KNOWN[str(architecture)](), target))
    return max(found, key=len)


def _of_one_architecture(
    one: CandidateSet, block: pd.DataFrame, truth: pd.DataFrame, target: str
) -> pd.DataFrame:
    """Rows of `elsewhere` for candidates of one architecture; none for fewer than two."""
    sources = block["source"]
    # A file is known by its name, other sources by what they were trained on.
    names = sources.set_axis(sources.where(sources.isin(truth["source"]), block["pretraining"]))
    own = names.str.startswith("train:").to_numpy()  # models of one's own
    names = names[names.index.isin(truth["source"]) & ~names.index.duplicated() & ~own]
    if len(names) < 2:
        return pd.DataFrame()
    truth = truth[(truth["target"] != target) & (truth["source"] != truth["target"])]
    wide = truth.pivot_table(index="target", columns="source", values="auc")
    ranks = wide[list(names.index)].rank(axis=1, ascending=False)
    places = pd.Series(np.arange(1.0, len(one.advised) + 1), one.advised).reindex(names).rank()
    columns = {"source": names, "elsewhere": ranks.mean(), "here": places}
    found = pd.DataFrame({name: list(values) for name, values in columns.items()})
    found["mean"], found["targets"] = found[["elsewhere", "here"]].mean(axis=1), len(wide)
    return found.sort_values("mean", ignore_index=True)


def is_imagenet(pretraining: str) -> bool:
    """Whether a name of a pre-training, such as a checkpoint's stem or a tag of timm's, says ImageNet."""
    name = pretraining.lower().replace("radimagenet", "")
    return "imagenet" in name or "in1k" in name
