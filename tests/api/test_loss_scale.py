"""DynamicLossScale: the sequence of Keras' LossScaleOptimizer, and what it does to a step."""

import copy
import json
import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import adafactor
import snapshots
from peers import require

# The sequences are short enough to stay within these bounds, which Keras lacks.
UNBOUNDED = {"floor": 2.0**-126, "ceiling": 2.0**126}


def numbers(shape, seed):
    return np.asarray(np.random.default_rng(seed).standard_normal(shape), np.float32)


def tree(seed):
    return {"w": numbers((4, 3), seed), "b": numbers(3, seed + 1)}


@settings(max_examples=25, deadline=None)
@given(
    overflows=st.lists(st.sampled_from([None, None, None, np.inf, -np.inf, np.nan]), min_size=1, max_size=30),
    growth=st.integers(1, 6),
    initial=st.sampled_from([2.0**15, 400.0, 2.0, 0.375]),
    nonfinite=st.sampled_from(["raise", "skip"]),
)
def test_follows_keras_over_drawn_patterns_of_overflow(overflows, growth, initial, nonfinite):
    """The scale and the counter bit for bit, the parameters as closely as the step follows Keras."""
    keras = require("keras")
    params, peers = tree(0), [keras.Variable(p) for p in tree(0).values()]
    state = adafactor.init(params, adafactor.presets.keras(learning_rate=0.1, on_nonfinite=nonfinite))
    ours = adafactor.DynamicLossScale(initial, growth, **UNBOUNDED)
    inner = keras.optimizers.Adafactor(learning_rate=0.1)
    theirs = keras.optimizers.LossScaleOptimizer(inner, initial, growth)
    theirs.build(peers)
    for call, overflow in enumerate(overflows):
        assert ours.scale_loss(1.0) == float(theirs.scale_loss(1.0))
        # Both are handed the same scaled gradients, some of which are beyond float32.
        grads = {name: np.asarray(ours.scale_loss(g), np.float32) for name, g in tree(10 + call).items()}
        if overflow is not None:
            grads["b"][call % 3] = overflow
        report = ours.step(params, grads, state)
        with np.errstate(invalid="ignore"):
            theirs.apply(list(grads.values()))
        assert report.skipped == (overflow is not None)
        assert ours.scale == float(theirs.dynamic_scale.value)
        assert ours.counter == int(theirs.step_counter.value)
        assert state.calls == int(inner.iterations.value)
    for p, peer in zip(params.values(), peers, strict=True):
        # Two float32 computations in different orders, at most thirty updates long. Measured: 7e-7.
        assert p == pytest.approx(np.asarray(peer.value), rel=0, abs=5e-6)


def test_keras_counts_of_halving_and_doubling():
    """Four overflows take 400 to 25; with growth in steps of two, eight good calls take 2 to 32."""
    falling = adafactor.DynamicLossScale(initial_scale=400.0)
    rising = adafactor.DynamicLossScale(initial_scale=2.0, dynamic_growth_steps=2)
    for _ in range(4):
        falling.advance(False)
    for _ in range(8):
        rising.advance(True)
    assert (falling.scale_loss(1.0), rising.scale_loss(1.0)) == (25.0, 32.0)


def test_doubles_after_two_thousand_good_calls():
    loss_scale = adafactor.DynamicLossScale()
    for _ in range(1999):
        loss_scale.advance(True)
    assert (loss_scale.scale, loss_scale.counter) == (2.0**15, 1999)
    loss_scale.advance(True)
    assert (loss_scale.scale, loss_scale.counter) == (2.0**16, 0)


def test_stays_between_floor_and_ceiling():
    loss_scale = adafactor.DynamicLossScale(3.0, 1, floor=1.0, ceiling=10.0)
    seen = []
    for finite in (True, True, True, False, False, False, False, True):
        loss_scale.advance(finite)
        seen.append(loss_scale.scale)
    assert seen == [6.0, 10.0, 10.0, 5.0, 2.5, 1.25, 1.0, 2.0]
    loss_scale.advance(False)
    assert loss_scale.scale == 1.0


