"""The C++ tests, built and run by pytest so that one command runs everything. Each program is a test."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from cpp_build import configure, eigen_prefixes, run, tool

SOURCE = Path(__file__).parent / "cpp"
PROGRAMS = sorted(path.stem for path in SOURCE.glob("test_*.cpp"))
NEED_EIGEN = {"test_eigen", "test_paper"}


@dataclass(frozen=True)
class Build:
    folder: Path
    log: str
    programs: list[str]


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """All programs. One that does not compile leaves the others alone; its own test shows why."""
    folder = tmp_path_factory.mktemp("cpp")
    prefixes = ";".join(map(str, eigen_prefixes()))
    configured = configure(SOURCE, folder, f"-DCMAKE_PREFIX_PATH={prefixes}")
    assert configured.returncode == 0, configured.stdout
    log = run(tool("cmake"), "--build", folder, "--", "-k", "0").stdout
    shown = run(tool("ctest"), "--test-dir", folder, "--show-only=json-v1").stdout
    return Build(folder, log, sorted(test["name"] for test in json.loads(shown)["tests"]))


def test_every_cpp_file_is_a_program_of_the_suite(build):
    # Without Eigen CMake leaves these out; where ADAFACTOR_REQUIRE_PEERS=1 demands it, CMake has failed.
    assert set(PROGRAMS) - set(build.programs) in (set(), NEED_EIGEN)


def test_every_header_compiles_alone(build):
    result = run(tool("cmake"), "--build", build.folder, "--target", "headers_alone")
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("program", PROGRAMS)
def test_cpp(build, program):
    if program in NEED_EIGEN and program not in build.programs:
        pytest.skip("Eigen was not found")
    names = (program, f"{program}.exe")
    assert any((build.folder / name).exists() for name in names), f"does not compile\n{build.log}"
    ctest = (tool("ctest"), "--test-dir", build.folder, "--no-tests=error", "--output-on-failure")
    result = run(*ctest, "--tests-regex", f"^{program}$")
    assert result.returncode == 0, result.stdout
