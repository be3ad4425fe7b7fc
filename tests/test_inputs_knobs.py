"""Knobs that are refused, in whatever way they are given, and those that look odd and are fine.

Hazards H1 to H6 and H11.
"""

import dataclasses
import decimal
import fractions
import math
import pickle
import re
import typing

import numpy as np
import pytest

import adafactor
import snapshots
from hazards import Model

nan, inf = math.nan, math.inf
HUGE = 10**400


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
HAZARD = {"learning_rate": "H1", "beta_2_decay": "H2", "clip_threshold": "H3"}
ANNOTATIONS = {field.name: str(field.type) for field in dataclasses.fields(adafactor.Config)}
WORDS = {name: row[1] for name, row in adafactor._core.knobs().items() if row[1] is not None}

NO_NUMBERS = ["0.1", b"1", 1j, True, np.True_, [0.1], {}, object(), np.array([0.1]), np.complex64(1)]
NO_NUMBERS += [np.array(True), np.array("0.1"), np.array(1j), np.timedelta64(1, "s")]
NO_WHOLE_NUMBERS = [2.0, "2", True, np.True_, np.float64(2), fractions.Fraction(2), [2], np.array([2])]
NO_WHOLE_NUMBERS += [Misleading()]
NO_BOOLS = [1, 0, "yes", 1.0, [], np.array(True), np.int64(1)]
NO_WORDS = [3, 1.5, ["last_two"], b"raise", object()]


def no_kind_of(knob):
    """Values of the wrong kind for a knob."""
    kind = ANNOTATIONS[knob]
    if kind == "LearningRate":
        return [*NO_NUMBERS, None]
    if kind.startswith("tuple"):
        return [3, None, [3], ["a", None], {"a": 1}]
    none = [] if kind.endswith("| None") else [None]
    values = {"float": NO_NUMBERS, "int": NO_WHOLE_NUMBERS, "bool": NO_BOOLS}
    return values.get(kind.removesuffix(" | None"), NO_WORDS) + none


def with_ids(values_of):
    """A parameter for each knob and value."""
    return [
        pytest.param(
            knob, value, id=f"{HAZARD.get(knob, 'H4')} {knob}={type(value).__name__} {str(value)[:20]}"
        )
        for knob, values in values_of.items()
        for value in values
    ]


def ways_to_give(**knobs):
    """Every way in which a knob reaches a state."""
    params = {"w": np.ones((2, 3), np.float32)}
    yield lambda: adafactor.Config(**knobs)
    yield lambda: adafactor.Config().replace(**knobs)
    yield lambda: adafactor.init(params, **knobs)
    yield lambda: adafactor.init(params, adafactor.Config(learning_rate=0.5), **knobs)
    yield lambda: adafactor.state_nbytes(params, **knobs)


def refusal(error, call):
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    return str(caught.value)


def needed_for(knob):
    """Knobs without which this one is refused for another reason."""
    return {"beta_1": 0.9} if knob.startswith("momentum") else {}


def test_every_knob_is_tried():
    checked_by_range = {name for name, row in adafactor._core.knobs().items() if row[2] is not None}
    assert set(OUT_OF_RANGE) == checked_by_range
    assert set(ANNOTATIONS) - set(adafactor._core.knobs()) == {"exclude_from_weight_decay"}


@pytest.mark.parametrize(("knob", "value"), with_ids(OUT_OF_RANGE))
def test_a_value_out_of_range_is_a_value_error(knob, value):
    allowed = adafactor._core.knobs()[knob][2]
    for give in ways_to_give(**{knob: value}):
        message = refusal(ValueError, give)
        found = re.fullmatch(rf"{knob}: (\S+), expected {re.escape(allowed)}.*", message)
        assert found, message
        assert float(found[1]) == pytest.approx(value, nan_ok=True)


@pytest.mark.parametrize(("knob", "value"), with_ids({knob: no_kind_of(knob) for knob in ANNOTATIONS}))
def test_a_value_of_the_wrong_kind_is_a_type_error(knob, value):
    for give in ways_to_give(**{knob: value}):
        assert re.match(f"{knob}: .*, expected ", refusal(TypeError, give), re.DOTALL)


