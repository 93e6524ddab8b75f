"""How each number of the claims file is recomputed: one small function a quantity, by name.

A measure returns one number. It raises `EnvironmentFailure` or `InputError` where what it needs is not available (the
authors' fine-tuning runs, a complete replication); the claim then counts as not attempted, with that reason.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy.stats import friedmanchisquare, ttest_rel

from claims import synthetic
from companion import evaluation, published
from companion.errors import InputError
from companion.evaluation.agreement import friedman, published_pairs, regret, weighted_tau
from companion.evaluation.baselines import baselines
from companion.evaluation.ceiling import GROUND_TRUTHS, ground_truths, partial_grids
from companion.evaluation.intervals import bootstrap
from companion.scores import PAPER_SCORE, TERMS, combine, with_combined

SIMILARITY = ["overlap", "cka", "separation"]  # of a representation to that after fine-tuning, by notebook 03
SEVEN = (*published.METRICS, PAPER_SCORE)
ROUNDING = 0.0005 + 1e-9  # half a unit of the third decimal, the last printed, and the last bit of a sum

MEASURES: dict[str, Callable[..., float]] = {}


def _measure(function: Callable[..., float]) -> Callable[..., float]:
    MEASURES[function.__name__] = function
    return function


@functools.cache
def _taus(setting: str, inverted: bool | None = None) -> pd.DataFrame:
    return weighted_tau(_replication() if setting == "replication" else setting, inverted=inverted)


@functools.cache
def _replication() -> pd.DataFrame:
    from companion import replication  # brings torch

    return replication.table().drop(columns=["auc_sd", "folds"])


@functools.cache
def _pairs(setting: str) -> pd.DataFrame:
    return published_pairs(setting)


def _scored(setting: str) -> pd.DataFrame:
    """Rows that have scores, source == target included."""
    table = published.table(setting)
    return table[table["logme"].notna()].reset_index(drop=True)


# --- weighted tau and what it is tested for -----------------------------------------------------------------


@_measure
def mean_tau(setting: str, score: str, inverted: bool | None = None) -> float:
    """Mean τ_w of a score over the targets of a published setting, or of our replication."""
    return _taus(setting, inverted)[score].mean()


@_measure
def agreeing_cells(setting: str) -> float:
    """Cells of the published τ_w table (targets by scores and terms) that the released tables give."""
    count = 0
    for row in published.expected("weighted_tau"):
        if row["setting"] == setting and row["target"] != "mean":
            found = _taus(setting).loc[row["target"], row["metric"]]
            printed = float(row["value"] or "nan")
            count += bool(abs(found - printed) <= ROUNDING or (np.isnan(found) and np.isnan(printed)))
    return count


@_measure
def lead(setting: str, over: Sequence[str] = published.METRICS, inverted: bool | None = None) -> float:
    """Mean τ_w of the proposed score less the highest of the scores named."""
    means = _taus(setting, inverted).mean()
    return means[PAPER_SCORE] - means[list(over)].max()


@_measure
def trails(setting: str, score: str) -> float:
    """Mean τ_w of a score less that of the proposed one."""
    means = _taus(setting).mean()
    return means[score] - means[PAPER_SCORE]


@_measure
def targets_led(setting: str) -> float:
    """Targets on which the proposed score has the highest τ_w of the seven scores."""
    return (_taus(setting)[list(SEVEN)].idxmax(axis=1) == PAPER_SCORE).sum()


@functools.cache
def _differences(setting: str) -> pd.DataFrame:
    table = _pairs(setting)[["source", "target", "auc", *SEVEN]]
    return bootstrap(table).differences


@_measure
def undecided_against(setting: str) -> float:
    """Published scores whose paired bootstrap interval of the difference to the proposed one includes 0."""
    found = _differences(setting)
    return ((found["low"] <= 0) & (found["high"] >= 0)).sum()


@_measure
def friedman_quantity(setting: str, quantity: str, without: Sequence[str] = ()) -> float:
    """χ² or p of Friedman's test over the ranks of the seven scores."""
    if without:
        table = _pairs(setting)[["source", "target", "auc", *SEVEN]]
        return getattr(friedman(weighted_tau(table[~table["source"].isin(without)])), quantity)
    return getattr(friedman(_taus(setting)), quantity)


def released_architecture_ranks() -> pd.DataFrame:
    """The released rank table of the architectures, rebuilt with what is wrong in it.

    LogME and NCTI are exchanged on dermamnist, and tissuemnist is ranked by the absolute value of τ_w.
    """
    taus = _taus("architectures")[list(SEVEN)]
    ranks = taus.rank(axis=1, ascending=False)
    ranks.loc["dermamnist", ["logme", "ncti"]] = ranks.loc["dermamnist", ["ncti", "logme"]].to_numpy()
    ranks.loc["tissuemnist"] = taus.loc["tissuemnist"].abs().rank(ascending=False)
    return ranks


