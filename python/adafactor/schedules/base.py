"""The base class of all schedules: what the optimizer asks of one, and what makes two of them equal."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

__all__ = ["LearningRateSchedule"]


class LearningRateSchedule:
    """Base class of all schedules; derive from it to make your own.

    A subclass defines `__call__(step)`: `step` is the number of calls made so far, an int from 0, and the
    result is the learning rate, finite and at least 0. With `get_config`, which returns the constructor's
    arguments as a dict, equal arguments make equal schedules and `from_config` builds one anew; without it,
    every object equals itself alone. Source: `keras.optimizers.schedules.LearningRateSchedule`.

    >>> class InverseSquareRoot(LearningRateSchedule):
    ...     def __init__(self, peak):
    ...         self.peak = peak
    ...     def __call__(self, step):
    ...         return self.peak / (step + 1) ** 0.5
    ...     def get_config(self):
    ...         return {"peak": self.peak}
    >>> schedule = InverseSquareRoot(0.25)
    >>> schedule(3), schedule == InverseSquareRoot.from_config({"peak": 0.25}), schedule
    (0.125, True, InverseSquareRoot(peak=0.25))
    """

    def __call__(self, step: int, /) -> float:
        """Return the learning rate of the call after `step` others (an int from 0); subclasses define it.

        Raises:
            NotImplementedError: the subclass does not.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define __call__(self, step)")

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments by name, in values that JSON can write; subclasses define it.

        Raises:
            NotImplementedError: the subclass does not.

        >>> from adafactor.schedules import InverseTimeDecay
        >>> InverseTimeDecay(0.5, decay_steps=10, decay_rate=1).get_config()["decay_steps"]
        10
        """
        raise NotImplementedError(f"{type(self).__name__} does not define get_config(self)")

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build a schedule from what `get_config` returned; an unknown name is a `TypeError`.

        >>> from adafactor.schedules import InverseTimeDecay
        >>> InverseTimeDecay.from_config(InverseTimeDecay(0.5, 10, 1).get_config())(10)
        0.25
        """
        return cls(**config)

    def _identity(self) -> object:
        """What equality and hash go by: class and arguments, or the object itself without a config."""
        try:
            return type(self), _hashable(self.get_config())
        except NotImplementedError:
            return id(self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LearningRateSchedule):
            return NotImplemented
        return self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def __repr__(self) -> str:
        try:
            config = self.get_config()
        except NotImplementedError:
            return object.__repr__(self)
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in config.items())})"


def _hashable(value: object) -> object:
    """A value of a config with its lists, dicts and arrays replaced by tuples."""
    if isinstance(value, Mapping):
        return tuple(sorted((name, _hashable(item)) for name, item in value.items()))
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    return tuple(_hashable(item) for item in value) if isinstance(value, list | tuple) else value
