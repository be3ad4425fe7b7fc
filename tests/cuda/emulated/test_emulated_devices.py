"""Each call runs on the device of its arrays, and leaves the thread's current device as it was.

The device that a CPU stands in for gives up where memory or an event is named that is not the current one's.
"""

import copy
import gc
import pickle

import numpy as np
import pytest

import adafactor
import emulated_gpu
from adafactor import _core
from emulated_gpu import captured, current, on_stream, over

VALUES = np.arange(1, 25, dtype=np.float32).reshape(4, 6) / 8
GRADIENT = np.cos(VALUES)


def blocks_taken():
    """Blocks of memory of the device, without those of arrays that nobody has any more."""
    gc.collect()
    return emulated_gpu.device().emulated_blocks()


@pytest.fixture(params=[(0, 1), (1, 0)], ids=["second is current", "first is current"])
def place(request):
    """Makes arrays on a device while another one is the current one."""
    index, other = request.param
    with current(other):
        yield lambda values, kind=emulated_gpu.Exchanged: over(values, kind, index=index)


def trained(place, **knobs):
    """Parameters on the device, and their state after a step whose outcome nobody has asked for."""
    params = place(VALUES)
    state = adafactor.init(params, learning_rate=0.1, **({"on_nonfinite": "skip"} | knobs))
    adafactor.step(params, place(GRADIENT), state)
    return params, state


LOOKS = {
    "a report": lambda params, state: state._engine.late.updated,
    "a counter": lambda params, state: state.iterations,
    "copy": lambda params, state: state.copy().arrays(),
    "deepcopy": lambda params, state: copy.deepcopy(state).arrays(),
    "pickle": lambda params, state: pickle.loads(pickle.dumps(state)).arrays(),
    "restore": lambda params, state: state.restore(state.calls, state.arrays()),
    "tensors": lambda params, state: [each.numpy() for each in state.tensors().values()],
    "finalize": lambda params, state: state.finalize(params),
    "finalized": lambda params, state: state.finalized(params),
    "update": lambda params, state: adafactor.update(params, over(GRADIENT, index=params.index), state),
    "complete": lambda params, state: state.complete_window(params),
    "drop": lambda params, state: state.drop_window(),
}


@pytest.mark.parametrize("look", LOOKS)
def test_what_is_asked_of_a_state_is_done_on_its_device(place, look):
    knobs = {"gradient_accumulation_steps": 2} if look in ("complete", "drop") else {"use_ema": True}
    params, state = trained(place, **knobs)
    assert {emulated_gpu.device().emulated_device_of(params.address)} == {params.index}
    LOOKS[look](params, state)
    adafactor.step(params, place(GRADIENT), state)


@pytest.mark.parametrize("kind", [emulated_gpu.Exchanged, emulated_gpu.Array], ids=["exchanged", "capsules"])
@pytest.mark.parametrize("on_nonfinite", ["raise", "skip"])
def test_the_bits_are_those_of_a_cpu_on_each_device(place, kind, on_nonfinite):
    params, expected = place(VALUES, kind), VALUES.copy()
    states = [
        adafactor.init(each, learning_rate=0.1, on_nonfinite=on_nonfinite) for each in (params, expected)
    ]
    for factor in (1, 2, 3):
        gradient = np.float32(factor * GRADIENT)
        adafactor.step(params, place(gradient, kind), states[0])
        adafactor.step(expected, gradient, states[1])
    assert params.numpy().tobytes() == expected.tobytes()


def no_memory():
    emulated_gpu.device().emulated_allocate_no_more(True)


def launches_fail():
    emulated_gpu.device().emulated_fail(b"CUDA: an illegal memory access was encountered")


def waits_fail():
    emulated_gpu.device().emulated_fail_awaiting(b"CUDA: an illegal memory access was encountered", False)


@pytest.mark.parametrize("fault", [no_memory, launches_fail, waits_fail])
def test_a_call_that_fails_leaves_the_current_device(place, fault):
    params, gradient = place(VALUES), place(GRADIENT)
    state = adafactor.init(params)
    fault()
    try:
        with pytest.raises((MemoryError, RuntimeError), match=r"no memory|illegal memory access"):
            adafactor.step(params, gradient, state)
    finally:
        emulated_gpu.device().emulated_allocate_no_more(False)
        emulated_gpu.device().emulated_fail(None)
        emulated_gpu.device().emulated_fail_awaiting(None, False)


def test_a_call_that_is_refused_leaves_the_current_device(place):
    params, state = trained(place)
    with pytest.raises(ValueError, match="grads: an array on cuda:"):
        adafactor.step(params, over(GRADIENT, index=1 - params.index), state)
    gradient, words = place(GRADIENT), "a CUDA graph is being captured"
    with captured(0x30), on_stream(0x30), pytest.raises(RuntimeError, match=words):
        adafactor.step(params, gradient, state)
    assert state.iterations == 1


@pytest.mark.parametrize("asks", [False, True])
def test_a_state_is_freed_on_its_device(place, asks):
    blocks = blocks_taken()
    params, state = trained(place)
    if asks:
        assert state.iterations == 1
    del params, state
    assert blocks_taken() == blocks


def test_a_stepper_of_lent_states_works_on_its_device(place):
    knobs, plan = adafactor.Config(on_nonfinite="skip"), None
    blocks = blocks_taken()
    params = place(VALUES[0])
    state = {"variance": place(np.zeros(6, np.float32)), "step": np.zeros((), np.float32)}
    plan = adafactor.init(np.ones(6, np.float32), knobs)._engine.core.plan
    stepper = _core.Stepper(plan, {"full": "variance"}, "step", f"cuda:{params.index}")
    call = ([params], [place(GRADIENT[0])], [state], [(0.1, False)], 1.0, [])
    number = stepper.step(*call)
    other = _core.Stepper(plan, {"full": "variance"}, "step", f"cuda:{params.index}")
    other.take_over(stepper)
    assert stepper.found(number)[0][0]
    other.step(*call)
    del stepper, other, params, call
    state.clear()
    assert blocks_taken() == blocks
