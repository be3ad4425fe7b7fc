"""Section 1: trees and who they belong to, T1 to T12."""

from typing import Any

import numpy as np
import pytest

import adafactor
import snapshots
from registry.case import (
    AT_INIT,
    IN_PLACE,
    Case,
    Event,
    Model,
    leaf,
    model,
    same,
    with_grads,
    with_params,
    zeros,
)
from registry.libraries import IN_MEMORY, OF_ANY_KIND, arrays_in, memory_of


class Reenters(dict):
    """A mapping that runs a function while it is read."""

    def __init__(self, items, function):
        super().__init__(items)
        self.function = function

    def __getitem__(self, key):
        self.function()
        return super().__getitem__(key)


class Fickle(dict):
    """A mapping that forgets each item when it is read."""

    def __getitem__(self, key):
        value = super().__getitem__(key)
        self[key] = None
        return value


class Shrinking(dict):
    """A mapping that empties another one while it is read."""

    def __init__(self, items, other):
        super().__init__(items)
        self.other = other

    def __getitem__(self, key):
        self.other.clear()
        return super().__getitem__(key)


def raising(error):
    def function():
        raise error

    return function


def cyclic():
    inner = [np.zeros(2, np.float32)]
    inner.append(inner)
    return inner


def deep():
    tree = np.zeros(2, np.float32)
    for _ in range(5000):
        tree = [tree]
    return tree


class Untold:
    """A key without a text of its own."""


def view(start, stop, *shape):
    """How to make a view of one buffer that all views of a model share."""

    def make(m):
        buffer = vars(m).setdefault("buffer", np.zeros(200, np.float32))
        return m.library.over(buffer[start:stop].reshape(shape))

    return make


def fused(m: Model, column_slices: bool) -> Any:
    """Copies of the parameters as views of one buffer that have no element in common."""
    if column_slices:
        buffer = np.zeros((6, 22), np.float32)
        views = {"w": buffer[:, :21], "b": np.zeros(21, np.float32)}
    else:
        buffer = np.zeros(147, np.float32)
        views = {"w": buffer[21:].reshape(6, 21), "b": buffer[:21]}
    for path, p in views.items():
        p[...] = memory_of(m.params[path])
    return {path: m.library.over(p) for path, p in views.items()}, m.grads


def nothing_to_report(outcome):
    report = outcome.report
    assert (report.updated, report.skipped, report.paths, report.as_dict()) == (False, False, (), {})
    assert np.isnan([report.learning_rate, report.rho, report.beta_2, report.global_grad_norm]).all()


def left_alone(outcome):
    assert outcome.report.updated
    assert np.isnan(outcome.report.grad_norm[list(outcome.state.paths).index("b")])


def without_b(m):
    """The call without a gradient for b, with the warning that belongs to it."""
    return m.params, m.grads | {"b": None}


def containers_alone(m):
    for empty in ([], (), {"a": {}, "b": [(), {}]}):
        state = adafactor.init(empty)
        report = adafactor.step(empty, empty, state)
        after, after_state, _ = adafactor.update(empty, empty, state)
        assert (state.calls, after_state.calls, state.nbytes, state.tensors()) == (0, 0, 0, {})
        assert not report.updated
        assert after == empty


def slashes_are_escaped(m):
    """`a/b` beside a -> b, and what escaping makes of the escape itself."""
    params = {"a/b": zeros(2)(m), "a": {"b": zeros(3)(m)}, "a~1b": zeros(4)(m)}
    state = adafactor.init(params)
    assert state.paths == ("a~1b", "a/b", "a~01b")


def dropped(m):
    """The arrays are the call's alone once its gradients are read."""
    params = dict(m.params)
    grads = Shrinking(m.grads, params)
    state = m.state.copy()
    twin, kept = m.copies_of_params(), m.copies_of_params()
    expected = adafactor.step(twin, m.grads, m.state.copy())
    assert repr(adafactor.step(params, grads, state)) == repr(expected)
    assert params == {}
    assert snapshots.same_bits(arrays_in(m.params), arrays_in(twin))
    for path, p in m.params.items():
        m.library.write(p, memory_of(kept[path]))


def no_rate():
    pytest.fail("evaluated")


ARRAY = "an array, or a dict, list, tuple, namedtuple or dataclass of arrays"
IN_USE = "state in use: another call, from a thread or from inside this one, runs on it"

