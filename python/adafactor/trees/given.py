"""What a call is given: parameters and gradients in the order of the leaves, and what is seen of them."""

from __future__ import annotations

from typing import Any, NamedTuple

from adafactor import _core

__all__ = ["Given"]


class Given(NamedTuple):
    """The arrays of one call.

    Attributes:
        leaves: the parameters.
        gradients: an array or None for each of them.
        classes: the different classes of the parameters.
        of_gradients: the different classes of the gradients.
        absent: where there is no gradient.
    """

    leaves: list[Any]
    gradients: list[Any]
    classes: list[type]
    of_gradients: list[type]
    absent: list[int]

    @classmethod
    def of(cls, leaves: list[Any], gradients: list[Any]) -> Given:
        """Those of two lists."""
        return cls(leaves, gradients, *_core.survey(leaves, gradients))
