"""The stored replication: its tables, how the ground truth is chosen from its runs, and its pairs as models and images.

Stored are the runs and scores of the protocol ``medical``, the runs of its seed study ``medical_seeds``, and the
comparison behind the paper's Fig. 3. Provenance is in every table's ``attrs["provenance"]``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from typing import NamedTuple

import numpy as np
import pandas as pd

from companion.datasets import load_dataset
from companion.errors import EnvironmentFailure, InputError, did_you_mean
from companion.models import SourceModel
from companion.replication.execution import images_of, source_of
from companion.replication.protocol import Replication, expand
from companion.scores import PAPER_SCORE, REGISTRY, combine_ncti, with_combined
from companion.sources import parse
from companion.training.protocols import checked

RULES = ("lowest_val_loss", "highest_val_auc", "mean_of_best")
BEST = 2  # runs that "mean_of_best" takes the mean of
PAIR = ["source", "target"]
# Training images behind the released weights, which their files do not say; as the plan's page lists them.
RELEASED_IMAGES = {
    "imagenet_mobilenet_v2": 1_281_167,
    "inat2017_birds_mobilenet_v2": 214_000,
    "inat2017_insects_mobilenet_v2": 101_000,
}
NCTI_TERMS = ["ncti_term_1", "ncti_term_2", "ncti_term_3"]


@functools.cache
def _read(name: str) -> pd.DataFrame:
    path = resources.files(__package__).joinpath(f"{name}.parquet")
    if not path.is_file():
        problem = f"the package holds no table {name} of the replication"
        raise EnvironmentFailure(f"{problem}: run  make replication")
    with resources.as_file(path) as file:
        return pd.read_parquet(file)


def runs() -> pd.DataFrame:
    """Every fine-tuning run of the stored replication, one row each."""
    return _read("medical_runs").copy()


def seed_runs() -> pd.DataFrame:
    """Runs of the seed study: ImageNet on every target, one fold, ten seeds."""
    return _read("medical_seeds_runs").copy()


def projections() -> pd.DataFrame:
    """How close NCA and LDA come to fine-tuned features: one row per source, fold and representation of Fig. 3.

    Columns as notebook 03 computes them, beside source, target, fold and seed.
    """
    return _read("projections").copy()


def projection_maps() -> pd.DataFrame:
    """Maps of Fig. 3 for ImageNet's features, one row per image and representation: ``x``, ``y`` (t-SNE), ``class``."""
    return _read("maps").copy()


def scores(variant: str = "corrected") -> pd.DataFrame:
    """Every score of every pair and fold of the stored replication, targets as their own sources included.

    `variant` is ``"corrected"`` or ``"published"``.
    """
    if variant not in ("corrected", "published"):
        raise InputError(f"variant {variant!r} is none of corrected, published")
    found = (
        _read("medical_scores").query("variant == @variant").drop(columns="variant").reset_index(drop=True)
    )
    images = found["training_images"].astype(float).fillna(found["source"].map(RELEASED_IMAGES))
    return found.assign(training_images=images)


def stored_protocol() -> Replication:
    """Protocol of the stored replication."""
    return checked(Replication, _read("medical_runs").attrs["provenance"]["protocol"], "stored replication")


def select(table: pd.DataFrame, rule: str = "lowest_val_loss") -> pd.DataFrame:
    """Choose the ground truth of every pair and fold from its runs over the grid, as `runs` returns them.

    `rule` is ``"lowest_val_loss"`` (the paper's), ``"highest_val_auc"``, or ``"mean_of_best"``: the mean of the two
    runs of lowest validation loss; diverged runs are left out. Returns source, target, fold, auc (test, 0 to 1) and
    runs (how many there were to choose from).
    """
    if rule not in RULES:
        raise InputError(f"no rule {rule!r}: there are {', '.join(RULES)}.{did_you_mean(rule, RULES)}")
    by, up = ("val_auc", False) if rule == "highest_val_auc" else ("val_loss", True)
    ordered = table[table["status"] == "finished"].sort_values([by, "key"], ascending=[up, True])
    groups = ordered.groupby([*PAIR, "fold"], sort=True)
    kept = groups.head(BEST if rule == "mean_of_best" else 1).groupby([*PAIR, "fold"], sort=True)
    return pd.DataFrame({"auc": kept["test_auc"].mean(), "runs": groups.size()}).reset_index()


