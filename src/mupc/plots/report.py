"""The report: one HTML page that needs nothing but itself, and its figures as PNG and SVG."""

import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from mupc.plots import theory
from mupc.plots.layers import (
    FIELDS,
    borders,
    common_scale,
    diagnostics,
    heat_map,
    layer_profiles,
    reports_with,
)
from mupc.plots.outcome import diverged, outcome
from mupc.plots.page import Picture, compared, element, heading, image, page, paragraph
from mupc.plots.reading import RunRecords, read_runs
from mupc.plots.runs import accuracy_in_time, curves, inference_traces, inferred
from mupc.plots.style import settle
from mupc.plots.sweep import sweep_report
from mupc.records import (
    PICTURES,
    RunError,
    counted,
    figure,
    flattened,
    is_sweep,
    kind_of,
    listed,
    span,
)

_NAMED = 4  # of more runs a sentence does not name every one


def write_report(runs: Sequence[str | Path], out: str | Path) -> Path:
    """Write report.html, and every figure as PNG and SVG, into a folder; return the page's path.

    Args:
        runs: run folders, which are compared side by side, or the folder of one sweep, of which
            the report also has sweep.csv.
        out: the folder; figures and a report that are there already are replaced.

    Raises:
        RunError: if a run cannot be read, or the folder not written, or if sweeps and runs are
            mixed.
    """
    sweeps = [path for path in runs if is_sweep(path)]
    if sweeps and len(runs) > 1:
        raise RunError(f"{sweeps[0]} is a sweep: report on it alone, or on its runs")
    folder, files = Path(out), dict[str, str]()
    if sweeps:
        title, pictures, parts, files = sweep_report(sweeps[0])
    else:
        read = read_runs(runs)
        names = " · ".join(run.name for run in read)
        title = names if len(read) <= _NAMED else counted(len(read), "run")
        pictures = list(_pictures(read))
        parts = _parts(read)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_text(content, encoding="utf-8")
        for picture in pictures:
            for name, drawn in picture.figures.items():
                _save(drawn, folder / name)
        before, after = parts
        shown = [heading("Figures"), *map(element, pictures)] if pictures else []
        path = folder / "report.html"
        path.write_text(page(title, [*before, *shown, *after]), encoding="utf-8")
    except OSError as error:
        raise RunError(f"cannot write the report to {folder}: {error.strerror}") from error
    return path


