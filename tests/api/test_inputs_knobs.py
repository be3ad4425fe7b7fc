"""Knobs in every way in which they are given, and those that look odd and are fine.

What is refused is in the registry of bad inputs.
"""

import decimal
import fractions

import numpy as np
import pytest

import adafactor
from registry.knobs import ANNOTATIONS, KNOBS, OUT_OF_RANGE, WORDS

REFUSED = [
    ({"epsilon_2": -1.0}, ValueError),
    ({"seed": 10**400}, ValueError),
    ({"weight_decay": "0.1"}, TypeError),
    ({"factored": "sometimes"}, ValueError),
    ({"exclude_from_weight_decay": ["("]}, ValueError),
    ({"learning_rte": 1}, TypeError),
    ({"clipnorm": 1, "clipvalue": 1}, ValueError),
]


def ways_to_give(**knobs):
    """Every way in which a knob reaches a state."""
    params = {"w": np.ones((2, 3), np.float32)}
    yield lambda: adafactor.Config(**knobs)
    yield lambda: adafactor.Config().replace(**knobs)
    yield lambda: adafactor.Config.from_dict(knobs)
    yield lambda: adafactor.init(params, **knobs)
    yield lambda: adafactor.init(params, adafactor.Config(learning_rate=0.5), **knobs)
    yield lambda: adafactor.state_nbytes(params, **knobs)
    yield lambda: adafactor.scratch_nbytes(params, **knobs)


def refusal(error, call):
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    return str(caught.value)


def needed_for(knob):
    """Knobs without which this one is refused for another reason."""
    return {"beta_1": 0.9} if knob.startswith("momentum") else {}


def test_every_knob_is_tried():
    checked_by_range = {name for name, row in KNOBS.items() if row[2] is not None}
    assert set(OUT_OF_RANGE) == checked_by_range
    assert set(ANNOTATIONS) - set(KNOBS) == {"exclude_from_weight_decay"}


@pytest.mark.parametrize(
    ("knobs", "error"), REFUSED, ids=lambda x: next(iter(x)) if isinstance(x, dict) else ""
)
def test_every_way_to_give_a_knob_refuses_it_in_the_same_words(knobs, error):
    first, *others = ways_to_give(**knobs)
    message = refusal(error, first)
    assert len(message) < 200
    assert [refusal(error, way) for way in others] == [message] * len(others)
    if "seed" not in knobs:
        override = refusal(error, lambda: adafactor.init(np.ones(3), overrides=[("x", knobs)]))
        assert override == f"overrides[0] 'x': {message}"


@pytest.mark.parametrize("knob", WORDS)
def test_every_word_is_taken(knob):
    for word in WORDS[knob]:
        assert getattr(adafactor.Config(**{knob: word}, **needed_for(knob)), knob) == word


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
def test_anything_that_is_a_real_number_is_taken(value):
    config = adafactor.Config(learning_rate=value, clip_threshold=value)
    assert (config.learning_rate, config.clip_threshold) == (float(value), float(value))
    assert type(config.learning_rate) is float


def test_the_ends_of_the_ranges_are_taken():
    adafactor.Config(learning_rate=0, beta_2_decay=0, beta_2_cap=0, epsilon_1=0, epsilon_2=0, beta_1=0)
    adafactor.Config(beta_2_cap=1, ema_momentum=0, weight_decay=0, clip_threshold=1e-300, seed=2**53)
    adafactor.Config(ema_momentum=1, ema_overwrite_frequency=1, gradient_accumulation_steps=2, epsilon_1=None)


def test_a_step_takes_no_knobs():
    with pytest.raises(TypeError, match="unexpected keyword argument 'lr'"):
        adafactor.step(np.ones(3), np.ones(3), adafactor.init(np.ones(3)), lr=0.1)
    with pytest.raises(TypeError):
        adafactor.Config(0.1)


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
    most = 1 if adafactor.build_info()["threads"] == "serial" else 1024
    for n, expected in ((3, 3), (np.int64(1), 1), (10**6, 1024), (2**100, 1024), (0, default)):
        adafactor.set_num_threads(n)
        assert adafactor.get_num_threads() == min(expected, most)
