"""Live Keras: 300 runs over every argument of keras.optimizers.Adafactor, with a fixed and with a fresh seed.

A fresh seed is printed, also where the test passes; ADAFACTOR_TEST_SEED=<seed> runs that one again.
"""

import inspect
import os
import secrets
import warnings
from collections import Counter
from itertools import combinations

import numpy as np
import pytest

import adafactor
from keras_cases import ARGUMENTS, CALLS, FIXED_SEED, PAIRS, RUNS, Rate, furthest, keras_runs
from peers import require

# Two float32 computations in different orders, twelve calls long. Measured: 9e-7 at most.
TOLERANCE = 2e-5


def test_runs_draw_every_argument_that_keras_has():
    signature = inspect.signature(require("keras").optimizers.Adafactor)
    theirs = {
        name
        for name, parameter in signature.parameters.items()
        if parameter.kind is not parameter.VAR_KEYWORD
    }
    assert theirs | {"exclude_from_weight_decay"} == set(ARGUMENTS)
    ours = inspect.signature(adafactor.presets.keras).parameters
    for name in theirs - {"name"}:
        assert ours[name].default == signature.parameters[name].default, name


@pytest.mark.filterwarnings("ignore:exclude_from_weight_decay. .* finds no leaf:UserWarning")
@pytest.mark.parametrize("which", ["fixed", "fresh"])
def test_follows_keras(which, capsys):
    number = FIXED_SEED
    if which == "fresh":
        number = int(os.environ.get("ADAFACTOR_TEST_SEED") or secrets.randbits(32))
    runs = keras_runs(number)
    distances = []
    for case, expected in runs:
        trajectory, state = run_ours(case)
        assert state.calls == CALLS
        assert state.iterations == CALLS // case.arguments.get("gradient_accumulation_steps", 1) >= 2
        assert_moved(case, trajectory, expected)
        distances.append(furthest(case, trajectory, expected))
    assert_covered([case for case, _ in runs])
    worst = int(np.argmax(distances))
    summary = f"seed {number}: furthest from Keras {distances[worst]:.1e} of |p|, in run {worst} of {RUNS}"
    with capsys.disabled():
        print(f"\n{summary}")
    assert distances[worst] < TOLERANCE, f"{summary}: {runs[worst][0]}"


def run_ours(case):
    """The parameters after each call of adafactor.step, and the state at the end."""
    arguments = dict(case.arguments)
    if isinstance(arguments.get("learning_rate"), Rate):
        arguments["learning_rate"] = arguments["learning_rate"].build(adafactor.schedules)
    config = adafactor.presets.keras(**arguments).replace(exclude_from_weight_decay=case.exclude)
    params = {name: p.copy() for name, p in case.leaves.items()}
    state = adafactor.init(params, config)
    trajectory = []
    for gradients in case.gradients:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "grads: no gradient for", UserWarning)
            adafactor.step(params, gradients, state)
        trajectory.append({name: p.copy() for name, p in params.items()})
    return trajectory, state


def assert_moved(case, trajectory, expected):
    """Every leaf that Keras moves: updates of a single number may all be below half a unit of it."""

    def moved(name, p, steps):
        return any(np.any(np.asarray(after[name]) != p) for after in steps)

    for name, p in case.leaves.items():
        assert moved(name, p, trajectory) == moved(name, p, expected), f"{name} moved, or not: {case}"
    assert any(moved(name, p, trajectory) for name, p in case.leaves.items()), f"nothing moved: {case}"


def assert_covered(cases):
    """The counts that the runs promise: of arguments, of pairs, of kinds of leaves, of absent gradients."""
    away, pairs = Counter(), set()
    for case in cases:
        names = {*case.arguments, *(["exclude_from_weight_decay"] if case.exclude else [])}
        away.update(names)
        pairs.update(map(frozenset, combinations(names, 2)))
    assert len(cases) == RUNS
    assert {name: away[name] for name in ARGUMENTS if away[name] < 40} == {}
    assert set(PAIRS) - pairs == set()
    leaves = [p for case in cases for p in case.leaves.values()]
    ranks = Counter(p.ndim for p in leaves)
    assert all(ranks[rank] >= 40 for rank in range(6)), ranks
    assert sum(p.size == 0 for p in leaves) >= 20
    assert sum(p.size > 1 and 1 in p.shape for p in leaves) >= 40
    assert sum(p.size == 1 for p in leaves) >= 40
    assert sum(g is None for case in cases for call in case.gradients for g in call.values()) >= RUNS
    rates = [case.arguments.get("learning_rate") for case in cases]
    kinds = Counter(rate.name if isinstance(rate, Rate) else type(rate).__name__ for rate in rates)
    assert min(kinds.values()) >= 5, kinds
    assert len(kinds) == 9, kinds  # the default, a number, a callable and six schedules
