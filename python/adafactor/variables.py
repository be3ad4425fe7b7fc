"""The arrays that an optimizer was built with, found again among those that it is handed by their memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adafactor import _core
from adafactor.arrays import as_numpy
from adafactor.paths import at
from adafactor.tree import Tree

__all__ = ["Variables", "as_list"]


def as_list(variables: Any) -> Any:
    """A tuple of variables or gradients, as `zip` makes it, counts as a list, as in Keras."""
    return list(variables) if type(variables) is tuple else variables


class Variables:
    """Arrays in the order of the leaves."""

    def __init__(self, leaves: Sequence[Any]) -> None:
        """Keep the arrays; two that are the same memory are refused by the call that would write them."""
        self.leaves = list(leaves)
        self._index = {_memory(leaf): index for index, leaf in enumerate(self.leaves)}
        # An object that is at hand is found without a look at its memory.
        self._index |= {id(leaf): index for index, leaf in enumerate(self.leaves)}

    def find(self, leaf: Any) -> int | None:
        """The index of this array, or of the one whose view with the same elements it is."""
        index = self._index.get(id(leaf))
        return self._index.get(_memory(leaf)) if index is None else index

    def known(self, leaves: list[Any]) -> list[int] | None:
        """The index of each, where all are the very objects that the optimizer has and different ones."""
        places = [self._index.get(id(leaf)) for leaf in leaves]
        found = [place for place in places if place is not None]
        return found if len(set(found)) == len(places) else None

    def places(self, tree: Tree, leaves: Sequence[Any], role: str) -> list[int]:
        """The index of each leaf of a tree; ValueError where one is unknown or comes twice."""
        places: dict[int, str] = {}
        for path, leaf in zip(tree.paths, leaves, strict=True):
            index = self.find(leaf)
            if index is None:
                raise ValueError(
                    f"{at(role, path)}: unknown to the optimizer, which was built with other arrays; "
                    "build(variables) binds it to new ones"
                )
            if index in places:
                raise ValueError(f"{at(role, path)}: the same variable as {at(role, places[index])}")
            places[index] = path
        return list(places)

    def __getstate__(self) -> dict[str, Any]:
        """The arrays alone: copies lie elsewhere."""
        return {"leaves": self.leaves}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        """Find out where the copies lie."""
        self.__init__(kept["leaves"])  # type: ignore[misc]


def _memory(leaf: Any) -> Any:
    """What tells the elements of an array from all others; of something else, the object."""
    try:
        interface = as_numpy(leaf).__array_interface__
    except _core.Error:
        return id(leaf)
    return interface["data"][0], interface["shape"], interface["strides"], interface["typestr"]
