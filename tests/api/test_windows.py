"""The last window of an epoch: an update from the calls that it has had, or none of it."""

import copy
import pickle

import numpy as np
import pytest

import adafactor
import peers
import snapshots

SHAPES = {"w": (5, 21), "b": (21,), "absent": (3,)}
FEATURES = {
    "plain": {},
    "momentum and decay": {"beta_1": 0.9, "weight_decay": 0.1},
    "averages": {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 1},
    "clipped": {"clipvalue": 0.5},
    "scaled": {"loss_scale_factor": 2.0, "maximize": True},
    "a count a leaf": {"count_updates": "leaf"},
}
pytestmark = pytest.mark.filterwarnings("ignore:grads. no gradient for:UserWarning")


def tree(seed):
    generator = np.random.default_rng(seed)
    return {name: generator.standard_normal(shape, np.float32) for name, shape in SHAPES.items()}


def grads(call):
    """One leaf never has a gradient, another in every other call."""
    return tree(100 + call) | {"absent": None} | ({"b": None} if call % 2 else {})


def trained(calls, window, **knobs):
    params = tree(0)
    state = adafactor.init(params, learning_rate=0.1, gradient_accumulation_steps=window, **knobs)
    for call in range(calls):
        adafactor.step(params, grads(call), state)
    return params, state


def copied(params):
    return {name: p.copy() for name, p in params.items()}


@pytest.mark.parametrize("had", [1, 2, 3])
@pytest.mark.parametrize("feature", FEATURES)
def test_an_incomplete_window_is_a_window_of_as_many_calls(feature, had):
    params, state = trained(had, 4, **FEATURES[feature])
    expected, twin = trained(had, None if had == 1 else had, **FEATURES[feature])
    assert (state.open_calls, state.calls, state.iterations) == (had, had, 0)
    report = state.complete_window(params)
    assert (state.open_calls, state.calls, state.iterations) == (0, 4, 1)
    assert report.updated
    assert snapshots.same_bits(params.values(), expected.values())
    arrays = [array for (_, kind), array in state.arrays().items() if kind != "accumulator"]
    others = [array for (_, kind), array in twin.arrays().items() if kind != "accumulator"]
    assert snapshots.same_bits(arrays, others)
    assert state.leaf_updates == twin.leaf_updates
    # The next call begins a window, in which nothing is left of the last.
    assert not any(array.any() for (_, kind), array in state.arrays().items() if kind == "accumulator")
    updated = [adafactor.step(params, grads(call), state).updated for call in range(4)]
    assert updated == [False, False, False, True]


@pytest.mark.parametrize("calls", [4, 5, 7])
def test_a_dropped_window_has_never_been(calls):
    params, state = trained(calls, 4)
    expected, twin = trained(4, 4)
    state.drop_window()
    assert snapshots.of_state(state) == snapshots.of_state(twin)
    for call in range(20, 24):
        adafactor.step(params, grads(call), state)
        adafactor.step(expected, grads(call), twin)
    assert snapshots.same_bits(params.values(), expected.values())
    assert snapshots.of_state(state) == snapshots.of_state(twin)


@pytest.mark.parametrize(("calls", "window"), [(0, 4), (4, 4), (3, None)])
def test_without_an_open_window_nothing_is_done(calls, window):
    params, state = trained(calls, window)
    before, kept = snapshots.of_state(state), snapshots.memory(params.values())
    report = state.complete_window(params)
    state.drop_window()
    assert (report.updated, report.skipped, report.paths) == (False, False, state.paths)
    assert np.isnan(report.grad_norm).all()
    assert len(repr(report).splitlines()) == 2 + len(SHAPES)
    assert (snapshots.of_state(state), snapshots.memory(params.values())) == (before, kept)


def test_the_twin_returns_new_arrays_and_leaves_the_old():
    params, state = trained(2, 4)
    before, kept = snapshots.of_state(state), snapshots.memory(params.values())
    for p in params.values():
        p.flags.writeable = False
    after, new, report = state.completed_window(params)
    assert (snapshots.of_state(state), snapshots.memory(params.values())) == (before, kept)
    with pytest.raises(
        BufferError, match=r"expected an array that can be written \(state.completed_window returns"
    ):
        state.complete_window(params)
    params = copied(params)
    assert repr(state.complete_window(params)) == repr(report)
    assert snapshots.same_bits(after.values(), params.values())
    assert snapshots.of_state(new) == snapshots.of_state(state)


def test_the_twin_is_for_arrays_of_jax():
    jnp = peers.require("jax").numpy
    params = {"w": jnp.ones(3)}
    state = adafactor.init(params, learning_rate=0.1, gradient_accumulation_steps=4)
    params, state, _ = adafactor.update(params, {"w": jnp.ones(3)}, state)
    with pytest.raises(
        BufferError, match=r"^params w: an immutable array, .* \(state.completed_window returns"
    ):
        state.complete_window(params)
    params, state, _ = state.completed_window(params)
    assert params["w"].round(3).tolist() == pytest.approx([0.9] * 3)


def test_the_rate_is_that_of_the_call_that_completes():
    seen = []

    class Seen(adafactor.schedules.LearningRateSchedule):
        def __call__(self, step):
            seen.append(step)
            return 0.25

    params = np.ones(3)
    state = adafactor.init(params, learning_rate=Seen(), gradient_accumulation_steps=3)
    adafactor.step(params, np.ones(3), state)
    assert state.complete_window(params).learning_rate == 0.25
    adafactor.step(params, np.ones(3), state)
    assert seen == [0, 1, 3]


def test_an_open_window_is_saved_and_completed():
    params, state = trained(6, 4)
    others = copied(params)
    saved = pickle.loads(pickle.dumps(copy.deepcopy(state)))
    restored = adafactor.init(others, learning_rate=0.1, gradient_accumulation_steps=4)
    restored.restore(state.calls, state.tensors(), dict(zip(state.paths, state.leaf_updates, strict=True)))
    state.complete_window(params)
    for other in (saved, restored):
        again = copied(others)
        other.complete_window(again)
        assert snapshots.same_bits(again.values(), params.values())
        assert snapshots.of_state(other) == snapshots.of_state(state)


def test_a_state_in_use_is_neither_completed_nor_dropped():
    params, state = trained(2, 4)
    with state._engine.in_use():
        for call in (lambda: state.complete_window(params), state.drop_window):
            with pytest.raises(RuntimeError, match=r"^state in use"):
                call()


def test_the_class_has_both():
    params, optimizer = tree(0), adafactor.Adafactor(learning_rate=0.1, gradient_accumulation_steps=4)
    with pytest.raises(ValueError, match=r"^complete_window: the optimizer is not built yet"):
        optimizer.complete_window()
    with pytest.raises(ValueError, match=r"^drop_window: the optimizer is not built yet"):
        optimizer.drop_window()
    for call in range(3):
        optimizer.apply(grads(call), params)
    expected, twin = tree(0), adafactor.Adafactor(learning_rate=0.1, gradient_accumulation_steps=3)
    for call in range(3):
        twin.apply(grads(call), expected)
    assert optimizer.complete_window().updated
    assert (optimizer.iterations, int(optimizer.variables[0])) == (1, 4)
    assert snapshots.same_bits(params.values(), expected.values())
    optimizer.apply(grads(5))
    optimizer.drop_window()
    assert int(optimizer.variables[0]) == 4
    assert not optimizer.complete_window().updated
