"""Random knobs, trees and gradients to compare the library with the oracle: every knob of `Config`."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

RULES = ["last_two", "largest_two", "leading_two_or_last_two", False]
# Knobs of single leaves that an override may set; the others concern the whole call.
OVERRIDES = [
    {"learning_rate": 0.25, "maximize": True},
    {"weight_decay": 0.05, "weight_decay_on": "none", "weight_decay_first": None},
    {"factored": False, "clip_threshold": None},
    {"beta_2_decay": -0.6, "epsilon_1": 1e-4, "scale_parameter": False},
]


@dataclass(frozen=True)
class Case:
    """`rates` has a learning rate for each call, where the configured one is a callable."""

    knobs: dict[str, Any]
    rates: tuple[float, ...] | None
    overrides: list[tuple[str, dict[str, Any]]]
    leaves: dict[str, np.ndarray]
    gradients: list[dict[str, np.ndarray | None]]
    step_arguments: list[dict[str, float]]


def number(low, high):
    return st.floats(low, high, width=32)


def power(low, high):
    return st.floats(low, high).map(lambda exponent: float(np.float32(10.0**exponent)))


def sometimes(strategy):
    return st.none() | strategy


@st.composite
def knobs(draw):
    """A valid set of every knob that changes a number."""
    step = draw(st.sampled_from([True, False, "always"]))
    chosen = {
        "learning_rate": draw(power(-3, 0)),
        "relative_step": step,
        "warmup_init": bool(step) and draw(st.integers(0, 4)) == 0,
        "beta_2_decay": draw(number(-1.5, 0)),
        "beta_2_cap": draw(sometimes(number(0, 1))),
        "step_offset": draw(st.integers(0, 4)),
        "count_updates": draw(st.sampled_from(["state", "leaf"])),
        "epsilon_1": draw(st.sampled_from([1e-30, 1e-30, 0.0, None, 1e-8, 1e-2])),
        "epsilon_1_mode": draw(st.sampled_from(["add", "clamp"])),
        "epsilon_2": draw(power(-5, -1)),
        "scale_parameter": draw(st.booleans()),
        "max_parameter_scale": draw(sometimes(power(-0.9, 1))),
        "clip_threshold": draw(sometimes(power(-1, 0.5))),
        "factored": draw(st.sampled_from(RULES)),
        "min_dim_size_to_factor": draw(st.sampled_from([0, 1, 2, 5])),
        "maximize": draw(st.booleans()),
        "loss_scale_factor": draw(sometimes(power(-1, 3))),
        "gradient_accumulation_steps": draw(sometimes(st.integers(2, 4))),
        "on_nonfinite": draw(st.sampled_from(["raise", "skip", "propagate"])),
    }
    chosen.update(draw(decays()))
    chosen.update(draw(averages()))
    clip = draw(st.sampled_from([None, None, "clipnorm", "global_clipnorm", "clipvalue"]))
    if clip:
        chosen[clip] = draw(power(-2, 1))
    if draw(st.booleans()):
        chosen["beta_1"] = draw(number(0, 0.9375))
        chosen["momentum_dtype"] = draw(st.sampled_from(["float32", "bfloat16"]))
        chosen["momentum_on"] = draw(st.sampled_from(["scaled", "update"]))
        chosen["momentum_use"] = draw(st.sampled_from(["stored", "exact"]))
    return chosen


@st.composite
def decays(draw):
    on = draw(st.sampled_from(["learning_rate", "step", "none"]))
    first = draw(st.sampled_from([None, False] if on == "step" else [None, False, True]))
    return {
        "weight_decay": draw(sometimes(power(-3, -0.5))),
        "weight_decay_on": on,
        "weight_decay_first": first,
        "exclude_from_weight_decay": draw(st.sampled_from([(), ("leaf1",), ("0$", "2$")])),
    }


@st.composite
def averages(draw):
    return {
        "use_ema": draw(st.booleans()),
        "ema_momentum": draw(number(0, 1)),
        "ema_overwrite_frequency": draw(sometimes(st.integers(1, 3))),
        "ema_on": draw(st.sampled_from(["update", "call"])),
    }


@st.composite
def shapes(draw):
    """Rank 0 to 5, up to some hundred elements, a size of 0 now and then, a row that needs several loads."""
    rank = draw(st.integers(0, 5))
    largest = (1, 1100, 40, 9, 5, 4)[rank]
    shape = [draw(st.integers(1, largest)) for _ in range(rank)]
    if rank and draw(st.integers(0, 9)) == 9:
        shape[draw(st.integers(0, rank - 1))] = 0
    return tuple(shape)


def placed(array, order):
    """The same numbers in memory of another order: C, F, or every other element of something larger."""
    if order == "strided" and array.ndim:
        room = np.full([2 * size for size in array.shape], np.nan, array.dtype)
        room[tuple(slice(1, None, 2) for _ in array.shape)] = array
        return room[tuple(slice(1, None, 2) for _ in array.shape)]
    return np.array(array, order="F" if order == "F" else "C")


@st.composite
def cases(draw, dtype=np.float64, calls=6):
    """A `Case` of leaves of this dtype. Leaves miss gradients, though never all of them in one call."""
    chosen = draw(knobs())
    rates = draw(sometimes(st.tuples(*[power(-3, 0)] * calls)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    leaves, scales = {"leaf0": np.asarray(rng.standard_normal(3), dtype)}, {"leaf0": 1.0}
    for i, shape in enumerate(draw(st.lists(shapes(), min_size=1, max_size=3)), 1):
        p = draw(st.sampled_from([0.0, 0.01, 1.0, 10.0])) * rng.standard_normal(shape)
        leaves[f"leaf{i}"] = placed(np.asarray(p, dtype), draw(st.sampled_from(["C", "F", "strided"])))
        scales[f"leaf{i}"] = 10.0 ** rng.uniform(-3, 1)
    order = draw(st.sampled_from(["C", "F", "strided"]))
    gradients = [
        {
            path: placed(np.asarray(scales[path] * rng.standard_normal(p.shape), dtype), order)
            for path, p in leaves.items()
        }
        for _ in range(calls)
    ]
    if draw(st.booleans()):
        for call in gradients:
            call[str(rng.choice(list(leaves)))] = None
    multipliers = draw(sometimes(power(-1, 1)))
    given = draw(sometimes(power(-3, 0)))
    step_arguments = [
        ({"grad_multiplier": multipliers} if multipliers else {})
        | ({"learning_rate": given} if given and call % 3 == 1 else {})
        for call in range(calls)
    ]
    overrides = [("leaf1", draw(st.sampled_from(OVERRIDES)))] if draw(st.booleans()) else []
    if rates and any("learning_rate" in own for _, own in overrides):
        for arguments in step_arguments:  # one rate for all needs a ratio, which a schedule has not
            arguments.pop("learning_rate", None)
    return Case(chosen, rates, overrides, leaves, gradients, step_arguments)
