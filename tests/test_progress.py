"""Progress, as terminals and files get it."""

import io
import re

import pytest

from mupc.records import TrainRecord, ValidationRecord
from mupc.records.words import printable
from mupc.training.progress import Progress

WIDTH = 60


def record(step, diverged=0.0):
    return TrainRecord(step, 1, 0.5, 0.25, 2, 1, 3, 0.1, 1, diverged, 0.1, 100.0, 1)


class Screen(io.TextIOWrapper):
    """What is written to a terminal, or to a file, of an encoding."""

    def __init__(self, encoding, terminal):
        super().__init__(io.BytesIO(), encoding=encoding, newline="\n")
        self.terminal = terminal

    def isatty(self):
        return self.terminal

    @property
    def text(self):
        self.flush()
        return self.buffer.getvalue().decode(self.encoding)


def shown(monkeypatch, *records, encoding="utf-8", terminal=True, message=None, width=WIDTH):
    """What progress of 40 steps of 5 samples prints of records, and at the end."""
    screen, progress = Screen(encoding, terminal), Progress(40, 5)
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout", screen)
        for name, value in {"COLUMNS": str(width), "TERM": "xterm-256color"}.items():
            patch.setenv(name, value)
        for one in records:
            progress(one)
        if message is not None:
            progress.close(message)
    return screen.text


def plain(text):
    return re.sub(r"\x1b\[[\d;]*[A-Za-z]", "", text)


def test_a_file_gets_a_line_for_each_record(monkeypatch):
    assert shown(monkeypatch, record(20), record(40), terminal=False, message="done") == (
        "1 s left, step 20/40: accuracy 25.00 %, loss 0.5, energy 2 → 1 in 3 inference steps, "
        "100 samples/s\n"
        "0 s left, step 40/40: accuracy 25.00 %, loss 0.5, energy 2 → 1 in 3 inference steps, "
        "100 samples/s\n"
        "done\n"
    )


def test_on_a_terminal_the_time_left_is_first_and_lines_replace_one_another(monkeypatch):
    validation = ValidationRecord(20, 0.5, None, best=True, seconds=1)
    text = shown(monkeypatch, record(10), record(20), validation, record(40), message="done")
    _, first, second, third, *last = plain(text).split("\r")
    assert re.match("2 s left [━╸╺]{5,20} step 10/40: accuracy", first)
    assert all(len(line) <= WIDTH - 1 and "\n" not in line for line in (first, second))
    assert third == "  validation at step 20: loss 0.5, the best so far\n"
    assert last[0].startswith("0 s left, step 40/40: accuracy 25.00 %, loss 0.5, ")
    assert last[1] == "done\n"


@pytest.mark.parametrize("width", [20, 26, 40, 60, 80, 100, 160])
def test_a_narrow_terminal_loses_whole_figures_and_never_the_time_left_nor_the_bar(
    width, monkeypatch
):
    *_, line = plain(shown(monkeypatch, record(20), width=width)).split("\r")
    bar, figures = re.fullmatch(r"1 s left ([━╸╺]{5,20}) (.*)", line).groups()
    assert len(line) < max(width, 20)
    whole = (
        "step 20/40: accuracy 25.00 %, loss 0.5, energy 2 → 1 in 3 inference steps, 100 samples/s"
    )
    assert whole.startswith(figures)
    assert whole.removeprefix(figures)[:1] in (":", ",", "") if figures else width < 30
    assert len(bar) == 20 or len(line) == width - 1  # what is left is the bar's


def test_letters_are_spelt_out_where_there_are_none():
    assert (
        printable("(x − 4.9) / 6 … ρ = 0.05 × Φ", "ascii") == "(x - 4.9) / 6 ... rho = 0.05 x Phi"
    )
    assert printable("für naïve 8 ≤ 9 → 日", "ascii") == "fur naive 8 <= 9 > ?"
    assert printable("1 ± ½ λ √2 ‖x‖ ϕ", "ascii") == "1 +- 1/2 lambda sqrt2 |x| ?"
    assert printable("für ρ", "cp1252") == "für rho"
    assert printable("ρ", "utf-8") == "ρ"


@pytest.mark.parametrize("terminal", [True, False])
def test_what_an_encoding_has_not_is_spelt_out(terminal, monkeypatch):
    text = shown(monkeypatch, record(20, diverged=0.5), encoding="cp1252", terminal=terminal)
    assert "energy 2 > 1 in 3 inference steps" in text
    assert "inference diverged in 50% of samples: use a smaller step size" in text
    assert "-" * 5 in shown(monkeypatch, record(20), encoding="cp1252")  # a bar of what there is


def test_colours_are_left_out_where_nobody_wants_them(monkeypatch):
    colour = re.compile(r"\x1b\[[\d;]*m")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert colour.search(shown(monkeypatch, record(20)))
    monkeypatch.setenv("NO_COLOR", "1")
    bars = [shown(monkeypatch, record(step), width=120) for step in (10, 20)]
    assert not any(map(colour.search, bars))
    assert [bar.count("━") for bar in bars] == [5, 10]  # of 20