STRUCTURE = [
    Case("T1 a key is missing", lambda m: (m.params, {"w": m.grads["w"]}), ValueError, "grads b: missing"),
    Case("T1 a key too many", with_grads(c=zeros(1)), ValueError, "grads c: not in params"),
    Case(
        "T1 list for dict",
        lambda m: (m.params, list(m.grads.values())),
        ValueError,
        "grads: list, expected dict",
    ),
    Case("T1 array for dict", lambda m: (m.params, m.grads["w"]), ValueError, r"grads: \w+, expected dict"),
    Case(
        "T1 dict for array",
        with_grads(w=lambda m: {"x": zeros(6, 21)(m)}),
        ValueError,
        "grads w: dict, expected an array",
    ),
    Case("T1 no gradients", lambda m: (m.params, None), ValueError, "grads: None, expected dict"),
    Case(
        "T1 the other order of keys",
        lambda m: (m.params, dict(reversed(m.grads.items()))),
        like=same,
    ),
    Case(
        "T2 the state of another model, a key",
        lambda m: ({"w": m.params["w"], "c": m.params["b"]}, m.grads),
        ValueError,
        "params b: missing, found c, expected as in the state",
    ),
    Case(
        "T2 the state of another model, a key more",
        with_params(c=zeros(2)),
        ValueError,
        "params c: not in the state, expected the tree that init was given",
    ),
    Case(
        "T2 the state of another model, a list",
        lambda m: ([m.params["w"], m.params["b"]], [m.grads["w"], m.grads["b"]]),
        ValueError,
        "params: list, expected dict as in the state",
    ),
    Case(
        "T2 the state of another model, a dtype",
        with_params(w=zeros(6, 21, dtype="float64")),
        TypeError,
        "params w: dtype float64, expected float32 as in the state",
    ),
    Case(
        "T3 every gradient is None",
        lambda m: (m.params, {"w": None, "b": None}),
        ValueError,
        "grads: every gradient is None, expected at least one array",
    ),
    Case(
        "T3 a parameter is None",
        with_params(b=lambda m: None),
        TypeError,
        "params b: None, expected an array",
    ),
    Case("T3 None at init", lambda m: (None, {}), TypeError, f"params: None, expected {ARRAY}", AT_INIT),
    Case("T3 a gradient is None", without_b, expect=left_alone),
    Case(
        "T4 an empty dict",
        lambda m: ({}, {}),
        model=model(values=({}, {}), steps=0, learning_rate=no_rate),
        is_nothing=True,
        expect=nothing_to_report,
    ),
    Event("T4 containers without a leaf", containers_alone),
    Case(
        "T4 a gradient for nothing",
        lambda m: ({}, {"w": zeros(1)(m)}),
        ValueError,
        "grads w: not in params",
        model=model(values=({}, {}), steps=0),
    ),
]

SHARED = "shares memory with {}, expected memory of its own"

IDENTITY = [
    Case(
        "T5 tied weights",
        lambda m: ({"w": m.params["w"], "v": m.params["w"]}, m.grads),
        ValueError,
        "params w: " + SHARED.format("params v"),
        IN_PLACE,
        model(shapes={"w": (6, 21), "v": (6, 21)}),
    ),
    Case(
        "T5 tied weights of which one is transposed",
        lambda m: ({"w": m.params["w"], "v": m.over("params", "w", np.transpose)}, m.grads),
        ValueError,
        "params w: " + SHARED.format("params v"),
        IN_PLACE,
        model(shapes={"w": (6, 21), "v": (21, 6)}),
    ),
    Case(
        "T6 parameters that overlap by one element",
        with_params(w=view(0, 126, 6, 21), b=view(125, 146, 21)),
        ValueError,
        "params w: " + SHARED.format("params b"),
        IN_PLACE,
    ),
    Case("T6 pieces of a flat buffer", lambda m: fused(m, False), like=same, libraries=IN_MEMORY),
    Case("T6 slices of columns", lambda m: fused(m, True), like=same, libraries=IN_MEMORY),
    Case(
        "T7 a gradient is its parameter",
        with_grads(w=lambda m: m.params["w"]),
        ValueError,
        "params w: " + SHARED.format("grads w"),
        IN_PLACE,
    ),
    Case(
        "T7 a gradient is its parameter backwards",
        with_grads(w=lambda m: m.over("params", "w", np.flipud)),
        ValueError,
        "params w: " + SHARED.format("grads w"),
        IN_PLACE,
        libraries=OF_ANY_KIND,
    ),
    Case(
        "T7 a gradient is a part of another parameter",
        with_grads(b=lambda m: m.over("params", "w", lambda w: w[2])),
        ValueError,
        "params w: " + SHARED.format("grads b"),
        IN_PLACE,
    ),
    Case(
        "T7 update may read an array twice",
        with_grads(w=lambda m: m.params["w"]),
        like=with_grads(w=lambda m: m.library.array(memory_of(m.params["w"]))),
        calls=("update",),
    ),
    Case(
        "T8 a parameter is the state's",
        with_params(b=lambda m: m.state.tensors()["b", "full"]),
        ValueError,
        "params b: " + SHARED.format("the state"),
        IN_PLACE,
    ),
    Case(
        "T8 a gradient is the state's",
        with_grads(b=lambda m: m.state.tensors()["w", "col"]),
        ValueError,
        "grads b: " + SHARED.format("the state"),
        IN_PLACE,
    ),
    Case(
        "T8 a parameter is the state's average",
        with_params(w=lambda m: m.state.tensors()["w", "average"]),
        ValueError,
        "params w: " + SHARED.format("the state"),
        IN_PLACE,
        model(use_ema=True),
    ),
]

