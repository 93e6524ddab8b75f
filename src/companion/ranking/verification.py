"""Fine-tune the first few sources of a ranking and compare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from companion.datasets import Dataset, Fold, fold
from companion.errors import InputError
from companion.training import FINE_TUNING_PROTOCOLS
from companion.training.loop import Report, part_of
from companion.tuning import LEARNING_RATES, Tuned, interval, mean_auc, tune

if TYPE_CHECKING:
    from companion.ranking.ranking import Ranking

PROTOCOL, SEEDS = "quick", 3
RUNS = SEEDS * len(LEARNING_RATES)  # of a source


@dataclass(frozen=True)
class Verification:
    """What fine-tuning the first sources of a ranking gave."""

    table: pd.DataFrame
    """One row a source, in the ranking's order: ``source``, ``place``, ``test_auc`` (macro one-vs-rest, 0 to 1, mean
    over seeds), ``low`` and ``high`` (95 % interval over seeds and test images), ``frozen_auc`` (a linear classifier on
    the features), ``auc of CLASS``, ``seconds``."""
    summary: str
    """A line: which was ahead, by how much, and what the interval of the difference is."""
    remarks: tuple[str, ...]
    runs: str
    """Which runs stand behind a row."""


def check_verifiable(dataset: Dataset, count: int) -> Fold:
    """Draw the images that `verify` fine-tunes on; this tells before any work whether it can.

    Raises
    ------
    InputError
        If `count` is under two, or the target lacks images in a split.
    """
    if count < 2:
        raise InputError(f"{count} source(s) cannot be compared: verify at least 2")
    plan = FINE_TUNING_PROTOCOLS[PROTOCOL]
    return fold(dataset, 1, train_per_class=plan.train_per_class, val_per_class=plan.val_per_class)


def verify(ranking: Ranking, count: int = 2, *, progress: Report | None = None) -> Verification:
    """Fine-tune the first few sources of a ranking with three seeds and two learning rates, and say how they compare.

    Parameters
    ----------
    ranking
        What `companion.rank` returned.
    count
        How many sources of the set that the recommendation is about, from the first on.
    progress
        Called with the fraction done and a line of text.

    Raises
    ------
    InputError
        If there is nothing to compare, the target lacks validation or test images, or training diverges.
    """
    drawn, names = check_verifiable(ranking.dataset, count), ranking.first(count)
    seed, device = ranking.scoring["seed"], ranking.scoring["device"]
    found = {}
    for index, name in enumerate(names):
        seeds, step = range(seed, seed + SEEDS), part_of(progress, index, len(names))
        how = {"protocol": PROTOCOL, "seeds": seeds, "fold": drawn, "device": device}
        found[name] = tune(ranking.load(name), ranking.dataset, **how, progress=step)
    table = pd.DataFrame([_row(name, place, one) for place, (name, one) in enumerate(found.items(), 1)])
    remarks = [f"{name}: {line}" for name, one in found.items() for line in one.remarks]
    frozen = table.loc[table["frozen_auc"].idxmax()]
    if frozen["frozen_auc"] > table["test_auc"].max():
        remarks.append(
            f"{frozen['source']} with all layers frozen and a linear classifier on its features reached "
            f"{frozen['frozen_auc']:.3f}, more than any fine-tuning here: freezing costs seconds"
        )
    summary = compare({name: one.probabilities for name, one in found.items()}, ranking.dataset, seed=seed)
    rates = f"the better of {len(LEARNING_RATES)} learning rates by validation loss"
    return Verification(table, summary, tuple(remarks), f"{PROTOCOL} protocol, {SEEDS} seeds, {rates}")


def _row(name: str, place: int, one: Tuned) -> dict[str, object]:
    auc, low, high = one.test_auc
    row = {"source": name, "place": place, "test_auc": auc, "low": low, "high": high}
    row |= {"frozen_auc": one.frozen_auc, "seconds": one.runs["seconds"].sum()}
    return row | {f"auc of {kind}": auc for kind, auc in one.per_class.set_index("class")["auc"].items()}


def compare(chances: dict[str, np.ndarray], dataset: Dataset, *, seed: int) -> str:
    """Compare the first with the best of the others: the difference, and its interval over seeds and test images.

    `chances` are the probabilities of each source, (seeds, test images, classes), in the ranking's order.
    """
    labels = dataset.labels["test"]
    aucs = {name: mean_auc(labels, each) for name, each in chances.items()}
    first, *others = aucs
    rival = max(others, key=aucs.__getitem__)
    low, high = interval(dataset, "test", [chances[first], chances[rival]], seed)
    place = sum(auc > aucs[first] for auc in aucs.values()) + 1
    line = (
        f"{first}, first in the ranking, came in place {place} of {len(aucs)} with a test AUC of {aucs[first]:.3f}, "
        f"{aucs[first] - aucs[rival]:+.3f} against {rival} (95 % interval over {len(chances[first])} seeds and "
        f"{len(labels)} test images {low:+.3f} to {high:+.3f})"
    )
    return f"{line}: these images cannot tell the two apart" if low <= 0 <= high else line
