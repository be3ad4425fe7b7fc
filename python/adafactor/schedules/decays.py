"""The six schedules of Keras, under its names and with its arguments."""

import bisect
import dataclasses
import itertools
import math
from collections.abc import Sequence

from adafactor.schedules.formula import Formula

__all__ = [
    "CosineDecay",
    "CosineDecayRestarts",
    "ExponentialDecay",
    "InverseTimeDecay",
    "PiecewiseConstantDecay",
    "PolynomialDecay",
]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ExponentialDecay(Formula):
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
class PiecewiseConstantDecay(Formula):
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
class PolynomialDecay(Formula):
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
class InverseTimeDecay(Formula):
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
class CosineDecay(Formula):
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
class CosineDecayRestarts(Formula):
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
