"""A replication whose process and whose workers are killed again and again, against one that ran through.

``make check-faults`` runs this; it takes minutes.
"""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import replicating
from companion import replication
from companion.errors import EnvironmentFailure

pytestmark = pytest.mark.faults
KILLS = 20


@pytest.fixture(scope="module")
def through(tmp_path_factory, _session_directories):
    """The protocol, and the rows of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("through")
    path = replicating.write(
        folder / "tiny.yaml", epochs=3, lr="[0.02, 0.01, 0.005, 0.002, 0.001]", folds="[1, 2, 3]"
    )
    plan = replication.execute(replication.plan(replication.read(path), folder / "out"), scores=False)
    assert not plan.missing and len(plan.runs) == 45
    return path, replicating.timeless(replication.frames(plan)[0])


def opened(path: Path, out: Path) -> replication.Plan:
    """The store after a death: it opens, every row in it is whole, and nothing was set aside."""
    plan = replication.plan(replication.read(path), out)
    assert not plan.set_aside
    return plan


def rows_in(out: Path) -> int:
    """How many rows a store holds while another process writes to it."""
    return sum(path.suffix == ".json" for path in (out / "rows").glob("*"))


def test_the_process_is_killed_at_random_moments(through, tmp_path):
    path, expected = through
    chance, kills, round_, stored, deaths_with_rows = random.Random(0), 0, 0, 0, 0
    out = tmp_path / "0"
    command = [sys.executable, "-c", "from companion.cli import main; main()", "replicate", str(path)]
    while kills < KILLS:
        process = subprocess.Popen(
            [*command, "--out", str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        # Die in the middle of the fine-tunings: a while after one to three of them were stored.
        wanted = rows_in(out) + chance.randrange(1, 4)
        while process.poll() is None and rows_in(out) < wanted:
            time.sleep(0.05)
        time.sleep(chance.uniform(0, 1.5))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
        plan = opened(path, out)
        assert len(plan.stored) >= stored, "a kill must not lose a stored row"
        deaths_with_rows += len(plan.stored) > stored
        stored = len(plan.stored)
        if not plan.missing:  # done before the kills were: compare, and go on in a fresh store
            assert replicating.timeless(replication.frames(plan)[0]) == expected
            round_, stored = round_ + 1, 0
            out = tmp_path / str(round_)
    plan = replication.execute(opened(path, out), scores=False)
    assert replicating.timeless(replication.frames(plan)[0]) == expected
    assert deaths_with_rows > KILLS / 4, "the kills came too early to test anything"


def test_dask_workers_are_killed_at_random_moments(through, tmp_path):
    path, expected = through
    distributed = pytest.importorskip("distributed")
    chance, kills, stop = random.Random(1), [], threading.Event()

    def kill(cluster) -> None:
        while not stop.is_set() and len(kills) < KILLS:
            time.sleep(chance.uniform(0.5, 4))
            alive = [worker.pid for worker in cluster.workers.values() if getattr(worker, "pid", None)]
            if alive and not stop.is_set():
                victim = chance.choice(alive)
                try:
                    os.kill(victim, signal.SIGKILL)
                except ProcessLookupError:
                    continue
                kills.append(victim)

    round_ = 0
    dask = pytest.importorskip("dask")
    with (
        # A nanny whose worker was killed while it started gives up; without this the run waits for ever.
        dask.config.set({"distributed.scheduler.no-workers-timeout": "20s"}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", silence_logs=50
        ) as cluster,
    ):
        killer = threading.Thread(target=kill, args=(cluster,))
        killer.start()
        try:
            while len(kills) < KILLS:
                out = tmp_path / str(round_)
                plan = opened(path, out)
                try:
                    plan = replication.execute(plan, scheduler=cluster.scheduler_address, scores=False)
                except EnvironmentFailure as error:  # it met several deaths, or no worker at that moment
                    assert "\n" not in str(error)
                    cluster.scale(
                        2
                    )  # a nanny whose worker was killed while it started gave up: start another
                    continue
                assert replicating.timeless(replication.frames(plan)[0]) == expected
                round_ += 1
        finally:
            stop.set()
            killer.join()
        cluster.wait_for_workers(1, timeout=60)
        plan = opened(path, tmp_path / str(round_))
        plan = replication.execute(plan, scheduler=cluster.scheduler_address, scores=False)
    assert len(kills) == KILLS
    assert replicating.timeless(replication.frames(plan)[0]) == expected
