"""Run a replication: here, in several processes, or on a Dask cluster, and go on where an earlier run stopped.

Whatever does the work, rows come back to this process, which writes each as soon as it is there. Killing it, or a
worker, costs the runs in flight and nothing else.
"""

from __future__ import annotations

import concurrent.futures as futures
import contextlib
import functools
import importlib.metadata
import importlib.util
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from companion import __version__, ranking, store
from companion.datasets import Dataset, fold, load_dataset
from companion.errors import CompanionError, InputError, SurroundingsError, require_extra
from companion.models import SourceModel, best_device, build, to_batch
from companion.replication.protocol import Replication, Run, label, runs, trained_on
from companion.scores import REGISTRY
from companion.sources import load_source
from companion.training import SourceProtocol, fine_tune
from companion.training.protocols import as_dict

Report = Callable[[float, str], None]
SCORES = tuple(REGISTRY)


# --- what is done on a worker: functions of plain values, so that any engine can carry them -----------------


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

    def fold(self) -> Any:
        """Fold of the run."""
        tuning = self.protocol.fine_tuning
        return fold(
            self.target(),
            self.run.fold,
            seed=tuning.fold_seed,
            train_per_class=tuning.train_per_class,
            val_per_class=tuning.val_per_class,
        )


def _prepare(job: Job) -> str:
    job.source()
    return job.run.spec


def _fine_tune(job: Job) -> dict[str, Any]:
    done = fine_tune(
        job.source(),
        job.target(),
        job.fold(),
        job.run.settings,
        job.protocol.fine_tuning,
        seed=job.run.seed,
        device=job.device,
    )
    versions = {name: importlib.metadata.version(name) for name in ("torch", "kornia")}
    return done.row | {"source": job.run.source, "spec": job.run.spec, "companion": __version__, **versions}


def _score(job: Job) -> dict[str, Any]:
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
    row["training_images"] = model.provenance.get("images", 0 if job.run.spec == "scratch" else None)
    row["data_hash"] = job.data_hash
    row["results_version"] = store.RESULTS_VERSION
    return row


# --- engines: everything that has submit() of concurrent.futures --------------------------------------------


class Here(futures.Executor):
    """Does the work in this process, at once."""

    def submit(self, function, /, *args, **kwargs):  # noqa: D102
        done: futures.Future = futures.Future()
        try:
            done.set_result(function(*args, **kwargs))
        except Exception as error:  # as an executor does: the exception belongs to the future
            done.set_exception(error)
        return done


def _one_share(threads: int) -> None:
    torch.set_num_threads(threads)


