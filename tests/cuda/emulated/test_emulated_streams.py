"""On which streams a call runs on a GPU, and what it waits for there."""

import numpy as np

import adafactor
import emulated_gpu
from emulated_gpu import Array, capsuled, on_stream, over

VALUES = np.arange(1, 25, dtype=np.float32).reshape(4, 6) / 8
GRADIENT = np.cos(VALUES)


def waits():
    return emulated_gpu.device().emulated_waits()


def test_a_call_goes_behind_what_its_stream_was_given_and_before_what_it_is_given_then():
    params, expected = over(VALUES), VALUES.copy()
    gradient = over(np.zeros_like(GRADIENT))
    state, of_cpu = (
        adafactor.init(each, learning_rate=0.1, on_nonfinite="skip") for each in (params, expected)
    )
    with on_stream(0x30):
        for factor in (1, 2):
            params.write(VALUES / factor)
            gradient.write(factor * GRADIENT)
            adafactor.step(params, gradient, state)
            gradient.write(np.nan)
            expected[...] = VALUES / factor
            adafactor.step(expected, factor * GRADIENT, of_cpu)
        assert params.numpy().tobytes() == expected.tobytes()
    assert state.iterations == 2


def test_a_state_that_goes_to_another_stream_waits_for_itself():
    params, expected = over(VALUES), VALUES.copy()
    gradient = over(GRADIENT)
    state, of_cpu = (
        adafactor.init(each, learning_rate=0.1, on_nonfinite="skip") for each in (params, expected)
    )
    for stream in (0x10, 0x20, 0x10):
        with on_stream(stream):
            adafactor.step(params, gradient, state)
        adafactor.step(expected, GRADIENT, of_cpu)
    with on_stream(0x10):
        assert params.numpy().tobytes() == expected.tobytes()


class Elsewhere(Array):
    """Of a library that has a stream of its own."""


def stepped_behind_another_stream():
    """Parameters after a step on one stream, whose gradient another one makes; and what they are on a CPU.

    The last is the state, which would wait for its step when it ends.
    """
    params, expected = over(VALUES), VALUES.copy()
    state, of_cpu = (
        adafactor.init(each, learning_rate=0.1, on_nonfinite="skip") for each in (params, expected)
    )
    with on_stream(0x50):
        gradient = over(GRADIENT, emulated_gpu.exchanging_on(0x50, Elsewhere))
    with on_stream(0x40):
        adafactor.step(params, gradient, state)
    adafactor.step(expected, GRADIENT, of_cpu)
    return params, gradient, expected, state


def test_gradients_of_a_library_on_another_stream_are_waited_for():
    params, _, expected, _state = stepped_behind_another_stream()
    with on_stream(0x40):  # nobody has waited for the other one
        assert params.numpy().tobytes() == expected.tobytes()


def test_what_that_stream_is_given_then_waits_for_the_step():
    params, gradient, expected, _state = stepped_behind_another_stream()
    with on_stream(0x50):
        gradient.write(np.nan)
        gradient.numpy()
    with on_stream(0x40):
        assert params.numpy().tobytes() == expected.tobytes()


def test_a_capsule_is_asked_for_on_the_stream_of_the_call_which_ends_before_it_returns():
    params, gradient = over(VALUES), capsuled(GRADIENT)
    state = adafactor.init(params, on_nonfinite="skip")
    gradient.streams.clear()
    with on_stream(0x60):
        adafactor.step(params, gradient, state)
    before = waits()
    adafactor.step(params, gradient, state)
    assert waits() == before + 1
    assert gradient.streams == [0x60, 1]


def test_a_state_lives_without_the_stream_of_its_last_call():
    params = over(VALUES)
    state = adafactor.init(params, on_nonfinite="skip")
    with on_stream(0x70):
        adafactor.step(params, over(GRADIENT), state)
    assert state.iterations == 1
    emulated_gpu.device().emulated_destroy(0x70)
    kept = state.copy()
    kept.arrays()
    assert adafactor.step(params, over(GRADIENT), state).updated
    del state, kept