@pytest.mark.parametrize(
    ("knob", "value"),
    with_ids(
        {
            "learning_rate": [HUGE, fractions.Fraction(HUGE), decimal.Decimal("sNaN")],
            "epsilon_2": [-HUGE],
            "seed": [2**53 + 1, HUGE],
        }
    ),
)
def test_what_no_float_holds_is_a_value_error(knob, value):
    for give in ways_to_give(**{knob: value}):
        message = refusal(ValueError, give)
        assert re.match(f"{knob}: .*, expected a ", message)
        assert len(message) < 200


@pytest.mark.parametrize("knob", WORDS)
def test_h4_an_unknown_word_is_a_value_error_that_lists_the_words(knob):
    for give in ways_to_give(**{knob: "sometimes"}):
        message = refusal(ValueError, give)
        assert message == f"{knob}: 'sometimes', expected one of {', '.join(map(repr, WORDS[knob]))}"


@pytest.mark.parametrize("knob", WORDS)
def test_every_word_is_taken(knob):
    for word in WORDS[knob]:
        assert getattr(adafactor.Config(**{knob: word}, **needed_for(knob)), knob) == word


def test_h4_a_pattern_that_is_none_is_a_value_error():
    for give in ways_to_give(exclude_from_weight_decay=["bias", "("]):
        assert re.match(r"exclude_from_weight_decay: '\(' is not a regular", refusal(ValueError, give))


