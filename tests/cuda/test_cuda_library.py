"""What the package says of the shared object with CUDA: what it finds there, and what is wrong with it."""

import os
import re
import sys

import numpy as np
import pytest

import adafactor
import emulated_gpu
import scripts
import sources
from cpp_build import required, run
from dlpack_producer import CUDA, Producer

# A shared object that finds what the environment says; nothing is ever asked of it besides.
STAND_IN = """
#include <cstdlib>
#include <string>

#include "adafactor/step/leaf.hpp"
#include "cuda/functions.hpp"
#include "cuda/view.hpp"

namespace {

const char* said(const char* name) { return std::getenv(name); }
adafactor::cuda::Failure number(const char* name, int* found) {
  *found = said(name) ? std::atoi(said(name)) : 0;
  return {};
}

}  // namespace

extern "C" __attribute__((visibility("default")))
const adafactor::cuda::Functions* adafactor_cuda_functions() {
  using adafactor::cuda::Failure;
  static adafactor::cuda::Functions functions{};
  functions.version = said("SAID_VERSION") ? said("SAID_VERSION") : ADAFACTOR_VERSION;
  functions.view_nbytes = sizeof(adafactor::cuda::View);
  functions.leaf_nbytes = sizeof(adafactor::Leaf) + (said("SAID_LEAF") ? 8 : 0);
  functions.toolkit = "13.0";
  functions.architectures = "90-real 120-virtual";
  functions.driver = [](int* version) { return number("SAID_DRIVER", version); };
  functions.count_devices = [](int* count) {
    number("SAID_DEVICES", count);
    return said("SAID_FAILURE") ? Failure{said("SAID_FAILURE")} : Failure{};
  };
  return &functions;
}
"""
KNOWN = {"toolkit": "13.0", "architectures": "90-real 120-virtual"}
UNKNOWN = {"toolkit": None, "architectures": None, "driver": None, "devices": 0}
OLD = "CUDA: CUDA driver version is insufficient for CUDA runtime version (cudaErrorInsufficientDriver)"
# What the environment says, and what is to be said of it.
FINDINGS = {
    "a GPU": (
        {"SAID_DRIVER": "13000", "SAID_DEVICES": "2"},
        KNOWN | {"driver": "13.0", "devices": 2, "missing": None},
    ),
    "no driver": (
        {},
        KNOWN | {"driver": None, "devices": 0, "missing": "no driver of NVIDIA is installed"},
    ),
    "a driver that is too old": (
        {"SAID_DRIVER": "12090", "SAID_FAILURE": OLD},
        KNOWN | {"driver": "12.9", "devices": 0, "missing": OLD},
    ),
    "a driver without a GPU": (
        {"SAID_DRIVER": "13020"},
        KNOWN | {"driver": "13.2", "devices": 0, "missing": "no GPU that CUDA can use"},
    ),
    "another version": ({"SAID_VERSION": "0.0.1"}, UNKNOWN | {"missing": "{path} is of another build"}),
    "other tables": ({"SAID_LEAF": "1"}, UNKNOWN | {"missing": "{path} is of another build"}),
}
LOOK = """
import numpy as np
import adafactor
from dlpack_producer import CUDA, Producer

info = adafactor.build_info()["cuda"]
values = np.ones((4, 3), np.float32)
assert adafactor.step(values, values.copy(), adafactor.init(values)).updated
error = None
if info["missing"]:
    try:
        adafactor.init(Producer(values, device_kind=CUDA))
    except ValueError as refused:
        error = str(refused)
found = info, error
"""


def compiled(source, target):
    """A shared object of a text."""
    file = target.with_suffix(".cpp")
    file.write_text(source, encoding="utf-8")
    includes = [f"-I{sources.ROOT / name}" for name in ("include", "src")]
    flags = ("-std=c++20", "-O0", "-fPIC", "-shared", "-fvisibility=hidden", "-DADAFACTOR_COMPILED")
    # Without what .ci/sanitize has loaded into each process before all else.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    made = run(required("g++"), *flags, *includes, file, "-o", target, env=environment)
    assert made.returncode == 0, made.stdout
    return target


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    return compiled(STAND_IN, tmp_path_factory.mktemp("stand_in") / "libstand_in.so")


def check_refusal(error, missing):
    expected = f"params: an array on cuda:0 ({missing}), expected one in the CPU's memory"
    assert error == (expected if missing else None)


@pytest.mark.parametrize("name", FINDINGS)
def test_what_is_found_is_said_and_all_but_a_gpu_works(name, stand_in):
    said, expected = FINDINGS[name]
    if expected["missing"]:
        expected = expected | {"missing": expected["missing"].format(path=stand_in)}
    said = said | {emulated_gpu.VARIABLE: str(stand_in)}
    info, error = scripts.found_by(LOOK, **said)
    assert info == expected
    check_refusal(error, expected["missing"])
    environment = {**os.environ, "PYTHONPATH": sources.PYTHONPATH, **said}
    printed = run(sys.executable, "-m", "adafactor", "info", env=environment)
    assert printed.returncode == 0, printed.stdout
    words = ", ".join(f"{key} {value}" for key, value in expected.items() if value is not None)
    assert re.findall(r"^cuda +(.*)$", printed.stdout, re.MULTILINE) == [words]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda target: target.write_text("none"), "{path}: file too short"),
        (lambda target: target.write_text(100 * "none"), "{path}: invalid ELF header"),
        (lambda target: compiled("", target), "{path}: undefined symbol: adafactor_cuda_functions"),
    ],
    ids=["a short file", "no shared object", "one of something else"],
)
def test_a_file_that_cannot_be_opened_is_named(make, words, tmp_path):
    path = tmp_path / "libadafactor_cuda.so"
    make(path)
    info, error = scripts.found_by(LOOK, **{emulated_gpu.VARIABLE: str(path)})
    assert info == UNKNOWN | {"missing": words.format(path=path)}
    check_refusal(error, info["missing"])


def test_a_build_without_cuda_says_so():
    if adafactor.build_info()["cuda"] is not False:
        pytest.skip("this build has CUDA")
    with pytest.raises(
        ValueError, match=r"^params: an array on cuda:0 \(this build has no CUDA\), expected one in"
    ):
        adafactor.init(Producer(np.ones(3, np.float32), device_kind=CUDA))
