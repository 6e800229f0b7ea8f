"""Figures: what is drawn is what the records say."""

import math

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from run_records import (
    diverged_run,
    example_run,
    regime_record,
    theory_record,
    train_record,
    write_run,
)

from mupc import plots
from mupc.plots.layers import FIELDS, common_scale


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


def theory_run(path, points):
    return plots.read_run(write_run(path, points))


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


def test_accuracy_in_time_is_against_the_seconds_of_the_records(run):
    figure = plots.accuracy_in_time([plots.read_run(run)])
    assert_labelled(figure)
    training, validation = figure.axes[0].lines
    np.testing.assert_allclose(training.get_xydata(), [[1, 90], [2, 95], [4, 97.5]])
    np.testing.assert_allclose(validation.get_xydata(), [[2, 70]])


@pytest.mark.parametrize("field", FIELDS)
def test_heat_maps_and_profiles_draw_every_layer(run, field):
    seen = plots.read_run(run)
    expected = np.array([getattr(record, field) for record in seen.reports]).T
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
    last = getattr(seen.reports[-1], field)
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


def test_a_rules_diagnostics_are_drawn(run, tmp_path):
    """Numbers against the step, layers as they were at the end; a rule without any has no line."""
    without = write_run(tmp_path / "bp", [regime_record(3, inference=False)])
    figure = plots.diagnostics(plots.read_runs([run, without]))
    assert_labelled(figure)
    (nudge,), (tilt,) = (axes.lines for axes in figure.axes)
    np.testing.assert_allclose(nudge.get_xydata(), [[0, 0.5], [20, 0.5], [40, 0.5]])
    np.testing.assert_allclose(tilt.get_xydata(), [[1, 0.25], [2, math.nan], [3, 0.75], [4, 0.5]])
    assert plots.diagnostics([plots.read_run(without)]) is None


def test_a_run_has_one_colour_whichever_runs_a_figure_leaves_out(run, tmp_path):
    first = write_run(tmp_path / "bp", [train_record(5, 0.5), regime_record(3, inference=False)])
    runs = plots.read_runs([first, run])
    assert runs[0].colour != runs[1].colour
    pictures = [
        plots.curves(runs),
        plots.accuracy_in_time(runs),
        plots.layer_profiles(runs, "change"),
        plots.layer_profiles(runs, "cosine"),
        plots.inference_traces(runs),
        plots.diagnostics(runs),
    ]
    for figure in pictures:
        for line in (line for axes in figure.axes for line in axes.lines):
            mine = runs[line.get_label().startswith("one")]
            assert to_hex(line.get_color()) == mine.colour


def test_maps_of_one_figure_share_their_colours(tmp_path):
    """What is the largest value of one run is not the lightest colour of another's."""
    runs = [plots.read_run(write_run(tmp_path / f"{n}", [regime_record(n)])) for n in (5, 500)]
    scale = common_scale(runs, "change")
    assert scale == (pytest.approx(5e-3), pytest.approx(10))
    for seen in runs:
        (mesh,) = plots.heat_map(seen, "change", scale).axes[0].collections
        assert (mesh.norm.vmin, mesh.norm.vmax) == scale


def test_a_run_that_diverged_leaves_the_scales_to_the_others(run, tmp_path):
    alone = plots.curves([plots.read_run(run)]).axes[0].get_ylim()
    runs = plots.read_runs([run, diverged_run(tmp_path / "lost")])
    assert [seen.label for seen in runs] == ["one", "lost (diverged)"]
    both = plots.curves(runs).axes[0]
    assert both.get_ylim()[1] < 10 * alone[1]
    assert np.isnan(both.lines[-1].get_ydata()[-1])
    assert common_scale(runs, "change") == common_scale(runs[:1], "change")
    # By itself it is drawn whole, and what no axis could hold is left out.
    assert plots.curves(runs[1:]).axes[0].get_ylim()[1] > 1e30
    huge = write_run(tmp_path / "huge", [train_record(1, 1.0), train_record(2, 1e308)])
    (line,) = plots.curves([plots.read_run(huge)]).axes[0].lines
    np.testing.assert_array_equal(line.get_ydata(), [1, math.nan])


