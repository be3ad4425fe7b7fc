"""The containers that JAX' libraries register with it, opened and made by JAX; nothing here loads it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

__all__ = ["children", "is_registered", "with_children"]


def is_registered(value: Any) -> bool:
    """Whether JAX, where it is loaded, takes this value for a container."""
    tree_util = _tree_util()
    return tree_util is not None and not tree_util.all_leaves([value])


def children(value: Any) -> dict[Any, Any]:
    """What such a container holds, one level deep, under JAX' keys: names, keys or positions."""
    pairs, _ = _require_tree_util().tree_flatten_with_path(value, is_leaf=_all_but_the_first())
    return {_key(path[-1]): part for path, part in pairs}


def with_children(value: Any, parts: dict[Any, Any]) -> Any:
    """Such a container made anew around other parts, in the order of `children`; what is static stays."""
    tree_util = _require_tree_util()
    _, structure = tree_util.tree_flatten(value, is_leaf=_all_but_the_first())
    return tree_util.tree_unflatten(structure, [parts[key] for key in children(value)])


def _all_but_the_first() -> Callable[[Any], bool]:
    """Whether something is a leaf: not the container that JAX begins with, but all that is in it."""
    answers = iter([False])
    return lambda _: next(answers, True)


def _tree_util() -> Any:
    # While JAX is being loaded it has none yet.
    return getattr(sys.modules.get("jax"), "tree_util", None)


def _require_tree_util() -> Any:
    tree_util = _tree_util()
    assert tree_util is not None, "only what JAX has registered is opened by it"
    return tree_util


def _key(entry: Any) -> Any:
    """The name of a field, the key in a dict, or the position, of whatever kind of key JAX gives."""
    for attribute in ("name", "key", "idx"):
        if hasattr(entry, attribute):
            return getattr(entry, attribute)
    return str(entry)
