"""`mupc train`."""

from collections.abc import Callable, Sequence
from typing import Annotated

from pydantic import AfterValidator

from mupc.commands.options import Base, early, parse
from mupc.commands.processes import check_processes, is_first, join
from mupc.commands.terminal import figures, prepare_backend
from mupc.records import Ended, Record, RunError, RunFolder
from mupc.runs import Run, Start, resume, train
from mupc.runs.stored import stored_config
from mupc.settings import ConfigError, Configuration
from mupc.settings.files import to_toml
from mupc.settings.setting import MovedData, Setting, unheeded
from mupc.training.progress import Progress
from mupc.training.signals import Ending


class TrainOptions(Setting):
    """Train a deep predictive coding network and report its test accuracy."""

    print_config: bool = False
    """Print the configuration as a TOML file, for --file, and do not train."""
    resume: str | None = None
    """Run folder to continue from its newest checkpoint, instead of all other options but data,
    layout and distributed."""
    data: MovedData = None
    distributed: Annotated[str, AfterValidator(check_processes)] | None = None
    """Train with other processes, each started with the same options: auto, if SLURM, Open MPI or
    Kubernetes has started them, or address=HOST:PORT,processes=4,process=0, where the address is
    that of process 0."""
    extend: str | None = None
    """Run folder to train longer, in a folder of its own: its configuration and its network are
    where training begins, and other options change the configuration."""


_STATUS = {Ended.DIVERGED: 1, Ended.INTERRUPTED: 130, Ended.TERMINATED: 143}


def run(words: Sequence[str]) -> int:
    """Train, and return the exit status."""
    words = _extending(words)
    options, config, given, _ = parse("train", words, TrainOptions, Base())
    if options.resume is not None:
        _check_alone(words)
    elif options.data is not None:
        raise ConfigError(
            "`data` says where the data of a run to `resume` lie now: to train on a file, name it "
            "by `dataset`"
        )
    elif options.print_config:
        if options.distributed is not None:
            raise unheeded("distributed", "nothing is trained")
        print(to_toml(config), end="")
        return 0
    keeping = config if options.resume is None else stored_config(options.resume)
    if options.distributed is not None:
        if not given.get("layout", keeping.run.layout):
            raise ConfigError("`distributed` needs a `layout` over all devices, such as data=8")
        join(options.distributed)
    prepare_backend(keeping.run)
    run = (
        train(config, begin=begin, signals=Ending)
        if options.resume is None
        else resume(
            options.resume,
            data=options.data,
            layout=given.get("layout"),
            begin=begin,
            signals=Ending,
        )
    )
    if is_first():
        _tell(run)
    return _STATUS.get(run.result.ended, 0)


def _tell(run: Run) -> None:
    print(run.result.message)
    if run.test is not None:
        print(f"test {figures(run.test)} (step {run.result.step})")
    elif run.validation is not None:
        print(f"validation {figures(run.validation)} (step {run.result.step}); no test split")
    elif run.data.test is None:
        print("no test split; hold out a validation split by --validation 0.1")
    print(f"run folder: {run.folder.path}")
    if run.result.ended in (Ended.INTERRUPTED, Ended.TERMINATED):
        print(f"to continue: mupc train --resume {run.folder.path}")


def _extending(words: Sequence[str]) -> Sequence[str]:
    """Spell out what it is to extend a run."""
    if (place := early(words, "extend")) is None:
        return words
    if any(early(words, name) is not None for name in ("file", "init_from", "preset", "resume")):
        raise ConfigError(
            "`extend` begins from a run's configuration and network: leave out `file`, "
            "`init_from`, `preset` and `resume`"
        )
    folder = RunFolder.open(place)
    if not (folder.has_ended and folder.network.is_file()):
        raise RunError(
            f"the run {place} has not ended: continue it with mupc train --resume {place}"
        )
    return [*words, "--file", str(folder.path / "config.json"), "--init-from", place]


def _check_alone(words: Sequence[str]) -> None:
    """Refuse other options beside --resume: a run continues as it began."""
    given = [word.partition("=")[0] for word in words if word.startswith("--")]
    if others := [
        name for name in given if name not in ("--resume", "--data", "--layout", "--distributed")
    ]:
        raise ConfigError(
            f"`resume` continues a run as it was configured: leave out {', '.join(others)}"
        )


def begin(start: Start) -> Callable[[Record], None]:
    """Print what is about to be done; return what shows the progress."""
    config, data, regime = start.config, start.data, start.regime
    held_out = "" if data.validation is None else f" and {len(data.validation.x)} validation"
    print(
        f"{config.network.describes}, {config.rule.kind}; {data.name}: {len(data.train.x)} "
        f"training{held_out} samples, {data.normalisation}"
    )
    if regime.rho is not None:
        print(f"regime number ρ = {regime.rho:.2g} at initialisation {_of_rho(config)}".rstrip())
        print(f"precision π = {regime.precision:.3g} at initialisation")
    if (warning := config.rule.warning(regime, config)) is not None:
        print(f"warning: {warning}")
    if start.made:
        print(f"continuing after step {start.made} of {start.steps}")
    print(f"run folder: {start.folder.path}; compiling …", flush=True)
    return Progress(start.steps, config.training.batch_size)


def _of_rho(config: Configuration) -> str:
    return "(kept from rising in training)" if config.rule.holds else "(it grows in training)"
