"""How often Python enters the core in a step: few times, whatever the number of arrays."""

import types

import numpy as np
import pytest

import adafactor
import peers
from adafactor import _core

MOST = 4  # the state is taken, the arrays are gathered, the step is made, the state is given back


@pytest.fixture
def entries(monkeypatch):
    """The names of the core's functions, methods and properties, in the order in which they are entered."""
    seen = []

    def counted(name, function):
        def enter(*args, **kwargs):
            seen.append(name)
            return function(*args, **kwargs)

        return enter

    for name, thing in vars(_core).items():
        if isinstance(thing, types.BuiltinFunctionType):
            monkeypatch.setattr(_core, name, counted(name, thing))
    for name, thing in list(vars(_core.State).items()):
        if isinstance(thing, property):
            monkeypatch.setattr(_core.State, name, property(counted(name, thing.fget), thing.fset))
        elif callable(thing) and (not name.startswith("_") or name in ("__enter__", "__exit__")):
            monkeypatch.setattr(_core.State, name, counted(name, getattr(_core.State, name)))
    return seen


def arrays_of(library, count):
    if library == "numpy":
        return {f"w{i}": np.ones((3, 2), np.float32) for i in range(count)}
    torch = peers.require("torch")
    return {f"w{i}": torch.nn.Parameter(torch.ones(3, 2)) for i in range(count)}


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("count", [1, 30])
def test_a_step_on_one_dict_enters_the_core_four_times(library, count, entries):
    params, grads = arrays_of(library, count), arrays_of(library, count)
    if library == "torch":
        grads = {name: grad.detach() for name, grad in grads.items()}
    state = adafactor.init(params)
    adafactor.step(params, grads, state)
    entries.clear()
    adafactor.step(params, grads, state)
    assert entries == ["__enter__", "gather", "step", "__exit__"]
    assert len(entries) == MOST


def test_so_does_one_on_nested_dicts_and_lists(entries):
    def tree():
        return {"a": arrays_of("numpy", 2), "b": [np.ones(3), (np.ones(2), np.ones(()))], "c": np.ones(4)}

    params, grads = tree(), tree()
    state = adafactor.init(params)
    adafactor.step(params, grads, state)
    entries.clear()
    adafactor.step(params, grads, state)
    assert len(entries) == MOST