def test_at_its_floor_it_says_that_nothing_more_can_be_done():
    params = {"w": np.ones(3, np.float32)}
    state = adafactor.init(params)
    loss_scale = adafactor.DynamicLossScale(2.0)
    grads = {"w": np.full(3, np.inf, np.float32)}
    assert loss_scale.step(params, grads, state).skipped  # 2 has become 1, without a word
    for call in (lambda: loss_scale.step(params, grads, state), lambda: loss_scale.advance(False)):
        with pytest.warns(
            UserWarning, match=r"^loss scale: at its floor, 1, and a gradient is not"
        ) as caught:
            call()
        assert [each.filename for each in caught] == [__file__]
    assert loss_scale.get_state() == {"scale": 1.0, "counter": 0}
    assert state.calls == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scaled_gradients_make_the_same_step_bit_for_bit(dtype):
    """The scale is a power of two, which changes no digit of a gradient."""
    plain, scaled = ({name: p.astype(dtype) for name, p in tree(0).items()} for _ in range(2))
    states = [adafactor.init(plain, learning_rate=0.1) for _ in range(2)]
    loss_scale = adafactor.DynamicLossScale(dynamic_growth_steps=2)
    for call in range(6):
        grads = {name: g.astype(dtype) for name, g in tree(10 + call).items()}
        adafactor.step(plain, grads, states[0], grad_multiplier=0.5)
        grads = {name: np.asarray(loss_scale.scale_loss(g), dtype) for name, g in grads.items()}
        assert loss_scale.step(scaled, grads, states[1], grad_multiplier=0.5).updated
    assert loss_scale.scale == 2.0**18
    assert snapshots.same_bits(plain.values(), scaled.values())
    assert snapshots.of_state(states[0]) == snapshots.of_state(states[1])


@pytest.mark.parametrize("knobs", [{}, {"on_nonfinite": "skip"}, {"gradient_accumulation_steps": 2}])
def test_an_overflow_skips_the_whole_call(knobs):
    params = tree(0)
    state = adafactor.init(params, **knobs)
    loss_scale = adafactor.DynamicLossScale(dynamic_growth_steps=3)
    loss_scale.step(params, tree(1), state)
    before = snapshots.memory(params.values()), snapshots.of_state(state)
    report = loss_scale.step(params, tree(2) | {"b": np.full(3, np.inf, np.float32)}, state)
    assert (report.skipped, report.updated, report.nonfinite.tolist()) == (True, False, [False, True])
    assert (snapshots.memory(params.values()), snapshots.of_state(state)) == before
    assert (loss_scale.scale, loss_scale.counter) == (2.0**14, 0)
    if not knobs:
        with pytest.raises(FloatingPointError):
            adafactor.step(params, tree(2) | {"b": np.full(3, np.inf, np.float32)}, state)


def test_drives_update_by_its_scale():
    params = tree(0)
    state = adafactor.init(params, on_nonfinite="skip")
    loss_scale = adafactor.DynamicLossScale()
    for bad in (False, True, False):
        grads = {name: np.asarray(loss_scale.scale_loss(g), np.float32) for name, g in tree(1).items()}
        grads["b"][0] *= np.float32(np.inf if bad else 1)
        multiplier = 1 / loss_scale.scale
        params, state, report = adafactor.update(params, grads, state, grad_multiplier=multiplier)
        loss_scale.advance(not report.skipped)
    assert (state.iterations, loss_scale.scale, loss_scale.counter) == (2, 2.0**14, 1)


def test_the_learning_rate_of_a_call_is_handed_on():
    params = tree(0)
    state = adafactor.init(params)
    assert adafactor.DynamicLossScale().step(params, tree(1), state, learning_rate=0.25).learning_rate == 0.25


