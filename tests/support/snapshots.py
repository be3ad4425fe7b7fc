"""Everything that a call of the library may write, as bytes: two snapshots are equal if nothing changed."""

from collections.abc import Iterable
from typing import Any

import numpy as np

import adafactor

MOST = 2**26
"""Bytes of the largest buffer that is looked at as a whole; a view of a larger one is looked at alone."""


def memory(arrays: Iterable[Any]) -> tuple[bytes, ...]:
    """All of the buffer that each array is a view of, so also what lies between its elements."""
    return tuple(_bytes_of(array) for array in arrays if array is not None)


def _bytes_of(array: np.ndarray) -> bytes:
    buffer = buffer_of(array)
    if buffer.nbytes <= MOST:
        return buffer.tobytes()
    return array.tobytes() if array.nbytes <= MOST else b""


def buffer_of(array: np.ndarray) -> np.ndarray:
    """The array whose memory this one is a view of, itself if it is none."""
    found, base = array, array.base
    while base is not None:
        if isinstance(base, np.ndarray):
            found = base
        base = getattr(base, "base", None)  # a view by strides has a stand-in between itself and its array
    return found


def of_state(state: adafactor.State) -> tuple[Any, ...]:
    """The counters of a state, those of its leaves too, and every tensor."""
    counters = (state.iterations, state.calls, tuple(state._engine.core.counters[3]))
    tensors = {key: array.tobytes() for key, array in state.arrays().items()}
    return counters, tensors


def same_bits(a: Iterable[np.ndarray], b: Iterable[np.ndarray]) -> bool:
    """Whether two lists of arrays hold the same elements, bit for bit."""
    return [x.tobytes() for x in a] == [y.tobytes() for y in b]
