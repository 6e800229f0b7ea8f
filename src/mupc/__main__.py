"""`python -m mupc` is `mupc`."""

import sys


def main() -> int:
    """Run the command, or name what to install for it."""
    try:
        from mupc.commands.main import main as run
    except ModuleNotFoundError as error:
        print(
            f"mupc: the command needs the package {error.name}: pip install 'mupc[all]'",
            file=sys.stderr,
        )
        return 2
    return run()


if __name__ == "__main__":
    sys.exit(main())
