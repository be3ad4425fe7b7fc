"""Array libraries: one small module for each, and which of them an array is from.

A module says what the core cannot: how a new array is made, how the state is handed out, what a library has
to be told of a write. Reading memory is the core's affair, for every library alike. A framework's module is
loaded for its own arrays alone, and nothing else imports the framework.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from adafactor import _core

__all__ = ["Library", "as_numpy", "library_named", "library_of", "name_of_library"]

_MODULES = {"torch": "torch", "jax": "jax", "jaxlib": "jax"}
"""The module of this package for a framework's package."""


class Library(Protocol):
    """What a module for an array library offers.

    Attributes:
        mark: a function of the library that tells it of new values in an array, or in a list of arrays; the
            core calls it. None where nobody has to be told.
    """

    mark: Callable[[Any], object] | None

    def new_like(self, leaf: Any) -> Any:
        """An array with the leaf's shape and dtype for a step to write into; the leaf was found to be one."""

    def finished(self, outputs: list[Any], leaves: list[Any]) -> list[Any]:
        """What the caller of `update` gets for such arrays; `leaves` are the old parameters."""

    def is_sole(self, leaf: Any) -> bool:
        """Whether no other array is over the memory of a leaf that a single reference is left to."""

    def assign(self, leaf: Any, values: NDArray[Any]) -> None:
        """Write the values, rounded to the leaf's dtype, into its memory."""

    def handed_out(self, array: NDArray[Any]) -> Any:
        """A piece of the state as an array of the library. Of bfloat16 it gets the bits, as uint16."""


def _name_of_library(cls: type) -> str:
    return _MODULES.get(cls.__module__.partition(".")[0], "numpy")


name_of_library = cast(Callable[[type], str], functools.lru_cache(maxsize=512)(_name_of_library))
"""The name of the module of this package for arrays of a class; "numpy" for those that have none."""


@functools.cache
def library_named(name: str) -> Library:
    """The module of that name; it imports its framework."""
    return cast(Library, importlib.import_module(f"adafactor.arrays.{name}"))


def library_of(array: Any) -> Library:
    """The module for this array."""
    return library_named(name_of_library(type(array)))


def as_numpy(array: Any) -> NDArray[Any]:
    """The memory of an array as one of NumPy, without a copy; raises TypeError or BufferError of the core's.

    bfloat16 that is not NumPy's already comes as its bits, in uint16.
    """
    return array if isinstance(array, np.ndarray) else _core.numpy_view(array)
