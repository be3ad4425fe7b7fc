"""How far a float32 step is from the same step in float64, for this project and for other libraries.

Each library steps once from the same float32 parameters and gradients, in float32 and in float64, and is
held against itself, since formulas differ. The unit is the spacing of float32 at max(|p|, |update|), element
by element. An element is correctly rounded if it is the float32 nearest to the one in float64.
"""

import argparse
import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from benchmarks import command_line, pictures, results, trees
from benchmarks.contestants import CONTESTANTS, OURS
from benchmarks.peers import missing
from benchmarks.progress import Progress
from benchmarks.rows import Entry
from benchmarks.trees import Workload

WORKLOADS = [Workload("1024x1024", [(1024, 1024)]), Workload("32768x256", [(32768, 256)])]
NAMES = (OURS, "torch", "torch-foreach", "transformers", "pytorch-optimizer", "optax")


@contextmanager
def doubles(name: str) -> Iterator[None]:
    """JAX has float64 only while it is told to."""
    if "jax" not in CONTESTANTS[name].needs:
        yield
        return
    jax = importlib.import_module("jax")
    jax.config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", False)


def stepped(name: str, params: list[Any], grads: list[Any]) -> list[Any]:
    made = CONTESTANTS[name].make(params, grads)
    made.step()
    found = [np.array(array) for array in made.parameters()]
    if [array.dtype for array in found] != [array.dtype for array in params]:
        raise TypeError(f"{name} gave parameters of another dtype than {params[0].dtype}")
    return found


def errors(name: str, workload: Workload) -> Entry:
    """The worst error in units, and the share of elements that are correctly rounded."""
    params, grads = trees.draw(workload.shapes, "float32")
    rounded = stepped(name, params, grads)
    with doubles(name):
        wide = [[array.astype(np.float64) for array in arrays] for arrays in (params, grads)]
        exact = stepped(name, *wide)
    worst, correct = 0.0, 0
    for p, found, true in zip(params, rounded, exact, strict=True):
        size = np.maximum(np.abs(p), np.abs(true - p)).astype(np.float32)
        units = np.abs(found - true) / np.spacing(size).astype(np.float64)
        worst = max(worst, float(units.max()))
        correct += int((found == true.astype(np.float32)).sum())
    return {"max_units": worst, "correctly_rounded": correct / workload.elements}


def table(result: results.Result) -> str:
    lines = [f"{'':44}{'units at worst':>16}{'correctly rounded':>20}"]
    for row in result["rows"]:
        for name, found in row["found"].items():
            title = f"{row['title']}, {CONTESTANTS[name].title}"
            lines.append(f"{title:44}{found['max_units']:16.1f}{found['correctly_rounded']:20.2%}")
    return "\n".join(lines)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = command_line.parser("accuracy", __doc__)
    parser.add_argument(
        "--shapes",
        action="append",
        type=command_line.tree,
        metavar="TREE",
        help="a tree of your own instead, such as 512x2048,512; repeatable",
    )
    parser.add_argument(
        "--peer", action="append", choices=NAMES[1:], help="only this one beside this project; repeatable"
    )
    command_line.add_threads(parser)
    command_line.add_out(parser, "accuracy")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    settings = parse(arguments)
    names = [OURS, *(settings.peer or NAMES[1:])]
    lacking = missing(names)
    for name, modules in lacking.items():
        print(f"left out: {CONTESTANTS[name].title}, for want of {' and '.join(modules)}", file=sys.stderr)
    names = [name for name in names if name not in lacking]
    workloads = settings.shapes or WORKLOADS
    progress = Progress([workload.elements / 1e6 for workload in workloads for _ in names])
    result = results.begin("accuracy", threads=settings.threads)
    result["rows"] = []
    for workload in workloads:
        row: Entry = {"title": workload.title, "found": {}}
        for name in names:
            progress.begin(f"{workload.title}: {CONTESTANTS[name].title}")
            row["found"][name] = errors(name, workload)
        result["rows"].append(row)
    print(table(result))
    results.write(result, pictures.of_accuracy, settings.out)


if __name__ == "__main__":
    main()
