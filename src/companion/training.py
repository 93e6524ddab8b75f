"""Training a source model: one loop, one protocol object.

What is here is the short protocol behind ``train:DATASET``; it makes real but modest models in well under a
minute a dataset on two cores.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from companion.datasets import Dataset
from companion.models import PLAIN_NORMALISATION, SourceModel, build, split_head, to_batch


@dataclass(frozen=True)
class SourceProtocol:
    """How a source model is trained.

    Attributes
    ----------
    epochs, images_per_epoch
        An epoch is a class-balanced draw with replacement of that many images.
    batch_size, lr, momentum, weight_decay
        SGD; the learning rate falls to zero along half a cosine.
    """

    name: str
    epochs: int
    images_per_epoch: int
    batch_size: int = 64
    lr: float = 0.02
    momentum: float = 0.9
    weight_decay: float = 1e-4


SEED = 24  # the paper's

QUICK = SourceProtocol("quick", epochs=8, images_per_epoch=768)


def augmentation() -> nn.Module:
    """Per-image augmentation of a whole batch at once: flip, random resized crop, small rotation."""
    from kornia import augmentation as aug

    def resized(size: int) -> nn.Module:
        return aug.AugmentationSequential(
            aug.RandomHorizontalFlip(p=0.5),
            aug.RandomResizedCrop((size, size), scale=(0.5, 1.0)),
            aug.RandomRotation(5.0, p=0.5),
            data_keys=["input"],
        )

    class Augmentation(nn.Module):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return resized(batch.shape[-1])(batch)

    return Augmentation()


def balanced_draw(labels: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw `count` indices with replacement, every class equally likely (every image, where multi-label)."""
    if labels.ndim == 2:
        return rng.integers(len(labels), size=count)
    weights = 1.0 / np.bincount(labels)[labels]
    return rng.choice(len(labels), size=count, p=weights / weights.sum())


def train_source(
    dataset: Dataset,
    protocol: SourceProtocol = QUICK,
    *,
    architecture: str = "resnet18",
    seed: int = SEED,
    device: torch.device | str = "cpu",
    progress: Callable[[float, str], None] | None = None,
) -> SourceModel:
    """Train a network on a dataset from random weights.

    Parameters
    ----------
    dataset
        Single- or multi-label; the training split is used.
    protocol, architecture, seed, device
        How, what, with which seed and where. The global random states are left as they were.
    progress
        Called after every step with the fraction done and a line of text.

    Returns
    -------
    SourceModel
        Its provenance holds the protocol, the loss of every epoch and the time taken.
    """
    began = time.perf_counter()
    rng = np.random.default_rng(seed)
    multi_label = dataset.task == "multi-label"
    criterion: nn.Module = nn.BCEWithLogitsLoss() if multi_label else nn.CrossEntropyLoss()
    images, labels = dataset.images["train"], dataset.labels["train"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build(architecture, classes=dataset.n_classes)
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        augment = augmentation()
        optimiser = torch.optim.SGD(
            network.parameters(),
            lr=protocol.lr,
            momentum=protocol.momentum,
            weight_decay=protocol.weight_decay,
        )
        steps = protocol.epochs * (protocol.images_per_epoch // protocol.batch_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        losses: list[float] = []
        network.train()
        for epoch in range(protocol.epochs):
            total = 0.0
            order = balanced_draw(labels, protocol.images_per_epoch, rng)
            batches = np.array_split(order, max(1, protocol.images_per_epoch // protocol.batch_size))
            for index, chosen in enumerate(batches):
                batch = augment(to_batch(images[chosen], PLAIN_NORMALISATION, device))
                wanted = torch.from_numpy(labels[chosen]).to(device)
                loss = criterion(
                    network(batch.contiguous(memory_format=torch.channels_last)),
                    wanted.float() if multi_label else wanted,
                )
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                schedule.step()
                total += float(loss.detach()) * len(chosen)
                if progress:
                    done = (epoch * len(batches) + index + 1) / (protocol.epochs * len(batches))
                    progress(done, f"training on {dataset.name}, epoch {epoch + 1} of {protocol.epochs}")
            losses.append(total / len(order))
    network.eval().to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    head = split_head(network)
    record: dict[str, Any] = {
        "origin": f"trained here on {dataset.name} with the protocol {protocol.name!r}",
        "dataset": dataset.name,
        "data_hash": dataset.content_hash,
        "synthetic": dataset.synthetic,
        "protocol": asdict(protocol),
        "seed": seed,
        "loss_per_epoch": losses,
        "seconds": time.perf_counter() - began,
    }
    return SourceModel(
        name=f"train:{dataset.name}",
        backbone=network,
        head=head,
        architecture=architecture,
        pretraining=dataset.name,
        provenance=record,
    )
