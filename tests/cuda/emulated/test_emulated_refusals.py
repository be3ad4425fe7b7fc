"""What is refused of arrays on a GPU, by name and before a byte is written."""

import ml_dtypes
import numpy as np
import pytest

import adafactor
import emulated_gpu
import scripts
from adafactor import _core
from dlpack_producer import ROCM, Producer
from emulated_gpu import over

VALUES = np.arange(1, 25, dtype=np.float32).reshape(4, 6) / 8
GRADIENT = np.cos(VALUES)


def misaligned(values):
    """One byte beyond a multiple of the item's size, which a CPU loads and a GPU does not."""
    return over(values, shift=1)


def on_another(values):
    return over(values, index=1)


CALLS = {
    "a gradient in the CPU's memory": (
        lambda: (over(VALUES), GRADIENT),
        ValueError,
        "grads: an array in the CPU's memory, expected an array on cuda:0",
    ),
    "a gradient on another GPU": (
        lambda: (over(VALUES), on_another(GRADIENT)),
        ValueError,
        "grads: an array on cuda:1, expected an array on cuda:0",
    ),
    "a misaligned gradient": (
        lambda: (over(VALUES), misaligned(GRADIENT)),
        BufferError,
        "grads: a misaligned array, expected elements at multiples of their size",
    ),
    "a misaligned parameter": (
        lambda: (misaligned(VALUES), over(GRADIENT)),
        BufferError,
        "params: a misaligned array",
    ),
    "a gradient of another shape": (
        lambda: (over(VALUES), over(GRADIENT.T)),
        ValueError,
        r"grads: shape \(6, 4\), expected \(4, 6\)",
    ),
    "a gradient of another dtype": (
        lambda: (over(VALUES), over(GRADIENT.astype(np.float64))),
        TypeError,
        "grads: dtype float64",
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_refused(name):
    make, error, words = CALLS[name]
    params, gradient = make()
    state = adafactor.init(params)
    before, arrays = params.numpy().tobytes(), {key: a.tobytes() for key, a in state.arrays().items()}
    with pytest.raises(error, match=words):
        adafactor.step(params, gradient, state)
    assert params.numpy().tobytes() == before
    assert {key: a.tobytes() for key, a in state.arrays().items()} == arrays
    assert adafactor.step(over(VALUES), over(GRADIENT), state).updated


def test_a_state_of_the_cpu_takes_no_array_of_a_gpu():
    state = adafactor.init(VALUES.copy())
    words = "params: an array on cuda:0, expected an array in the CPU's memory"
    with pytest.raises(ValueError, match=words):
        adafactor.step(over(VALUES), GRADIENT, state)


@pytest.mark.parametrize("make", [on_another, np.array])
def test_a_tree_on_several_devices_is_refused(make):
    found = "cuda:1" if make is on_another else "cpu"
    words = f"params b: an array on {found}, expected all on one device, as params a on cuda:0"
    with pytest.raises(ValueError, match=words):
        adafactor.init({"a": over(VALUES), "b": make(VALUES)})


def test_a_device_of_another_maker_is_refused_with_those_that_work():
    words = r"^params: an array on rocm:1 \(of AMD\), expected one in the CPU's memory or on a GPU of NVIDIA$"
    with pytest.raises(ValueError, match=words):
        adafactor.init(Producer(VALUES, device_kind=ROCM, device_index=1))


def test_a_state_lies_where_its_parameters_do():
    params = on_another(VALUES)
    state = adafactor.init(params)
    adafactor.step(params, on_another(GRADIENT), state)
    expected = VALUES.copy()
    adafactor.step(expected, GRADIENT, adafactor.init(expected))
    assert params.numpy().tobytes() == expected.tobytes()


def test_memory_that_is_shared_is_found():
    params = over(VALUES)
    with pytest.raises(ValueError, match="params: shares memory with grads"):
        adafactor.step(params, params, adafactor.init(params))
    with pytest.raises(BufferError, match="some elements share memory"):
        adafactor.step(over(np.broadcast_to(VALUES[0], (4, 6))), over(GRADIENT), adafactor.init(over(VALUES)))


def test_a_gradient_that_is_the_state_is_found():
    params = over(VALUES[0])
    state = adafactor.init(params)
    with pytest.raises(ValueError, match="grads: shares memory with the state"):
        adafactor.step(params, state.tensors()["", "full"], state)


@pytest.mark.parametrize("stream", [None, 0x90], ids=["of the parameters", "of a gradient"])
def test_a_graph_that_is_captured_is_refused(stream):
    library = emulated_gpu.exchanging_on(stream, emulated_gpu.Array)
    params, gradient = over(VALUES), over(GRADIENT, library)
    state = adafactor.init(params)
    words = "step: a CUDA graph is being captured"
    with emulated_gpu.captured(stream), pytest.raises(RuntimeError, match=words):
        adafactor.step(params, gradient, state)
    assert params.numpy().tobytes() == VALUES.tobytes()
    assert adafactor.step(params, gradient, state).updated


def test_an_array_of_a_gpu_is_none_of_numpy():
    with pytest.raises(_core.Error, match="an array on cuda:0, expected one in the CPU's memory"):
        _core.numpy_view(over(VALUES))
    with pytest.raises(_core.Error, match="one in the CPU's memory, expected an array on a device"):
        _core.copied_from_device(VALUES)


def test_values_are_copied_to_arrays_of_any_strides():
    bits = VALUES.astype(ml_dtypes.bfloat16)
    array = over(np.zeros_like(bits))
    _core.copy_to_device(array, bits.view(np.uint16))
    assert array.numpy().tobytes() == bits.tobytes()
    assert _core.copied_from_device(array).tobytes() == bits.tobytes()
    wide = np.zeros((4, 12, 3), np.float32)
    for view in (wide[..., 0], wide[::-1, ::2, 1], wide[0].T, VALUES.T.copy().T, VALUES[0, 0]):
        array = over(view)
        values = np.arange(1, 1 + view.size, dtype=np.float32).reshape(view.shape)
        _core.copy_to_device(array, values)
        assert array.numpy().tolist() == values.tolist()
        assert _core.copied_from_device(array).tolist() == values.tolist()
    with pytest.raises(ValueError, match="of another size"):
        _core.copy_to_device(over(VALUES), VALUES[0])


def test_what_is_far_apart_is_copied_without_what_lies_between():
    """So that a gradient with a NaN is named with what it has, however far its rows are apart."""
    rows = np.lib.stride_tricks.as_strided(np.zeros(2**26 + 8, np.float32), (2, 6), (2**28 + 4, 4))
    rows[...] = VALUES[:2]
    rows[1, 2] = np.nan
    params, gradient = over(VALUES[:2]), over(rows)
    copied = _core.copied_from_device(gradient)
    assert copied.strides == (24, 4)
    assert copied.tobytes() == rows.tobytes()
    with pytest.raises(FloatingPointError, match=r"^grads: 1 NaN and 0 Inf of 12 values;"):
        adafactor.step(params, gradient, adafactor.init(params))
    assert params.numpy().tobytes() == VALUES[:2].tobytes()


@pytest.mark.parametrize("device", ["tpu:0", "cuda:", "cuda:x", "cuda:1x"])
def test_a_word_that_names_no_device_is_refused(device):
    plan = adafactor.init(VALUES.copy())._engine.core.plan
    with pytest.raises(ValueError, match="device: cpu, or cuda: and a number"):
        _core.State(plan, device)


def test_what_is_there_is_said():
    info = adafactor.build_info()["cuda"]
    assert info["toolkit"] == "a CPU that stands in for a GPU"
    assert (info["driver"], info["devices"], info["missing"]) == ("13.0", 2, None)


FORKED = """
import os
import numpy as np
import adafactor
from emulated_gpu import over

params, gradient = over(np.ones((4, 6), np.float32)), over(np.ones((4, 6), np.float32))
state = adafactor.init(params)
adafactor.step(params, gradient, state)
child = os.fork()
if child == 0:
    try:
        adafactor.step(params, gradient, state)
    except RuntimeError as error:
        os._exit(7 if "forked off from one that had used it" in str(error) else 1)
    os._exit(2)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
adafactor.step(params, gradient, state)
found = code, state.iterations
"""


def test_a_gpu_is_not_used_after_a_fork():
    assert scripts.found_by(FORKED) == [7, 2]
