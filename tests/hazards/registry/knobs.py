"""Section 5, knobs: H1 to H6, and that nothing changes them later, H11."""

import dataclasses
import decimal
import fractions
import math
import pickle
import re

import numpy as np
import pytest

import adafactor
from registry.case import AT_INIT, Case, Event

nan, inf = math.nan, math.inf
HUGE = 10**400
KNOBS = adafactor._core.knobs()
ANNOTATIONS = {field.name: str(field.type) for field in dataclasses.fields(adafactor.Config)}
WORDS = {knob: row[1] for knob, row in KNOBS.items() if row[1] is not None}
HAZARD = {"learning_rate": "H1", "beta_2_decay": "H2", "clip_threshold": "H3"}


class Misleading:
    """Claims to be a whole number, and is none."""

    def __index__(self):
        return "2"


OUT_OF_RANGE = {
    "learning_rate": [-1.0, -1e-300, nan, inf, -inf],
    "beta_2_decay": [0.1, 0.8, nan, inf, -inf],
    "beta_2_cap": [-0.1, 1.1, nan, inf],
    "step_offset": [-1],
    "epsilon_1": [-1e-30, nan, inf],
    "epsilon_2": [-0.001, nan, inf],
    "max_parameter_scale": [0.0, -1.0, nan, inf],
    "clip_threshold": [0.0, -1.0, nan, inf],
    "beta_1": [-0.1, 1.0, 1.5, nan],
    "min_dim_size_to_factor": [-1],
    "weight_decay": [-0.1, nan, inf],
    "clipnorm": [0.0, -1.0, nan, inf],
    "global_clipnorm": [0.0, -1.0, nan, inf],
    "clipvalue": [0.0, -1.0, nan, inf],
    "ema_momentum": [-0.1, 1.1, nan],
    "ema_overwrite_frequency": [0, -1],
    "loss_scale_factor": [0.0, -1.0, nan, inf],
    "gradient_accumulation_steps": [1, 0, -2],
    "seed": [-1],
}
NO_NUMBERS = ["0.1", b"1", 1j, True, np.True_, [0.1], {}, object(), np.array([0.1]), np.complex64(1)]
NO_NUMBERS += [np.array(True), np.array("0.1"), np.array(1j), np.timedelta64(1, "s")]
NO_WHOLE_NUMBERS = [2.0, "2", True, np.True_, np.float64(2), fractions.Fraction(2), [2], np.array([2])]
NO_WHOLE_NUMBERS += [Misleading()]
NO_BOOLS = [1, 0, "yes", 1.0, [], np.array(True), np.int64(1)]
NO_WORDS = [3, 1.5, ["last_two"], b"raise", object()]
NO_PATTERNS = [3, None, [3], ["a", None], {"a": 1}]
KINDS = {
    "float": (NO_NUMBERS, "a number"),
    "int": (NO_WHOLE_NUMBERS, "a whole number"),
    "bool": (NO_BOOLS, "True or False"),
    "LearningRate": (
        [*NO_NUMBERS, None],
        "a number, a LearningRateSchedule or a callable without arguments"
        "(; parameters are given to init, or to build)?",  # said of a container
    ),
    "tuple[str, ...]": (NO_PATTERNS, "(regular expressions|a regular expression)"),
}
TYPOS = {
    "learning_rte": "learning_rate",
    "lerning_rate": "learning_rate",
    "lr": "learning_rate",
    "weight_decy": "weight_decay",
    "beta2_decay": "beta_2_decay",
    "epsilon1": "epsilon_1",
    "clip_treshold": "clip_threshold",
    "ema_momentun": "ema_momentum",
}
CONTRADICTIONS = [
    ({"warmup_init": True, "relative_step": False}, "warmup_init", "relative_step=False"),
    ({"momentum_dtype": "bfloat16"}, "momentum_dtype", "beta_1=None"),
    ({"momentum_on": "update"}, "momentum_on", "beta_1=None"),
    ({"momentum_use": "exact"}, "momentum_use", "beta_1=None"),
    ({"clipnorm": 1, "global_clipnorm": 1}, "clipnorm", "global_clipnorm"),
    ({"clipnorm": 1, "clipvalue": 1}, "clipnorm", "clipvalue"),
    ({"global_clipnorm": 1, "clipvalue": 1}, "global_clipnorm", "clipvalue"),
    (
        {"weight_decay_first": True, "weight_decay_on": "step"},
        "weight_decay_first=True",
        "weight_decay_on='step'",
    ),
    ({"max_parameter_scale": 1e-4}, "max_parameter_scale", "epsilon_2"),
]


def one_of(knob):
    return f"one of {', '.join(map(repr, WORDS[knob]))}"


