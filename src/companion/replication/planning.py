"""The plan of a replication: what it is made of, what of it is stored, what the rest costs, and its tables."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from companion import store
from companion.datasets import absent, load_dataset
from companion.models import build, refusing_size
from companion.replication.protocol import Replication, Run, expand
from companion.scores import REGISTRY
from companion.sources import CHECKPOINT_SUFFIXES, check_name, checkpoint_file, parse

SCORES = tuple(REGISTRY)


@dataclass
class Plan:
    """What a replication is made of, what of it is stored, and what the rest will cost at most."""

    protocol: Replication
    runs: list[Run]
    hashes: dict[str, str]
    sizes: dict[str, tuple[int, int, int, int]]
    """Dataset -> images in train, val and test, and classes."""
    rows: store.RowStore
    stored: dict[str, dict[str, Any]]
    set_aside: list[Path]
    data_dir: str | None

    @property
    def missing(self) -> list[Run]:
        """Runs without a row."""
        return [run for run in self.runs if run.key not in self.stored]

    def score_runs(self) -> list[Run]:
        """One for every pair and fold, targets as their own sources included, with the key of its row of scores."""
        tuning = self.protocol.fine_tuning
        first = {target: (tuning.seeds[0], tuning.settings(target)[0]) for target in self.protocol.targets}
        return [
            replace(run, key=store.digest({"scores": SCORES, "of": run.key}))
            for run in expand(self.protocol, self.hashes, itself=True)
            if (run.seed, run.settings) == first[run.target]
        ]


def plan(
    protocol: Replication,
    out: str | os.PathLike,
    *,
    data_dir: str | os.PathLike | None = None,
    dry_run: bool = False,
) -> Plan:
    """Look at the data, all of which must be there, and at what is stored already.

    For a `dry_run` nothing is downloaded: MedMNIST sets and CIFAR-10 where they are not here have their published
    numbers of images, and what may be stored of their runs is not found.
    """
    where = None if data_dir is None else os.fspath(data_dir)
    needed = {part for pair in protocol.pairs(itself=True) for part in parse(protocol.spec(*pair)).parts}
    hashes, sizes = {}, {}
    with store.data_directory(where):
        for name in sorted(needed | set(protocol.targets)):
            if dry_run and (counts := absent(name, protocol.size)):
                hashes[name], sizes[name] = "", counts
                continue
            dataset = load_dataset(name, size=protocol.size)
            if name in protocol.targets:
                for number in protocol.fine_tuning.folds:
                    protocol.fold(dataset, number)
            hashes[name] = dataset.content_hash
            train, val, test = (len(dataset.labels.get(split, ())) for split in ("train", "val", "test"))
            sizes[name] = (train, val, test, dataset.n_classes)
        for source in protocol.sources:
            if source.endswith(CHECKPOINT_SUFFIXES):
                check_name(source)
                hashes[source] = store.file_hash(checkpoint_file(source))
    rows, runs = store.RowStore(out), expand(protocol, hashes)
    stored, damaged = rows.read([run.key for run in runs])
    return Plan(protocol, runs, hashes, sizes, rows, stored, damaged, where)


def cost(plan: Plan, *, device: str, workers: int = 1, measured_here: bool = True) -> list[str]:
    """Say in a few lines what there is to do, and what it will cost at most on a device with so many processes.

    Where it runs on this machine (`measured_here`), a few steps of the network are timed for an estimate.
    """
    protocol, missing, tuning = plan.protocol, plan.missing, plan.protocol.fine_tuning
    lines = [
        f"protocol {protocol.name}: {len(plan.runs)} fine-tunings ({len(list(protocol.pairs()))} pairs of source and "
        f"target, {len(tuning.folds)} fold(s), {len(tuning.seeds)} seed(s)), {len(plan.stored)} of them stored in "
        f"{plan.rows.folder}",
        *(f"damaged and set aside, to be made again: {path}" for path in plan.set_aside),
    ]
    if not missing:
        return lines
    to_train = {run.spec for run in missing if parse(run.spec).parts}
    size = len(missing) * (0.0025 + 6e-5 * tuning.epochs) + len(to_train) * 46
    line = f"to do: {len(missing)}, and {len(to_train)} source model(s) where not cached; about {size:.0f} MB"
    if measured_here:
        each = seconds_per_image(protocol.architecture, protocol.size, device)
        minutes = each * _images(plan, to_train) / 60
        most = f"{minutes / 60:.1f} h" if minutes >= 60 else f"{max(1, minutes):.0f} min"
        line += f"; at most {most} here ({1 / each:.0f} images/s measured on {device}); early stops save some"
        line += f", shared by {workers} processes" if workers > 1 else ""
    return [*lines, line]


def _images(plan: Plan, to_train: set[str]) -> float:
    """Images that the missing runs, and the sources to train, take at most; evaluation counts a third."""
    tuning, training = plan.protocol.fine_tuning, plan.protocol.source_training
    total = 0.0
    for run in plan.missing:
        train, val, test, classes = plan.sizes[run.target]
        val = min(val, tuning.val_per_class * classes)
        total += tuning.epochs * (min(train, tuning.train_per_class * classes) + val / 3) + test / 3
    for spec in to_train:
        pooled = sum(plan.sizes[part][0] for part in parse(spec).parts)
        total += training.epochs * (training.images_per_epoch or pooled)
    return total


def seconds_per_image(architecture: str, size: int, device: str) -> float:
    """Time a few training steps of the bare network: the basis of the estimate. About two seconds on a laptop."""
    network = build(architecture, classes=10, seed=0).to(device).train()
    batch, times = torch.zeros((32, 3, size, size), device=device), []
    with refusing_size(architecture, size):
        for _ in range(4):
            began = time.perf_counter()
            network(batch).sum().backward()
            if batch.is_cuda:
                torch.cuda.synchronize()
            times.append(time.perf_counter() - began)
    return float(np.median(times[1:])) / len(batch)


def frames(plan: Plan) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Fine-tuning runs and scores of a plan as tables, with their provenance in ``attrs``."""
    done = [run.key for run in plan.runs if run.key in plan.stored]
    runs = pd.DataFrame([{"key": key, **plan.stored[key]} for key in done])
    rows, _ = plan.rows.read([run.key for run in plan.score_runs()])
    common = ("source", "target", "fold", "seconds", "training_images", "gradient_ratio_folded")
    flat = []
    for row in rows.values():
        for variant in ("corrected", "published"):
            terms = row[f"{variant}_ncti_terms"] or [float("nan")] * 3
            named = {f"ncti_term_{number}": term for number, term in enumerate(terms, start=1)}
            flat.append({name: row[name] for name in common} | {"variant": variant} | row[variant] | named)
    scores = pd.DataFrame(flat)
    about = store.provenance(
        seed=plan.protocol.fine_tuning.seeds[0],
        device=", ".join(sorted(set(runs["device"]))) if len(runs) else None,
        protocol=asdict(plan.protocol),
        data=plan.hashes,
        runs={"stored": len(runs), "planned": len(plan.runs)},
    )
    runs.attrs["provenance"] = scores.attrs["provenance"] = about
    return runs, scores


def write(plan: Plan, tables: tuple[pd.DataFrame, pd.DataFrame]) -> list[Path]:
    """Write what `frames` returned as parquet beside the rows, each whole or not at all; return their paths."""
    paths = [plan.rows.folder / "runs.parquet", plan.rows.folder / "scores.parquet"]
    for path, table in zip(paths, tables, strict=True):
        with store.atomic_path(path) as temporary:
            table.to_parquet(temporary, index=False)
    return paths
