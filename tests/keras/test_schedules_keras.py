"""The schedules against live Keras: signatures, configs, and the rates of ten thousand drawn pairs."""

import inspect
import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import peers
from adafactor.schedules import (
    CosineDecay,
    CosineDecayRestarts,
    ExponentialDecay,
    InverseTimeDecay,
    LearningRateSchedule,
    PiecewiseConstantDecay,
    PolynomialDecay,
)

Drawn = tuple[dict[str, Any], list[int]]  # arguments, steps
STEPS = 24  # drawn for each set of arguments
PAIRS = 1700  # different ones of (arguments, step) for each of the six classes


@pytest.fixture(scope="module")
def keras_schedules() -> ModuleType:
    return peers.require("keras").optimizers.schedules


class Draw:
    """Arguments and steps from one seeded generator; the numbers are such that float32 represents them."""

    def __init__(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)

    def number(self, low: float, high: float) -> float:
        return float(np.float32(math.exp(self.generator.uniform(math.log(low), math.log(high)))))

    def whole(self, low: int, high: int) -> int:
        return int(self.generator.integers(low, high))

    def flag(self) -> bool:
        return bool(self.generator.integers(2))

    def one_of(self, *choices: float) -> float:
        return choices[self.whole(0, len(choices))]

    def steps(self, last: float, *always: int, count: int = STEPS) -> list[int]:
        """Steps from 0 to some beyond `last`."""
        given = [0, 1, math.floor(last), *always]
        return given + [self.whole(0, math.ceil(1.25 * last) + 2) for _ in range(count - len(given))]


def draw_exponential(draw: Draw) -> Drawn:
    # Keras rounds step / decay_steps to float32, and the power multiplies the error by its logarithm: to stay
    # below 1e-6, the rate is followed over a factor of exp(8) at most.
    arguments = {
        "initial_learning_rate": draw.number(1e-4, 1),
        "decay_steps": draw.whole(1, 5000),
        "decay_rate": draw.number(0.3, 1.2),
        "staircase": draw.flag(),
    }
    periods = min(6.4 / max(abs(math.log(arguments["decay_rate"])), 1e-3), 50)
    return arguments, draw.steps(periods * arguments["decay_steps"])


def draw_piecewise(draw: Draw) -> Drawn:
    boundaries = sorted({draw.whole(1, 500) for _ in range(draw.whole(1, 6))})
    values = [draw.number(1e-4, 1) for _ in range(len(boundaries) + 1)]
    steps = draw.steps(boundaries[-1], *boundaries, *(boundary + 1 for boundary in boundaries))
    return {"boundaries": boundaries, "values": values}, steps


def draw_polynomial(draw: Draw) -> Drawn:
    # Below power 1 the slope at the end is infinite and magnifies Keras' rounding of step / decay_steps: with
    # at most 500 steps, and without cycles, the last step before the end is 1/500 away from it.
    arguments = {
        "initial_learning_rate": draw.number(1e-3, 1),
        "decay_steps": draw.whole(1, 500),
        "end_learning_rate": draw.number(1e-4, 1),
        "power": draw.one_of(0.5, 1, 2, 3.5),
    }
    arguments["cycle"] = arguments["power"] >= 1 and draw.flag()
    return arguments, draw.steps(arguments["decay_steps"] * (4 if arguments["cycle"] else 1))


def draw_inverse_time(draw: Draw) -> Drawn:
    arguments = {
        "initial_learning_rate": draw.number(1e-4, 1),
        "decay_steps": draw.whole(1, 5000),
        "decay_rate": draw.number(1e-2, 10),
        "staircase": draw.flag(),
    }
    return arguments, draw.steps(20 * arguments["decay_steps"])


def draw_cosine(draw: Draw) -> Drawn:
    arguments = {
        "initial_learning_rate": draw.number(1e-4, 1),
        "decay_steps": draw.whole(1, 5000),
        "alpha": draw.one_of(0, 0.25, 1.5),
    }
    if draw.flag():
        return arguments, draw.steps(arguments["decay_steps"])
    arguments["warmup_target"] = draw.number(1e-4, 1)
    arguments["warmup_steps"] = warmup = draw.whole(1, 5000)
    return arguments, draw.steps(warmup + arguments["decay_steps"], warmup - 1, warmup)


