"""Random training runs for keras.optimizers.Adafactor: constructor arguments, a tree of leaves, twelve calls.

`demands()` lists what each of 300 runs must contain, so that every argument and every pair of arguments is
met by construction; hypothesis fills in all the rest.
"""

import warnings
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
from hypothesis import Phase, given, seed, settings
from hypothesis import strategies as st

from peers import require

FIXED_SEED = 1804_04235  # the number of the paper
RUNS = 300
CALLS = 12


@dataclass(frozen=True)
class Rate:
    """A learning rate that is not a number: a schedule by name, or a callable without arguments."""

    name: str
    arguments: dict[str, Any]

    def build(self, schedules):
        """The schedule of that name in the module `schedules`, which has Keras' names."""
        if self.name == "callable":
            return lambda: self.arguments["value"]
        return getattr(schedules, self.name)(**self.arguments)


@dataclass(frozen=True)
class Case:
    """One run. `arguments` are those away from their default; the learning rate in them may be a `Rate`."""

    arguments: dict[str, Any]
    exclude: tuple[str, ...]
    leaves: dict[str, np.ndarray]
    gradients: list[dict[str, np.ndarray | None]]


def between(low, high):
    """Numbers from low to high that float32 holds exactly, so that Keras' casts change nothing."""
    return st.floats(float(np.float32(low)), float(np.float32(high)), width=32)


def powers(low, high):
    """Numbers from 10^low to 10^high, evenly in the exponent."""
    return st.floats(low, high).map(lambda exponent: float(np.float32(10.0**exponent)))


def schedule(name, required, **optional):
    return st.builds(Rate, st.just(name), st.fixed_dictionaries(required, optional=optional))


LEARNING_RATES = powers(-3, -0.3)
# Decay in whole numbers of calls: Keras decides in float32 on which side of a boundary a call is. A rate
# never falls to zero, where a leaf could not be seen to move.
DECAY = {"initial_learning_rate": LEARNING_RATES, "decay_steps": st.integers(2, 8)}
RESTARTS = {"initial_learning_rate": LEARNING_RATES, "first_decay_steps": st.integers(2, 8)}
FLOOR = {"alpha": between(0.1, 0.5)}
RATES = (
    LEARNING_RATES,
    schedule("callable", {"value": LEARNING_RATES}),
    schedule("ExponentialDecay", DECAY | {"decay_rate": between(0.5, 1)}, staircase=st.booleans()),
    schedule("InverseTimeDecay", DECAY | {"decay_rate": between(0.5, 1)}, staircase=st.booleans()),
    schedule(
        "PiecewiseConstantDecay",
        {
            "boundaries": st.tuples(st.integers(1, 4), st.integers(5, 9)).map(list),
            "values": st.lists(LEARNING_RATES, min_size=3, max_size=3),
        },
    ),
    schedule(
        "PolynomialDecay",
        DECAY,
        end_learning_rate=LEARNING_RATES,
        power=between(0.5, 2),
        cycle=st.booleans(),
    ),
    schedule("CosineDecay", DECAY | FLOOR),
    schedule(
        "CosineDecay", DECAY | FLOOR | {"warmup_target": LEARNING_RATES, "warmup_steps": st.integers(1, 4)}
    ),
    schedule("CosineDecayRestarts", RESTARTS | FLOOR, t_mul=st.just(1.0), m_mul=between(0.5, 1)),
)

