"""The golden numbers through the library: each row's knobs, presets.keras, and Keras' and t5x' tests."""

import numpy as np
import pytest

import adafactor
from golden import (
    DATA,
    EXPECTED,
    KERAS_KNOBS,
    KNOBS,
    T5X_CASES,
    T5X_KNOBS,
    T5X_NAMES,
    TOLERANCE,
    gradients,
    keras_examples,
    start,
    tolerance,
)


def assert_reproduces(call, config):
    params = start()
    state = adafactor.init(params, config)
    for k in range(3):
        adafactor.step(params, gradients(k, call), state)
    for path, expected in EXPECTED[call].items():
        np.testing.assert_allclose(params[path], expected, rtol=0, atol=tolerance(call))


def test_every_row_is_reproduced():
    assert KNOBS.keys() == EXPECTED.keys()
    assert {call for call in EXPECTED if call.startswith("keras(")} == KERAS_KNOBS.keys()


@pytest.mark.parametrize("call", KNOBS)
def test_knobs_reproduce_the_golden_row(call):
    assert_reproduces(call, adafactor.Config(**KNOBS[call]))


@pytest.mark.parametrize("call", KERAS_KNOBS)
def test_preset_reproduces_the_golden_row_of_keras(call):
    config = adafactor.presets.keras(**KERAS_KNOBS[call])
    assert config == adafactor.Config(**KNOBS[call])
    assert_reproduces(call, config)


@pytest.mark.parametrize("example", keras_examples(), ids=lambda example: example.name)
def test_preset_reproduces_the_test_values_of_keras(example):
    config = adafactor.presets.keras(**example.arguments).replace(exclude_from_weight_decay=example.excluded)
    params = {path: p.copy() for path, p in example.params.items()}
    state = adafactor.init(params, config)
    for g, expected in zip(example.gradients, example.expected, strict=True):
        adafactor.step(params, g, state)
        if expected is not None:
            np.testing.assert_allclose(params["p"], expected["p"], rtol=0, atol=TOLERANCE)


def test_clipnorm_clips_as_keras_does():
    keras = DATA["keras"]["clipnorm"]
    p, g = np.ones(2, np.float32), np.array(keras["g"], np.float32)
    state = adafactor.init(p, adafactor.presets.keras(clipnorm=keras["clipnorm"]))
    adafactor.step(p, g, state)
    # After the first update the second moment is the square of the gradient that the rule has seen.
    np.testing.assert_allclose(np.sqrt(state.tensors()["", "full"]), keras["clipped"], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(("name", "knobs", "moments", "after"), T5X_CASES, ids=lambda x: str(x)[:12])
def test_continues_from_the_moments_of_t5x(name, knobs, moments, after):
    p, g = np.ones((3, 2), np.float32), np.ones((3, 2), np.float32)
    state = adafactor.init(p, **{**T5X_KNOBS, **knobs})
    adafactor.step(p, g, state)
    p[...] = 1
    tensors = state.tensors()
    for kind, value in moments.items():
        tensors["", kind][...] = value
    adafactor.step(p, g, state)
    np.testing.assert_allclose(p, after["p"], rtol=0, atol=TOLERANCE)
    for kind in moments:
        np.testing.assert_allclose(state.tensors()["", kind], after[T5X_NAMES[kind]], rtol=0, atol=TOLERANCE)
