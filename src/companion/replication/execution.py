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
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from companion import __version__, store
from companion.datasets import Dataset, Fold, load_dataset
from companion.errors import CompanionError, EnvironmentFailure, InputError, require_extra
from companion.models import SourceModel, best_device, folded
from companion.replication.planning import SCORES, Plan, score_key
from companion.replication.protocol import Replication, Run, label
from companion.scores import gradient_ratio
from companion.scores.from_images import score_images
from companion.sources import load_source, trained_on
from companion.training import fine_tune

Report = Callable[[float, str], None]
PATIENCE = 10  # seconds until a scheduler has answered
AGAIN = "what is stored is kept: run the same command again to go on"


# Each process keeps what it used last; a trained source also stays in the cache directory of its machine.
_load_dataset = functools.lru_cache(maxsize=2)(load_dataset)
_load_source = functools.lru_cache(maxsize=32)(load_source)


@dataclass(frozen=True)
class Job:
    """Everything a worker needs for one row: plain values, so that any process can be handed it."""

    run: Run
    protocol: Replication
    data_hash: str
    device: str | None
    data_dir: str | None

    @property
    def about(self) -> str:
        """What is done, in words."""
        return f"{label(self.run.spec)} on {self.run.target}"

    def source(self) -> SourceModel:
        """Source model of the run; random weights have the seed of the run."""
        run, protocol = self.run, self.protocol
        return _load_source(
            run.spec,
            target=run.target if run.spec == "medmnist" else None,
            protocol=protocol.source_training,
            architecture=protocol.architecture,
            size=protocol.size,
            seed=run.seed if run.spec == "scratch" else protocol.fine_tuning.seeds[0],
            device=self.device,
            data_dir=self.data_dir,
        )

    def target(self) -> tuple[Dataset, Fold]:
        """Target of the run, which must be that of the plan, and the fold of the run."""
        name = self.run.target
        dataset = _load_dataset(name, size=self.protocol.size, data_dir=self.data_dir)
        if dataset.content_hash != self.data_hash:
            raise InputError(
                f"{name} on this worker is not the {name} of the plan (sha256 {dataset.content_hash[:12]}, wanted "
                f"{self.data_hash[:12]}): give workers the same data"
            )
        return dataset, self.protocol.fold(dataset, self.run.fold)

    def drawn(self) -> tuple[np.ndarray, np.ndarray]:
        """Training images of the fold, and their labels: what is scored."""
        dataset, fold = self.target()
        return dataset.images["train"][fold.train], dataset.labels["train"][fold.train]


def prepare(job: Job) -> None:
    """Load or train the source of a job, so that its other jobs find it in the cache."""
    job.source()


def fine_tune_job(job: Job) -> dict[str, Any]:
    """One fine-tuning; its row."""
    run, (target, fold) = job.run, job.target()
    tuning = job.protocol.fine_tuning
    done = fine_tune(job.source(), target, fold, run.settings, tuning, seed=run.seed, device=job.device)
    versions = {name: importlib.metadata.version(name) for name in ("torch", "kornia")}
    return done.row | {"source": run.source, "spec": run.spec, "companion": __version__, **versions}


