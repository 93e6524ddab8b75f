"""Fine-tune the first few sources of a ranking and compare."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from companion.datasets import Dataset, Fold, fold
from companion.errors import InputError
from companion.models import SourceModel, best_device, one_core_left_free
from companion.ranking.ranking import Progress, Ranking
from companion.training import FINE_TUNING_PROTOCOLS, FineTuned, fine_tune
from companion.training.metrics import auc_per_class, macro_auc

BATCH = 256
RESAMPLES = 200


@dataclass(frozen=True)
class Verification:
    """What fine-tuning the first sources of a ranking gave."""

    table: pd.DataFrame
    """One row a source, in the ranking's order: ``source``, ``rank``, ``test_auc`` (macro one-vs-rest, 0 to 1),
    ``test_accuracy``, ``epochs``, ``seconds``."""
    summary: str
    """A line: whether the first was the best, and whether the test images can tell it from the best of the others."""
    protocol: str
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


def verify(
    ranking: Ranking, count: int = 2, *, protocol: str = "quick", progress: Progress | None = None
) -> Verification:
    """Fine-tune the first few sources of a ranking once each, and say how they compare.

    Parameters
    ----------
    ranking
        What `companion.rank` returned.
    count
        How many of the largest candidate set's sources, from the first on.
    protocol
        Fine-tuning protocol: quick, standard or paper; its first setting is used, once.
    progress
        Called with the fraction done and a line of text.

    Raises
    ------
    InputError
        If there is no order to verify, or the target lacks validation or test images.
    """
    dataset, options = ranking.dataset, ranking.options
    drawn, plan = check_verifiable(dataset, count, protocol), FINE_TUNING_PROTOCOLS[protocol]
    names, where = ranking.first(count), best_device(options.device)
    report = progress or (lambda fraction, text: None)
    rows: list[dict[str, Any]] = []
    probabilities: list[np.ndarray] = []
    for index, name in enumerate(names):

        def step(fraction: float, text: str, index: int = index, name: str = name) -> None:
            report((index + fraction) / len(names), f"{name}: {text}")

        began = time.perf_counter()
        model = options.load(ranking.sources[name], dataset)
        settings = plan.settings(dataset.name)[0]
        done = fine_tune(
            model, dataset, drawn, settings, plan, seed=options.seed, device=where, progress=step
        )
        probabilities.append(_probabilities(done, model, dataset.images["test"], where))
        rows.append(
            {
                "source": name,
                "rank": index + 1,
                "test_auc": done.row.get("test_auc", float("nan")),
                "test_accuracy": done.row.get("test_accuracy", float("nan")),
                "epochs": done.row["epochs_run"],
                "seconds": round(time.perf_counter() - began, 2),
            }
        )
    table, labels = pd.DataFrame(rows), dataset.labels["test"]
    summary = _summary(table, probabilities, labels, seed=options.seed)
    return Verification(table, summary, protocol, len(labels))


@one_core_left_free()
def _probabilities(
    tuned: FineTuned, model: SourceModel, images: np.ndarray, device: torch.device
) -> np.ndarray:
    """(n, classes) of a fine-tuned network, on the CPU."""
    network = tuned.network.to(device)
    with torch.inference_mode():
        parts = [
            network(model.prepare(images[start : start + BATCH], device)).float().softmax(1).cpu().numpy()
            for start in range(0, len(images), BATCH)
        ]
    return np.concatenate(parts)


def _summary(
    table: pd.DataFrame, probabilities: Sequence[np.ndarray], labels: np.ndarray, *, seed: int
) -> str:
    """Say whether the first was the best, and whether the test images can tell."""
    diverged = table.loc[table["test_auc"].isna(), "source"]
    if len(diverged):
        return f"training of {', '.join(diverged)} diverged: nothing can be said"
    names, aucs = list(table["source"]), table["test_auc"].to_numpy()
    place = int((aucs > aucs[0]).sum()) + 1
    rival = 1 + int(aucs[1:].argmax())
    low, high = _interval(probabilities[0], probabilities[rival], labels, seed)
    over = f"95 % interval over the {len(labels)} test images {low:.4f} to {high:.4f}; one run each"
    lead = aucs[0] - aucs[rival]
    if low <= 0 <= high:
        return (
            f"the first, {names[0]}, and {names[rival]} cannot be told apart on {len(labels)} test images: "
            f"{lead:+.4f} AUC ({over})"
        )
    if place == 1:
        return (
            f"the first, {names[0]}, came first of {len(table)}, {lead:.4f} AUC ahead of {names[rival]} "
            f"({over})"
        )
    return (
        f"the first, {names[0]}, came in place {place} of {len(table)}, {-lead:.4f} AUC behind "
        f"{names[rival]} ({over})"
    )


def _interval(first: np.ndarray, rival: np.ndarray, labels: np.ndarray, seed: int) -> tuple[float, float]:
    """95 % percentile interval of the difference in AUC, over test images resampled in pairs."""
    rng = np.random.default_rng(seed)
    differences = []
    for _ in range(RESAMPLES):
        index = rng.integers(len(labels), size=len(labels))
        one, other = (macro_auc(auc_per_class(labels[index], each[index])) for each in (first, rival))
        differences.append(one - other)
    low, high = np.nanquantile(differences, [0.025, 0.975])
    return float(low), float(high)
