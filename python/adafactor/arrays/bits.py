"""Types that NumPy lacks, as bfloat16: in its arrays their numbers are bits, whole numbers of the same size.

The core says which these are, and converts them. With `ml_dtypes` NumPy knows them by their own names.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from adafactor import _core

__all__ = ["as_bits", "bits_dtype", "held_by", "numbers", "rounded", "signed_bits"]

_HELD_BY = {bits: name for name, bits in _core.bit_types.items()}


def held_by(dtype: np.dtype[Any]) -> str | None:
    """The name of the type that NumPy lacks and arrays of a dtype hold, as bits or by its name; else None."""
    return dtype.name if dtype.name in _core.bit_types else _HELD_BY.get(dtype.name)


def bits_dtype(name: str) -> np.dtype[Any]:
    """The dtype of the bits of a type of that name."""
    return np.dtype(_core.bit_types[name])


def as_bits(array: NDArray[Any]) -> NDArray[Any]:
    """The same memory: as bits where NumPy lacks the type, else the array itself."""
    name = held_by(array.dtype)
    return array.view(bits_dtype(name)) if name else array


def numbers(array: NDArray[Any]) -> NDArray[Any]:
    """The numbers of an array; where they are bits, as float32."""
    name = held_by(array.dtype)
    return _core.from_bits(as_bits(array), name) if name else array


def rounded(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Values for an array of a dtype: where it holds bits, rounded to nearest, ties to even."""
    name = held_by(dtype)
    return _core.to_bits(values, name) if name else values


def signed_bits(array: NDArray[Any]) -> NDArray[Any]:
    """The same memory as whole numbers with a sign, which torch has had for longest."""
    return array.view(f"int{8 * array.dtype.itemsize}")
