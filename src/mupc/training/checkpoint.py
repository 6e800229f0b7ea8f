"""Checkpoints: all that a run needs to go on as if it had never stopped."""

import errno
import json
import logging
import math
import os
import shutil
import time
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from mupc.records import RunError, environment
from mupc.training.pieces import Described, described, pieces_of
from mupc.training.processes import of_first
from mupc.training.trees import as_bytes, placed_arrays, require_same, sha256

# It changes when what a run does next would, though its settings are the same.
_FORMAT = 4
# The name of all arrays that are not parted; those that are have names with a bracket or a point.
_WHOLE = "whole"
# Steps between two looks at the clock of the first of several processes.
_ASKED = 20
# A difference in these is told, but does not stop a run: the last digits may come out otherwise.
_VERSIONS = ("mupc", "jax", "jaxlib", "equinox", "optax", "numpy")


class Snapshot(NamedTuple):
    """A run between two steps.

    Attributes:
        step: how many steps have been made.
        arrays: a tree whose arrays are kept; all else in it is rebuilt by whoever goes on.
        progress: numbers, words and lists that are kept with them.
        identity: what must be the same for the run to go on, by name.
    """

    step: int
    arrays: PyTree[Any]
    progress: Mapping[str, Any]
    identity: Mapping[str, Any]


class Saved(NamedTuple):
    """A snapshot as it was read: `arrays`, whole, by their place in the tree."""

    path: Path
    step: int
    arrays: Mapping[str, np.ndarray]
    progress: Mapping[str, Any]
    identity: Mapping[str, Any]

    @property
    def refusal(self) -> str:
        """What it means if something in it does not fit."""
        return f"the checkpoint {self.path} is of another run"


