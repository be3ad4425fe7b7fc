"""What `benchmarks.compiling` says of a compiler that is slow for a while."""

import sys
from pathlib import Path

import pytest

import sources

sys.path.append(str(sources.ROOT))  # `benchmarks` is no part of the package: it lies beside it

from benchmarks import compiling

HERE = Path()
ALLOWED = compiling.Compilation("a file", ["g++"], HERE, times=2.0, megabytes=100.0)


@pytest.mark.parametrize(
    ("seconds", "runs", "exceeds"),
    [
        pytest.param([2.2], 1, False, id="within its limit"),
        pytest.param([2.9, 2.1, 2.2], 3, False, id="slow once"),
        pytest.param([2.4, 2.9, 2.1], 3, True, id="slow twice"),
    ],
)
def test_what_exceeds_its_limit_is_compiled_again(monkeypatch, seconds, runs, exceeds):
    taken = iter(seconds)
    commands = []

    def used_by(command, folder):
        commands.append(command)
        return (1.0, 10.0) if command == ["reference"] else (next(taken), 10.0)

    monkeypatch.setattr(compiling, "used_by", used_by)
    cost = compiling.cost_of(ALLOWED, ["reference"], HERE)
    assert commands == [["reference"], ["g++"]] * runs
    assert cost.times == sorted(seconds)[runs // 2]
    assert compiling.exceeds(ALLOWED, cost) == exceeds


def test_memory_has_a_limit_too(monkeypatch):
    monkeypatch.setattr(compiling, "used_by", lambda command, folder: (1.0, 116.0))
    assert compiling.exceeds(ALLOWED, compiling.cost_of(ALLOWED, ["reference"], HERE))
