"""The containers that a tree of arrays is made of: telling them from leaves, reading one, making one anew.

A container is read into a private copy, once, so that what another thread does to it later is never seen. A
new one is made without touching the old one, whatever its class does when it is copied.
"""

from __future__ import annotations

import collections
import collections.abc
import copy
import dataclasses
import functools
import numbers
from collections.abc import Callable
from typing import Any, cast

from adafactor.trees import pytrees

__all__ = [
    "LEAF",
    "NONE",
    "PLAIN",
    "WRONG",
    "Contents",
    "advice",
    "kind_of",
    "kind_of_class",
    "name_of",
    "read",
    "rebuild",
]

LEAF = "leaf"
NONE = "None"
"""What holds nothing: a place without a leaf, as JAX' libraries leave it."""
NODE = "node"
"""A container of a class that JAX alone can open."""
WRONG = "wrong"
PLAIN: dict[str, type] = {"dict": dict, "list": list, "tuple": tuple}

MAX_DIMENSIONS = 64
"""How many lists inside each other NumPy makes an array of."""

Contents = dict[Any, Any] | list[Any] | tuple[Any, ...]
"""What a container holds: a dict by key or field, or a sequence by position."""

_ARRAY_ATTRIBUTES = ("__dlpack__", "__array_interface__", "__cuda_array_interface__")
_NEVER_A_LEAF = (
    str,
    bytes,
    bytearray,
    range,
    collections.deque,
    numbers.Number,
    collections.abc.Set,
    collections.abc.Iterator,
    collections.abc.MappingView,
)


def _is_array_class(cls: type) -> bool:
    # The class is asked, not the instance: a dict with a `__getattr__` that answers to all names is no array.
    return any(hasattr(cls, name) for name in _ARRAY_ATTRIBUTES)


def _kind_of_class(cls: type) -> str:
    if cls in (dict, list, tuple):
        return cls.__name__
    if cls is type(None):
        return NONE
    # What is an array and a sequence too is an array.
    if _is_array_class(cls):
        return LEAF
    if issubclass(cls, dict):
        return "dict"
    if dataclasses.is_dataclass(cls):
        return "dataclass"
    if issubclass(cls, tuple):
        return "namedtuple" if isinstance(getattr(cls, "_fields", None), tuple) else "tuple"
    if issubclass(cls, list):
        return "list"
    if issubclass(cls, collections.abc.Mapping):
        return "dict"
    return WRONG if issubclass(cls, _NEVER_A_LEAF) else LEAF


kind_of_class = cast(Callable[[type], str], functools.lru_cache(maxsize=512)(_kind_of_class))
"""What a value of a class is in a tree: the name of a kind of container, `LEAF`, or neither (`WRONG`)."""


def kind_of(value: Any) -> str:
    """What a value is in a tree: as its class says, or a `NODE` where only JAX can tell."""
    kind = kind_of_class(type(value))
    if kind == LEAF and not _is_array_class(type(value)) and pytrees.is_registered(value):
        return NODE
    return kind


def _is_made_by_jax(value: Any, kind: str) -> bool:
    """Whether JAX makes such a container anew: one of its own, a mapping or dataclass that it knows."""
    if kind == "dict":
        # Not one that was registered without its keys.
        known = not isinstance(value, dict) and pytrees.is_registered(value)
        return known and pytrees.children(value).keys() == set(value)
    return kind == NODE or (kind == "dataclass" and pytrees.is_registered(value))


@functools.lru_cache(maxsize=512)
def _field_names(cls: Any) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(cls))


def read(value: Any, kind: str) -> Contents:
    """A copy of what a container of a kind holds. What the container raises passes through."""
    if kind == "dict":
        if type(value) is dict:
            return dict(value)
        # A mapping may show what it holds in another form; that of JAX is what it can be made of again.
        held = pytrees.children(value) if _is_made_by_jax(value, kind) else value
        return {key: held[key] for key in value}
    if kind == "namedtuple":
        return dict(zip(type(value)._fields, value, strict=True))
    if kind == "dataclass":
        # Of one that JAX knows, the fields that it says are data, in their own order.
        names = _field_names(cast(Any, type(value)))
        data = pytrees.children(value) if pytrees.is_registered(value) else names
        return {name: getattr(value, name) for name in names if name in data}
    if kind == NODE:
        return pytrees.children(value)
    return () if kind == NONE else tuple(value)