def test_panels_keep_their_size_beside_twelve_runs_of_long_names(tmp_path):
    records = [train_record(5, 0.5), train_record(9, 0.4)]
    names = [f"a-name-that-is-as-long-as-those-of-a-sweep-{i}" * 2 for i in range(12)]
    runs = plots.read_runs([write_run(tmp_path / name, records) for name in names])
    assert len({seen.colour for seen in runs}) == 12
    sizes = []
    for figure in (plots.curves(runs[:1]), plots.curves(runs)):
        figure.draw_without_rendering()
        places = [axes.get_position() for axes in figure.axes]
        sizes.append([(p.width, p.height) * figure.get_size_inches() for p in places])
        legends = [legend.get_window_extent() for legend in figure.legends]
        bottom = min(axes.get_tightbbox().y0 for axes in figure.axes)
        assert all(legend.y1 <= bottom + 2 for legend in legends)
        assert all(legend.y0 >= 0 and legend.x1 <= figure.bbox.x1 for legend in legends)
    np.testing.assert_allclose(sizes[1], sizes[0], rtol=0.05)
    (legend,) = figure.legends
    assert len(legend.get_texts()) == 12


def test_figures_of_theory_draw_one_line_for_each_case(tmp_path):
    points = [theory_record(d, w, t) for d in (4, 8) for w in (16, 32) for t in (0, 9)]
    runs = [theory_run(tmp_path / "grid", points)]
    for draw in (plots.condition_numbers, plots.energy_ratios, plots.alignments, plots.coordinates):
        assert_labelled(draw(runs))
    figure = plots.condition_numbers(runs)
    by_depth, by_width, by_training = figure.axes
    for axes, ends in [(by_depth, (40, 80)), (by_width, None), (by_training, None)]:
        assert len(axes.lines) == 4
        for line in axes.lines:
            assert ends is None or tuple(line.get_ydata()) == ends
    ratio = plots.energy_ratios(runs).axes[0].lines[0]
    np.testing.assert_allclose(ratio.get_xydata(), [[4, 0.8], [8, 8 / 9]])
    assert [key.name for key in figure.keys[0]] == [
        "N = 16, 0 batches",
        "N = 16, 9 batches",
        "N = 32, 0 batches",
        "N = 32, 9 batches",
    ]
    spectrum = plots.spectra([theory_run(tmp_path / "theory", points[:1])])
    assert_labelled(spectrum)
    assert np.sum(spectrum.axes[0].lines[0].get_ydata()) == pytest.approx(1)


def test_a_heat_map_is_in_the_order_of_steps_whatever_that_of_the_records(tmp_path):
    """The last record is of the network that was kept, which may be an earlier one."""
    steps = (0, 100, 200, 120, 0)
    seen = plots.read_run(write_run(tmp_path / "r", [regime_record(step) for step in steps]))
    (mesh,) = plots.heat_map(seen, "change").axes[0].collections
    np.testing.assert_allclose(mesh.get_coordinates()[0, :, 0], [0, 50, 110, 160, 200])
    np.testing.assert_allclose(mesh.get_array()[0, 1:], [0.1, 0.12, 0.2])


def test_points_of_several_runs_are_told_apart(tmp_path):
    points = [theory_record(4, width, 0) for width in (16, 32)]
    runs = plots.read_runs([write_run(tmp_path / name, points) for name in ("one", "two")])
    figure = plots.alignments(runs)
    keys = figure.keys[2]  # against width
    assert [(key.name, key.colour) for key in keys] == [(r.name, r.colour) for r in runs]


def test_figures_of_theory_take_the_figure_that_they_name(tmp_path):
    runs = [theory_run(tmp_path / "r", [theory_record(d, 16, 0) for d in (4, 8)])]
    aligned = plots.alignments(runs).axes[1].lines[0]
    np.testing.assert_allclose(aligned.get_xydata(), [[4, 0.85], [8, 0.85]])
    scale, _, moved, _ = (axes.lines[0].get_ydata() for axes in plots.coordinates(runs).axes)
    np.testing.assert_allclose([scale[0], moved[0]], [1.2, 0.2])


def test_a_heat_map_of_what_is_not_there_says_so(tmp_path):
    seen = plots.read_run(write_run(tmp_path / "bp", [regime_record(3, inference=False)]))
    with pytest.raises(ValueError, match="the run bp has no regime records with cosine"):
        plots.heat_map(seen, "cosine")
