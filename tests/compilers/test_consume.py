"""Another project builds with the installed headers: of a prefix, and of a wheel in an empty environment."""

import shutil
import subprocess
from pathlib import Path

import pytest

import sources
import wheels
from cpp_build import configure, eigen_prefixes, require_eigen, required, run, tool

CONSUMER = Path(__file__).parents[1] / "consume"


@pytest.fixture(scope="module")
def empty_environment(tmp_path_factory):
    """The Python of a fresh environment with the wheel and what it requires, and nothing else, not even pip.

    Continuous integration names a folder of wheels that it has built; else they are made of what is
    installed.
    """
    folder = wheels.named_by_continuous_integration()
    if folder is None:
        folder = tmp_path_factory.mktemp("wheels")
        for name in ("adafactor", "numpy"):
            wheels.wheel_of(name, folder)
    return wheels.empty_environment(folder, tmp_path_factory.mktemp("environment"))


def ask(python, script):
    result = subprocess.run([python, "-I", "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    """An install prefix that was moved after `cmake --install`."""
    folder = tmp_path_factory.mktemp("prefix")
    configured = configure(sources.ROOT, folder / "build")
    assert configured.returncode == 0, configured.stdout
    installed = run(tool("cmake"), "--install", folder / "build", "--prefix", folder / "first")
    assert installed.returncode == 0, installed.stdout
    return (folder / "first").rename(folder / "moved")


def consume(found_by, cxx, folder):
    """Build the project, away from this repository, and run it: {first word of a line: the rest}."""
    require_eigen()
    shutil.copytree(CONSUMER, folder / "source")
    prefixes = ";".join(map(str, [found_by.get("CMAKE_PREFIX_PATH", ""), *eigen_prefixes()]))
    flags = {
        "CMAKE_CXX_COMPILER": required(cxx),
        "CMAKE_CXX_FLAGS_RELEASE": "-O1",  # half the time to compile
        **found_by,
        "CMAKE_PREFIX_PATH": prefixes,
    }
    arguments = [f"-D{name}={value}" for name, value in flags.items()]
    configured = configure(folder / "source", folder / "build", *arguments)
    assert configured.returncode == 0, configured.stdout
    built = run(tool("cmake"), "--build", folder / "build")
    assert built.returncode == 0, built.stdout
    ran = run(folder / "build" / "consumer")
    assert ran.returncode == 0, ran.stdout
    return dict(line.split(maxsplit=1) for line in ran.stdout.splitlines())


def trains_and_agrees(printed):
    first, last = map(float, printed["loss"].split())
    # It ends at 0.0046. Eigen adds up in another order with every instruction set, so not to the last digit.
    assert last < 0.01 < 0.2 < first
    digests = {name: digest for name, digest in printed.items() if name != "loss"}
    assert {"baseline", "compiled"} <= set(digests)
    assert set(digests.values()) == {printed["baseline"]}


def test_a_project_builds_with_an_install_prefix(prefix, tmp_path):
    trains_and_agrees(consume({"CMAKE_PREFIX_PATH": prefix}, "g++", tmp_path))


# Of g++ it is the test above that shows it, with the same files.
@pytest.mark.parametrize("cxx", [pytest.param("g++", marks=pytest.mark.full), "clang++"])
def test_a_project_builds_with_a_wheel_in_an_empty_environment(cxx, empty_environment, tmp_path):
    folder = ask(empty_environment, "import adafactor; print(adafactor.get_cmake_dir())")
    assert Path(folder).is_relative_to(empty_environment.parents[1])
    trains_and_agrees(consume({"adafactor_DIR": folder}, cxx, tmp_path))


def test_the_environment_of_the_wheel_is_empty(empty_environment):
    script = "import importlib.metadata as m; print(sorted(d.name for d in m.distributions()))"
    assert ask(empty_environment, script) == "['adafactor', 'numpy']"


def test_a_build_finds_the_wheel_by_its_entry_point(empty_environment, tmp_path):
    script = """
import importlib.metadata, importlib.resources
(point,) = importlib.metadata.entry_points(group="cmake.prefix")
print(importlib.resources.files(point.load()))
"""
    assert "found" in find(ask(empty_environment, script), "0.1", tmp_path)


def test_one_file_compiles_with_the_include_folder_alone(empty_environment, tmp_path):
    folder = ask(empty_environment, "import adafactor; print(adafactor.get_include())")
    program = tmp_path / "program.cpp"
    program.write_text(
        "#include <adafactor/adafactor.hpp>\nadafactor::Optimizer optimizer{{}, {{{2, 3}}}};\n"
    )
    result = run(required("g++"), "-std=c++20", "-fsyntax-only", f"-I{folder}", program)
    assert result.returncode == 0, result.stdout


def find(prefix, version, folder):
    """What CMake says of the package in a project that has nothing else."""
    (folder / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.25)\nproject(finder LANGUAGES CXX)\n"
        f"find_package(adafactor {version} CONFIG REQUIRED)\nmessage(STATUS found)\n"
    )
    return configure(folder, folder / "build", f"-DCMAKE_PREFIX_PATH={prefix}").stdout


@pytest.mark.parametrize(("version", "fits"), [("0.1", True), ("0.2", False), ("0.0.9", False), ("1", False)])
def test_the_package_fits_its_own_minor_version(version, fits, prefix, tmp_path):
    said = find(prefix, version, tmp_path)
    assert ("-- found" in said) == fits
    assert ("compatible with requested version" in said) != fits


def test_an_installed_prefix_names_no_folder_of_the_build(prefix):
    package = sorted((prefix / "share/cmake/adafactor").iterdir())
    assert [file.name for file in package] == [
        "adafactorConfig.cmake",
        "adafactorConfigVersion.cmake",
        "adafactorTargets.cmake",
        "cpu",
        "cuda",
        "threads.cmake",
    ]
    text = "".join(file.read_text() for file in (prefix / "share").rglob("*") if file.is_file())
    assert str(sources.ROOT) not in text
    assert str(prefix.parent) not in text


def test_a_source_tree_is_added_to_a_project(tmp_path):
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.25)\nproject(adder LANGUAGES CXX)\n"
        f'add_subdirectory("{sources.ROOT}" adafactor)\n'
        "foreach(kind IN ITEMS adafactor compiled)\n"
        "  add_library(with_${kind} OBJECT program.cpp)\n"
        "  target_link_libraries(with_${kind} PRIVATE adafactor::${kind})\n"
        "endforeach()\n"
    )
    (tmp_path / "program.cpp").write_text("#include <adafactor/adafactor.hpp>\n")
    configured = configure(tmp_path, tmp_path / "build")
    assert configured.returncode == 0, configured.stdout
    built = run(tool("cmake"), "--build", tmp_path / "build")
    assert built.returncode == 0, built.stdout


def test_every_header_is_installed(prefix, empty_environment):
    def headers(folder):
        return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.hpp"))

    ours = headers(sources.ROOT / "include")
    assert headers(prefix / "include") == ours
    assert headers(Path(ask(empty_environment, "import adafactor; print(adafactor.get_include())"))) == ours
