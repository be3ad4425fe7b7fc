"""A second tree of another structure: the first difference is named, by its path and in words."""

from __future__ import annotations

import collections
import dataclasses
import typing

import numpy as np
import pytest

from adafactor.trees.tree import Tree
from tree_cases import Dense, Frozen, Leaf, Pair, Swapped, a, b, c, message


@dataclasses.dataclass(frozen=True)
class Derived:
    w: typing.Any
    b: typing.Any = dataclasses.field(init=False)
    unit: typing.ClassVar[str] = "not a field"

    def __post_init__(self) -> None:
        object.__setattr__(self, "b", Leaf())


PARAMS = {"encoder": {"w": a, "b": b}, "layers": [a, b, (c,)], "head": Pair(a, b), "dense": Dense(a, b)}
DIFFERENCES = [
    ({"encoder": {"b": b}}, "grads encoder/w: missing"),
    ({"encoder": {"w": a, "b": b, "extra": c}}, "grads encoder/extra: not in params"),
    ({"encoder": {"w": a, "c": b}}, "grads encoder/b: missing, found encoder/c"),
    ({"encoder": [a, b]}, "grads encoder: list, expected dict"),
    ({"encoder": a}, "grads encoder: Leaf, expected dict"),
    ({"encoder": {"w": {}, "b": b}}, "grads encoder/w: dict, expected an array"),
    ({"encoder": {"w": Pair(a, b), "b": b}}, "grads encoder/w: namedtuple Pair, expected an array"),
    ({"layers": (a, b, (c,))}, "grads layers: tuple, expected list"),
    ({"layers": [a, b]}, "grads layers: 2 items, expected 3"),
    ({"layers": [a, b, [c]]}, "grads layers/2: list, expected tuple"),
    ({"layers": [a, b, ()]}, "grads layers/2: 0 items, expected 1"),
    ({"layers": [a, {}, None]}, "grads layers/1: dict, expected an array"),
    ({"layers": None}, "grads layers: None, expected list"),
    ({"head": (a, b)}, "grads head: tuple, expected namedtuple"),
    ({"head": Dense(a, b)}, "grads head: dataclass Dense, expected namedtuple"),
    ({"dense": Derived(a)}, None),
    ({"dense": collections.OrderedDict(w=a, b=b)}, "grads dense: OrderedDict, expected dataclass"),
    ({"more/less": a}, "grads more~1less: not in params"),
]


@pytest.mark.parametrize(("change", "words"), DIFFERENCES)
def test_the_first_difference_is_named(change: dict, words: str | None) -> None:
    tree, leaves = Tree.of(PARAMS)
    grads = PARAMS | change
    for allow_none in (False, True):
        if words is None:
            assert len(tree.leaves(grads, "grads", allow_none)) == len(leaves)
        else:
            assert message(ValueError, lambda: tree.leaves(grads, "grads", allow_none)) == words  # noqa: B023


def test_of_several_differences_the_first_in_the_order_of_params_is_named() -> None:
    tree, _ = Tree.of({"a": a, "b": {"c": b}})
    assert message(ValueError, lambda: tree.leaves({"b": {}, "a": []}, "grads")) == (
        "grads a: list, expected an array"
    )
    assert message(TypeError, lambda: tree.leaves({"b": {}, "a": "x"}, "grads")) == (
        "grads a: str, expected an array"
    )


def test_the_root_is_named_by_its_role_alone() -> None:
    assert message(ValueError, lambda: Tree.of([a])[0].leaves({"w": a}, "grads")) == (
        "grads: dict, expected list"
    )
    assert message(ValueError, lambda: Tree.of(a)[0].leaves([a], "grads")) == "grads: list, expected an array"


def test_params_are_compared_with_the_state() -> None:
    tree, _ = Tree.of({"w": a})
    assert message(ValueError, lambda: tree.leaves({"w": a, "v": b}, "params")) == (
        "params v: not in the state, expected the tree that init was given"
    )


def test_a_key_does_not_match_another_key_of_the_same_text() -> None:
    tree, _ = Tree.of({"layers": {1: a}})
    assert message(ValueError, lambda: tree.leaves({"layers": {"1": a}}, "grads")) == (
        "grads layers/1: the key '1' (str), expected 1 (int)"
    )


def test_none_stands_for_a_leaf_only_where_it_may() -> None:
    tree, _ = Tree.of({"w": a, "layers": [b]})
    grads = {"layers": [c], "w": None}
    assert tree.leaves(grads, "grads", allow_none=True) == [None, c]
    assert message(TypeError, lambda: tree.leaves(grads, "grads")) == "grads w: None, expected an array"
    with pytest.raises(ValueError, match=r"^grads layers: None, expected list$"):
        tree.leaves({"w": a, "layers": None}, "grads", allow_none=True)


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        ({"w": a}, {"w": a, "b": b}, "state b: not in params"),
        ({"w": a, "b": b}, {"w": a}, "state b: missing"),
        ({"w": [a]}, {"w": a}, "state w: an array, expected list"),
        ({"w": a}, {"w": [a]}, "state w: list, expected an array"),
        ({"w": (a, a)}, {"w": [a, a]}, "state w: list, expected tuple"),
        ({"w": [a]}, {"w": [a, a]}, "state w: 2 items, expected 1"),
        ({"b": {"c": a}, "w": a}, {"w": [a], "b": {}}, "state b/c: missing"),
        ({"b": a, "w": a}, {"w": a, "b": a}, None),
        (Pair(a, b), Swapped(b, a), None),
        (Dense(a, b), Frozen(a, b), None),
    ],
)
def test_two_structures_are_compared_in_words(ours: object, theirs: object, words: str | None) -> None:
    assert Tree.of(ours)[0].difference(Tree.of(theirs)[0], "state") == words


def test_a_dict_does_not_stand_for_a_namedtuple_with_the_same_fields():
    Pair = collections.namedtuple("Pair", "w b")
    tree, _ = Tree.of({"layer": Pair(np.zeros(2), np.zeros(3))})
    with pytest.raises(ValueError, match=r"^grads layer: dict, expected namedtuple"):
        tree.leaves({"layer": {"w": np.zeros(2), "b": np.zeros(3)}}, "grads")
