"""While a graph is captured: what is refused, by name and before anything waits, and what goes on beside it.

The device that a CPU stands in for gives up where a stream is given something that captures.
"""

import gc
import pickle

import numpy as np
import pytest

import adafactor
import emulated_gpu
from emulated_gpu import captured, on_stream, over

VALUES = np.arange(1, 25, dtype=np.float32).reshape(4, 6) / 8
GRADIENT = np.cos(VALUES)
IS_CAPTURED = "a CUDA graph is being captured, expected a stream that runs"


def waits():
    return emulated_gpu.device().emulated_waits()


def blocks_taken():
    """Blocks of memory of the device, without those of arrays that nobody has any more."""
    gc.collect()
    return emulated_gpu.device().emulated_blocks()


class Training:
    """A step whose outcome nobody has asked for, on the GPU, and the same on a CPU."""

    def __init__(self, **knobs):
        knobs = {"learning_rate": 0.1, "on_nonfinite": "skip", **knobs}
        self.params, self.gradient, self.expected = over(VALUES), over(GRADIENT), VALUES.copy()
        self.state, self.of_cpu = (adafactor.init(each, **knobs) for each in (self.params, self.expected))
        self.report = self.step()

    def step(self):
        adafactor.step(self.expected, GRADIENT, self.of_cpu)
        return adafactor.step(self.params, self.gradient, self.state)

    def assert_goes_on(self):
        """All is as if nothing had been asked for meanwhile."""
        assert self.report.updated == (self.of_cpu.open_calls == 0)
        self.step()
        assert self.state.calls == self.of_cpu.calls == 2
        assert self.params.numpy().tobytes() == self.expected.tobytes()
        arrays = self.of_cpu.arrays()
        assert {key: array.tobytes() for key, array in self.state.arrays().items()} == {
            key: array.tobytes() for key, array in arrays.items()
        }


STEPS = {
    "step": lambda made: adafactor.step(made.params, made.gradient, made.state),
    "step at a scheduled rate": lambda made: adafactor.step(
        made.params, made.gradient, made.state, learning_rate=lambda call: 0.1 / call
    ),
    "complete": lambda made: made.state.complete_window(made.params),
    "finalize": lambda made: made.state.finalize(made.params),
}


@pytest.mark.parametrize("stream", [None, 0x90], ids=["on the default stream", "on another"])
@pytest.mark.parametrize("ask", STEPS)
def test_a_call_is_refused_before_anybody_waits(ask, stream):
    knobs = {"complete": {"gradient_accumulation_steps": 2}, "finalize": {"use_ema": True}}
    made = Training(**knobs.get(ask, {}))
    before = waits()
    with captured(stream), on_stream(stream or 0):
        for _ in range(2):
            with pytest.raises(RuntimeError, match=f"^step: {IS_CAPTURED}; a replay would make the same"):
                STEPS[ask](made)
    assert waits() == before
    made.assert_goes_on()


@pytest.mark.parametrize("stream", [None, 0x90], ids=["on the default stream", "on another"])
def test_a_call_into_new_arrays_is_refused_too(stream):
    made = Training()
    refused = pytest.raises(RuntimeError, match=rf"^(step|state): {IS_CAPTURED}")
    with captured(stream), on_stream(stream or 0), refused:
        adafactor.update(made.params, made.gradient, made.state)
    made.assert_goes_on()


def test_a_parameter_that_is_no_array_is_named_first():
    made = Training()
    with pytest.raises(TypeError, match="params: object, expected an array"):
        adafactor.step(object(), made.gradient, made.state)
    made.assert_goes_on()


def test_who_looks_waits_beside_the_graph():
    made = Training()
    before = waits()
    with captured(0x90, has_legacy_wait=True):
        assert made.report.updated
        assert made.state.iterations == 1
    assert waits() == before + 1
    made.assert_goes_on()


COPIES = {
    "arrays": lambda made: made.state.arrays(),
    "copy": lambda made: made.state.copy(),
    "pickle": lambda made: pickle.dumps(made.state),
    "drop": lambda made: made.state.drop_window(),
    "restore": lambda made: made.state.restore(1, made.of_cpu.arrays()),
    "init": lambda made: adafactor.init(made.params),
}


@pytest.mark.parametrize("ask", COPIES)
def test_what_needs_the_legacy_stream_is_refused_where_that_would_break_the_graph(ask):
    made = Training(gradient_accumulation_steps=2)
    blocks = blocks_taken()
    with (
        captured(0x90, has_legacy_wait=True),
        pytest.raises(RuntimeError, match=rf"^(copy|state): {IS_CAPTURED}; (copy|make it) outside of the gr"),
    ):
        COPIES[ask](made)
    assert blocks_taken() == blocks
    with captured(0x90):  # by a stream that has nothing to do with it, as those of torch
        COPIES[ask](made)
    if ask in ("drop", "restore"):
        made.of_cpu.drop_window()
        assert made.state.arrays().keys() == made.of_cpu.arrays().keys()
    else:
        made.assert_goes_on()


def test_copies_to_a_stream_that_captures_are_refused():
    array = over(VALUES)
    for stream, has_legacy_wait in ((None, False), (0x90, True)):
        with captured(stream, has_legacy_wait):
            with pytest.raises(RuntimeError, match=f"^copy: {IS_CAPTURED}"):
                adafactor._core.copied_from_device(array)
            with pytest.raises(RuntimeError, match=f"^copy: {IS_CAPTURED}"):
                adafactor._core.copy_to_device(array, GRADIENT)
    assert array.numpy().tobytes() == VALUES.tobytes()


def test_a_graph_that_reads_a_state_gets_it_as_it_is_when_it_asks():
    made = Training()
    before = waits()
    with captured(0x90), on_stream(0x90):
        lent = made.state.tensors()
    assert waits() == before + len(lent)
    assert {key: array.numpy().tobytes() for key, array in lent.items()} == {
        key: array.tobytes() for key, array in made.of_cpu.arrays().items()
    }
    made.assert_goes_on()


def test_a_state_ends_beside_the_graph():
    blocks = blocks_taken()
    made = Training()
    with captured(0x90, has_legacy_wait=True):
        del made
    assert blocks_taken() == blocks
