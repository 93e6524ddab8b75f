"""Was a ranking right? Fine-tune its first few and compare."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from companion import store
from companion.datasets import Dataset, Fold, fold
from companion.errors import InputError
from companion.models import SourceModel, best_device, one_core_left_free
from companion.ranking.table import Progress, Source, load, source_name
from companion.training import FINE_TUNING_PROTOCOLS, SEED, FineTuned, fine_tune
from companion.training.metrics import auc_per_class, macro_auc

BATCH = 256
REDRAWS = 200


def images_to_verify(dataset: Dataset, count: int, protocol: str = "quick") -> Fold:
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


def first_sources(table: pd.DataFrame, count: int) -> list[str]:
    """Name the first `count` sources of the largest pool that has an order.

    Raises
    ------
    InputError
        If no pool has an order.
    """
    pools = [pool for pool in table.attrs["pools"] if pool["order"] == "determined"]
    if not pools:
        raise InputError(
            "no pool has an order, so there is none to verify: name four or more sources of one kind"
        )
    largest = max(pools, key=lambda pool: pool["sources"])
    return list(table.loc[table["pool"] == largest["pool"], "source"][:count])


def verify(
    table: pd.DataFrame,
    dataset: Dataset,
    sources: Sequence[Source],
    count: int = 2,
    *,
    protocol: str = "quick",
    architecture: str = "resnet18",
    seed: int = SEED,
    device: str | None = None,
    data_dir: Any = None,
    trust: bool = False,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Fine-tune the first few sources of a ranking once each, and say whether the ranking was right.

    Parameters
    ----------
    table
        What `companion.rank` returned for `dataset` and `sources`.
    count
        How many of the largest pool's sources, from the first on.
    protocol
        Fine-tuning protocol: quick, standard or paper; its first setting is used, once.
    architecture, seed, device, data_dir, trust, progress
        As for `companion.rank`.

    Returns
    -------
    pandas.DataFrame
        One row a source, in the ranking's order: ``source``, ``rank``, ``test_auc`` (macro one-vs-rest, 0 to 1),
        ``test_accuracy``, ``epochs``, ``seconds``. ``attrs["verdict"]`` says in a line whether the first was the best,
        and whether the test images can tell it from the best of the others.

    Raises
    ------
    InputError
        If there is no order to verify, or the target lacks validation or test images.
    """
    drawn, plan = images_to_verify(dataset, count, protocol), FINE_TUNING_PROTOCOLS[protocol]
    chosen = first_sources(table, count)
    by_name = {source_name(source): source for source in sources}
    report = progress or (lambda fraction, text: None)
    rows: list[dict[str, Any]] = []
    probabilities: list[np.ndarray] = []
    where = best_device(device)
    with store.data_directory(data_dir):
        for index, name in enumerate(chosen):

            def step(fraction: float, text: str, index: int = index, name: str = name) -> None:
                report((index + fraction) / len(chosen), f"{name}: {text}")

            began = time.perf_counter()
            model = load(
                by_name[name], dataset, architecture=architecture, seed=seed, device=device, trust=trust
            )
            done = fine_tune(
                model,
                dataset,
                drawn,
                plan.settings(dataset.name)[0],
                plan,
                seed=seed,
                device=where,
                progress=step,
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
    found = pd.DataFrame(rows)
    found.attrs |= {
        "verdict": _verdict(found, probabilities, dataset.labels["test"], seed=seed),
        "protocol": protocol,
        "test_images": len(dataset.labels["test"]),
    }
    return found


@one_core_left_free()
def _probabilities(
    tuned: FineTuned, model: SourceModel, images: np.ndarray, device: torch.device
) -> np.ndarray:
    """(n, classes) of a fine-tuned network, on the CPU."""
    parts = []
    network = tuned.network.to(device)
    with torch.inference_mode():
        for start in range(0, len(images), BATCH):
            batch = model.prepare(images[start : start + BATCH], device)
            parts.append(network(batch).float().softmax(1).cpu().numpy())
    return np.concatenate(parts)


def _verdict(
    found: pd.DataFrame, probabilities: Sequence[np.ndarray], labels: np.ndarray, *, seed: int
) -> str:
    """Say whether the first was the best, and whether the test images can tell."""
    if found["test_auc"].isna().any():
        diverged = ", ".join(found.loc[found["test_auc"].isna(), "source"])
        return f"training of {diverged} diverged: nothing can be said"
    names, aucs = list(found["source"]), found["test_auc"].to_numpy()
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
            f"the ranking was right: {names[0]} came first of {len(found)}, {lead:.4f} AUC ahead of {names[rival]} "
            f"({over})"
        )
    return (
        f"the ranking was wrong: its first, {names[0]}, came in place {place} of {len(found)}, {-lead:.4f} AUC behind "
        f"{names[rival]} ({over})"
    )


def _interval(first: np.ndarray, rival: np.ndarray, labels: np.ndarray, seed: int) -> tuple[float, float]:
    """95 % percentile interval of the difference in AUC, over test images redrawn in pairs."""
    rng = np.random.default_rng(seed)
    drawn = [rng.integers(len(labels), size=len(labels)) for _ in range(REDRAWS)]
    differences = [
        macro_auc(auc_per_class(labels[index], first[index]))
        - macro_auc(auc_per_class(labels[index], rival[index]))
        for index in drawn
    ]
    low, high = np.nanquantile(differences, [0.025, 0.975])
    return float(low), float(high)