HOSTILE = [
    Case(
        "T9 a cycle",
        leaf(lambda m: cyclic()),
        ValueError,
        "params w/1: the same list as params w, expected a tree without cycles",
        AT_INIT,
    ),
    Case(
        "T9 too deep",
        lambda m: (deep(), {}),
        ValueError,
        r"params [0/]{60}\.\.\.: containers nested more than 1000 deep, expected at most 1000",
        AT_INIT,
    ),
    Case("T9 too deep for the state", lambda m: (m.params, deep()), ValueError, "grads: list, expected dict"),
    Case("T9 a set", leaf(lambda m: {1, 2}), TypeError, f"params w: set, expected {ARRAY}", AT_INIT),
    Case(
        "T9 a list of numbers",
        leaf(lambda m: [1.5, 2.5]),
        TypeError,
        f"params w/0: float, expected {ARRAY}; numpy.array makes one of a list of numbers",
        AT_INIT,
    ),
    Case("T9 a string", with_grads(b=lambda m: "b"), TypeError, "grads b: str, expected an array"),
    Case(
        "T9 an address for a key",
        lambda m: ({Untold(): zeros(2)(m)}, {}),
        TypeError,
        r"params: a key of type Untold whose str\(\) has an address in it, "
        r"expected a str, an int or another key with a lasting str\(\)",
        AT_INIT,
    ),
    Case(
        "T10 gradients that change once they are read",
        lambda m: (m.params, Fickle(m.grads)),
        like=same,
    ),
    Event("T10 parameters that are dropped while the gradients are read", dropped),
    Case(
        "T11 parameters that raise",
        lambda m: (Reenters(m.params, raising(OSError("the disk is gone"))), m.grads),
        OSError,
        "the disk is gone",
    ),
    Case(
        "T11 gradients that raise",
        lambda m: (m.params, Reenters(m.grads, raising(OSError("the disk is gone")))),
        OSError,
        "the disk is gone",
    ),
    Case(
        "T11 gradients that raise KeyboardInterrupt",
        lambda m: (m.params, Reenters(m.grads, raising(KeyboardInterrupt()))),
        KeyboardInterrupt,
        "",
    ),
    Case(
        "T11 gradients that step",
        lambda m: (m.params, Reenters(m.grads, lambda: adafactor.step(m.params, m.grads, m.state))),
        RuntimeError,
        IN_USE,
        IN_PLACE,
    ),
    Case(
        "T12 1 beside '1'",
        lambda m: ({1: zeros(2)(m), "1": zeros(3)(m)}, {}),
        ValueError,
        "params 1: the keys 1 and '1' both have this path",
        AT_INIT,
    ),
    Case(
        "T12 1 for '1'",
        lambda m: (m.params, {1: m.grads["1"]}),
        ValueError,
        r"grads 1: the key 1 \(int\), expected '1' \(str\)",
        model=model(shapes={"1": (21,)}),
    ),
    Event("T12 a slash in a key", slashes_are_escaped),
]

CASES = [*STRUCTURE, *IDENTITY, *HOSTILE]
