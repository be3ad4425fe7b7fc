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


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """All programs. One that does not compile leaves the others alone; its own test shows why."""
    folder = tmp_path_factory.mktemp("cpp")
    generator = ("-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}")
    configured = run(tool("cmake"), "-S", str(SOURCE), "-B", str(folder), *generator)
    assert configured.returncode == 0, configured.stdout
    return Build(folder, run(tool("cmake"), "--build", str(folder), "--", "-k", "0").stdout)


def test_every_cpp_file_is_a_program_of_the_suite(build):
    shown = run(tool("ctest"), "--test-dir", str(build.folder), "--show-only=json-v1")
    assert sorted(test["name"] for test in json.loads(shown.stdout)["tests"]) == PROGRAMS


def test_every_header_compiles_alone(build):
    result = run(tool("cmake"), "--build", str(build.folder), "--target", "headers_alone")
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("program", PROGRAMS)
def test_cpp(build, program):
    names = (program, f"{program}.exe")
    assert any((build.folder / name).exists() for name in names), f"does not compile\n{build.log}"
    ctest = (tool("ctest"), "--test-dir", str(build.folder), "--no-tests=error", "--output-on-failure")
    result = run(*ctest, "--tests-regex", f"^{program}$")
    assert result.returncode == 0, result.stdout
