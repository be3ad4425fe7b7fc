"""What the presets have in common: another library's arguments become knobs, and errors keep to its names."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from adafactor.config import Config
from adafactor.knobs.hints import ELSEWHERE, refuse_unknown
from adafactor.knobs.numbers import finite_number, is_bool, real_number, shown, whole_number
from adafactor.schedules import LearningRateSchedule

__all__ = [
    "beta_2_decay_of",
    "config_of",
    "flag",
    "minimum_above",
    "momentum_knobs",
    "rate_by_count",
    "refuse",
    "refuse_caution",
    "two_of",
]

_KNOBS = frozenset(Config().to_dict())


def config_of(knobs: Mapping[str, Any], extra: Mapping[str, Any], names: Mapping[str, str]) -> Config:
    """The config of a preset.

    Args:
        knobs: what the preset sets; a clip threshold of infinity is none.
        extra: what the caller gave besides the library's arguments: knobs that the library lacks.
        names: the library's name of a knob, where it is another one.

    Raises:
        TypeError, ValueError: as `Config`, in the library's names; a knob of `extra` that the preset sets.
    """
    for name in extra:
        knob = ELSEWHERE.get(name, name)
        if name not in _KNOBS - knobs.keys() and (knob in names or name in knobs):
            hint = f"did you mean {names[knob]!r}?" if knob in names else "it is what makes the preset"
            raise TypeError(f"unknown argument {name!r}; {hint}")
    refuse_unknown(extra, sorted(_KNOBS - knobs.keys()), "argument")
    unlimited = {"clip_threshold": None} if knobs["clip_threshold"] == math.inf else {}
    try:
        return Config(**{**knobs, **unlimited}, **extra)
    except (TypeError, ValueError) as error:
        raise type(error)(_in_their_names(str(error), names)) from None


def _in_their_names(message: str, names: Mapping[str, str]) -> str:
    if not names:
        return message
    any_of_ours = r"(?<![\w.])(" + "|".join(map(re.escape, names)) + r")(?!\w)"
    return re.sub(any_of_ours, lambda found: names[found[0]], message)


def refuse(name: str, value: Any, why: str) -> None:
    """Raise a ValueError for an argument that nothing here does, with the reason and what to use."""
    raise ValueError(f"{name}: {shown(value)} has no counterpart here: {why}")


def refuse_caution(name: str, value: Any, beta_1: float | None) -> None:
    """Refuse the mask of the cautious optimizers, which is one of momentum."""
    if flag(name, value) and beta_1 is not None:
        refuse(name, value, "the mask is divided by its mean, another pass over memory; leave it out")


def flag(name: str, value: Any) -> bool:
    """A bool; TypeError otherwise."""
    if not is_bool(value):
        raise TypeError(f"{name}: {shown(value)}, expected True or False")
    return bool(value)


def two_of(name: str, value: Any) -> tuple[Any, Any]:
    """The two values of an argument that is a pair; TypeError otherwise."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise TypeError(f"{name}: {shown(value)}, expected a pair")
    return value[0], value[1]


def beta_2_decay_of(name: str, decay_rate: Any) -> float:
    """The exponent, where the library takes it without its sign."""
    rate = finite_number(name, decay_rate)
    if rate < 0:
        raise ValueError(f"{name}: {rate}, expected >= 0, since beta2 = 1 - t**-{name}")
    return -rate


def _momentum_dtype(name: str, value: Any) -> str:
    """What momentum is stored in, of a dtype of torch, JAX or NumPy, or its name."""
    said = str(getattr(value, "name", getattr(value, "__name__", value))).rpartition(".")[2]
    if said not in ("float32", "bfloat16"):
        raise ValueError(
            f"{name}: {shown(value)}, expected float32 or bfloat16, what momentum is stored in here"
        )
    return said


class _ByCount(LearningRateSchedule):
    """A rate times what a function of the number of calls before says, a number or an array of JAX.

    It has the function's name in messages, and equals that of the same function and rate.
    """

    def __init__(self, name: str, schedule: Callable[[Any], Any], rate: float) -> None:
        self._name, self._schedule, self._rate = name, schedule, rate
        self.__name__ = getattr(schedule, "__name__", type(schedule).__name__)

    def __call__(self, step: int) -> float:
        """Return the rate after so many calls."""
        return self._rate * real_number(self._name, self._schedule(step))

    def _identity(self) -> object:
        return type(self), self._schedule, self._rate


def momentum_knobs(beta_1: float | None, name: str, dtype: Any, **how: str) -> dict[str, Any]:
    """The knobs of momentum, stored as `dtype`, an argument of that name; of none, the one that says so."""
    if beta_1 is None:
        return {"beta_1": None}
    return {"beta_1": beta_1, "momentum_dtype": _momentum_dtype(name, dtype), **how}


def rate_by_count(name: str, value: Any, rate: float = 1.0) -> Any:
    """A learning rate as JAX' libraries have it: a number, or a function of the number of calls before."""
    if isinstance(value, LearningRateSchedule) and rate == 1:
        return value
    return _ByCount(name, value, rate) if callable(value) else value


def minimum_above(name: str, value: Any) -> int:
    """The least size that is above a number, where the library compares so."""
    size = whole_number(name, value)
    if size < 0:
        raise ValueError(f"{name}: {size}, expected >= 0")
    return size + 1