@contextlib.contextmanager
def engine(*, workers: int = 1, scheduler: str | None = None) -> Iterator[tuple[futures.Executor, int]]:
    """Yield an executor and how many runs it does at a time.

    Parameters
    ----------
    workers
        Processes on this machine; 1 works in this one.
    scheduler
        Address of a running Dask scheduler; its workers then do the work.

    Raises
    ------
    SurroundingsError
        If the scheduler does not answer, has no workers, or these lack this package or its version, or run several
        tasks in one process.
    """
    if scheduler is not None:
        distributed = require_extra("distributed", "cluster")
        try:
            client = distributed.Client(scheduler, timeout=10, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise SurroundingsError(
                f"no Dask scheduler answers at {scheduler}: start one with  dask scheduler  or mend the address"
            ) from error
        with client:
            yield client.get_executor(), _check_workers(client, scheduler)
    elif workers > 1:
        context = multiprocessing.get_context("spawn")
        threads = max(1, torch.get_num_threads() // workers)
        pool = futures.ProcessPoolExecutor(workers, context, initializer=_one_share, initargs=(threads,))
        try:
            yield pool, workers
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    else:
        yield Here(), 1


def _check_workers(client: Any, scheduler: str) -> int:
    found = client.scheduler_info(n_workers=-1)["workers"]
    if not found:
        raise SurroundingsError(
            f"the Dask scheduler at {scheduler} has no workers: start some, then try again"
        )
    # torch's random state belongs to the process: two runs in one process would disturb each other.
    crowded = [address for address, about in found.items() if about["nthreads"] > 1]
    if crowded:
        raise SurroundingsError(
            f"Dask worker {crowded[0]} runs {found[crowded[0]]['nthreads']} tasks at a time in one process: start "
            "workers with  --nthreads 1"
        )
    lacking = [
        address for address, spec in client.run(importlib.util.find_spec, "companion").items() if not spec
    ]
    if lacking:
        raise SurroundingsError(
            f"Dask worker {lacking[0]} has no package companion: install transferability-companion=={__version__} there"
        )
    versions = client.run(importlib.metadata.version, "transferability-companion")
    other = [address for address, version in versions.items() if version != __version__]
    if other:
        raise SurroundingsError(
            f"Dask worker {other[0]} has transferability-companion {versions[other[0]]}, this is {__version__}: "
            "install one version everywhere"
        )
    return len(found)


# --- the plan and its execution ------------------------------------------------------------------------------


@dataclass
class Plan:
    """What a replication is made of, what of it is stored, and what the rest will cost at most."""

    protocol: Replication
    runs: list[Run]
    hashes: dict[str, str]
    sizes: dict[str, tuple[int, int, int, int]]
    rows: store.RowStore
    stored: dict[str, dict[str, Any]]
    set_aside: list[Any]
    data_dir: str | None

    @property
    def missing(self) -> list[Run]:
        """Runs without a row."""
        return [run for run in self.runs if run.key not in self.stored]

    def score_runs(self) -> list[Run]:
        """One for every pair and fold: the scores need neither settings nor several seeds."""
        first: dict[tuple[str, str, int], Run] = {}
        for run in self.runs:
            first.setdefault((run.source, run.target, run.fold), run)
        return list(first.values())

    def images(self) -> int:
        """Images that the missing runs pass through a network at most; evaluation counts a third."""
        tuning = self.protocol.fine_tuning
        total = 0.0
        for run in self.missing:
            n_train, n_val, n_test, classes = self.sizes[run.target]
            train = min(n_train, tuning.train_per_class * classes)
            val = min(n_val, tuning.val_per_class * classes)
            total += tuning.epochs * (train + val / 3) + n_test / 3
        training = self.protocol.source_training
        for spec in self.to_train():
            size = training.images_per_epoch or sum(self.sizes[part][0] for part in trained_on(spec))
            total += training.epochs * size
        return round(total)

    def to_train(self) -> list[str]:
        """Sources that the missing runs need and that are trained here."""
        return sorted({run.spec for run in self.missing if trained_on(run.spec)})

    def disk(self) -> int:
        """Bytes the missing rows and sources take, about."""
        rows = len(self.missing) * (2500 + 60 * self.protocol.fine_tuning.epochs)
        return rows + len(self.to_train()) * 46_000_000


def plan(protocol: Replication, out: str | os.PathLike, *, data_dir: str | os.PathLike | None = None) -> Plan:
    """Look at the data and at what is stored already.

    Raises
    ------
    InputError, SurroundingsError
        If a dataset is missing or cannot be a target, or the folder cannot be written.
    """
    where = None if data_dir is None else os.fspath(data_dir)
    targets = set(protocol.targets)
    needed = {part for pair in protocol.pairs() for part in trained_on(protocol.spec(*pair))}
    hashes, sizes = {}, {}
    for name in sorted(needed | targets):
        dataset = load_dataset(name, size=protocol.size, data_dir=where)
        if name in targets:
            for number in protocol.fine_tuning.folds:
                fold(
                    dataset,
                    number,
                    seed=protocol.fine_tuning.fold_seed,
                    train_per_class=protocol.fine_tuning.train_per_class,
                    val_per_class=protocol.fine_tuning.val_per_class,
                )
        hashes[name] = dataset.content_hash
        n_train, n_val, n_test = (len(dataset.labels.get(split, ())) for split in ("train", "val", "test"))
        sizes[name] = (n_train, n_val, n_test, dataset.n_classes)
    rows = store.RowStore(out)
    expanded = runs(protocol, hashes)
    stored, damaged = rows.read([run.key for run in expanded])
    return Plan(protocol, expanded, hashes, sizes, rows, stored, damaged, where)


def seconds_per_image(architecture: str, size: int, device: str, batch_size: int = 32) -> float:
    """Time a few training steps of the bare network: the basis of the estimate. About two seconds on a laptop."""
    import numpy as np

    network = build(architecture, classes=10, seed=0).to(device).train()
    images = to_batch(
        np.zeros((batch_size, size, size), np.uint8), ((0.5,) * 3, (0.5,) * 3), torch.device(device)
    )
    times = []
    for _ in range(4):
        began = time.perf_counter()
        network(images).sum().backward()
        if images.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return sorted(times[1:])[1] / batch_size


def execute(
    plan: Plan,
    *,
    workers: int = 1,
    scheduler: str | None = None,
    device: str | None = None,
    scores: bool = True,
    report: Report | None = None,
) -> Plan:
    """Do what is missing, then score every pair; return the plan with everything stored.

    Parameters
    ----------
    plan
        As `plan` made it.
    workers, scheduler
        See `engine`.
    device
        Of the workers; on a cluster each worker looks for its own unless one is named.
    scores
        Also compute all scores of every pair and fold.
    report
        Called after every row with the fraction done and a line of text.

    Raises
    ------
    SurroundingsError
        If workers die, the disk is full or memory runs out; what is stored stays, and running again goes on.
    """
    chosen = device or "auto" if scheduler else str(best_device(device))
    jobs = [Job(r, plan.protocol, plan.hashes[r.target], chosen, plan.data_dir) for r in plan.runs]
    by_key = {job.run.key: job for job in jobs}
    counted = _Counter(report)
    with engine(workers=workers, scheduler=scheduler) as (executor, width):
        todo = [by_key[run.key] for run in plan.missing]
        scored = [_score_job(by_key[run.key]) for run in plan.score_runs()] if scores else []
        left = plan.rows.read([job.run.key for job in scored])[0]
        scored = [job for job in scored if job.run.key not in left]
        first = {job.run.spec: job for job in reversed([*todo, *scored]) if trained_on(job.run.spec)}
        counted.begin(len(first), "source models")
        _work(executor, width, _prepare, list(first.values()), None, counted)
        counted.begin(len(todo), "fine-tuning")
        _work(executor, width, _fine_tune, todo, plan.rows, counted)
        counted.begin(len(scored), "scores")
        _work(executor, width, _score, scored, plan.rows, counted)
    plan.stored, damaged = plan.rows.read([run.key for run in plan.runs])
    plan.set_aside = [*plan.set_aside, *damaged]
    return plan


def _score_job(job: Job) -> Job:
    run = job.run
    key = store.digest({"scores": SCORES, "of": run.key})
    renamed = Run(run.source, run.spec, run.target, run.fold, run.seed, run.settings, key)
    return Job(renamed, job.protocol, job.data_hash, job.device, job.data_dir)


class _Counter:
    """Progress over the rows of one stage."""

    def __init__(self, report: Report | None) -> None:
        self.report = report

    def begin(self, total: int, what: str) -> None:
        self.total, self.what, self.done = total, what, 0
        if self.report and total:
            self.report(0.0, f"{what}: {total} to do")

    def step(self, job: Job) -> None:
        self.done += 1
        if self.report:
            about = (
                f"{job.run.source} on {job.run.target}" if self.what != "source models" else job.run.source
            )
            self.report(self.done / self.total, f"{self.what} {self.done} of {self.total}: {about}")


def _work(
    executor: futures.Executor,
    width: int,
    function: Callable[[Job], Any],
    jobs: list[Job],
    rows: store.RowStore | None,
    counted: _Counter,
) -> None:
    """Keep `width` jobs at work and one more waiting for each; write every row as it comes."""
    waiting = iter(jobs)
    at_work: dict[futures.Future, tuple[Job, contextlib.ExitStack]] = {}
    try:
        while True:
            while len(at_work) < (2 * width if width > 1 else 1):
                job = next(waiting, None)
                if job is None:
                    break
                claim = contextlib.ExitStack()
                if rows is not None:
                    free = claim.enter_context(rows.claim(job.run.key))
                    if not free or rows.path(job.run.key).exists():  # another process has it, or had it
                        claim.close()
                        counted.step(job)
                        continue
                at_work[executor.submit(function, job)] = job, claim
            if not at_work:
                return
            finished, _ = futures.wait(at_work, return_when=futures.FIRST_COMPLETED)
            for future in finished:
                job, claim = at_work.pop(future)
                with claim:
                    result = _result(future, job)
                    if rows is not None:
                        rows.write(job.run.key, result)
                counted.step(job)
    finally:
        for future, (_, claim) in at_work.items():
            future.cancel()
            claim.close()


def _result(future: futures.Future, job: Job) -> Any:
    about = f"{label(job.run.spec)} on {job.run.target}"
    again = "what is stored is kept: run the same command again to go on"
    try:
        return future.result()
    except CompanionError as error:
        raise type(error)(f"{about}: {error}; {again}") from error
    except BrokenProcessPool as error:
        raise SurroundingsError(
            f"a worker process died at {about} (out of memory?); {again}, with fewer --workers"
        ) from error
    except Exception as error:
        if type(error).__name__ in (
            "KilledWorker",
            "CommClosedError",
            "CancelledError",
            "FutureCancelledError",
        ):
            raise SurroundingsError(f"Dask lost its workers at {about}; {again}") from error
        raise


def frames(plan: Plan) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Fine-tuning runs and scores of a plan as tables, with their provenance in ``attrs``."""
    runs_table = pd.DataFrame(
        [{"key": run.key, **plan.stored[run.key]} for run in plan.runs if run.key in plan.stored]
    )
    score_rows, _ = plan.rows.read([_score_key(run) for run in plan.score_runs()])
    flat = []
    for row in score_rows.values():
        kept = {
            k: v for k, v in row.items() if k in ("source", "target", "fold", "seconds", "training_images")
        }
        for variant in ("corrected", "published"):
            terms = row[f"{variant}_ncti_terms"] or [float("nan")] * 3
            named = dict(zip(("ncti_term_1", "ncti_term_2", "ncti_term_3"), terms, strict=True))
            flat.append(kept | {"variant": variant} | row[variant] | named)
    scores_table = pd.DataFrame(flat)
    about = store.provenance(
        seed=plan.protocol.fine_tuning.seeds[0],
        device=", ".join(sorted(set(runs_table["device"]))) if len(runs_table) else None,
        protocol=as_dict(plan.protocol),
        data=plan.hashes,
        runs={"stored": len(runs_table), "planned": len(plan.runs)},
    )
    for table in (runs_table, scores_table):
        table.attrs["provenance"] = about
    return runs_table, scores_table


def _score_key(run: Run) -> str:
    return store.digest({"scores": SCORES, "of": run.key})
