"""The C++ tests, built and run by pytest so that one command runs everything. Each program is a test."""

import json
import platform
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from cpp_build import compiled, configure, configure_tests, required, run, tool

SOURCE = Path(__file__).parents[1] / "cpp"
PROGRAMS = sorted(path.stem for path in SOURCE.rglob("test_*.cpp"))
NEED_EIGEN = {"test_eigen"}
# Compiled for each instruction set, too: what they test has code of its own for one.
OF_INSTRUCTION_SETS = ("test_fewer_lanes", "test_kernels", "test_lanes", "test_noise", "test_short_rows")
# Run with each kind of threads. The digests that test_digest looks for are one file for all kinds.
OF_THREADS = ("test_allocation", "test_digest", "test_fork", "test_limits", "test_parallel", "test_step")


@dataclass(frozen=True)
class Build:
    folder: Path
    log: str
    programs: list[str]


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Every program, with OpenMP's threads or, after its name, those of another kind. One that does not
    compile leaves the others alone; its own test shows why.
    """
    folder = tmp_path_factory.mktemp("cpp")
    configure_tests(folder)
    log = run(tool("cmake"), "--build", folder, "--", "-k", "0").stdout
    shown = run(tool("ctest"), "--test-dir", folder, "--show-only=json-v1").stdout
    return Build(folder, log, sorted(test["name"] for test in json.loads(shown)["tests"]))


def assert_passes(build, program):
    names = (program, f"{program}.exe")
    assert any((build.folder / name).exists() for name in names), f"does not compile\n{build.log}"
    ctest = (tool("ctest"), "--test-dir", str(build.folder), "--no-tests=error", "--output-on-failure")
    result = run(*ctest, "--tests-regex", f"^{program}$")
    assert result.returncode == 0, result.stdout


def test_every_cpp_file_is_a_program_of_the_suite(build):
    # Without Eigen CMake leaves these out; where ADAFACTOR_REQUIRE_PEERS=1 demands it, CMake has failed.
    assert set(PROGRAMS) - set(build.programs) in (set(), NEED_EIGEN)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the instruction sets of x86-64")
@pytest.mark.parametrize("level", ["v3", "v4"])
@pytest.mark.parametrize("program", OF_INSTRUCTION_SETS)
def test_cpp_with_an_instruction_set(build, program, level):
    assert_passes(build, f"{program}_{level}")


def test_every_header_compiles_alone(build):
    result = run(tool("cmake"), "--build", build.folder, "--target", "headers_alone")
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("program", PROGRAMS)
def test_cpp(build, program):
    if program in NEED_EIGEN and program not in build.programs:
        pytest.skip("Eigen was not found")
    assert_passes(build, program)


@pytest.mark.parametrize("program", OF_THREADS)
@pytest.mark.parametrize("kind", ["pool", "serial"])
def test_cpp_with_other_threads(build, kind, program):
    assert_passes(build, f"{program}_{kind}")


def test_an_unknown_kind_of_threads_is_refused(tmp_path):
    configured = configure(SOURCE, tmp_path, "-DADAFACTOR_THREADS=many")
    assert configured.returncode != 0
    assert 'ADAFACTOR_THREADS is "many", expected pool, openmp or serial' in " ".join(
        configured.stdout.split()
    )


def gcc():
    """What compiles and links the programs below."""
    return (required("g++"), "-std=c++20", "-O0", "-pthread", f"-I{SOURCE.parents[1] / 'include'}")


# The flags of a file, and the threads that they ask for.
FLAGS = {
    "none": ((), "serial"),
    "openmp": (("-fopenmp",), "openmp"),
    "pool": (("-DADAFACTOR_THREADS=pool",), "pool"),
    "pool and OpenMP": (("-DADAFACTOR_THREADS=pool", "-fopenmp"), "pool"),
}


@pytest.mark.parametrize(("flags", "kind"), FLAGS.values(), ids=FLAGS)
def test_a_file_has_the_threads_that_its_flags_ask_for(flags, kind, tmp_path):
    source = tmp_path / "program.cpp"
    source.write_text(
        "#include <adafactor/cpu/threads/threads.hpp>\n#include <string_view>\n"
        f'static_assert(std::string_view(adafactor::detail::kThreadsKind) == "{kind}");\n'
    )
    result = run(*gcc(), "-fsyntax-only", *flags, source)
    assert result.returncode == 0, result.stdout


def test_threads_that_are_not_to_be_had_do_not_compile(tmp_path):
    source = tmp_path / "program.cpp"
    source.write_text("#include <adafactor/cpu/threads/threads.hpp>\n")
    for kind, words in {"many": "is one of openmp, pool and serial", "openmp": "needs a compiler"}.items():
        result = run(*gcc(), "-fsyntax-only", f"-DADAFACTOR_THREADS={kind}", source)
        assert result.returncode != 0
        assert words in result.stdout


DECLARES = """
#include <adafactor/adafactor.hpp>
#include <cstdio>
int main() {
  float w[6] = {1, 1, 1, 1, 1, 1}, g[6] = {1, 2, 3, 4, 5, 6};
  adafactor::Optimizer optimizer{{}, {{{2, 3}, adafactor::DType::float32}}};
  optimizer.step({w}, {g});
  std::printf("%d %s", int(optimizer.iterations()), adafactor::compiled_kernels().isa);
}
"""


def test_one_file_defines_what_others_declare(tmp_path):
    """Without CMake, and with an instruction set that only the file with the loops has."""
    declares, defines = tmp_path / "declares.cpp", tmp_path / "defines.cpp"
    declares.write_text(DECLARES)
    defines.write_text("#define ADAFACTOR_IMPLEMENTATION\n#include <adafactor/adafactor.hpp>\n")
    objects = [path.with_suffix(".o") for path in (declares, defines)]
    for path, flags in ((declares, ("-DADAFACTOR_COMPILED",)), (defines, ("-O1",))):
        result = compiled((*gcc(), *flags), path, path.with_suffix(".o"))
        assert result.returncode == 0, result.stdout
    linked = run(*gcc(), *objects, "-o", tmp_path / "program")
    assert linked.returncode == 0, linked.stdout
    assert run(tmp_path / "program").stdout.split()[0] == "1"
    forgotten = run(*gcc(), objects[0], "-o", tmp_path / "program")
    assert forgotten.returncode != 0
    assert re.search(
        r"undefined reference to .adafactor::\w+_compiled::Optimizer::Optimizer", forgotten.stdout
    )


def test_files_with_different_threads_are_linked_together(tmp_path):
    """Unoptimized, so that a function of one file that got into another would show."""
    objects = []
    for name, (flags, _) in FLAGS.items():
        if "and" in name:
            continue
        source = tmp_path / f"{name}.cpp"
        source.write_text(
            "#include <adafactor/cpu/threads/threads.hpp>\n"
            f"void set_{name}(int n) {{ adafactor::set_num_threads(n); }}\n"
            f"int get_{name}() {{ return adafactor::get_num_threads(); }}\n"
        )
        objects.append(source.with_suffix(".o"))
        result = compiled((*gcc(), *flags), source, objects[-1])
        assert result.returncode == 0, result.stdout
    main = tmp_path / "main.cpp"
    main.write_text(
        "#include <cstdio>\n"
        "void set_openmp(int); void set_pool(int); void set_none(int);\n"
        "int get_openmp(); int get_pool(); int get_none();\n"
        "int main() {\n"
        "  set_openmp(4); set_pool(3); set_none(2);\n"
        '  std::printf("%d %d %d", get_openmp(), get_pool(), get_none());\n'
        "}\n"
    )
    result = run(*gcc(), "-fopenmp", main, *objects, "-o", tmp_path / "main")
    assert result.returncode == 0, result.stdout
    assert run(str(tmp_path / "main")).stdout == "4 3 1"
