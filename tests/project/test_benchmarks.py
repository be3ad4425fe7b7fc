"""The benchmarks run and count what they say; nothing here judges a time."""

import importlib.util
import os
import sys

import numpy as np
import pytest

import sources
from benchmark_results import run

sys.path.append(str(sources.ROOT))  # `benchmarks` is no part of the package: it lies beside it

from benchmarks import (
    accuracy,
    memory,
    overhead,
    parts,
    peers,
    scaling,
    traffic,
    trees,
    worker,
)
from benchmarks.contestants import CONTESTANTS, OURS, PEERS, PROPAGATE, ROUTES, Contestant, Made

CACHE = 32 << 20
TREE = trees.Workload("64x32,16", [(64, 32), (16,)])


def without(monkeypatch, *modules):
    """Lets the benchmarks not find these modules."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in modules else find(name))


@pytest.mark.parametrize(
    ("workload", "count"),
    [
        ("4096x4096", 4 + 8 + 12),
        ("1024x1024", 12),  # all of it stays in the cache: each array is read once, and p written
        ("kernels-first", 4 + 12),  # each leaf stays there from `rms` to `apply`
        ("vector", 12 + 20),  # with the second moment, in two passes
    ],
)
def test_bytes_are_counted_as_the_phases_read_them(workload, count):
    tree = trees.WORKLOADS[workload]
    assert traffic.bytes_moved(tree.shapes, CACHE) == count * tree.elements


def test_the_t5_tree_has_its_leaves_and_bytes():
    tree = trees.WORKLOADS["t5-small"]
    assert (len(tree.shapes), round(tree.elements / 1e6, 1)) == (131, 60.5)
    # At 55 GB/s that is 20 ms, and 17 ms where nobody looks first.
    assert traffic.bytes_moved(tree.shapes, CACHE) == pytest.approx(55e9 * 0.020, rel=0.01)
    propagated = traffic.bytes_moved(tree.shapes, CACHE, CONTESTANTS[PROPAGATE].streams)
    assert propagated == pytest.approx(55e9 * 0.0168, rel=0.01)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("ema", 24 + 8),
        ("momentum", 24 + 8),
        ("clip-decay", 24),
        ("accumulation", (20 + 40) / 2),  # a call that adds, and one that updates and empties
        ("bfloat16", 12),
        ("bfloat16-parameters", 4 + 6 + 8),
    ],
)
def test_an_option_is_counted_with_its_own_arrays(name, count):
    assert peers.rows.bytes_per_element(name, trees.WORKLOADS["4096x4096"], "float32", CACHE) == count


def test_a_small_vector_is_read_once():
    assert traffic.bytes_moved([(1000,)], CACHE) == (12 + 8) * 1000


def test_peers_are_measured_beside_this_project_and_a_missing_one_is_named(tmp_path, monkeypatch, capsys):
    without(monkeypatch, "torch")
    chosen = [
        "--peer",
        "adamw",
        "--peer",
        "keras-jax",
        "--dtype",
        "float32",
        "--memory",
        "none",
        "--no-options",
    ]
    found, picture = run(peers.main, tmp_path, "--shapes", "64x32,16", "--seconds", "0", *chosen)
    printed = capsys.readouterr()
    assert "left out: torch.optim.AdamW, fused, for want of torch" in printed.err
    assert "[1/2] 64x32,16, float32: times of adafactor, propagate; about" in printed.err
    assert found["missing"] == {"torch.optim.AdamW, fused": ["torch"]}
    assert found["machine"]["build"]["version"] == found["machine"]["versions"]["adafactor"]

    plain, propagate = found["rows"]
    assert (plain["contestant"], propagate["contestant"]) == (OURS, PROPAGATE)
    assert (plain["elements"], plain["leaves"]) == (64 * 32 + 16, 2)
    assert plain["gigabytes_per_second"] == pytest.approx(
        plain["bytes_per_element"] / plain["nanoseconds_per_element"]
    )
    (keras,) = plain["peers"].values()
    assert keras["ratio"] == keras["our_milliseconds"] / keras["milliseconds"]
    for words in (printed.out, picture):
        assert "keras Adafactor on jax, jit" in words
        assert "64x32,16" in words


@pytest.mark.apart
def test_options_sixteen_bits_and_memory_are_measured(tmp_path, monkeypatch):
    without(monkeypatch, "torch")
    found, _ = run(peers.main, tmp_path, "--shapes", "64x32,16", "--seconds", "0", "--peer", "torch")
    by_dtype = {row["dtype"]: row for row in found["rows"] if row["contestant"] == OURS}
    assert by_dtype["float32"]["peak_extra_bytes"] < 1e6 or not sys.platform.startswith("linux")
    sixteen = by_dtype["bfloat16"]
    assert "milliseconds" in sixteen or sixteen["refused"].startswith("TypeError: ")
    for option in found["options"]:
        if "refused" in option:
            assert option["refused"].startswith("TypeError: ")
            assert "bfloat16" in option["title"]
        else:
            assert option["over_bytes"] == pytest.approx(option["ratio"] / option["bytes_ratio"])


def test_an_interrupted_run_keeps_the_workloads_that_it_finished(tmp_path, monkeypatch):
    def answer(task, workload, names, **settings):
        if workload.title == "8":
            raise KeyboardInterrupt
        return {"seconds": dict.fromkeys(names, 1.0), "refused": {}}

    monkeypatch.setattr(worker, "run", answer)
    without(monkeypatch, "torch")
    arguments = [
        "--shapes",
        "4",
        "--shapes",
        "8",
        "--peer",
        "torch",
        "--dtype",
        "float32",
        "--memory",
        "none",
    ]
    found, _ = run(peers.main, tmp_path, *arguments)
    assert [(row["title"], row["contestant"]) for row in found["rows"]] == [("4", OURS), ("4", PROPAGATE)]


def test_arrays_begin_at_a_line_of_the_cache():
    params, grads = trees.draw([(3,), (5, 7), ()], "float32", "float16")
    assert {array.dtype.name for array in params} == {"float32"}
    assert {array.dtype.name for array in grads} == {"float16"}
    copies = [trees.aligned(array) for array in params]
    for array in [*params, *grads, *copies]:
        assert array.ctypes.data % 64 == 0
        assert array.flags.c_contiguous
    assert all(np.array_equal(array, copy) for array, copy in zip(params, copies, strict=True))


def contestant(step):
    return Contestant(
        "made up", lambda params, grads, learning_rate: Made(lambda: step(params, grads), lambda: params)
    )


def test_a_contestant_that_fails_leaves_the_others(monkeypatch):
    def fail(params, grads):
        raise NotImplementedError("not for these\nand so on")

    monkeypatch.setitem(CONTESTANTS, "failing", contestant(fail))
    steps, refused = worker.make_steps(
        {"shapes": TREE.shapes, "dtype": "float32", "names": ["failing", OURS]}
    )
    assert list(steps) == [OURS]
    assert refused == {"failing": "NotImplementedError: not for these"}


def test_a_contestant_that_writes_to_the_shared_arrays_is_found(monkeypatch):
    monkeypatch.setitem(CONTESTANTS, "writing", contestant(lambda params, grads: grads[1].fill(0)))
    with pytest.raises(RuntimeError, match="writing wrote to the arrays that all share"):
        worker.make_steps({"shapes": TREE.shapes, "dtype": "float32", "names": [OURS, "writing"]})


def test_a_worker_that_breaks_down_says_why():
    with pytest.raises(worker.WorkerError, match="exit code 1: KeyError: 'no such task'"):
        worker.run("no such task", TREE, [OURS], threads=1)


def require_peers_of(name):
    if peers.missing([name]):
        required = os.environ.get("ADAFACTOR_REQUIRE_BENCHMARK_PEERS") == "1"
        (pytest.fail if required else pytest.skip)(f"{name}: not everything that it needs is installed")


OF_THE_BENCHMARKS = {"transformers", "pytorch-optimizer", "optax"}  # which no other test needs


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.full] if name in OF_THE_BENCHMARKS else [])
        for name, each in (ROUTES | PEERS).items()
        if each.keras is None
    ],
)
def test_a_contestant_steps_on_a_copy_of_the_parameters(name):
    require_peers_of(name)
    params, grads = trees.draw(TREE.shapes, "float32")
    made = CONTESTANTS[name].make(params, grads)
    before = [np.array(array) for array in made.parameters()]
    made.step()
    for drawn, was, now in zip(params, before, made.parameters(), strict=True):
        assert np.array_equal(was, drawn)
        assert not np.any(now == drawn)


@pytest.mark.apart
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_temporary_of_a_call_shows_in_its_peak():
    size = 64 << 20
    assert memory.peak_extra_bytes(lambda: np.ones(size, np.uint8).sum()) == pytest.approx(size, rel=0.05)
    assert memory.peak_extra_bytes(lambda: None) < 1 << 20


def test_costs_are_measured_as_a_leaf_grows(tmp_path, capsys):
    found, picture = run(
        scaling.main, tmp_path, "--max-elements", "2K", "--seconds", "0", "--threads", "1", "2"
    )
    assert [(row["elements"], row["threads"]) for row in found["rows"][-4:]] == [
        (1024, 1),
        (1024, 2),
        (2048, 1),
        (2048, 2),
    ]
    assert found["rows"][-1]["shape"] == [32, 64]
    assert "2,048        2" in capsys.readouterr().out
    assert "2 threads" in picture


def test_small_tensors_are_measured_in_every_library_that_is_here(tmp_path, monkeypatch, capsys):
    without(monkeypatch, "torch", "jax")
    found, picture = run(overhead.main, tmp_path, "--tensors", "3", "1", "--seconds", "0", "--peer", "adamw")
    printed = capsys.readouterr()
    assert "left out: adafactor.update, arrays of JAX, for want of jax" in printed.err
    assert [row["tensors"] for row in found["rows"]] == [1, 3]
    for row in found["rows"]:
        assert list(row["found"]) == found["names"] == ["route-numpy", "route-dlpack"]
        assert all(each["microseconds"] > 0 for each in row["found"].values())
    assert found["parts"] is None
    assert found["threads"] == 1
    for words in (printed.out, picture):
        assert "adafactor.step, arrays of NumPy" in words


def test_a_library_that_breaks_down_on_small_tensors_leaves_the_other_numbers(monkeypatch, capsys):
    def answer(task, workload, names, **settings):
        if len(workload.shapes) == 30:
            raise worker.WorkerError("exit code 1: no room")
        return {"seconds": {names[0]: 2e-6}, "refused": {names[1]: "TypeError: not these"}}

    monkeypatch.setattr(worker, "run", answer)
    names = ["route-numpy", "adamw"]
    rows = [overhead.row(count, names, 0) for count in (3, 30)]
    assert [row["found"]["route-numpy"].get("microseconds") for row in rows] == [2, None]
    assert rows[0]["found"]["adamw"]["refused"] == "TypeError: not these"
    assert rows[1]["found"]["adamw"]["refused"] == "broke down, exit code 1: no room"
    printed = overhead.table({"rows": rows, "names": names, "parts": overhead.taken_apart(30, 0)})
    assert printed.count("refused") == 3
    assert "a call on" not in printed


def test_a_call_is_taken_apart():
    require_peers_of("route-torch")
    found = overhead.taken_apart(2, 0)
    assert found["tensors"] == 2
    assert list(found["microseconds"]) == list(parts.TITLES)


def test_what_is_left_of_a_call_is_the_whole_without_its_parts():
    taken = {"gather": 9, "flatten": 1, "read": 2, "core": 7, "count": 3, "report": 4, "whole": 20}
    found = parts.microseconds({name: 1e-6 * each for name, each in taken.items()})
    assert found["compute"] == pytest.approx(7 - 2)
    assert found["rest"] == pytest.approx(20 - (1 + 7 + 3 + 4))


def test_errors_are_measured_against_float64(tmp_path, monkeypatch, capsys):
    without(monkeypatch, "torch", "optax")
    found, picture = run(accuracy.main, tmp_path, "--shapes", "200x100")
    (row,) = found["rows"]
    assert list(row["found"]) == [OURS]
    # What tests/numbers/test_accuracy.py holds of much larger leaves.
    assert 0.5 <= row["found"][OURS]["max_units"] <= 5
    assert row["found"][OURS]["correctly_rounded"] >= 0.95
    assert "left out: optax.adafactor, jit, donated, for want of optax" in capsys.readouterr().err
    assert "200x100" in picture
