"""Arrays of NumPy, and of libraries without a module of their own, whose new arrays are NumPy's."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adafactor import _core


def new_like(leaf: Any) -> Any:
    """An array for a step to write into."""
    if isinstance(leaf, np.ndarray):
        return np.empty_like(leaf, subok=False)
    return handed_out(np.empty_like(_core.numpy_view(leaf), order="C"))


def finished(outputs: list[Any], leaves: list[Any]) -> list[Any]:
    """The arrays themselves."""
    return outputs


def mark_written(leaves: Sequence[Any]) -> None:
    """Nothing: NumPy keeps no count of writes."""


def is_sole(leaf: Any) -> bool:
    """Whether the memory is an array's own; of other libraries nobody knows."""
    return isinstance(leaf, np.ndarray) and leaf.base is None and bool(leaf.flags.owndata)


def assign(leaf: Any, values: NDArray[Any]) -> None:
    """Write the values into the leaf's memory, rounded to nearest."""
    if isinstance(leaf, np.ndarray):
        leaf[...] = values
        return
    view = _core.numpy_view(leaf, written=True)
    view[...] = _bits_of_bfloat16(values) if view.dtype == np.uint16 else values


def handed_out(array: NDArray[Any]) -> NDArray[Any]:
    """The same memory; bits of bfloat16 as that dtype where `ml_dtypes` is loaded."""
    ml_dtypes = sys.modules.get("ml_dtypes")
    return array.view(ml_dtypes.bfloat16) if array.dtype == np.uint16 and ml_dtypes else array


def _bits_of_bfloat16(values: NDArray[Any]) -> NDArray[np.uint16]:
    """float32 rounded to nearest, ties to even; a NaN stays one."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    return np.where(np.isnan(values), (bits >> 16) | 0x40, rounded).astype(np.uint16).reshape(values.shape)