def draw_restarts(draw: Draw) -> Drawn:
    # The place within a period is a difference of two numbers as large as step / first_decay_steps. Up to 8
    # such periods Keras' float32 keeps it to 2.4e-7; powers of two are exact for any step.
    if draw.flag():
        first, t_mul, periods = 2 ** draw.whole(0, 10), draw.one_of(1, 2), 50
    else:
        first, t_mul, periods = draw.whole(1, 500), draw.one_of(1, 1.5, 2, 3), 6
    arguments = {
        "initial_learning_rate": draw.number(1e-4, 1),
        "first_decay_steps": first,
        "t_mul": float(t_mul),
        "m_mul": draw.one_of(0.5, 0.875, 1),
        "alpha": draw.one_of(0, 0.25),
    }
    # At a restart itself Keras' logarithm may take the period before; test_schedules.py has what we do.
    restarts = [(t_mul**i - 1) / (t_mul - 1) for i in range(1, 12)] if t_mul > 1 else []
    steps = draw.steps(periods * first, count=2 * STEPS)
    return arguments, [step for step in steps if all(abs(step / first - at) > 1e-3 for at in restarts)][
        :STEPS
    ]


# Class, how to draw, and whether 1 + cos(...) or 1 - step / decay_steps cancels in Keras' float32.
CASES = [
    (ExponentialDecay, draw_exponential, False),
    (PiecewiseConstantDecay, draw_piecewise, False),
    (PolynomialDecay, draw_polynomial, True),
    (InverseTimeDecay, draw_inverse_time, False),
    (CosineDecay, draw_cosine, True),
    (CosineDecayRestarts, draw_restarts, True),
]
NAMES = [case[0].__name__ for case in CASES]


def draw_pairs(draw_one: Callable[[Draw], Drawn]) -> list[Drawn]:
    """Arguments with steps until there are enough different pairs of the two."""
    draw, drawn, pairs = Draw(seed=20), [], 0
    while pairs < PAIRS:
        arguments, steps = draw_one(draw)
        drawn.append((arguments, sorted(set(steps))))
        pairs += len(drawn[-1][1])
    return drawn


def test_ten_thousand_different_pairs_are_drawn() -> None:
    pairs = {
        (kind, repr(arguments), step)
        for kind, draw_one, _ in CASES
        for arguments, steps in draw_pairs(draw_one)
        for step in steps
    }
    assert len(pairs) >= 10_000


@pytest.mark.parametrize(("kind", "draw_one", "cancels"), CASES, ids=NAMES)
def test_rates_are_those_of_keras(
    kind: type[LearningRateSchedule],
    draw_one: Callable[[Draw], Drawn],
    cancels: bool,
    keras_schedules: ModuleType,
) -> None:
    for arguments, steps in draw_pairs(draw_one):
        ours, peer = kind(**arguments), getattr(keras_schedules, kind.__name__)(**arguments)
        rates = np.array([ours(step) for step in steps])
        expected = np.array([float(peer(step)) for step in steps])
        scale = expected.max() if cancels else expected
        assert np.all(np.abs(rates - expected) <= 1e-6 * scale), f"{ours} at {steps}: {rates}, {expected}"


@pytest.mark.parametrize(("kind", "draw_one"), [case[:2] for case in CASES], ids=NAMES)
def test_a_config_goes_to_keras_and_back(
    kind: type[LearningRateSchedule], draw_one: Callable[[Draw], Drawn], keras_schedules: ModuleType
) -> None:
    draw = Draw(seed=21)
    for _ in range(20):
        ours = kind(**draw_one(draw)[0])
        config = ours.get_config()
        peer = getattr(keras_schedules, kind.__name__).from_config(config)
        assert peer.get_config() == config
        assert list(peer.get_config()) == list(config)
        assert kind.from_config(peer.get_config()) == ours


@pytest.mark.parametrize("kind", [case[0] for case in CASES], ids=NAMES)
def test_names_order_and_defaults_of_arguments_are_those_of_keras(
    kind: type[LearningRateSchedule], keras_schedules: ModuleType
) -> None:
    ours, theirs = inspect.signature(kind), inspect.signature(getattr(keras_schedules, kind.__name__))
    assert [(a.name, a.default, a.kind) for a in ours.parameters.values()] == [
        (a.name, a.default, a.kind) for a in theirs.parameters.values()
    ]
