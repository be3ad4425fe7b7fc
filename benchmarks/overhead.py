"""What a step costs beside its arithmetic: 1 to 3000 tensors of 8 x 8, on one thread.

This project steps on the arrays of each library that it takes, beside torch's and optax' optimizers. The step
on parameters of torch gathers their gradients, as torch's own do. All take turns in one process. For one of
the numbers of tensors a call of this project is taken apart, on tensors of torch.
"""

import argparse
import sys
from collections.abc import Sequence

from benchmarks import command_line, parts, pictures, results, worker
from benchmarks.contestants import CONTESTANTS, ROUTES
from benchmarks.peers import missing
from benchmarks.progress import Progress
from benchmarks.rows import Entry
from benchmarks.trees import Workload

COUNTS = (1, 30, 300, 3000)
TAKEN_APART = 300
BESIDE = ("torch", "torch-foreach", "adamw", "optax")


def workload(count: int) -> Workload:
    return Workload(pictures.counted(count, "tensor"), count * [(8, 8)])


def answer_of(task: str, count: int, names: Sequence[str], seconds: float) -> Entry:
    """What a worker found; if it broke down, that it did, for all of them."""
    try:
        return worker.run(task, workload(count), names, threads=1, seconds=seconds)
    except worker.WorkerError as error:
        print(f"broke down: {error}", file=sys.stderr)
        return {"seconds": {}, "refused": dict.fromkeys(names, f"broke down, {error}")}


def row(count: int, names: Sequence[str], seconds: float) -> Entry:
    """Microseconds a step of each contestant, or why it was not measured."""
    answer = answer_of("times", count, names, seconds)
    found = {}
    for name in names:
        measured = {"microseconds": 1e6 * answer["seconds"][name]} if name in answer["seconds"] else {}
        found[name] = {"title": CONTESTANTS[name].title} | (measured or {"refused": answer["refused"][name]})
    return {"tensors": count, "found": found}


def taken_apart(count: int, seconds: float) -> Entry | None:
    """Microseconds of a call's parts on this many tensors of torch."""
    found = answer_of("parts", count, ["route-torch"], seconds)["seconds"]
    return {"tensors": count, "microseconds": parts.microseconds(found)} if found else None


def table(result: results.Result) -> str:
    rows = result["rows"]
    lines = [f"{'microseconds a step, tensors of 8 x 8':44}" + "".join(f"{r['tensors']:12,}" for r in rows)]
    for name in result["names"]:
        cells = [found.get("microseconds") for found in (row["found"][name] for row in rows)]
        numbers = "".join(f"{'refused':>12}" if cell is None else f"{cell:12.1f}" for cell in cells)
        lines.append(f"{CONTESTANTS[name].title:44}{numbers}")
    apart = result["parts"]
    if apart:
        lines += ["", f"a call on {apart['tensors']:,} tensors of torch"]
        lines += [
            f"  {title.replace('`', ''):66}{apart['microseconds'][name]:8.1f}"
            for name, title in parts.TITLES.items()
        ]
    return "\n".join(lines)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = command_line.parser("overhead", __doc__)
    parser.add_argument(
        "--tensors",
        type=command_line.positive,
        nargs="+",
        default=COUNTS,
        metavar="N",
        help=f"numbers of them (default: {' '.join(map(str, COUNTS))})",
    )
    parser.add_argument(
        "--parts",
        type=command_line.positive,
        default=TAKEN_APART,
        metavar="N",
        help=f"the number for which a call is taken apart (default: {TAKEN_APART})",
    )
    parser.add_argument(
        "--peer", action="append", choices=BESIDE, help="only this one beside this project; repeatable"
    )
    parser.add_argument(
        "--seconds", type=command_line.duration, default=10, help="spent on each number (default: 10)"
    )
    command_line.add_out(parser, "overhead")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    settings = parse(arguments)
    names = [*ROUTES, *(settings.peer or BESIDE)]
    lacking = missing(names)
    for name, modules in lacking.items():
        print(f"left out: {CONTESTANTS[name].title}, for want of {' and '.join(modules)}", file=sys.stderr)
    names = [name for name in names if name not in lacking]
    counts = sorted(set(settings.tensors))
    apart = "route-torch" in names
    # Beyond the time that was asked for: imports, and optax' compilation, which grows with the tree.
    guesses = [settings.seconds + 8 + 0.03 * count for count in counts]
    progress = Progress(guesses + apart * [settings.seconds + 4])
    result = results.begin("overhead", threads=1, seconds=settings.seconds, names=names)
    result["rows"] = []
    for count in counts:
        progress.begin(workload(count).title)
        result["rows"].append(row(count, names, settings.seconds))
    if apart:
        progress.begin(f"the parts of a call on {workload(settings.parts).title}")
    result["parts"] = taken_apart(settings.parts, settings.seconds) if apart else None
    print(table(result))
    results.write(result, pictures.of_overhead, settings.out)


if __name__ == "__main__":
    main()