@_measure
def released_ranks_p() -> float:
    """P of Friedman's test on the released rank table of the architectures."""
    ranks = released_architecture_ranks()
    return friedmanchisquare(*(ranks[column] for column in ranks)).pvalue


@_measure
def wrong_rank_cells() -> float:
    """Cells of the released rank table that do not follow from the τ_w values."""
    right = _taus("architectures")[list(SEVEN)].rank(axis=1, ascending=False)
    return (released_architecture_ranks() != right).to_numpy().sum()


# --- the released tables --------------------------------------------------------------------------------------


@_measure
def first_on_itself(score: str) -> float:
    """Targets that a score puts first among the sources for themselves; ties count."""
    table = _scored("source_datasets")
    best = table.groupby("target")[score].transform("max")
    return ((table[score] >= best) & (table["source"] == table["target"])).sum()


@_measure
def widest_first() -> float:
    """Targets on which LogME puts VGG, whose 4096 features are the most, first among the architectures."""
    table = published.table("architectures")
    return (table.loc[table.groupby("target")["logme"].idxmax(), "source"] == "vgg").sum()


@_measure
def ncti_above(limit: float) -> float:
    """Cells of the source-dataset table in which NCTI exceeds what two min-max terms less a third can give."""
    return (_scored("source_datasets")["ncti"] > limit).sum()


@_measure
def sfda_saturated(setting: str, itself: bool = True) -> float:
    """Cells in which SFDA is exactly 1, with or without source == target."""
    table = _scored(setting)
    kept = table if itself else table[table["source"] != table["target"]]
    return (kept["sfda"] == 1).sum()


@_measure
def sfda_spread(target: str) -> float:
    """Largest less smallest SFDA over the sources of a target."""
    table = _pairs("source_datasets")
    return np.ptp(table.loc[table["target"] == target, "sfda"])


@_measure
def differing_scores() -> float:
    """Scores of an ImageNet ResNet-18 that differ between the two tables; NCTI, which depends on the pool, aside."""
    one = _scored("source_datasets").query("source == 'imagenet'").set_index("target")
    other = published.table("architectures").query("source == 'resnet'").set_index("target")
    columns = [name for name in (*published.METRICS, *TERMS) if name != "ncti"]
    return ((one[columns] - other[columns]).abs() > 1e-6).any().sum()


@_measure
def changed_by_itself() -> float:
    """Targets whose combined scores change when the cell source == target is left out of the min-max."""
    table = _pairs("source_datasets")
    return sum(
        not np.allclose(combine(rows["nca"], rows["gradient_ratio"]), rows[PAPER_SCORE], rtol=0, atol=1e-9)
        for _, rows in table.groupby("target")
    )


@_measure
def imagenet_first() -> float:
    """Targets on which the proposed score chooses ImageNet."""
    table = _pairs("source_datasets")
    return (table.loc[table.groupby("target")[PAPER_SCORE].idxmax(), "source"] == "imagenet").sum()


@_measure
def mean_regret(choose: str = PAPER_SCORE) -> float:
    """Mean regret of a score's first choice, or of always taking a source named ``source:NAME``."""
    table = _pairs("source_datasets")
    if choose.startswith("source:"):
        return regret(table, lambda _: choose.removeprefix("source:")).mean()
    return regret(table, choose).mean()


@_measure
def without_large(score: str) -> float:
    """Mean τ_w without the three large sources ImageNet, RadImageNet and pooled MedMNIST."""
    table = _pairs("source_datasets")
    small = table[~table["source"].isin(published.LARGE)]
    return weighted_tau(small[["source", "target", "auc", score]])[score].mean()


@functools.cache
def sized_pairs() -> pd.DataFrame:
    """Published pairs of source datasets with the baselines, training-set size among them."""
    table = published.table("source_datasets")
    table = table[
        table["auc"].notna() & (table["source"] != table["target"]) & (table["target"] != "chestmnist")
    ]
    return baselines(table)


@_measure
def size_against_auc(column: str = "training_set_size", without: Sequence[str] = ()) -> float:
    """Mean τ_w of the number of training images against AUC."""
    table = sized_pairs()
    kept = table.loc[~table["source"].isin(without), ["source", "target", "auc", column]]
    return weighted_tau(kept)[column].mean()


