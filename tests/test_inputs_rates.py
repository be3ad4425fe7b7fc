"""Learning rates that a call is given and schedules: what is refused, and what a schedule may do.

Hazards H1 and H7 to H10.
"""

import copy
import decimal
import math
import pickle

import numpy as np
import pytest

import adafactor
from adafactor.schedules import LearningRateSchedule
from hazards import Case, Model, check, check_next_step, parameters

nan, inf = math.nan, math.inf
HUGE = 10**400


class Faulty:
    """A learning rate of 0.01, but for the calls for which a fault is waiting."""

    def __init__(self):
        self.faults = []

    def __call__(self, *calls):
        return self.faults.pop()() if self.faults else 0.01


class FaultySchedule(Faulty, LearningRateSchedule):
    pass


def faulty(make_fault):
    """Builds a good call of a model, in which the learning rate does what `make_fault(model)` does."""

    def build(model):
        model.state.config.learning_rate.faults.append(lambda: make_fault(model))
        return model.params, model.grads

    return build


def interrupt(error):
    def fault(model):
        raise error

    return fault


NO_RATES = [
    nan,
    inf,
    -inf,
    -0.1,
    None,
    "0.1",
    1j,
    True,
    [0.1],
    object(),
    HUGE,
    np.array([0.1, 0.2]),
    np.array([0.1]),
]
ERRORS = [
    ZeroDivisionError("mine"),
    ValueError("mine"),
    KeyboardInterrupt("mine"),
    SystemExit("mine"),
    StopIteration("mine"),
]
KINDS = {"callable": Faulty, "schedule": FaultySchedule}
REENTRIES = {
    "steps": lambda m: adafactor.step(m.params, m.grads, m.state),
    "updates": lambda m: adafactor.update(m.params, m.grads, m.state),
    "copies": lambda m: m.state.copy(),
    "deep-copies": lambda m: copy.deepcopy(m.state),
    "pickles": lambda m: pickle.dumps(m.state),
}

CASES = [
    *(
        Case(
            f"H7 {kind} gives {type(value).__name__} {str(value)[:12]}",
            faulty(lambda m, value=value: value),
            ValueError,
            "^learning_rate: .*, expected a ",
            knobs=lambda rate=rate: {"learning_rate": rate()},
        )
        for kind, rate in KINDS.items()
        for value in NO_RATES
    ),
    *(
        Case(
            f"H8 {kind} raises {type(error).__name__}",
            faulty(interrupt(error)),
            type(error),
            "^mine$",
            knobs=lambda rate=rate: {"learning_rate": rate()},
        )
        for kind, rate in KINDS.items()
        for error in ERRORS
    ),
    *(
        Case(
            f"H9 schedule {name}",
            faulty(reenter),
            RuntimeError,
            "^state in use: another call, from a thread or from inside this one, runs on it$",
            ("step",),
            lambda: {"learning_rate": Faulty()},
        )
        for name, reenter in REENTRIES.items()
    ),
    *(
        Case(
            f"H1 learning_rate={type(value).__name__} {str(value)[:12]}",
            lambda m, value=value: (m.params, m.grads, {"learning_rate": value}),
            TypeError,
            "^learning_rate: .*, expected a number$",
        )
        for value in ["0.1", True, 1j, object(), np.array([[0.1]]), ["0.1"], lambda: 0.1]
    ),
    *(
        Case(
            f"H1 learning_rate={value}",
            lambda m, value=value: (m.params, m.grads, {"learning_rate": value}),
            ValueError,
            "^learning_rate: .*, expected ",
        )
        for value in [nan, inf, -0.1, [0.1, 0.2], [], (nan,)]
    ),
    *(
        Case(
            f"H1 grad_multiplier={type(value).__name__} {str(value)[:12]}",
            lambda m, value=value: (m.params, m.grads, {"grad_multiplier": value}),
            error,
            "^grad_multiplier: .*, expected a (finite )?number$",
        )
        for error, values in {TypeError: ["1", True, None, 1j], ValueError: [nan, inf, -inf, HUGE]}.items()
        for value in values
    ),
]


@pytest.mark.parametrize(("case", "call"), parameters(CASES))
def test_refused(case, call):
    check(case, call)


def test_the_state_must_be_a_state():
    with pytest.raises(TypeError, match=r"^state: dict, expected what adafactor\.init returned$"):
        adafactor.step(np.ones(3), np.ones(3), {})


def test_h8_the_very_exception_comes_through():
    model = Model(learning_rate=Faulty())
    error = KeyboardInterrupt()
    params, grads = faulty(interrupt(error))(model)
    with pytest.raises(KeyboardInterrupt) as caught:
        adafactor.step(params, grads, model.state)
    assert caught.value is error


def test_h9_a_schedule_may_change_the_parameters():
    """The call sees what the arrays hold once the schedule has returned."""
    model, twin = Model(learning_rate=Faulty()), Model(learning_rate=Faulty())
    params, grads = faulty(lambda m: m.params["w"].fill(2) or 0.5)(model)
    adafactor.step(params, grads, model.state)
    twin.params["w"].fill(2)
    adafactor.step(twin.params, twin.grads, twin.state, learning_rate=0.5)
    check_next_step(model, twin)


def test_h9_a_schedule_may_step_another_state():
    model, other, twin = Model(learning_rate=Faulty()), Model(), Model(learning_rate=Faulty())
    faulty(lambda m: adafactor.step(other.params, other.grads, other.state) and 0.01)(model)
    check_next_step(model, twin)
    assert other.state.iterations == 3


@pytest.mark.parametrize("updates", [2**24, 2**24 + 1, 2**40 + 1])
def test_h10_the_step_number_is_exact(updates):
    """A float32 counter would stop at 2^24; the power is that of the exact integer."""
    params = np.ones(3)
    state = adafactor.init(params, learning_rate=1.0)
    state._core.updates = updates
    report = adafactor.step(params, np.ones(3), state)
    t = decimal.Decimal(updates + 1)
    assert state.iterations == updates + 1
    assert report.rho == float(1 / t.sqrt())
    assert 1 - report.beta_2 == pytest.approx(float(t ** decimal.Decimal("-0.8")), abs=2**-53)
