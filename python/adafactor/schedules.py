"""Learning-rate schedules: Keras' six under their names, and the base class for a schedule of your own.

A schedule is called with the number of calls made so far, from 0, and returns the learning rate of the next:

>>> import adafactor.schedules
>>> schedule = adafactor.schedules.ExponentialDecay(0.1, decay_steps=10, decay_rate=0.5)
>>> [round(schedule(step), 6) for step in (0, 10, 20)]
[0.1, 0.05, 0.025]

Arguments, defaults and formulas are those of `keras.optimizers.schedules` in Keras 3.15.1; no Keras is
needed. Here the formulas are evaluated in double and the result is rounded to float32, returned as a Python
float. The last bit of a power, a logarithm or a cosine differs between the C libraries of different machines;
after the rounding the step does not see it, so the same run gives the same numbers everywhere.

Keras evaluates the same formulas in float32: with whole `decay_steps` and fewer than 2^23 steps the two agree
up to float32 rounding of the largest rate. They can part for one step where a formula jumps: at the end of a
stair if `decay_steps` is a fraction, and at a restart, which Keras' logarithm may put one step late.

A schedule cannot be changed once made, and two of one class with the same arguments are equal, so that a
configuration that holds one can be compared and hashed.
"""

import bisect
import dataclasses
import itertools
import math
import operator
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np

