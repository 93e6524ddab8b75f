"""Source training: a network from random weights on one dataset, or on several pooled in a joint label space."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import torch

from companion.datasets import Dataset
from companion.errors import InputError
from companion.models import PLAIN_NORMALISATION, SourceModel, best_device, build, check_takes, split_head
from companion.training.loop import Report, Resident, fit, part_of
from companion.training.protocols import QUICK, SEED, SourceProtocol


def balanced_weights(labels: np.ndarray) -> np.ndarray:
    """Chance of each image, (n,) of sum 1, so that every class is drawn equally often.

    Labels are class indices, (n,), or columns of 0 and 1, (n, columns): an image then has the mean chance of its
    columns, and those without any column form a class of their own.
    """
    if labels.ndim == 1:
        weights = 1.0 / np.bincount(labels)[labels]
    else:
        hot = np.column_stack([labels, labels.sum(1) == 0]).astype(float)
        chances = 1.0 / np.maximum(hot.sum(0), 1.0)
        weights = hot @ chances / hot.sum(1)
    return weights / weights.sum()


def train_source(
    dataset: Dataset,
    protocol: SourceProtocol = QUICK,
    *,
    architecture: str = "resnet18",
    seed: int = SEED,
    device: torch.device | str | None = None,
    progress: Report | None = None,
) -> SourceModel:
    """Train a network on a dataset from random weights.

    Parameters
    ----------
    dataset
        Single- or multi-label; the training split is used, and the validation split where the protocol has patience.
    protocol, architecture, seed, device
        How, what, with which seed and where.
    progress
        Called after every epoch with the fraction done and a line of text.

    Returns
    -------
    SourceModel
        Its provenance holds the protocol, the curve and the time taken.

    Raises
    ------
    InputError
        If the protocol asks for a loss that the labels do not fit, or training diverges.
    """
    device = best_device(device)
    labels = dict(dataset.labels)
    multi_label = dataset.task == "multi-label"
    if multi_label and protocol.loss == "cross-entropy":
        raise InputError(
            f"protocol {protocol.name!r} asks for cross-entropy, but {dataset.name} has several labels an image: "
            "use bce"
        )
    if protocol.loss == "bce" and not multi_label:
        labels = {split: np.eye(dataset.n_classes, dtype=np.int64)[own] for split, own in labels.items()}
    watched = protocol.patience and len(labels.get("val", ()))
    resident = {
        split: Resident(dataset.images[split], labels[split], PLAIN_NORMALISATION, device)
        for split in (("train", "val") if watched else ("train",))
    }
    with torch.random.fork_rng():
        network = build(architecture, classes=dataset.n_classes, seed=seed)
        network.to(device)
        check_takes(network, architecture, dataset.size, device)
        done = fit(
            network,
            resident["train"],
            resident.get("val"),
            protocol,
            seed=seed,
            watch="loss",
            weights=balanced_weights(dataset.labels["train"]),
            report=part_of(progress, 0, 1, f"training on {dataset.name}, "),
        )
    if done.status == "diverged":
        raise InputError(
            f"training on {dataset.name} diverged in epoch {len(done.curve)}: use a learning rate below {protocol.lr}"
        )
    network.eval().to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return SourceModel(
        name=f"train:{dataset.name}",
        head=split_head(network),
        backbone=network,
        architecture=architecture,
        pretraining=dataset.name,
        provenance={
            "origin": f"trained here on {dataset.name} with the protocol {protocol.name!r}",
            "dataset": dataset.name,
            "data_hash": dataset.content_hash,
            "lineage": sorted(dataset.lineage),
            "synthetic": dataset.synthetic,
            "images": len(resident["train"]),
            "classes": dataset.n_classes,
            "protocol": asdict(protocol),
            "seed": seed,
            "loss_per_epoch": [row["train_loss"] for row in done.curve],
            "seconds": done.seconds,
        },
    )