def test_a_call_that_fails_leaves_the_scale():
    params = tree(0)
    state = adafactor.init(params)
    loss_scale = adafactor.DynamicLossScale(dynamic_growth_steps=1)
    loss_scale.advance(False)
    before = loss_scale.get_state(), snapshots.memory(params.values()), snapshots.of_state(state)
    for arguments, error, message in (
        (
            (params, tree(1), params),
            TypeError,
            r"^state: dict, expected what adafactor.init\(params\) returned$",
        ),
        ((params, {"w": tree(1)["w"]}, state), ValueError, r"^grads b: missing$"),
        (
            (params, tree(1), adafactor.init(params, on_nonfinite="propagate")),
            ValueError,
            r'^on_nonfinite: "propagate" hides an overflow, expected "skip" or "raise"$',
        ),
        (
            (params, tree(1), adafactor.init(params, loss_scale_factor=2.0)),
            ValueError,
            r"^loss_scale_factor: the gradients would be divided twice, expected None$",
        ),
    ):
        with pytest.raises(error, match=message):
            loss_scale.step(*arguments)
    with pytest.raises(TypeError, match=r"^grad_multiplier: '2', expected a number$"):
        loss_scale.step(params, tree(1), state, grad_multiplier="2")
    after = loss_scale.get_state(), snapshots.memory(params.values()), snapshots.of_state(state)
    assert after == before


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"initial_scale": 0}, ValueError, r"^initial_scale: 0, expected a number from 1 to 8.50706e\+37$"),
        ({"initial_scale": math.inf}, ValueError, r"^initial_scale: inf, expected a number from 1"),
        ({"initial_scale": math.nan}, ValueError, r"^initial_scale: nan, expected a number from 1"),
        ({"initial_scale": "8"}, TypeError, r"^initial_scale: '8', expected a number$"),
        ({"dynamic_growth_steps": 0}, ValueError, r"^dynamic_growth_steps: 0, expected a whole number >= 1$"),
        ({"dynamic_growth_steps": 2.5}, TypeError, r"^dynamic_growth_steps: 2.5, expected a whole number$"),
        ({"floor": 0.0}, ValueError, r"^floor: 0.0, expected a finite number > 0$"),
        ({"floor": 4.0, "ceiling": 2.0}, ValueError, r"^ceiling: 2.0, expected a finite number of at least"),
        ({"ceiling": math.inf}, ValueError, r"^ceiling: inf, expected a finite number of at least floor"),
        ({"floor": 2.0**16}, ValueError, r"^initial_scale: 32768.0, expected a number from 65536 to"),
    ],
)
def test_bad_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        adafactor.DynamicLossScale(**arguments)


COPIES = {
    "state": lambda scale: [
        other := adafactor.DynamicLossScale.from_config(json.loads(json.dumps(scale.get_config()))),
        other.set_state(json.loads(json.dumps(scale.get_state()))),
    ][0],
    "pickle": lambda scale: pickle.loads(pickle.dumps(scale)),
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
}


@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
def test_a_copy_goes_on_the_same(make):
    scale = adafactor.DynamicLossScale(64.0, 3, floor=8.0, ceiling=256.0)
    pattern = [False, True, True, True, True, False, True]
    for finite in pattern:
        scale.advance(finite)
    other = make(scale)
    before = scale.get_state()
    for finite in pattern:
        other.advance(finite)
    assert scale.get_state() == before
    for finite in pattern:
        scale.advance(finite)
    assert (other.get_state(), other.get_config()) == (scale.get_state(), scale.get_config())


def test_a_state_that_it_cannot_have_is_refused():
    scale = adafactor.DynamicLossScale(dynamic_growth_steps=5)
    for state, error, message in (
        ({"scale": 2.0}, ValueError, r"^state: keys \['scale'\], expected \['counter', 'scale'\]$"),
        ({"scale": 0.5, "counter": 0}, ValueError, r"^scale: 0.5, expected a number from 1 to"),
        ({"scale": 2.0, "counter": 5}, ValueError, r"^counter: 5, expected a whole number from 0 to 4$"),
        ({"scale": 2.0, "counter": -1}, ValueError, r"^counter: -1, expected a whole number from 0 to 4$"),
        ({"scale": 2.0, "counter": 1.0}, TypeError, r"^counter: 1.0, expected a whole number$"),
    ):
        with pytest.raises(error, match=message):
            scale.set_state(state)
        assert scale.get_state() == {"scale": 2.0**15, "counter": 0}


def test_the_scale_is_set_by_its_state_alone():
    scale = adafactor.DynamicLossScale()
    for name in ("scale", "counter"):
        with pytest.raises(AttributeError):
            setattr(scale, name, 1)
