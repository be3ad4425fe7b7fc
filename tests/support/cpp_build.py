"""What the C++ tests build with: CMake and Ninja of this Python environment, compilers, Eigen."""

import importlib.util
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest


def search_path():
    """PATH with what this Python environment has first, as its activation would put it."""
    return os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])


def tool(name):
    """The tool of this Python environment if it has one, else that of PATH."""
    found = shutil.which(name, path=search_path())
    assert found, f"{name} is neither in this Python environment nor on PATH"
    return found


def required(name):
    """A compiler or other program of the machine; without it the test is skipped, or fails if CI demands."""
    found = shutil.which(name, path=search_path())
    if found:
        return found
    if os.environ.get("ADAFACTOR_REQUIRE_PEERS") == "1":
        pytest.fail(f"{name} is not installed (ADAFACTOR_REQUIRE_PEERS=1)")
    pytest.skip(f"{name} is not installed")


def required_cpu(*flags):
    """What the machine's CPU must have; without it the test is skipped."""
    file = Path("/proc/cpuinfo")
    found = set(file.read_text().split()) if file.exists() else set()
    if missing := set(flags) - found:
        pytest.skip(f"this CPU has no {', '.join(sorted(missing))}")


def run(*command, **options):
    """Run a command to its end; its output and its errors are one text."""
    return subprocess.run(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        **options,
    )


def compiled(command, source, target):
    """Compile one file to an object, through ccache if CMake is told to: the result of `run`."""
    launcher = os.environ.get("CMAKE_CXX_COMPILER_LAUNCHER", "").split()
    return run(*launcher, *command, "-c", source, "-o", target)


def built(command, source, program):
    """Compile one file and link it: the result of the last command that ran."""
    object_file = program.with_suffix(".o")
    result = compiled(command, source, object_file)
    return result if result.returncode else run(*command, object_file, "-o", program)


def configure(source, folder, *arguments):
    generator = ("-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}")
    return run(tool("cmake"), "-S", source, "-B", folder, *generator, *arguments)


def eigen_prefixes():
    """Where CMake looks for Eigen before the system: the prefix of the wheel cmeel-eigen, if it is here."""
    spec = importlib.util.find_spec("cmeel")
    folders = spec.submodule_search_locations if spec else None
    prefixes = [Path(folder).parent / "cmeel.prefix" for folder in folders or ()]
    return [prefix for prefix in prefixes if (prefix / "share/eigen3/cmake/Eigen3Config.cmake").is_file()]


def configure_tests(folder, *arguments):
    """Configure the project of the C++ tests."""
    prefixes = ";".join(map(str, eigen_prefixes()))
    configured = configure(
        Path(__file__).parents[1] / "cpp", folder, f"-DCMAKE_PREFIX_PATH={prefixes}", *arguments
    )
    assert configured.returncode == 0, configured.stdout


def require_eigen():
    """The folder to include Eigen from. Without it the test is skipped, or fails where CI demands it."""
    system = [Path(folder, "include/eigen3") for folder in ("/usr", "/usr/local", "/opt/homebrew")]
    for folder in [prefix / "include/eigen3" for prefix in eigen_prefixes()] + system:
        if (folder / "Eigen/Core").is_file():
            return folder
    if os.environ.get("ADAFACTOR_REQUIRE_PEERS") == "1":
        pytest.fail("Eigen was not found (ADAFACTOR_REQUIRE_PEERS=1)")
    pytest.skip("Eigen was not found")
