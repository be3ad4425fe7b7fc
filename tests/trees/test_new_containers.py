"""A tree built anew: containers keep their class and what belongs to it, or become plain ones."""

from __future__ import annotations

import collections
import dataclasses
import time
import types
import typing

from adafactor.trees.tree import Tree
from tree_cases import Counted, Node, Pair, a, b, c, message


class Listed(list):
    pass


class Tupled(tuple):
    pass


class Checked(Pair):
    def __new__(cls, pair: tuple) -> Checked:
        return super().__new__(cls, *pair)


class ReadOnlyDict(dict):
    def __setitem__(self, key: object, value: object) -> None:
        raise PermissionError(key)

    def __copy__(self) -> ReadOnlyDict:
        raise PermissionError("copy")


class Needy(collections.UserDict):
    def __init__(self, held: dict, *, name: str) -> None:
        super().__init__(held)
        self.name = name


class Window(dict):
    """A dict in name, whose items are in another one, which copies share."""

    def __init__(self, inner: dict) -> None:
        super().__init__(inner)
        self.inner = inner

    def __getitem__(self, key: object) -> object:
        return self.inner[key]

    def __setitem__(self, key: object, value: object) -> None:
        self.inner[key] = value


def test_mappings_keep_their_class_and_what_belongs_to_it() -> None:
    tree, _ = Tree.of({"w": a})
    ordered = tree.build(collections.OrderedDict(w=a), [b])
    assert ordered == collections.OrderedDict(w=b)
    assert type(ordered) is collections.OrderedDict
    default = tree.build(collections.defaultdict(list, w=a), [b])
    assert default == {"w": b}
    assert default.default_factory is list
    for cls in (types.MappingProxyType, collections.UserDict, collections.ChainMap):
        held = {"w": a}
        made = tree.build(cls(held), [b])
        assert type(made) is cls
        assert dict(made) == {"w": b}
        assert held == {"w": a}


def test_a_mapping_that_cannot_be_made_anew_becomes_a_dict() -> None:
    tree, _ = Tree.of({"w": a})
    for like in (Needy({"w": a}, name="n"), Counted({"w": a}, KeyError())):
        like.error = None
        made = tree.build(like, [b])
        assert dict(made) == {"w": b}
        assert dict(like) == {"w": a}
    assert type(tree.build(Needy({"w": a}, name="n"), [b])) is dict
    assert type(tree.build(ReadOnlyDict(w=a), [b])) is ReadOnlyDict  # made from its items


def test_a_mapping_that_changes_what_it_is_given_becomes_a_dict() -> None:
    class Prefixed(collections.UserDict):
        def __init__(self, held: dict) -> None:
            super().__init__({f"a/{key}": value for key, value in held.items()})

    like = Prefixed({"w": a})
    made = Tree.of(like)[0].build(like, [b])
    assert type(made) is dict
    assert made == {"a/w": b}


def test_a_dict_with_its_own_way_of_reading_is_read_that_way() -> None:
    like = Window({"w": a})
    like.inner = {"w": b}
    tree, leaves = Tree.of(like)
    assert leaves == tree.leaves(like, "grads") == [b]


def test_what_a_copy_shares_with_the_original_is_not_written() -> None:
    tree, _ = Tree.of({"w": a})
    inner = {"w": a}
    made = tree.build(Window(inner), [b])
    assert made["w"] is b
    assert inner == {"w": a}


def test_sequences_keep_their_class_and_attributes() -> None:
    for cls in (Listed, Tupled):
        like = cls([a, b])
        like.name = "layers"
        made = Tree.of(like)[0].build(like, [b, c])
        assert type(made) is cls
        assert list(made) == [b, c]
        assert made.name == "layers"
        assert list(like) == [a, b]
    checked = Checked((a, b))
    made = Tree.of(checked)[0].build(checked, [b, c])
    assert type(made) is Checked
    assert made == (b, c)


def test_a_tuple_class_written_in_c_becomes_a_tuple() -> None:
    like = time.struct_time([a] * 9)
    made = Tree.of(like)[0].build(like, [b] * 9)
    assert type(made) is tuple
    assert made == (b,) * 9


def test_frozen_and_computed_fields_are_replaced_and_the_rest_is_kept() -> None:
    @dataclasses.dataclass(frozen=True)
    class Frozen:
        w: typing.Any
        twin: typing.Any = dataclasses.field(init=False)

        def __post_init__(self) -> None:
            object.__setattr__(self, "twin", self.w)
            object.__setattr__(self, "name", "n")

    like = Frozen(a)
    made = Tree.of(like)[0].build(like, [b, c])
    assert type(made) is Frozen
    assert (made.w, made.twin, made.name) == (b, c, "n")
    assert (like.w, like.twin) == (a, a)


def test_a_dataclass_that_cannot_be_copied_is_refused() -> None:
    class Single(Node):
        def __copy__(self) -> Single:
            return self

    like = Single(a)
    words = message(TypeError, lambda: Tree.of(like)[0].build(like, [b]))
    assert words == "dataclass Single: copy.copy() gives no new Single"
    assert like.child is a


def test_building_needs_the_structure_and_the_number_of_leaves() -> None:
    tree, _ = Tree.of({"w": a, "b": b})
    assert message(ValueError, lambda: tree.build({"w": a, "b": b}, [a])) == "1 leaves, expected 2"
    assert message(ValueError, lambda: tree.build({"w": a}, [a, b])) == (
        "params b: missing, expected as in the state"
    )
