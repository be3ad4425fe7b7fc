"""Arrays of JAX, which nobody may write: new ones are made in NumPy's memory and become JAX' at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import jax
import numpy as np
from numpy.typing import NDArray


def new_like(leaf: Any) -> Any:
    """An array of NumPy for a step to write into. A tracer stays, for the call to refuse it by name."""
    return leaf if isinstance(leaf, jax.core.Tracer) else np.empty(leaf.shape, leaf.dtype)


def finished(output: Any, leaf: Any) -> jax.Array:
    """An array of JAX where the old parameter is; on the CPU it takes over the memory if JAX can."""
    return cast(jax.Array, jax.device_put(output, leaf.sharding))


def mark_written(leaves: Sequence[Any]) -> None:
    """Nothing: no array of JAX is ever written."""


def assign(leaf: Any, values: NDArray[Any]) -> None:
    """Refuse: nobody may write into an array of JAX."""
    raise BufferError("an immutable jax.Array, expected an array that can be written")


def handed_out(array: NDArray[Any]) -> jax.Array:
    """A copy: the state's memory changes, which an array of JAX must not."""
    if array.dtype == np.uint16:
        array = array.view(jax.numpy.bfloat16)
    return jax.numpy.array(array, copy=True)
