"""Paths: what a leaf is called, from the keys on the way to it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

__all__ = ["at", "child_paths", "joined_plainly", "refuse_equal_paths"]


def at(role: str, path: str) -> str:
    """The head of a message about what stands at a path in the argument called `role`."""
    return f"{role} {path}" if path else role


def _key_text(key: Any, where: str) -> str:
    """The key as it stands in a path."""
    if type(key) is str:
        text = key
    else:
        text = str(key)
        if re.search(r" at 0x[0-9a-fA-F]+", text):
            raise TypeError(
                f"{where}: a key of type {type(key).__name__} whose str() has an address in it, "
                f"expected a str, an int or another key with a lasting str()"
            )
    return text.replace("~", "~0").replace("/", "~1")


def joined_plainly(path: str) -> str:
    """A path as its keys joined by slashes; it may be that of another leaf, too."""
    return path.replace("~1", "/").replace("~0", "~")


def child_paths(path: str, is_root: bool, keys: Sequence[Any], role: str) -> list[str]:
    """The paths of what a container at `path` holds under `keys`.

    Raises:
        TypeError: the text of a key has an address in it, so it would be another one in the next process.
    """
    where = at(role, path)
    prefix = "" if is_root else path + "/"
    return [prefix + _key_text(key, where) for key in keys]


def refuse_equal_paths(paths: Sequence[str], keys: Sequence[Any], role: str) -> None:
    """Raise a ValueError that names both keys where two of one container have the same path, as 1 and "1"."""
    seen: dict[str, Any] = {}
    for path, key in zip(paths, keys, strict=True):
        if path in seen:
            raise ValueError(f"{at(role, path)}: the keys {seen[path]!r} and {key!r} both have this path")
        seen[path] = key
