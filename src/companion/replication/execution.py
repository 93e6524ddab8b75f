"""Do what a plan has left: here, in several processes, or on a Dask cluster.

Whatever does the work, rows come back to this process, which writes each as soon as it is there. Killing it, or a
worker, costs the runs in flight and nothing else.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from companion import __version__, store
from companion.datasets import Dataset, Fold, load_dataset
from companion.errors import CompanionError, EnvironmentFailure, InputError, require_extra
from companion.models import SourceModel, best_device, folded
from companion.replication.planning import SCORES, Plan
from companion.replication.protocol import Run
from companion.scores import gradient_ratio
from companion.scores.from_images import score_images
from companion.sources import load_source, parse
from companion.training import fine_tune
from companion.training.loop import Report

DISTRIBUTION = "transferability-companion"
PATIENCE = 10  # seconds until a scheduler has answered
AGAIN = "what is stored is kept: run the same command again to go on"
Work = Callable[[Run], Any]

# Each process keeps what it used last; a trained source also stays in the cache directory of its machine.
_load_dataset = functools.lru_cache(maxsize=2)(load_dataset)
_load_source = functools.lru_cache(maxsize=32)(load_source)


def source_of(run: Run, device: str | None, data_dir: str | None = None) -> SourceModel:
    """Source model of a run; random weights have the seed of the run."""
    protocol = run.protocol
    return _load_source(
        run.spec,
        target=run.target if run.spec == "medmnist" else None,
        protocol=protocol.source_training,
        architecture=protocol.architecture,
        size=protocol.size,
        seed=run.seed if run.spec == "scratch" else protocol.fine_tuning.seeds[0],
        device=device,
        data_dir=data_dir,
    )


def target_of(run: Run, data_dir: str | None = None) -> tuple[Dataset, Fold]:
    """Target of a run, which must be that of the plan, and the fold of the run."""
    dataset = _load_dataset(run.target, size=run.protocol.size, data_dir=data_dir)
    if dataset.content_hash != run.data_hash:
        raise InputError(
            f"{run.target} on this worker is not the {run.target} of the plan (sha256 {dataset.content_hash[:12]}, "
            f"wanted {run.data_hash[:12]}): give workers the same data"
        )
    return dataset, run.protocol.fold(dataset, run.fold)


def images_of(run: Run, data_dir: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Training images of the fold of a run, and their labels: what is scored."""
    dataset, fold = target_of(run, data_dir)
    return dataset.images["train"][fold.train], dataset.labels["train"][fold.train]


def prepare(run: Run, device: str | None, data_dir: str | None) -> None:
    """Load or train the source of a run, so that the other runs find it in the cache."""
    source_of(run, device, data_dir)


def fine_tune_run(run: Run, device: str | None, data_dir: str | None) -> dict[str, Any]:
    """One fine-tuning; its row."""
    target, fold = target_of(run, data_dir)
    model, tuning = source_of(run, device, data_dir), run.protocol.fine_tuning
    done = fine_tune(model, target, fold, run.settings, tuning, seed=run.seed, device=device)
    versions = {name: importlib.metadata.version(name) for name in ("torch", "kornia")}
    return done.row | {"source": run.source, "spec": run.spec, "companion": __version__, **versions}


def score_run(run: Run, device: str | None, data_dir: str | None) -> dict[str, Any]:
    """Scores of one pair on one fold, corrected and as published, on the same images the fine-tuning trained on."""
    model, (images, labels) = source_of(run, device, data_dir), images_of(run, data_dir)
    row: dict[str, Any] = {"source": run.source, "target": run.target, "fold": run.fold}
    began = time.perf_counter()
    for variant in ("corrected", "published"):
        found = score_images(
            model, images, labels, scores=SCORES, variant=variant, seed=run.seed, device=device
        )
        row[variant] = dict(found)
        row[f"{variant}_reasons"] = found.reasons
        terms = found.ncti_terms
        row[f"{variant}_ncti_terms"] = None if terms is None else list(map(float, terms))
    row["seconds"] = time.perf_counter() - began
    try:
        row["gradient_ratio_folded"] = gradient_ratio(folded(model), images, labels, device=device)
    except (ValueError, torch.fx.proxy.TraceError):  # no ratio at all, or a network that cannot be traced
        row["gradient_ratio_folded"] = None
    row["training_images"] = model.provenance.get("images", 0 if run.spec == "scratch" else None)
    return row | {"data_hash": run.data_hash, "results_version": store.RESULTS_VERSION}


