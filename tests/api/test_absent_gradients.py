"""Gradients that are None: the leaf is left alone, and what belongs to the whole state goes on."""

import warnings

import numpy as np
import pytest

import adafactor
import snapshots

SHAPES = {"vector": (37,), "matrix": (7, 37), "slices": (3, 2, 21)}


def tree(seed, absent=()):
    generator = np.random.default_rng(seed)
    made = {path: generator.standard_normal(shape, np.float32) for path, shape in SHAPES.items()}
    return {path: None if path in absent else leaf for path, leaf in made.items()}


def step(params, grads, state):
    """A step whose warning is checked."""
    absent = [path for path, g in grads.items() if g is None]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report = adafactor.step(params, grads, state)
    messages = [str(warning.message) for warning in caught]
    assert messages == ([f"grads: no gradient for {', '.join(absent)}; left alone"] if absent else [])
    assert all(warning.filename == __file__ for warning in caught)
    return report


def tensors_of(state, path):
    return {kind: tensor.tobytes() for (leaf, kind), tensor in state.tensors().items() if leaf == path}


@pytest.mark.parametrize(
    "knobs", [{}, {"beta_1": 0.9}, {"weight_decay": 0.5}, {"global_clipnorm": 0.1}], ids=str
)
@pytest.mark.parametrize("absent", [("vector",), ("matrix",), ("vector", "slices")], ids="+".join)
def test_the_leaf_is_left_alone(absent, knobs):
    """The others do what they would in a tree without it."""
    params, others = tree(0), {path: p for path, p in tree(0).items() if path not in absent}
    state, others_state = adafactor.init(params, **knobs), adafactor.init(others, **knobs)
    for k in range(2):
        grads = tree(10 + k, absent)
        step(params, grads, state)
        adafactor.step(others, {path: grads[path] for path in others}, others_state)
    for path in SHAPES:
        expected = tree(0)[path] if path in absent else others[path]
        assert snapshots.same_bits([params[path]], [expected])
        expected_state = adafactor.init(tree(0), **knobs) if path in absent else others_state
        assert tensors_of(state, path) == tensors_of(expected_state, path)
    assert (state.iterations, state.calls) == (2, 2)


def test_update_copies_the_leaf():
    params = tree(0)
    with pytest.warns(UserWarning, match="no gradient for matrix; left alone"):
        after, state, report = adafactor.update(params, tree(10, ["matrix"]), adafactor.init(params))
    assert snapshots.same_bits([after["matrix"]], [params["matrix"]])
    assert not np.shares_memory(after["matrix"], params["matrix"])
    assert (state.iterations, report.updated) == (1, True)


@pytest.mark.filterwarnings("error")
def test_a_warning_that_is_an_error_comes_before_anything_is_written():
    params, grads = tree(0), tree(10, ["matrix"])
    state = adafactor.init(params)
    before = snapshots.memory(params.values()), snapshots.of_state(state)
    with pytest.raises(UserWarning, match="no gradient for matrix"):
        adafactor.step(params, grads, state)
    assert (snapshots.memory(params.values()), snapshots.of_state(state)) == before
    assert step(params, grads, state).updated


def test_many_absent_leaves_are_one_short_warning():
    params = [np.ones(2) for _ in range(100)]
    grads = [None] * 99 + [np.ones(2)]
    with pytest.warns(
        UserWarning, match=r"^grads: no gradient for 0, 1, 2 and 96 more; left alone$"
    ) as caught:
        adafactor.step(params, grads, adafactor.init(params))
    assert len(caught) == 1


def test_a_tree_of_one_array():
    params = np.ones(3)
    with pytest.raises(ValueError, match=r"^grads: every gradient is None, expected at least one array$"):
        adafactor.step(params, None, adafactor.init(params))


def late_step(knobs):
    """The moment and the step of a leaf that gets its first gradient, of ones, in the fourth call."""
    params = {"always": np.ones(3), "late": np.ones(3)}
    state = adafactor.init(params, **knobs)
    for _ in range(3):
        step(params, {"always": np.ones(3), "late": None}, state)
    adafactor.step(params, {"always": np.ones(3), "late": np.ones(3)}, state)
    return float(state.tensors()["late", "full"][0]), float(1 - params["late"][0])


def test_the_count_of_a_late_leaf():
    """With the state's count its moments start from zero at t = 4; with its own, from its first gradient."""
    new = 4**-0.8  # 1 - beta2 at t = 4
    knobs = {"learning_rate": 1.0, "clip_threshold": None, "scale_parameter": False}
    moment, moved = late_step(knobs | {"count_updates": "state"})
    assert (moment, moved) == pytest.approx((new, 4**-0.5 * new**-0.5), rel=1e-12)
    moment, moved = late_step(knobs | {"count_updates": "leaf"})
    assert (moment, moved) == pytest.approx((1.0, 1.0), rel=1e-12)


def test_the_average_moves_for_a_leaf_without_a_gradient():
    params = tree(0)
    state = adafactor.init(params, use_ema=True, ema_momentum=0.75)
    step(params, tree(10, ["matrix"]), state)
    average = state.tensors()["matrix", "average"]
    assert snapshots.same_bits([average], [params["matrix"]])
    params["matrix"] += 1
    before = average.copy()
    step(params, tree(11, ["matrix"]), state)
    assert average == pytest.approx(0.75 * before + 0.25 * params["matrix"], rel=1e-6)


