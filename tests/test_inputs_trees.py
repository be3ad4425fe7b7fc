"""Trees that a call must refuse, and those that look odd and are fine. Hazards T1 to T12."""

import collections
import dataclasses

import numpy as np
import pytest

import adafactor
import snapshots
from hazards import AT_INIT, IN_PLACE, Case, Model, check, check_next_step, parameters


class Reenters(dict):
    """A mapping that runs a function while it is read."""

    def __init__(self, items, function):
        super().__init__(items)
        self.function = function

    def __getitem__(self, key):
        self.function()
        return super().__getitem__(key)

    def __iter__(self):
        self.function()
        return super().__iter__()


def raise_os_error():
    raise OSError("the disk is gone")


def cyclic():
    inner = [np.zeros(2, np.float32)]
    inner.append(inner)
    return {"w": inner}


def deep():
    tree = np.zeros(2, np.float32)
    for _ in range(5000):
        tree = [tree]
    return tree


def overlapping(model, offset):
    """A vector that begins inside the matrix's memory."""
    buffer = np.zeros(200, np.float32)
    return {"w": buffer[:126].reshape(6, 21), "b": buffer[offset : offset + 21]}


def zeros(*shape):
    return np.zeros(shape, np.float32)


CASES = [
    Case("T1 a key is missing", lambda m: (m.params, {"w": m.grads["w"]}), ValueError, "^grads b: missing$"),
    Case(
        "T1 a key too many",
        lambda m: (m.params, m.grads | {"c": zeros(1)}),
        ValueError,
        "^grads c: not in params$",
    ),
    Case(
        "T1 list for dict",
        lambda m: (m.params, list(m.grads.values())),
        ValueError,
        "^grads: list, expected dict$",
    ),
    Case("T1 array for dict", lambda m: (m.params, m.grads["w"]), ValueError, "^grads: .*expected dict$"),
    Case(
        "T1 dict for array",
        lambda m: (m.params, m.grads | {"w": {"x": zeros(6, 21)}}),
        ValueError,
        "^grads w: dict, expected an array$",
    ),
    Case("T1 no gradients", lambda m: (m.params, None), ValueError, "^grads: None, expected dict$"),
    Case(
        "T2 another model's params, a key",
        lambda m: ({"w": zeros(6, 21), "c": zeros(21)}, m.grads),
        ValueError,
        "^params b: missing$",
    ),
    Case(
        "S2 another model's params, a shape",
        lambda m: ({"w": zeros(21, 6), "b": zeros(21)}, m.grads),
        ValueError,
        r"^params w: shape \(21, 6\), expected \(6, 21\)$",
    ),
    Case(
        "T2 another model's params, a dtype",
        lambda m: ({"w": np.zeros((6, 21)), "b": zeros(21)}, m.grads),
        TypeError,
        "^params w: dtype float64, expected float32$",
    ),
    Case(
        "T3 every gradient is None",
        lambda m: (m.params, {"w": None, "b": None}),
        ValueError,
        "^grads: every gradient is None$",
    ),
    Case("T3 a parameter is None", lambda m: (m.params | {"b": None}, m.grads), TypeError, "^params b: None"),
    Case("T3 None at init", lambda m: ({"w": None}, {}), TypeError, "^params w: None", AT_INIT),
    Case(
        "T6 parameters that overlap",
        lambda m: (overlapping(m, 125), m.grads),
        ValueError,
        "^params (w: shares memory with params b|b: shares memory with params w)$",
        IN_PLACE,
    ),
    Case(
        "T7 a gradient is its parameter",
        lambda m: (m.params, m.grads | {"w": m.params["w"]}),
        ValueError,
        "^params w: shares memory with grads w$",
        IN_PLACE,
    ),
    Case(
        "T7 a gradient is a part of its parameter's memory",
        lambda m: (m.params, m.grads | {"w": m.params["w"][::-1]}),
        ValueError,
        "^params w: shares memory with grads w$",
        IN_PLACE,
    ),
    Case(
        "T7 a gradient is another parameter",
        lambda m: (m.params, m.grads | {"b": m.params["w"][2]}),
        ValueError,
        "^params w: shares memory with grads b$",
        IN_PLACE,
    ),
    Case(
        "T8 a parameter is the state's",
        lambda m: (m.params | {"b": m.state.tensors()["b", "full"]}, m.grads),
        ValueError,
        "^params b: shares memory with the state$",
        IN_PLACE,
    ),
    Case(
        "T8 a gradient is the state's",
        lambda m: (m.params, m.grads | {"b": m.state.tensors()["w", "col"].reshape(21)}),
        ValueError,
        "^grads b: shares memory with the state$",
        IN_PLACE,
    ),
    Case(
        "T9 a cycle", lambda m: (cyclic(), {}), ValueError, "^params w/1: the same list as params w,", AT_INIT
    ),
    Case("T9 too deep", lambda m: (deep(), {}), ValueError, "nested more than 1000 deep", AT_INIT),
    Case(
        "T9 too deep for the state", lambda m: (m.params, deep()), ValueError, "^grads: list, expected dict$"
    ),
    Case("T9 a set", lambda m: ({"w": {1, 2}}, {}), TypeError, "^params w: set, expected an array", AT_INIT),
    Case(
        "T9 a number", lambda m: ({"w": 1.5}, {}), TypeError, "^params w: float, expected an array", AT_INIT
    ),
    Case("T9 a string", lambda m: (m.params, m.grads | {"b": "b"}), TypeError, "^grads b: str, expected"),
    Case("T9 an address for a key", lambda m: ({object(): zeros(2)}, {}), TypeError, "address", AT_INIT),
    Case(
        "T11 a container raises, params",
        lambda m: (Reenters(m.params, raise_os_error), m.grads),
        OSError,
        "^the disk is gone$",
    ),
    Case(
        "T11 a container raises, grads",
        lambda m: (m.params, Reenters(m.grads, raise_os_error)),
        OSError,
        "^the disk is gone$",
    ),
    Case(
        "T11 a container raises KeyboardInterrupt",
        lambda m: (m.params, Reenters(m.grads, lambda: (_ for _ in ()).throw(KeyboardInterrupt))),
        KeyboardInterrupt,
        "^$",
    ),
    Case(
        "T11 a container steps",
        lambda m: (
            m.params,
            Reenters(m.grads, lambda: adafactor.step(m.params, m.grads, m.state)),
        ),
        RuntimeError,
        "^state in use",
        IN_PLACE,
    ),
    Case(
        "T12 1 beside '1'",
        lambda m: ({1: zeros(2), "1": zeros(3)}, {}),
        ValueError,
        "^params 1: the keys 1 and '1' both have this path$",
        AT_INIT,
    ),
]


