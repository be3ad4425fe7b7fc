"""What a step costs, beside other libraries' optimizers, on equal arrays, in one run.

Contestants take turns in one process (Keras in one more for each of its backends, against this project
there), so a ratio of two medians holds even where the machine is shared. The peak of memory is taken in a
process for each contestant. Libraries that are missing are named and left out;
benchmarks/requirements.txt has them all.
"""

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks import command_line, machine, pictures, results, rows, tables, worker
from benchmarks.contestants import CONTESTANTS, OPTIMIZER, OPTIONS, OURS, PEERS, PROPAGATE
from benchmarks.progress import Progress
from benchmarks.trees import DTYPES, WORKLOADS, Workload


class Job(NamedTuple):
    """What one worker is asked."""

    task: str
    workload: Workload
    dtype: str
    names: list[str]

    def guess(self, seconds: float) -> float:
        """Seconds that it takes: imports, turns that cannot be shorter, and what was asked for."""
        return 4 if self.task == "peak" else seconds + 2 * len(self.names)

    def __str__(self) -> str:
        return f"{self.workload.title}, {self.dtype}: {self.task} of {', '.join(self.names)}"


def missing(names: Sequence[str]) -> dict[str, list[str]]:
    """The modules that contestants need and that are not installed, for those that lack any."""
    lacking = {
        name: [module for module in CONTESTANTS[name].needs if importlib.util.find_spec(module) is None]
        for name in names
    }
    return {name: modules for name, modules in lacking.items() if modules}


class Run:
    """One run: who is measured on what, the jobs of the workers, and what they answered."""

    def __init__(self, settings: argparse.Namespace) -> None:
        self.settings = settings
        self.cache_bytes = settings.cache_mb << 20 if settings.cache_mb else machine.cache_bytes()
        chosen = settings.peer or list(PEERS)
        self.missing = missing([*chosen, *OPTIONS])
        self.peers = [name for name in chosen if name not in self.missing]
        self.options = [name for name in OPTIONS if name not in self.missing]
        has_bfloat16 = importlib.util.find_spec("ml_dtypes") is not None
        self.dtypes = [name for name in settings.dtype or DTYPES if name == "float32" or has_bfloat16]
        names = settings.workload or ([] if settings.shapes else WORKLOADS)
        self.workloads = [WORKLOADS[name] for name in names] + (settings.shapes or [])
        self.answers: list[tuple[Job, rows.Entry]] = []

    def ours(self, workload: Workload) -> list[str]:
        """The variants of this project that have a row of their own."""
        if workload in WORKLOADS.values() and workload != WORKLOADS["t5-small"]:
            return [OURS]
        return [OURS, PROPAGATE] if missing([OPTIMIZER]) else [OURS, PROPAGATE, OPTIMIZER]

    def processes(self) -> list[list[str]]:
        """Peers by the process that they share; the first is there even if it holds this project alone."""
        backends = dict.fromkeys([None, *(CONTESTANTS[name].keras for name in self.peers)])
        return [[name for name in self.peers if CONTESTANTS[name].keras == each] for each in backends]

    def jobs(self) -> list[Job]:
        found = []
        for dtype in self.dtypes:
            for workload in self.workloads:
                ours = self.ours(workload)
                found += [Job("times", workload, dtype, [*ours, *names]) for names in self.processes()]
                if self.settings.memory == "all" or (
                    self.settings.memory == "first" and workload is self.workloads[0]
                ):
                    found += [Job("peak", workload, dtype, [each]) for each in [*ours, *self.peers]]
        for workload in self.workloads:
            if not self.settings.no_options and workload in (
                WORKLOADS["4096x4096"],
                *(self.settings.shapes or []),
            ):
                found.append(Job("options", workload, "float32", [OURS, *self.options]))
        return found

    def work(self) -> None:
        jobs, settings = self.jobs(), self.settings
        progress = Progress([job.guess(settings.seconds) for job in jobs])
        for job in jobs:
            progress.begin(str(job))
            asked: dict[str, Any] = {
                "dtype": job.dtype,
                "threads": settings.threads,
                "seconds": settings.seconds,
            }
            try:
                answer = worker.run(job.task, job.workload, job.names, **asked)
            except worker.WorkerError as error:
                print(f"broke down: {error}", file=sys.stderr)
                reason = f"broke down, {error}"
                answer = {
                    "seconds": {},
                    "refused": dict.fromkeys(job.names, reason),
                    "peak_extra_bytes": None,
                }
            except KeyboardInterrupt:
                print("interrupted: only workloads that were timed with all peers are kept", file=sys.stderr)
                return
            self.answers.append((job, answer))

    def peer_rows(self) -> list[rows.Entry]:
        found = []
        for dtype in self.dtypes:
            for workload in self.workloads:
                mine = [(job, answer) for job, answer in self.answers if job[1:3] == (workload, dtype)]
                peaks = {
                    job.names[0]: answer["peak_extra_bytes"] for job, answer in mine if job.task == "peak"
                }
                timed = [
                    ([name for name in job.names if name in PEERS], answer)
                    for job, answer in mine
                    if job.task == "times"
                ]
                if len(timed) < len(self.processes()):
                    continue  # interrupted
                for ours in self.ours(workload):
                    found.append(rows.row(ours, workload, dtype, timed, peaks, self.cache_bytes))
        return found

    def option_rows(self) -> list[rows.Entry]:
        return [
            row
            for job, answer in self.answers
            if job.task == "options"
            for row in rows.option_rows(self.options, job.workload, answer, self.cache_bytes)
        ]


def measure(settings: argparse.Namespace) -> results.Result:
    run = Run(settings)
    for name, modules in run.missing.items():
        print(f"left out: {CONTESTANTS[name].title}, for want of {' and '.join(modules)}", file=sys.stderr)
    run.work()
    result = results.begin("peers", threads=settings.threads, seconds=settings.seconds)
    absent = {CONTESTANTS[name].title: modules for name, modules in run.missing.items()}
    result |= {"cache_bytes": run.cache_bytes, "missing": absent}
    return result | {"rows": run.peer_rows(), "options": run.option_rows()}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = command_line.parser("peers", __doc__)
    titles = "; ".join(f"{name}: {workload.title}" for name, workload in WORKLOADS.items())
    parser.add_argument(
        "--workload",
        action="append",
        choices=WORKLOADS,
        metavar="NAME",
        help=f"only this one; repeatable ({titles})",
    )
    command_line.add_shapes(parser)
    titles = "; ".join(f"{name}: {peer.title}" for name, peer in PEERS.items())
    parser.add_argument(
        "--peer", action="append", choices=PEERS, metavar="NAME", help=f"only this one; repeatable ({titles})"
    )
    parser.add_argument("--dtype", action="append", choices=DTYPES, help="only this one; default: both")
    command_line.add_threads(parser)
    parser.add_argument(
        "--seconds",
        type=command_line.duration,
        default=10,
        help="spent on each workload and process, at least five rounds (default: 10)",
    )
    parser.add_argument(
        "--memory",
        choices=["first", "all", "none"],
        default="first",
        help="take the peaks of memory on the first workload, on all, or not at all (default: first)",
    )
    parser.add_argument("--no-options", action="store_true", help="leave this project's own options out")
    parser.add_argument(
        "--cache-mb",
        type=command_line.positive,
        help="p and g of this size stay in the cache between phases (default: what the system tells, or 32)",
    )
    command_line.add_out(parser, "peers")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    settings = parse(arguments)
    result = measure(settings)
    print(tables.of_peers(result))
    results.write(result, pictures.of_peers, settings.out)


if __name__ == "__main__":
    main()
