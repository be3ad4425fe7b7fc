"""NVIDIA's compute-sanitizer on small steps: accesses, races in shared memory, reads of what nobody wrote."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

TOOLS = ["memcheck", "racecheck", "initcheck"]
CASES = ["tall", "narrow", "small_slices", "unfactored"]  # of float32
# For a kernel that is watched runs many times as long. `run` says how long there is for all of them.
END = time.monotonic() + float(os.environ.get("ADAFACTOR_SANITIZER_SECONDS", "600"))


@pytest.mark.parametrize("tool", TOOLS)
def test_the_sanitizer_finds_nothing(tool):
    """In the kernels of this package alone; where it cannot run, the reason for the skip says so."""
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        pytest.skip("compute-sanitizer is not installed")
    options = [
        *("--tool", tool, "--error-exitcode", "9", "--report-api-errors", "no"),
        *("--kernel-name", "kernel_substring=run_blocks"),
    ]
    program = [sys.executable, Path(__file__).with_name("steps_to_sanitize.py"), *CASES]
    # Each allocation of torch's is one of CUDA's, whose ends are watched.
    environment = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1", "CUPY_ACCELERATORS": ""}
    seconds = (END - time.monotonic()) / (len(TOOLS) - TOOLS.index(tool))
    if seconds < 5:
        pytest.skip(f"no time is left for {tool}")
    try:
        ran = subprocess.run(
            [sanitizer, *options, *program],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"{tool} was not done in the {seconds:.0f} s that were left for it")
    summary = re.search(r"(?:ERROR|RACECHECK) SUMMARY: (\d+) (?:errors?|hazards?)", ran.stdout)
    if summary is None and "digests" not in ran.stdout:
        pytest.skip(f"compute-sanitizer does not run on this machine: {ran.stdout.strip()[-400:]}")
    assert ran.returncode == 0, ran.stdout[-4000:]
    assert summary is not None, ran.stdout[-4000:]
    assert summary[1] == "0", ran.stdout[-4000:]
    assert f"digests are those of a CPU: {' '.join(CASES)}" in ran.stdout
