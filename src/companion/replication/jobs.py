"""What is done on a worker for one row: functions of plain values, so that any engine can carry them."""

from __future__ import annotations

import functools
import importlib.metadata
import time
from dataclasses import dataclass
from typing import Any

import torch

from companion import __version__, ranking, store
from companion.datasets import Dataset, Fold, load_dataset
from companion.errors import InputError
from companion.models import SourceModel, best_device, folded
from companion.replication.protocol import Replication, Run
from companion.scores import REGISTRY, gradient_ratio
from companion.sources import load_source
from companion.training import SourceProtocol, fine_tune

SCORES = tuple(REGISTRY)


@functools.lru_cache(maxsize=2)
def _dataset(name: str, size: int, data_dir: str | None, content_hash: str | None) -> Dataset:
    dataset = load_dataset(name, size=size, data_dir=data_dir)
    if content_hash and dataset.content_hash != content_hash:
        raise InputError(
            f"{name} on this worker is not the {name} of the plan (sha256 {dataset.content_hash[:12]}, wanted "
            f"{content_hash[:12]}): give workers the same data"
        )
    return dataset


@functools.lru_cache(maxsize=32)
def _source(
    spec: str,
    target: str,
    protocol: SourceProtocol,
    architecture: str,
    size: int,
    seed: int,
    device: str,
    data_dir: str | None,
) -> SourceModel:
    """Load or train a source; a trained one is kept in the cache directory of the machine that trained it."""
    return load_source(
        spec,
        target=target if spec == "medmnist" else None,
        protocol=protocol,
        architecture=architecture,
        size=size,
        seed=seed,
        device=device,
        data_dir=data_dir,
    )


@dataclass(frozen=True)
class Job:
    """Everything a worker needs for one row."""

    run: Run
    protocol: Replication
    data_hash: str
    device: str
    data_dir: str | None

    def source(self) -> SourceModel:
        """Source model of the run; random weights have the seed of the run."""
        known = self.run.seed if self.run.spec == "scratch" else self.protocol.fine_tuning.seeds[0]
        return _source(
            self.run.spec,
            self.run.target,
            self.protocol.source_training,
            self.protocol.architecture,
            self.protocol.size,
            known,
            self.device,
            self.data_dir,
        )

    def target(self) -> Dataset:
        """Target of the run."""
        return _dataset(self.run.target, self.protocol.size, self.data_dir, self.data_hash)

    def fold(self) -> Fold:
        """Fold of the run."""
        return self.protocol.fold(self.target(), self.run.fold)


def prepare(job: Job) -> str:
    """Load or train the source of a job, so that its other jobs find it in the cache."""
    job.source()
    return job.run.spec


def fine_tune_job(job: Job) -> dict[str, Any]:
    """One fine-tuning; its row."""
    done = fine_tune(
        job.source(),
        job.target(),
        job.fold(),
        job.run.settings,
        job.protocol.fine_tuning,
        seed=job.run.seed,
        device=best_device(job.device),
    )
    versions = {name: importlib.metadata.version(name) for name in ("torch", "kornia")}
    return done.row | {"source": job.run.source, "spec": job.run.spec, "companion": __version__, **versions}


def score_job(job: Job) -> dict[str, Any]:
    """Scores of one pair on one fold, corrected and as published, on the same images the fine-tuning trained on."""
    model, target = job.source(), job.target()
    row: dict[str, Any] = {"source": job.run.source, "target": job.run.target, "fold": job.run.fold}
    began = time.perf_counter()
    for variant in ("corrected", "published"):
        card = ranking.score(
            model,
            target,
            scores=SCORES,
            variant=variant,
            fold=job.fold(),
            seed=job.run.seed,
            device=job.device,
        )
        row[variant] = dict(card)
        row[f"{variant}_reasons"] = card.reasons
        row[f"{variant}_ncti_terms"] = (
            None if card.ncti_terms is None else [float(t) for t in card.ncti_terms]
        )
    row["seconds"] = time.perf_counter() - began
    images = job.fold().train
    drawn = target.images["train"][images], target.labels["train"][images]
    try:
        row["gradient_ratio_folded"] = gradient_ratio(folded(model), *drawn, device=job.device)
    except (ValueError, torch.fx.proxy.TraceError):  # no ratio at all, or a network that cannot be traced
        row["gradient_ratio_folded"] = None
    row["training_images"] = model.provenance.get("images", 0 if job.run.spec == "scratch" else None)
    row["data_hash"] = job.data_hash
    row["results_version"] = store.RESULTS_VERSION
    return row
