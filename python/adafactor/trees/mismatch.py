"""What is said of a tree that is not as expected: the first path at which it differs, and how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from adafactor.trees.containers import LEAF, NONE, WRONG, advice, kind_of, name_of
from adafactor.trees.paths import at, child_paths

__all__ = [
    "EXPECTED",
    "MAX_DEPTH",
    "Node",
    "describe_difference",
    "refuse_cycle_and_depth",
    "refuse_leaf",
]

MAX_DEPTH = 1000
"""How many containers may stand inside each other."""

# What a message adds to what is expected of the parameters of a call.
_LIKE_WHAT = {"params": " as in the state"}
EXPECTED = "an array, or a dict, list, tuple, namedtuple or dataclass of arrays"


class Node(NamedTuple):
    """One container, of a kind, with its keys, fields or positions in order.

    A walk over a tree opens the containers in flatten order and appends what each holds to one list, the
    pool, which starts as [root]. This container is then at pool[slot].
    """

    slot: int
    kind: str
    keys: tuple[Any, ...]


def describe_difference(
    expected: Node, kind: str, name: str, keys: Sequence[Any], path: str, role: str
) -> str | None:
    """How a container of a kind, under a name in messages, with keys, first differs from `expected`."""
    where, like = at(role, path), _LIKE_WHAT.get(role, "")
    if kind != expected.kind:
        return f"{where}: {name}, expected {expected.kind}{like}"
    if kind in ("list", "tuple"):
        if len(keys) != len(expected.keys):
            return f"{where}: {len(keys)} items, expected {len(expected.keys)}{like}"
        return None
    is_root = expected.slot == 0
    found, wanted = set(keys), set(expected.keys)
    missing = [key for key in expected.keys if key not in found]
    extra = [key for key in keys if key not in wanted]
    paths = child_paths(path, is_root, missing[:1] + extra, role)
    if missing:
        for key, extra_path in zip(extra, paths[1:], strict=True):
            if extra_path == paths[0]:
                return (
                    f"{at(role, extra_path)}: the key {key!r} ({type(key).__name__}), "
                    f"expected {missing[0]!r} ({type(missing[0]).__name__})"
                )
        there = f", found {paths[1]}" if extra else ""
        return f"{at(role, paths[0])}: missing{there}{like and ', expected' + like}"
    if extra:
        there = "the state, expected the tree that init was given" if role == "params" else "params"
        return f"{at(role, paths[0])}: not in {there}"
    return None


def refuse_cycle_and_depth(
    value: Any, path: str, open_containers: Mapping[int, tuple[str, Any]], role: str
) -> None:
    if id(value) in open_containers:
        around = at(role, open_containers[id(value)][0])
        raise ValueError(
            f"{at(role, path)}: the same {name_of(value)} as {around}, expected a tree without cycles"
        )
    if len(open_containers) >= MAX_DEPTH:
        start = path if len(path) <= 60 else path[:60] + "..."
        raise ValueError(
            f"{at(role, start)}: containers nested more than {MAX_DEPTH} deep, expected at most {MAX_DEPTH}"
        )


def refuse_leaf(value: Any, path: str, role: str, allow_none: bool) -> None:
    kind = kind_of(value)
    if kind == LEAF or (allow_none and value is None):
        return
    # A container is a difference between two trees; anything else would be wrong in every tree.
    is_wrong = kind in (WRONG, NONE)
    error = TypeError if is_wrong else ValueError
    like = "" if is_wrong else _LIKE_WHAT.get(role, "")
    raise error(f"{at(role, path)}: {name_of(value)}, expected an array{like}{advice(value)}")