@_measure
def size_interval_low() -> float:
    """Lower end of the 95 % bootstrap interval, over sources, of the mean τ_w of size against AUC."""
    table = sized_pairs()[["source", "target", "auc", "training_set_size"]]
    return bootstrap(table, against=None).mean.loc["training_set_size", "low"]


@_measure
def no_relation_to_size() -> float:
    """-1 where the interval of the mean τ_w of size against AUC lies above 0, else 0: nothing here can support it."""
    return -1.0 if size_interval_low() > 0 else 0.0


@_measure
def auc_difference(one: str, other: str) -> float:
    """Mean AUC of one source less that of another over the targets where both are."""
    table = published.table("source_datasets")
    wide = table[table["target"] != "chestmnist"].pivot(index="target", columns="source", values="auc")
    return (wide[one] - wide[other]).mean()


@_measure
def auc_difference_p(one: str, other: str) -> float:
    """P of the paired t-test of two sources' AUCs over the targets where both are."""
    table = published.table("source_datasets")
    wide = table[table["target"] != "chestmnist"].pivot(index="target", columns="source", values="auc")
    return ttest_rel(*wide[[one, other]].dropna().to_numpy().T).pvalue


@_measure
def best_among(sources: Sequence[str]) -> float:
    """Targets on which one of the sources named has the highest AUC."""
    table = _pairs("source_datasets")
    return table.loc[table.groupby("target")["auc"].idxmax(), "source"].isin(sources).sum()


@_measure
def bound_on_itself(quantity: str) -> float:
    """What the product would say of the target itself if its own NCA term, which was not released, were the highest.

    ``imagenet_first``: targets on which ImageNet stays first; ``best_place``: the best place of a target itself.
    """
    table = _scored("source_datasets")
    itself = table["source"] == table["target"]
    table.loc[itself, "nca"] = 1.0
    table = with_combined(table)
    place = table.groupby("target")[PAPER_SCORE].rank(ascending=False)
    if quantity == "imagenet_first":
        return (place[table["source"] == "imagenet"] == 1).sum()
    return place[itself].min()


# --- other ground truths from the same runs ------------------------------------------------------------------------


@_measure
def tau_with_truth(truth: str, score: str) -> float:
    """Mean τ_w of a score against another summary of the runs."""
    return ground_truths().loc[score, GROUND_TRUTHS[truth]]


@_measure
def finished_runs(setting: str) -> float:
    """Finished fine-tuning runs that the summaries were made from."""
    table = published.table("run_summaries")
    return table.loc[table["setting"] == setting, "runs"].sum()


@_measure
def runs_behind_a_pair(quantity: str, source: str | None = None) -> float:
    """Finished runs behind a pair of architectures: the ``min``, ``max`` or ``median`` over the pairs."""
    table = published.table("run_summaries")
    kept = (table["setting"] == "architectures") & (table["source"].eq(source) if source else True)
    return getattr(table.loc[kept, "runs"], quantity)()


@_measure
def chosen_by_validation_loss() -> float:
    """Share of the AUCs of both tables that are those of the run with the lowest validation loss."""
    runs = published.table("run_summaries")
    both = pd.concat(
        [
            published.table(setting).merge(runs[runs["setting"] == setting], on=["source", "target"])
            for setting in published.SETTINGS
        ]
    )
    return np.isclose(both["auc"], both["auc_at_min_val_loss"], rtol=0, atol=1e-9).mean()


@functools.cache
def _runs() -> pd.DataFrame:
    return published.runs(download=False)


@_measure
def released_runs(setting: str, status: str | None = None) -> float:
    """Fine-tuning runs released, of a status or of any."""
    runs = _runs()
    kept = runs["setting"] == setting
    return (kept & (runs["status"] == status)).sum() if status else kept.sum()


@_measure
def settings_of_a_pair(setting: str) -> float:
    """Different settings of the grid that the released runs of a pair have, the most of any pair."""
    runs = _runs().query("setting == @setting")
    grid = runs.drop_duplicates(["source", "target", "lr", "momentum", "weight_decay", "batch_size"])
    return grid.groupby(["source", "target"]).size().max()


@_measure
def leads_in_partial_grids() -> float:
    """Share of 200 draws of 20 of the 120 settings in which the proposed score has the highest mean τ_w."""
    return (partial_grids(_runs()).idxmax(axis=1) == PAPER_SCORE).mean()


# --- synthetic features ---------------------------------------------------------------------------------------


@_measure
def logme_excess(width: int) -> float:
    """LogME of synthetic noise as published less corrected."""
    return synthetic.logme_on_noise(width, "published") - synthetic.logme_on_noise(width, "corrected")


