"""The benchmarks run and count what they say; nothing here judges how long anything took."""

import json
import subprocess
import sys

import pytest

import sources


def test_the_step_benchmark_prints_its_table_and_writes_what_it_found(tmp_path):
    out = tmp_path / "step.json"
    trees = ["--tree", "1024x1024", "--tree", "500 x (64x64 and 64)"]
    command = [
        sys.executable,
        "-m",
        "benchmarks.step",
        *trees,
        "--seconds",
        "0.1",
        "--no-torch",
        "--out",
        str(out),
    ]
    result = subprocess.run(command, cwd=sources.ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "1024x1024" in result.stdout

    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["machine"]["build"]["version"] == found["machine"]["versions"]["adafactor"]
    row = found["trees"]["1024x1024"]
    assert row["elements"] == 1024 * 1024
    # 8 MB of p and g stay in the cache from phase to phase: each is read once and p is written once.
    assert row["bytes_per_element"] == 12
    per_element = row["milliseconds"]["adafactor"] * 1e6 / row["elements"]
    assert row["nanoseconds_per_element"] == pytest.approx(per_element)
    assert row["gigabytes_per_second"] == pytest.approx(12 / per_element)
