"""What a person sees of a run: a line that says where training stands."""

from mupc.training.results import (
    Record,
    RegimeRecord,
    TraceRecord,
    ValidationRecord,
    counted,
)


class Progress:
    """Prints the progress of a run; on a terminal training lines replace one another.

    Args:
        steps: how many steps the run will make.
        batch_size: how many samples a step.
    """

    def __init__(self, steps: int, batch_size: int) -> None:
        from rich.console import Console

        self.console = Console(highlight=False, soft_wrap=True)
        self.steps, self.batch_size = steps, batch_size

    def __call__(self, record: Record) -> None:
        """Show a record."""
        if isinstance(record, ValidationRecord):
            best = ", the best so far" if record.best else ""
            score = _accuracy(record.accuracy)
            self._line(f"  validation at step {record.step}: {score}loss {record.loss:.4g}{best}")
            return
        if isinstance(record, RegimeRecord):
            if sentence := record.sentence():
                self._line(f"  at step {record.step}: {sentence}")
            return
        if isinstance(record, TraceRecord):
            return  # for figures
        left = (self.steps - record.step) * self.batch_size / max(record.samples_per_second, 1e-9)
        inference = (
            f"energy {record.energy_before:.4g} → {record.energy_after:.4g} "
            f"in {counted(round(record.inference_steps), 'inference step')}"
            if record.inference_steps
            else f"energy {record.energy_after:.4g}"
        )
        warning = (
            f"; inference diverged in {record.diverged:.0%} of samples, take a smaller step size"
            if record.diverged
            else ""
        )
        self._line(
            f"step {record.step}/{self.steps}: loss {record.loss:.4g}, "
            f"{_accuracy(record.accuracy)}{inference}, {record.samples_per_second:,.0f} samples/s, "
            f"{_duration(left)} left{warning}",
            passing=not warning,
        )

    def _line(self, text: str, *, passing: bool = False) -> None:
        if not self.console.is_terminal:
            self.console.print(text)
            return
        # A passing line is overwritten by the next one, whatever it is.
        self.console.file.write("\r\x1b[2K")
        shown = text[: self.console.width - 1] if passing else text
        self.console.print(shown, end="" if passing else "\n")
        self.console.file.flush()


def _accuracy(accuracy: float | None) -> str:
    return "" if accuracy is None else f"accuracy {100 * accuracy:.2f} %, "


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
