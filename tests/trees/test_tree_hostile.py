"""Trees that are deep or cyclic, that change while they are read, or whose containers do as they please.

What it costs to match a tree that is none of these stands last.
"""

from __future__ import annotations

import collections
import dataclasses
import gc
import pickle
import typing

import pytest

from adafactor.trees.mismatch import MAX_DEPTH
from adafactor.trees.tree import Tree
from tree_cases import Counted, Leaf, Node, Pair, a, b, c, message


def nested(depth: int, wrap: typing.Callable[[object], object] = lambda tree: [tree]) -> object:
    tree: object = a
    for _ in range(depth):
        tree = wrap(tree)
    return tree


# Depth and cycles

WRAPS = {
    "list": lambda tree: [tree],
    "tuple": lambda tree: (tree,),
    "dict": lambda tree: {"k": tree},
    "namedtuple": lambda tree: Pair(c, tree),
    "dataclass": Node,
}


@pytest.mark.parametrize("name", WRAPS)
def test_the_deepest_tree_works_in_every_way(name: str) -> None:
    params = nested(MAX_DEPTH, WRAPS[name])
    tree, leaves = Tree.of(params)
    assert leaves[-1] is a
    assert len(tree.paths[-1].split("/")) == MAX_DEPTH
    assert tree.leaves(params, "grads") == leaves
    twin = pickle.loads(pickle.dumps(tree))
    assert twin == tree
    assert hash(twin) == hash(tree)
    assert twin.difference(tree, "state") is None
    rebuilt = twin.build(params, [Leaf() for _ in leaves])
    assert Tree.of(rebuilt)[0] == tree


@pytest.mark.parametrize("name", WRAPS)
@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 100_000])
def test_a_deeper_tree_is_refused(name: str, depth: int) -> None:
    params = nested(depth, WRAPS[name])
    words = message(ValueError, lambda: Tree.of(params))
    assert words.endswith("...: containers nested more than 1000 deep, expected at most 1000")
    assert len(words) < 150
    # Taken apart from outside in: the interpreter itself would recurse on freeing some of these.
    while not isinstance(params, Leaf):
        params = (
            params.child
            if isinstance(params, Node)
            else list(getattr(params, "values", params.__iter__)())[-1]
        )


def test_a_deep_second_tree_is_refused_where_it_differs() -> None:
    tree, _ = Tree.of({"w": a})
    deep = nested(100_000)
    assert (
        message(ValueError, lambda: tree.leaves({"w": deep}, "grads")) == "grads w: list, expected an array"
    )
    tree, _ = Tree.of(nested(MAX_DEPTH))
    assert message(ValueError, lambda: tree.leaves(deep, "grads")).endswith(": list, expected an array")


def test_a_container_inside_itself_is_refused() -> None:
    in_list: list = [a]
    in_list.append([b, in_list])
    assert message(ValueError, lambda: Tree.of({"x": in_list})) == (
        "params x/1/1: the same list as params x, expected a tree without cycles"
    )
    in_dict: dict = {"w": a}
    in_dict["again"] = (in_dict,)
    assert message(ValueError, lambda: Tree.of(in_dict)) == (
        "params again/0: the same dict as params, expected a tree without cycles"
    )
    in_node = Node()
    in_node.child = in_node
    assert message(ValueError, lambda: Tree.of(in_node)) == (
        "params child: the same dataclass Node as params, expected a tree without cycles"
    )
    branching: list = []
    branching += [branching, branching]
    assert message(ValueError, lambda: Tree.of(branching)).startswith("params 0: the same list as params,")


def test_a_cyclic_second_tree_is_refused_where_it_differs() -> None:
    tree, _ = Tree.of([a, [b]])
    cyclic: list = [a]
    cyclic.append(cyclic)
    assert message(ValueError, lambda: tree.leaves(cyclic, "grads")) == "grads 1: 2 items, expected 1"


def test_a_container_in_two_places_is_no_cycle() -> None:
    shared = [a]
    assert Tree.of([shared, {"x": shared}])[0].paths == ("0/0", "1/x/0")


# Containers with a will of their own


class Endless(collections.abc.Mapping):
    """Holds a new mapping of the same kind at every look."""

    def __getitem__(self, key: object) -> Endless:
        return Endless()

    def __iter__(self) -> typing.Iterator[str]:
        return iter(["k"])

    def __len__(self) -> int:
        return 1


def test_an_endless_tree_is_refused() -> None:
    assert "nested more than 1000 deep" in message(ValueError, lambda: Tree.of(Endless()))


def test_each_container_is_read_once() -> None:
    tree, _ = Tree.of({"x": {"w": a, "b": b}})
    for use in (
        Tree.of,
        lambda params: tree.leaves(params, "grads"),
        lambda params: tree.build(params, [a, b]),
    ):
        counted = Counted({"w": a, "b": b})
        use({"x": counted})
        assert counted.reads == {"w": 1, "b": 1, "iteration": 1}
    counted = Counted({"w": a, "v": b})
    assert (
        message(ValueError, lambda: tree.leaves({"x": counted}, "grads")) == "grads x/b: missing, found x/v"
    )
    assert counted.reads == {"w": 1, "v": 1, "iteration": 1}


@pytest.mark.parametrize(
    "error", [KeyError("w"), RuntimeError("no"), KeyboardInterrupt(), ZeroDivisionError()]
)
def test_what_a_container_raises_passes_through(error: BaseException) -> None:
    tree, _ = Tree.of({"w": a, "b": b})
    for use in (Tree.of, lambda params: tree.leaves(params, "grads")):
        with pytest.raises(type(error)) as caught:
            use(Counted({"w": a, "b": b}, error))
        assert caught.value is error


def test_what_a_field_raises_passes_through() -> None:
    @dataclasses.dataclass
    class Late:
        w: typing.Any = dataclasses.field(init=False)

    with pytest.raises(AttributeError, match="'Late' object has no attribute 'w'"):
        Tree.of([Late()])


def test_a_tree_keeps_nothing_of_the_containers_it_was_made_from() -> None:
    params = {"w": a, "layers": [b]}
    tree, leaves = Tree.of(params)
    params["layers"].append(c)
    del params["w"]
    assert tree.paths == ("w", "layers/0")
    assert leaves == [a, b]
    assert (
        message(ValueError, lambda: tree.leaves(params, "params"))
        == "params w: missing, expected as in the state"
    )
    assert not any(params is found or params["layers"] is found for found in gc.get_referents(tree))


def test_a_leaf_list_does_not_follow_later_changes() -> None:
    tree, _ = Tree.of([a, b])
    grads = [b, c]
    leaves = tree.leaves(grads, "grads")
    grads.clear()
    assert leaves == [b, c]


def test_a_missing_key_is_not_made_by_asking_for_it() -> None:
    tree, _ = Tree.of({"w": a, "b": b})
    grads = collections.defaultdict(Leaf, w=a, v=b)
    assert message(ValueError, lambda: tree.leaves(grads, "grads")) == "grads b: missing, found v"
    assert sorted(grads) == ["v", "w"]
