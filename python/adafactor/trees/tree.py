"""Trees of arrays: flattening to leaves with paths, matching a second tree to the first, building a new one.

Nothing here looks inside an array, and nothing recurses: a hostile tree ends in an exception that names a
path, never in an overflow of the C stack.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, final

from adafactor import _core
from adafactor.trees.containers import (
    LEAF,
    NONE,
    PLAIN,
    WRONG,
    advice,
    kind_of,
    kind_of_class,
    name_of,
    read,
    rebuild,
)
from adafactor.trees.given import Given
from adafactor.trees.mismatch import (
    EXPECTED,
    Node,
    describe_difference,
    refuse_cycle_and_depth,
    refuse_leaf,
)
from adafactor.trees.paths import at, child_paths, refuse_equal_paths

__all__ = ["Tree"]


class _Reader(NamedTuple):
    """A node made ready for the walk of every step."""

    slot: int
    plain: type | None
    keys: tuple[Any, ...]


def _reader(node: Node) -> _Reader:
    return _Reader(node.slot, PLAIN.get(node.kind), node.keys)


@final
class Tree:
    """The structure of a tree of arrays: which containers, which keys, which paths; no array.

    A tree is any nesting of dict (any mapping), list, tuple, namedtuple and dataclass around arrays, or one
    array. A `Tree` is immutable, can be pickled, and refers to none of the containers or classes that it was
    made from: a namedtuple or a dataclass is its field names.

    Two are equal when they have the same containers with the same keys in the same order, and so the same
    leaves in the same order. Where the order of keys is not to count, ask `difference`.

    Example:
        >>> import numpy as np
        >>> tree, leaves = Tree.of({"encoder": [np.zeros(3), np.ones(2)], "bias": np.zeros(())})
        >>> tree.paths
        ('encoder/0', 'encoder/1', 'bias')
        >>> grads = {"bias": np.ones(()), "encoder": [np.ones(3), np.ones(2)]}
        >>> [leaf.shape for leaf in tree.leaves(grads, "grads")]
        [(3,), (2,), ()]
        >>> tree.leaves({"bias": np.ones(())}, "grads")
        Traceback (most recent call last):
        ValueError: grads encoder: missing
    """

    __slots__ = ("_nodes", "_paths", "_pick_leaves", "_readers", "_slots", "_starts")

    _nodes: tuple[Node, ...]
    _readers: tuple[_Reader, ...]
    _starts: dict[int, tuple[int, int]]
    _paths: tuple[str, ...]
    _slots: tuple[int, ...]
    _pick_leaves: Callable[[list[Any]], Sequence[Any]]

    def __init__(self, nodes: Sequence[tuple[int, str, tuple[Any, ...]]]) -> None:
        """From the description that pickling keeps; a tree of arrays is described by `Tree.of`."""
        fix = functools.partial(object.__setattr__, self)
        fix("_nodes", tuple(Node(*node) for node in nodes))
        fix("_readers", tuple(map(_reader, self._nodes)))
        starts: dict[int, tuple[int, int]] = {}
        end = 1
        for index, node in enumerate(self._nodes):
            starts[node.slot] = (index, end)
            end += len(node.keys)
        fix("_starts", starts)
        leaves = [(slot, path) for slot, path, node in self._walk("params") if node is None]
        slots = tuple(slot for slot, _ in leaves)
        fix("_slots", slots)
        fix("_paths", tuple(path for _, path in leaves))
        first = slots[0] if slots else 0
        if slots == tuple(range(first, first + len(slots))):
            fix("_pick_leaves", operator.itemgetter(slice(first, first + len(slots))))
        else:
            fix("_pick_leaves", operator.itemgetter(*slots))

    @classmethod
    def of(cls, params: Any, role: str = "params") -> tuple[Tree, list[Any]]:
        """Flatten a tree of arrays into its structure and its leaves.

        Args:
            params: any nesting of dict (any mapping), list, tuple, namedtuple and dataclass around leaves, or
                one leaf, at most `MAX_DEPTH` containers deep. An object that is an array (it has `__dlpack__`
                or `__array_interface__`) is a leaf even where it is a sequence too. Each container is read
                once.
            role: the word at the head of messages.

        Returns:
            The structure, and the leaves in its order: depth first, each container in its own order.

        Raises:
            TypeError: a value that is neither a container nor possibly an array (a string, a number, None, a
                set, an iterator), or a key whose text would not outlive the process.
            ValueError: a container inside itself, too deep a nesting, two keys with one path.
            Exception: whatever a container raises while it is read, unchanged.
        """
        nodes: list[Node] = []
        leaves: list[Any] = []
        open_containers: dict[int, tuple[str, Any]] = {}
        end = 1
        pending: list[tuple[int, str, Any]] = [(0, "", params)]
        while pending:
            slot, path, value = pending.pop()
            if slot < 0:
                del open_containers[id(value)]
                continue
            kind = kind_of(value)
            if kind == LEAF:
                leaves.append(value)
                continue
            if kind == WRONG or (kind == NONE and slot == 0):
                raise TypeError(f"{at(role, path)}: {name_of(value)}, expected {EXPECTED}{advice(value)}")
            refuse_cycle_and_depth(value, path, open_containers, role)
            contents = read(value, kind)
            keys, values = _keys_and_values(contents)
            paths = child_paths(path, slot == 0, keys, role)
            if isinstance(contents, dict):
                refuse_equal_paths(paths, keys, role)
            nodes.append(Node(slot, kind, keys))
            open_containers[id(value)] = (path, value)
            # A negative slot marks the moment at which everything inside this container has been seen.
            pending.append((-1, "", value))
            children = zip(range(end, end + len(keys)), paths, values, strict=True)
            pending.extend(reversed(list(children)))
            end += len(keys)
        return cls(nodes), leaves

    @property
    def paths(self) -> tuple[str, ...]:
        """The path of each leaf, in order.

        A path is the keys from the root joined by '/', with '~' and '/' inside a key written '~0' and '~1',
        positions as numbers and fields by name. The leaf of a tree that is one array has the path ''.
        """
        return self._paths

    def leaves(self, tree: Any, role: str, allow_none: bool = False) -> list[Any]:
        """The leaves of another tree of this structure, in the order of this one.

        Dicts, namedtuples and dataclasses are matched by key or field, in whatever order they are; their
        classes do not count. Each container is read once.

        Args:
            tree: the other tree.
            role: the word at the head of messages: "params" or "grads".
            allow_none: whether None may stand for a leaf.

        Raises:
            ValueError: the tree has another structure; the message names the first path that differs.
            TypeError: a value in the place of a leaf that cannot be an array.
            Exception: whatever a container raises while it is read, unchanged.
        """
        leaves = self._values(tree, role, allow_none)
        self._refuse_classes(_core.classes_of(leaves), leaves, role, allow_none)
        return leaves

    def given(self, params: Any, grads: Any) -> Given:
        """The leaves of parameters, and of gradients of the same structure, of which each may be None.

        Raises as `leaves`.
        """
        found = _core.gather(params, grads, self._readers, self._slots)
        if found is not None:
            given = Given(*found)
        else:
            given = Given.of(self._values(params, "params", False), self._values(grads, "grads", True))
        self._refuse_classes(given.classes, given.leaves, "params", False)
        self._refuse_classes(given.of_gradients, given.gradients, "grads", True)
        return given

    def _refuse_classes(self, classes: list[type], leaves: list[Any], role: str, allow_none: bool) -> None:
        for cls in classes:
            if kind_of_class(cls) != LEAF and not (allow_none and cls is type(None)):
                for path, leaf in zip(self._paths, leaves, strict=True):
                    refuse_leaf(leaf, path, role, allow_none)

    def build(self, like: Any, leaves: Sequence[Any]) -> Any:
        """A new tree with the containers of `like` and other leaves; `like` is left as it is.

        Args:
            like: a tree of this structure. Its containers give the classes and the order of keys. A
                namedtuple or a dataclass, frozen or not, keeps its class, and attributes outside of its
                fields. So does a mapping or list of any other class that can be copied or made from its
                contents; where that fails, a plain dict or list takes its place.
            leaves: the new leaves, in the order of this tree.

        Returns:
            The new tree.

        Raises:
            ValueError: `like` has another structure, or the number of leaves is not this tree's.
            TypeError: a dataclass that `copy.copy` does not copy.
        """
        if len(leaves) != len(self._slots):
            raise ValueError(f"{len(leaves)} leaves, expected {len(self._slots)}")
        contents: list[Any] = []
        pool = self._open(like, "params", allow_none=True, opened=contents)
        made = list(pool)
        for slot, leaf in zip(self._slots, leaves, strict=True):
            made[slot] = leaf
        # Containers are listed before what they hold, so in reverse each finds its parts made.
        for node, held in zip(reversed(self._nodes), reversed(contents), strict=True):
            _, start = self._starts[node.slot]
            parts: Any = made[start : start + len(node.keys)]
            if isinstance(held, dict):
                by_key = dict(zip(node.keys, parts, strict=True))
                parts = {key: by_key[key] for key in held}
            made[node.slot] = rebuild(pool[node.slot], node.kind, parts)
        return made[0]

    def difference(self, other: Tree, role: str) -> str | None:
        """The first path at which another structure differs from this one, in words; None if there is none.

        The order of keys does not count: None means that the two have the same paths and kinds of containers,
        though maybe in another order.

        Args:
            other: the structure that was found, where this one was expected.
            role: what `other` is: the word at the head of the message.

        Returns:
            A message such as "state encoder/w: missing", or None.

        Example:
            >>> import numpy as np
            >>> ours, theirs = (Tree.of(params)[0] for params in ([np.zeros(1)], [np.zeros(1), np.zeros(1)]))
            >>> ours.difference(theirs, "state")
            'state: 2 items, expected 1'
        """
        pending = [(0, 0, "")]
        while pending:
            mine, theirs, path = pending.pop()
            index, start = self._starts.get(mine, (None, 0))
            other_index, other_start = other._starts.get(theirs, (None, 0))
            if index is None and other_index is None:
                continue
            if index is None or other_index is None:
                found = other._nodes[other_index].kind if other_index is not None else "an array"
                expected = self._nodes[index].kind if index is not None else "an array"
                return f"{at(role, path)}: {found}, expected {expected}"
            node, found_node = self._nodes[index], other._nodes[other_index]
            words = describe_difference(node, found_node.kind, found_node.kind, found_node.keys, path, role)
            if words is not None:
                return words
            place = {key: other_start + position for position, key in enumerate(found_node.keys)}
            paths = child_paths(path, mine == 0, node.keys, role)
            children = [
                (start + position, place[key], paths[position]) for position, key in enumerate(node.keys)
            ]
            pending.extend(reversed(children))
        return None

    def _values(self, tree: Any, role: str, allow_none: bool) -> list[Any]:
        """What stands at the places of the leaves, whatever it is."""
        return list(self._pick_leaves(self._open(tree, role, allow_none)))

    def _open(self, tree: Any, role: str, allow_none: bool, opened: list[Any] | None = None) -> list[Any]:
        """The pool, for which every container is read once; what each of them held goes to `opened`."""
        pool = [tree]
        for index, (slot, plain, keys) in enumerate(self._readers):
            value = pool[slot]
            if plain is dict and type(value) is dict and opened is None:
                values = _core.values_in_order(value, keys)
                if values is not None:
                    pool.extend(values)
                    continue
            if type(value) is plain:
                contents = plain(value)
            else:
                kind = self._nodes[index].kind
                if kind_of(value) != kind:
                    raise self._mismatch(pool, index, (), role, allow_none)
                contents = read(value, kind)
            if isinstance(contents, dict):
                values = _core.values_in_order(contents, keys)
            else:
                values = contents if len(contents) == len(keys) else None
            if values is None:
                raise self._mismatch(pool, index, contents, role, allow_none)
            pool.extend(values)
            if opened is not None:
                opened.append(contents)
        return pool

    def _mismatch(self, pool: list[Any], index: int, contents: Any, role: str, allow_none: bool) -> Exception:
        """The error for a container that is not the expected one, or for a wrong leaf before it."""
        for slot, path, node in self._walk(role):
            if node is None:
                try:
                    refuse_leaf(pool[slot], path, role, allow_none)
                except (TypeError, ValueError) as error:
                    return error
            elif node is self._nodes[index]:
                value = pool[slot]
                words = describe_difference(
                    node, kind_of(value), name_of(value), _keys_and_values(contents)[0], path, role
                )
                return ValueError(words)
        raise AssertionError("a node is always met by the walk")

    def _walk(self, role: str) -> Iterator[tuple[int, str, Node | None]]:
        """Slot, path and, for a container, node of everything in the tree, in flatten order."""
        pending = [(0, "")]
        while pending:
            slot, path = pending.pop()
            index, start = self._starts.get(slot, (None, 0))
            if index is None:
                yield slot, path, None
                continue
            node = self._nodes[index]
            yield slot, path, node
            paths = child_paths(path, slot == 0, node.keys, role)
            pending.extend(reversed(list(enumerate(paths, start))))

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a Tree is immutable: {name} cannot be set")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a Tree is immutable: {name} cannot be deleted")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tree):
            return NotImplemented
        # The paths tell apart keys that are equal and have different texts, as 1 and True.
        return self._nodes == other._nodes and self._paths == other._paths

    def __hash__(self) -> int:
        return hash(self._nodes)

    def __repr__(self) -> str:
        return f"Tree({len(self._slots)} leaves in {len(self._nodes)} containers)"

    def __copy__(self) -> Tree:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Tree:
        return self

    def __reduce__(self) -> tuple[type[Tree], tuple[tuple[tuple[Any, ...], ...]]]:
        return Tree, (tuple(tuple(node) for node in self._nodes),)


def _keys_and_values(contents: Any) -> tuple[tuple[Any, ...], Sequence[Any]]:
    if isinstance(contents, dict):
        return tuple(contents), tuple(contents.values())
    return tuple(range(len(contents))), contents
