"""`mupc evaluate`."""

from collections.abc import Sequence
from typing import Annotated, Literal

from mupc.commands.options import Positional, parse
from mupc.commands.terminal import figures, prepare_backend
from mupc.runs.stored import load_run, split_of
from mupc.settings.setting import MovedData, Setting
from mupc.settings.training import RunKeeping
from mupc.training import evaluate


class EvaluateOptions(Setting):
    """Evaluate the trained network of a run, as its rule predicts, over all samples of a split."""

    folder: Annotated[str, Positional()]
    """Run folder."""
    split: Literal["test", "validation", "train"] = "test"
    """Split of the data."""
    data: MovedData = None


def run(words: Sequence[str]) -> int:
    """Evaluate, and return the exit status."""
    options = parse("evaluate", words, EvaluateOptions).own
    prepare_backend(RunKeeping())
    config, data, network = load_run(options.folder, options.data)
    rule, likelihood = config.rule.build(config.network.hidden), config.rule.likelihood.build()
    seen = evaluate(network, split_of(data, options.split), rule=rule, likelihood=likelihood)
    print(f"{options.folder}: {options.split} {figures(seen)}")
    return 0