def wrong_kinds(knob):
    """Values of the wrong kind for a knob, and what is expected in words."""
    kind = ANNOTATIONS[knob]
    values, expected = KINDS.get(kind.removesuffix(" | None"), (NO_WORDS, ""))
    if knob in WORDS:
        return [*NO_WORDS, None], re.escape(one_of(knob))
    may_be_none = kind.endswith("| None") or None in values
    return values if may_be_none else [*values, None], expected


def shown(value):
    """A value in the name of a case, which is the same in every process."""
    return re.sub(r" at 0x\w+", "", repr(value))[:24]


def at_init(knobs, number, error, message):
    """A knob, or several, that `init` refuses."""
    given = ", ".join(f"{knob}={shown(value)}" for knob, value in knobs.items())
    return Case(f"{number} {given}", lambda m: (m.params, knobs), error, message, AT_INIT)


def out_of_range():
    for knob, values in OUT_OF_RANGE.items():
        hint = " (beta2 = 1 - t**beta_2_decay, so -0.8 and not 0.8)" if knob == "beta_2_decay" else ""
        for value in values:
            # C++ writes a number as %g does.
            message = f"{knob}: {re.escape(f'{value:g}')}, expected {re.escape(KNOBS[knob][2] + hint)}"
            yield at_init({knob: value}, HAZARD.get(knob, "H4"), ValueError, message)


def of_the_wrong_kind():
    for knob in ANNOTATIONS:
        values, expected = wrong_kinds(knob)
        for value in values:
            yield at_init(
                {knob: value}, HAZARD.get(knob, "H4"), TypeError, f"{knob}: .*, expected {expected}"
            )


SHORT = r"-?1(0){55,56}\.\.\."
REFUSED_KNOBS = [
    *out_of_range(),
    *of_the_wrong_kind(),
    at_init({"learning_rate": HUGE}, "H1", ValueError, f"learning_rate: {SHORT}, expected a finite number"),
    at_init(
        {"learning_rate": fractions.Fraction(HUGE)},
        "H1",
        ValueError,
        r"learning_rate: Fraction\(10+\.\.\., expected a finite number",
    ),
    at_init(
        {"learning_rate": decimal.Decimal("sNaN")},
        "H1",
        ValueError,
        r"learning_rate: Decimal\('sNaN'\), expected a finite number",
    ),
    at_init({"epsilon_2": -HUGE}, "H4", ValueError, f"epsilon_2: {SHORT}, expected a finite number"),
    at_init({"seed": HUGE}, "H4", ValueError, rf"seed: {SHORT}, expected a whole number of at most 2\*\*53"),
    *(
        at_init(
            {knob: "sometimes"}, "H4", ValueError, re.escape(f"{knob}: 'sometimes', expected {one_of(knob)}")
        )
        for knob in WORDS
    ),
    at_init(
        {"exclude_from_weight_decay": ["bias", "("]},
        "H4",
        ValueError,
        r"exclude_from_weight_decay: '\(' is not a regular expression: missing \), .*",
    ),
    *(
        at_init({typo: 1}, "H5", TypeError, re.escape(f"unknown knob {typo!r}; did you mean {knob!r}?"))
        for typo, knob in TYPOS.items()
    ),
    at_init({"zzz": 1}, "H5", TypeError, r"unknown knob 'zzz'; help\(adafactor\.Config\) lists the knobs"),
    *(
        at_init(knobs, "H6", ValueError, re.escape(f"{first}: contradicts {second}: ") + ".+")
        for knobs, first, second in CONTRADICTIONS
    ),
]


def knobs_that_change_later(m):
    """Changing the list or dict that a knob came from changes nothing, also not in a pickle."""
    patterns, knobs = ["b"], {"learning_rate": 0.5}
    params = {"a": np.ones(3), "b": np.ones(3)}
    state = adafactor.init(
        params, weight_decay=0.5, exclude_from_weight_decay=patterns, overrides=[("a", knobs)]
    )
    patterns.append("a")
    knobs["learning_rate"] = 0.0
    adafactor.step(params, {"a": np.ones(3), "b": np.ones(3)}, pickle.loads(pickle.dumps(state)))
    # p - rate * scale of the decayed p - decay * rate * p
    assert params["a"] == pytest.approx(np.full(3, 1 - 0.5 * 0.75 - 0.25))


def a_config_is_frozen(m):
    with pytest.raises(dataclasses.FrozenInstanceError):
        m.state.config.learning_rate = 1.0
    with pytest.raises(AttributeError):
        m.state.config = adafactor.Config()


CASES = [
    *REFUSED_KNOBS,
    Event("H11 a config is frozen", a_config_is_frozen),
    Event("H11 what knobs came from changes later", knobs_that_change_later),
]