# What an argument may be, away from its default, where Keras' float32 can be trusted.
VALUES = {
    "learning_rate": st.one_of(*RATES),
    # Keras rounds t^decay to float32, so a beta2 near 0 is wrong by 6e-8 there, which old moments far above
    # the new ones turn into more than the bound.
    "beta_2_decay": st.just(0.0) | between(-1.5, -0.01),
    "epsilon_1": powers(-20, -3),
    "epsilon_2": powers(-5, -1),
    "clip_threshold": powers(-1, 0.5),
    "relative_step": st.just(False),
    "clipnorm": powers(-2, 1),
    "clipvalue": powers(-3, 0),
    "global_clipnorm": powers(-2, 1),
    "weight_decay": powers(-3, -0.5),
    "use_ema": st.just(True),
    "ema_momentum": between(0, 1),
    "ema_overwrite_frequency": st.integers(1, 5),
    "loss_scale_factor": powers(-1, 3),
    "gradient_accumulation_steps": st.integers(2, CALLS // 2),
    "name": st.just("another"),
    "exclude_from_weight_decay": st.sampled_from([("bias",), ("kernel", "scale"), ("^b|1$",)]),
}
ARGUMENTS = tuple(VALUES)
NEEDS = {
    "ema_momentum": "use_ema",
    "ema_overwrite_frequency": "use_ema",
    "exclude_from_weight_decay": "weight_decay",
}
CLIPS = {"clipnorm", "clipvalue", "global_clipnorm"}  # at most one of the three
PAIRS = [frozenset(pair) for pair in combinations(ARGUMENTS, 2) if not CLIPS.issuperset(pair)]


def demands():
    """What each run must contain: every pair once, then three arguments at a time, each equally often.

    The distances 5 and 11 never bring two of the three clips together, which are neighbours in the list.
    """
    n = len(ARGUMENTS)
    triples = [{ARGUMENTS[(i + distance) % n] for distance in (0, 5, 11)} for i in range(RUNS - len(PAIRS))]
    return [*PAIRS, *map(frozenset, triples)]


def complete(demanded, wished):
    """The arguments of a run: those demanded, those wished unless they contradict, and what they need."""
    chosen = set(demanded)
    for argument in wished:
        if not (argument in CLIPS and CLIPS & chosen):
            chosen.add(argument)
    return chosen | {NEEDS[argument] for argument in chosen if argument in NEEDS}


@st.composite
def shapes(draw, rank, narrow, empty):
    """At most 500 elements. A narrow shape has one size of 1 and others above, an empty one a size of 0."""
    largest = (1, 40, 17, 7, 5, 3)[rank]
    shape = [draw(st.integers(2 if narrow else 1, largest)) for _ in range(rank)]
    if rank and (narrow or empty):
        shape[draw(st.integers(0, rank - 1))] = 0 if empty else 1
    return tuple(shape)


def draw_gradients(rng, leaves, window, absent):
    """Gradients of twelve calls. A leaf may miss one, but not on the call that ends a window of accumulation:
    there Keras drops what the leaf has gathered, which is a documented difference."""
    size = {name: 10.0 ** rng.uniform(-3, 1) for name in leaves}
    calls = []
    for call in range(CALLS):
        gradients = {}
        for name, p in leaves.items():
            rows = 10.0 ** rng.uniform(-1, 1, p.shape[:1] + (1,) * (p.ndim - 1))
            gradients[name] = np.asarray(size[name] * rows * rng.standard_normal(p.shape), np.float32)
        if absent and (window == 1 or (call + 1) % window):
            gradients[rng.choice(list(leaves))] = None
        calls.append(gradients)
    return calls


@st.composite
def cases(draw, demanded, number):
    """A `Case` with the demanded arguments. The number of the run deals out in turn what has to be met often:
    kinds of learning rates, ranks, narrow and empty leaves, absent gradients."""
    wished = draw(st.lists(st.sampled_from(ARGUMENTS), unique=True, max_size=5))
    if number % 2:
        wished.append("learning_rate")  # at 0.001, its default, twelve calls do not go far
    chosen = complete(demanded, wished)
    values = VALUES | {"learning_rate": RATES[number // 2 % len(RATES)]}
    arguments = {argument: draw(values[argument]) for argument in ARGUMENTS if argument in chosen}
    exclude = arguments.pop("exclude_from_weight_decay", ())
    forms = [
        shapes(number % 6, number % 4 == 1, False),
        shapes((number + 3) % 6, False, number % 5 == 0),
        *[shapes(draw(st.integers(0, 5)), False, False) for _ in range(draw(st.integers(0, 2)))],
    ]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    leaves = {}
    for i, form in enumerate(forms):
        p = draw(st.sampled_from([0.0, 0.01, 1.0, 10.0])) * rng.standard_normal(draw(form))
        leaves[f"{('kernel', 'bias', 'scale')[i % 3]}{i}"] = np.asarray(p, np.float32)
    window = arguments.get("gradient_accumulation_steps", 1)
    return Case(arguments, exclude, leaves, draw_gradients(rng, leaves, window, absent=number % 4 > 1))


def draw_one(strategy, number):
    """What the strategy gives for this seed."""
    drawn = []

    # Of two examples the first is always the simplest one. Nothing is shrunk or stored: the seed tells a run.
    @seed(number)
    @settings(max_examples=2, phases=[Phase.generate], database=None, derandomize=False, deadline=None)
    @given(strategy)
    def collect(value):
        drawn.append(value)

    collect()
    return drawn[-1]


def drawn_cases(number):
    """The runs of one seed."""
    return [draw_one(cases(demanded, i), number + i) for i, demanded in enumerate(demands())]


def run_keras(case):
    """The parameters after each call of keras.optimizers.Adafactor, by name."""
    keras = require("keras")
    variables = {name: keras.Variable(p, dtype="float32", name=name) for name, p in case.leaves.items()}
    arguments = dict(case.arguments)
    if isinstance(arguments.get("learning_rate"), Rate):
        arguments["learning_rate"] = arguments["learning_rate"].build(keras.optimizers.schedules)
    optimizer = keras.optimizers.Adafactor(**arguments)
    if case.exclude:
        optimizer.exclude_from_weight_decay(var_names=case.exclude)
    optimizer.build(list(variables.values()))
    trajectory = []
    for gradients in case.gradients:
        # Keras warns of absent gradients; NumPy of means over empty leaves and of 1 / 0 in its global norm.
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            optimizer.apply(list(gradients.values()))
        trajectory.append({name: np.array(variable.value) for name, variable in variables.items()})
    return trajectory


@cache
def keras_runs(number):
    """The runs of one seed and what Keras makes of them, computed once: Keras takes most of the time."""
    require("keras")
    return [(case, run_keras(case)) for case in drawn_cases(number)]


def furthest(case, trajectory, expected):
    """The largest distance of two trajectories, in parts of the largest |p| that the leaf has had, or 0.01.
    Infinite where one of them has a NaN."""
    distance = 0.0
    for name, p in case.leaves.items():
        largest = max(0.01, np.abs(p).max(initial=0))
        for ours, theirs in zip(trajectory, expected, strict=True):
            largest = max(largest, np.abs(theirs[name]).max(initial=0))
            parts = np.abs(ours[name] - np.asarray(theirs[name], np.float64)) / largest
            distance = max(distance, np.nan_to_num(parts, nan=np.inf).max(initial=0))
    return distance
