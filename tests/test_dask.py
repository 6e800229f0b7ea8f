"""`mupc sweep --engine dask`: points on Dask's workers, some of which are killed."""

import dataclasses
import os
import signal
import threading

import numpy as np
import pytest
from test_sweeps import BASE, SMALL

from mupc.commands.main import main
from mupc.records import RunError
from mupc.sweeps import Space, SweepFolder, sweep
from mupc.sweeps.workers import train_points

dask, distributed = pytest.importorskip("dask"), pytest.importorskip("distributed")

COUNT, KILL_EVERY = 40, 10


@pytest.fixture
def cluster(monkeypatch):
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # as in tests/conftest.py
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=":0"
    ) as local:
        yield local


def kill_now_and_then(cluster, ended, killed):
    """Kill one worker after the other, as often as it is time to; Dask starts another one."""
    generator = np.random.default_rng(0)
    while not ended.wait(KILL_EVERY):
        workers = [w for w in cluster.workers.values() if w.status.name == "running"]
        if workers:
            pid = workers[generator.integers(len(workers))].pid
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)


def told(results):
    """All that a table has but times."""
    return [
        dataclasses.replace(result.outcome, seconds=0, training_seconds=0, run="")
        for result in results
    ]


@pytest.mark.full
def test_workers_train_every_point_once_as_one_process_does(cluster, tmp_path):
    """One of two workers is killed every ten seconds."""
    base = BASE.changed({"steps": 2000, "log_every": 20, "checkpoint_every": 200})
    seeds = Space(grid={"seed": list(range(COUNT))}).over(base)
    ended, killed = threading.Event(), []
    killer = threading.Thread(target=kill_now_and_then, args=(cluster, ended, killed))
    killer.start()
    folder = SweepFolder(tmp_path / "dask", stale_after=6)
    try:
        with distributed.Client(cluster) as client:
            results = sweep(folder, seeds, client=client)
    finally:
        ended.set()
        killer.join()
    assert killed
    plain = sweep(SweepFolder(tmp_path / "plain"), seeds)
    assert told(results) == told(plain)
    assert len(list((folder.path / "runs").iterdir())) == COUNT  # what was cut short is gone


@pytest.mark.full
def test_the_command_hands_points_to_a_scheduler_that_is_there(cluster, tmp_path, capsys):
    folder = ["sweep", str(tmp_path / "sweep"), *SMALL, "--grid", "seed=0,1"]
    assert main([*folder, "--engine", "dask", "--scheduler", cluster.scheduler_address]) == 0
    assert "2/2" in capsys.readouterr().out


def test_a_worker_says_that_it_does_not_see_the_folder(tmp_path):
    with pytest.raises(RunError, match=r"does not see .*elsewhere: .* a file system that all"):
        train_points(str(tmp_path / "elsewhere"), 60.0, [])


def test_the_command_starts_workers_or_says_what_is_wrong(tmp_path, capsys):
    folder = str(tmp_path / "sweep")
    sweeping = ["sweep", folder, *SMALL, "--grid", "seed=0,1"]
    assert main([*sweeping, "--scheduler", "tcp://localhost:1"]) == 2
    assert "--scheduler would have no effect, since --engine is here" in capsys.readouterr().err
    with_dask = [*sweeping, "--engine", "dask"]
    assert main([*with_dask, "--scheduler", "tcp://localhost:1", "--workers", "2"]) == 2
    assert "has its own" in capsys.readouterr().err
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
        assert main([*with_dask, "--scheduler", "tcp://localhost:1"]) == 2
    assert "there is none at tcp://localhost:1" in capsys.readouterr().err
    assert main([*with_dask, "--workers", "1", "--together", "2"]) == 0
    assert "2/2 seed=1" in capsys.readouterr().out
    assert [p.name[-2:] for p in (tmp_path / "sweep" / "runs").iterdir()] == ["-1", "-1"]
