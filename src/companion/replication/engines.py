"""Engines: what carries jobs to where they are done. Each has ``submit()`` as in `concurrent.futures`."""

from __future__ import annotations

import concurrent.futures as futures
import contextlib
import importlib.metadata
import importlib.util
import multiprocessing
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from companion import __version__
from companion.errors import EnvironmentFailure, require_extra

PATIENCE = 60  # seconds without a worker


class Here(futures.Executor):
    """Does the work in this process, at once."""

    def submit(self, function, /, *args, **kwargs):  # noqa: D102
        done: futures.Future = futures.Future()
        try:
            done.set_result(function(*args, **kwargs))
        except Exception as error:  # as an executor does: the exception belongs to the future
            done.set_exception(error)
        return done


class OnCluster(futures.Executor):
    """Hands work to a Dask cluster, which waits for ever where its workers are gone for good; this tells."""

    def __init__(self, client: Any, scheduler: str) -> None:
        self._client, self._scheduler = client, scheduler
        self._executor = client.get_executor()
        self._alone_since: float | None = None

    def submit(self, function, /, *args, **kwargs):  # noqa: D102
        return self._executor.submit(function, *args, **kwargs)

    def check(self) -> None:
        """Look for workers; call it now and then while nothing finishes.

        Raises
        ------
        EnvironmentFailure
            If there has been none for a minute: a worker that died is started again sooner, where it is at all.
        """
        if self._client.scheduler_info(n_workers=-1)["workers"]:
            self._alone_since = None
            return
        self._alone_since = self._alone_since or time.monotonic()
        if time.monotonic() - self._alone_since >= PATIENCE:
            raise EnvironmentFailure(
                f"the Dask scheduler at {self._scheduler} has had no workers for {PATIENCE} s: start some; what is "
                "stored is kept, and the same command goes on"
            )


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
    EnvironmentFailure
        If the scheduler does not answer, has no workers, or these lack this package or its version, or run several
        tasks in one process.
    """
    if scheduler is not None:
        distributed = require_extra("distributed", "cluster")
        try:
            client = distributed.Client(scheduler, timeout=10, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise EnvironmentFailure(
                f"no Dask scheduler answers at {scheduler}: start one with  dask scheduler  or mend the address"
            ) from error
        with client:
            yield OnCluster(client, scheduler), _check_workers(client, scheduler)
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
        raise EnvironmentFailure(
            f"the Dask scheduler at {scheduler} has no workers: start some, then try again"
        )
    # torch's random state belongs to the process: two runs in one process would disturb each other.
    crowded = [address for address, about in found.items() if about["nthreads"] > 1]
    if crowded:
        raise EnvironmentFailure(
            f"Dask worker {crowded[0]} runs {found[crowded[0]]['nthreads']} tasks at a time in one process: start "
            "workers with  --nthreads 1"
        )
    specs = _ask(client, scheduler, importlib.util.find_spec, "companion")
    lacking = [address for address, spec in specs.items() if not spec]
    if lacking:
        raise EnvironmentFailure(
            f"Dask worker {lacking[0]} has no package companion: install transferability-companion=={__version__} there"
        )
    versions = _ask(client, scheduler, importlib.metadata.version, "transferability-companion")
    other = [address for address, version in versions.items() if version != __version__]
    if other:
        raise EnvironmentFailure(
            f"Dask worker {other[0]} has transferability-companion {versions[other[0]]}, this is {__version__}: "
            "install one version everywhere"
        )
    return len(found)


def _ask(client: Any, scheduler: str, function: Callable[[str], Any], argument: str) -> dict[str, Any]:
    """Answer of every worker to a question; one that dies while it is asked is left out, the others can work."""
    answers = client.run(function, argument, on_error="return")
    alive = {address: answer for address, answer in answers.items() if not isinstance(answer, OSError)}
    if not alive:
        raise EnvironmentFailure(
            f"the workers of the Dask scheduler at {scheduler} died while they were asked what they have: see their "
            "logs, then try again"
        )
    return alive