__all__ = [
    "CosineDecay",
    "CosineDecayRestarts",
    "ExponentialDecay",
    "InverseTimeDecay",
    "LearningRateSchedule",
    "PiecewiseConstantDecay",
    "PolynomialDecay",
]


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

        >>> InverseTimeDecay(0.5, decay_steps=10, decay_rate=1).get_config()["decay_steps"]
        10
        """
        raise NotImplementedError(f"{type(self).__name__} does not define get_config(self)")

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build a schedule from what `get_config` returned; an unknown name is a `TypeError`.

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


class _Formula(LearningRateSchedule):
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

        >>> PiecewiseConstantDecay([10], [0.5, 0.25]).get_config()
        {'boundaries': [10], 'values': [0.5, 0.25], 'name': 'PiecewiseConstant'}
        """
        values = ((field.name, getattr(self, field.name)) for field in dataclasses.fields(self))  # type: ignore[arg-type]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values}


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ExponentialDecay(_Formula):
    """A factor of `decay_rate` every `decay_steps` calls: initial * decay_rate^(step / decay_steps).

    Arguments:
        initial_learning_rate: the rate at step 0; at least 0.
        decay_steps: calls for one factor of `decay_rate`; above 0.
        decay_rate: the factor; at least 0, below 1 to decay.
        staircase: floor the exponent, so that the rate falls in stairs; default False.
        name: kept for `get_config`, otherwise unused; default "ExponentialDecay".

    Raises `TypeError` for a wrong kind, `ValueError` for a wrong value. Source: Keras' `ExponentialDecay`.

    >>> schedule = ExponentialDecay(0.5, decay_steps=100, decay_rate=0.25, staircase=True)
    >>> schedule(99), schedule(100)
    (0.5, 0.125)
    """

    initial_learning_rate: float
    decay_steps: float
    decay_rate: float
    staircase: bool = False
    name: str | None = "ExponentialDecay"

    def _rate(self, step: int) -> float:
        periods = step / self.decay_steps
        exponent = math.floor(periods) if self.staircase else periods
        return float(self.initial_learning_rate * float(self.decay_rate) ** exponent)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class PiecewiseConstantDecay(_Formula):
    """The rate is a constant between boundaries: values[i] for boundaries[i-1] < step <= boundaries[i].

    Arguments:
        boundaries: the last step of each constant but the last; numbers, strictly increasing.
        values: the rates, one more than there are boundaries; each at least 0.
        name: kept for `get_config`, otherwise unused; default "PiecewiseConstant".

    Raises `TypeError` for a wrong kind, `ValueError` for a wrong value, order or length.
    Source: Keras' `PiecewiseConstantDecay`.

    >>> schedule = PiecewiseConstantDecay([1000, 2000], [0.5, 0.25, 0.125])
    >>> schedule(1000), schedule(1001), schedule(5000)
    (0.5, 0.25, 0.125)
    """

    boundaries: Sequence[float]
    values: Sequence[float]
    name: str | None = "PiecewiseConstant"

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.values) != len(self.boundaries) + 1:
            raise ValueError(
                f"PiecewiseConstantDecay values: {len(self.values)} numbers, expected one more than the "
                f"{len(self.boundaries)} boundaries"
            )
        if any(after <= before for before, after in itertools.pairwise(self.boundaries)):
            raise ValueError(f"PiecewiseConstantDecay boundaries: {self.boundaries}, expected an increase")

    def _rate(self, step: int) -> float:
        return self.values[bisect.bisect_left(self.boundaries, step)]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class PolynomialDecay(_Formula):
    """From one rate to another in some calls: end + (initial - end) * (1 - step / decay_steps)^power.

    Arguments:
        initial_learning_rate: the rate at step 0; at least 0.
        decay_steps: calls until the end; above 0. Afterwards the rate stays at the end.
        end_learning_rate: the rate at the end; at least 0; default 0.0001.
        power: at least 0; default 1.0, a straight line.
        cycle: do not stay at the end, but take for `decay_steps` its first multiple that the step has not
            passed: the rate jumps up after each multiple and falls to the end again; default False.
        name: kept for `get_config`, otherwise unused; default "PolynomialDecay".

    Raises `TypeError` for a wrong kind, `ValueError` for a wrong value. Source: Keras' `PolynomialDecay`.

    >>> schedule = PolynomialDecay(1.0, decay_steps=100, end_learning_rate=0.5)
    >>> schedule(0), schedule(50), schedule(1000)
    (1.0, 0.75, 0.5)
    """

    initial_learning_rate: float
    decay_steps: float
    end_learning_rate: float = 0.0001
    power: float = 1.0
    cycle: bool = False
    name: str | None = "PolynomialDecay"

    def _rate(self, step: int) -> float:
        if self.cycle:
            done = step / (self.decay_steps * max(1, math.ceil(step / self.decay_steps)))
        else:
            done = min(step, self.decay_steps) / self.decay_steps
        left = max(0.0, 1.0 - done) ** self.power
        return float((self.initial_learning_rate - self.end_learning_rate) * left + self.end_learning_rate)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class InverseTimeDecay(_Formula):
    """The rate falls as the inverse of time: initial / (1 + decay_rate * step / decay_steps).

    Arguments:
        initial_learning_rate: the rate at step 0; at least 0.
        decay_steps: the unit of time, in calls; above 0.
        decay_rate: what a unit of time adds to the divisor; at least 0.
        staircase: floor the time, so that the rate falls in stairs; default False.
        name: kept for `get_config`, otherwise unused; default "InverseTimeDecay".

    Raises `TypeError` for a wrong kind, `ValueError` for a wrong value. Source: Keras' `InverseTimeDecay`.

    >>> schedule = InverseTimeDecay(1.0, decay_steps=10, decay_rate=0.5)
    >>> schedule(0), schedule(20), schedule(60)
    (1.0, 0.5, 0.25)
    """

    initial_learning_rate: float
    decay_steps: float
    decay_rate: float
    staircase: bool = False
    name: str | None = "InverseTimeDecay"

    def _rate(self, step: int) -> float:
        periods = step / self.decay_steps
        time = math.floor(periods) if self.staircase else periods
        return self.initial_learning_rate / (1.0 + self.decay_rate * time)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class CosineDecay(_Formula):
    """Half a cosine, if wanted after a warm-up: peak * ((1 - alpha) / 2 * (1 + cos(pi * done)) + alpha).

    Here `done` is the share of `decay_steps` that has passed since the warm-up, at most 1. The peak is
    `warmup_target`, or without one `initial_learning_rate`.

    Arguments:
        initial_learning_rate: the rate at step 0; at least 0.
        decay_steps: calls from the peak to the end, the warm-up not counted; above 0.
        alpha: the rate at the end as a share of the peak; at least 0; default 0.0.
        name: kept for `get_config`, otherwise unused; default "CosineDecay".
        warmup_target: the rate at the end of the warm-up, at least 0; default None, no warm-up.
        warmup_steps: calls of the warm-up; at least 0; default 0; unused without `warmup_target`.

    Raises `TypeError` for a wrong kind, `ValueError` for a wrong value. Source: Keras' `CosineDecay`;
    Loshchilov and Hutter, arXiv:1608.03983.

    >>> schedule = CosineDecay(0.0, decay_steps=100, warmup_target=0.5, warmup_steps=10)
    >>> schedule(0), schedule(5), schedule(10), schedule(60), schedule(110)
    (0.0, 0.25, 0.5, 0.25, 0.0)
    """

    initial_learning_rate: float
    decay_steps: float
    alpha: float = 0.0
    name: str | None = "CosineDecay"
    warmup_target: float | None = None
    warmup_steps: float = 0

    def _rate(self, step: int) -> float:
        peak, warmup = self.initial_learning_rate, 0.0
        if self.warmup_target is not None:
            peak, warmup = self.warmup_target, self.warmup_steps
        if step < warmup:
            return self.initial_learning_rate + (peak - self.initial_learning_rate) * (step / warmup)
        return peak * _half_cosine(min(step - warmup, self.decay_steps) / self.decay_steps, 1.0, self.alpha)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class CosineDecayRestarts(_Formula):
    """Half a cosine again and again: initial * ((1 - alpha) / 2 * m_mul^i * (1 + cos(pi * done)) + alpha).

    Here i counts the periods from 0, period i takes first_decay_steps * t_mul^i calls, and `done` is the
    share of it that has passed.

    Arguments:
        initial_learning_rate: the rate at step 0; at least 0.
        first_decay_steps: calls of the first period; above 0.
        t_mul: each period is longer than the last by this factor; at least 1; default 2.0.
        m_mul: each period starts lower than the last by this factor; at least 0; default 1.0.
        alpha: the rate at the end of a period as a share of the initial one; at least 0; default 0.0.
        name: kept for `get_config`, otherwise unused; default "SGDRDecay".

    Raises `TypeError` for a wrong kind, `ValueError` for a wrong value. Source: Keras' `CosineDecayRestarts`;
    Loshchilov and Hutter, arXiv:1608.03983.

    >>> schedule = CosineDecayRestarts(0.5, first_decay_steps=100, m_mul=0.5)
    >>> schedule(0), schedule(50), schedule(100), schedule(200), schedule(300)
    (0.5, 0.25, 0.25, 0.125, 0.125)
    """

    initial_learning_rate: float
    first_decay_steps: float
    t_mul: float = 2.0
    m_mul: float = 1.0
    alpha: float = 0.0
    name: str | None = "SGDRDecay"

    def _rate(self, step: int) -> float:
        passed = step / self.first_decay_steps
        growth = float(self.t_mul)
        period = math.floor(passed)
        done = passed - period
        if growth > 1.0:
            # A logarithm may fall a bit short of the whole number that it is at a restart. The margin, above
            # its error and below the distance of two steps, puts a restart at its step on every machine.
            period = math.floor(math.log1p(passed * (growth - 1.0)) / math.log(growth) + 1e-11)
            start = (growth**period - 1.0) / (growth - 1.0)
            done = max(0.0, passed - start) / growth**period
        return self.initial_learning_rate * _half_cosine(done, float(self.m_mul) ** period, self.alpha)


def _half_cosine(done: float, height: float, alpha: float) -> float:
    """From (1 - alpha) * height + alpha at done = 0 down to alpha at done = 1."""
    return (1.0 - alpha) * 0.5 * height * (1.0 + math.cos(math.pi * done)) + alpha


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


def _hashable(value: object) -> object:
    """A value of a config with its lists, dicts and arrays replaced by tuples."""
    if isinstance(value, Mapping):
        return tuple(sorted((name, _hashable(item)) for name, item in value.items()))
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    return tuple(_hashable(item) for item in value) if isinstance(value, list | tuple) else value