class Checkpoints:
    """Checkpoints of one run, in a folder, kept by orbax-checkpoint.

    Each is a folder named by its step, which appears whole or not at all; older ones go when a new
    one is there. SHA-256 sums of all it holds are kept in it, and checked when it is read.

    Args:
        path: the folder; it is made when there is something to keep.
        every: steps between checkpoints; None: time alone decides.
        minutes: minutes between checkpoints; infinity: steps alone decide.
        keep: how many of the newest stay.
        settings: of the run, by name; it can go on only with the same ones. A checkpoint knows a
            run by its data, numbers, arrays, classes and named functions. What it cannot see (the
            numbers of an optimiser not built with `mupc.traced`, what a lambda does) belongs here.

    Raises:
        RunError: if the folder is a file.
        ValueError: if a number is impossible.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        every: int | None = None,
        minutes: float = 5.0,
        keep: int = 2,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        if Path(path).exists() and not Path(path).is_dir():
            raise RunError(f"{path} is a file: name a folder for the checkpoints")
        for name, value in {"every": every, "keep": keep}.items():
            if value is not None and (not isinstance(value, Integral) or value < 1):
                raise ValueError(f"{name} must be a whole number, at least 1, not {value}")
        if not minutes > 0:
            raise ValueError(f"minutes must be above 0, not {minutes}")
        self.path, self.every, self.minutes, self.keep = Path(path), every, minutes, keep
        self.settings = _as_json(settings or {})
        self._last, self._manager = time.monotonic(), cast(Any, None)

    def due(self, step: int, *, processes: int = 1) -> bool:
        """Return whether it is time for a checkpoint after so many steps.

        Of several processes that train one network, the clock of the first is asked now and then.
        """
        if self.every is not None and step % self.every == 0:
            return True
        due = time.monotonic() - self._last >= 60 * self.minutes
        if processes == 1 or math.isinf(self.minutes):
            return due
        return step % _ASKED == 0 and of_first(due)

    def save(self, snapshot: Snapshot) -> bool:
        """Write a checkpoint, unless there is one of this step; return whether there is one now.

        One that cannot be written is a warning: what was there before stays, and the run goes on.

        Raises:
            RunError: if it cannot be written and the network is one of several processes, as the
                others would wait for this one.
        """
        self._last = time.monotonic()
        try:
            with _quiet():
                manager = self._open()
                if manager.latest_step() != snapshot.step:
                    self._write(manager, snapshot)
        # Whatever orbax and the layers below it raise, for a full disk or a folder that has gone.
        except Exception as error:
            self.close()
            whole = [step for step in self._steps() if step < snapshot.step]
            earlier = f"; that of step {whole[-1]} is whole" if whole else ""
            message = (
                f"no checkpoint of step {snapshot.step} could be written to {self.path} "
                f"({_reason(error)}){earlier}"
            )
            if jax.process_count() > 1:
                raise RunError(message) from error
            warnings.warn(message, stacklevel=2)
            return False
        return True

    def load(self) -> Saved | None:
        """Read the newest checkpoint; None if there is none.

        Raises:
            RunError: if it is damaged, of a newer format, or of other settings.
        """
        steps = self._steps()
        if jax.process_count() > 1:  # on a file system that is slow to tell, they may see others
            steps = of_first(steps)
        if not steps:
            return None
        path = self.path / str(steps[-1])
        earlier = f"to continue from step {steps[-2]}" if len(steps) > 1 else "to begin again"
        try:
            with _quiet():
                about, arrays = self._read(path, steps[-1])
        except RunError:
            raise
        # Whatever orbax and the layers below it raise when they meet bytes that make no sense.
        except Exception as error:
            raise RunError(
                f"the checkpoint {path} is damaged ({_reason(error)}): remove that folder {earlier}"
            ) from error
        require_same(about["settings"], self.settings, f"the checkpoint {path} is of another run")
        ours = environment()
        other = [
            f"{name} {about['versions'].get(name)} (now {ours[name]})"
            for name in _VERSIONS
            if about["versions"].get(name) != ours[name]
        ]
        if other:
            warnings.warn(
                f"the checkpoint {path} was written with {', '.join(other)}: the run goes on, but "
                "its results may differ in the last digits from those of a run without a stop",
                stacklevel=2,
            )
        return Saved(path, steps[-1], arrays, about["progress"], about["identity"])

    def close(self) -> None:
        """Let go of the folder."""
        manager, self._manager = self._manager, None
        if manager is not None:
            manager.close()

    def _steps(self) -> list[int]:
        """Return the steps of which there are checkpoints, in order."""
        try:
            names = os.listdir(self.path)
        except OSError:  # none was written, or the disk has gone
            return []
        return sorted(int(name) for name in names if name.isdecimal())

    def _open(self) -> Any:
        if self._manager is None:
            import orbax.checkpoint as ocp  # takes half a second

            # What is left of a run that was killed while it wrote. Orbax would do it too, but fails
            # if a write that failed is still at work there.
            if jax.process_index() == 0:
                for path in self.path.glob("*.orbax-checkpoint-tmp*"):
                    shutil.rmtree(path, ignore_errors=True)
            self._manager = ocp.CheckpointManager(
                self.path.absolute(),
                options=ocp.CheckpointManagerOptions(
                    max_to_keep=self.keep,
                    enable_async_checkpointing=False,
                ),
            )
        return self._manager

    def _write(self, manager: Any, snapshot: Snapshot) -> None:
        import orbax.checkpoint as ocp

        arrays = placed_arrays(snapshot.arrays)
        pieces = {name: pieces_of(array) for name, array in arrays.items()}
        whole = [
            as_bytes(piece)
            for own in pieces.values()
            for piece in own.values()
            if len(own) == 1 and piece is not None
        ]
        parted = {name: array for name, array in arrays.items() if len(pieces[name]) > 1}
        about = {
            "step": snapshot.step,
            "settings": self.settings,
            "versions": environment(),
            "progress": snapshot.progress,
            "identity": snapshot.identity,
            "arrays": described(arrays, pieces),
        }
        text = json.dumps(about)
        manager.save(
            snapshot.step,
            force=True,  # else it would ask whether the processes are to stop, as `Signals` does
            args=ocp.args.Composite(
                # What is whole goes as one: of several that orbax writes or reads at once, when one
                # fails the others are left without their event loop, and say so wherever the
                # program is by then. Of what is parted every process writes what it has.
                arrays=ocp.args.PyTreeSave({_WHOLE: np.concatenate(whole), **parted}),
                about=ocp.args.JsonSave(
                    {"format": _FORMAT, "sha256": sha256(text.encode()), "text": text}
                ),
            ),
        )

    def _read(self, path: Path, step: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        import orbax.checkpoint as ocp

        manager = self._open()
        restored = manager.restore(step, args=ocp.args.Composite(about=ocp.args.JsonRestore()))
        if (theirs := restored["about"]["format"]) != _FORMAT:
            raise RunError(
                f"the checkpoint {path} is of format {theirs}, and this version of mupc reads "
                f"{_FORMAT}: continue with the version that wrote it"
                + (", or a newer one" if theirs > _FORMAT else "")
            )
        text = restored["about"]["text"]
        if sha256(text.encode()) != restored["about"]["sha256"]:
            raise ValueError("its description is not what was written")
        about = json.loads(text)
        if about["step"] != step:
            raise ValueError(f"it is of step {about['step']}")
        written = {name: Described(*words) for name, words in about["arrays"].items()}
        names = [_WHOLE, *(name for name, array in written.items() if len(array.sums) > 1)]
        on_host = dict.fromkeys(names, ocp.RestoreArgs(restore_type=np.ndarray))
        restored = manager.restore(
            step, args=ocp.args.Composite(arrays=ocp.args.PyTreeRestore(restore_args=on_host))
        )["arrays"]
        whole, start = np.asarray(restored[_WHOLE]), 0
        arrays: dict[str, np.ndarray] = {}
        for name, array in written.items():
            if name in names:
                arrays[name] = np.asarray(restored[name])
            else:
                dtype = jnp.dtype(array.dtype)
                stop = start + math.prod(array.shape) * dtype.itemsize
                arrays[name] = whole[start:stop].view(dtype).reshape(array.shape)
                start = stop
            if not array.tells(arrays[name]):
                raise ValueError(f"{name} is not what was written")
        return about, arrays


def check_identity(saved: Saved, identity: Mapping[str, Any]) -> None:
    """Check that a checkpoint is of this run.

    Raises:
        RunError: if not; it names what differs.
    """
    require_same(saved.identity, _as_json(identity), saved.refusal)


def _as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table as it comes back from a file: lists for tuples."""
    return json.loads(json.dumps(dict(values)))


@contextmanager
def _quiet() -> Generator[None]:
    """Keep orbax from printing the errors that it raises as well, a page each."""
    logger = logging.getLogger("absl")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _reason(error: Exception) -> str:
    """Return what the system says, if that is in the text: there may be pages around it."""
    if isinstance(error, json.JSONDecodeError):
        return "it is cut short, or not what was written"
    text = str(error).strip()
    sentences = [os.strerror(number) for number in errno.errorcode]
    found = [words for words in sentences if words in text]
    return found[0] if found else text.splitlines()[0][:200] if text else type(error).__name__
