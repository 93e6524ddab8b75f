"""Fine-tuning: one source, one target, one fold, one point of the grid; what comes out is one row."""

from __future__ import annotations

import copy
import datetime
import functools
import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from companion import store
from companion.datasets import Dataset, Fold
from companion.models import SourceModel, best_device, check_takes
from companion.training.loop import Report, Resident, evaluate, fit
from companion.training.protocols import FineTuning, Settings, SourceProtocol


class FineTuned(NamedTuple):
    """A fine-tuned network (head included, on the CPU) and the row that describes its run."""

    network: nn.Module
    row: dict[str, Any]


def fine_tune(
    model: SourceModel,
    dataset: Dataset,
    fold: Fold,
    settings: Settings,
    protocol: FineTuning,
    *,
    seed: int,
    device: torch.device | str | None = None,
    progress: Report | None = None,
) -> FineTuned:
    """Fine-tune all layers of a source model on one fold of a target, and test the chosen epoch once.

    Parameters
    ----------
    model
        The source; it is left as it was.
    dataset, fold
        The target and the images of it that are trained and validated on; its whole test split is tested on.
    settings, protocol, seed, device
        The point of the grid, the protocol it is a point of, the seed, and where.
    progress
        Called after every epoch with the fraction done and a line of text.

    Returns
    -------
    FineTuned
        The row has the settings, status (``"finished"`` or ``"diverged"``, then without results), best epoch (from 1),
        losses, AUC (macro one-vs-rest, 0 to 1) and accuracy on validation and test images, the curves by epoch,
        seconds, and hashes of data, fold, source weights and training code.
    """
    device = best_device(device)
    tensors = {
        split: Resident(dataset.images[split][kept], dataset.labels[split][kept], model.normalisation, device)
        for split, kept in (("train", fold.train), ("val", fold.val), ("test", slice(None)))
    }
    own = {name: getattr(protocol, name) for name in ("name", "epochs", "patience", "augmentation")}
    point = SourceProtocol(**own, **asdict(settings))
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        network = with_head(model, dataset, protocol.dropout, device)
        done = fit(network, tensors["train"], tensors["val"], point, seed=seed, report=progress)
    row: dict[str, Any] = {
        "source": model.name,
        "target": dataset.name,
        "fold": fold.number,
        "seed": seed,
        **asdict(settings),
        "status": done.status,
        "epochs_run": len(done.curve),
        "best_epoch": done.best_epoch + 1,
    }
    if done.status == "finished":
        for split in ("val", "test"):
            found = evaluate(network, tensors[split])
            row |= {f"{split}_{name}": found[name] for name in ("loss", "auc", "accuracy")}
        row["test_auc_per_class"] = found["per_class"].tolist()
    row |= {
        f"curve_{name}": [epoch.get(name, float("nan")) for epoch in done.curve]
        for name in ("train_loss", "val_loss", "val_auc")
    }
    row |= {
        "seconds": done.seconds,
        "images_per_second": len(done.curve) * len(fold.train) / done.seconds,
        "device": str(device),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "data_hash": dataset.content_hash,
        "fold_hash": fold.checksum,
        "source_hash": weights_hash(model),
        "code_hash": code_hash(),
        "results_version": store.RESULTS_VERSION,
    }
    return FineTuned(network.cpu().eval(), row)


def with_head(
    model: SourceModel, dataset: Dataset, dropout: float, device: torch.device | str = "cpu"
) -> nn.Sequential:
    """Copy of the backbone with dropout and a new linear layer, drawn from torch's global generator.

    A backbone that cannot take images of the dataset's size is an `InputError`.
    """
    backbone = copy.deepcopy(model.backbone).to(device)
    width = check_takes(backbone, model.architecture, dataset.size, device).shape[1]
    return nn.Sequential(backbone, nn.Dropout(dropout), nn.Linear(width, dataset.n_classes)).to(device)


def weights_hash(model: SourceModel) -> str:
    """sha256 over the backbone's tensors, in order of their names; but for counters, which files do not keep."""
    total = hashlib.sha256()
    for name, value in sorted(model.backbone.state_dict().items()):
        if name.endswith("num_batches_tracked"):
            continue
        total.update(name.encode())
        total.update(np.ascontiguousarray(value.detach().cpu().numpy()).tobytes())
    return total.hexdigest()


@functools.cache
def code_hash() -> str:
    """sha256 over the source of this subpackage: rows of another one were made by other code."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
