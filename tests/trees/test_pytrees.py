"""Trees as JAX' libraries make them: static fields, None where there is no leaf, containers of their own."""

import collections.abc
import dataclasses
import functools
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adafactor
from adafactor.trees.tree import Tree


@functools.partial(jax.tree_util.register_dataclass, data_fields=["weight", "bias"], meta_fields=["features"])
@dataclasses.dataclass
class Linear:
    """As flax.struct and Equinox have them."""

    features: int
    weight: Any
    bias: Any = None


@jax.tree_util.register_pytree_node_class
class Scale:
    """A container without names for what it holds."""

    def __init__(self, scale, shift, what="static"):
        self.scale, self.shift, self.what = scale, shift, what

    def tree_flatten(self):
        return (self.scale, self.shift), self.what

    @classmethod
    def tree_unflatten(cls, what, children):
        return cls(*children, what)


@jax.tree_util.register_pytree_with_keys_class
class Named(Scale):
    """One with names, the second first."""

    def tree_flatten_with_keys(self):
        keys = [jax.tree_util.GetAttrKey(name) for name in ("shift", "scale")]
        return [(key, getattr(self, key.name)) for key in keys], self.what

    def tree_flatten(self):
        return (self.shift, self.scale), self.what

    @classmethod
    def tree_unflatten(cls, what, children):
        return cls(children[1], children[0], what)


def ones(*shape):
    return jnp.ones(shape)


MODELS = {
    "a static field": (lambda: Linear(3, ones(2, 3), ones(3)), ("weight", "bias")),
    "None": (lambda: {"w": ones(3), "bias": None, "more": [None, ones(2)]}, ("w", "more/1")),
    "None in a dataclass": (lambda: Linear(3, ones(2, 3)), ("weight",)),
    "a node by places": (lambda: {"s": Scale(ones(3), ones(2))}, ("s/0", "s/1")),
    "a node by names": (lambda: [Named(ones(3), ones(2))], ("0/shift", "0/scale")),
    "nodes in nodes": (lambda: Scale(Linear(3, ones(2, 3)), Named(ones(3), None)), ("0/weight", "1/scale")),
}


@pytest.mark.parametrize("name", MODELS)
def test_what_jax_says_are_the_leaves_is_updated(name):
    make, paths = MODELS[name]
    model = make()
    grads = jax.tree.map(lambda x: jnp.full(x.shape, 0.25), model)
    state = adafactor.init(model, learning_rate=0.1)
    assert state.paths == paths
    after, state, report = adafactor.update(model, grads, state)
    assert report.updated
    assert jax.tree.structure(after) == jax.tree.structure(model)
    leaves = dict.fromkeys(paths, 0.9)
    assert [float(x.mean().round(6)) for x in jax.tree.leaves(after)] == pytest.approx([*leaves.values()])
    assert all((x == 1).all() for x in jax.tree.leaves(model))


@pytest.mark.parametrize("name", MODELS)
def test_the_same_tree_of_numpy_is_stepped_in_place(name):
    make, paths = MODELS[name]
    model = jax.tree.map(lambda x: np.ones(x.shape, np.float32), make())
    grads = jax.tree.map(lambda x: np.full(x.shape, 0.25, np.float32), model)
    adafactor.step(model, grads, adafactor.init(model, learning_rate=0.1))
    assert len(jax.tree.leaves(model)) == len(paths)
    assert all((x == np.float32(0.9)).all() for x in jax.tree.leaves(model))


def test_none_stays_none():
    """In `params` it is no leaf and takes no gradient; beside a leaf it is an absent gradient, as ever."""
    params = {"w": np.ones(3), "bias": None, "b": np.ones(2)}
    state = adafactor.init(params)
    with pytest.raises(ValueError, match=r"^grads bias: ndarray, expected None$"):
        adafactor.step(params, {"w": np.ones(3), "bias": np.ones(3), "b": np.ones(2)}, state)
    with pytest.raises(ValueError, match=r"^params bias: ndarray, expected None as in the state$"):
        adafactor.step(params | {"bias": np.ones(3)}, params, state)
    with pytest.raises(TypeError, match=r"^params b: None, expected an array$"):
        adafactor.step(params | {"b": None}, params, state)
    with pytest.warns(UserWarning, match=r"no gradient for b;"):
        adafactor.step(params, {"w": np.ones(3), "bias": None, "b": None}, state)
    with pytest.raises(TypeError, match=r"^params: None, expected an array"):
        adafactor.init(None)
    assert adafactor.init({"bias": None}).paths == ()


