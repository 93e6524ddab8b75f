"""The training loop, for source training and fine-tuning alike: read it from top to bottom.

Images stay on the device as uint8 for the whole run. A batch is gathered there by index, scaled, augmented image by
image in one call, normalised and given to the network; no Python runs per image, and nothing is copied between.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from companion.models import best_device, one_core_left_free
from companion.training.augmentation import augmented
from companion.training.metrics import auc_per_class, macro_auc
from companion.training.protocols import SourceProtocol

Report = Callable[[float, str], None]  # called with the fraction done and a line of text


def part_of(progress: Report | None, index: int, count: int, label: str = "") -> Report:
    """Report of one of `count` equal parts of some work, from that of the whole; `label` goes before its lines."""

    def report(fraction: float, text: str) -> None:
        if progress:
            progress((index + fraction) / count, f"{label}{text}")

    return report


class Resident:
    """Images (n, channels, size, size) as uint8 and labels, both on the device; the fastest there is by default."""

    def __init__(
        self, images: np.ndarray, labels: np.ndarray, normalisation: Any, device: Any = None
    ) -> None:
        device = best_device(device)
        channels_first = images[:, None] if images.ndim == 3 else np.moveaxis(images, 3, 1)
        self.images = torch.from_numpy(np.ascontiguousarray(channels_first)).to(device)
        self.labels = torch.from_numpy(np.ascontiguousarray(labels)).to(device)
        mean, deviation = (torch.tensor(part, device=device).view(1, 3, 1, 1) for part in normalisation)
        self.scale, self.shift = 1 / deviation, -mean / deviation
        # Channels last costs more than it saves on a CPU below 64 px: a tenth of a step at 28 px.
        small = device.type == "cpu" and self.images.shape[-1] < 64
        self.layout = torch.contiguous_format if small else torch.channels_last

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, index: Tensor, augmentation: str = "none") -> tuple[Tensor, Tensor]:
        """Normalised images (m, 3, size, size) and labels; grey ones become three channels only here, to save work."""
        images = augmented(augmentation, self.images[index].float().div_(255))
        images = images * self.scale + self.shift
        return images.contiguous(memory_format=self.layout), self.labels[index]


@dataclass
class Fit:
    """What came out: one row of numbers an epoch, and why training ended."""

    curve: list[dict[str, float]]
    best_epoch: int
    status: str  # "finished" or "diverged"
    seconds: float


@one_core_left_free()
def fit(
    network: nn.Module,
    train: Resident,
    val: Resident | None,
    protocol: SourceProtocol,
    *,
    seed: int,
    watch: str = "auc",
    weights: np.ndarray | None = None,
    report: Report | None = None,
) -> Fit:
    """Train `network` in place; it ends with the weights of its best epoch, or the last where nothing is watched.

    `seed` decides the order of images, augmentation and dropout; it is set here, so call this inside
    ``torch.random.fork_rng``. A better epoch has a higher ``"auc"`` or a lower ``"loss"`` on `val`, as `watch` says.
    `weights` are the chances of the images to be drawn; without them an epoch holds each image once. Labels of several
    columns are trained with binary cross-entropy, others with cross-entropy.
    """
    began = time.perf_counter()
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    device = train.images.device
    network.to(memory_format=train.layout)  # type: ignore[call-overload]
    criterion = nn.CrossEntropyLoss() if train.labels.ndim == 1 else nn.BCEWithLogitsLoss()
    patience = protocol.patience if val is not None else None
    optimiser = torch.optim.SGD(
        network.parameters(),
        lr=protocol.lr,
        momentum=protocol.momentum,
        weight_decay=protocol.weight_decay,
        nesterov=protocol.nesterov and protocol.momentum > 0,
        # One sweep over the weights where torch gains by it; the numbers are the same to the last bit.
        fused=train.layout is torch.contiguous_format or None,
    )
    schedule: Any = (
        torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, protocol.epochs)
        if protocol.schedule == "cosine"
        else torch.optim.lr_scheduler.StepLR(optimiser, protocol.step_epochs, gamma=0.1)
    )
    scaler = torch.amp.GradScaler(device.type, enabled=device.type == "cuda")
    curve: list[dict[str, float]] = []
    kept: dict[str, Any] | None = None
    best, best_epoch = -np.inf, 0
    for epoch in range(protocol.epochs):
        network.train()
        total, seen = torch.zeros((), device=device), 0
        for index in batches(len(train), protocol, rng, weights, device):
            loss = step(network, *train.batch(index, protocol.augmentation), criterion, optimiser, scaler)
            total += loss * len(index)
            seen += len(index)
        row = {"train_loss": float(total) / seen, "lr": float(optimiser.param_groups[0]["lr"])}
        curve.append(row)
        if not np.isfinite(row["train_loss"]):
            return Fit(curve, best_epoch, "diverged", time.perf_counter() - began)
        schedule.step()
        if val is not None:
            measured = evaluate(network, val)
            row |= {"val_loss": measured["loss"], "val_auc": measured["auc"]}
            value = np.nan_to_num(measured["auc"] if watch == "auc" else -measured["loss"], nan=-np.inf)
            if patience and (value > best or epoch == 0):
                best, best_epoch, kept = value, epoch, copy.deepcopy(network.state_dict())
        if report:
            report((epoch + 1) / protocol.epochs, f"epoch {epoch + 1} of {protocol.epochs}")
        if patience and epoch - best_epoch >= patience:
            break
    if kept is not None:
        network.load_state_dict(kept)
    return Fit(curve, best_epoch if kept else len(curve) - 1, "finished", time.perf_counter() - began)


def batches(
    count: int, protocol: SourceProtocol, rng: np.random.Generator, weights: np.ndarray | None, device: Any
) -> Iterator[Tensor]:
    """Indices of one epoch's batches. Batch norm cannot work on one image: a last one joins the batch before."""
    if weights is None:
        order = rng.permutation(count)
    else:
        order = rng.choice(count, size=protocol.images_per_epoch or count, p=weights)
    ends = list(range(protocol.batch_size, len(order) - 1, protocol.batch_size))
    return iter(torch.from_numpy(order).to(device).tensor_split(ends))


