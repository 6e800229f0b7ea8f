"""The command: `mupc train`, `evaluate`, `sweep`, `transfer`, `theory`, `report`, `doctor`."""

import argparse
import dataclasses
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from mupc.data import DataError
from mupc.records import RunError
from mupc.sweeps import command as sweep_command
from mupc.sweeps import transfer_command
from mupc.sweeps.command import SweepConfig
from mupc.sweeps.transfer_command import TransferConfig
from mupc.training.build import build_likelihood
from mupc.training.config import PRESETS, ConfigError, PresetName, TrainConfig
from mupc.training.doctor import examine
from mupc.training.files import read_config, to_toml
from mupc.training.metrics import Evaluation, evaluate
from mupc.training.progress import Progress
from mupc.training.regime import enough
from mupc.training.results import EQUILIBRIUM, Ended, Record
from mupc.training.run import Start, resume, train
from mupc.training.stored import load_run, part
from mupc.training.survey import TheoryConfig, TheoryRecord, survey


@dataclasses.dataclass(frozen=True)
class TrainCommand(TrainConfig):
    """Train a deep predictive coding network and report its test accuracy."""

    file: str | None = None
    """Where settings that are not given here come from: a TOML file of them, or the config.json of
    a run."""
    print_config: bool = False
    """Print the configuration as such a file, and do not train."""
    resume: str | None = None
    """Run folder to continue from its newest checkpoint, instead of all other options."""

    @property
    def config(self) -> TrainConfig:
        """The configuration of the run."""
        names = [field.name for field in dataclasses.fields(TrainConfig)]
        return TrainConfig(**{name: getattr(self, name) for name in names})


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """Evaluate the trained network of a run: the feedforward pass, over all samples of a part."""

    run: Annotated[str, tyro.conf.Positional]
    """Run folder."""
    part: Literal["test", "validation", "train"] = "test"
    """Part of the data."""


@dataclasses.dataclass(frozen=True)
class DoctorConfig:
    """Report versions, devices and data, and check in a few seconds that the numbers are right."""

    data_dir: str | None = None
    """Folder of data files to look in (else MUPC_DATA)."""


@dataclasses.dataclass(frozen=True)
class ReportConfig:
    """Make one HTML page of a run, or of several side by side, with its figures as PNG and SVG."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Run folders, of `mupc train` or `mupc theory`."""
    out: str | None = None
    """Folder to write to (default: report, in the run's folder or for several runs here)."""


