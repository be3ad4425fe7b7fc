"""What the schedules that are formulas have in common: their arguments are checked, their rates rounded."""

import dataclasses
import math
import operator
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from adafactor.schedules.base import LearningRateSchedule

__all__ = ["Formula"]


class Formula(LearningRateSchedule):
    """A schedule given by a formula in double; its dataclass fields are the constructor's arguments."""

    def __post_init__(self) -> None:
        """Replace every argument by the plain Python value that it is, or say what is wrong with it."""
        for field in dataclasses.fields(self):  # type: ignore[arg-type]  # every subclass is a dataclass
            label, value = f"{type(self).__name__} {field.name}", getattr(self, field.name)
            minimum = {"boundaries": None, "t_mul": 1.0}.get(field.name, 0.0)
            if field.type is float or (field.type == float | None and value is not None):
                value = _number(label, value, minimum, above=field.name.endswith("decay_steps"))
            elif field.type == Sequence[float]:
                value = _numbers(label, value, minimum)
            elif field.type is bool:
                if not isinstance(value, bool | np.bool_):
                    raise _wrong_kind(label, value, "True or False")
                value = bool(value)
            elif field.type == str | None and not isinstance(value, str | None):
                raise _wrong_kind(label, value, "a string or None")
            object.__setattr__(self, field.name, value)

    def _rate(self, step: int) -> float:
        raise NotImplementedError

    def __call__(self, step: int) -> float:
        """Return the learning rate of the call after `step` others: a float that float32 represents.

        `step` is an int, or what counts as one, such as a NumPy integer (else `TypeError`), of at least 0
        (else `ValueError`). A rate beyond float32 is infinite, as in Keras; the optimizer refuses it.
        """
        label = f"{type(self).__name__} step"
        if isinstance(step, bool | np.bool_) or not hasattr(step, "__index__"):
            raise _wrong_kind(label, step, "an integer")
        try:
            rate = self._rate(int(_number(label, operator.index(step), 0.0)))
        except OverflowError:  # a power beyond double; Python raises where IEEE arithmetic gives infinity
            rate = math.inf
        with np.errstate(all="ignore"):
            return float(np.float32(rate))

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments by name, under the names that Keras' schedule has.

        >>> from adafactor.schedules import PiecewiseConstantDecay
        >>> PiecewiseConstantDecay([10], [0.5, 0.25]).get_config()
        {'boundaries': [10], 'values': [0.5, 0.25], 'name': 'PiecewiseConstant'}
        """
        values = ((field.name, getattr(self, field.name)) for field in dataclasses.fields(self))  # type: ignore[arg-type]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values}


def _wrong_kind(label: str, value: object, expected: str) -> TypeError:
    return TypeError(f"{label}: {value!r} ({type(value).__name__}), expected {expected}")


def _number(label: str, value: object, minimum: float | None, *, above: bool = False) -> float:
    """The Python number that `value` is (an int stays one): finite, at least `minimum`, or above it."""
    excluded = isinstance(value, bool | np.bool_ | np.complexfloating) or getattr(value, "ndim", 0) != 0
    if excluded or not (hasattr(value, "__float__") or hasattr(value, "__index__")):
        raise _wrong_kind(label, value, "a number")
    number: float
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = float(value)  # type: ignore[arg-type]
    low = -sys.float_info.max if minimum is None else minimum
    if not low <= number <= sys.float_info.max or (above and number == low):
        bound = "" if minimum is None else f" {'above' if above else 'of at least'} {minimum:g}"
        raise ValueError(f"{label}: {value!r}, expected a finite number{bound}")
    return number


def _numbers(label: str, values: object, minimum: float | None) -> tuple[float, ...]:
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise _wrong_kind(label, values, "a list of numbers")
    return tuple(_number(f"{label}[{i}]", value, minimum) for i, value in enumerate(values))
