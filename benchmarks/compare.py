"""Whether two builds of this package are the same speed: `python -m benchmarks.compare OLD NEW`.

A build is a folder that has the installed package (`pip install --no-deps --target FOLDER .`), a wheel, a
checkout of the sources or a git revision; the last two are built first, with pip. Each steps in a process of
its own, on equal arrays, and they take turns: a round is a turn of each, and the ratio of the lower quartiles
of their calls. The processes are new in each round, because where a process happens to lie in memory can make
it a few percent faster or slower for as long as it lives.

Two builds are the same speed if, in at least twenty rounds, the 95 % interval of the median ratio (bootstrap
over the rounds) has its lower end at or below 1.02. The exit code is 1 if on any workload they are not, or if
it could not be found out.
"""

import argparse
import importlib.util
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import builds, command_line, overhead, pictures, ratios, results, rows, trees
from benchmarks.contestants import CONTESTANTS, OPTIONS, OURS
from benchmarks.progress import Progress
from benchmarks.trees import WORKLOADS, Workload
from benchmarks.turns import Stepper, StepperError

DTYPES = ("float32", "float64", "bfloat16", "float16")


class Case(NamedTuple):
    """What both builds are timed on."""

    workload: Workload
    contestant: str = OURS
    params: str = "float32"
    grads: str = "float32"

    @property
    def title(self) -> str:
        words = [self.workload.title]
        if self.contestant != OURS:
            words.append(CONTESTANTS[self.contestant].title)
        if (self.params, self.grads) != ("float32", "float32"):
            words.append(f"{self.params}/{self.grads}")
        return ", ".join(words)

    def lacks(self) -> list[str]:
        """Modules that it needs and that are not installed."""
        bfloat16 = ["ml_dtypes"] if "bfloat16" in (self.params, self.grads) else []
        needs = [*CONTESTANTS[self.contestant].needs, *bfloat16]
        return [module for module in needs if importlib.util.find_spec(module) is None]

    def guess(self, seconds: float) -> float:
        """Seconds of a round: two turns, imports, and arrays to draw and to copy."""
        return 1 + 2 * seconds + 5e-8 * self.workload.elements


def cases() -> dict[str, Case]:
    """All that are measured unless some are chosen, by the names that the command line knows."""
    found = {name: Case(tree) for name, tree in WORKLOADS.items()}
    # The options that need another library are pairs of dtypes, and those a case has of its own.
    large = WORKLOADS["4096x4096"]
    found |= {name: Case(large, name) for name, option in OPTIONS.items() if not option.needs}
    found["bfloat16"] = Case(large, params="bfloat16", grads="bfloat16")
    found["bfloat16-parameters"] = Case(large, params="bfloat16")
    found |= {f"tensors-{count}": Case(overhead.workload(count)) for count in overhead.COUNTS}
    found["tensors-torch"] = Case(overhead.workload(overhead.TAKEN_APART), "route-torch")
    return found


CASES = cases()


def chosen(settings: argparse.Namespace) -> list[Case]:
    """The cases that were asked for, each in all pairs of dtypes that were, and none twice."""
    names = settings.workload or ([] if settings.shapes else CASES)
    asked = [CASES[name] for name in names] + [Case(tree) for tree in settings.shapes or []]
    if settings.dtype:
        asked = [each._replace(params=p, grads=g) for p, g in settings.dtype for each in asked]
    found = {}
    for case in asked:
        lacking = case.lacks()
        if lacking:
            print(f"left out: {case.title}, for want of {' and '.join(lacking)}", file=sys.stderr)
        else:
            found[case.title] = case
    return list(found.values())


class Run:
    """Two builds that are there, and how they are measured."""

    def __init__(self, settings: argparse.Namespace) -> None:
        self.settings = settings
        self.builds = {"OLD": settings.old, "NEW": settings.new}
        self.folders = {side: build.folder() for side, build in self.builds.items()}

    def stepper(self, side: str, case: Case) -> Stepper:
        job = {"folder": str(self.folders[side]), "threads": self.settings.threads}
        job |= {"shapes": case.workload.shapes, "contestant": case.contestant}
        job |= {"params": case.params, "grads": case.grads}
        return Stepper(f"{side}, {self.builds[side].said}", job)

    def describe(self, side: str) -> rows.Entry:
        """What a build says of itself, on hardly any arrays: one that does not even load is found here."""
        with self.stepper(side, Case(trees.parse("1"))) as stepper:
            return {"said": self.builds[side].said, "build": stepper.ready()}

    def round(self, case: Case, first: str, second: str) -> dict[str, float]:
        """Seconds of a call of both builds, in turns of this order."""
        with self.stepper(first, case) as one, self.stepper(second, case) as other:
            one.ready()
            other.ready()  # both are at rest now
            return {first: one.turn(self.settings.turn), second: other.turn(self.settings.turn)}

    def work(self, chosen: list[Case]) -> list[rows.Entry]:
        """A row for each case. All cases have their round before the next one begins.

        So what disturbs the machine for a minute meets few rounds of each case, not all of one.
        """
        count = self.settings.rounds
        found: list[rows.Entry] = [{"title": case.title, "OLD": [], "NEW": []} for case in chosen]
        progress = Progress(count * [sum(case.guess(self.settings.turn) for case in chosen)])
        for number in range(count):
            progress.begin(f"a round of {pictures.counted(len(chosen), 'workload')}")
            order = ("OLD", "NEW") if number % 2 == 0 else ("NEW", "OLD")
            for case, row in zip(chosen, found, strict=True):
                if "refused" in row:
                    continue
                try:
                    for side, seconds in self.round(case, *order).items():
                        row[side].append(seconds)
                except StepperError as error:
                    print(f"broke down: {case.title}: {error}", file=sys.stderr)
                    row["refused"] = str(error)
        return [judged(row, self.settings.limit) for row in found]


