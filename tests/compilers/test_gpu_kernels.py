"""The kernels of src/cuda, by NVIDIA's compiler: their arithmetic, what they ask of a GPU, what is shipped.

They run on a CPU that stands in for a GPU (tests/cpp/cuda, tests/cuda/emulated); no test here needs a GPU.
"""

import importlib.util
import os
import re
import shutil
import zlib
from collections import Counter
from pathlib import Path

import pytest

import emulated_gpu
import scripts
from cpp_build import configure, run, tool

ROOT = Path(__file__).parents[2]
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
ARCHITECTURES = {"75", "80", "86", "90", "100", "120"}  # of which there is code in what is shipped
MOST_REGISTERS = 80  # of a thread
MOST_BYTES = 4_000_000  # more in a wheel


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


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The shared object as CMake builds it, and what the compiler said."""
    folder, nvcc = tmp_path_factory.mktemp("cuda"), compiler()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDACXX", nvcc)
        # The packages have their libraries where nvcc does not look.
        patch.setenv("NVCC_APPEND_FLAGS", f"-L{Path(nvcc).parents[1] / 'lib'}")
        flags = f"-DCMAKE_CUDA_FLAGS=-Xptxas -v --threads {os.cpu_count()}"
        options = ("-DADAFACTOR_CUDA=ON", "-DADAFACTOR_WERROR=ON", "-DADAFACTOR_CUDA_MODULE=ON")
        configured = configure(ROOT, folder, *options, flags)
        assert configured.returncode == 0, configured.stdout
        made = run(tool("cmake"), "--build", folder, "--target", "adafactor_cuda")
    assert made.returncode == 0, made.stdout
    return folder / "src/cuda/libadafactor_cuda.so", made.stdout


@pytest.mark.full
def test_a_program_of_another_project_has_the_kernels(tmp_path):
    """It is built with an install prefix, and says what is missing where there is no driver."""
    nvcc = compiler()
    configured = configure(ROOT, tmp_path / "build")
    assert configured.returncode == 0, configured.stdout
    installed = run(tool("cmake"), "--install", tmp_path / "build", "--prefix", tmp_path / "prefix")
    assert installed.returncode == 0, installed.stdout
    shutil.copytree(ROOT / "tests/consume/gpu", tmp_path / "source")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDACXX", nvcc)
        patch.setenv("NVCC_APPEND_FLAGS", f"-L{Path(nvcc).parents[1] / 'lib'}")
        options = (f"-DCMAKE_PREFIX_PATH={tmp_path / 'prefix'}", "-DADAFACTOR_CUDA_ARCHITECTURES=90")
        configured = configure(tmp_path / "source", tmp_path / "consumer", *options)
        assert configured.returncode == 0, configured.stdout
        made = run(tool("cmake"), "--build", tmp_path / "consumer")
    assert made.returncode == 0, made.stdout
    ran = run(tmp_path / "consumer/consumer")
    assert ran.returncode == 0, ran.stdout
    assert re.match(r"CUDA: .*driver|0\.9", ran.stdout)


@pytest.mark.full
def test_each_operation_is_rounded_once_as_it_is_written(tmp_path):
    target = tmp_path / "kernels.ptx"
    made = run(compiler(), *FLAGS, "-arch=compute_75", "-ptx", "-o", target, ROOT / "src/cuda/cuda.cu")
    assert made.returncode == 0, made.stdout
    operations = re.findall(
        r"^\s*((?:add|sub|mul|div|sqrt|rcp|fma|mad|ex2|lg2|rsqrt)(?:\.\w+)*\.f(?:32|64))\s",
        target.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    found = Counter(operations)
    assert sum(found.values()) > 1000
    allowed = {
        f"{name}.rn.{kind}" for name in ("add", "sub", "mul", "div", "sqrt", "rcp") for kind in ("f32", "f64")
    }
    assert set(found) <= allowed


@pytest.mark.full
def test_the_architecture_whose_code_is_that_of_another_has_one_too(tmp_path):
    flags = ("-gencode", "arch=compute_89,code=sm_89", "-c", "-o", tmp_path / "kernels.o")
    made = run(compiler(), *FLAGS, *flags, ROOT / "src/cuda/cuda.cu")
    assert made.returncode == 0, made.stdout


@pytest.mark.full
def test_no_kernel_spills(built):
    """Or has a stack, nor any function that one calls; and each leaves room for three blocks of threads."""
    kernels = re.findall(
        r"Compiling entry function '(\w+)' for 'sm_(\d+)'.*?Used (\d+) registers", built[1], re.DOTALL
    )
    assert Counter(architecture for _, architecture, _ in kernels).keys() == ARCHITECTURES
    assert len(kernels) > 40 * len(ARCHITECTURES)
    assert {row for row in kernels if int(row[2]) > MOST_REGISTERS} == set()
    functions = re.findall(
        r"Function properties for (\w+)\s+(\d+) bytes stack frame, (\d+) bytes spill stores", built[1]
    )
    assert len(functions) > len(kernels) + 10 * len(ARCHITECTURES)
    assert {row for row in functions if row[1:] != ("0", "0")} == set()


@pytest.mark.full
def test_what_is_shipped_is_small_and_needs_no_library_of_cuda(built):
    # As it lies in a wheel.
    stripped = built[0].with_suffix(".stripped")
    assert run("strip", "-o", stripped, built[0]).returncode == 0
    assert len(zlib.compress(stripped.read_bytes(), 9)) <= MOST_BYTES
    needed = run("objdump", "-p", built[0]).stdout
    assert "NEEDED" in needed
    assert not re.search(r"NEEDED.*(cuda|nv)", needed)


WITHOUT_A_DRIVER = """
import numpy as np
import adafactor
from dlpack_producer import CUDA, Producer

info = adafactor.build_info()["cuda"]
assert info["toolkit"] and "90-real" in info["architectures"], info
assert (info["driver"], info["devices"]) == (None, 0), info
assert info["missing"] == "no driver of NVIDIA is installed", info
params = np.ones((30, 4), np.float32)
assert adafactor.step(params, params.copy(), adafactor.init(params)).updated
try:
    adafactor.init(Producer(params, device_kind=CUDA))
except ValueError as error:
    found = str(error)
"""


@pytest.mark.full
def test_without_a_driver_all_but_a_gpu_works(built):
    words = "params: an array on cuda:0 (no driver of NVIDIA is installed), expected one in the CPU's memory"
    assert scripts.found_by(WITHOUT_A_DRIVER, **{emulated_gpu.VARIABLE: str(built[0])}) == words
