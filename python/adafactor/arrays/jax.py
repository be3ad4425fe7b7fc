"""Arrays of JAX, which nobody may write: new ones are made in NumPy's memory and become JAX' at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import jax
import numpy as np
from numpy.typing import NDArray

from adafactor.arrays.bits import held_by

mark = None
"""Nobody is told of a write: no array of JAX is ever written."""


def new_like(leaf: Any) -> Any:
    """An array of NumPy for a step to write into."""
    return np.empty(leaf.shape, leaf.dtype)


def finished(outputs: list[Any], leaves: list[Any]) -> list[Any]:
    """Arrays of JAX where the old parameters are; on the CPU they take over the memory if JAX can.

    All at once, which costs JAX less. One that was free to move stays so.
    """
    places = [leaf.sharding if leaf.committed else None for leaf in leaves]
    return cast(list[Any], jax.device_put(outputs, places))


def is_sole(leaf: Any) -> bool:
    """No: no array of JAX is ever written, so that none is written in vain."""
    return False


def assign(leaf: Any, values: NDArray[Any]) -> None:
    """Refuse: nobody may write into an array of JAX."""
    raise BufferError("an immutable jax.Array, expected an array that can be written")


def handed_out(array: NDArray[Any]) -> jax.Array:
    """A copy: the state's memory changes, which an array of JAX must not."""
    name = held_by(array.dtype)
    if name:
        array = array.view(getattr(jax.numpy, name))
    return jax.numpy.array(array, copy=True)


def lent(piece: Any) -> Any:
    """Refuse: nothing of a state on a device is JAX', whose arrays no step takes there."""
    raise BufferError("a state on a device, of which an array of JAX cannot be a part")


def allocator(device: str) -> Callable[[int], Any] | None:
    """None: no step takes arrays of JAX there."""
    return None
