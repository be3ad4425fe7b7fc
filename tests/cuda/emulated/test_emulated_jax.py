"""Arrays of JAX on a GPU: no step writes them, and a step reads them as gradients of others' parameters."""

import numpy as np
import pytest

import adafactor
import emulated_gpu
from dlpack_producer import OnTpu
from emulated_gpu import over

VALUES = np.arange(1, 25, dtype=np.float32).reshape(4, 6) / 8
GRADIENT = np.cos(VALUES)


class OfJax(emulated_gpu.Array):
    """What the package sees of one: a class of jaxlib's, and capsules."""

    __module__ = "jaxlib._jax"


def bytes_of(state, *arrays):
    return [array.numpy().tobytes() for array in arrays], {k: a.tobytes() for k, a in state.arrays().items()}


def test_a_state_for_parameters_of_jax_is_refused_with_what_works():
    words = r"^params b: an array of JAX on cuda:0, expected one in the CPU's memory$"
    with pytest.raises(ValueError, match=words):
        adafactor.init({"a": over(VALUES), "b": over(VALUES, OfJax)})


def test_a_parameter_of_jax_is_not_written():
    params, given = over(VALUES), over(VALUES, OfJax)
    state = adafactor.init(params)
    adafactor.step(params, over(GRADIENT), state)
    before = bytes_of(state, params, given)
    with pytest.raises(
        BufferError, match=r"^params: an immutable array, expected an array that can be written"
    ):
        adafactor.step(given, over(GRADIENT), state)
    assert bytes_of(state, params, given) == before
    assert adafactor.step(params, over(GRADIENT), state).updated


def test_a_gradient_of_jax_is_read_on_the_stream_of_the_step():
    params, gradient, expected = over(VALUES), over(GRADIENT, OfJax), VALUES.copy()
    state, of_cpu = adafactor.init(params), adafactor.init(expected)
    for _ in range(3):
        adafactor.step(params, gradient, state)
        adafactor.step(expected, GRADIENT, of_cpu)
    assert params.numpy().tobytes() == expected.tobytes()
    assert set(gradient.streams) == {1}  # the legacy default stream, which CUDA itself calls 0
    assert gradient.numpy().tobytes() == GRADIENT.tobytes()


def test_a_state_in_the_memory_of_the_cpu_takes_no_gradient_on_a_gpu():
    params = VALUES.copy()
    state = adafactor.init(params)
    words = "^grads: an array on cuda:0, expected an array in the CPU's memory$"
    with pytest.raises(ValueError, match=words):
        adafactor.step(params, over(GRADIENT, OfJax), state)
    assert params.tobytes() == VALUES.tobytes()


def test_a_tpu_is_refused_with_what_works():
    words = "an array on tpu:3, expected one in the CPU's memory or on a GPU of NVIDIA$"
    with pytest.raises(ValueError, match=f"^params: {words}"):
        adafactor.init(OnTpu())
    with pytest.raises(ValueError, match=f"^grads: {words}"):
        adafactor.step(over(VALUES), OnTpu(), adafactor.init(over(VALUES)))
