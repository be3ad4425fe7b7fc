"""What a C++ program and this project's own builds pay to the compiler: processor time and peak memory.

Each file is compiled alone, with the flags that CMake gives it. Seconds mean little on a shared machine, so
just before it a program is compiled that has nothing of this project, and the limits are multiples of what
that one takes with GCC 12. The exit code is 1 where something takes more than 1.15 times its limit: what
exceeds it once is compiled twice more, and the median counts.
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


# What the standard library makes of a regular expression: a second or two of templates and optimization.
REFERENCE = """\
#include <algorithm>
#include <map>
#include <regex>
#include <string>
#include <vector>

int main(int, char** words) {
  std::map<std::string, std::vector<std::string>> found;
  for (; *words; ++words) {
    const std::string word(*words);
    std::smatch parts;
    if (std::regex_match(word, parts, std::regex("(a|b)*c{2,3}([^d-f]+)"))) found[parts[2]].push_back(word);
  }
  for (auto& each : found) std::sort(each.second.begin(), each.second.end());
  return static_cast<int>(found.size());
}
"""


class Compilation(NamedTuple):
    """One run of the compiler, with its limits in multiples of the reference's processor time and in MB."""

    what: str
    command: list[str]
    folder: Path
    times: float
    megabytes: float


class Cost(NamedTuple):
    """What a run took, and the reference just before it."""

    seconds: float
    megabytes: float
    reference: float

    @property
    def times(self) -> float:
        return self.seconds / self.reference


def programs(compiler: str, folder: Path) -> Iterator[Compilation]:
    """A file that uses `Optimizer`, with headers alone and with loops that are compiled elsewhere."""
    source = folder / "program.cpp"
    source.write_text(PROGRAM, encoding="utf-8")
    for mode, define, each, megabytes in (
        ("headers alone", [], (1.2, 2.4), 700),
        ("compiled once", ["-DADAFACTOR_COMPILED"], (0.35, 0.35), 400),
    ):
        for flags, times in zip((["-O0"], ["-O2", "-fopenmp"]), each, strict=True):
            command = [compiler, "-std=c++20", *flags, *define, f"-I{ROOT / 'include'}", "-c", str(source)]
            what = f"a file with Optimizer, {mode}, {' '.join(flags)}"
            yield Compilation(what, [*command, "-o", os.devnull], folder, times, megabytes)


def reference(compiler: str, folder: Path) -> list[str]:
    """The command that compiles the reference."""
    source = folder / "reference.cpp"
    source.write_text(REFERENCE, encoding="utf-8")
    return [compiler, "-std=c++20", "-O2", "-c", str(source), "-o", os.devnull]


def loops(compiler: str, folder: Path) -> Iterator[Compilation]:
    """The loops of each instruction set, as the wheel has them and as `.ci/sanitize` builds them."""
    for what, times, settings in (
        ("loops", 3.6, {"CMAKE_BUILD_TYPE": "Release"}),
        (
            "loops, sanitized",
            5.5,
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
                yield Compilation(f"{what}, {isa}", command, Path(entry["directory"]), times, float("inf"))


def used_by(command: Sequence[str], folder: Path) -> tuple[float, float]:
    """Processor time and peak memory, in MB, of the compiler and of all that it starts."""
    pid = os.posix_spawnp(
        "sh",
        ["sh", "-c", 'cd "$1" && shift && exec "$@"', "-", str(folder), *command],
        {name: value for name, value in os.environ.items() if "LAUNCHER" not in name},
    )
    _, status, usage = os.wait4(pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"the compiler fails: {shlex.join(command)}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def exceeds(compilation: Compilation, cost: Cost) -> bool:
    return cost.times > SLACK * compilation.times or cost.megabytes > SLACK * compilation.megabytes


def cost_of(compilation: Compilation, beside: Sequence[str], folder: Path) -> Cost:
    """What the compiler takes: where that exceeds the limit, the median of it and of two more runs."""
    costs = []
    while not costs or (len(costs) < 3 and exceeds(compilation, costs[0])):
        seconds, _ = used_by(beside, folder)
        costs.append(Cost(*used_by(compilation.command, compilation.folder), seconds))
    return sorted(costs, key=lambda cost: cost.times)[len(costs) // 2]


def main(argv: Sequence[str] | None = None) -> int:
    parser = command_line.parser("compiling", __doc__ or "")
    parser.add_argument("--compiler", default="g++", help="(default: g++)")
    compiler = shutil.which(parser.parse_args(argv).compiler)
    if compiler is None:
        parser.error("no such compiler")
    with tempfile.TemporaryDirectory() as name:
        todo = [*programs(compiler, Path(name)), *loops(compiler, Path(name))]
        beside = reference(compiler, Path(name))
        progress = Progress([4 + 4 * each.times for each in todo])
        costs = []
        for each in todo:
            progress.begin(each.what)
            costs.append(cost_of(each, beside, Path(name)))
    exceeding = 0
    for each, cost in zip(todo, costs, strict=True):
        said = (
            f"{each.what:<52}{cost.seconds:6.1f} s, {cost.times:4.1f} of {each.times:g} times the reference"
        )
        said += f", {cost.megabytes:4.0f} MB"
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
