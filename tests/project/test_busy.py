"""The benchmark of a busy machine makes it busy and says what it found; nothing here judges a time."""

import sys

import pytest

import sources
from benchmark_results import run
from peers import require

sys.path.append(str(sources.ROOT))  # `benchmarks` is no part of the package: it lies beside it

from benchmarks import busy
from benchmarks.trees import Workload


def test_all_situations_are_told_apart():
    titles = [each.title for each in busy.situations(2)]
    assert titles == [
        "quiet",
        "1 busy process",
        "2 busy processes",
        "4 busy processes",
        "behind an operation of torch",
    ]
    assert len(busy.situations(1)) == 4


def test_busy_processes_end_with_their_turn():
    with busy.busy(2):
        pass
    with pytest.raises(ZeroDivisionError), busy.busy(1):
        raise ZeroDivisionError


def test_a_result_has_every_contestant_in_every_situation(tmp_path, monkeypatch):
    require("torch")
    monkeypatch.setattr(busy, "WORKLOADS", [Workload("small", [(64, 64)])])
    monkeypatch.setattr(busy, "situations", lambda cores: [busy.Situation("beside one", 1)])
    result, words = run(busy.main, tmp_path, "--rounds", "1", "--seconds", "0", "--threads", "2")
    (row,) = result["rows"]
    assert list(row["found"]) == [
        "adafactor.step, 1 thread",
        "adafactor.step, 2 threads",
        "torch.optim.AdamW, fused",
    ]
    for found in row["found"].values():
        assert 0 < found["median"] <= found["p90"] <= found["worst"]
    assert "beside one" in words