@pytest.mark.parametrize(("case", "call"), parameters(CASES))
def test_refused(case, call):
    check(case, call)


def test_t5_tied_weights_are_refused_by_both_paths():
    shared = zeros(3, 5)
    params = {"encoder": [shared], "decoder": {"w": shared}}
    grads = {"encoder": [np.ones((3, 5), np.float32)], "decoder": {"w": np.ones((3, 5), np.float32)}}
    state = adafactor.init(params)
    before = snapshots.of_state(state)
    with pytest.raises(ValueError, match=r"^params encoder/0: shares memory with params decoder/w$"):
        adafactor.step(params, grads, state)
    assert not shared.any()
    assert snapshots.of_state(state) == before
    params["decoder"]["w"] = zeros(3, 5)
    assert adafactor.step(params, grads, state).updated


def test_t6_another_pattern_of_absent_gradients_is_checked_again():
    """The addresses and strides are those of the call before; which leaf they belong to is not."""
    flat = np.ones(200, np.float32)
    params = {"a": np.ones(4, np.float32), "b": flat[4:104]}
    state = adafactor.init(params)
    with pytest.warns(UserWarning, match="no gradient for b"):
        adafactor.step(params, {"a": flat[:4], "b": None}, state)
    before = snapshots.of_state(state), flat.tobytes()
    with (
        pytest.raises(ValueError, match=r"^params b: shares memory with grads b$"),
        pytest.warns(UserWarning, match="no gradient for a"),
    ):
        adafactor.step(params, {"a": None, "b": flat[:100]}, state)
    assert (snapshots.of_state(state), flat.tobytes()) == before


