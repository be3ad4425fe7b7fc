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

from adafactor.schedules.base import LearningRateSchedule
from adafactor.schedules.decays import (
    CosineDecay,
    CosineDecayRestarts,
    ExponentialDecay,
    InverseTimeDecay,
    PiecewiseConstantDecay,
    PolynomialDecay,
)

__all__ = [
    "CosineDecay",
    "CosineDecayRestarts",
    "ExponentialDecay",
    "InverseTimeDecay",
    "LearningRateSchedule",
    "PiecewiseConstantDecay",
    "PolynomialDecay",
]