def _save(drawn: Figure, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # in a run's name
        settle(drawn)
        drawn.savefig(path.with_name(f"{path.name}.png"), dpi=150)
        drawn.savefig(path.with_name(f"{path.name}.svg"))


def _parts(runs: Sequence[RunRecords]) -> tuple[list[str], list[str]]:
    """Return what stands before the figures, and after."""
    names, several = [run.name for run in runs], len(runs) > 1
    records = any(run.train or run.reports or run.theory for run in runs)
    before = [
        *(paragraph(words, "warning") for words in diverged(runs)),
        heading("Outcome"),
        outcome(runs),
        paragraph("" if records else "There are no records yet."),
    ]
    after = [
        *_images(runs),
        heading("Configuration"),
        paragraph("Settings that differ come first, and are marked." if several else ""),
        compared(names, [flattened(run.config) for run in runs]),
        heading("Versions"),
        compared(names, [run.environment for run in runs]),
    ]
    return before, after


# The scores of `mupc.runs.restore.Scores` that stand below a picture.
_SCORES = {"error": "mean squared error", "psnr": "PSNR (dB)", "ssim": "SSIM"}


def _images(runs: Sequence[RunRecords]) -> Iterator[str]:
    """Return what commands made of the networks."""
    if any(run.pictures for run in runs):
        yield heading("Pictures")
    for run in runs:
        for name, (png, scores) in run.pictures.items():
            numbers = [
                f"{words} {figure(scores[key])}"
                for key, words in _SCORES.items()
                if isinstance(scores.get(key), int | float)
            ]
            yield image(png, "; ".join([f"{run.name}: {PICTURES[name]}", *numbers]))


def _pictures(runs: Sequence[RunRecords]) -> Iterator[Picture]:
    if any(run.train for run in runs):
        of_training = " of training" if any(run.validation for run in runs) else ""
        words = f"Each point{of_training} is a mean over the batches since the last."
        words = f"{words} {_energies(runs)}".strip()
        yield Picture("curves", "Training", words, {"curves": curves(runs)})
        words = "Compilation, validation and regime reports count as time."
        yield Picture("seconds", "Training in time", words, {"seconds": accuracy_in_time(runs)})
    for field in ("change", "cosine", "energy_after", "scale"):
        found = [run for run in runs if reports_with(run, field)]
        if field == "energy_after":  # without inference all of it is the output's
            found = [run for run in found if run.reports[-1].inference_steps]
        if found:
            yield from _layers(found, field)
    if (drawn := diagnostics(runs)) is not None:
        words = "What learning rules report of themselves, on the batches of the regime reports."
        yield Picture("diagnostics", "Diagnostics of the rule", words, {"diagnostics": drawn})
    if any(inferred(run) is not None for run in runs):
        words = "At equilibrium the residual is near zero and the energy no longer falls."
        yield Picture("inference", "Inference", words, {"inference": inference_traces(runs)})
    if any(run.theory for run in runs):
        for name, (title, words, draw) in _THEORY.items():
            yield Picture(name, title, words, {name: draw(runs)})
    if any(not point.trained for run in runs for point in run.theory):
        words = "Under a parameterisation that suits the size, neither depends on it."
        drawn = theory.coordinates(runs)
        yield Picture("coordinates", "Coordinate check", words, {"coordinates": drawn})


_THEORY = {
    "spectrum": ("Spectrum", "A wide spectrum is what makes inference slow.", theory.spectra),
    "condition": (
        "Conditioning",
        "Inference by gradient descent needs about so many steps.",
        theory.condition_numbers,
    ),
    "energy-ratio": (
        "Energy at equilibrium",
        "Near 1 predictive coding minimises what backprop does.",
        theory.energy_ratios,
    ),
    "alignment": (
        "Alignment",
        "At 1 the gradient at equilibrium is backprop's.",
        theory.alignments,
    ),
}


def _layers(runs: Sequence[RunRecords], field: str) -> Iterator[Picture]:
    """Return the profile of a figure of each layer, and its maps, which share their colours."""
    about = FIELDS[field]
    words = _WORDS[field] if field != "change" else _unlearned(runs)
    if field != "change" and any(len(reports_with(run, field)) > 1 for run in runs):
        words += " Pale: the first report."
    kinds = dict.fromkeys(kind_of(n) for run in runs for n in run.reports[-1].names[1:-1])
    if len(kinds := [kind for kind in kinds if kind != "entry"]) > 1:
        words += f" A line for each kind of layer: {', '.join(kinds)} (solid, dotted, …)."
    if borders(runs):
        words += " Grey lines: where a stage begins."
    name = f"layers-{field}"
    yield Picture(name, about.title, words, {name: layer_profiles(runs, field)})
    scale = common_scale(runs, field)
    if field == "scale" or scale is None:
        return
    low, high = (figure(end) for end in scale)
    lost = any(run.diverged for run in runs) and not all(run.diverged for run in runs)
    words = (
        f"Colours{', the same in every map,' if len(runs) > 1 else ''} go from {low} (dark) to "
        f"{high} (light){', by the runs that did not diverge' if lost else ''}. "
        f"Grey: {'zero, or ' if about.logarithmic else ''}not known."
    )
    names = _file_names(runs)
    maps = {f"map-{field}-{names[i]}": heat_map(run, field, scale) for i, run in enumerate(runs)}
    yield Picture(f"map-{field}", f"{about.title}, in training", words, maps)


_WORDS: Mapping[str, str] = {
    "energy_after": "Where inference reached equilibrium every layer carries a part of the energy; "
    "where it was cut short the lower layers carry none. An energy is in the units of its run's "
    "precision and likelihood: compare the shapes of runs, not their heights.",
    "cosine": "At 1 the gradient is the exact one: backprop's, or, of networks that settle or "
    "generate, that at equilibrium. Lower, it is predictive coding's own, or inference was not "
    "accurate. The residual tells which.",
    "scale": "Under a parameterisation that suits the depth the activity is of order one in every "
    "layer.",
}


def _unlearned(runs: Sequence[RunRecords]) -> str:
    """Say which layers did not learn, as the records judge it."""
    sentences: list[str] = []
    well = 0
    for run in runs:
        last = reports_with(run, "change")[-1]
        if last.step and any(map(math.isfinite, last.hidden)):
            layers = last.unlearned
            numbered = all(map(str.isdigit, layers))
            words = _ranges([*map(int, layers)]) if numbered else listed(layers, _NAMED)
            sentences += [f"{run.label}: {words}"] * bool(layers)
            well += not layers
    if well:
        sentences.append("none" if len(runs) == 1 else f"none in {counted(well, 'run')}")
    if not sentences:
        return ""
    return (
        "Hidden weight layers that did not learn (relative change below a tenth of the run's "
        f"largest): {'; '.join(sentences)}."
    )


def _ranges(numbers: Sequence[int]) -> str:
    """Return whole numbers in ascending order in few words: 2–4, 7."""
    found: list[list[int]] = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join(f"{low}" if low == high else f"{low}–{high}" for low, high in found)


def _energies(runs: Sequence[RunRecords]) -> str:
    """Say why energies of several runs cannot be compared."""
    trained = [run for run in runs if run.train]
    if len(trained) < 2:
        return ""
    words = (
        "An energy is in the units of its run's precision and likelihood: compare the shapes of "
        "runs, not their heights."
    )
    last = [run.train[-1].precision for run in trained]
    known = [precision for precision in last if math.isfinite(precision)]
    if known and max(known) > 1.01 * min(known):
        each = zip(trained, last, strict=True)
        named = ", ".join(f"{run.name} {figure(precision, '.2g')}" for run, precision in each)
        words += f" Precisions at the end: {named if len(last) <= _NAMED else span(tuple(last))}."
    return words


def _file_names(runs: Sequence[RunRecords]) -> list[str]:
    names = [re.sub(r"[^\w.-]+", "-", run.name)[:80] for run in runs]
    if len({name.lower() for name in names}) < len(names):  # of some file systems that is one file
        names = [f"{i}-{name}" for i, name in enumerate(names, 1)]
    return names
