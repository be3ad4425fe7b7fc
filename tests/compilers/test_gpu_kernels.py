"""The kernels of src/cuda, by NVIDIA's compiler: their arithmetic, what they ask of a GPU, what is shipped.

They run on a CPU that stands in for a GPU (tests/cpp/cuda, tests/cuda/emulated); no test here needs a GPU.
"""

import importlib.util
import os
import re
import shutil
import sys
import zipfile
from collections import Counter
from pathlib import Path

import pytest

import scripts
import wheels
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
def with_nvcc():
    """CMake finds the compiler, and that its libraries, which the packages have where it does not look."""
    nvcc = compiler()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDACXX", nvcc)
        patch.setenv("NVCC_APPEND_FLAGS", f"-L{Path(nvcc).parents[1] / 'lib'}")
        yield


@pytest.fixture(scope="module")
def built(tmp_path_factory, with_nvcc):
    """The wheel with CUDA, and what the compiler said."""
    flags = f"-Xptxas -v --threads {os.cpu_count()}"
    definitions = {"ADAFACTOR_CUDA": "ON", "ADAFACTOR_WERROR": "ON", "CMAKE_CUDA_FLAGS": flags}
    return wheels.built_from_sources(tmp_path_factory.mktemp("wheel"), **definitions)


@pytest.mark.full
def test_auto_is_on_where_there_is_a_compiler(tmp_path, with_nvcc):
    configured = configure(ROOT, tmp_path, "-DADAFACTOR_CUDA=AUTO")
    assert configured.returncode == 0, configured.stdout
    assert "adafactor_gpu:" in run(tool("cmake"), "--build", tmp_path, "--target", "help").stdout


@pytest.mark.full
def test_a_program_of_another_project_has_the_kernels(tmp_path, with_nvcc):
    """It is built with an install prefix, and says what is missing where there is no driver."""
    configured = configure(ROOT, tmp_path / "build")
    assert configured.returncode == 0, configured.stdout
    installed = run(tool("cmake"), "--install", tmp_path / "build", "--prefix", tmp_path / "prefix")
    assert installed.returncode == 0, installed.stdout
    options = (f"-DCMAKE_PREFIX_PATH={tmp_path / 'prefix'}", "-DADAFACTOR_CUDA_ARCHITECTURES=90")
    configured = configure(ROOT / "tests/consume/gpu", tmp_path / "consumer", *options)
    assert configured.returncode == 0, configured.stdout
    made = run(tool("cmake"), "--build", tmp_path / "consumer")
    assert made.returncode == 0, made.stdout
    ran = run(tmp_path / "consumer/consumer")
    assert ran.returncode == 0, ran.stdout
    assert re.match(r"CUDA: .*driver|0\.9", ran.stdout)


# A floating-point number may be moved, compared, converted, or go into an operation that is rounded once, to
# nearest. The lesser of it and a constant is what the compiler makes of a comparison.
INSTRUCTION = re.compile(r"^[ \t{]*(?:@!?%\w+[ \t]+)?([a-z]\w*(?:[.:]+\w+)+)", re.MULTILINE)
OF_FLOATS = re.compile(r"\.(?:b?f16|f32|f64|tf32|e\dm\d)(?:x\d)?\b")
ROUNDED = re.compile(r"(?:add|sub|mul|div|sqrt|rcp)\.rn\.f(?:32|64)")
MOVED = re.compile(
    r"(?:mov|selp|neg|abs|min|max|(?:ld|st)(?:\.(?:global|shared|local|param|v2|v4))*)\.f(?:32|64)"
    r"|setp\.\w+(?:\.(?:and|or|xor))?\.f(?:32|64)|cvt\.f64\.f32|cvt\.rn\.f32\.f64|cvt\.rn\.f64\.s64"
)
FORBIDDEN = re.compile(
    r"\bfma\b.*|\bmad\.(?:\w+\.)*f\d+.*|.*\.(?:approx|ftz|sat|rz|rm|rp)\b.*"
    r"|\b(?:min|max)\.f\d+\s+%\w+, %\w+, %.*"
)


def inexact(ptx):
    """What in a program is not a rounded operation or a move, and how many operations there are."""
    code = re.sub(r"//.*", "", ptx)
    found = Counter(name for name in INSTRUCTION.findall(code) if OF_FLOATS.search(name))
    rounded = sum(count for name, count in found.items() if ROUNDED.fullmatch(name))
    others = {name for name in found if not (ROUNDED.fullmatch(name) or MOVED.fullmatch(name))}
    return others | {line.strip() for line in FORBIDDEN.findall(code)}, rounded


@pytest.mark.full
@pytest.mark.parametrize("architecture", [75, 120])
def test_each_operation_is_rounded_once_as_it_is_written(architecture, tmp_path):
    """In the programs that are shipped for a driver to translate."""
    target = tmp_path / "kernels.ptx"
    flags = (f"-arch=compute_{architecture}", "-ptx", "-o", target)
    made = run(compiler(), *FLAGS, *flags, ROOT / "src/cuda/cuda.cu")
    assert made.returncode == 0, made.stdout
    others, rounded = inexact(target.read_text(encoding="utf-8"))
    assert others == set()
    assert rounded > 1000


