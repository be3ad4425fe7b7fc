"""Learning rates that a user gives: numbers, schedules and callables, and what they say at a call."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

from adafactor.knobs.numbers import real_number, shown
from adafactor.schedules import LearningRateSchedule, serialized

__all__ = ["LearningRate", "checked_rate", "rate_at_call", "rate_of"]

LearningRate = float | LearningRateSchedule | Callable[[], float]


def rate_of(value: Any) -> LearningRate:
    """The value as the knob holds it: a float, or the schedule or callable itself; TypeError otherwise."""
    if callable(value):
        return _callable(value)
    try:
        return real_number("learning_rate", value)
    except TypeError:
        expected = "a number, a LearningRateSchedule or a callable without arguments"
        if isinstance(value, Mapping | list | tuple | Iterator):  # where torch's optimizers take parameters
            found, what_to_do = type(value).__name__, "; parameters are given to init, or to build"
        else:
            found, what_to_do = shown(value), ""
        raise TypeError(f"learning_rate: {found}, expected {expected}{what_to_do}") from None


def _callable(value: Any) -> LearningRate:
    """The callable; TypeError where it plainly cannot be called without arguments.

    Of a schedule of Keras' own it is the one of ours that has its name.
    """
    if serialized.is_made_by_keras(value):
        kept = {"class_name": type(value).__name__, "config": value.get_config()}
        return cast(LearningRate, serialized.from_dict(kept, {}))
    if not isinstance(value, LearningRateSchedule):
        try:
            signature = inspect.signature(value)
        except (TypeError, ValueError):  # of something that does not tell
            return cast(LearningRate, value)
        try:
            signature.bind()
        except TypeError as error:
            name = getattr(value, "__name__", type(value).__name__)
            raise TypeError(
                f"learning_rate: {name}{signature}: {error}, expected a callable without arguments; "
                "what depends on the step is an adafactor.schedules.LearningRateSchedule"
            ) from None
    return cast(LearningRate, value)


def rate_at_call(rate: Any, calls: int) -> float:
    """What a schedule, or a callable without arguments, gives for the call after `calls` others.

    Raises:
        ValueError: it is no learning rate; or whatever the schedule raises.
    """
    value = rate(calls) if isinstance(rate, LearningRateSchedule) else rate()
    giver = getattr(rate, "__name__", type(rate).__name__)
    return checked_rate(f"learning_rate: {giver} returned", value)


def checked_rate(where: str, value: Any) -> float:
    """A learning rate that a schedule, a callable or the caller gave: a finite number of at least 0.

    Raises:
        ValueError: it is something else; a schedule's result is a value of the user's, whatever its kind. The
            message begins with `where`.
    """
    try:
        rate = real_number("", value)
    except (TypeError, ValueError):
        rate = math.nan
    if not (math.isfinite(rate) and rate >= 0):
        raise ValueError(f"{where} {shown(value)}, expected a finite number >= 0")
    return rate
