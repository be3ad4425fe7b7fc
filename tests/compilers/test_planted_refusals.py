"""Errors planted into what the package does with a GPU: tests on the emulated one find each of them.

In the kernels' own sums and decisions: test_planted_errors.py.
"""

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import adafactor
import emulated_gpu
import wheels
from cpp_build import required, run

ROOT = Path(__file__).parents[2]
PARTS = ("CMakeLists.txt", "LICENSE", "README.md", "cmake", "include", "pyproject.toml", "python", "src")


@dataclass(frozen=True)
class Error:
    """`old` stands once in a file, and becomes `new`; some tests of a file in tests/cuda/emulated find it."""

    what: str
    file: str
    old: str
    new: str
    tests: str
    which: str = "test"

    @property
    def is_of_kernels(self) -> bool:
        return self.file == "src/cuda/decisions.hpp"


ERRORS = [
    Error(
        "what a scaler has found is not looked at",
        "src/cuda/decisions.hpp",
        "view.loss_scale.found_inf && *view.loss_scale.found_inf != 0",
        "false",
        "test_emulated_lent_states.py",
    ),
    Error(
        "the scale of the loss stays in the gradients",
        "src/cuda/decisions.hpp",
        " * (1.0 / static_cast<double>(*view.loss_scale.scale))",
        "",
        "test_emulated_lent_states.py",
    ),
    Error(
        "a graph that is captured takes a step",
        "src/bindings/gpu.cpp",
        "  refuse_capture(stream.handle);\n",
        "",
        "test_emulated_refusals.py",
        "captured",
    ),
    Error(
        "a gradient is read before its stream has made it",
        "src/bindings/gpu.cpp",
        "  runtime_.follow(other);",
        "",
        "test_emulated_streams.py",
    ),
    Error(
        "a gradient's stream goes on before the step has read it",
        "src/bindings/gpu.cpp",
        "for (void* other : others_) runtime_.precede(other);",
        "",
        "test_emulated_streams.py",
    ),
    Error(
        "what was lent goes back while the GPU reads it",
        "src/bindings/calls.hpp",
        "if (!calls.late.is_open) calls.reader",
        "calls.reader",
        "test_emulated_outcomes.py",
        "lent",
    ),
    Error(
        "a call that may raise does not wait",
        "src/bindings/calls.cpp",
        " ||\n                     plan.call().on_nonfinite == OnNonfinite::raise;",
        ";",
        "test_emulated_outcomes.py",
        "raise",
    ),
    Error(
        "a library that goes on elsewhere is not waited for",
        "src/bindings/calls.cpp",
        "!calls.gpu->stream().is_followed || !calls.reader.are_followed()",
        "false",
        "test_emulated_outcomes.py",
        "elsewhere",
    ),
    Error(
        "a gradient may be on another device than its parameter",
        "include/adafactor/door/view.hpp",
        "if (view.device != device) return",
        "if (false) return",
        "test_emulated_refusals.py",
    ),
    Error(
        "a scaler's numbers may be on another device",
        "src/bindings/stepper.cpp",
        " || found.device != object.gpu->device()",
        "",
        "test_emulated_lent_states.py",
        "scaler",
    ),
    Error(
        "parameters may be on several devices",
        "python/adafactor/engine/leaves.py",
        "if device != devices[0]:",
        "if False:",
        "test_emulated_refusals.py",
        "several_devices",
    ),
    Error(
        "parameters of JAX are taken on a GPU",
        "python/adafactor/engine/leaves.py",
        'if device != CPU and "jax" in libraries:',
        "if False:",
        "test_emulated_jax.py",
        "parameters",
    ),
    Error(
        "the host goes on before it knows of the call before",
        "python/adafactor/engine/call.py",
        "    if engine.late is not None:\n",
        "    if False:\n",
        "test_emulated_outcomes.py",
    ),
]


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The sources of the package, to be changed."""
    folder = tmp_path_factory.mktemp("copy")
    for part in PARTS:
        (shutil.copytree if (ROOT / part).is_dir() else shutil.copy)(ROOT / part, folder / part)
    for part in ("cuda", "support"):
        shutil.copytree(ROOT / "tests/cpp" / part, folder / "tests/cpp" / part)
    return folder


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    """The emulated GPU without an error."""
    return emulated_gpu.built(tmp_path_factory.mktemp("device"))


@pytest.fixture(scope="module")
def wheel_folder(tmp_path_factory):
    """Where the package is built again and again, each time what is new."""
    return tmp_path_factory.mktemp("wheel")


def said_by(tests, which, site, device):
    """What tests on an emulated GPU say of a package in a folder."""
    path = os.pathsep.join([str(site), str(ROOT / "tests/support")])
    environment = os.environ | {"PYTHONPATH": path, emulated_gpu.VARIABLE: str(device)}
    options = ("-q", "-x", "-p", "no:cacheprovider", "-k", which)
    command = (sys.executable, "-m", "pytest", *options, ROOT / "tests/cuda/emulated" / tests)
    return run(*command, env=environment, timeout=300)


def with_error(error, copy, folder, device, wheel_folder):
    """The package and the emulated GPU with the error that lies in the copy of the sources."""
    if error.is_of_kernels:
        return Path(adafactor.__file__).parents[1], emulated_gpu.built(folder, copy)
    if error.file.startswith("python/"):
        site = folder / "site"
        shutil.copytree(Path(adafactor.__file__).parent, site / "adafactor")
        shutil.copy(copy / error.file, site / Path(error.file).relative_to("python"))
        return site, device
    wheel, _ = wheels.built_from_sources(wheel_folder, copy)
    return wheels.unpacked(wheel, folder / "site"), device


@pytest.mark.full
@pytest.mark.parametrize("tests", sorted({error.tests for error in ERRORS}))
def test_without_an_error_nothing_is_found(tests, device):
    ran = said_by(tests, "test", Path(adafactor.__file__).parents[1], device)
    assert ran.returncode == 0, ran.stdout


@pytest.mark.full
@pytest.mark.parametrize("error", ERRORS, ids=[error.what for error in ERRORS])
def test_a_planted_error_is_found(error, copy, device, wheel_folder, tmp_path):
    required("c++")
    file = copy / error.file
    text = file.read_text(encoding="utf-8")
    assert text.count(error.old) == 1
    file.write_text(text.replace(error.old, error.new), encoding="utf-8")
    try:
        site, gpu = with_error(error, copy, tmp_path, device, wheel_folder)
        ran = said_by(error.tests, error.which, site, gpu)
    finally:
        file.write_text(text, encoding="utf-8")
    # A test fails, or the emulated GPU has ended the process.
    assert ran.returncode == 1 or ran.returncode < 0, ran.stdout
    assert "error" not in ran.stdout.splitlines()[-1], ran.stdout
