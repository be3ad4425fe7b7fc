"""Arrays on a device, of a library without a module here that follows the array API standard, as CuPy."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adafactor import _core
from adafactor.arrays.bits import bits_dtype, rounded


class Namespace:
    """A library by its namespace; see `Library`."""

    mark = None

    def __init__(self, namespace: ModuleType) -> None:
        self._namespace = namespace

    def new_like(self, leaf: Any) -> Any:
        """An array for a step to write into."""
        return self._namespace.empty_like(leaf)

    def finished(self, outputs: list[Any], leaves: list[Any]) -> list[Any]:
        """The arrays themselves."""
        return outputs

    def is_sole(self, leaf: Any) -> bool:
        """No: nobody knows."""
        return False

    def assign(self, leaf: Any, values: NDArray[Any]) -> None:
        """Write the values into the leaf's memory, rounded to nearest."""
        _, name, _ = _core.inspect_arrays([leaf])[0]
        dtype = bits_dtype(name) if name in _core.bit_types else np.dtype(name)
        _core.copy_to_device(leaf, np.asarray(rounded(values, dtype), dtype))

    def handed_out(self, array: NDArray[Any]) -> Any:
        """A copy on the device, of a piece in the CPU's memory."""
        return self._namespace.asarray(array)

    def lent(self, piece: Any) -> Any:
        """An array over the same memory."""
        return self._namespace.from_dlpack(piece)

    def allocator(self, device: str) -> Callable[[int], Any] | None:
        """None: CUDA's own memory."""
        return None
