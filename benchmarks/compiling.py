"""What a C++ program and this project's own builds pay to the compiler: processor time and peak memory.

Each file is compiled alone, with the flags that CMake gives it; the limits are those of GCC 12 on two quiet
cores. The exit code is 1 where something takes more than 1.15 times its limit.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import command_line, machine
from benchmarks.progress import Progress

ROOT = Path(__file__).resolve().parents[1]
SLACK = 1.15  # of a limit, for what else the machine does

PROGRAM = """\
#include <adafactor/adafactor.hpp>
#include <vector>

int main() {
  std::vector<float> w(64 * 64, 0.5f), g(64 * 64, 0.1f);
  adafactor::Config config;
  adafactor::Optimizer optimizer{config, {{{64, 64}, adafactor::DType::float32}}};
  optimizer.step({w.data()}, {g.data()});
}
"""


class Compilation(NamedTuple):
    """One run of the compiler, with its limits in seconds of processor time and in MB."""

    what: str
    command: list[str]
    folder: Path
    seconds: float
    megabytes: float


class Cost(NamedTuple):
    """What a run took."""

    seconds: float
    megabytes: float


def programs(compiler: str, folder: Path) -> Iterator[Compilation]:
    """A file that uses `Optimizer`, with headers alone and with loops that are compiled elsewhere."""
    source = folder / "program.cpp"
    source.write_text(PROGRAM, encoding="utf-8")
    for mode, define, seconds, megabytes in (
        ("headers alone", [], 8, 700),
        ("compiled once", ["-DADAFACTOR_COMPILED"], 3, 400),
    ):
        for flags in (["-O0"], ["-O2", "-fopenmp"]):
            command = [compiler, "-std=c++20", *flags, *define, f"-I{ROOT / 'include'}", "-c", str(source)]
            what = f"a file with Optimizer, {mode}, {' '.join(flags)}"
            yield Compilation(what, [*command, "-o", os.devnull], folder, seconds, megabytes)


def loops(compiler: str, folder: Path) -> Iterator[Compilation]:
    """The loops of each instruction set, as the wheel has them and as `.ci/sanitize` builds them."""
    for what, seconds, settings in (
        ("loops", 12, {"CMAKE_BUILD_TYPE": "Release"}),
        (
            "loops, sanitized",
            25,
            {
                "CMAKE_BUILD_TYPE": "None",
                "ADAFACTOR_SANITIZE": "address,undefined",
            },
        ),
    ):
        build = folder / what.replace(", ", "-")
        settings |= {"CMAKE_CXX_COMPILER": compiler, "CMAKE_EXPORT_COMPILE_COMMANDS": "ON"}
        defines = [f"-D{name}={value}" for name, value in settings.items()]
        subprocess.run(["cmake", "-S", ROOT, "-B", build, *defines], check=True, stdout=subprocess.DEVNULL)
        for entry in json.loads((build / "compile_commands.json").read_text(encoding="utf-8")):
            if entry["file"].endswith("kernels.cpp"):
                command = shlex.split(entry["command"])
                command[command.index("-o") + 1] = os.devnull
                isa = next(word.split("=")[1] for word in command if "ADAFACTOR_ISA_TAG=" in word)
                yield Compilation(f"{what}, {isa}", command, Path(entry["directory"]), seconds, float("inf"))


def cost_of(compilation: Compilation) -> Cost:
    """Processor time and peak memory of the compiler and of all that it starts."""
    pid = os.posix_spawnp(
        "sh",
        ["sh", "-c", 'cd "$1" && shift && exec "$@"', "-", str(compilation.folder), *compilation.command],
        {name: value for name, value in os.environ.items() if "LAUNCHER" not in name},
    )
    _, status, usage = os.wait4(pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{compilation.what}: the compiler fails: {shlex.join(compilation.command)}")
    return Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def exceeds(compilation: Compilation, cost: Cost) -> bool:
    return cost.seconds > SLACK * compilation.seconds or cost.megabytes > SLACK * compilation.megabytes


def main(argv: Sequence[str] | None = None) -> int:
    parser = command_line.parser("compiling", __doc__ or "")
    parser.add_argument("--compiler", default="g++", help="(default: g++)")
    compiler = shutil.which(parser.parse_args(argv).compiler)
    if compiler is None:
        parser.error("no such compiler")
    with tempfile.TemporaryDirectory() as name:
        todo = [*programs(compiler, Path(name)), *loops(compiler, Path(name))]
        progress = Progress([each.seconds for each in todo])
        costs = []
        for each in todo:
            progress.begin(each.what)
            costs.append(cost_of(each))
    exceeding = 0
    for each, cost in zip(todo, costs, strict=True):
        said = f"{each.what:<55} {cost.seconds:6.1f} s of {each.seconds:g}, {cost.megabytes:5.0f} MB"
        if each.megabytes < float("inf"):
            said += f" of {each.megabytes:g}"
        if exceeds(each, cost):
            said, exceeding = f"{said}: exceeds its limit", exceeding + 1
        print(said)
    version = subprocess.check_output([compiler, "--version"], text=True).splitlines()[0]
    print(f"{machine.describe()['cpu']}, {version}")
    return int(exceeding > 0)


if __name__ == "__main__":
    sys.exit(main())