def score_job(job: Job) -> dict[str, Any]:
    """Scores of one pair on one fold, corrected and as published, on the same images the fine-tuning trained on."""
    run, model, (images, labels) = job.run, job.source(), job.drawn()
    row: dict[str, Any] = {"source": run.source, "target": run.target, "fold": run.fold}
    began = time.perf_counter()
    for variant in ("corrected", "published"):
        found = score_images(
            model, images, labels, scores=SCORES, variant=variant, seed=run.seed, device=job.device
        )
        row[variant] = dict(found)
        row[f"{variant}_reasons"] = found.reasons
        terms = found.ncti_terms
        row[f"{variant}_ncti_terms"] = None if terms is None else list(map(float, terms))
    row["seconds"] = time.perf_counter() - began
    try:
        row["gradient_ratio_folded"] = gradient_ratio(folded(model), images, labels, device=job.device)
    except (ValueError, torch.fx.proxy.TraceError):  # no ratio at all, or a network that cannot be traced
        row["gradient_ratio_folded"] = None
    row["training_images"] = model.provenance.get("images", 0 if run.spec == "scratch" else None)
    return row | {"data_hash": job.data_hash, "results_version": store.RESULTS_VERSION}


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
    chosen = device if scheduler else str(best_device(device))

    def job_of(run: Run) -> Job:
        return Job(run, plan.protocol, plan.hashes[run.target], chosen, plan.data_dir)

    todo, scored = [job_of(run) for run in plan.missing], []
    if scores:
        keys = {score_key(run): run for run in plan.score_runs()}
        there, _ = plan.rows.read(keys)
        scored = [job_of(replace(run, key=key)) for key, run in keys.items() if key not in there]
    first = {job.run.spec: job for job in reversed([*todo, *scored]) if trained_on(job.run.spec)}
    stages: tuple[tuple[str, Callable[[Job], Any], list[Job]], ...] = (
        ("source models", prepare, list(first.values())),
        ("scores", score_job, scored),  # minutes, so before the hours
        ("fine-tuning", fine_tune_job, todo),
    )
    tell = report or (lambda _fraction, _text: None)
    with _cluster(scheduler) as client:
        for what, function, jobs in stages:
            if jobs:
                tell(0.0, f"{what}: {len(jobs)} to do")
            for number, (job, row) in enumerate(_results(function, jobs, workers, client), start=1):
                if row is not None:
                    plan.rows.write(job.run.key, row)
                about = job.run.source if row is None else f"{job.run.source} on {job.run.target}"
                tell(number / len(jobs), f"{what} {number} of {len(jobs)}: {about}")
    plan.stored, damaged = plan.rows.read([run.key for run in plan.runs])
    plan.set_aside = [*plan.set_aside, *damaged]
    return plan


def _results(
    function: Callable[[Job], Any], jobs: list[Job], workers: int, client: Any
) -> Iterator[tuple[Job, Any]]:
    """Yield every job with its result as soon as it is there."""
    if not jobs:
        return
    if client is not None:
        yield from _on_cluster(function, jobs, client)
        return
    from joblib import Parallel, delayed, parallel_config
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    threads = max(1, torch.get_num_threads() // workers)  # each process has its share of the cores
    with parallel_config("loky", n_jobs=workers, inner_max_num_threads=threads):
        parallel = Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch="2*n_jobs")
        try:
            yield from parallel(delayed(_done)(function, job) for job in jobs)
        except TerminatedWorkerError as error:
            problem = "a worker process died (out of memory?)"
            raise EnvironmentFailure(f"{problem}; {AGAIN}, with fewer --workers") from error


def _on_cluster(function: Callable[[Job], Any], jobs: list[Job], client: Any) -> Iterator[tuple[Job, Any]]:
    """As `_results`. Joblib's own Dask backend waits for ever where a worker that is killed takes a task with it."""
    distributed = require_extra("distributed", "cluster")
    futures = {client.submit(_done, function, job, pure=False): job for job in jobs}
    for future in distributed.as_completed(futures, loop=client.loop):
        try:
            yield future.result()
        except Exception as error:
            if not type(error).__module__.startswith(("distributed", "concurrent", "asyncio")):
                raise
            lost = f"Dask lost its workers at {futures[future].about}"
            raise EnvironmentFailure(f"{lost}; {AGAIN}") from error


def _done(function: Callable[[Job], Any], job: Job) -> tuple[Job, Any]:
    """Do a job; a mistake names it."""
    try:
        return job, function(job)
    except CompanionError as error:
        raise type(error)(f"{job.about}: {error}; {AGAIN}") from error


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
        if problem := _problem(client, scheduler):
            raise EnvironmentFailure(problem)
        yield client


def _problem(client: Any, scheduler: str) -> str | None:
    """Why the workers of a cluster cannot do the work."""
    workers, distribution = client.scheduler_info(n_workers=-1)["workers"], "transferability-companion"
    if not workers:
        return f"the Dask scheduler at {scheduler} has no workers: start some, then try again"
    for address, about in workers.items():
        # torch's random state belongs to the process: two runs in one process would disturb each other.
        if about["nthreads"] > 1:
            many = f"runs {about['nthreads']} tasks at a time in one process"
            return f"Dask worker {address} {many}: start workers with  --nthreads 1"
    for address, found in client.get_versions(packages=[distribution])["workers"].items():
        if found["packages"].get(distribution) != __version__:
            return f"Dask worker {address} has no {distribution} {__version__}: install it there"
    return None
