"""What the benchmark of a GPU makes of its measurements; the measurements themselves need one."""

import sys

import pytest

import sources

sys.path.append(str(sources.ROOT))  # `benchmarks` is no part of the package: it lies beside it

from benchmarks import gpu

CASE = gpu.CASES[0]


def row(milliseconds, copy, adamw, foreach):
    peers = {
        name: {"milliseconds": each, "waited_milliseconds": 2 * each}
        for name, each in ((gpu.RAISES, 1.1), (gpu.ADAMW, adamw), (gpu.FOREACH, foreach))
    }
    return {
        "title": CASE.workload.title,
        "dtype": CASE.dtype,
        "leaves": len(CASE.workload.shapes),
        "elements": CASE.workload.elements,
        "milliseconds": milliseconds,
        "waited_milliseconds": 2 * milliseconds,
        "share_of_copy": copy,
        "peers": peers,
    }


@pytest.mark.parametrize(
    ("found", "held"),
    [((1.0, 0.9, 1.2, 12.0), [True, True, True]), ((1.0, 0.8, 1.05, 9.0), [False, False, False])],
)
def test_a_bar_is_held_or_missed(found, held):
    assert [each[-1] for each in gpu.bars(CASE, row(*found))] == held


def test_a_case_may_ask_for_nothing():
    last = gpu.CASES[-1]
    assert gpu.bars(last, row(1.0, 0.1, 0.1, 0.1)) == []


def test_the_table_has_each_contestant_and_each_bar():
    found = row(1.0, 0.9, 1.2, 9.0)
    names = ("what", "found", "relation", "bar", "held")
    found["bars"] = [dict(zip(names, bar, strict=True)) for bar in gpu.bars(CASE, found)]
    result = {
        "gpu": "NVIDIA H200",
        "torch": "2.13.0",
        "cuda": {"toolkit": "13.0"},
        "copy_gigabytes_per_second": 4300.0,
        "rows": [found],
        "left_out": ["1024x1024, float32"],
    }
    text = gpu.table(result)
    assert text.endswith("left out, for want of time: 1024x1024, float32")
    assert "NVIDIA H200, torch 2.13.0, CUDA 13.0" in text
    for name in (gpu.OURS, *found["peers"]):
        assert any(line.startswith(f"  {name}") for line in text.splitlines())
    assert "time / AdamW's: 0.833, <= 0.9: held" in text
    assert "torch's Adafactor / it: 9.000, >= 10: MISSED" in text
    assert gpu.default_path(result).name == "gpu-nvidia-h200.json"


def test_what_was_measured_is_there_when_the_time_is_over(monkeypatch, tmp_path, capsys):
    names = ("what", "found", "relation", "bar", "held")

    def measure(case, turns, bandwidth):
        clock[0] += 40
        found = row(1.0, 0.9, 1.2, 12.0) | {"title": case.workload.title, "dtype": case.dtype}
        return found | {"bars": [dict(zip(names, bar, strict=True)) for bar in gpu.bars(case, found)]}

    clock = [0.0]
    monkeypatch.setattr(gpu.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(gpu, "measure", measure)
    monkeypatch.setattr(gpu, "copy_bandwidth", lambda turns: 4300.0)
    monkeypatch.setattr(gpu, "gpu_and_torch", lambda: ("NVIDIA H200", "2.13.0"))
    monkeypatch.setattr(
        gpu, "cuda_of_this_build", lambda: {"toolkit": "13.0", "architectures": "90", "missing": None}
    )
    assert gpu.main(["--seconds", "100", "--out", str(tmp_path / "found.json")]) == 0
    saved = gpu.results.read(tmp_path / "found.json")
    assert len(saved["rows"]) == 3
    assert len(saved["left_out"]) == len(gpu.CASES) - 3
    assert saved["left_out"][-1] in capsys.readouterr().out


def test_the_trees_have_the_sizes_of_their_names():
    assert sum(1 for _ in gpu.billion()) == 17 * 9 + 3
    elements = next(case.workload.elements for case in gpu.CASES if case.workload.title == "1 B decoder")
    assert 0.99e9 < elements < 1.01e9


def test_without_a_gpu_it_says_why(capsys):
    with pytest.raises(SystemExit) as ended:
        gpu.main([])
    assert ended.value.code == 1
    assert "no step can run on a GPU" in capsys.readouterr().err
