"""Arrays of NumPy, and of libraries without a module of their own, whose new arrays are NumPy's."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adafactor import _core
from adafactor.arrays.bits import held_by, rounded

mark = None
"""Nobody is told of a write: NumPy keeps no count of them."""


def new_like(leaf: Any) -> Any:
    """An array for a step to write into."""
    if isinstance(leaf, np.ndarray):
        return np.empty_like(leaf, subok=False)
    return handed_out(np.empty_like(_core.numpy_view(leaf), order="C"))


def finished(outputs: list[Any], leaves: list[Any]) -> list[Any]:
    """The arrays themselves."""
    return outputs


def is_sole(leaf: Any) -> bool:
    """Whether the memory is an array's own; of other libraries nobody knows."""
    return isinstance(leaf, np.ndarray) and leaf.base is None and bool(leaf.flags.owndata)


def assign(leaf: Any, values: NDArray[Any]) -> None:
    """Write the values into the leaf's memory, rounded to nearest."""
    if isinstance(leaf, np.ndarray):
        leaf[...] = values
        return
    view = _core.numpy_view(leaf, written=True)
    view[...] = rounded(values, view.dtype)


def lent(piece: Any) -> Any:
    """The piece itself, which any library takes that has DLPack."""
    return piece


def allocator(device: str) -> Callable[[int], Any] | None:
    """None: CUDA's own memory."""
    return None


def handed_out(array: NDArray[Any]) -> NDArray[Any]:
    """The same memory; bits as the dtype that they are of where `ml_dtypes` is loaded."""
    name, ml_dtypes = held_by(array.dtype), sys.modules.get("ml_dtypes")
    return array.view(getattr(ml_dtypes, name)) if name and ml_dtypes else array
