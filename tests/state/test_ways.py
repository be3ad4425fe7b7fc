"""A state that went out by one way and in by another goes on as if it had never left, bit for bit."""

import copy
import io
import itertools
import pickle

import numpy as np
import pytest

import adafactor
import saved
from adafactor.optimizer.weights import restore, weights
from adafactor.schedules import CosineDecay

STATES = saved.STATES | {
    "plain": {"learning_rate": 0.1},
    "window of averages": {"gradient_accumulation_steps": 4, "use_ema": True, "count_updates": "leaf"},
    "schedule": {"learning_rate": CosineDecay(0.1, 20), "beta_1": 0.9, "weight_decay": 0.01},
}


def like(state):
    """A fresh state of the same parameters and knobs."""
    return adafactor.init(saved.numbers(0), state.config)


def through_tensors(state):
    other = like(state)
    other.restore(state.calls, state.tensors(), state.leaf_updates)
    return other


def through_a_file_of_arrays(state):
    file = io.BytesIO()
    arrays = {f"{kind} {path}": array for (path, kind), array in state.arrays().items()}
    bits = {key: a.view(np.uint16) if a.itemsize == 2 else a for key, a in arrays.items()}
    np.savez(file, calls=state.calls, updates=state.leaf_updates, **bits)
    file.seek(0)
    with np.load(file) as held:
        calls, updates = held["calls"], dict(zip(state.paths, held["updates"], strict=True))
        names = set(held.files) - {"calls", "updates"}
        tensors = {tuple(name.split(" ", 1)[::-1]): held[name] for name in names}
    other = like(state)
    other.restore(calls, tensors, updates)
    return other


def through_a_list(state):
    other = like(state)
    restore(other, [array.copy() for array in weights(state)], "weights")
    return other


WAYS = {
    "copy": adafactor.State.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda state: pickle.loads(pickle.dumps(state)),
    "tensors": through_tensors,
    "file": through_a_file_of_arrays,
    "list": through_a_list,
}


def after_three_more(params, state):
    params = copy.deepcopy(params)
    for call in range(3):
        adafactor.step(params, saved.numbers(100 + call), state)
    leaves = [params["dense/kernel"], params["dense"]["bias"], params["convolution"], params["number"]]
    arrays = [array.tobytes() for array in state.arrays().values()]
    return [leaf.tobytes() for leaf in leaves], arrays, state.calls, state.iterations, state.leaf_updates


@pytest.mark.parametrize("name", STATES)
def test_a_state_goes_on_after_any_two_ways(name):
    params, state = saved.trained(STATES[name])
    expected = after_three_more(params, state.copy())
    for (first, out), (second, back) in itertools.product(WAYS.items(), repeat=2):
        assert after_three_more(params, back(out(state))) == expected, (first, second)


def test_a_snapshot_is_not_written_by_later_calls():
    params, state = saved.trained(STATES["plain"])
    kept, arrays = state.__getstate__(), [array.tobytes() for array in state.arrays().values()]
    adafactor.step(params, saved.numbers(0), state)
    assert [array.tobytes() for array in state.arrays().values()] != arrays
    other = adafactor.State.__new__(adafactor.State)
    other.__setstate__(kept)
    assert [array.tobytes() for array in other.arrays().values()] == arrays
    assert other.calls == saved.CALLS


def test_nothing_goes_in_where_a_rate_does_not():
    _, state = saved.trained(STATES["plain"])
    before = pickle.dumps(state)
    values = weights(state)
    values[1] = np.array(-1.0)
    values[2] = values[2] + 1
    with pytest.raises(ValueError, match=r"^weights\[1\] \(learning_rate\): "):
        restore(state, values, "weights")
    assert pickle.dumps(state) == before
