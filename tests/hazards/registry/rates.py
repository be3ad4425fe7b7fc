"""Section 5, learning rates of calls, schedules and callables: H1 and H7 to H10."""

import copy
import decimal
import fractions
import pickle

import numpy as np
import pytest

import adafactor
from adafactor.schedules import LearningRateSchedule
from registry.case import Case, Event, Model, same
from registry.knobs import HUGE, inf, nan, shown


class Faulty:
    """A learning rate of 0.01, but for the calls for which a fault is waiting."""

    def __init__(self):
        self.faults = []

    def __call__(self, *calls):
        return self.faults.pop()() if self.faults else 0.01


class FaultySchedule(Faulty, LearningRateSchedule):
    pass


def with_fault(make_fault):
    """A good call of a model, in which the learning rate does what `make_fault(model)` does."""

    def given(m):
        m.state.config.learning_rate.faults.append(lambda: make_fault(m))
        return m.params, m.grads

    return given


def raising(error):
    def fault(m):
        raise error

    return fault


def with_rate(rate):
    return lambda library: Model(library, learning_rate=rate())


def with_keywords(**keywords):
    return lambda m: (m.params, m.grads, keywords)


NO_RATES = [nan, inf, -inf, -0.1, None, "0.1", 1j, True, [0.1], object(), HUGE]
NO_RATES += [np.array([0.1, 0.2]), np.array([0.1])]
ERRORS = [
    ZeroDivisionError("mine"),
    ValueError("mine"),
    KeyboardInterrupt("mine"),
    SystemExit("mine"),
    StopIteration("mine"),
]
REENTRIES = {
    "steps": lambda m: adafactor.step(m.params, m.grads, m.state),
    "updates": lambda m: adafactor.update(m.params, m.grads, m.state),
    "copies": lambda m: m.state.copy(),
    "deep-copies": lambda m: copy.deepcopy(m.state),
    "pickles": lambda m: pickle.dumps(m.state),
}

SCHEDULES = [
    *(
        Case(
            f"H7 {rate.__name__} gives {shown(value)}",
            with_fault(lambda m, value=value: value),
            ValueError,
            rf"learning_rate: {rate.__name__} returned .*, expected a finite number >= 0",
            model=with_rate(rate),
        )
        for rate in (Faulty, FaultySchedule)
        for value in NO_RATES
    ),
    *(
        Case(
            f"H8 {rate.__name__} raises {type(error).__name__}",
            with_fault(raising(error)),
            type(error),
            "mine",
            model=with_rate(rate),
        )
        for rate in (Faulty, FaultySchedule)
        for error in ERRORS
    ),
    *(
        Case(
            f"H9 a schedule {name}",
            with_fault(reenter),
            RuntimeError,
            "state in use: another call, from a thread or from inside this one, runs on it",
            ("step",),
            model=with_rate(Faulty),
        )
        for name, reenter in REENTRIES.items()
    ),
]


def the_very_exception(m):
    error = KeyboardInterrupt()
    state = adafactor.init(m.params, learning_rate=raising(error).__get__(m))
    with pytest.raises(KeyboardInterrupt) as caught:
        adafactor.step(m.params, m.grads, state)
    assert caught.value is error


def filled_by_a_schedule(m):
    """Parameters that a schedule changes: the call sees what they hold once it has returned."""
    return with_fault(lambda m: m.library.write(m.params["w"], 2) or 0.5)(m)


def filled_before(m):
    m.library.write(m.params["w"], 2)
    m.state.config.learning_rate.faults.append(lambda: 0.5)
    return same(m)


def steps_another(m):
    """A schedule that steps another state."""
    other = Model(m.library)
    return with_fault(lambda m: other.good_call() and 0.01)(m)


RATES = [
    *(
        Case(
            f"H1 learning_rate of a call, {shown(value)}",
            with_keywords(learning_rate=value),
            TypeError,
            "learning_rate: .*, expected a number",
        )
        for value in ["0.1", True, 1j, object(), np.array([[0.1]]), ["0.1"], lambda: 0.1]
    ),
    *(
        Case(
            f"H1 learning_rate of a call, {value}",
            with_keywords(learning_rate=value),
            ValueError,
            f"learning_rate: .*, expected {expected}",
        )
        for value, expected in (
            (nan, "a finite number >= 0"),
            (inf, "a finite number >= 0"),
            (-0.1, "a finite number >= 0"),
            ((nan,), "a finite number >= 0"),
            ([0.1, 0.2], "one"),
            ([], "one"),
        )
    ),
    *(
        Case(
            f"H1 grad_multiplier={shown(value)}",
            with_keywords(grad_multiplier=value),
            error,
            f"grad_multiplier: .*, expected {expected}",
        )
        for error, expected, values in (
            (TypeError, "a number", ["1", True, None, 1j]),
            (ValueError, "a finite number", [nan, inf, -inf, HUGE]),
        )
        for value in values
    ),
    *(
        Case(
            f"H1 a rate and a multiplier that are {type(value).__name__}",
            with_keywords(learning_rate=value, grad_multiplier=value),
            like=with_keywords(learning_rate=float(value), grad_multiplier=float(value)),
        )
        for value in (
            1,
            np.float16(0.5),
            np.float32(0.5),
            np.int8(1),
            np.array(0.5),
            fractions.Fraction(1, 2),
            decimal.Decimal("0.5"),
        )
    ),
]


def far_into_training(m):
    """A float32 counter would stop at 2**24; the power is that of the exact integer."""
    for updates in (2**24, 2**24 + 1, 2**40 + 1):
        params, ones = np.ones(3), np.ones(3)
        state = adafactor.init(params, learning_rate=1.0)
        _, *others = state._engine.core.counters
        state._engine.core.counters = (updates, *others)
        report = adafactor.step(params, ones, state)
        t = decimal.Decimal(updates + 1)
        assert state.iterations == updates + 1
        assert report.rho == float(1 / t.sqrt())
        assert 1 - report.beta_2 == pytest.approx(float(t ** decimal.Decimal("-0.8")), abs=2**-53)


REST = [
    Event("H8 the very exception comes through", the_very_exception),
    Case(
        "H9 a schedule writes into the parameters",
        filled_by_a_schedule,
        like=filled_before,
        calls=("step",),
        model=with_rate(Faulty),
    ),
    Case("H9 a schedule steps another state", steps_another, like=same, model=with_rate(Faulty)),
    Case(
        "H9 an update inside of an update",
        with_fault(lambda m: adafactor.update(m.params, m.grads, m.state.copy()) and 0.01),
        like=same,
        calls=("update",),
        model=with_rate(Faulty),
    ),
    Event("H10 far into training", far_into_training),
]

CASES = [*SCHEDULES, *RATES, *REST]