def test_t6_disjoint_views_of_one_buffer_are_fine():
    fused, flat = zeros(6, 40), zeros(50)
    params = {"q": fused[:, :21], "k": fused[:, 21:], "a": flat[:20], "b": flat[20:]}
    grads = {path: np.full(p.shape, 0.5, np.float32) for path, p in params.items()}
    separate = {path: p.copy() for path, p in params.items()}
    for tree in (params, separate):
        assert adafactor.step(tree, grads, adafactor.init(tree)).updated
    assert snapshots.same_bits(params.values(), separate.values())


def test_t7_update_may_read_an_array_twice():
    params = np.linspace(1, 2, 21, dtype=np.float32)
    expected, _, _ = adafactor.update(params, params.copy(), adafactor.init(params))
    found, _, _ = adafactor.update(params, params, adafactor.init(params))
    assert snapshots.same_bits([found], [expected])


@pytest.mark.parametrize("empty", [{}, [], (), {"a": {}, "b": [(), {}]}], ids=str)
def test_t4_an_empty_tree_is_nothing_to_do(empty):
    state = adafactor.init(empty, learning_rate=lambda: pytest.fail("evaluated"))
    report = adafactor.step(empty, empty, state)
    after, after_state, _ = adafactor.update(empty, empty, state)
    assert (state.iterations, state.calls, after_state.calls, state.nbytes, state.tensors()) == (
        0,
        0,
        0,
        0,
        {},
    )
    assert (report.updated, report.skipped, report.paths, report.as_dict()) == (False, False, (), {})
    assert np.isnan([report.learning_rate, report.rho, report.beta_2, report.global_grad_norm]).all()
    assert after == empty


def test_t4_an_empty_tree_still_refuses_gradients():
    with pytest.raises(ValueError, match=r"^grads w: not in params$"):
        adafactor.step({}, {"w": zeros(1)}, adafactor.init({}))


def test_t10_a_container_that_changes_after_it_was_read_is_not_read_again():
    model, twin = Model(), Model()

    class Fickle(dict):
        def __getitem__(self, key):
            value = super().__getitem__(key)
            self[key] = None
            return value

    grads = Fickle(model.grads)
    assert adafactor.step(model.params, grads, model.state).updated
    assert list(grads.values()) == [None, None]
    adafactor.step(twin.params, twin.grads, twin.state)
    check_next_step(model, twin)


@dataclasses.dataclass(frozen=True)
class Layer:
    w: np.ndarray
    b: np.ndarray


Pair = collections.namedtuple("Pair", "w b")


@pytest.mark.parametrize("order", ["params' order", "another order"])
@pytest.mark.parametrize(
    "make",
    [
        dict,
        collections.OrderedDict,
        lambda leaves: Layer(**leaves),
        lambda leaves: Pair(**leaves),
        lambda leaves: [leaves["w"], leaves["b"]],
        lambda leaves: (leaves["w"], leaves["b"]),
        lambda leaves: {("a", 1): {"/": [leaves["w"]], "~": (leaves["b"],)}},
    ],
    ids=["dict", "OrderedDict", "dataclass", "namedtuple", "list", "tuple", "odd keys"],
)
def test_t1_the_container_does_not_matter(make, order):
    """Nor does the order of keys; `update` gives back what `params` was made of."""
    model, twin = Model(), Model()
    params, grads = make(model.params), make(model.grads)
    if order == "another order" and isinstance(grads, dict):
        grads = type(grads)(reversed(grads.items()))
    state = adafactor.init(params)
    adafactor.step(params, grads, state)
    after, _, _ = adafactor.update(params, grads, state)
    assert type(after) is type(params)
    plain = adafactor.init(twin.params)
    for _ in range(2):
        adafactor.step(twin.params, twin.grads, plain)
    leaves = adafactor.tree.Tree.of(after)[1]
    assert snapshots.same_bits(leaves, twin.params.values())
