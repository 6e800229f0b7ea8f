"""What a person sees of training: how much is left, a bar in a terminal, and the last figures."""

from mupc.records import Record, RegimeRecord, TraceRecord, ValidationRecord, counted, scores
from mupc.records.words import printable

_BAR, _LEAST_BAR = 20, 5


class Progress:
    """Prints the progress of training; in a terminal training lines replace one another.

    Args:
        steps: how many steps are made in all.
        batch_size: how many samples in a step.
    """

    def __init__(self, steps: int, batch_size: int) -> None:
        self.steps, self.batch_size = steps, batch_size

    def __call__(self, record: Record) -> None:
        """Show a record."""
        if isinstance(record, ValidationRecord):
            best = ", the best so far" if record.best else ""
            score = scores(record.accuracy, record.loss, record.perplexity)
            self._line(f"  validation at step {record.step}: {score}{best}")
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
        figures = (
            f"step {record.step}/{self.steps}: "
            f"{scores(record.accuracy, record.loss, record.perplexity)}, "
            f"{inference}, {record.samples_per_second:,.0f} samples/s"
        )
        if record.diverged:
            share = f"{record.diverged:.0%}"
            figures += f"; inference diverged in {share} of samples: use a smaller step size"
        passing = record.step < self.steps and not record.diverged
        self._line(f"{_duration(left)} left", figures, done=record.step if passing else None)

    def close(self, message: str) -> None:
        """End with a sentence."""
        self._line(message)

    def _line(self, *parts: str, done: int | None = None) -> None:
        """Print a line; one that tells how many steps are done is overwritten by the next."""
        from rich.console import Console
        from rich.progress_bar import ProgressBar

        # In a notebook text, as elsewhere: rich would make a page of each line.
        console = Console(highlight=False, soft_wrap=True, force_jupyter=False)
        parts = tuple(printable(part, console.encoding) for part in parts)
        if console.is_terminal:
            console.file.write("\r\x1b[2K")
        if done is None or not console.is_terminal:
            console.print(", ".join(parts), markup=False)
            return
        left, figures = parts
        room = console.width - len(left) - 3
        figures = _fitting(figures, room - _LEAST_BAR)
        bar = max(_LEAST_BAR, min(_BAR, room - len(figures)))
        console.print(f"{left} ", end="", markup=False)
        if room >= _LEAST_BAR:
            console.print(ProgressBar(self.steps, done, bar), end="")
        console.print(f" {figures}", end="", markup=False)
        console.file.flush()


def _fitting(figures: str, room: int) -> str:
    """Return as many of the figures, separated by commas, as there is room for."""
    while len(figures) > room:
        # The step stands before a colon, and is what stays last.
        shorter = max(figures.rfind(", "), figures.rfind(": "))
        if shorter < 0:
            return ""
        figures = figures[:shorter]
    return figures


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
