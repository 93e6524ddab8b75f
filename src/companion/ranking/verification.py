"""Fine-tune the first few sources of a ranking and compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from companion.datasets import Dataset, Fold, fold
from companion.errors import InputError
from companion.ranking.ranking import Progress, Ranking
from companion.training import FINE_TUNING_PROTOCOLS
from companion.tuning import LEARNING_RATES, RESAMPLES, Tuned, mean_auc, resampled, tune

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
    ranking: Ranking, count: int = 2, *, protocol: str = "quick", progress: Progress | None = None
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
    dataset, options = ranking.dataset, ranking.options
    drawn, names = check_verifiable(dataset, count, protocol), ranking.first(count)
    report = progress or (lambda fraction, text: None)
    found: list[Tuned] = []
    for index, name in enumerate(names):

        def step(fraction: float, text: str, index: int = index) -> None:
            report((index + fraction) / len(names), text)

        found.append(
            tune(
                options.load(ranking.sources[name], dataset),
                dataset,
                protocol=protocol,
                seeds=range(options.seed, options.seed + SEEDS),
                images=drawn,
                device=options.device,
                progress=step,
            )
        )
    rows = []
    for place, (name, one) in enumerate(zip(names, found, strict=True), start=1):
        row = {
            "source": name,
            "place": place,
            **dict(zip(("test_auc", "low", "high"), one.test_auc, strict=True)),
        }
        row |= {"frozen_auc": one.frozen_auc}
        row |= {f"auc of {kind}": auc for kind, auc in one.per_class.set_index("class")["auc"].items()}
        rows.append(row | {"seconds": one.runs["seconds"].sum()})
    table = pd.DataFrame(rows)
    remarks = dict.fromkeys(
        f"{name}: {line}" for name, one in zip(names, found, strict=True) for line in one.remarks
    )
    frozen = table.loc[table["frozen_auc"].idxmax()]
    if frozen["frozen_auc"] > table["test_auc"].max():
        remarks[
            f"{frozen['source']} with all layers frozen and a linear classifier on its features reached "
            f"{frozen['frozen_auc']:.3f}, more than any fine-tuning here: freezing costs seconds"
        ] = None
    return Verification(
        table,
        _summary(names, [one.probabilities for one in found], dataset, seed=options.seed),
        tuple(remarks),
        protocol,
        f"{SEEDS} seeds, the better of {len(LEARNING_RATES)} learning rates by validation loss",
        len(dataset.labels["test"]),
    )


def _summary(names: Sequence[str], chances: Sequence[np.ndarray], dataset: Dataset, *, seed: int) -> str:
    """Compare the first with the best of the others: the difference, and its interval over seeds and test images."""
    labels = dataset.labels["test"]
    aucs = np.array([mean_auc(labels, each) for each in chances])
    rival = 1 + int(aucs[1:].argmax())
    rng, differences = np.random.default_rng(seed), []
    for _ in range(RESAMPLES):
        index = resampled(dataset, "test", rng)
        drawn = [
            mean_auc(labels[index], each[rng.integers(len(each), size=len(each))][:, index])
            for each in (chances[0], chances[rival])
        ]
        differences.append(drawn[0] - drawn[1])
    low, high = np.nanquantile(differences, [0.025, 0.975])
    place = int((aucs > aucs[0]).sum()) + 1
    line = (
        f"{names[0]}, first in the ranking, came in place {place} of {len(names)} with a test AUC of {aucs[0]:.3f}, "
        f"{aucs[0] - aucs[rival]:+.3f} against {names[rival]} (95 % interval over {len(chances[0])} seeds and "
        f"{len(labels)} test images {low:+.3f} to {high:+.3f})"
    )
    return f"{line}: these images cannot tell the two apart" if low <= 0 <= high else line