@_measure
def nca_noise(variant: str) -> float:
    """NCA score of synthetic noise of two classes."""
    return synthetic.nca_on_noise(variant)


@_measure
def nca_excess() -> float:
    """NCA score of synthetic noise as published less with the point itself left out."""
    return synthetic.nca_on_noise("published") - synthetic.nca_on_noise("corrected")


@_measure
def rewritten_ratio(variant: str, factor: float) -> float:
    """Gradient ratio of a network whose first weights are multiplied, batch norm undoing it, over that before."""
    from companion.models import scratch
    from companion.scores import gradient_ratio

    model = scratch("resnet18", seed=0)
    generator = np.random.default_rng(0)
    labels = np.arange(36) % 3
    images = (generator.integers(0, 200, (36, 32, 32)) + 20 * labels[:, None, None]).astype(np.uint8)
    before = gradient_ratio(model, images, labels, variant=variant)
    state = model.backbone.state_dict()  # its tensors are the network's own
    for name in ("conv1.weight", "bn1.running_mean"):
        state[name] *= factor
    epsilon = 1e-5
    state["bn1.running_var"].add_(epsilon).mul_(factor**2).sub_(epsilon)
    return gradient_ratio(model, images, labels, variant=variant) / before


@_measure
def nleep_sd() -> float:
    """Standard deviation of NLEEP over seeds of its mixture, on one set of synthetic features."""
    return float(np.std(synthetic.nleep_over_seeds(), ddof=1))


# --- our replication ------------------------------------------------------------------------------------------


@functools.cache
def judged() -> pd.DataFrame:
    """The statements of the second replication, by statement and quantity."""
    return evaluation.statements().set_index(["statement", "quantity"])


@_measure
def statement(statement: str, quantity: str) -> float:
    """1 where our replication supports a statement by one of its quantities, -1 where not, 0 where undecided."""
    table = judged()
    if (statement, quantity) not in table.index:
        raise InputError(f"no quantity {quantity!r} of statement {statement!r} in the replication")
    word = table.loc[(statement, quantity), "word"]
    if word == "not judged":
        raise InputError(f"{quantity}: not judged on the folds that are complete")
    return {"supported": 1.0, "contradicted": -1.0}.get(word, 0.0)


@_measure
def separation_gained() -> float:
    """Separation of the classes after fine-tuning less that before, mean over the stored sources and folds."""
    from companion import replication  # brings torch

    means = replication.projections().groupby("representation")["separation"].mean()
    return means["after"] - means["before"]


def leads(table: pd.DataFrame, over: str = "lda", *, draws: int = 2000, seed: int = 24) -> pd.DataFrame:
    """How much closer NCA comes to the fine-tuned features than another representation, with intervals over sources.

    Parameters
    ----------
    table
        Columns ``source``, ``fold``, ``representation`` and those of `SIMILARITY`: several sources, several folds each.
    over
        What NCA is compared with: ``"lda"``, or ``"before"``, the features as they were.
    draws, seed
        Resamples of the sources, with replacement, all folds of a source together.

    Returns
    -------
    pandas.DataFrame
        One row a measure: ``nca`` and ``other`` (means; for ``separation`` the distance to the separation after
        fine-tuning), and ``lead`` of NCA with its 95 % interval ``low`` to ``high``.
    """
    wide = table.set_index(["source", "fold", "representation"])[SIMILARITY].unstack("representation")
    sources = wide.index.get_level_values("source").unique()
    chosen = np.random.default_rng(seed).integers(len(sources), size=(draws, len(sources)))
    rows = {}
    for measure in SIMILARITY:
        nca, other = wide[measure, "nca"], wide[measure, over]
        lead = nca - other
        if measure == "separation":  # closer is better, on whichever side
            nca, other = ((found - wide[measure, "after"]).abs() for found in (nca, other))
            lead = other - nca
        by_source = lead.groupby("source").mean().reindex(sources).to_numpy()
        low, high = np.quantile(by_source[chosen].mean(axis=1), [0.025, 0.975])
        rows[measure] = [nca.mean(), other.mean(), by_source.mean(), low, high]
    columns = ["nca", "other", "lead", "low", "high"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("measure")


@_measure
def closer_to_fine_tuned(measure: str, over: str = "lda") -> float:
    """1 where NCA comes closer to the fine-tuned features than another representation, -1 where not, 0 undecided."""
    from companion import replication  # brings torch

    found = leads(replication.projections(), over).loc[measure]
    return float(found["low"] > 0) - float(found["high"] < 0)