@pytest.mark.parametrize(
    "value",
    [
        1,
        np.float16(0.5),
        np.float32(0.5),
        np.int8(1),
        np.array(0.5),
        fractions.Fraction(1, 2),
        decimal.Decimal("0.5"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_h1_anything_that_is_a_real_number_is_taken(value):
    config = adafactor.Config(learning_rate=value, clip_threshold=value)
    assert (config.learning_rate, config.clip_threshold) == (float(value), float(value))
    assert type(config.learning_rate) is float
    model, twin = Model(), Model()
    adafactor.step(model.params, model.grads, model.state, learning_rate=value, grad_multiplier=value)
    adafactor.step(
        twin.params, twin.grads, twin.state, learning_rate=float(value), grad_multiplier=float(value)
    )
    assert model.everything() == twin.everything()


def test_the_ends_of_the_ranges_are_taken():
    adafactor.Config(learning_rate=0, beta_2_decay=0, beta_2_cap=0, epsilon_1=0, epsilon_2=0, beta_1=0)
    adafactor.Config(beta_2_cap=1, ema_momentum=0, weight_decay=0, clip_threshold=1e-300, seed=2**53)
    adafactor.Config(ema_momentum=1, ema_overwrite_frequency=1, gradient_accumulation_steps=2, epsilon_1=None)


def test_h2_the_message_says_which_sign_is_meant():
    message = refusal(ValueError, lambda: adafactor.Config(beta_2_decay=0.8))
    assert message.endswith("(beta2 = 1 - t**beta_2_decay, so -0.8 and not 0.8)")


TYPOS = {
    "learning_rte": "learning_rate",
    "lerning_rate": "learning_rate",
    "weight_decy": "weight_decay",
    "beta2_decay": "beta_2_decay",
    "epsilon1": "epsilon_1",
    "clip_treshold": "clip_threshold",
    "ema_momentun": "ema_momentum",
}


@pytest.mark.parametrize("typo", TYPOS)
def test_h5_a_typo_names_the_nearest_knob(typo):
    message = f"unknown knob {typo!r}; did you mean {TYPOS[typo]!r}?"
    for give in ways_to_give(**{typo: 1}):
        assert refusal(TypeError, give) == message
    override = refusal(TypeError, lambda: adafactor.init(np.ones(3), overrides=[("x", {typo: 1})]))
    assert override == f"overrides[0] 'x': {message}"


def test_h5_what_resembles_no_knob_is_refused_too():
    for give in ways_to_give(zzz=1):
        assert refusal(TypeError, give) == "unknown knob 'zzz'"
    with pytest.raises(TypeError, match="unexpected keyword argument 'lr'"):
        adafactor.step(np.ones(3), np.ones(3), adafactor.init(np.ones(3)), lr=0.1)
    with pytest.raises(TypeError, match=r"^config: dict, expected an adafactor\.Config$"):
        adafactor.init(np.ones(3), {"learning_rate": 0.1})
    with pytest.raises(TypeError):
        adafactor.Config(0.1)


CONTRADICTIONS = [
    ({"warmup_init": True, "relative_step": False}, "warmup_init", "relative_step"),
    ({"momentum_dtype": "bfloat16"}, "momentum_dtype", "beta_1"),
    ({"momentum_on": "update"}, "momentum_on", "beta_1"),
    ({"momentum_use": "exact"}, "momentum_use", "beta_1"),
    ({"clipnorm": 1, "global_clipnorm": 1}, "clipnorm", "global_clipnorm"),
    ({"clipnorm": 1, "clipvalue": 1}, "clipnorm", "clipvalue"),
    ({"global_clipnorm": 1, "clipvalue": 1}, "global_clipnorm", "clipvalue"),
    ({"weight_decay_first": True, "weight_decay_on": "step"}, "weight_decay_first", "weight_decay_on"),
    ({"max_parameter_scale": 1e-4}, "max_parameter_scale", "epsilon_2"),
]


@pytest.mark.parametrize(
    ("knobs", "first", "second"), CONTRADICTIONS, ids=lambda x: x if isinstance(x, str) else "H6"
)
def test_h6_a_contradiction_names_both_knobs(knobs, first, second):
    for give in ways_to_give(**knobs):
        message = refusal(ValueError, give)
        assert re.match(rf"{first}\b.*: contradicts {second}\b.*: ", message), message


def test_h11_a_config_is_frozen():
    state = Model().state
    with pytest.raises(dataclasses.FrozenInstanceError):
        state.config.learning_rate = 1.0
    with pytest.raises(AttributeError):
        state.config = adafactor.Config()


def test_h11_a_step_reads_the_knobs_that_init_was_given():
    """Changing the list or dict that a knob came from changes nothing."""
    patterns: typing.Any = ["b"]
    knobs = {"learning_rate": 0.5}
    params = {"a": np.ones(3), "b": np.ones(3)}
    twin = {path: p.copy() for path, p in params.items()}
    states = [
        adafactor.init(tree, weight_decay=0.5, exclude_from_weight_decay=patterns, overrides=[("a", knobs)])
        for tree in (params, twin)
    ]
    patterns.append("a")
    knobs["learning_rate"] = 0.0
    grads = {"a": np.ones(3), "b": np.ones(3)}
    adafactor.step(params, grads, pickle.loads(pickle.dumps(states[0])))
    adafactor.step(twin, grads, states[1])
    assert snapshots.same_bits(params.values(), twin.values())
    assert params["a"] == pytest.approx(np.full(3, 1 - 0.5 * 0.75 - 0.25))


@pytest.mark.parametrize(
    ("n", "error", "message"),
    [
        (-1, ValueError, r"^n: -1, expected a whole number >= 0$"),
        (1.0, TypeError, r"^n: 1\.0, expected a whole number$"),
        (True, TypeError, r"^n: True, expected a whole number$"),
        ("2", TypeError, r"^n: '2', expected a whole number$"),
        (None, TypeError, r"^n: None, expected a whole number$"),
    ],
)
def test_a_number_of_threads_that_is_none_is_refused(n, error, message):
    before = adafactor.get_num_threads()
    with pytest.raises(error, match=message):
        adafactor.set_num_threads(n)
    assert adafactor.get_num_threads() == before


def test_a_number_of_threads_is_kept_until_zero_takes_it_back():
    default = adafactor.get_num_threads()
    for n, expected in ((3, 3), (np.int64(1), 1), (10**6, 1024), (2**100, 1024), (0, default)):
        adafactor.set_num_threads(n)
        assert adafactor.get_num_threads() == expected
