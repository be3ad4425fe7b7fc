"""The command line: `python -m adafactor demo` trains a network on real data, `info` describes the build."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import adafactor
from adafactor.demo import command


def info(_options: argparse.Namespace) -> int:
    """Print what `adafactor.build_info()` says, an entry a line."""
    try:
        entries = adafactor.build_info()
    except ValueError as error:  # ADAFACTOR_ISA
        print(error, file=sys.stderr)
        return 1
    width = max(map(len, entries))
    for name, value in entries.items():
        print(f"{name:<{width}}  {_as_text(value)}")
    return 0


def _as_text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {each}" for name, each in value.items() if each is not None)
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name and return its exit code; without a command, print the help."""
    what_it_is = (adafactor.__doc__ or "").partition("\n")[0]  # without the example after it
    parser = argparse.ArgumentParser(prog="python -m adafactor", description=what_it_is)
    parser.add_argument("--version", action="version", version=f"adafactor {adafactor.__version__}")
    commands = parser.add_subparsers(title="commands")

    train = commands.add_parser(
        "demo",
        help="train a small network on handwritten digits and draw what happened",
        description="Train a small neural network on scikit-learn's handwritten digits with Adafactor, print "
        "its accuracy and the size of the optimizer's state beside Adam's, and draw the training. It takes "
        "some seconds.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    command.add_arguments(train)
    train.set_defaults(run=command.run)

    build = commands.add_parser("info", help="print version, instruction sets and threads of this build")
    build.set_defaults(run=info)

    options = parser.parse_args(arguments)
    if "run" not in options:
        parser.print_help()
        return 0
    return int(options.run(options))


if __name__ == "__main__":
    sys.exit(main())
