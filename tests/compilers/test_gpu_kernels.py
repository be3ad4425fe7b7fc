"""The kernels of src/cuda, by NVIDIA's compiler: their arithmetic, and what each asks of a multiprocessor.

They run on a CPU that stands in for a GPU (tests/cpp/cuda); no test here needs a GPU.
"""

import importlib.util
import os
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src/cuda/cuda_runtime.cu"
FLAGS = (
    "-std=c++20",
    "-fmad=false",
    "--expt-relaxed-constexpr",
    "-diag-suppress",
    "1675",  # a pragma of GCC's
    "-Werror",
    "all-warnings",
    "-DADAFACTOR_LANES_ARE_THREADS=1",
    "-DADAFACTOR_COMPILED",
    f"-I{ROOT / 'include'}",
)
ARCHITECTURES = ("75", "80", "86", "89", "90", "100", "120")
MOST_REGISTERS = {"in place": 80, "others": 128}  # of a thread


def compiler():
    """That of CUDACXX, or of the packages in .ci/nvcc.txt."""
    found = os.environ.get("CUDACXX")
    spec = importlib.util.find_spec("nvidia")
    for folder in spec.submodule_search_locations if spec else ():
        found = found or shutil.which(str(Path(folder) / "cu13/bin/nvcc"))
    if found:
        return found
    if os.environ.get("ADAFACTOR_REQUIRE_NVCC") == "1":
        pytest.fail("nvcc is not installed (ADAFACTOR_REQUIRE_NVCC=1)")
    pytest.skip("nvcc is not installed")


def compile_kernels(*arguments):
    """What the compiler says, which is no warning."""
    command = [compiler(), *FLAGS, *arguments, str(SOURCE)]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout + said.stderr
    return said.stdout + said.stderr


@pytest.mark.full
def test_each_operation_is_rounded_once_as_it_is_written(tmp_path):
    compile_kernels("-arch=compute_75", "-ptx", "-o", str(tmp_path / "kernels.ptx"))
    operations = re.findall(
        r"^\s*((?:add|sub|mul|div|sqrt|rcp|fma|mad|ex2|lg2|rsqrt)(?:\.\w+)*\.f(?:32|64))\s",
        (tmp_path / "kernels.ptx").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    found = Counter(operations)
    assert sum(found.values()) > 1000
    allowed = {
        f"{name}.rn.{kind}" for name in ("add", "sub", "mul", "div", "sqrt", "rcp") for kind in ("f32", "f64")
    }
    assert set(found) <= allowed


@pytest.mark.full
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_kernel_that_reads_in_place_spills(architecture, tmp_path):
    """Or has a stack, and each leaves room for three blocks of threads; the others leave it for two."""
    target = f"arch=compute_{architecture},code=sm_{architecture}"
    said = compile_kernels("-gencode", target, "-Xptxas", "-v", "-c", "-o", str(tmp_path / "kernels.o"))
    kernels = re.findall(
        r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores"
        r".*?Used (\d+) registers",
        said,
        re.DOTALL,
    )
    assert len(kernels) > 40
    for name, stack, spills, registers in kernels:
        in_place = re.search(r"Plain|ColumnMomentsIf(?!v)", name)
        assert (int(stack), int(spills)) == (0, 0) or not in_place, name
        assert int(registers) <= MOST_REGISTERS["in place" if in_place else "others"], name
