"""`mupc theory` at toy size: its figures against the closed forms, and what it refuses."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mupc
from mupc.commands.main import main
from mupc.runs.setup import set_up
from mupc.settings import Configuration
from mupc.theory import equilibrated_energy, linear_hessian

GRID = ["--depths", "3", "--widths", "6", "--samples", "8", "--hessians", "2"]


def records(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.usefixtures("float64")
def test_a_linear_network_is_measured_as_the_closed_forms_say(tmp_path, capsys):
    out = tmp_path / "theory"
    options = ["--activation", "linear", "--at-precision", "2.0", "--out", str(out)]
    assert main(["theory", *GRID, *options]) == 0
    (seen,) = records(out)
    data = mupc.data.load("digits").flattened()
    config = Configuration().changed({"depth": 3, "width": 6, "activation": "linear"})
    network = set_up(config, data, 1).member.network
    x, y = (jnp.asarray(v[:8], float) for v in data.train)
    energy = mupc.FreeEnergy(network, x, y, mupc.Gaussian(2.0))
    eigenvalues = np.linalg.eigvalsh(linear_hessian(energy).dense())
    expected = equilibrated_energy(energy).energy
    loss = energy.samples(energy.run())
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3)
    close([seen["smallest"], seen["largest"]], eigenvalues[[0, -1]])
    close(seen["condition_number"], eigenvalues[-1] / eigenvalues[0])
    close(seen["step_limit"], 2 / eigenvalues[-1])
    close(seen["energy_ratio"], np.sum(expected) / np.sum(loss))
    close(np.sum(seen["spectrum"]["weights"]), 1)
    printed = capsys.readouterr().out
    assert f"| mupc | 3 | 6 | 0 | {seen['rho']:.3g} |" in printed
    assert (out / "report" / "report.html").is_file()
    told = json.loads((out / "config.json").read_text())
    assert {"theory", "network", "dataset", "training"} <= told.keys()
    assert not {"rule", "optimiser"} & told.keys()  # which untrained networks have not
    assert told["training"] == {"seed": 0}
    assert not {"depth", "width"} & told["network"].keys()  # those of the grid count
    assert "gamma" in told["network"]["parameterisation"]
    assert (out / "report" / "condition.png").is_file()


@pytest.mark.full
def test_a_grid_is_measured_as_drawn_and_after_training(tmp_path, capsys):
    out = tmp_path / "theory"
    assert main(["theory", *GRID, "--train", "3", "0", "--out", str(out)]) == 0
    drawn, trained = records(out)
    assert (drawn["trained"], trained["trained"]) == (0, 3)
    assert drawn["whole_cosine"] != trained["whole_cosine"]
    assert drawn["residual"] < 1e-5
    assert len(drawn["cosine"]) == len(drawn["scale"]) == len(drawn["moved"]) == 4
    assert not jax.config.read("jax_enable_x64")
    capsys.readouterr()
    assert main(["theory", *GRID, "--out", str(out)]) == 2
    assert "is not empty: name a new folder" in capsys.readouterr().err


@pytest.mark.full
def test_training_before_measuring_may_be_the_papers(tmp_path):
    paper, slow = tmp_path / "paper", tmp_path / "slow"
    given = ["theory", *GRID, "--train", "3", "--preset", "paper", "--dataset", "digits"]
    assert main([*given, "--out", str(paper)]) == 0
    assert main([*given, "--learning-rate", "1e-9", "--out", str(slow)]) == 0
    (as_published,), (as_drawn,) = records(paper), records(slow)
    # Adam 0.1 moves every weight that has a gradient by 0.1 a step.
    assert as_published["rho"] != pytest.approx(as_drawn["rho"], rel=0.1)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--depths", "0"], "each of --depths must be at least 1, not 0"),
        (["--train", "-1"], "each of --train must be at least 0, not -1"),
        (["--at-precision", "0"], "--at-precision must be above 0"),
        (["--samples", "99999"], "--samples must be at most 1437, not 99999"),
        (["--hessians", "9"], "--hessians must be at most 8, not 9"),
        (["--depths", "1", "--no-skips"], "would have no effect"),
        (["--layout", "data=2"], "--layout would have no effect"),
        (["--dataset", "nothing"], "nothing"),
        (["--network", "residual-hopfield"], "residual-hopfield is not measured here"),
        (
            ["--network", "layered-hopfield", "--activation", "box"],
            "layered-hopfield is not measured here",
        ),
        (["--network", "decoder"], "theory is of networks whose layers predict a target"),
    ],
)
def test_a_grid_that_cannot_be_measured_is_refused_before_anything_is_written(
    options, sentence, tmp_path, capsys
):
    out = tmp_path / "theory"
    arguments = ["theory", "--depths", "3", "--widths", "6", "--samples", "8"]
    assert main([*arguments, *options, "--out", str(out)]) == 2
    seen = capsys.readouterr()
    assert sentence in seen.err
    assert not seen.out
    assert not out.exists()
