"""ADAFACTOR_CUDA on a machine without a CUDA compiler: what a build has, and what it says.

With one: tests/compilers/test_gpu_kernels.py.
"""

import os
import re
import sys
from pathlib import Path

import pytest

import scripts
import sources
import wheels
from cpp_build import configure, required, run, tool

NONE_FOUND = "No CUDA compiler was found; the environment variable CUDACXX names one"


def folder_without_nvcc(folder, target):
    """A folder of PATH, or one with links to its programs other than that compiler."""
    if not (folder / "nvcc").exists():
        return folder
    target.mkdir()
    for program in folder.iterdir():
        if program.name != "nvcc":
            (target / program.name).symlink_to(program)
    return target


@pytest.fixture(autouse=True)
def no_compiler(monkeypatch, tmp_path):
    """What CMake looks at names none."""
    for name in ("CUDACXX", "CUDA_PATH", "CUDA_HOME", "CUDAToolkit_ROOT", "CMAKE_ARGS"):
        monkeypatch.delenv(name, raising=False)
    folders = [Path(folder) for folder in os.environ.get("PATH", os.defpath).split(os.pathsep)]
    path = [folder_without_nvcc(folder, tmp_path / f"path{i}") for i, folder in enumerate(folders)]
    monkeypatch.setenv("PATH", os.pathsep.join(map(str, path)))


@pytest.fixture
def spy(tmp_path, monkeypatch):
    """A compiler that works for nobody, and the file that is there once somebody has asked it."""
    program, asked = tmp_path / "nvcc", tmp_path / "asked"
    program.write_text(f'#!/bin/sh\n: >"{asked}"\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setenv("CUDACXX", str(program))
    return asked


def targets(folder):
    """What can be built there."""
    listed = run(tool("cmake"), "--build", folder, "--target", "help").stdout
    return set(re.findall(r"^(\w+): phony$", listed, re.MULTILINE))


def test_off_looks_for_no_compiler(spy, tmp_path):
    for options in ((), ("-DADAFACTOR_CUDA=OFF",)):
        folder = tmp_path / f"build{len(options)}"
        configured = configure(sources.ROOT, folder, *options)
        assert configured.returncode == 0, configured.stdout
        assert "CUDA" not in configured.stdout
        assert "CMAKE_CUDA_COMPILER" not in (folder / "CMakeCache.txt").read_text(encoding="utf-8")
    assert not spy.exists()


@pytest.mark.parametrize("word", ["AUTO", "auto"])
def test_auto_without_a_compiler_says_so_and_is_the_build_of_off(word, tmp_path):
    off, auto = tmp_path / "off", tmp_path / "auto"
    assert configure(sources.ROOT, off).returncode == 0
    configured = configure(sources.ROOT, auto, f"-DADAFACTOR_CUDA={word}")
    assert configured.returncode == 0, configured.stdout
    assert "No CUDA compiler was found: arrays of a GPU will be refused" in configured.stdout
    assert targets(auto) == targets(off) > {"adafactor_compiled"}


def test_on_without_a_compiler_is_an_error_that_says_what_to_do(tmp_path):
    configured = configure(sources.ROOT, tmp_path / "build", "-DADAFACTOR_CUDA=ON")
    assert configured.returncode != 0
    assert NONE_FOUND in configured.stdout


def test_a_compiler_that_comes_later_is_found(tmp_path, request):
    """What was looked for in vain is looked for again."""
    assert configure(sources.ROOT, tmp_path / "build", "-DADAFACTOR_CUDA=AUTO").returncode == 0
    asked = request.getfixturevalue("spy")
    configure(sources.ROOT, tmp_path / "build")
    assert asked.exists()


@pytest.mark.parametrize(("word", "works"), [("AUTO", True), ("ON", False)])
def test_a_compiler_that_does_not_work_is_none(word, works, spy, tmp_path):
    configured = configure(sources.ROOT, tmp_path / "build", f"-DADAFACTOR_CUDA={word}")
    assert (configured.returncode == 0) == works, configured.stdout
    assert (NONE_FOUND in configured.stdout) != works
    assert spy.exists()


def test_a_project_that_asks_for_the_kernels_is_told_that_it_cannot_have_them(tmp_path):
    assert configure(sources.ROOT, tmp_path / "build").returncode == 0
    installed = run(tool("cmake"), "--install", tmp_path / "build", "--prefix", tmp_path / "prefix")
    assert installed.returncode == 0, installed.stdout
    options = (f"-DCMAKE_PREFIX_PATH={tmp_path / 'prefix'}",)
    configured = configure(sources.ROOT / "tests/consume/gpu", tmp_path / "consumer", *options)
    assert configured.returncode != 0
    said = " ".join(configured.stdout.split())
    assert "its component cuda is compiled here, and no CUDA compiler was found" in said


WITHOUT_CUDA = """
import numpy as np
import adafactor
from dlpack_producer import CUDA, Producer

values = np.ones((4, 3), np.float32)
assert adafactor.step(values, values.copy(), adafactor.init(values)).updated
try:
    adafactor.init(Producer(values, device_kind=CUDA))
except ValueError as error:
    found = [adafactor.__file__, adafactor.build_info()["cuda"], str(error)]
"""


@pytest.mark.full
def test_a_wheel_of_auto_without_a_compiler_says_that_it_has_no_cuda(tmp_path):
    required("c++")
    (tmp_path / "wheel").mkdir()
    wheel, said = wheels.built_from_sources(tmp_path / "wheel", ADAFACTOR_CUDA="AUTO", ADAFACTOR_WERROR="ON")
    assert "No CUDA compiler was found: arrays of a GPU will be refused" in said
    site = wheels.unpacked(wheel, tmp_path / "site")
    assert list((site / "adafactor").glob("*cuda*")) == []
    path = os.pathsep.join([str(site), str(sources.ROOT / "tests/support")])
    file, info, error = scripts.found_by(WITHOUT_CUDA, PYTHONPATH=path)
    assert file == str(site / "adafactor/__init__.py")
    assert info is False
    words = "an array on cuda:0 (this build has no CUDA), expected one in the CPU's memory"
    assert error == f"params: {words}"
    printed = run(sys.executable, "-m", "adafactor", "info", env={**os.environ, "PYTHONPATH": path})
    assert re.search(r"^cuda +False$", printed.stdout, re.MULTILINE)
