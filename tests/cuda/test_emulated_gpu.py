"""What the package does with arrays on a GPU, in a process of its own in which a CPU stands in for one."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import emulated_gpu

TESTS = Path(__file__).parents[1]
FILES = ("cuda/emulated", "hazards/test_registry.py", "numbers/test_formulas.py")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return str(emulated_gpu.built(tmp_path_factory.mktemp("device")))


@pytest.mark.parametrize(
    "order", ["shuffled", *(pytest.param(order, marks=pytest.mark.full) for order in ("forward", "backward"))]
)
def test_every_test_on_the_emulated_gpu_passes(order, library):
    """In each order of the threads; where it is shuffled, half of the teams wait in each round."""
    environment = os.environ | {emulated_gpu.VARIABLE: library, emulated_gpu.ORDER: order}
    files = [str(TESTS / file) for file in FILES]
    # A sanitizer ends the process: what it says must not be where pytest would have taken it from.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--capture=sys", *files]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert int(re.search(r"^(\d+) passed", ran.stdout, re.MULTILINE)[1]) > 1000
