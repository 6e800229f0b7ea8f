"""`mupc`: which command was typed, and how the program ends."""

import difflib
import importlib
import importlib.metadata
import os
import sys
import traceback
from collections.abc import Sequence

from mupc.commands import processes, terminal
from mupc.data import DataError
from mupc.records import RunError
from mupc.settings.setting import ConfigError, option

COMMANDS = {
    "train": "train a network, or resume or extend a run",
    "evaluate": "accuracy and loss of a run's network",
    "generate": "text, or pictures, from a run's network",
    "reconstruct": "data from latent variables inferred of them",
    "complete": "the hidden part of data, from the rest",
    "denoise": "data from data with noise",
    "sweep": "train a grid, a list or random draws of settings",
    "theory": "measure what theory speaks of over depth and width",
    "report": "draw a page of runs, or of a sweep",
    "doctor": "check versions, devices, data and numbers",
}
"""Every command, each a module of this package, and what it does."""


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; an error of the user's is one sentence on stderr and exit status 2."""
    terminal.prepare()
    try:
        status = _run(list(sys.argv[1:] if words is None else words))
        sys.stdout.flush()
        return status
    except ConfigError as error:
        terminal.sentence(error.spelt(option))
    except (DataError, RunError) as error:
        terminal.sentence(str(error))
    except KeyboardInterrupt:
        terminal.sentence("interrupted")
        return processes.left(130)
    except BrokenPipeError:  # of `mupc … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return processes.left(141)
    except Exception:
        if processes.joined():
            traceback.print_exc()
            processes.left(1)
        raise
    return processes.left(2)


def _run(words: list[str]) -> int:
    name, *rest = words or ["--help"]
    if name in ("-h", "--help", "help"):
        print(_help())
        return 0
    if name in ("-V", "--version"):
        print(f"mupc {importlib.metadata.version('mupc')}")
        return 0
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"commands: {', '.join(COMMANDS)}"
        kind = "option" if name.startswith("-") else "command"
        raise ConfigError(f"there is no {kind} {name}: {hint}")
    return importlib.import_module(f"mupc.commands.{name}").run(rest)


def _help() -> str:
    commands = "\n".join(f"  {name:<12}{text}" for name, text in COMMANDS.items())
    return (
        "usage: mupc COMMAND [options]\n\nTrain very deep predictive coding networks.\n\n"
        f"commands:\n{commands}\n\n"
        "mupc COMMAND --help lists a command's options; mupc --version tells the version."
    )


if __name__ == "__main__":
    sys.exit(main())
