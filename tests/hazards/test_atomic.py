"""All or nothing: a gradient that is not finite leaves every byte and every counter as it was, wherever in
the tree it stands, whatever the knobs, and the next good step is the one that would have been made anyway."""

import re

import numpy as np
import pytest

import adafactor
import snapshots
from adafactor.config import core_knobs

# Widths are 16 k + 5, so that the last element of a row is in the remainder of every vector loop.
TREES = {
    "small": {"slices": (3, 2, 21), "matrix": (7, 37), "vector": (21,)},
    "tiles": {"vector": (200005,), "matrix": (3, 50005), "slices": (5, 200, 261)},
    "tiles, matrix first": {"matrix": (1030, 261), "matrices": (2, 300, 453)},
}
THREADS = 9
FEATURES = {
    "plain": {},
    "accumulation": {"gradient_accumulation_steps": 2},
    "ema": {"use_ema": True, "ema_momentum": 0.5},
    "ema on calls": {"use_ema": True, "ema_on": "call", "gradient_accumulation_steps": 2},
    "momentum": {"beta_1": 0.9},
    "momentum in 16 bits": {"beta_1": 0.9, "momentum_dtype": "bfloat16", "momentum_on": "update"},
    "clipnorm": {"clipnorm": 0.5},
    "global_clipnorm": {"global_clipnorm": 0.5},
    "clipvalue": {"clipvalue": 0.5},
    "weight decay": {"weight_decay": 0.1},
}
# (knobs, calls before the bad one): with accumulation the bad call may add to a window or complete it.
CASES = {
    name + where: (knobs, calls)
    for name, knobs in FEATURES.items()
    for where, calls in (
        ((", adding", 2), (", completing", 3)) if "gradient_accumulation_steps" in knobs else (("", 1),)
    )
}
OVERFLOWS = 2e19  # finite, and its square is not: 1.8e19 is the root of the largest float32
BAD = {"nan": np.nan, "inf": np.inf, "-inf": -np.inf, "overflow": OVERFLOWS}


@pytest.fixture(autouse=True)
def _threads():
    """More threads than there are tiles in any tree; the default afterwards."""
    adafactor.set_num_threads(THREADS)
    yield
    adafactor.set_num_threads(0)


def draw(shapes, seed):
    generator = np.random.default_rng(seed)
    return {path: generator.standard_normal(shape, np.float32) for path, shape in shapes.items()}


def everything(params, grads, state):
    return (
        snapshots.memory(params.values()),
        snapshots.memory(grads.values()),
        snapshots.of_state(state),
    )


def call_in_place(params, grads, state):
    report = adafactor.step(params, grads, state)
    return params, state, report


CALLS = {"step": call_in_place, "update": adafactor.update}


def started(shapes, knobs, calls):
    """Parameters and a state that have made some good calls."""
    params = draw(shapes, 0)
    state = adafactor.init(params, learning_rate=0.01, **knobs)
    for k in range(calls):
        adafactor.step(params, draw(shapes, 10 + k), state)
    return params, state


