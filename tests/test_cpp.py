"""The C++ tests, built and run by pytest so that one command runs everything. Each program is a test."""

import json
import os
import shutil
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent / "cpp"
PROGRAMS = sorted(path.stem for path in SOURCE.glob("test_*.cpp"))
# Run with each kind of threads. The digests that test_digest looks for are one file for all kinds.
OF_THREADS = ("test_allocation", "test_digest", "test_fork", "test_limits", "test_parallel", "test_step")


def tool(name):
    """The tool of this Python environment if it has one, else that of PATH."""
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
    found = shutil.which(name, path=path)
    assert found, f"{name} is neither in this Python environment nor on PATH"
    return found


def run(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)


@dataclass(frozen=True)
class Build:
    folder: Path
    log: str


def made(folder, threads, targets=("all",)):
    """The programs of one kind of threads. One that does not compile leaves the others alone; its own test
    shows why."""
    generator = ("-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}")
    kind = f"-DADAFACTOR_THREADS={threads}"
    configured = run(tool("cmake"), "-S", str(SOURCE), "-B", str(folder), *generator, kind)
    assert configured.returncode == 0, configured.stdout
    command = (tool("cmake"), "--build", str(folder), "--target", *targets, "--", "-k", "0")
    return Build(folder, run(*command).stdout)


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Everything, with the threads of choice: OpenMP's."""
    return made(tmp_path_factory.mktemp("cpp"), "openmp")


@pytest.fixture(scope="module", params=["pool", "serial"])
def other_build(request, tmp_path_factory):
    """What knows of threads, with the others."""
    return made(tmp_path_factory.mktemp(request.param), request.param, OF_THREADS)


def assert_passes(build, program):
    names = (program, f"{program}.exe")
    assert any((build.folder / name).exists() for name in names), f"does not compile\n{build.log}"
    ctest = (tool("ctest"), "--test-dir", str(build.folder), "--no-tests=error", "--output-on-failure")
    result = run(*ctest, "--tests-regex", f"^{program}$")
    assert result.returncode == 0, result.stdout


def test_every_cpp_file_is_a_program_of_the_suite(build):
    shown = run(tool("ctest"), "--test-dir", str(build.folder), "--show-only=json-v1")
    assert sorted(test["name"] for test in json.loads(shown.stdout)["tests"]) == PROGRAMS


def test_every_header_compiles_alone(build):
    result = run(tool("cmake"), "--build", str(build.folder), "--target", "headers_alone")
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("program", PROGRAMS)
def test_cpp(build, program):
    assert_passes(build, program)


@pytest.mark.parametrize("program", OF_THREADS)
def test_cpp_with_other_threads(other_build, program):
    assert_passes(other_build, program)


def test_an_unknown_kind_of_threads_is_refused(tmp_path):
    configured = run(tool("cmake"), "-S", str(SOURCE), "-B", str(tmp_path), "-DADAFACTOR_THREADS=many")
    assert configured.returncode != 0
    assert 'ADAFACTOR_THREADS is "many", expected openmp, pool or serial' in " ".join(
        configured.stdout.split()
    )