@pytest.mark.parametrize(
    "line",
    [
        *(
            "fma.rn.f32 %f1, %f2, %f3, %f4;",
            "@%p1 fma.rn.f64 %fd1, %fd2, %fd3, %fd4;",
            "mad.f32 %f1, %f2, %f3;",
        ),
        *("{ mad.rn.f64 %fd1, %fd2, %fd3; }", "add.f32 %f1, %f2, %f3;", "mul.rn.ftz.f32 %f1, %f2, %f3;"),
        *("div.approx.f32 %f1, %f2, %f3;", "div.full.f32 %f1, %f2, %f3;", "sqrt.approx.ftz.f32 %f1, %f2;"),
        *("ex2.approx.f32 %f1, %f2;", "rsqrt.approx.f64 %fd1, %fd2;", "setp.lt.ftz.f32 %p1, %f1, %f2;"),
        *("cvt.rn.bf16.f32 %rs1, %f1;", "cvt.rz.f32.f64 %f1, %fd1;", "max.f32 %f1, %f2, %f3;"),
        *(
            "fma.rn.f16x2 %r1, %r2, %r3, %r4;",
            "atom.global.add.f32 %f1, [%rd1], %f2;",
            "red.add.f64 [%rd1], %fd1;",
        ),
    ],
)
def test_an_operation_that_is_not_rounded_once_is_seen(line):
    innocent = (
        "\t@%p1 bra $L__BB0_2;\n\tadd.rn.f32 %f1, %f2, %f3; // fma.rn.f32\n\tmad.lo.s32 %r1, %r2, %r3, %r4;\n"
    )
    assert inexact(innocent) == (set(), 1)
    assert inexact(f"{innocent}\t{line}\n")[0]


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


@pytest.fixture(scope="module")
def site(built, tmp_path_factory):
    """The folder where that wheel is installed."""
    return wheels.unpacked(built[0], tmp_path_factory.mktemp("installed") / "site")


def in_site(site):
    """The environment of a process that has it, and finds the tests' own modules."""
    return {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT / "tests/support")])}


@pytest.mark.full
def test_what_is_shipped_is_small_and_needs_no_library_of_cuda(built, site):
    with zipfile.ZipFile(built[0]) as wheel:
        sizes = {
            each.filename: each.compress_size for each in wheel.infolist() if each.filename.count("/") == 1
        }
    more = {name: size for name, size in sizes.items() if "cuda" in name}
    assert sorted(more) == ["adafactor/libadafactor_cuda.NOTICE.txt", "adafactor/libadafactor_cuda.so"]
    assert sum(more.values()) <= MOST_BYTES
    needed = run("objdump", "-p", site / "adafactor/libadafactor_cuda.so").stdout
    assert "NEEDED" in needed
    assert not re.search(r"NEEDED.*(cuda|nv)", needed)


@pytest.mark.full
def test_the_shared_object_shows_one_function_and_the_notice_its_terms(site):
    shown = run("nm", "--dynamic", "--defined-only", site / "adafactor/libadafactor_cuda.so").stdout
    assert [line.split()[-1] for line in shown.splitlines()] == ["adafactor_cuda_functions"]
    notice = site / "adafactor/libadafactor_cuda.NOTICE.txt"
    assert "NVIDIA Corporation" in notice.read_text(encoding="utf-8")


WITHOUT_A_DRIVER = """
import numpy as np
import adafactor
import digest
from dlpack_producer import CUDA, Producer

info = adafactor.build_info()["cuda"]
toolkit, architectures = info.pop("toolkit"), info.pop("architectures")
assert info == {"driver": None, "devices": 0, "missing": "no driver of NVIDIA is installed"}, info
for name in ("tall", "everything"):
    assert digest.run(digest.CASES[name])[0] == digest.CASES[name].digest, name
try:
    adafactor.init(Producer(np.ones((30, 4), np.float32), device_kind=CUDA))
except ValueError as error:
    found = [adafactor.__file__, toolkit, architectures, str(error)]
"""


@pytest.mark.full
def test_without_a_driver_all_but_a_gpu_works(site):
    file, toolkit, architectures, error = scripts.found_by(WITHOUT_A_DRIVER, **in_site(site))
    assert file == str(site / "adafactor/__init__.py")
    version = run(compiler(), "--version").stdout
    assert f"release {toolkit}," in version
    real = [each.removesuffix("-real") for each in architectures.split() if each.endswith("-real")]
    assert set(real) == ARCHITECTURES
    assert {each for each in architectures.split() if each.endswith("-virtual")} == {
        "75-virtual",
        "120-virtual",
    }
    expected = "an array on cuda:0 (no driver of NVIDIA is installed), expected one in the CPU's memory"
    assert error == f"params: {expected}"
    said = run(sys.executable, "-m", "adafactor", "info", env={**os.environ, **in_site(site)}).stdout
    (line,) = re.findall(r"^cuda +(.*)$", said, re.MULTILINE)
    words = f"toolkit {toolkit}, architectures {architectures}"
    assert line == f"{words}, devices 0, missing no driver of NVIDIA is installed"
