"""The options of the command line that several benchmarks share."""

import argparse
from pathlib import Path

from benchmarks import machine, trees


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}, expected at least 1")
    return number


def duration(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < 1e6:
        raise argparse.ArgumentTypeError(f"{text}, expected seconds, at least 0")
    return seconds


def tree(text: str) -> trees.Workload:
    try:
        return trees.parse(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}, expected shapes such as 512x2048,512") from None


def parser(name: str, document: str) -> argparse.ArgumentParser:
    """A parser whose help is the module's own docstring."""
    return argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=document,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_shapes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--shapes",
        action="append",
        type=tree,
        metavar="TREE",
        help="a tree of your own, such as 512x2048,512 for a matrix and a vector; repeatable",
    )


def add_threads(parser: argparse.ArgumentParser) -> None:
    default = min(2, machine.cores())
    parser.add_argument(
        "--threads", type=positive, default=default, help=f"of every contestant (default: {default})"
    )


def add_thread_counts(parser: argparse.ArgumentParser, limit: str = "") -> None:
    default = sorted({1, min(2, machine.cores())})
    parser.add_argument(
        "--threads",
        type=positive,
        nargs="+",
        default=default,
        metavar="N",
        help=f"numbers of threads{limit} (default: {' '.join(map(str, default))})",
    )


def add_out(parser: argparse.ArgumentParser, question: str) -> None:
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE.json",
        help="where the result goes, and under the same name with .svg its picture"
        f" (default: benchmarks/results/{question}-CPU-N-threads.json)",
    )
