"""Errors planted into the kernels of a GPU: the CPU that stands in for one finds each of them."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from cpp_build import compiled, required

ROOT = Path(__file__).parents[2]
# The digests that show something, and take little.
CASES = [
    *("narrow", "order_narrow", "order_slices", "order_tiles", "order_wide", "overflow", "clamp_binds"),
    *("half_links", "clipvalue", "momentum", "stochastic_convolution", "accumulation", "global_clipnorm"),
    *("small_slices", "average"),
]


@dataclass(frozen=True)
class Error:
    """`old` stands once in a file, and becomes `new`."""

    what: str
    file: str
    old: str
    new: str


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
]


def command(folder):
    """The compiler, with the sources of a folder."""
    includes = [f"-I{folder / 'include'}", f"-I{folder / 'src'}", f"-I{folder / 'tests/cpp'}"]
    return [required("c++"), "-std=c++20", "-O1", "-DADAFACTOR_COMPILED", *includes]


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    """All but the kernels."""
    folder = tmp_path_factory.mktemp("objects")
    compile_here = command(ROOT)
    sources = ROOT / "tests/cpp/cuda"
    compiled([*compile_here, "-DADAFACTOR_IMPLEMENTATION"], sources / "test_emulated.cpp", folder / "test.o")
    compiled(compile_here, sources / "fibers.cpp", folder / "fibers.o")
    return [folder / "test.o", folder / "fibers.o"]


def finds(objects, folder):
    """What the program says of the kernels in a folder, and whether it is content."""
    compiled(command(folder), folder / "tests/cpp/cuda/emulated.cpp", folder / "kernels.o")
    program = folder / "program"
    subprocess.run([required("c++"), *objects, folder / "kernels.o", "-o", program], check=True)
    said = subprocess.run([program, *CASES], capture_output=True, text=True, check=False, timeout=600)
    return said.returncode, said.stdout + said.stderr


@pytest.fixture
def copy(tmp_path):
    """The sources of the kernels, to be changed."""
    for part in ("include", "src/cuda", "tests/cpp/cuda"):
        shutil.copytree(ROOT / part, tmp_path / part)
    return tmp_path


@pytest.mark.full
def test_without_an_error_nothing_is_found(objects, copy):
    assert finds(objects, copy)[0] == 0


@pytest.mark.full
@pytest.mark.parametrize("error", ERRORS, ids=[error.what for error in ERRORS])
def test_a_planted_error_is_found(error, objects, copy):
    file = copy / error.file
    text = file.read_text(encoding="utf-8")
    assert text.count(error.old) == 1
    file.write_text(text.replace(error.old, error.new), encoding="utf-8")
    code, said = finds(objects, copy)
    assert code != 0
    assert ", 0 failed" not in said
