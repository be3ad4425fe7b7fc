"""Memory of a state that a library gives, as torch's allocator does, so that its statistics count it."""

import numpy as np
import pytest

import adafactor
import emulated_gpu
from adafactor import _core
from adafactor.arrays.standard import Namespace
from emulated_gpu import Tensor, on_stream, over

VALUES = np.arange(1, 25, dtype=np.float32).reshape(4, 6) / 8
GRADIENT = np.cos(VALUES)


class Allocator:
    """Gives arrays of zeros, which are written on a stream of the library's.

    Args:
        kind: the class of the arrays.
        index: of their device.
    """

    def __init__(self, kind=emulated_gpu.Exchanged, index=0):
        self.kind, self.index = kind, index
        self.asked = []  # for how many bytes
        self.given = []  # addresses, and where each ends

    def __call__(self, nbytes):
        array = over(np.zeros(-(-nbytes // 4), np.float32), self.kind, index=self.index)
        self.asked.append(nbytes)
        self.given.append((array.address, array.address + array.owner.mirror.nbytes))
        return array

    def has(self, address):
        return any(first <= address < last for first, last in self.given)


@pytest.fixture
def plan():
    return adafactor.init(np.ones_like(VALUES))._engine.core.plan


@pytest.fixture(params=[emulated_gpu.Exchanged, Tensor], ids=["lent", "shown"])
def allocator(request, monkeypatch):
    """What the library of the emulated GPU gives memory by."""
    made = Allocator(request.param)
    monkeypatch.setattr(Namespace, "allocator", lambda library, device: made)
    return made


def own_bytes():
    return emulated_gpu.device().emulated_bytes()


def test_a_state_lies_in_the_memory_of_its_library(allocator):
    params, gradient = over(VALUES), over(GRADIENT)
    before = own_bytes()
    with on_stream(0x70):
        state = adafactor.init(params, learning_rate=0.1)
    assert allocator.asked == [state.nbytes]
    with on_stream(0x80):
        adafactor.step(params, gradient, state)
    assert allocator.asked == [state.nbytes, adafactor.scratch_nbytes(params)]
    assert own_bytes() - before == sum(-(-nbytes // 4) * 4 for nbytes in allocator.asked)
    assert all(allocator.has(array.address) for array in state.tensors().values())
    expected = VALUES.copy()
    of_cpu = adafactor.init(expected, learning_rate=0.1)
    adafactor.step(expected, GRADIENT, of_cpu)
    with on_stream(0x80):
        assert params.numpy().tobytes() == expected.tobytes()
    del state
    assert own_bytes() == before


def test_a_copy_lies_there_too(allocator):
    params = over(VALUES)
    state = adafactor.init(params)
    for made in (state.copy(), adafactor.update(params, over(GRADIENT), state)[1]):
        assert all(allocator.has(array.address) for array in made.tensors().values())
    assert allocator.asked[:2] == [state.nbytes] * 2


def test_scratch_of_a_library_goes_to_the_next_stepper():
    knobs = adafactor.Config(on_nonfinite="skip")
    plan = adafactor.init(np.ones(6, np.float32), knobs)._engine.core.plan
    first, second = Allocator(Tensor), Allocator(Tensor)
    stepper, other = (_core.Stepper(plan, {"full": "v"}, "step", "cuda:0", each) for each in (first, second))
    params, gradient = over(VALUES[0], Tensor), over(GRADIENT[0], Tensor)
    states = [{"v": over(np.zeros(6, np.float32), Tensor), "step": np.zeros((), np.float32)}]
    call = [params], [gradient], states, [(0.1, False)], 1.0, []
    stepper.step(*call)
    other.take_over(stepper)
    del stepper
    before = own_bytes()
    other.step(*call)
    assert (len(first.asked), second.asked) == (1, [])
    assert own_bytes() == before
    other.settle()
    assert states[0]["step"] == 2
    del other
    assert own_bytes() == before - first.given[0][1] + first.given[0][0]


@pytest.mark.parametrize(
    "wrong",
    [Allocator(index=1), lambda nbytes: np.zeros(nbytes, np.float32), lambda nbytes: over(np.zeros(1, "f"))],
    ids=["on another GPU", "on the CPU", "too little"],
)
def test_memory_that_is_not_what_was_asked_for_is_refused(plan, wrong):
    before = own_bytes()
    with pytest.raises(RuntimeError, match="memory of another device, or too little, from the library"):
        _core.State(plan, "cuda:0", wrong)
    assert own_bytes() == before


def test_an_allocator_that_has_no_memory_says_so_in_its_own_words(plan):
    class OutOfMemoryError(RuntimeError):
        """Torch's own is one, too."""

    def give_none(nbytes):
        raise OutOfMemoryError(f"tried to allocate {nbytes} bytes")

    with pytest.raises(OutOfMemoryError, match=f"tried to allocate {plan.state_nbytes} bytes"):
        _core.State(plan, "cuda:0", give_none)
