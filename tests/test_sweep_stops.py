"""Points that were cut short go on, and sweeps do on file systems that lack something."""

import dataclasses
import errno
import os
import re
import signal
import time

import pytest
from filelock import FileLock
from test_sweep_processes import point, sweeping

from mupc.records import RunFolder
from mupc.records.lock import _warn_of_no_locks
from mupc.settings.files import stored
from mupc.sweeps import SweepFolder, sweep

# What was cut short goes on


def trained(folder, result):
    """What a run has come to, but for its times."""
    run = RunFolder(folder / result.outcome.run)
    times = ("seconds", "samples_per_second")
    records = [{n: v for n, v in r.items() if n not in times} for r in run.records()]
    outcome = {
        name: getattr(result.outcome, name)
        for name in ("key", "ended", "accuracy", "loss", "test_accuracy", "test_loss", "regime")
    }
    return outcome, records, run.network.read_bytes()


@pytest.fixture(scope="module")
def unstopped(tmp_path_factory):
    """The point trained without a stop."""
    folder = tmp_path_factory.mktemp("unstopped")
    return trained(folder, *sweep(SweepFolder(folder), [point()]))


def cut_short(folder, number):
    """Train the point until a signal comes after step 7."""

    def watch(standing):
        if "step 7/" in standing.now:
            signal.raise_signal(number)

    ends = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: SystemExit}
    with pytest.raises(ends[number]):
        sweep(SweepFolder(folder), [point()], watch=watch)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_point_that_was_interrupted_goes_on_at_once_to_the_same_result(
    number, tmp_path, unstopped
):
    cut_short(tmp_path, number)
    steps = []
    (result,) = sweep(SweepFolder(tmp_path), [point()], watch=lambda s: steps.append(s.now))
    assert not steps[1].endswith("step 1/12")
    assert trained(tmp_path, result) == unstopped
    (run,) = (tmp_path / "runs").iterdir()
    assert run == tmp_path / result.outcome.run
    assert run.name.endswith("-2")
    assert stored(RunFolder(run).config()).run.out == str(run)


@pytest.mark.full  # tests/test_sweep_processes.py kills a whole sweep in the fast set
def test_a_point_whose_worker_was_killed_goes_on_to_the_same_result(tmp_path):
    settings = {"steps": 200, "checkpoint_every": 5}
    with sweeping(tmp_path / "a", 1, quickly=True, **settings) as (process,):
        whole = lambda: (p.name.isdecimal() for p in tmp_path.glob("a/runs/*/checkpoints/*"))
        while not any(whole()):
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    steps = []
    results = [
        sweep(SweepFolder(tmp_path / name, stale_after=0.1), [one], watch=watch)[0]
        for one in [point(**settings)]
        for name, watch in {"a": lambda s: steps.append(s.now), "b": None}.items()
    ]
    a, b = (trained(tmp_path / n, r) for n, r in zip("ab", results, strict=True))
    assert a == b
    (first, *_) = [int(re.search(r"step (\d+)/200", now)[1]) for now in steps if "step" in now]
    assert first > 5


def test_a_checkpoint_that_is_damaged_costs_a_warning_and_the_steps_before_it(tmp_path, unstopped):
    cut_short(tmp_path, signal.SIGINT)
    for file in (tmp_path / "runs").glob("*/checkpoints/*/about/*"):
        file.write_bytes(b"{")
    with pytest.warns(UserWarning, match="damaged .* its point is trained from the beginning"):
        (result,) = sweep(SweepFolder(tmp_path), [point()])
    assert trained(tmp_path, result) == unstopped


# File systems that lack something


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
def test_without_hard_links_results_are_published_once_all_the_same(number, tmp_path, monkeypatch):
    def link(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", link)
    folder = SweepFolder(tmp_path, stale_after=0)
    (result,) = sweep(folder, [point(steps=1)])
    claim = folder.claims.take(result.point.key)
    other = dataclasses.replace(result.outcome, loss=0.0)
    assert not folder.finish(result.point, claim, other)
    claim.release()
    assert folder.outcome(result.point) == result.outcome
    # One that was killed between creating the file and writing it has left nothing.
    (tmp_path / "results" / f"{result.point.key}.json").write_bytes(b"")
    assert folder.outcome(result.point) is None
    claim = folder.claim(result.point)
    assert folder.finish(result.point, claim, other)
    assert folder.outcome(result.point) == other


def test_a_link_that_fails_for_another_reason_is_an_error(tmp_path, monkeypatch):
    def link(*_):
        raise OSError(errno.EIO, "the disk is broken")

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(OSError, match="the disk is broken"):
        sweep(SweepFolder(tmp_path), [point(steps=1)])


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_no_locks_are_to_be_had_a_warning_says_so_once(number, tmp_path, monkeypatch):
    def acquire(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(FileLock, "acquire", acquire)
    _warn_of_no_locks.cache_clear()
    with pytest.warns(UserWarning, match="takes no locks") as warned:
        results = sweep(SweepFolder(tmp_path), [point(steps=n) for n in (1, 2)])
    assert len([w for w in warned if "takes no locks" in str(w.message)]) == 1
    assert [result.outcome.ended for result in results] == ["finished"] * 2