Command = (
    TrainCommand
    | EvaluateConfig
    | SweepConfig
    | TransferConfig
    | TheoryConfig
    | ReportConfig
    | DoctorConfig
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; an error of the user's is one sentence on stderr and exit status 2."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    with warnings.catch_warnings():
        warnings.showwarning = _warn
        return _run(arguments)


def _warn(message: Warning | str, *_: object) -> None:
    print(f"mupc: warning: {message}", file=sys.stderr, flush=True)


def _run(arguments: list[str]) -> int:
    try:
        status = _dispatch(_parse(arguments))
        sys.stdout.flush()
        return status
    except (ConfigError, DataError, RunError) as error:
        print(f"mupc: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("mupc: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # of `mupc … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _parse(arguments: list[str]) -> Command:
    _check_alone(arguments)
    named, file = _preset(arguments), _early(arguments, "--file")
    preset = named or "default"
    usual = _train_defaults(named, file if arguments[:1] == ["train"] else None, arguments)
    swept = sweep_command.defaults(preset, file if arguments[:1] == ["sweep"] else None)
    transferred = transfer_command.defaults(preset)
    commands = (
        Annotated[TrainCommand, tyro.conf.subcommand("train", default=usual)]
        | Annotated[EvaluateConfig, tyro.conf.subcommand("evaluate")]
        | Annotated[SweepConfig, tyro.conf.subcommand("sweep", default=swept)]
        | Annotated[TransferConfig, tyro.conf.subcommand("transfer", default=transferred)]
        | Annotated[TheoryConfig, tyro.conf.subcommand("theory")]
        | Annotated[ReportConfig, tyro.conf.subcommand("report")]
        | Annotated[DoctorConfig, tyro.conf.subcommand("doctor")]
    )
    return tyro.cli(
        commands,
        args=arguments,
        prog="mupc",
        description="Train very deep predictive coding networks.",
    )


def _early(arguments: list[str], name: str) -> str | None:
    """Look for an option before all else: it says what the defaults of the other options are."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    # Given without a value, it is left to tyro, which says so.
    parser.add_argument(name, nargs="?", dest="value")
    return parser.parse_known_args(arguments)[0].value


def _preset(arguments: list[str]) -> PresetName | None:
    name = _early(arguments, "--preset")
    if name is not None and name not in PRESETS:
        raise ConfigError(f"there is no preset {name}: choose {' or '.join(PRESETS)}")
    return name


def _train_defaults(
    preset: PresetName | None, file: str | None, arguments: list[str]
) -> TrainCommand:
    config = PRESETS[preset or "default"] if file is None else read_config(file, preset)
    # One stands in the place of the other, wherever that was given.
    if _early(arguments, "--steps") is not None:
        config = dataclasses.replace(config, epochs=None)
    elif _early(arguments, "--epochs") is not None:
        config = dataclasses.replace(config, steps=None)
    return TrainCommand(**vars(config), file=file)


def _dispatch(config: Command) -> int:
    if isinstance(config, TrainCommand):
        return _train(config)
    if isinstance(config, EvaluateConfig):
        return _evaluate(config)
    if isinstance(config, SweepConfig):
        return sweep_command.run(config)
    if isinstance(config, TransferConfig):
        return transfer_command.run(config)
    if isinstance(config, TheoryConfig):
        return _theory(config)
    if isinstance(config, ReportConfig):
        return _report(config)
    return examine(config.data_dir)


_STATUS = {Ended.DIVERGED: 1, Ended.INTERRUPTED: 130, Ended.TERMINATED: 143}


def _train(command: TrainCommand) -> int:
    if command.resume is not None:
        run = resume(command.resume, begin=_begin)
    elif command.print_config:
        print(to_toml(command.config), end="")
        return 0
    else:
        run = train(command.config, begin=_begin)
    print(run.result.message)
    if run.test is not None:
        print(f"network of step {run.result.step}: test {_figures(run.test)}")
    elif run.data.test is None:
        print("the data set has no test part")
    print(f"run folder: {run.folder.path}")
    if run.result.ended in (Ended.INTERRUPTED, Ended.TERMINATED):
        print(f"to continue: mupc train --resume {run.folder.path}")
    return _STATUS.get(run.result.ended, 0)


def _check_alone(arguments: Sequence[str]) -> None:
    """Refuse other options beside --resume: a run goes on as it began."""
    given = [word.partition("=")[0] for word in arguments if word.startswith("--")]
    others = [name for name in given if name not in ("--resume", "--help")]
    if "--resume" in given and others:
        raise ConfigError(
            f"--resume continues a run as it was configured: leave out {', '.join(others)}"
        )


def _begin(start: Start) -> Callable[[Record], None]:
    """Say what is about to be done; give what shows the progress."""
    config, data, folder, regime, steps, made = start
    held_out = "" if data.validation is None else f" and {len(data.validation.x)} validation"
    print(
        f"{config.depth} layers of width {config.width}, {config.parameterisation}, "
        f"{config.rule}; {data.name}: {len(data.train.x)} training{held_out} samples, "
        f"{data.normalisation}"
    )
    if regime.rho is not None:
        held = "held in training" if config.hold_regime else "at the start; it grows in training"
        begins = f"precision {regime.precision:.3g} at first"
        print(f"regime number ρ = {regime.rho:.2g}, {held} ({begins})")
    if (warning := enough(config, regime)) is not None:
        print(f"warning: {warning}")
    if made:
        print(f"continuing after step {made} of {steps}")
    print(f"run folder: {folder.path}; compiling …", flush=True)
    return Progress(steps, config.batch_size)


def _evaluate(config: EvaluateConfig) -> int:
    trained, data, network = load_run(config.run)
    likelihood = build_likelihood(trained)
    seen = evaluate(network, part(data, config.part), likelihood=likelihood)
    print(f"{config.run}: {config.part} {_figures(seen)}")
    return 0


def _theory(config: TheoryConfig) -> int:
    folder, _ = survey(config, _tell())
    print(f"folder: {folder.path}")
    return _report(ReportConfig((str(folder.path),)))


_COLUMNS = (
    "parameterisation",
    "H",
    "N",
    "batches",
    "ρ",
    "residual",
    "condition number",
    "step limit",
    "F*/loss",
    "cosine",
)


def _tell() -> Callable[[TheoryRecord], None]:
    """Give what prints a row of a Markdown table for every record, after the table's head."""
    begun: list[TheoryRecord] = []
    figure = lambda value, form: "none" if value is None else format(value, form)  # noqa: E731

    def row(record: TheoryRecord) -> None:
        if not begun:
            print(f"| {' | '.join(_COLUMNS)} |\n|{' --- |' * len(_COLUMNS)}")
            begun.append(record)
        at_rest = record.residual is not None and record.residual <= EQUILIBRIUM
        cells = (
            record.parameterisation,
            record.depth,
            record.width,
            f"{record.trained}{' (diverged)' if record.diverged else ''}",
            figure(record.rho, ".3g"),
            f"{figure(record.residual, '.1g')}{'' if at_rest else ' (no equilibrium)'}",
            figure(record.condition_number, ".4g"),
            figure(record.step_limit, ".3g"),
            figure(record.energy_ratio, ".4f"),
            figure(record.whole_cosine, ".4f"),
        )
        print(f"| {' | '.join(map(str, cells))} |", flush=True)

    return row


def _report(config: ReportConfig) -> int:
    from mupc.plots import write_report  # loads matplotlib

    if not config.runs:
        raise RunError("name a run folder to report on, such as one under runs/")
    one = Path(config.runs[0]) / "report" if len(config.runs) == 1 else Path("report")
    page = write_report(config.runs, config.out or one)
    print(f"report: {page}")
    return 0


def _figures(seen: Evaluation) -> str:
    accuracy = "" if seen.accuracy is None else f"accuracy {100 * seen.accuracy:.2f} %, "
    return f"{accuracy}loss {seen.loss:.4g} over {seen.samples} samples"


if __name__ == "__main__":
    sys.exit(main())