def test_a_tree_with_none_and_nodes_is_compared_copied_and_pickled():
    import copy
    import pickle

    model = Scale(Linear(3, ones(2, 3)), {"b": None})
    tree, _ = Tree.of(model)
    for other in (pickle.loads(pickle.dumps(tree)), copy.deepcopy(tree)):
        assert (other, other.paths) == (tree, tree.paths)
        assert tree.difference(other, "state") is None
    assert tree.difference(Tree.of(Scale(Linear(3, ones(2, 3)), {"b": ones(1)}))[0], "state") == (
        "state 1/b: an array, expected None"
    )
    assert tree.difference(Tree.of({"b": None})[0], "state") == "state: dict, expected node"


def test_another_class_with_the_same_keys_is_the_same_structure():
    state = adafactor.init([Scale(ones(3), ones(2))])
    with pytest.raises(ValueError, match=r"^params 0: list, expected node as in the state$"):
        adafactor.update([[ones(3), ones(2)]], [[ones(3), ones(2)]], state)
    after, _, _ = adafactor.update([Scale(ones(3), ones(2), "b")], [Scale(ones(3), ones(2), "c")], state)
    assert (type(after[0]), after[0].what) == (Scale, "b")


def test_a_class_that_is_registered_after_it_was_seen_is_opened():
    class Late:
        def __init__(self, x):
            self.x = x

    with pytest.raises(TypeError, match=r"Late, expected an array"):
        adafactor.init(Late(np.ones(3)))
    jax.tree_util.register_pytree_node(Late, lambda late: ((late.x,), None), lambda _, parts: Late(*parts))
    assert adafactor.init(Late(np.ones(3))).paths == ("0",)


def test_a_cycle_of_nodes_is_refused():
    scale = Scale(ones(3), None)
    scale.shift = scale
    with pytest.raises(
        ValueError, match=r"^params 1: the same Scale as params, expected a tree without cycles$"
    ):
        adafactor.init(scale)


KNOWN = """
import collections, dataclasses, sys
import numpy as np
import adafactor

@dataclasses.dataclass
class Layer:
    z: object
    a: object

Pair = collections.namedtuple("Pair", "y x")
w = np.ones(2)
tree = {"z": w, "a": Layer(w, Pair(w, [w, (w,)])), "o": collections.OrderedDict(b=w, a=w), "n": None}
print(adafactor.init(tree).paths, "jax" in sys.modules)
"""


def test_a_tree_of_known_containers_means_the_same_whatever_is_loaded():
    said = [
        subprocess.run(
            [sys.executable, "-c", start + KNOWN], check=True, capture_output=True, text=True
        ).stdout
        for start in ("", "import jax")
    ]
    paths = "('z', 'a/z', 'a/a/y', 'a/a/x/0', 'a/a/x/1/0', 'o/b', 'o/a')"
    assert said == [f"{paths} False\n", f"{paths} True\n"]


class Nested(collections.abc.Mapping):
    """A mapping that shows the dicts in it as others of its class, and is made of dicts alone."""

    def __init__(self, items):
        self.items_inside = dict(items)
        assert not any(isinstance(each, Nested) for each in self.items_inside.values())

    def __getitem__(self, key):
        value = self.items_inside[key]
        return Nested(value) if isinstance(value, dict) else value

    def __iter__(self):
        return iter(self.items_inside)

    def __len__(self):
        return len(self.items_inside)


def _flatten_with_keys(nested):
    keys = sorted(nested)
    return [(jax.tree_util.DictKey(key), nested.items_inside[key]) for key in keys], tuple(keys)


jax.tree_util.register_pytree_with_keys(
    Nested, _flatten_with_keys, lambda keys, parts: Nested(zip(keys, parts, strict=True))
)


class Keyless(Nested):
    """One that JAX knows without its keys."""


jax.tree_util.register_pytree_node(
    Keyless,
    lambda nested: (tuple(nested.items_inside.values()), tuple(nested.items_inside)),
    lambda keys, parts: Keyless(zip(keys, parts, strict=True)),
)


@pytest.mark.parametrize("cls", [Nested, Keyless])
def test_a_mapping_that_jax_knows_is_made_of_what_it_was_made_of(cls):
    inner = {"w": ones(2, 3), "b": ones(3)} if cls is Nested else ones(2, 3)
    params = cls({"layer": inner, "alone": ones(2)})
    state = adafactor.init(params)
    assert state.paths[-1] == "alone"  # in the order of the mapping
    new, _, _ = adafactor.update(params, jax.tree.map(jnp.ones_like, params), state)
    assert type(new) is cls
    assert jax.tree.structure(new) == jax.tree.structure(params)
    plain = {"layer": inner, "alone": ones(2)}
    again, _, _ = adafactor.update(params, jax.tree.map(jnp.ones_like, plain), state)
    assert all((a == b).all() for a, b in zip(jax.tree.leaves(new), jax.tree.leaves(again), strict=True))
