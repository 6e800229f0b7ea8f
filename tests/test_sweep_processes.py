"""Several processes on one sweep, and kills: each point is trained once."""

import contextlib
import importlib
import json
import pathlib
import subprocess
import sys
import threading
import time
import types

import numpy as np
import pytest
from conftest import FULL
from test_sweeps import BASE, SMALL, points

from mupc.commands.main import main
from mupc.sweeps import Outcome, SweepFolder, sweep
from mupc.sweeps.claims import Claims
from mupc.sweeps.points import point_of


def test_of_many_that_claim_at_once_one_is_served(tmp_path):
    claims = [Claims(tmp_path) for _ in range(16)]
    barrier, taken = threading.Barrier(16), []

    def take(one):
        barrier.wait()
        taken.append(one.take("point"))

    threads = [threading.Thread(target=take, args=(one,)) for one in claims]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (claim,) = [one for one in taken if one is not None]
    assert claim.held
    claim.release()


def test_a_claim_holds_while_its_heart_beats_and_is_free_soon_after(tmp_path):
    first = Claims(tmp_path, stale_after=0.6).take("point")
    time.sleep(1.2)
    assert Claims(tmp_path, stale_after=0.6).take("point") is None
    first._ended.set()  # as if the process had been killed
    first._heart.join()
    assert first.held
    time.sleep(0.7)
    others = [Claims(tmp_path, stale_after=0.6).take("point") for _ in range(2)]
    assert others[1] is None
    assert others[0].number == 2
    assert not first.held  # should it have been asleep, it knows now
    first.release()  # what is no longer its own it does not free
    assert Claims(tmp_path, stale_after=0.6).take("point") is None
    others[0].release()
    assert Claims(tmp_path).take("point").number == 3


# As tests are compiled (tests/conftest.py); without it, as for users.
QUICKLY = 'import jax; jax.config.update("jax_disable_most_optimizations", True)'
SCRIPT = """
import sys
from mupc.settings import Configuration
from mupc.sweeps import Space, SweepFolder, sweep
base = {"depth": 2, "width": 8, "steps": 40, "validation": 0.1, "report_every": 0, "log_every": 1}
base |= dict(zip(sys.argv[3::2], map(int, sys.argv[4::2])))
points = Space(grid={"seed": list(range(int(sys.argv[2])))}).over(Configuration().changed(base))
print("ready", flush=True)
input()
sweep(SweepFolder(sys.argv[1], stale_after=1.5), points)
"""
KILLS = 10 if FULL else 1


@contextlib.contextmanager
def sweeping(folder, count, processes=1, quickly=not FULL, **settings):
    """Processes that begin a sweep at one time."""
    script = QUICKLY + SCRIPT if quickly else SCRIPT
    more = [str(word) for setting in settings.items() for word in setting]
    command = [sys.executable, "-c", script, str(folder), str(count), *more]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with contextlib.ExitStack() as stack:
        begun = [stack.enter_context(subprocess.Popen(command, **pipes)) for _ in range(processes)]
        for process in begun:
            assert process.stdout.readline() == "ready\n"
        for process in begun:
            process.stdin.write("\n")
            process.stdin.flush()
        yield begun


def finished(folder):
    """Every file that tells of a finished point, with what says that it was not written again."""
    seen = {}
    for path in folder.glob("results/*.json"):
        run = folder / json.loads(path.read_text())["run"]
        for file in [path, *run.iterdir()]:
            seen[file] = (file.stat().st_ino, file.stat().st_mtime_ns)
    return seen


def test_two_processes_on_one_folder_never_train_the_same_point(tmp_path):
    folder = tmp_path / "sweep"
    with sweeping(folder, 12, processes=2) as processes:
        assert [process.wait(timeout=120) for process in processes] == [0, 0]
    names = sorted(path.name for path in (folder / "claims").iterdir())
    assert len(names) == 12
    assert all(name.endswith("-1") for name in names)
    claimed = {path.read_text() for path in (folder / "claims").iterdir()}
    assert len(claimed) == 2  # both worked
    assert len(list((folder / "results").iterdir())) == len(list((folder / "runs").iterdir())) == 12