def execute(
    plan: Plan,
    *,
    workers: int = 1,
    scheduler: str | None = None,
    device: str | None = None,
    scores: bool = True,
    report: Report | None = None,
) -> Plan:
    """Score every pair, unless `scores` is False, then do the runs that are missing; return the plan, all stored.

    Parameters
    ----------
    workers
        Processes on this machine; 1 works in this one.
    scheduler
        Address of a running Dask scheduler; its workers then do the work.
    device
        Of the workers; on a cluster each worker looks for its own unless one is named.
    report
        Called after every row with the fraction done and a line of text.

    Raises
    ------
    EnvironmentFailure
        If workers die, the disk is full or memory runs out; what is stored stays, and running again goes on. If the
        scheduler does not answer, has no workers, or these lack this package or run several tasks in one process.
    """
    where = {"device": device if scheduler else str(best_device(device)), "data_dir": plan.data_dir}
    todo, to_score = plan.missing, plan.score_runs() if scores else []
    there, _ = plan.rows.read([run.key for run in to_score])
    to_score = [run for run in to_score if run.key not in there]
    first = {run.spec: run for run in reversed([*todo, *to_score]) if parse(run.spec).parts}
    stages: tuple[tuple[str, Callable[..., Any], list[Run]], ...] = (
        ("source models", prepare, list(first.values())),
        ("scores", score_run, to_score),  # minutes, so before the hours
        ("fine-tuning", fine_tune_run, todo),
    )
    tell = report or (lambda _fraction, _text: None)
    with _cluster(scheduler) as client:
        for what, function, runs in stages:
            if not runs:
                continue
            tell(0.0, f"{what}: {len(runs)} to do")
            work = functools.partial(_done, functools.partial(function, **where))
            results = _on_cluster(work, runs, client) if client else _here(work, runs, workers)
            for number, (run, row) in enumerate(results, start=1):
                if row is not None:
                    plan.rows.write(run.key, row)
                about = run.source if row is None else f"{run.source} on {run.target}"
                tell(number / len(runs), f"{what} {number} of {len(runs)}: {about}")
    plan.stored, damaged = plan.rows.read([run.key for run in plan.runs])
    plan.set_aside = [*plan.set_aside, *damaged]
    return plan


def _done(function: Work, run: Run) -> tuple[Run, dict[str, Any] | None]:
    """A run with its row, where it has one; a mistake names it."""
    try:
        return run, function(run)
    except (CompanionError, torch.OutOfMemoryError) as error:
        kind = type(error) if isinstance(error, CompanionError) else EnvironmentFailure
        raise kind(f"{run.source} on {run.target}: {error}; {AGAIN}") from error


def _here(work: Work, runs: list[Run], workers: int) -> Iterator[tuple[Run, Any]]:
    """Yield every run with its row as soon as it is there."""
    from joblib import Parallel, delayed, parallel_config
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    threads = max(1, torch.get_num_threads() // workers)  # each process has its share of the cores
    with parallel_config("loky", n_jobs=workers, inner_max_num_threads=threads):
        parallel = Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch="2*n_jobs")
        try:
            yield from parallel(delayed(work)(run) for run in runs)
        except TerminatedWorkerError as error:
            problem = "a worker process died (out of memory?)"
            raise EnvironmentFailure(f"{problem}; {AGAIN}, with fewer --workers") from error


def _on_cluster(work: Work, runs: list[Run], client: Any) -> Iterator[tuple[Run, Any]]:
    """As `_here`. Joblib's own Dask backend waits for ever where a worker that is killed takes a task with it."""
    distributed = require_extra("distributed", "cluster")
    futures = {client.submit(work, run, pure=False): run for run in runs}
    for future in distributed.as_completed(futures, loop=client.loop):
        try:
            yield future.result()
        except Exception as error:
            if not type(error).__module__.startswith(("distributed", "concurrent", "asyncio")):
                raise
            lost = f"Dask lost its workers at {futures[future].source} on {futures[future].target}"
            raise EnvironmentFailure(f"{lost}; {AGAIN}") from error


@contextlib.contextmanager
def _cluster(scheduler: str | None) -> Iterator[Any]:
    """Client of a Dask cluster whose workers can do the work, or None where no scheduler is named."""
    if scheduler is None:
        yield None
        return
    distributed = require_extra("distributed", "cluster")
    try:
        client = distributed.Client(scheduler, timeout=PATIENCE, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        advice = "start one with  dask scheduler  or correct the address"
        raise EnvironmentFailure(f"no Dask scheduler answers at {scheduler}: {advice}") from error
    with client:
        workers = client.scheduler_info(n_workers=-1)["workers"]
        versions = client.get_versions(packages=[DISTRIBUTION])["workers"]
        if not workers:
            raise EnvironmentFailure(
                f"the Dask scheduler at {scheduler} has no workers: start some, then try again"
            )
        # torch's random state belongs to the process: two runs in one process would disturb each other.
        if any(about["nthreads"] > 1 for about in workers.values()):
            problem = f"a worker at {scheduler} runs several tasks at a time in one process"
            raise EnvironmentFailure(f"{problem}: start workers with  --nthreads 1")
        if any(found["packages"].get(DISTRIBUTION) != __version__ for found in versions.values()):
            raise EnvironmentFailure(
                f"a worker at {scheduler} has no {DISTRIBUTION} {__version__}: install it there"
            )
        yield client
