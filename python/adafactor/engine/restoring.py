"""What a state is filled with, each piece checked: counters, names, arrays."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adafactor import _core
from adafactor.arrays import copied_as_numpy
from adafactor.arrays.bits import bits_dtype, held_by, numbers
from adafactor.knobs.numbers import count
from adafactor.trees.paths import at

__all__ = ["as_stored", "counts_of", "refuse_other_keys"]

_SQUARES = ("row", "col", "full")  # kinds of which no element is below 0


def counts_of(calls: Any, updates: Any, paths: Sequence[str], window: int) -> tuple[int, list[int]]:
    """The number of calls, and the updates of each leaf in the order of the paths.

    Args:
        calls: how many calls counted.
        updates: a whole number by path, or one for each path; None: as many as the calls made.
        paths: the paths of the leaves.
        window: how many calls make an update.
    """
    calls = count("calls", calls)
    if updates is None:
        return calls, [calls // window] * len(paths)
    if isinstance(updates, Mapping):
        refuse_other_keys("updates", updates, paths)
        updates = [updates[path] for path in paths]
    counts = [count("updates", value) for value in updates]
    if len(counts) != len(paths):
        raise ValueError(f"updates: {len(counts)} numbers, expected {len(paths)}")
    return calls, counts


def refuse_other_keys(role: str, found: Mapping[Any, Any], expected: Collection[Any]) -> None:
    """Raise a ValueError with the first key, a path or a path and a kind, that only one of the two has."""
    for key in sorted(found.keys() ^ set(expected), key=repr):
        path, kind = key if isinstance(key, tuple) else (key, "")
        problem = "missing" if key in expected else "not in the state"
        raise ValueError(f"{' '.join(filter(None, (at(role, path), kind)))}: {problem}")


def as_stored(value: Any, like: NDArray[Any], key: tuple[str, str], finite: bool) -> NDArray[Any]:
    """A value as an array that can be written over `like`; raises where it cannot.

    Of a type that NumPy lacks the bits count as such whether they come as whole numbers, by the name that
    `ml_dtypes` has for it, or as raw bytes.
    `finite` refuses numbers that no step leaves in a state: NaN, Inf, and moments below 0.
    """
    path, kind = key
    where = f"{at('tensors', path)} {kind}"
    array = _any_as_numpy(value)
    if array.shape != like.shape:
        raise ValueError(f"{where}: shape {array.shape}, expected {like.shape}")
    name = held_by(like.dtype)
    if name:
        bits = bits_dtype(name)
        others = array.dtype.kind == "f" and array.dtype.name != name
        if array.dtype.itemsize != bits.itemsize or others:
            raise TypeError(f"{where}: dtype {array.dtype}, expected {name} or its bits as {bits}")
        found = np.ascontiguousarray(array).view(bits).reshape(like.shape)
        if finite:
            _refuse_numbers(~np.isfinite(numbers(found)), where, "finite numbers")
        return found.view(like.dtype)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{where}: dtype {array.dtype}, expected {like.dtype}")
    with np.errstate(over="ignore"):
        stored = array.astype(like.dtype)
    if not finite:
        return stored
    if kind in _SQUARES:
        _refuse_numbers(~(stored >= 0) | np.isinf(stored), where, "finite numbers >= 0")
    else:
        _refuse_numbers(~np.isfinite(stored), where, "finite numbers")
    return stored


def _refuse_numbers(wrong: NDArray[np.bool_], where: str, expected: str) -> None:
    """Raise a ValueError where something is wrong: a step would make NaN of the parameter."""
    count = np.count_nonzero(wrong)
    if count:
        first = np.unravel_index(int(wrong.argmax()), wrong.shape)
        place = f", the first at {tuple(map(int, first))}" if wrong.ndim else ""
        raise ValueError(f"{where}: {count} of {wrong.size} values are not {expected}{place}")


def _any_as_numpy(value: Any) -> NDArray[Any]:
    """Anything that is like an array as one of NumPy; of a type that NumPy lacks the bits."""
    try:
        return copied_as_numpy(value)
    except _core.Error:
        return np.asarray(value)
