"""The learning rate that an optimizer in Keras' shape shows: a number with the method of Keras' variable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

__all__ = ["AssignableRate"]


class AssignableRate(float):
    """A learning rate, and the method by which the variable is set that Keras has in its place."""

    _set: Callable[[Any], None]

    @classmethod
    def of(cls, rate: float, set_rate: Callable[[Any], None]) -> Self:
        """The rate; `set_rate` sets another."""
        made = cls(rate)
        made._set = set_rate
        return made

    def assign(self, value: Any) -> None:
        """Set another rate; this number stays what it is."""
        self._set(value)

    def __reduce__(self) -> tuple[type[float], tuple[float]]:
        """A copy is a number and nothing more."""
        return float, (float(self),)
