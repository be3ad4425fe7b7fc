"""A state on a GPU: handed out, copied, pickled, taken apart and put together, as one of the CPU."""

import copy
import pickle

import numpy as np
import pytest

import adafactor
import emulated_gpu
from emulated_gpu import Array, Exchanged, over

VALUES = np.arange(1, 25, dtype=np.float32).reshape(4, 6) / 8
GRADIENT = np.cos(VALUES)


class Pair:
    """The same calls on a GPU and on a CPU.

    Args:
        on_device: makes an array of the GPU of one of NumPy.
        **knobs: of both.
    """

    def __init__(self, on_device=over, **knobs):
        self.on_device = on_device
        self.params = {"w": on_device(VALUES), "b": on_device(VALUES[0])}
        self.expected = {"w": VALUES.copy(), "b": VALUES[0].copy()}
        knobs = {"learning_rate": 0.1} | knobs
        self.state = adafactor.init(self.params, **knobs)
        self.of_cpu = adafactor.init(self.expected, **knobs)

    def step(self, factor=1.0):
        """The report of the GPU and that of the CPU."""
        grads = {"w": factor * GRADIENT, "b": factor * GRADIENT[0]}
        there = {path: self.on_device(np.float32(array)) for path, array in grads.items()}
        here = {path: np.float32(array) for path, array in grads.items()}
        return adafactor.step(self.params, there, self.state), adafactor.step(
            self.expected, here, self.of_cpu
        )

    def assert_same(self):
        for path, array in self.expected.items():
            assert self.params[path].numpy().tobytes() == array.tobytes()
        assert_same(self.state, self.of_cpu)


def assert_same(state, other):
    """Two states have the same arrays and the same counters, wherever they lie."""
    arrays = other.arrays()
    assert {key: array.tobytes() for key, array in state.arrays().items()} == {
        key: array.tobytes() for key, array in arrays.items()
    }
    assert (state.iterations, state.calls, state.leaf_updates) == (
        other.iterations,
        other.calls,
        other.leaf_updates,
    )


@pytest.fixture
def pair():
    made = Pair()
    made.step()
    return made


def test_the_arrays_of_a_state_are_lent_where_they_lie(pair):
    lent = pair.state.tensors()
    expected = pair.of_cpu.arrays()
    assert lent.keys() == expected.keys()
    for key, array in lent.items():
        assert isinstance(array, Exchanged)
        assert array.numpy().tobytes() == expected[key].tobytes()
    lent["w", "row"].write(7)
    assert pair.state.arrays()["w", "row"].tolist() == [7] * 4


def test_what_was_lent_keeps_its_memory():
    before = emulated_gpu.device().emulated_blocks()
    params = over(VALUES)
    state = adafactor.init(params)
    row = state.tensors()["", "row"]
    row.write(3)
    del state
    assert row.numpy().tolist() == [3] * 4
    del row, params
    assert emulated_gpu.device().emulated_blocks() == before


@pytest.mark.parametrize("shape", [(4, 6), (700,), (300, 600), (40, 3), (20, 3, 3)])
def test_a_first_step_takes_the_bytes_that_are_foretold(shape):
    params, gradient = over(np.ones(shape, np.float32)), over(np.ones(shape, np.float32))
    before = emulated_gpu.device().emulated_bytes()
    state = adafactor.init(params)
    made = emulated_gpu.device().emulated_bytes()
    assert made - before == state.nbytes == adafactor.state_nbytes(params)
    adafactor.step(params, gradient, state)
    scratch = adafactor.scratch_nbytes(params)
    assert emulated_gpu.device().emulated_bytes() - made == scratch
    assert scratch != adafactor.scratch_nbytes(params.numpy())
    adafactor.step(params, gradient, state)
    assert emulated_gpu.device().emulated_bytes() - made == scratch


def test_arrays_of_numpy_are_copies(pair):
    copies = pair.state.arrays()
    copies["w", "row"][...] = 0
    pair.assert_same()


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, adafactor.State.copy, lambda state: pickle.loads(pickle.dumps(state))]
)
def test_a_copy_goes_on_as_the_state_would(pair, again):
    kept = again(pair.state)
    assert_same(kept, pair.of_cpu)
    before = {path: over(array.numpy()) for path, array in pair.params.items()}
    pair.step()
    grads = {"w": over(GRADIENT), "b": over(GRADIENT[0])}
    adafactor.step(before, grads, kept)
    assert_same(kept, pair.of_cpu)


