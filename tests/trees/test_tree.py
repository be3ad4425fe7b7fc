"""Trees of arrays: what is a container and what a leaf, what the paths are, what is built from its leaves."""

from __future__ import annotations

import array
import collections
import copy
import dataclasses
import enum
import pickle
import types
import typing

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adafactor.trees.tree import Tree
from tree_cases import Dense, Frozen, Leaf, Pair, Swapped, a, b, c, d, message


class ArrayAndList(list):
    __array_interface__: typing.ClassVar[dict] = {}


class AnswersToEverything(dict):
    __getattr__ = dict.get


EXPECTED = "expected an array, or a dict, list, tuple, namedtuple or dataclass of arrays"


# Round trips

keys = st.one_of(st.text(alphabet="ab/~01", max_size=4), st.integers(-3, 12))


def without_equal_texts(tree: dict) -> bool:
    return len({str(key) for key in tree}) == len(tree)


def containers(children: st.SearchStrategy) -> st.SearchStrategy:
    mappings = st.dictionaries(keys, children, max_size=4).filter(without_equal_texts)
    return st.one_of(
        mappings,
        mappings.map(collections.OrderedDict),
        mappings.map(types.MappingProxyType),
        mappings.map(lambda held: collections.defaultdict(list, held)),
        st.lists(children, max_size=4),
        st.lists(children, max_size=4).map(tuple),
        st.builds(Pair, children, children),
        st.builds(Dense, children, children),
        st.builds(Frozen, children, children),
    )


trees = st.recursive(st.builds(Leaf), containers, max_leaves=25)


def same(first: typing.Any, second: typing.Any) -> bool:
    """Equal containers of equal classes with keys in the same order around the very same leaves."""
    if type(first) is not type(second):
        return False
    if dataclasses.is_dataclass(first):
        return same(
            [getattr(first, field.name) for field in dataclasses.fields(first)],
            [getattr(second, field.name) for field in dataclasses.fields(second)],
        )
    if isinstance(first, collections.abc.Mapping):
        return list(first) == list(second) and same(list(first.values()), list(second.values()))
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    return first is second


def reordered(tree: typing.Any) -> typing.Any:
    """The same tree with every dict in reverse order."""
    if isinstance(tree, collections.abc.Mapping):
        return {key: reordered(tree[key]) for key in reversed(list(tree))}
    if isinstance(tree, Pair):
        return Swapped(reordered(tree.b), reordered(tree.w))
    if isinstance(tree, (list, tuple)):
        return type(tree)(map(reordered, tree))
    if dataclasses.is_dataclass(tree):
        return dataclasses.replace(tree, w=reordered(tree.w), b=reordered(tree.b))
    return tree


@given(trees)
def test_a_tree_built_from_its_own_leaves_is_the_tree(params: object) -> None:
    tree, leaves = Tree.of(params)
    assert len(tree.paths) == len(leaves) == len(set(tree.paths))
    assert list(map(id, tree.leaves(params, "params"))) == list(map(id, leaves))
    rebuilt = tree.build(params, leaves)
    assert same(rebuilt, params)
    assert Tree.of(rebuilt)[0] == tree


@given(trees)
def test_building_leaves_the_old_tree_alone(params: object) -> None:
    tree, leaves = Tree.of(params)
    fresh = [Leaf() for _ in leaves]
    rebuilt = tree.build(params, fresh)
    assert tree.leaves(params, "params") == leaves
    assert tree.leaves(rebuilt, "params") == fresh


@given(trees)
def test_keys_and_fields_match_in_any_order(params: object) -> None:
    tree, leaves = Tree.of(params)
    other = reordered(params)
    assert tree.leaves(other, "grads") == leaves
    assert tree.difference(Tree.of(other)[0], "grads") is None
    fresh = [Leaf() for _ in leaves]
    assert tree.leaves(tree.build(other, fresh), "grads") == fresh


@given(trees)
def test_a_pickled_or_copied_tree_is_equal_and_works(params: object) -> None:
    tree, leaves = Tree.of(params)
    for twin in (pickle.loads(pickle.dumps(tree)), copy.deepcopy(tree), copy.copy(tree)):
        assert twin == tree
        assert hash(twin) == hash(tree)
        assert twin.paths == tree.paths
        assert twin.leaves(params, "params") == leaves


@given(trees, trees)
def test_a_second_tree_matches_exactly_when_no_difference_is_named(first: object, second: object) -> None:
    tree, (other, leaves) = Tree.of(first)[0], Tree.of(second)
    words = tree.difference(other, "grads")
    if words is None:
        assert sorted(other.paths) == sorted(tree.paths)
        assert set(tree.leaves(second, "grads")) == set(leaves)
    else:
        assert tree != other
        expected = message(ValueError, lambda: tree.leaves(second, "grads")).partition(":")[0]
        assert words.startswith(f"{expected}: ")


# Paths


