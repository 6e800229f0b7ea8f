"""Several processes that train one network, on loopback: what one process gives."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest
from conftest import FULL
from test_resume import seen

from mupc.commands.main import main
from mupc.commands.processes import check_processes
from mupc.records import RunFolder
from mupc.runs import train
from mupc.settings import Configuration

# What `.ci/full` does with four, in the fast set two do once.
COUNT, KILLS = (4, 10) if FULL else (2, 1)


@contextlib.contextmanager
def started(command, count=COUNT, devices=1):
    """Processes that find each other: the first can be read, all are gone afterwards."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    own = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices), "JAX_ENABLE_X64": "1"}
    environment = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"} | own
    processes = [
        subprocess.Popen(
            [sys.executable, "-u", *command(f"localhost:{port}", count, i)],
            stdout=subprocess.PIPE if i == 0 else subprocess.DEVNULL,
            text=True,
            env=environment,
            cwd=os.path.dirname(__file__),
        )
        for i in range(count)
    ]
    # A process that waits for ever for another one is what may go wrong. Ten cases of four
    # processes take three minutes of two cores with nothing else to do.
    watch = threading.Timer(900, lambda: [process.kill() for process in processes])
    watch.start()
    try:
        yield processes
    finally:
        watch.cancel()
        for process in processes:
            process.kill()
            process.wait()
        processes[0].stdout.close()


def test_settings_are_checked_before_jax_is_used():
    """Once it is, the other processes can no longer be found."""
    code = (
        "from mupc.settings.configuration import KINDS, Configuration\n"
        "for network in KINDS['network']:\n"
        "    text = {'dataset': 'shakespeare'} if network == 'transformer' else {}\n"
        "    Configuration().changed({'network': network, **text})"
    )
    environment = os.environ | {"JAX_PLATFORMS": "nowhere"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=120)


def codes(processes):
    processes[0].stdout.read()
    return {process.wait(timeout=120) for process in processes}


SCRIPT = """
import sys
import jax
import numpy as np
jax.distributed.initialize(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
from test_layout import CASES, PARTS, RULES, batch_of, furthest, trained
import mupc
from mupc.training.layout import on_one
several = [(case, list(PARTS.values())[i % 3]) for i, case in enumerate(CASES[:6])]
several += [(CASES[0], parts) for parts in PARTS.values()]
for (name, make), parts in several:
    data, likelihood = batch_of(make)
    data = tuple(np.asarray(part) for part in data)  # of either library
    network, rule = make(), RULES[name](likelihood)
    one, _ = trained(network, data, rule, None)
    layout = mupc.Layout(**parts)
    assert layout.processes == int(sys.argv[2])
    parallel, _ = trained(network, data, rule, layout)
    parted = [leaf for leaf in jax.tree.leaves(parallel) if not leaf.is_fully_replicated]
    assert bool(parted) == ("depth" in parts)
    away = furthest(one.network, on_one(parallel.network))
    print(f"{name}, {make.__name__}, {layout}: {away:.1e}", flush=True)
    assert away < 1e-12
try:
    mupc.Layout(data=len(jax.local_devices()))
except ValueError as error:
    print(error)
"""


@pytest.mark.full
def test_weights_after_training_are_those_of_one_process():
    command = lambda *found: ["-c", SCRIPT, *map(str, found)]
    with started(command, 4, 2) as processes:
        told = processes[0].stdout.read()
        assert [process.wait(timeout=60) for process in processes] == [0] * 4, told
    assert "leaves processes without a device: there are 8 devices of 4 processes" in told


RUN = {
    "depth": 5,
    "width": 8,
    "batch_size": 32,
    "validation": 0.1,
    "evaluate_every": 7,
    "log_every": 1,
    "report_every": 10,
    "steps": 30 * KILLS,
}
LAYOUT = "data=2,depth=2" if FULL else "depth=2"


def training(*words):
    """The command, as every process has it."""
    return lambda address, count, i: [
        *("-m", "mupc", "train", *map(str, words)),
        *("--distributed", f"address={address},processes={count},process={i}"),
    ]


@pytest.mark.usefixtures("float64")
def test_sigterm_to_any_process_stops_all_at_one_step_and_nothing_changes(tmp_path):
    whole = train(Configuration().changed({**RUN, "out": str(tmp_path / "whole")}))
    out, generator, kept = tmp_path / "run", np.random.default_rng(0), set()
    new = [word for name, value in RUN.items() for word in (f"--{name.replace('_', '-')}", value)]
    for kill in range(KILLS):
        words = ["--resume", out] if kill else [*new, "--layout", LAYOUT, "--out", out]
        with started(training(*words)) as processes:
            seen(processes[0], "compiling")
            for _ in range(generator.integers(1, 12) if kill % 3 != 1 else 0):  # or before a step
                seen(processes[0], " left, step")
            processes[generator.integers(COUNT)].send_signal(signal.SIGTERM)
            assert codes(processes) == {143}
        steps = {int(path.name) for path in (out / "checkpoints").iterdir()}
        (step,) = steps - kept  # one more, of one step
        assert max(kept, default=0) < step < whole.result.steps
        kept = steps
    alone = shutil.copytree(out, tmp_path / "alone")
    assert main(["train", "--resume", str(alone), "--layout", "data=1"]) == 0
    with started(training("--resume", out)) as processes:
        assert codes(processes) == {0}
    for path in (out, alone):
        again = RunFolder.open(path)
        assert again.result().steps == whole.result.steps
        for name, array in weights(whole.folder).items():
            np.testing.assert_allclose(
                weights(again)[name], array, rtol=0, atol=1e-12 * np.abs(array).max()
            )
        assert [record["step"] for record in again.records()] == [
            record["step"] for record in whole.folder.records()
        ]
        assert not again.checkpoints.exists()


def weights(folder):
    from safetensors.numpy import load_file

    return load_file(folder.network)


def test_how_processes_find_each_other_is_checked(capsys):
    assert check_processes("auto") == "auto"
    for text in ("here", "address=a:1,processes=2,process=2", "address=a,processes=2,process=0"):
        with pytest.raises(ValueError, match="expected auto, or address=HOST:PORT"):
            check_processes(text)
    assert main(["train", "--distributed", "auto"]) == 2
    assert "--distributed needs a --layout over all devices" in capsys.readouterr().err
    assert main(["train", "--distributed", "auto", "--print-config"]) == 2
    assert "--distributed would have no effect" in capsys.readouterr().err
    command = [sys.executable, "-m", "mupc", "train", "--distributed", "auto", "--layout", "data=2"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "nothing that JAX knows has started this process" in ended.stderr
