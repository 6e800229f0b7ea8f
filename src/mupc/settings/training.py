"""How long training goes on, what is looked at in between, and how a run is kept."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from annotated_types import Lt
from pydantic import AfterValidator

from mupc.data import Dataset, steps_per_epoch
from mupc.settings.setting import (
    ConfigError,
    Count,
    Kept,
    NotNegative,
    NotNegativeCount,
    OutPlace,
    Place,
    Positive,
    Section,
    Traced,
    unheeded,
)
from mupc.training.layout import AXES
from mupc.training.plan import Plan


class Training(Section):
    """Training."""

    epochs: Positive = 10.0
    """Passes through the training data, unless the number of steps is given."""
    steps: NotNegativeCount = 0
    """Number of batches to train on, instead of epochs; 0: as epochs say."""
    batch_size: Count = 64
    """Batch size."""
    evaluate_every: Count | Literal["epoch"] = "epoch"
    """Steps between evaluations of the validation split."""
    early_stopping: NotNegativeCount = 0
    """Stop after this many evaluations without a better one; 0: never."""
    log_every: Count = 20
    """Steps between records."""
    report_every: NotNegativeCount = 100
    """Steps between reports of what inference and learning do in each layer; 0: none."""
    init_from: Place | None = None
    """Run folder, or network file, whose weights training begins from; unless given, they are
    drawn."""
    # JAX's keys take 32 bits: larger seeds would repeat smaller ones.
    seed: Annotated[NotNegativeCount, Lt(2**32), Traced()] = 0
    """Seed of everything random."""

    @classmethod
    def merged(cls, current: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of fields when some are given anew: epochs take the place of steps.

        Raises:
            ConfigError: if both are given.
        """
        if given.get("steps") and "epochs" in given:
            raise ConfigError("give either `epochs` or `steps`, and not both")
        instead = {"steps": 0} if "epochs" in given else {}
        return {**current, **instead, **given}

    def shown(self) -> dict[str, Any]:
        """Return the values of the fields that have an effect, by name."""
        unused = "epochs" if self.steps else "steps"
        return {name: value for name, value in self.values().items() if name != unused}

    def length(self, samples: int) -> int:
        """Return the number of steps on so many training samples.

        Raises:
            ConfigError: if there is no step to make.
        """
        if self.batch_size > samples:
            raise ConfigError(
                f"`batch_size` must be at most {samples}, the number of training samples, not "
                f"{self.batch_size}"
            )
        epoch = steps_per_epoch(samples, self.batch_size)
        if not (steps := self.steps or round(self.epochs * epoch)):
            raise ConfigError(f"`epochs` {self.epochs:g} is no step: an epoch has {epoch}")
        return steps

    def plan(self, data: Dataset) -> Plan:
        """Return how far training goes on a data set, and what is done in between.

        Raises:
            ConfigError: if one would have no effect on it.
        """
        if data.validation is None:
            for name in ("evaluate_every", "early_stopping"):
                if getattr(self, name) != type(self).default(name):
                    raise unheeded(name, "there is no validation split")
        return Plan(
            steps=self.length(len(data.train.x)),
            batch_size=self.batch_size,
            evaluate_every=None if self.evaluate_every == "epoch" else self.evaluate_every,
            early_stopping=self.early_stopping or None,
            log_every=self.log_every,
            report_every=self.report_every or None,
        )


def _parts(text: str) -> dict[str, int]:
    """Return what a layout is made of: `data=4,depth=2` as a dictionary.

    Raises:
        ValueError: if it is none.
    """
    parts: dict[str, int] = {}
    for part in text.replace(" ", "").split(",") if text else ():
        name, _, number = part.partition("=")
        if name not in AXES or name in parts or not number.isdecimal() or not int(number):
            names = ", ".join(AXES)
            raise ValueError(f"expected parts of {names}, e.g. data=4,depth=2, not {text}")
        parts[name] = int(number)
    return parts


def _layout(text: str) -> str:
    _parts(text)
    return text


class RunKeeping(Section):
    """How the run is kept, and where it runs."""

    out: Annotated[OutPlace, Kept()] = "runs/{label}"
    """Run folder, new; `{label}` stands for a name made of the settings, and a number if there is
    such a folder."""
    checkpoint_every: Annotated[NotNegativeCount, Kept()] = 0
    """Steps between checkpoints; 0: time alone decides."""
    checkpoint_minutes: Annotated[NotNegative, Kept()] = 5.0
    """Minutes between checkpoints; 0: none, except for that of an interruption."""
    keep_checkpoints: Annotated[Count, Kept()] = 2
    """How many checkpoints are kept."""
    tensorboard: Annotated[bool, Kept()] = False
    """Write the records for TensorBoard too, into the run folder."""

    compilation_cache: Annotated[bool, Kept()] = True
    """Keep compiled programs in the user's cache folder, so that the next start is quicker."""
    layout: Annotated[str, AfterValidator(_layout), Kept()] = ""
    """Parts that go to devices of their own: of batches, depth and runs together, such as
    data=4,depth=2; one device unless given."""

    @property
    def parts(self) -> dict[str, Any]:
        """The arguments of `mupc.Layout`; none if there is to be none."""
        return _parts(self.layout)

    @property
    def intervals(self) -> dict[str, Any]:
        """The arguments of `mupc.Checkpoints`."""
        return {
            "every": self.checkpoint_every or None,
            "minutes": self.checkpoint_minutes or math.inf,
            "keep": self.keep_checkpoints,
        }