def step(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    criterion: nn.Module,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> Tensor:
    """One step of SGD on one batch; its mean loss, still on the device so that nothing waits for it."""
    optimiser.zero_grad(set_to_none=True)
    with torch.autocast(images.device.type, torch.float16, enabled=images.is_cuda):
        loss = criterion(network(images), labels if labels.ndim == 1 else labels.float())
    scaler.scale(loss).backward()
    scaler.step(optimiser)
    scaler.update()
    return loss.detach()


@one_core_left_free()
@torch.inference_mode()
def evaluate(network: nn.Module, data: Resident, batch_size: int = 256) -> dict[str, Any]:
    """Loss and, for single labels, AUC (macro and per class) and accuracy of a network in evaluation mode."""
    network.eval()
    found = []
    for index in torch.arange(len(data), device=data.images.device).split(batch_size):
        with torch.autocast(data.images.device.type, torch.float16, enabled=data.images.is_cuda):
            found.append(network(data.batch(index)[0]).float())
    logits = torch.cat(found)
    if data.labels.ndim > 1:
        value = nn.functional.binary_cross_entropy_with_logits(logits, data.labels.float())
        return {"loss": float(value), "auc": float("nan")}
    value = nn.functional.cross_entropy(logits, data.labels)
    labels, probabilities = data.labels.cpu().numpy(), logits.softmax(1).cpu().numpy()
    known = np.isfinite(probabilities).all()
    per_class = auc_per_class(labels, probabilities) if known else np.full(logits.shape[1], np.nan)
    accuracy = float((probabilities.argmax(1) == labels).mean())
    return {"loss": float(value), "auc": macro_auc(per_class), "per_class": per_class, "accuracy": accuracy}
