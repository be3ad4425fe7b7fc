"""What a step costs on a machine that is busy with something else: `python -m benchmarks.busy [BUILD ...]`.

Each build steps with one thread and with all, beside torch's fused AdamW with all: on a quiet machine, beside
a busy process, beside one and two a core, and directly behind an operation of torch on all cores, whose own
threads still look out for work then. All take turns. A build is what `benchmarks.compare` takes; the package
that is installed unless some are named.
"""

import argparse
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import adafactor
from benchmarks import builds, command_line, machine, pictures, results
from benchmarks.contestants import CONTESTANTS, OURS
from benchmarks.progress import Progress
from benchmarks.rows import Entry
from benchmarks.trees import Workload
from benchmarks.turns import Stepper

WORKLOADS = [
    Workload("60 x (512,512)", 60 * [(512, 512)]),
    Workload("1024x1024", [(1024, 1024)]),
]
ADAMW = "adamw"
SPIN = "while True: pass"


class Situation(NamedTuple):
    """What else the machine does: busy processes, or an operation of torch before each step."""

    title: str
    processes: int = 0
    behind_torch: bool = False


class Stepping(NamedTuple):
    """A contestant: whose step, with how many threads."""

    title: str
    folder: Path
    contestant: str
    threads: int


def situations(cores: int) -> list[Situation]:
    numbers = dict.fromkeys((1, cores, 2 * cores))
    beside = [Situation(f"{number} busy process{'es' if number > 1 else ''}", number) for number in numbers]
    return [Situation("quiet"), *beside, Situation("behind an operation of torch", behind_torch=True)]


@contextlib.contextmanager
def busy(processes: int) -> Iterator[None]:
    """So many processes that want a core each."""
    started = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(processes)]
    try:
        yield
    finally:
        for each in started:
            each.kill()
            each.wait()


def steppings(folders: dict[str, Path], threads: int) -> list[Stepping]:
    found = []
    for said, folder in folders.items():
        for count in sorted({1, threads}):
            title = f"{said}, {pictures.counted(count, 'thread')}"
            found.append(Stepping(title, folder, OURS, count))
    first = next(iter(folders.values()))
    return [*found, Stepping(CONTESTANTS[ADAMW].title, first, ADAMW, threads)]


def job_of(stepping: Stepping, workload: Workload, situation: Situation) -> dict[str, Any]:
    return {
        "folder": str(stepping.folder),
        "contestant": stepping.contestant,
        "shapes": workload.shapes,
        "params": "float32",
        "grads": "float32",
        "threads": stepping.threads,
        "behind_torch": situation.behind_torch,
    }


def measure(
    workload: Workload, situation: Situation, contestants: Sequence[Stepping], rounds: int, seconds: float
) -> Entry:
    """Milliseconds of each: the median, what nine of ten steps stay below, and the worst."""
    found: dict[str, list[float]] = {each.title: [] for each in contestants}
    with contextlib.ExitStack() as stack:
        steppers = {
            each.title: stack.enter_context(Stepper(each.title, job_of(each, workload, situation)))
            for each in contestants
        }
        for stepper in steppers.values():
            stepper.ready()
        stack.enter_context(busy(situation.processes))
        for _ in range(rounds):
            for title, stepper in steppers.items():
                found[title] += stepper.times(seconds)
    milliseconds = {
        title: dict(
            zip(("median", "p90", "worst"), (1e3 * np.quantile(times, [0.5, 0.9, 1])).tolist(), strict=True)
        )
        for title, times in found.items()
    }
    return {"title": workload.title, "situation": situation.title, "found": milliseconds}


def table(result: results.Result) -> str:
    lines = [f"{'milliseconds a step':52}{'median':>10}{'p90':>10}{'worst':>10}"]
    for row in result["rows"]:
        lines.append(f"{row['title']}, {row['situation']}")
        for title, found in row["found"].items():
            numbers = "".join(f"{found[name]:10.3f}" for name in ("median", "p90", "worst"))
            lines.append(f"  {title:50}{numbers}")
    return "\n".join(lines)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = command_line.parser("busy", __doc__)
    parser.add_argument("builds", nargs="*", metavar="BUILD", help="folders, wheels, checkouts or revisions")
    command_line.add_threads(parser)
    parser.add_argument("--rounds", type=command_line.positive, default=5, help="(default: 5)")
    parser.add_argument("--seconds", type=command_line.duration, default=1, help="of a turn (default: 1)")
    command_line.add_out(parser, "busy")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    settings = parse(arguments)
    folders = {said: builds.find(said).folder() for said in settings.builds}
    folders = folders or {"adafactor.step": Path(adafactor.__file__).parents[1]}
    contestants = steppings(folders, settings.threads)
    jobs = [(workload, situation) for workload in WORKLOADS for situation in situations(machine.cores())]
    progress = Progress([5 + settings.rounds * settings.seconds * len(contestants)] * len(jobs))
    result = results.begin("busy", threads=settings.threads)
    result["rows"] = []
    for workload, situation in jobs:
        progress.begin(f"{workload.title}, {situation.title}")
        result["rows"].append(measure(workload, situation, contestants, settings.rounds, settings.seconds))
    print(f"{result['machine']['cpu']}, {os.cpu_count()} cores")
    print(table(result))
    results.write(result, pictures.of_busy, settings.out)


if __name__ == "__main__":
    main()