def name_of(value: Any) -> str:
    """What a message calls a value: its class alone, since the value may be huge and its repr may raise."""
    if value is None:
        return "None"
    kind = kind_of_class(type(value))
    name = type(value).__name__
    return f"{kind} {name}" if kind in ("namedtuple", "dataclass") else name


def advice(value: Any) -> str:
    """What the message about a value that is no array adds: how numbers, or an iterator, become some."""
    if isinstance(value, collections.abc.Iterator):
        return "; list() has the arrays of an iterator, dict(module.named_parameters()) those of a module"
    first = value
    for _ in range(MAX_DIMENSIONS):
        if type(first) in (list, tuple) and first:
            first = first[0]
    return "; numpy.array makes one of a list of numbers" if isinstance(first, int | float) else ""


def rebuild(value: Any, kind: str, parts: dict[Any, Any] | list[Any]) -> Any:
    """A new container of the class of `value` around `parts`: a dict by key or field, or a list.

    A mapping or sequence of a class that cannot be made anew becomes a plain dict, list or tuple.
    """
    if kind == NONE:
        return None
    if type(value) in (dict, list):
        return parts
    if _is_made_by_jax(value, kind):
        return pytrees.with_children(value, cast(dict[Any, Any], parts))
    if kind == "dataclass":
        return _new_dataclass(value, cast(dict[str, Any], parts))
    if isinstance(value, tuple):
        return _new_tuple(value, parts.values() if isinstance(parts, dict) else parts)
    # A copy keeps more than the items, such as the factory of a defaultdict. Only what is a dict or a list
    # itself is copied: any other mapping may share its inner dict with its copy, so it is made from the
    # items.
    makers: tuple[Callable[[Any, Any], Any], ...] = (_from_items,)
    if isinstance(value, dict):
        makers = (_refilled_dict, _from_items)
    elif isinstance(value, list):
        makers = (_refilled_list, _from_items)
    for make in makers:
        try:
            made = make(value, parts)
            # A class may drop, add or replace what it is given.
            if type(made) is type(value) and _same_items(made, parts):
                return made
        except Exception:
            # The class refuses, in whatever way its author chose.
            continue
    return parts


def _same_items(made: Any, parts: dict[Any, Any] | list[Any]) -> bool:
    found, expected = list(made), list(parts)  # of a mapping, the keys
    if isinstance(parts, dict):
        return found == expected
    return len(found) == len(expected) and all(map(_is, found, expected))


def _is(a: Any, b: Any) -> bool:
    return a is b


def _from_items(value: Any, parts: dict[Any, Any] | list[Any]) -> Any:
    return type(value)(parts)


def _clone(value: Any) -> Any:
    """A shallow copy that is sure to be another object of the same class."""
    clone = copy.copy(value)
    if clone is value or type(clone) is not type(value):
        raise TypeError(f"{name_of(value)}: copy.copy() gives no new {type(value).__name__}")
    return clone


def _refilled_dict(value: Any, parts: dict[Any, Any]) -> Any:
    clone = _clone(value)
    for key, part in parts.items():
        # Past the class's own __setitem__: that of a proxy writes into what copies share.
        dict.__setitem__(clone, key, part)
    if any(clone[key] is not part for key, part in parts.items()):
        raise TypeError(f"{name_of(value)}: the items are not kept in the dict itself")
    return clone


def _refilled_list(value: Any, parts: list[Any]) -> Any:
    clone = _clone(value)
    list.__setitem__(clone, slice(None), parts)
    return clone


def _new_tuple(value: Any, parts: Any) -> Any:
    if type(value) is tuple:
        return tuple(parts)
    parts = tuple(parts)
    try:
        # Past the class's own __new__, which may take something else than the items.
        made = tuple.__new__(type(value), parts)
    except TypeError:  # a class written in C, as time.struct_time
        return parts
    if hasattr(value, "__dict__"):
        vars(made).update(vars(value))
    return made


def _new_dataclass(value: Any, parts: dict[str, Any]) -> Any:
    clone = _clone(value)
    for name, part in parts.items():
        # Past the class's own __setattr__, with which a frozen dataclass refuses.
        object.__setattr__(clone, name, part)
    return clone
