"""Errors planted into the kernels of a GPU and what the host does with them: the C++ programs, in which a CPU
stands in for the GPU, find each of them. Those of the package's own are in test_planted_refusals.py.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from cpp_build import compiled, required, run

ROOT = Path(__file__).parents[2]
# The digests that show something, and take little.
CASES = [
    *("narrow", "order_narrow", "order_slices", "order_tiles", "order_wide", "overflow", "clamp_binds"),
    *("half_links", "clipvalue", "momentum", "stochastic_convolution", "accumulation", "global_clipnorm"),
    *("small_slices", "average"),
]


# What is compiled for the host, too, and so into the programs themselves.
OF_THE_HOST = {f"src/cuda/{name}.hpp" for name in ("gpu", "runtime", "work", "optimizer")}


@dataclass(frozen=True)
class Error:
    """`old` stands once in a file, and becomes `new`; a program of tests/cpp/cuda finds it."""

    what: str
    file: str
    old: str
    new: str
    program: str = "test_emulated"


ERRORS = [
    Error(
        "lanes folded 1-2-4-8",
        "include/adafactor/lanes/threads.hpp",
        "int distance = kLanes / 2; distance >= 1; distance /= 2",
        "int distance = 1; distance < kLanes; distance *= 2",
    ),
    Error(
        "a lane that has no element reads",
        "include/adafactor/lanes/threads.hpp",
        "return {{has_lane(amount) ? load<T>(from + lane(), One{}) : T{}}};",
        "return {{load<T>(from + (has_lane(amount) ? lane() : 0), One{})}};",
    ),
    Error(
        "columns are added up before all groups are there",
        "src/cuda/moments.hpp",
        "      meet();\n      add_groups(",
        "      add_groups(",
    ),
    Error(
        "the next groups begin before all columns are added up",
        "src/cuda/moments.hpp",
        "first == 0);\n      meet();",
        "first == 0);",
    ),
    Error(
        "short rows added up one after another",
        "src/cuda/moments.hpp",
        "if (narrow) clipped = fold(Lanes<double>{{of_lane}});",
        "",
    ),
    Error(
        "blocks of a row added up backwards",
        "src/cuda/moments.hpp",
        "sum += folds[r * blocks + block];",
        "sum += folds[r * blocks + blocks - 1 - block];",
    ),
    Error(
        "cells in another order",
        "src/cuda/cells.hpp",
        "first * groups_ + group * width(first) + block - first;",
        "first * groups_ + (block - first) * groups_ + group;",
    ),
    Error(
        "one number added up after another",
        "src/cuda/team.hpp",
        "return thread_detail::fold_from<0, 1>(count, number);",
        "double sum = 0; for (int i = 0; i < count; ++i) sum = sum + number(i); return sum;",
    ),
    Error(
        "the factor of another row",
        "src/cuda/update.hpp",
        "of_lane(static_cast<double>(factor), r)",
        "of_lane(static_cast<double>(factor), 0)",
    ),
    Error(
        "the factor of another row, where there are links",
        "src/cuda/update.hpp",
        "return of_lane(of_lane_, r);",
        "return of_lane(of_lane_, 0);",
    ),
    Error(
        "a wide leaf rounded to float",
        "src/cuda/rms.hpp",
        "u_of.wide(load<T>(g, i, amount), i, amount)",
        "widen(u_of(load<T>(g, i, amount), i, amount))",
    ),
    Error("no leaf goes wide", "src/cuda/decisions.hpp", "      goes_wide(leaf);\n", ""),
    Error("the clamp never binds", "src/cuda/decisions.hpp", "{ find_clamp(leaf, tiles); }", "{}"),
    Error(
        "the verdict before all leaves are looked at",
        "src/cuda/decisions.hpp",
        "shared.is_nonfinite[thread_of_block()] = nonfinite;\n    meet();",
        "shared.is_nonfinite[thread_of_block()] = nonfinite;",
    ),
    Error(
        "the average of what is not stored",
        "src/cuda/apply.hpp",
        "if (leaf_.averages()) average(stored,",
        "if (leaf_.averages()) average(parameter_of(numbers.parameter.group.value, update),",
    ),
    Error(
        "an accumulator that keeps its gradients",
        "src/cuda/apply.hpp",
        "if (leaf_.rule.accumulates) state",
        "if (false) state",
    ),
    Error("columns that stay", "src/cuda/apply.hpp", "if (tile.row_block == 0) {", "if (false) {"),
    Error(
        "the noise of another element",
        "src/cuda/places.hpp",
        "leaf_.rule.noise.first + places_.offset(leaf_.at.elements, i)",
        "leaf_.rule.noise.first + i",
    ),
    Error(
        "an update that is not clipped",
        "src/cuda/apply.hpp",
        "for_plain_rows_of<T>(leaf, cell, leaf.update_scale(),",
        "for_plain_rows_of<T>(leaf, cell, 1,",
    ),
    Error(
        "partial sums without the last",
        "src/cuda/moments.hpp",
        "part < parts; ++part) sum",
        "part < parts - 1; ++part) sum",
    ),
    Error(
        "columns added up from another place on",
        "src/cuda/moments.hpp",
        "shape.row_blocks * shape.cols + tile.col",
        "shape.row_blocks * shape.cols",
    ),
    Error("no leaf has its norm", "src/cuda/decisions.hpp", "      find_norm(leaf);\n", ""),
    Error(
        "the factor of all norms stays out",
        "src/cuda/decisions.hpp",
        "if (view.clips_all) view.leaves[i].found.norm_factor = factor;",
        "",
    ),
    Error(
        "a call that is to be skipped goes on",
        "src/cuda/decisions.hpp",
        "if (holds) view.leaves[i].found.held = true;",
        "",
    ),
    Error(
        "the verdict does not know of a number that is not finite",
        "src/cuda/decisions.hpp",
        "if (is_nonfinite(leaf)) nonfinite = true;",
        "",
    ),
    Error(
        "a step from the squares before they were made in double",
        "src/cuda/decisions.hpp",
        "      if (leaf.found.wide) find_squares(leaf, tiles);\n",
        "",
    ),
    Error(
        "a clamp that binds is left out",
        "src/cuda/apply.hpp",
        "if (leaf.found.clamp_binds) return update_rows<T, Kind::clamped>(view, index);",
        "",
    ),
    Error(
        "rounded to nearest where noise is asked for",
        "src/cuda/places.hpp",
        "if (rule.rounds_by_noise) {",
        "if (false) {",
    ),
    Error(
        "no launch for leaves that may be clamped",
        "src/cuda/gpu.hpp",
        " || leaf.rule.clamps))",
        "))",
    ),
    Error(
        "the sums of columns where those of rows are",
        "src/cuda/gpu.hpp",
        "partials + planned.row_partials();",
        "partials;",
    ),
    Error(
        "what was found of a leaf stays on the device",
        "src/cuda/gpu.hpp",
        "workspace.leaves[i].found = scratch.leaves[i].found;",
        "",
    ),
    Error(
        "the verdict stays on the device",
        "src/cuda/gpu.hpp",
        "    workspace.verdict = scratch.verdict;\n  }",
        "  }",
    ),
    Error(
        "what was found is read before it is there",
        "src/cuda/gpu.hpp",
        "    runtime_.await_mark();\n",
        "",
    ),
    Error(
        "the leaves of the call before",
        "src/cuda/gpu.hpp",
        "    copy_in(device.leaves, scratch.leaves);\n",
        "    static bool is_there = false;\n    if (!std::exchange(is_there, true)) copy_in(device.leaves, "
        "scratch.leaves);\n",
    ),
    Error(
        "parts of leaves without their numbers",
        "src/cuda/gpu.hpp",
        "    copy_out(workspace.shared, device.shared);\n",
        "",
        "test_emulated_calls",
    ),
    Error(
        "phases of all leaves where some were asked for",
        "src/cuda/gpu.hpp",
        "    view.range = leaves;\n",
        "",
        "test_emulated_calls",
    ),
    Error(
        "a graph that is captured takes a step",
        "src/cuda/optimizer.hpp",
        "    refuse_capture(stream);\n",
        "",
        "test_emulated_optimizer",
    ),
    Error(
        "memory is read on the stream of the last step",
        "src/cuda/optimizer.hpp",
        "    runtime_.use(nullptr);",
        "    ",
        "test_emulated_optimizer",
    ),
]


def command(folder):
    """The compiler, with the sources of a folder."""
    includes = [f"-I{folder / 'include'}", f"-I{folder / 'src'}", f"-I{folder / 'tests/cpp'}"]
    return [required("c++"), "-std=c++20", "-O1", "-DADAFACTOR_COMPILED", *includes]


def built(folder, source, target, *flags):
    """Compiles a file of tests/cpp/cuda with the sources of a folder."""
    made = compiled([*command(folder), *flags], folder / "tests/cpp/cuda" / f"{source}.cpp", target)
    assert made.returncode == 0, made.stdout
    return target


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    """All but what an error is planted into."""
    folder = tmp_path_factory.mktemp("objects")
    loops = folder / "loops.cpp"
    loops.write_text('#include "adafactor/adafactor.hpp"\n')
    made = compiled([*command(ROOT), "-DADAFACTOR_IMPLEMENTATION"], loops, folder / "loops.o")
    assert made.returncode == 0, made.stdout
    names = ("fibers", *sorted({error.program for error in ERRORS}))
    return {"loops": folder / "loops.o"} | {name: built(ROOT, name, folder / f"{name}.o") for name in names}


def finds(objects, folder, program="test_emulated", of_the_host=False):
    """What a program says of the sources in a folder, and whether it is content."""
    kernels = built(folder, "emulated", folder / "kernels.o")
    test = built(folder, program, folder / "test.o") if of_the_host else objects[program]
    parts = [objects["loops"], objects["fibers"], kernels, test]
    linked = run(required("c++"), *parts, "-o", folder / "program")
    assert linked.returncode == 0, linked.stdout
    said = run(folder / "program", *(CASES if program == "test_emulated" else ()), timeout=600)
    return said.returncode, said.stdout


@pytest.fixture
def copy(tmp_path):
    """The sources of the kernels, to be changed."""
    for part in ("include", "src/cuda", "tests/cpp/cuda", "tests/cpp/support"):
        shutil.copytree(ROOT / part, tmp_path / part)
    (tmp_path / "tests/data").symlink_to(ROOT / "tests/data")
    return tmp_path


@pytest.mark.full
@pytest.mark.parametrize("program", sorted({error.program for error in ERRORS}))
def test_without_an_error_nothing_is_found(program, objects, copy):
    code, said = finds(objects, copy, program)
    assert code == 0, said


@pytest.mark.full
@pytest.mark.parametrize("error", ERRORS, ids=[error.what for error in ERRORS])
def test_a_planted_error_is_found(error, objects, copy):
    file = copy / error.file
    text = file.read_text(encoding="utf-8")
    assert text.count(error.old) == 1
    file.write_text(text.replace(error.old, error.new), encoding="utf-8")
    code, said = finds(objects, copy, error.program, error.file in OF_THE_HOST)
    assert code != 0
    assert ", 0 failed" not in said
