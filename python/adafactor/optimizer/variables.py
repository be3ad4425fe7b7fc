"""The arrays that an optimizer was built with, found again among those that it is handed by their memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adafactor import _core
from adafactor.arrays import library_of
from adafactor.engine.warning import warn
from adafactor.trees.paths import at
from adafactor.trees.tree import Tree

__all__ = ["Variables", "as_list"]


def as_list(variables: Any) -> Any:
    """A tuple of variables or gradients, as `zip` makes it, counts as a list, as in Keras."""
    return list(variables) if type(variables) is tuple else variables


class Variables:
    """Arrays in the order of the leaves."""

    def __init__(self, leaves: Sequence[Any]) -> None:
        """Keep the arrays; two that are the same memory are refused by the call that would write them."""
        self.leaves = list(leaves)
        self._index = {id(leaf): index for index, leaf in enumerate(self.leaves)}

    def find(self, arrays: Sequence[Any]) -> list[int | None]:
        """The index of each of these arrays, or of the one whose view with the same elements it is."""
        places = [self._index.get(id(array)) for array in arrays]
        if None in places:
            # As it lies now: meanwhile an array may have got other memory, and another one its own.
            lying = {_memory(leaf): index for index, leaf in enumerate(self.leaves)}
            places = [
                lying.get(_memory(array)) if place is None else place
                for place, array in zip(places, arrays, strict=True)
            ]
        return places

    def known(self, leaves: list[Any]) -> list[int] | None:
        """The index of each, where all are the very objects that the optimizer has and different ones."""
        places = [self._index.get(id(leaf)) for leaf in leaves]
        found = [place for place in places if place is not None]
        return found if len(set(found)) == len(places) else None

    def places(self, tree: Tree, leaves: Sequence[Any], role: str) -> list[int]:
        """The index of each leaf of a tree; ValueError where one is unknown or comes twice."""
        places: dict[int, str] = {}
        for path, index in zip(tree.paths, self.find(leaves), strict=True):
            if index is None:
                raise ValueError(
                    f"{at(role, path)}: unknown to the optimizer, which was built with other arrays; "
                    "build(variables) binds it to new ones"
                )
            if index in places:
                raise ValueError(f"{at(role, path)}: the same variable as {at(role, places[index])}")
            places[index] = path
        return list(places)

    def warn_of_unseen(self, paths: Sequence[str]) -> None:
        """Warn of arrays that nobody but this object can reach: a model that has others would not learn."""
        alone = _core.places_held_alone(self.leaves)
        unseen = [index for index in alone if library_of(self.leaves[index]).is_sole(self.leaves[index])]
        if unseen:
            named = ", ".join(at("variables", paths[index]) for index in unseen[:3])
            more = f" and {len(unseen) - 3} more" if len(unseen) > 3 else ""
            warn(
                f"{named}{more}: nobody but the optimizer has these arrays any more, so that nobody sees the "
                "update; if the model has others in their place, build(variables) takes those"
            )

    def __getstate__(self) -> dict[str, Any]:
        """The arrays alone: copies lie elsewhere."""
        return {"leaves": self.leaves}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        """Find out where the copies lie."""
        self.__init__(kept["leaves"])  # type: ignore[misc]


def _memory(leaf: Any) -> Any:
    """What tells the elements of an array from all others; where there are none, the object."""
    try:
        place = _core.place_of(leaf)
    except _core.Error:
        return id(leaf)
    _, _, shape, *_ = place
    return id(leaf) if 0 in shape else place
