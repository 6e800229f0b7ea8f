"""Figures: what is drawn is what the records say."""

import math

import numpy as np
import pytest
from matplotlib.figure import Figure
from run_records import example_run, regime_record, theory_record, write_run

from mupc import plots
from mupc.plots.runs import FIELDS


@pytest.fixture
def run(tmp_path):
    return example_run(tmp_path / "one")


def assert_labelled(figure):
    assert isinstance(figure, Figure)
    for axes in figure.axes:
        if axes.get_label() != "<colorbar>":
            assert axes.get_xlabel()
            assert axes.get_title(loc="left")
        assert axes.get_ylabel()


def test_curves_draw_the_records(run):
    figure = plots.curves([plots.read_run(run)])
    assert_labelled(figure)
    loss, accuracy, energy = (axes.lines for axes in figure.axes)
    np.testing.assert_allclose(loss[0].get_xydata(), [[10, 0.1], [20, 0.05], [40, 0.025]])
    np.testing.assert_allclose(loss[1].get_xydata(), [[20, 0.3]])
    np.testing.assert_allclose(accuracy[0].get_ydata(), [90, 95, 97.5])
    np.testing.assert_allclose(accuracy[1].get_ydata(), [70])
    np.testing.assert_allclose(energy[0].get_ydata(), [0.01, 0.005, 0.0025])
    np.testing.assert_allclose(energy[1].get_ydata(), [0.005, 0.0025, 0.00125])


@pytest.mark.parametrize("field", FIELDS)
def test_heat_maps_and_profiles_draw_every_layer(run, field):
    seen = plots.read_run(run)
    expected = np.array(
        [[math.nan if v is None else v for v in r[field]] for r in seen.of("regime")], float
    ).T
    if FIELDS[field].logarithmic:
        expected[~(expected > 0)] = math.nan  # has no logarithm: left blank
    figure = plots.heat_map(seen, field)
    assert_labelled(figure)
    (mesh,) = figure.axes[0].collections
    np.testing.assert_allclose(np.ma.filled(mesh.get_array(), math.nan), expected)
    edges = mesh.get_coordinates()
    np.testing.assert_allclose(edges[0, :, 0], [0, 10, 30, 40])
    np.testing.assert_allclose(edges[:, 0, 1], [0.5, 1.5, 2.5, 3.5, 4.5])
    profile = plots.layer_profiles([seen], field)
    assert_labelled(profile)
    last = [math.nan if v is None else v for v in seen.of("regime")[-1][field]]
    np.testing.assert_allclose(profile.axes[0].lines[0].get_ydata(), last)


def test_a_trace_is_drawn_and_without_one_the_two_ends(run, tmp_path):
    short = write_run(tmp_path / "two", [regime_record(7)])
    figure = plots.inference_traces([plots.read_run(run), plots.read_run(short)])
    assert_labelled(figure)
    energy, residual = (axes.lines for axes in figure.axes)
    np.testing.assert_allclose(energy[0].get_ydata(), [1, 0.75, 0.675])
    np.testing.assert_allclose(energy[1].get_ydata(), [1, 0.27 / 0.4])
    np.testing.assert_allclose(residual[0].get_ydata(), [1, 0.3, 0.02])
    np.testing.assert_allclose(residual[1].get_ydata(), [1, 0.02])


def test_figures_of_theory_draw_one_line_for_each_case(tmp_path):
    points = [theory_record(d, w, t) for d in (4, 8) for w in (16, 32) for t in (0, 9)]
    for draw in (plots.condition_numbers, plots.energy_ratios, plots.alignments, plots.coordinates):
        assert_labelled(draw(points))
    by_depth, by_width, by_training = plots.condition_numbers(points).axes
    for axes, ends in [(by_depth, (40, 80)), (by_width, None), (by_training, None)]:
        assert len(axes.lines) == 4
        for line in axes.lines:
            assert ends is None or tuple(line.get_ydata()) == ends
    ratio = plots.energy_ratios(points).axes[0].lines[0]
    np.testing.assert_allclose(ratio.get_xydata(), [[4, 0.8], [8, 8 / 9]])
    names = [line.get_label() for line in by_depth.lines]
    assert names == [
        "N = 16, 0 batches",
        "N = 16, 9 batches",
        "N = 32, 0 batches",
        "N = 32, 9 batches",
    ]
    run = plots.read_run(write_run(tmp_path / "theory", points[:1]))
    spectrum = plots.spectra([run])
    assert_labelled(spectrum)
    assert np.sum(spectrum.axes[0].lines[0].get_ydata()) == pytest.approx(1)


def test_a_heat_map_is_in_the_order_of_steps_whatever_that_of_the_records(tmp_path):
    """The last record is of the network that was kept, which may be an earlier one."""
    steps = (0, 100, 200, 120, 0)
    seen = plots.read_run(write_run(tmp_path / "r", [regime_record(step) for step in steps]))
    (mesh,) = plots.heat_map(seen, "change").axes[0].collections
    np.testing.assert_allclose(mesh.get_coordinates()[0, :, 0], [0, 50, 110, 160, 200])
    np.testing.assert_allclose(mesh.get_array()[0, 1:], [0.1, 0.12, 0.2])


def test_points_of_several_runs_are_told_apart():
    points = [{**theory_record(4, w, 0), "run": r} for w in (16, 32) for r in ("one", "two")]
    names = [line.get_label() for line in plots.alignments(points).axes[0].lines]
    assert names == ["one", "two"]


def test_figures_of_theory_take_the_figure_that_they_name():
    points = [theory_record(d, 16, 0) for d in (4, 8)]
    aligned = plots.alignments(points).axes[1].lines[0]
    np.testing.assert_allclose(aligned.get_xydata(), [[4, 0.85], [8, 0.85]])
    scale, _, moved, _ = (axes.lines[0].get_ydata() for axes in plots.coordinates(points).axes)
    np.testing.assert_allclose([scale[0], moved[0]], [1.2, 0.2])


def test_a_heat_map_of_what_is_not_there_says_so(tmp_path):
    seen = plots.read_run(write_run(tmp_path / "bp", [regime_record(3, inference=False)]))
    with pytest.raises(ValueError, match="the run bp has no regime records with cosine"):
        plots.heat_map(seen, "cosine")
