"""Everything that a call of the library may write, as bytes: two snapshots are equal if nothing changed."""

from collections.abc import Iterable
from typing import Any

import numpy as np

import adafactor


def memory(arrays: Iterable[Any]) -> tuple[bytes, ...]:
    """All of the buffer that each array is a view of, so also what lies between its elements."""
    return tuple(buffer_of(array).tobytes() for array in arrays if array is not None)


def buffer_of(array: np.ndarray) -> np.ndarray:
    """The array whose memory this one is a view of, itself if it is none."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def of_state(state: adafactor.State) -> tuple[Any, ...]:
    """The counters of a state, those of its leaves too, and every tensor."""
    counters = (state.iterations, state.calls, tuple(state._core.counts))
    tensors = {key: array.tobytes() for key, array in state.tensors().items()}
    return counters, tensors


def same_bits(a: Iterable[np.ndarray], b: Iterable[np.ndarray]) -> bool:
    """Whether two lists of arrays hold the same elements, bit for bit."""
    return [x.tobytes() for x in a] == [y.tobytes() for y in b]