def test_paths_are_keys_positions_and_fields_from_the_root() -> None:
    params = {"encoder": [Pair(a, b), (c,)], "head": Dense(w={7: a}, b=b), "empty": {}, 3: d}
    tree, leaves = Tree.of(params)
    assert tree.paths == ("encoder/0/w", "encoder/0/b", "encoder/1/0", "head/w/7", "head/b", "3")
    assert leaves == [a, b, c, a, b, d]


def test_a_single_array_is_a_tree_with_the_empty_path() -> None:
    tree, leaves = Tree.of(a)
    assert tree.paths == ("",)
    assert leaves == [a]
    assert tree.leaves(b, "grads") == [b]
    assert tree.build(a, [c]) is c


def test_separators_inside_a_key_are_escaped() -> None:
    tree, _ = Tree.of({"a/b": a, "a": {"b": b}, "~": c, "~1": d, "": {"": a, "x": b}})
    assert tree.paths == ("a~1b", "a/b", "~0", "~01", "/", "/x")


def test_keys_may_be_anything_with_a_lasting_text() -> None:
    class Layer(enum.Enum):
        first = 1

    params = {Layer.first: a, ("q", 0): b, None: c, 1.5: d, -2: a, True: b}
    assert Tree.of(params)[0].paths == ("Layer.first", "('q', 0)", "None", "1.5", "-2", "True")


@pytest.mark.parametrize("key", [object(), Leaf(), (1, object()), lambda: None], ids=type)
def test_a_key_whose_text_is_an_address_is_refused(key: object) -> None:
    words = message(TypeError, lambda: Tree.of({"layers": {key: a}}))
    assert words == (
        f"params layers: a key of type {type(key).__name__} whose str() has an address in it, "
        "expected a str, an int or another key with a lasting str()"
    )


def test_two_keys_with_one_path_are_refused_by_name() -> None:
    words = message(ValueError, lambda: Tree.of({"layers": {1: a, "1": b}}))
    assert words == "params layers/1: the keys 1 and '1' both have this path"


# Containers and leaves


def test_an_array_is_a_leaf_even_where_it_is_a_sequence() -> None:
    for leaf in (
        np.zeros(3),
        np.zeros(()),
        np.float64(1.0),
        np.ma.ones(2),
        ArrayAndList([a]),
        array.array("f"),
    ):
        assert Tree.of([leaf])[0].paths == ("0",)


def test_a_mapping_that_answers_to_every_attribute_is_a_container() -> None:
    params = AnswersToEverything(w=a)
    tree, _ = Tree.of(params)
    assert tree.paths == ("w",)
    assert type(tree.build(params, [b])) is AnswersToEverything


WRONG = {
    "str": "weights",
    "bytes": b"",
    "bytearray": bytearray(4),
    "int": 1,
    "float": 1.0,
    "bool": True,
    "complex": 1j,
    "set": {1},
    "frozenset": frozenset(),
    "generator": (leaf for leaf in [a]),
    "list_iterator": iter([a]),
    "dict_values": {"w": a}.values(),
    "range": range(3),
    "deque": collections.deque([a]),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_an_array_is_refused_with_its_path(name: str) -> None:
    wrong = WRONG[name]
    hint = "; numpy.array makes one of a list of numbers" if isinstance(wrong, int | float) else ""
    if isinstance(wrong, collections.abc.Iterator):
        hint = "; list() has the arrays of an iterator, dict(module.named_parameters()) those of a module"
    assert message(TypeError, lambda: Tree.of(wrong)) == f"params: {name}, {EXPECTED}{hint}"
    assert message(TypeError, lambda: Tree.of({"x": [a, wrong]})) == f"params x/1: {name}, {EXPECTED}{hint}"
    tree, _ = Tree.of({"x": [a, b]})
    words = message(TypeError, lambda: tree.leaves({"x": [a, wrong]}, "grads"))
    assert words == f"grads x/1: {name}, expected an array{hint}"


def test_a_dataclass_itself_is_a_leaf_and_not_a_container() -> None:
    assert Tree.of([Dense])[0].paths == ("0",)


def test_a_tree_without_leaves_is_a_tree() -> None:
    for params in ({}, [], (), {"a": [], "b": ({},)}):
        tree, leaves = Tree.of(params)
        assert tree.paths == ()
        assert leaves == tree.leaves(params, "grads") == []
        assert tree.build(params, []) == params


def test_equality_is_of_structure_and_order() -> None:
    tree, _ = Tree.of({"w": a, "b": [b]})
    assert tree == Tree.of({"w": c, "b": [d]})[0]
    assert hash(tree) == hash(Tree.of(collections.OrderedDict(w=c, b=[d]))[0])
    assert tree != Tree.of({"b": [b], "w": a})[0]
    assert tree != Tree.of({"w": a, "b": (b,)})[0]
    assert Tree.of({1: a})[0] != Tree.of({True: a})[0]
    assert tree != "tree"


def test_a_tree_cannot_be_changed() -> None:
    tree, _ = Tree.of([a])
    for change in (lambda: setattr(tree, "_paths", ()), lambda: delattr(tree, "_paths")):
        assert "immutable" in message(AttributeError, change)
    assert repr(tree) == "Tree(1 leaves in 1 containers)"
