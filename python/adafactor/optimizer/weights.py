"""A state as the list of weights that Keras' optimizer has, without its full-size velocities, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adafactor.engine.restoring import refuse_other_keys
from adafactor.knobs.numbers import exact_whole_number
from adafactor.knobs.rates import checked_rate
from adafactor.state import State, engine_of

__all__ = ["head", "restore", "weights"]


def head(calls: int, learning_rate: Any) -> list[NDArray[Any]]:
    """What stands in front: the number of calls, and the learning rate where it is a number."""
    counter = np.array(calls, np.int64)
    return [counter] if callable(learning_rate) else [counter, np.array(learning_rate)]


def weights(state: State) -> list[NDArray[Any]]:
    """The list: head, averages, accumulators, moments leaf by leaf, and the leaves' own counts, if any."""
    tensors = state.arrays()
    values = head(state.calls, state.config.learning_rate) + [tensors[key] for key in _order(tensors)]
    return [*values, np.array(state.leaf_updates, np.int64)] if _counts_leaves(state) else values


def restore(state: State, values: Sequence[Any], role: str, paths: Sequence[str] | None = None) -> None:
    """Fill the state from such a list; all is checked before anything is written.

    Args:
        state: what is filled.
        values: the list.
        role: what it is called in messages.
        paths: the leaves that it is of, in its order, by which it goes in. None: that order is the state's.

    Raises:
        TypeError: something that is no number, or no array of numbers.
        ValueError: the list has another length, or something in it another shape or an impossible value; or
            the paths are not those of the state.
    """
    values, tensors = list(values), state.arrays()
    if paths is None:
        paths = state.paths
    else:
        refuse_other_keys(role, dict.fromkeys(paths), state.paths)
        places = {path: place for place, path in enumerate(paths)}
        tensors = dict(sorted(tensors.items(), key=lambda item: places[item[0][0]]))
    rate = state.config.learning_rate
    keys = _order(tensors)
    front = 1 if callable(rate) else 2
    expected = front + len(keys) + _counts_leaves(state)
    if len(values) != expected:
        raise ValueError(f"{role}: {len(values)} weights, expected {expected}: {_named(front, keys, state)}")
    calls = exact_whole_number(f"{role}[0] (iteration)", _number(values[0]))
    if not callable(rate):
        rate = checked_rate(f"{role}[1] (learning_rate):", _number(values[1]))
    updates = None
    if _counts_leaves(state):
        counts = np.asarray(values.pop()).ravel()
        if len(counts) != len(paths):
            raise ValueError(f"{role}: updates of {len(counts)} leaves, expected {len(paths)}")
        updates = dict(zip(paths, counts, strict=True))
    engine = engine_of(state)
    with engine.in_use():
        snapshot = engine.snapshot().with_parts(calls, dict(zip(keys, values[front:], strict=True)), updates)
        engine.fill(snapshot if callable(rate) else snapshot.with_rate(rate))


def _order(tensors: dict[tuple[str, str], Any]) -> list[tuple[str, str]]:
    whole = [[key for key in tensors if key[1] == kind] for kind in ("average", "accumulator")]
    return [*whole[0], *whole[1], *(key for key in tensors if key[1] not in ("average", "accumulator"))]


def _counts_leaves(state: State) -> bool:
    return state.config.count_updates == "leaf"


def _number(value: Any) -> Any:
    """The number in an array of one number, as a store may hold it; anything else as it is."""
    array = np.asarray(value)
    return array[()] if array.ndim == 0 else value


def _named(front: int, keys: list[tuple[str, str]], state: State) -> str:
    names = ["iteration", "learning_rate"][:front] + [f"{path} {kind}".strip() for path, kind in keys]
    names += ["updates of each leaf"] if _counts_leaves(state) else []
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