def judged(row: rows.Entry, limit: float) -> rows.Entry:
    if "refused" in row:
        return {"title": row["title"], "verdict": "not measured", "refused": row["refused"]}
    milliseconds = {side: 1e3 * statistics.median(row[side]) for side in ("OLD", "NEW")}
    made = {"title": row["title"], "milliseconds": milliseconds}
    made |= ratios.judge(row["OLD"], row["NEW"], limit)._asdict()
    return made | {"rounds": list(zip(row["OLD"], row["NEW"], strict=True))}


def measure(settings: argparse.Namespace, chosen: list[Case]) -> results.Result:
    run = Run(settings)
    asked = {"rounds": settings.rounds, "turn_seconds": settings.turn, "limit": settings.limit}
    result = results.begin("compare", threads=settings.threads, **asked)
    # The package that happens to be installed is neither of the two.
    del result["machine"]["build"], result["machine"]["versions"]["adafactor"]
    result |= {side: run.describe(side) for side in run.folders}
    return result | {"rows": run.work(chosen)}


def table(result: results.Result) -> str:
    width = max(len(row["title"]) for row in result["rows"]) + 2
    heading = f"{'old ms':>10}{'new ms':>10}{'new/old':>10}{'95 % interval':>18}  verdict"
    asked = f"{result['threads']} threads, {result['rounds']} rounds"
    lines = [f"{result['machine']['cpu']}, {asked}", f"{'':{width}}{heading}"]
    for row in result["rows"]:
        if "refused" in row:
            lines.append(f"{row['title']:{width}}{row['verdict']}: {row['refused']}")
            continue
        times = "".join(f"{row['milliseconds'][side]:10.4g}" for side in ("OLD", "NEW"))
        interval = f"{row['lower']:.3f} to {row['upper']:.3f}"
        lines.append(f"{row['title']:{width}}{times}{row['ratio']:10.3f}{interval:>18}  {row['verdict']}")
    return "\n".join(lines)


def build(text: str) -> builds.Build:
    try:
        return builds.find(text)
    except builds.BuildError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def rounds(text: str) -> int:
    number = int(text)
    if number < ratios.LEAST_ROUNDS:
        raise argparse.ArgumentTypeError(f"{text}, expected at least {ratios.LEAST_ROUNDS}")
    return number


def limit(text: str) -> float:
    ratio = float(text)
    if not ratio >= 1:
        raise argparse.ArgumentTypeError(f"{text}, expected a ratio of at least 1")
    return ratio


def pair(text: str) -> tuple[str, str]:
    params, slash, grads = text.partition("/")
    found = (params, grads if slash else params)
    if not set(DTYPES).issuperset(found):
        names = ", ".join(DTYPES)
        raise argparse.ArgumentTypeError(f"{text!r}, expected one or two of {names}, as float32/bfloat16")
    return found


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = command_line.parser("compare", __doc__)
    parser.add_argument("old", metavar="OLD", type=build, help="the build that is the measure")
    parser.add_argument(
        "new", metavar="NEW", type=build, help="the build that may be slower; OLD again is allowed"
    )
    parser.add_argument(
        "--workload",
        action="append",
        choices=CASES,
        metavar="NAME",
        help="only this one; repeatable ("
        + "; ".join(f"{name}: {case.title}" for name, case in CASES.items())
        + ")",
    )
    command_line.add_shapes(parser)
    parser.add_argument(
        "--dtype",
        action="append",
        type=pair,
        metavar="PARAMS/GRADS",
        help="of parameters and gradients, in all that is measured, such as bfloat16/float32; repeatable"
        f" (one or two of {', '.join(DTYPES)}; default: float32, and what a workload names)",
    )
    command_line.add_threads(parser)
    parser.add_argument(
        "--rounds",
        type=rounds,
        default=ratios.LEAST_ROUNDS,
        help=f"at least and by default {ratios.LEAST_ROUNDS}",
    )
    parser.add_argument(
        "--turn",
        type=command_line.duration,
        default=0.2,
        metavar="SECONDS",
        help="of calls in a turn, at least five calls (default: 0.2)",
    )
    parser.add_argument(
        "--limit",
        type=limit,
        default=ratios.LIMIT,
        help=f"the ratio that is still the same speed (default: {ratios.LIMIT})",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE.json",
        help="where the result goes, with every round (default: nowhere)",
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if NEW is no slower, 1 if it is or if that could not be found out, 2 if a build is missing."""
    settings = parse(arguments)
    asked = chosen(settings)
    if not asked:
        print("nothing is left to compare", file=sys.stderr)
        return 2
    try:
        result = measure(settings, asked)
    except (builds.BuildError, StepperError) as error:
        print(f"python -m benchmarks.compare: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: without all its rounds no workload is judged", file=sys.stderr)
        return 1
    print(table(result))
    if settings.out:
        results.save(result, settings.out)
    return int(any(row["verdict"] in ("slower", "not measured") for row in result["rows"]))


if __name__ == "__main__":
    sys.exit(main())
