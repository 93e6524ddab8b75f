"""Do what a plan has left: here, in several processes, or on a Dask cluster.

Whatever does the work, rows come back to this process, which writes each as soon as it is there. Killing it, or a
worker, costs the runs in flight and nothing else.
"""

from __future__ import annotations

import concurrent.futures as futures
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from typing import Any

from companion import store
from companion.errors import CompanionError, EnvironmentFailure
from companion.models import best_device
from companion.replication.engines import OnCluster, engine
from companion.replication.jobs import Job, fine_tune_job, prepare, score_job
from companion.replication.planning import Plan, score_key
from companion.replication.protocol import Run, label
from companion.sources import trained_on

Report = Callable[[float, str], None]
LOOK_EVERY = 5.0  # seconds, whether the workers are still there


def execute(
    plan: Plan,
    *,
    workers: int = 1,
    scheduler: str | None = None,
    device: str | None = None,
    scores: bool = True,
    report: Report | None = None,
) -> Plan:
    """Score every pair, then do the runs that are missing; return the plan with everything stored.

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
    EnvironmentFailure
        If workers die, the disk is full or memory runs out; what is stored stays, and running again goes on.
    """
    chosen = device or "auto" if scheduler else str(best_device(device))

    def job_of(run: Run) -> Job:
        return Job(run, plan.protocol, plan.hashes[run.target], chosen, plan.data_dir)

    counted = _Counter(report)
    with engine(workers=workers, scheduler=scheduler) as (executor, width):
        todo = [job_of(run) for run in plan.missing]
        scored = [_to_score(job_of(run)) for run in plan.score_runs()] if scores else []
        left = plan.rows.read([job.run.key for job in scored])[0]
        scored = [job for job in scored if job.run.key not in left]
        first = {job.run.spec: job for job in reversed([*todo, *scored]) if trained_on(job.run.spec)}
        counted.begin(len(first), "source models")
        _work(executor, width, prepare, list(first.values()), None, counted)
        counted.begin(len(scored), "scores")  # minutes, so before the hours
        _work(executor, width, score_job, scored, plan.rows, counted)
        counted.begin(len(todo), "fine-tuning")
        _work(executor, width, fine_tune_job, todo, plan.rows, counted)
    plan.stored, damaged = plan.rows.read([run.key for run in plan.runs])
    plan.set_aside = [*plan.set_aside, *damaged]
    return plan


def _to_score(job: Job) -> Job:
    return replace(job, run=replace(job.run, key=score_key(job.run)))


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
    at_work: dict[futures.Future, Job] = {}
    try:
        while True:
            while len(at_work) < (2 * width if width > 1 else 1):
                job = next(waiting, None)
                if job is None:
                    break
                if rows is not None and rows.path(job.run.key).exists():  # another process did it meanwhile
                    counted.step(job)
                    continue
                at_work[executor.submit(function, job)] = job
            if not at_work:
                return
            finished, _ = futures.wait(at_work, timeout=LOOK_EVERY, return_when=futures.FIRST_COMPLETED)
            if not finished and isinstance(executor, OnCluster):
                executor.check()
            for future in finished:
                job = at_work.pop(future)
                result = _result(future, job)
                if rows is not None:
                    rows.write(job.run.key, result)
                counted.step(job)
    finally:
        for future in at_work:
            future.cancel()


def _result(future: futures.Future, job: Job) -> Any:
    about = f"{label(job.run.spec)} on {job.run.target}"
    again = "what is stored is kept: run the same command again to go on"
    try:
        return future.result()
    except CompanionError as error:
        raise type(error)(f"{about}: {error}; {again}") from error
    except BrokenProcessPool as error:
        raise EnvironmentFailure(
            f"a worker process died at {about} (out of memory?); {again}, with fewer --workers"
        ) from error
    except Exception as error:
        if type(error).__name__ in (
            "KilledWorker",
            "CommClosedError",
            "CancelledError",
            "FutureCancelledError",
        ):
            raise EnvironmentFailure(f"Dask lost its workers at {about}; {again}") from error
        raise
