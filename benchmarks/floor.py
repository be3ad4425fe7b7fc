"""The share of the floor that a step reaches: `python -m benchmarks.floor`.

The floor is what the passes of a step over its arrays cost on this machine when nothing but the passes is
there: the plain loops of benchmarks/loops.cpp, whose sums have the project's order, in the best of a few ways
to walk them. They and `adafactor.step` take turns in one process on the same arrays, in pages of 4 KB; the
numbers are lower quartiles, because what disturbs a call only ever makes it longer.
"""

import argparse
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import adafactor
from benchmarks import command_line, loops, pictures, results, trees
from benchmarks.contestants import TIMED_LEARNING_RATE
from benchmarks.progress import Progress
from benchmarks.rows import Entry
from benchmarks.timer import lower_quartile
from benchmarks.turns import come_to_rest

LEAST_ROUNDS = 5


class Case(NamedTuple):
    """A tree of equal leaves, and how the loops walk what its step has to."""

    title: str
    shape: tuple[int, ...]
    leaves: int = 1
    dtype: str = "float32"
    kind: int = loops.MATRIX
    order: int = loops.AT_ONCE
    propagates: bool = False

    @property
    def variants(self) -> list[loops.Variant]:
        single = self.leaves == 1 and self.kind == loops.MATRIX
        return loops.MATRIX_VARIANTS if single else loops.TREE_VARIANTS

    @property
    def elements(self) -> int:
        return self.leaves * math.prod(self.shape)


def cases() -> dict[str, Case]:
    """All that are measured unless some are chosen, by the names that the command line knows."""
    found = {}
    for rows, cols in ((4096, 4096), (32128, 512), (2048, 512), (1024, 1024), (512, 512), (32768, 4096)):
        found[f"{rows}x{cols}"] = Case(f"{rows}x{cols}", (rows, cols))
    for rows, cols in ((512, 512), (1024, 1024), (2048, 512)):
        leaves = (1 << 27) // (rows * cols)
        title = f"{leaves} x ({rows},{cols})"
        found[f"tree-{rows}x{cols}"] = Case(title, (rows, cols), leaves, order=loops.LOOKS_FIRST)
        found[f"tree-{rows}x{cols}-propagate"] = Case(
            f"{title}, propagate", (rows, cols), leaves, propagates=True
        )
    found["vector"] = Case("vector of 16 M", (1 << 24,), kind=loops.VECTOR)
    found["kernels-first"] = Case("20 x (512,256,3,3)", (512, 256, 3, 3), 20, order=loops.LOOKS_FIRST)
    found["4096x4096-bfloat16"] = Case("4096x4096, bfloat16", (4096, 4096), dtype="bfloat16")
    found["vector-bfloat16"] = Case(
        "vector of 16 M, bfloat16", (1 << 24,), dtype="bfloat16", kind=loops.VECTOR
    )
    return found


CASES = cases()


def make_step(case: Case, tree: loops.Tree) -> Callable[[], object]:
    """A step on the arrays of the tree, which was made once already."""
    dtype = trees.numpy_dtype(case.dtype)

    def leaves_of(array: Any) -> dict[str, Any]:
        return dict(enumerate(array.view(dtype).reshape(case.leaves, *case.shape)))

    params, grads = leaves_of(tree.p), leaves_of(tree.g)
    knobs = {"on_nonfinite": "propagate"} if case.propagates else {}
    state = adafactor.init(params, learning_rate=TIMED_LEARNING_RATE, **knobs)

    def step() -> object:
        return adafactor.step(params, grads, state)

    step()
    return step


def timed(call: Callable[[], object], times: int) -> list[float]:
    """The seconds of so many calls, after one that brings back what others pushed out of the caches."""
    taken = []
    for _ in range(times + 1):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return taken[1:]


