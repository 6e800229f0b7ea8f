"""What TensorBoard reads is what the records say."""

import dataclasses
import importlib.util
import json
import os
import signal

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event
from test_checkpoints import full_disk

import mupc
from mupc.commands.main import main
from mupc.records import Regime, RegimeRecord, RunFolder, TraceRecord, ValidationRecord, record_from

RUN = "train --depth 3 --width 8 --steps 20 --validation 0.1 --evaluate-every 7 --log-every 5"
RUN = [*RUN.split(), "--report-every", "10", "--tensorboard"]


def events(folder):
    """Read event files: length, its sum, the event, its sum."""
    for path in sorted(folder.glob("events*")):
        content = path.read_bytes()
        while content:
            size = int(np.frombuffer(content[:8], np.uint64)[0])
            yield Event.FromString(content[12 : 12 + size])
            content = content[16 + size :]


def seen(folder):
    return {
        (value.tag, event.step): value.simple_value
        for event in events(folder)
        for value in event.summary.value
    }


def told(folder):
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return {
        (f"{line['kind']}/{name}", line["step"]): float(value)
        for line in lines
        for name, value in line.items()
        if isinstance(value, int | float)
        and name not in ("step", "exact")
        and line["kind"] != "trace"
    }


def test_numbers_are_those_of_the_records(tmp_path):
    out = tmp_path / "run"
    assert main([*RUN, "--out", str(out)]) == 0
    written, wanted = seen(out / "tensorboard"), told(out)
    assert {key: written[key] for key in wanted} == pytest.approx(wanted, rel=1e-6)
    layers = {tag for tag, _ in written} - {tag for tag, _ in wanted}
    assert {"regime/cosine/least", "regime/change/largest"} <= layers
    assert all(tag.endswith(("/least", "/largest")) for tag in layers)


def test_a_run_that_goes_on_has_no_step_twice(tmp_path, monkeypatch):
    out = tmp_path / "run"

    class Stopping(mupc.TensorBoard):
        def __call__(self, record):
            super().__call__(record)
            if record.kind == "train" and record.step == 10:
                os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr("mupc.runs.run.TensorBoard", Stopping)
        assert main([*RUN, "--out", str(out)]) == 130
    assert main(["train", "--resume", str(out)]) == 0
    written, wanted = seen(out / "tensorboard"), told(out)
    scalar = {key: value for key, value in written.items() if key[0].count("/") == 1}
    assert set(scalar) == set(wanted)
    assert scalar == pytest.approx(wanted, rel=1e-6)


@pytest.mark.full
def test_a_record_without_a_gradient_survives_a_resume(tmp_path, monkeypatch):
    """The lower layers of the paper's setting have no cosine: nan, and null in the file."""
    out = tmp_path / "run"
    rule = "--preset paper --dataset digits --depth 12 --width 8 --steps 30 --log-every 5"
    words = ["train", *rule.split(), "--report-every", "10", "--tensorboard", "--out", str(out)]

    class Stopping(mupc.TensorBoard):
        def __call__(self, record):
            super().__call__(record)
            if record.kind == "train" and record.step == 15:
                os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr("mupc.runs.run.TensorBoard", Stopping)
        assert main(words) == 130
    assert "null" in (out / "metrics.jsonl").read_text()
    assert main(["train", "--resume", str(out)]) == 0
    assert ("train/loss", 5) in seen(out / "tensorboard")


def test_a_full_disk_is_a_warning_once(tmp_path):
    board = mupc.TensorBoard(tmp_path / "board")
    record = ValidationRecord(3, 0.5, 0.25, best=True, seconds=1.5)
    with (
        full_disk(40),
        pytest.warns(UserWarning, match=r"cannot write for TensorBoard .*File too large"),
    ):
        board(record)
    board(record)


def test_without_the_package_a_sentence_comes_before_the_run(tmp_path, monkeypatch, capsys):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "tensorboardX" else found(name)
    )
    assert main([*RUN, "--out", str(tmp_path / "run")]) == 2
    assert "needs the package tensorboardX: pip install" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_scalars_leave_out_what_is_no_number():
    record = ValidationRecord(3, float("nan"), None, best=True, seconds=1.5)
    assert mupc.scalars(record) == {"validation/best": 1.0, "validation/seconds": 1.5}
    assert mupc.scalars(TraceRecord(3, (1.0,), (2.0,))) == {}


def test_a_rules_own_figures_are_kept_and_logged(tmp_path):
    """Numbers, layers of which one is unknown, and a number that is unknown."""
    figures = {"nudge": 0.5, "tilt": (float("nan"), 0.25, 0.75), "drift": None}
    flat = ("energy_before", "energy_after", "scale", "change")
    numbers = dict.fromkeys(flat, (0.0, 1.0)) | {"precision": 0.1, "inference_steps": 1.0}
    record = RegimeRecord(step=3, seconds=1.5, **numbers, diagnostics=figures)
    folder = RunFolder.create(tmp_path / "run", {}, {}, Regime(1.0, None))
    folder.append(dataclasses.asdict(record))
    (line,) = folder.records()
    assert line["diagnostics"] == {"nudge": 0.5, "tilt": [None, 0.25, 0.75], "drift": None}
    assert repr(record_from(line)) == repr(record)
    layers = {f"regime/{n}/{end}": v for n in flat for end, v in [("least", 0), ("largest", 1)]}
    layers |= {"regime/tilt/least": 0.25, "regime/tilt/largest": 0.75, "regime/nudge": 0.5}
    layers |= {"regime/precision": 0.1, "regime/inference_steps": 1.0, "regime/seconds": 1.5}
    assert mupc.scalars(record) == layers
    assert "nudge 0.5; tilt 0.25–0.75; drift unknown" in record.sentence()
