"""The arrays of an optimizer: known by themselves, and by their memory while nothing else lies there."""

import gc
import warnings

import numpy as np
import pytest

import adafactor
from peers import require


def ones(*shape):
    return np.ones(shape, np.float32)


def view_of(array):
    return array[...]


def test_arrays_without_elements_are_different_ones_though_they_lie_nowhere():
    empty = [np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32), np.zeros((3, 0), np.float32)]
    w = ones(2, 2)
    optimizer = adafactor.Adafactor()
    optimizer.build([*empty, w])
    assert optimizer.apply([ones(2, 2), *map(np.zeros_like, empty[::-1])], [w, *empty[::-1]]) == 1
    with pytest.raises(ValueError, match=r"^trainable_variables 1: unknown to the optimizer"):
        optimizer.apply([ones(2, 2), ones(0, 3)], [w, np.zeros((0, 3), np.float32)])


def test_a_view_is_found_by_its_memory_as_it_lies_now():
    torch = require("torch")
    p, q = torch.zeros(4), torch.ones(4)
    optimizer = adafactor.Adafactor(learning_rate=0.5)
    optimizer.build([p, q])
    p.data, q.data = q.data, p.data  # each where the other was
    optimizer.apply([torch.ones(4)], [p.detach()])
    assert (p < 1).all()
    assert (q == 0).all()


def test_memory_that_an_array_has_left_is_not_known_any_more():
    torch = require("torch")
    p = torch.zeros(4)
    optimizer = adafactor.Adafactor()
    optimizer.build([p])
    before = p.data
    p.data = torch.ones(4)
    with pytest.raises(ValueError, match=r"^trainable_variables 0: unknown to the optimizer"):
        optimizer.apply([torch.ones(4)], [before])
    assert (before == 0).all()


def test_an_array_is_known_after_its_memory_has_moved():
    w = ones(64)
    optimizer = adafactor.Adafactor(learning_rate=0.5)
    optimizer.build([w])
    w.resize(1 << 20, refcheck=False)
    w.resize(64, refcheck=False)
    assert optimizer.apply([ones(64)], [w]) == 1
    assert (w < 1).all()


# Arrays that the model has no more.


def built(arrays):
    optimizer = adafactor.Adafactor(learning_rate=0.5)
    optimizer.build(arrays)
    return optimizer


@pytest.mark.parametrize("library", ["numpy", "torch", "torch.nn.Parameter"])
def test_apply_says_that_nobody_sees_the_update(library):
    if library == "numpy":
        make = ones
    else:
        torch = require("torch")
        make = torch.ones if library == "torch" else lambda *shape: torch.nn.Parameter(torch.ones(*shape))
    model = {"w": make(2, 3), "b": make(3)}
    optimizer = built(model)
    grads = {"w": ones(2, 3), "b": ones(3)}
    optimizer.apply(grads)
    model["w"] = make(2, 3)
    gc.collect()
    with pytest.warns(UserWarning, match="^variables w: nobody but the optimizer has these arrays") as seen:
        optimizer.apply(grads)
    assert seen[0].filename == __file__
    optimizer.build(model)
    optimizer.apply(grads)
    assert (np.asarray(model["w"].detach() if library != "numpy" else model["w"]) < 1).all()


def test_nothing_is_said_where_somebody_may_see_it():
    flat = ones(12)
    torch = require("torch")
    module = torch.nn.Linear(3, 2)
    over_numpy = ones(4)
    for arrays in (
        [flat[:6].reshape(2, 3), flat[6:]],
        [p.detach() for p in module.parameters()],
        [p.data for p in module.parameters()],
        [torch.from_numpy(over_numpy)],
        [memoryview(ones(3))],
    ):
        optimizer = built(arrays)
        grads = [ones(*np.shape(np.asarray(getattr(a, "detach", lambda a=a: a)()))) for a in arrays]
        del arrays
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            optimizer.apply(grads)


def test_variables_that_are_handed_in_are_seen():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adafactor.Adafactor().apply([ones(3)], [ones(3)])