@pytest.mark.full
def test_kills_lose_no_finished_point_and_repeat_none(tmp_path):
    """At random moments, but for the last kill: that comes when something has been finished."""
    folder, generator = tmp_path / "sweep", np.random.default_rng(0)
    before = {}
    for kill in range(KILLS):
        with sweeping(folder, 30) as (process,):
            time.sleep(generator.uniform(0.2, 5))
            while kill == KILLS - 1 and not finished(folder):
                time.sleep(0.1)
            process.kill()
        now = finished(folder)
        assert before.items() <= now.items()
        before = now
    assert before
    with sweeping(folder, 30) as (process,):
        assert process.wait(timeout=120) == 0
    now = finished(folder)
    assert before.items() <= now.items()
    assert len(list((folder / "results").iterdir())) == 30
    assert len(list((folder / "runs").iterdir())) == 30  # what was cut short is cleared away


def point(**settings):
    """A point of 12 steps, with a checkpoint after every one."""
    base = BASE.changed({"steps": 12, "log_every": 1, "checkpoint_every": 1, **settings})
    return point_of(base, {"seed": 0})


def test_one_that_was_asleep_while_another_finished_gives_way(tmp_path):
    """Its claim is taken and its run cleared away while it trains: the other's result counts.

    The other does not continue what it has begun: it may awake at any time, and write.
    """
    ours = SweepFolder(tmp_path / "sweep")
    others = SweepFolder(tmp_path / "sweep", stale_after=0)  # to it our heart is still
    woken, steps = [], []

    def asleep(standing):
        if "step 7" in standing.now and not woken:
            woken.append(standing)
            sweep(others, [point()], watch=lambda standing: steps.append(standing.now))

    (result,) = sweep(ours, [point()], watch=asleep)
    assert woken
    assert steps[1].endswith("step 1/12")
    assert result.outcome.run.endswith("-2")
    assert [path.name for path in (tmp_path / "sweep" / "runs").iterdir()] == [
        pathlib.Path(result.outcome.run).name
    ]


def test_one_that_awakes_in_time_to_publish_does_not_disturb_who_took_over(tmp_path):
    """Its result counts, and it clears the other's run away while that trains."""
    folder, done = SweepFolder(tmp_path / "sweep"), []
    outcome = Outcome(point().key, {"seed": 0}, "finished", "", 0.5, 1.0)

    def awake(standing):
        if "step 7" in standing.now and not done:
            done.append(folder.finish(point(), types.SimpleNamespace(number=0), outcome))

    (result,) = sweep(folder, [point()], watch=awake)
    assert done == [True]
    assert result.outcome == outcome


def test_the_failure_of_who_watches_is_not_the_points(tmp_path):
    folder = SweepFolder(tmp_path / "sweep")

    def watch(standing):
        if "step" in standing.now:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        sweep(folder, points(seed=[0]), watch=watch)
    (result,) = sweep(folder, points(seed=[0]))  # at once: the claim was given back
    assert result.outcome.ended == "finished"


def test_points_that_failed_are_trained_again_when_asked(tmp_path, monkeypatch, capsys):
    module = importlib.import_module("mupc.sweeps.work")
    train = module.train_together
    monkeypatch.setattr(module, "train_together", lambda *_, **__: 1 / 0)
    arguments = ["sweep", str(tmp_path / "sweep"), *SMALL, "--grid", "seed=0,1"]
    assert main(arguments) == 1
    assert "it could not be trained: division by zero" in capsys.readouterr().out
    monkeypatch.setattr(module, "train_together", train)
    assert main(arguments) == 1  # they have results
    assert main([*arguments, "--retry-failed"]) == 0
    assert len(list((tmp_path / "sweep" / "runs").iterdir())) == 2