def test_a_state_is_taken_apart_and_put_together(pair):
    updates = dict(zip(pair.state.paths, pair.state.leaf_updates, strict=True))
    for tensors in (pair.state.tensors(), pair.state.arrays(), pair.of_cpu.arrays()):
        other = adafactor.init(pair.params, pair.state.config)
        other.restore(pair.state.calls, tensors, updates)
        assert_same(other, pair.of_cpu)
        of_cpu = adafactor.init(pair.expected, pair.state.config)
        of_cpu.restore(pair.state.calls, tensors, updates)
        assert_same(of_cpu, pair.of_cpu)


def test_update_writes_to_no_array_and_no_state(pair):
    before = {path: array.numpy() for path, array in pair.params.items()}
    kept = pair.state.copy()
    grads = {"w": over(GRADIENT), "b": over(GRADIENT[0])}
    new, state, report = adafactor.update(pair.params, grads, pair.state)
    assert isinstance(new["w"], Exchanged)
    assert {path: array.numpy().tobytes() for path, array in pair.params.items()} == {
        path: array.tobytes() for path, array in before.items()
    }
    assert_same(pair.state, kept)
    pair.step()
    assert_same(state, pair.of_cpu)
    assert report.updated
    assert new["w"].numpy().tobytes() == pair.expected["w"].tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_averages_are_copied_into_the_parameters(dtype):
    params, expected = over(VALUES.astype(dtype)), VALUES.astype(dtype)
    state, of_cpu = (adafactor.init(each, learning_rate=0.1, use_ema=True) for each in (params, expected))
    for _ in range(2):
        adafactor.step(params, over(GRADIENT), state)
        adafactor.step(expected, GRADIENT, of_cpu)
    kept = state.finalized(params)
    state.finalize(params)
    of_cpu.finalize(expected)
    assert params.numpy().tobytes() == expected.tobytes() == kept.numpy().tobytes()


def test_a_window_of_accumulation_is_completed_or_dropped():
    pair = Pair(gradient_accumulation_steps=3)
    for factor in (1, 2):
        pair.step(factor)
    assert pair.state.open_calls == 2
    kept, of_cpu = pair.state.copy(), pair.of_cpu.copy()
    assert pair.state.complete_window(pair.params).updated
    assert pair.of_cpu.complete_window(pair.expected).updated
    pair.assert_same()
    kept.drop_window()
    of_cpu.drop_window()
    assert_same(kept, of_cpu)


def test_a_leaf_without_a_gradient_is_left_alone():
    pair = Pair()
    with pytest.warns(UserWarning, match="no gradient for b"):
        adafactor.step(pair.params, {"w": over(GRADIENT), "b": None}, pair.state)
    with pytest.warns(UserWarning, match="no gradient for b"):
        adafactor.step(pair.expected, {"w": GRADIENT, "b": None}, pair.of_cpu)
    pair.assert_same()


def test_a_tree_of_a_library_that_has_capsules_alone():
    pair = Pair(emulated_gpu.capsuled)
    for _ in range(2):
        found, expected = pair.step()
        assert found.as_dict() == expected.as_dict()
    pair.assert_same()
    assert isinstance(pair.state.tensors()["w", "row"], Array)


def test_a_library_without_a_namespace_gets_the_piece(monkeypatch):
    monkeypatch.delattr(Array, "__array_namespace__")
    params = over(VALUES)
    state = adafactor.init(params)
    adafactor.step(params, over(GRADIENT), state)
    piece = state.tensors()["", "row"]
    assert emulated_gpu.from_dlpack(piece).numpy().tobytes() == state.arrays()["", "row"].tobytes()


def test_pieces_are_lent_as_the_protocol_says(pair):
    piece = pair.state._engine.core.piece(0, "row")
    assert piece.__dlpack_device__() == (2, 0)
    assert '"dltensor"' in repr(piece.__dlpack__())
    assert '"dltensor_versioned"' in repr(piece.__dlpack__(max_version=(1, 0), stream=-1, dl_device=(2, 0)))
    for wrong in ({"copy": True}, {"dl_device": (1, 0)}):
        with pytest.raises(BufferError, match="lent where it lies"):
            piece.__dlpack__(**wrong)
    with pytest.raises(KeyError):
        pair.state._engine.core.piece(0, "odd")
    assert pair.state._engine.core.piece(0, "momentum") is None
    with pytest.raises(ValueError, match="expected one on a device"):
        pair.of_cpu._engine.core.piece(0, "row")