def ground_truth(rule: str = "lowest_val_loss") -> pd.DataFrame:
    """AUC of every pair on every complete fold of the stored replication, as `select` returns it.

    A fold is judged whole or not at all: every run of it must be there.
    """
    table, protocol = runs(), stored_protocol()
    planned = sum(len(protocol.fine_tuning.settings(target)) for _, target in protocol.pairs())
    planned *= len(protocol.fine_tuning.seeds)
    whole = table[table.groupby("fold")["key"].transform("size") == planned]
    if whole.empty:
        raise EnvironmentFailure("no fold of the stored replication is complete: run  make replication")
    return select(whole, rule)


def pair_scores(variant: str = "corrected") -> pd.DataFrame:
    """Scores of every pair, means over the complete folds; the target as its own source is left out.

    A score that is missing on one of these folds is missing: a mean over some of them is another quantity. NCTI exists
    only over a candidate set, which here is the sources of a target.
    """
    found = scores(variant)
    found = found[found["fold"].isin(ground_truth()["fold"]) & (found["source"] != found["target"])]
    groups = found.drop(columns=["fold", "seconds"]).groupby(PAIR)
    result = groups.mean().where(groups.count().eq(groups.size(), axis=0)).reset_index()
    for _, block in result.groupby("target"):
        result.loc[block.index, "ncti"] = combine_ncti(block[NCTI_TERMS].to_numpy(), variant=variant)
    return result.drop(columns=NCTI_TERMS)


def table(variant: str = "corrected") -> pd.DataFrame:
    """Pairs of the stored replication, one row each: ground truth and scores, both means over the complete folds.

    source, target, auc, auc_sd (over folds), folds, training_images of the source, the combined score and every score
    of the registry, as `companion.evaluation.weighted_tau` takes it. ``attrs["runs"]`` says how many fine-tunings are
    stored and planned.
    """
    truth = ground_truth().groupby(PAIR)["auc"].agg(auc="mean", auc_sd="std", folds="size").reset_index()
    found = with_combined(pair_scores(variant))
    names = ["training_images", PAPER_SCORE, *(name for name in REGISTRY if name in found)]
    result = truth.merge(found[[*PAIR, *names]], on=PAIR, how="left", validate="one_to_one")
    result.attrs["runs"] = _read("medical_runs").attrs["provenance"]["runs"]
    return result


class Pair(NamedTuple):
    """A source and a target of the replication: the model, and the images that are scored."""

    source: str
    target: str
    model: SourceModel
    images: np.ndarray
    labels: np.ndarray


def pairs(
    targets: Sequence[str] | None = None,
    *,
    fold_number: int = 1,
    device: str | None = None,
    progress: Callable[[float, str], None] | None = None,
) -> Iterator[Pair]:
    """Yield the pairs of the stored replication, with the training images of one fold.

    `targets` are some of the replication's, all by default. Sources that are not in the cache are trained on `device`,
    which takes minutes; `progress` is called with the fraction done and a line of text. A target that is none is an
    `InputError`, data that are missing or others than the replication's an `EnvironmentFailure`.
    """
    plan, hashes = stored_protocol(), _read("medical_runs").attrs["provenance"]["data"]
    chosen = plan.targets if targets is None else tuple(targets)
    for name in set(chosen) - set(plan.targets):
        near = f"there are {', '.join(plan.targets)}.{did_you_mean(name, plan.targets)}"
        raise InputError(f"{name!r} is no target of the replication: {near}")
    of_fold = [run for run in expand(plan, hashes) if run.target in chosen and run.fold == fold_number]
    wanted = {(run.source, run.target): run for run in of_fold if run.seed == plan.fine_tuning.seeds[0]}
    for name in {part for run in wanted.values() for part in (run.target, *parse(run.spec).parts)}:
        if load_dataset(name, size=plan.size).content_hash != hashes[name]:
            problem = f"{name} in the data directory is not the {name} of the replication"
            raise EnvironmentFailure(f"{problem}: compare its sha256")
    for place, run in enumerate(wanted.values()):
        if progress:
            progress(place / len(wanted), f"{run.source} on {run.target}")
        yield Pair(run.source, run.target, source_of(run, device), *images_of(run))
