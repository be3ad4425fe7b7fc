"""The headers on systems that are not at hand: compiled for them, without a warning, and not run."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

INCLUDE = Path(__file__).parents[2] / "include"
WARNINGS = "-Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wold-style-cast -Wshadow -Werror"
SYSTEMS = ("x86_64-windows-gnu", "aarch64-windows-gnu", "x86_64-macos", "aarch64-macos", "x86_64-linux-musl")
PROGRAM = """
#if defined(_WIN32)
#include <windows.h>
#endif
#include <adafactor/adafactor.hpp>
int main() {
  float w[12] = {}, g[12] = {};
  adafactor::Optimizer optimizer{adafactor::Config{}, {{{4, 3}, adafactor::DType::float32}}};
  optimizer.step({w}, {g});
}
"""


@pytest.mark.full
@pytest.mark.parametrize("system", SYSTEMS)
def test_the_headers_compile_for_a_system(system, tmp_path):
    """By the Clang of ziglang, with the threads of the library; on Windows behind <windows.h>."""
    if importlib.util.find_spec("ziglang") is None:
        if os.environ.get("ADAFACTOR_REQUIRE_CROSS_COMPILER") == "1":
            pytest.fail("ziglang is not installed (ADAFACTOR_REQUIRE_CROSS_COMPILER=1)")
        pytest.skip("ziglang is not installed")
    (tmp_path / "program.cpp").write_text(PROGRAM)
    flags = ["-target", system, "-std=c++20", "-DADAFACTOR_THREADS=pool", *WARNINGS.split(), f"-I{INCLUDE}"]
    command = [sys.executable, "-m", "ziglang", "c++", *flags, "-c", "program.cpp"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (said.returncode, said.stderr) == (0, "")