def poisonings(tree, case):
    """(leaf, flat index, name of the value, value): the first and last leaf, at both ends and in the middle.

    Every value at every place for leaves of one tile; for others one of the four, in turn.
    """
    shapes = TREES[tree]
    turn = list(CASES).index(case)
    for path in (next(iter(shapes)), next(reversed(shapes))):
        size = np.prod(shapes[path])
        for index in (0, size // 2, size - 1):
            turn += 1
            names = [list(BAD)[turn % len(BAD)]] if tree.startswith("tiles") else BAD
            for name in names:
                # What completes a window of two is halved before it is squared.
                yield path, index, name, np.float32(BAD[name] * (2 if ", completing" in case else 1))


def message_of(path, name, size):
    problem = {
        "nan": f"1 NaN and 0 Inf of {size} values",
        "inf": f"0 NaN and 1 Inf of {size} values",
        "-inf": f"0 NaN and 1 Inf of {size} values",
        "overflow": "finite, but the sum of the squares of what the step uses overflows",
    }
    return f"^grads {path}: {re.escape(problem[name])}; nothing was changed"


def test_the_trees_have_leaves_of_one_and_of_several_tiles():
    knobs = [core_knobs(adafactor.Config())]
    for name, shapes in TREES.items():
        plan = adafactor._core.Plan(
            list(shapes.values()), ["float32"] * len(shapes), [0] * len(shapes), knobs, list(shapes)
        )
        tiles = [plan.layout(leaf)["tiles"] for leaf in range(len(shapes))]
        assert all(count > 1 if "tiles" in name else count == 1 for count in tiles), (name, tiles)
        assert sum(tiles) < THREADS


@pytest.mark.filterwarnings("ignore:.*calls in a row were skipped:UserWarning")
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("mode", ["raise", "skip"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("tree", TREES)
def test_a_bad_gradient_changes_nothing(tree, case, mode, call):
    shapes = TREES[tree]
    knobs, calls = CASES[case]
    params, state = started(shapes, {**knobs, "on_nonfinite": mode}, calls)
    untouched_params, untouched_state = {path: p.copy() for path, p in params.items()}, state.copy()
    grads = draw(shapes, 99)
    for path, index, name, value in poisonings(tree, case):
        good = grads[path].flat[index]
        grads[path].flat[index] = value
        before = everything(params, grads, state)
        if mode == "raise":
            with pytest.raises(FloatingPointError, match=message_of(path, name, grads[path].size)):
                call(params, grads, state)
        else:
            after, after_state, report = call(params, grads, state)
            assert report.skipped
            assert not report.updated
            assert report.nonfinite.tolist() == [other == path for other in shapes]
            assert snapshots.same_bits(after.values(), params.values())
            assert snapshots.of_state(after_state) == before[2]
        assert everything(params, grads, state) == before, f"{name} at {index} of {path}"
        grads[path].flat[index] = good

    after, after_state, report = call(params, grads, state)
    expected, expected_state, expected_report = call(untouched_params, grads, untouched_state)
    assert not report.skipped
    assert snapshots.same_bits(after.values(), expected.values())
    assert snapshots.of_state(after_state) == snapshots.of_state(expected_state)
    assert repr(report) == repr(expected_report)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("case", CASES)
def test_each_bad_call_is_as_if_it_had_not_been(case, bad):
    """A bad call before every good one, over several windows: the trajectory is that of the good calls."""
    shapes = TREES["small"]
    knobs, _ = CASES[case]
    params, state = started(shapes, {**knobs, "on_nonfinite": "skip"}, 0)
    expected, expected_state = started(shapes, knobs, 0)
    for k in range(5):
        poisoned = draw(shapes, 50 + k)
        poisoned["matrix"][k, -1] = 2 * BAD[bad]
        assert adafactor.step(params, poisoned, state).skipped
        adafactor.step(params, draw(shapes, 10 + k), state)
        adafactor.step(expected, draw(shapes, 10 + k), expected_state)
        assert snapshots.same_bits(params.values(), expected.values())
        assert snapshots.of_state(state) == snapshots.of_state(expected_state)


def test_the_message_counts_the_other_bad_leaves():
    shapes = TREES["small"]
    params, state = started(shapes, {}, 0)
    grads = draw(shapes, 1)
    for gradient in grads.values():
        gradient.flat[0] = np.nan
    grads["slices"][1, 1, 1] = np.inf
    with pytest.raises(
        FloatingPointError, match=r"^grads slices: 1 NaN and 1 Inf of 126 values, and 2 more leaves"
    ):
        adafactor.step(params, grads, state)
    grads["vector"][...] = 0
    with pytest.raises(FloatingPointError, match="values, and 1 more leaf;"):
        adafactor.step(params, grads, state)


def test_float64_squares_may_be_larger():
    params = {"w": np.ones((3, 21))}
    state = adafactor.init(params)
    grads = {"w": np.ones((3, 21))}
    grads["w"][2, 20] = 2e19
    adafactor.step(params, grads, state)
    assert np.isfinite(params["w"]).all()
    grads["w"][2, 20] = 2e154
    before = everything(params, grads, state)
    with pytest.raises(FloatingPointError, match=r"^grads w: finite, but"):
        adafactor.step(params, grads, state)
    assert everything(params, grads, state) == before


def test_squares_that_overflow_only_together_are_bad_too():
    """Each square is a quarter of the largest float32; the sum of the eight in a column is twice that."""
    params = {"w": np.ones((8, 5), np.float32)}
    state = adafactor.init(params)
    grads = {"w": np.full((8, 5), 9e18, np.float32)}
    before = everything(params, grads, state)
    with pytest.raises(FloatingPointError, match=r"^grads w: finite, but"):
        adafactor.step(params, grads, state)
    assert everything(params, grads, state) == before


@pytest.mark.parametrize("column", [0, 4095, 4096, 5999])
def test_a_column_that_overflows_is_bad_wherever_a_wide_tile_has_it(column):
    """Two squares of 2.25e38, each in a row of its own; 4096 columns are summed before the next are."""
    params = {"w": np.ones((20, 6000), np.float32)}
    state = adafactor.init(params)
    grads = draw({"w": (20, 6000)}, 0)
    grads["w"][3:5, column] = 1.5e19
    before = everything(params, grads, state)
    with pytest.raises(FloatingPointError, match=r"^grads w: finite, but"):
        adafactor.step(params, grads, state)
    assert everything(params, grads, state) == before


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("case", [case for case in CASES if "global" not in case])
def test_propagating_a_nan_spoils_its_leaf_alone(case, call):
    shapes = TREES["small"]
    knobs, calls = CASES[case]
    params, state = started(shapes, {**knobs, "on_nonfinite": "propagate"}, calls)
    untouched = {path: p.copy() for path, p in params.items()}, state.copy()
    good, bad = draw(shapes, 99), draw(shapes, 99)
    bad["matrix"][3, 36] = np.nan
    after, after_state, report = call(params, bad, state)
    expected, expected_state, expected_report = call(untouched[0], good, untouched[1])
    assert not report.skipped
    assert report.updated is expected_report.updated
    assert report.nonfinite.tolist() == [False, True, False]
    assert np.isnan(after["matrix"][3, 36]) or not report.updated
    found, wanted = snapshots.of_state(after_state), snapshots.of_state(expected_state)
    assert found[0] == wanted[0]
    for path in ("vector", "slices"):
        assert snapshots.same_bits([after[path]], [expected[path]])
        assert {key: t for key, t in found[1].items() if key[0] == path} == {
            key: t for key, t in wanted[1].items() if key[0] == path
        }


def test_propagating_a_nan_through_the_global_norm_spoils_every_leaf():
    shapes = TREES["small"]
    params, state = started(shapes, {"global_clipnorm": 0.5, "on_nonfinite": "propagate"}, 1)
    grads = draw(shapes, 99)
    grads["matrix"][3, 36] = np.nan
    assert adafactor.step(params, grads, state).updated
    assert all(np.isnan(p).all() for p in params.values())


def test_an_update_that_leaves_float32_is_made_in_double():
    """U is diag(1, 1e20), whose squares are no float32; its rms is 5e19, so clipping leaves 2 of 1e20."""
    params = np.ones((2, 2), np.float32)
    grads = np.diag(np.array([1e10, 1e-10], np.float32))
    state = adafactor.init(params, learning_rate=0.1)
    report = adafactor.step(params, grads, state)
    assert np.isfinite(params).all()
    assert params[1, 1] == pytest.approx(0.8, abs=1e-6)
    assert np.isfinite([report.update_rms, report.clip_factor, report.step_size]).all()
    assert all(np.isfinite(tensor).all() for tensor in state.tensors().values())
