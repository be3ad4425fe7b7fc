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

__all__ = [
    "CPU",
    "Library",
    "as_numpy",
    "copied_as_numpy",
    "library_named",
    "library_of",
    "name_of_library",
    "name_of_library_on",
]

CPU = "cpu"
"""The device of the CPU's memory; others are named as "cuda:0"."""

_MODULES = {"torch": "torch", "jax": "jax", "jaxlib": "jax"}
"""The module of this package for a framework's package."""

_OWN = {*_MODULES.values(), "numpy"}


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

    def lent(self, piece: Any) -> Any:
        """A piece of a state on a device, which has DLPack, as an array of the library, without a copy."""

    def allocator(self, device: str) -> Callable[[int], Any] | None:
        """What gives so many bytes, as an array of zeros of float32; None: CUDA gives them."""


def _name_of_library(cls: type) -> str:
    return _MODULES.get(cls.__module__.partition(".")[0], "numpy")


name_of_library = cast(Callable[[type], str], functools.lru_cache(maxsize=512)(_name_of_library))
"""The name of the module of this package for arrays of a class; "numpy" for those that have none."""


def name_of_library_on(device: str, array: Any) -> str:
    """The same for an array on a device: of one without a module there its namespace, if it has one."""
    name = name_of_library(type(array))
    namespace = getattr(array, "__array_namespace__", None)
    return namespace().__name__ if device != CPU and name == "numpy" and namespace is not None else name


@functools.cache
def library_named(name: str) -> Library:
    """The module of that name, which imports its framework; or what is known of a namespace of arrays."""
    if name in _OWN:
        return cast(Library, importlib.import_module(f"adafactor.arrays.{name}"))
    standard = importlib.import_module("adafactor.arrays.standard")
    return cast(Library, standard.Namespace(importlib.import_module(name)))


def library_of(array: Any, device: str = CPU) -> Library:
    """The module for this array, which lies on that device."""
    return library_named(name_of_library_on(device, array))


def as_numpy(array: Any) -> NDArray[Any]:
    """The memory of an array as one of NumPy, without a copy; raises TypeError or BufferError of the core's.

    bfloat16 that is not NumPy's already comes as its bits, in uint16.
    """
    return array if isinstance(array, np.ndarray) else _core.numpy_view(array)


def copied_as_numpy(array: Any) -> NDArray[Any]:
    """The same, or a copy of what lies on a device."""
    try:
        return as_numpy(array)
    except _core.Error:
        return _core.copied_from_device(array)