def test_the_average_replaces_a_leaf_without_a_gradient():
    params = tree(0)
    state = adafactor.init(params, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2)
    step(params, tree(10, ["matrix"]), state)
    start = params["matrix"].copy()
    params["matrix"] += 1
    step(params, tree(11, ["matrix"]), state)
    assert params["matrix"] == pytest.approx(start + 0.5, abs=1e-6)
    assert snapshots.same_bits([state.tensors()["matrix", "average"]], [params["matrix"]])


@pytest.mark.parametrize("frequency", [None, 2], ids=["average", "overwritten"])
@pytest.mark.parametrize("mode", ["skip", "raise"])
@pytest.mark.parametrize("in_place", [True, False], ids=["step", "update"])
def test_a_bad_gradient_leaves_the_average_of_a_leaf_without_one(mode, frequency, in_place):
    params = tree(0)
    state = adafactor.init(
        params, on_nonfinite=mode, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=frequency
    )
    step(params, tree(10, ["matrix"]), state)
    params["matrix"] += 1
    bad = tree(11, ["matrix"])
    bad["vector"][3] = np.nan
    parameters_before = [p.copy() for p in params.values()]
    state_before = [tensors_of(state, path) for path in SHAPES]
    after = params
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if in_place:
                adafactor.step(params, bad, state)
            else:
                after, _, _ = adafactor.update(params, bad, state)
        except FloatingPointError:
            assert mode == "raise"
    assert snapshots.same_bits(list(after.values()), parameters_before)
    assert snapshots.same_bits(list(params.values()), parameters_before)
    assert [tensors_of(state, path) for path in SHAPES] == state_before


@pytest.mark.parametrize("where", ["first", "updating", "both"])
def test_none_in_a_window_of_accumulation(where):
    """A leaf that got a gradient in the window is updated from it; one that got none is left alone."""
    absent = {"first": [("matrix",), ()], "updating": [(), ("matrix",)], "both": [("matrix",)] * 2}[where]
    knobs = {"gradient_accumulation_steps": 2, "learning_rate": 0.1}
    params = tree(0)
    state = adafactor.init(params, **knobs)
    for k in range(2):
        step(params, tree(10 + k, absent[k]), state)
    assert (state.iterations, state.calls) == (1, 2)
    assert not any(t.any() for (_, kind), t in state.tensors().items() if kind == "accumulator")
    if where == "both":
        assert snapshots.same_bits([params["matrix"]], [tree(0)["matrix"]])
        assert not state.tensors()["matrix", "row"].any()
        return
    expected = tree(0)
    plain = adafactor.init(expected, **knobs)
    for k in range(2):
        grads = tree(10 + k)
        for path in absent[k]:
            grads[path] = np.zeros_like(grads[path])
        adafactor.step(expected, grads, plain)
    assert snapshots.same_bits(params.values(), expected.values())
    assert snapshots.of_state(state)[1] == snapshots.of_state(plain)[1]


def test_a_window_begins_anew_after_the_update():
    """What a leaf got in the last window does not make it a part of this one."""
    params = tree(0)
    state = adafactor.init(params, gradient_accumulation_steps=2)
    for k in range(2):
        adafactor.step(params, tree(10 + k), state)
    before = params["matrix"].copy(), tensors_of(state, "matrix")
    for k in range(2):
        step(params, tree(20 + k, ["matrix"]), state)
    assert snapshots.same_bits([params["matrix"]], [before[0]])
    assert tensors_of(state, "matrix") == before[1]
    assert state.iterations == 2


def test_a_copy_in_the_middle_of_a_window_remembers_who_got_a_gradient():
    params = tree(0)
    state = adafactor.init(params, gradient_accumulation_steps=2)
    adafactor.step(params, tree(10), state)
    other, other_params = state.copy(), {path: p.copy() for path, p in params.items()}
    for tree_, state_ in ((params, state), (other_params, other)):
        step(tree_, tree(11, ["matrix"]), state_)
    assert snapshots.same_bits(params.values(), other_params.values())
    assert not snapshots.same_bits([params["matrix"]], [tree(0)["matrix"]])


def test_another_pattern_of_absent_gradients_is_checked_again():
    """The addresses and strides are those of the call before; which leaf they belong to is not."""
    flat = np.ones(200, np.float32)
    params = {"a": np.ones(4, np.float32), "b": flat[4:104]}
    state = adafactor.init(params)
    with pytest.warns(UserWarning, match="no gradient for b"):
        adafactor.step(params, {"a": flat[:4], "b": None}, state)
    before = snapshots.of_state(state), flat.tobytes()
    with (
        pytest.raises(ValueError, match=r"^params b: shares memory with grads b,"),
        pytest.warns(UserWarning, match="no gradient for a"),
    ):
        adafactor.step(params, {"a": None, "b": flat[:100]}, state)
    assert (snapshots.of_state(state), flat.tobytes()) == before
