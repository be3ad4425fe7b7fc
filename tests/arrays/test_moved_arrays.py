"""Arrays that come back: what a step remembers of where they lay, and never that they were wrong there."""

import pickle
import warnings

import numpy as np
import pytest

import adafactor
from adafactor.arrays import as_numpy
from array_libraries import MUTABLE, bits, drawn, torch


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_what_was_refused_is_refused_again_and_what_moved_is_looked_at_anew(library):
    """A step remembers where arrays lay, and never that they were wrong there."""
    make = MUTABLE[library]
    ours, plain = make(drawn((4, 4))), drawn((4, 4))
    gradient = make(drawn((4, 4), seed=2))
    state, same = adafactor.init(ours), adafactor.init(plain)

    def steps(given):
        adafactor.step(ours, given, state)
        adafactor.step(plain, np.array(as_numpy(given)), same)
        assert bits(ours) == bits(plain)

    steps(gradient)
    steps(gradient)
    # At the same address: other strides, other shapes, other types, and the parameter's own memory.
    turned = gradient.T
    steps(turned)
    steps(gradient)
    whole = turned.view(np.int32) if library == "numpy" else turned.view(torch.int32)
    for wrong, error in ((gradient.reshape(16), ValueError), (gradient[:3], ValueError), (whole, TypeError)):
        for _ in range(2):
            with pytest.raises(error, match=r"^grads: .*, expected "):
                adafactor.step(ours, wrong, state)
    for _ in range(2):
        with pytest.raises(ValueError, match="shares memory with"):
            adafactor.step(ours, ours, state)
    steps(gradient)
    steps(make(drawn((4, 4), seed=3)))


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_a_step_goes_where_its_arrays_are_whatever_was_looked_at_before(library):
    """As one with a fresh copy of the state, which remembers nothing, does."""
    make = MUTABLE[library]
    trees = [{"w": make(drawn((6, 5), seed=k)), "b": make(drawn((5,), seed=k + 9))} for k in range(3)]
    grads = {"w": make(drawn((6, 5), seed=20)), "b": make(drawn((5,), seed=21))}
    state = adafactor.init(trees[0], use_ema=True, ema_overwrite_frequency=None)

    def steps(tree, given):
        fresh = state.copy()
        expected = {name: make(np.array(as_numpy(values))) for name, values in tree.items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a gradient is None
            adafactor.step(expected, given, fresh)
            adafactor.step(tree, given, state)
        for name, values in tree.items():
            assert bits(values) == bits(expected[name])
        assert pickle.dumps(state.arrays()) == pickle.dumps(fresh.arrays())

    first, second, third = trees
    steps(first, grads)
    steps(first, grads)
    state.finalize(second)  # which looks at other arrays, and writes them
    steps(second, grads)
    state.finalize(third)
    steps(second, grads)
    steps(second, grads | {"b": None})
    steps(second, grads | {"b": None})
    steps(second, grads)
    adafactor.update(third, grads, state)
    steps(first, {name: make(np.array(as_numpy(values))) for name, values in grads.items()})
    with pytest.raises(ValueError, match="shape"):
        adafactor.step(third, {"w": grads["w"], "b": grads["w"]}, state)
    steps(third, grads)


def test_memory_that_was_written_to_is_refused_when_it_comes_back_negated():
    """With the strides that its negation can have; torch is asked of others when they move."""
    numbers = torch.ones(6, dtype=torch.complex64)
    state = adafactor.init(p := torch.ones(6))
    for tensor in (numbers.imag, numbers.imag):
        adafactor.step(p, tensor, state)
    for _ in range(2):
        with pytest.raises(TypeError, match="negated lazily"):
            adafactor.step(p, numbers.conj().imag, state)
    adafactor.step(p, torch.ones(6), state)
    negated = torch.ones(12, dtype=torch.complex64).conj().imag.as_strided((6,), (1,))
    for _ in range(2):
        with pytest.raises(TypeError, match="negated lazily"):
            adafactor.step(p, negated, state)