def contestants(case: Case, tree: loops.Tree, threads: int) -> dict[Any, Callable[[int], Sequence[float]]]:
    """What takes turns, as functions of the number of calls: the step, and the loops in each variant."""
    step = make_step(case, tree)

    def walk(tree: loops.Tree, variant: loops.Variant) -> Callable[[int], Sequence[float]]:
        return lambda times: tree.run(variant, threads=threads, times=times + 1)[1:]

    found: dict[Any, Callable[[int], Sequence[float]]] = {"step": lambda times: timed(step, times)}
    found |= {variant: walk(tree, variant) for variant in case.variants}
    if len(case.shape) == 4:
        slices = math.prod(case.shape[:2])
        quotients = loops.Tree(case.leaves, slices, loops.LANES, tree.g, tree.p, loops.QUOTIENTS)
        found["quotients"] = walk(quotients, loops.Variant())
    return found


def measure(case: Case, threads: int, rounds: int, turn_seconds: float, *, huge: bool = False) -> Entry:
    """The step beside its floor."""
    adafactor.set_num_threads(threads)
    tree = loops.tree(case.shape, case.leaves, case.dtype, kind=case.kind, order=case.order, huge=huge)
    turns = contestants(case, tree, threads)
    calls = {name: max(1, round(turn_seconds / lower_quartile(take(1)))) for name, take in turns.items()}
    seconds: dict[Any, list[float]] = {name: [] for name in turns}
    for _ in range(rounds):
        for name, take in turns.items():
            come_to_rest()
            seconds[name].extend(take(calls[name]))
    costs = {name: 1e9 * lower_quartile(taken) / case.elements for name, taken in seconds.items()}
    least = min(case.variants, key=costs.__getitem__)
    floor = max(costs[least], costs.get("quotients", 0))
    return {
        "title": case.title,
        "dtype": case.dtype,
        "threads": threads,
        "elements": case.elements,
        "bytes_per_element": tree.bytes_of(loops.ALL) / case.elements,
        "step_nanoseconds": costs["step"],
        "floor_nanoseconds": floor,
        "share": floor / costs["step"],
        "walked": str(least),
        "variants": {str(name): cost for name, cost in costs.items() if name != "step"},
    }


def table(result: results.Result) -> str:
    numbers = f"{'threads':>8}{'step':>9}{'floor':>9}{'step/floor':>12}"
    lines = [f"{'nanoseconds an element':34}{numbers}  how the floor walks"]
    for row in result["rows"]:
        times = f"{row['step_nanoseconds']:9.3f}{row['floor_nanoseconds']:9.3f}{1 / row['share']:12.3f}"
        lines.append(f"{row['title']:34}{row['threads']:8}{times}  {row['walked']}")
    return "\n".join(lines)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = command_line.parser("floor", __doc__)
    parser.add_argument(
        "--workload",
        action="append",
        choices=CASES,
        metavar="NAME",
        help=f"repeatable; of {', '.join(CASES)}",
    )
    command_line.add_thread_counts(parser)
    parser.add_argument(
        "--rounds", type=command_line.positive, default=LEAST_ROUNDS, help=f"(default: {LEAST_ROUNDS})"
    )
    parser.add_argument("--seconds", type=command_line.duration, default=0.1, help="of a turn (default: 0.1)")
    parser.add_argument(
        "--huge-pages", action="store_true", help="arrays in pages of 2 MB, where Linux has them"
    )
    command_line.add_out(parser, "floor")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    settings = parse(arguments)
    names = settings.workload or list(CASES)
    jobs = [(CASES[name], threads) for name in names for threads in settings.threads]
    result = results.begin("floor", threads=max(settings.threads), huge_pages=settings.huge_pages)
    progress = Progress(
        [1 + 8e-8 * case.elements + 8 * settings.rounds * settings.seconds for case, _ in jobs]
    )
    result["rows"] = []
    for case, threads in jobs:
        progress.begin(f"{case.title}, {pictures.counted(threads, 'thread')}")
        row = measure(case, threads, settings.rounds, settings.seconds, huge=settings.huge_pages)
        result["rows"].append(row)
    adafactor.set_num_threads(0)
    print(f"{result['machine']['cpu']}; lower quartiles of {settings.rounds} rounds")
    print(table(result))
    results.write(result, pictures.of_floor, settings.out)


if __name__ == "__main__":
    main()
