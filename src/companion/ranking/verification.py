"""Fine-tune the first few sources of a ranking and compare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from companion.datasets import Dataset, Fold, fold
from companion.errors import InputError
from companion.sources import load_source
from companion.training import FINE_TUNING_PROTOCOLS
from companion.training.loop import Report
from companion.tuning import LEARNING_RATES, Tuned, interval, mean_auc, part_of, tune

if TYPE_CHECKING:
    from companion.ranking.ranking import Ranking

SEEDS = 3


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
    protocol: str
    runs: str
    """How many runs stand behind a row."""
    test_images: int


def check_verifiable(dataset: Dataset, count: int, protocol: str = "quick") -> Fold:
    """Draw the images that `verify` fine-tunes on; this tells before any work whether it can.

    Raises
    ------
    InputError
        If `count` is under two, the protocol is unknown, or the target lacks images in a split.
    """
    if count < 2:
        raise InputError(f"{count} source(s) cannot be compared: verify at least 2")
    if protocol not in FINE_TUNING_PROTOCOLS:
        raise InputError(f"protocol {protocol!r} is none of {', '.join(FINE_TUNING_PROTOCOLS)}")
    plan = FINE_TUNING_PROTOCOLS[protocol]
    return fold(dataset, 1, train_per_class=plan.train_per_class, val_per_class=plan.val_per_class)


def verification_cost(ranking: Ranking, count: int, protocol: str = "quick") -> float:
    """Seconds that `verify` will take, about: from what the ranking itself took."""
    return ranking.fine_tuning_seconds(protocol, ranking.first(count)) * SEEDS * len(LEARNING_RATES)


def verify(
    ranking: Ranking, count: int = 2, *, protocol: str = "quick", progress: Report | None = None
) -> Verification:
    """Fine-tune the first few sources of a ranking with three seeds and two learning rates, and say how they compare.

    Parameters
    ----------
    ranking
        What `companion.rank` returned.
    count
        How many sources of the set that the recommendation is about, from the first on.
    protocol
        Fine-tuning protocol: quick, standard or paper.
    progress
        Called with the fraction done and a line of text.

    Raises
    ------
    InputError
        If there is nothing to compare, the target lacks validation or test images, or training diverges.
    """
    drawn, names = check_verifiable(ranking.dataset, count, protocol), ranking.first(count)
    seed, device = ranking.scoring["seed"], ranking.scoring["device"]
    found = {
        name: tune(
            load_source(ranking.sources[name], **ranking.loading),
            ranking.dataset,
            protocol=protocol,
            seeds=range(seed, seed + SEEDS),
            images=drawn,
            device=device,
            progress=part_of(progress, index, len(names)),
        )
        for index, name in enumerate(names)
    }
    table = pd.DataFrame([_row(name, one) for name, one in found.items()])
    table.insert(1, "place", range(1, len(table) + 1))
    remarks = [f"{name}: {line}" for name, one in found.items() for line in one.remarks]
    frozen = table.loc[table["frozen_auc"].idxmax()]
    if frozen["frozen_auc"] > table["test_auc"].max():
        remarks.append(
            f"{frozen['source']} with all layers frozen and a linear classifier on its features reached "
            f"{frozen['frozen_auc']:.3f}, more than any fine-tuning here: freezing costs seconds"
        )
    chances = {name: one.probabilities for name, one in found.items()}
    summary = _summary(chances, ranking.dataset, seed=seed)
    runs = f"{SEEDS} seeds, the better of {len(LEARNING_RATES)} learning rates by validation loss"
    return Verification(table, summary, tuple(remarks), protocol, runs, len(ranking.dataset.labels["test"]))


def _row(name: str, one: Tuned) -> dict[str, object]:
    auc, low, high = one.test_auc
    row = {"source": name, "test_auc": auc, "low": low, "high": high, "frozen_auc": one.frozen_auc}
    row |= {f"auc of {kind}": auc for kind, auc in one.per_class.set_index("class")["auc"].items()}
    return row | {"seconds": one.runs["seconds"].sum()}


def _summary(chances: dict[str, np.ndarray], dataset: Dataset, *, seed: int) -> str:
    """Compare the first with the best of the others: the difference, and its interval over seeds and test images."""
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
