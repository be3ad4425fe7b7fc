"""Config: the knobs are the core's, with its defaults, in its order; frozen, hashable, of plain values."""

import copy
import dataclasses
import json
import math
import pickle
import re
import typing

import pytest

import adafactor
from adafactor import schedules

FIELDS = {field.name: field for field in dataclasses.fields(adafactor.Config)}
# A value other than the default for every knob, and what it needs beside it.
OTHER = {
    "learning_rate": 0.01,
    "relative_step": "always",
    "warmup_init": True,
    "beta_2_decay": -0.5,
    "beta_2_cap": 0.999,
    "step_offset": 3,
    "count_updates": "leaf",
    "epsilon_1": None,
    "epsilon_1_mode": "clamp",
    "epsilon_2": 0.01,
    "scale_parameter": False,
    "max_parameter_scale": 10.0,
    "clip_threshold": None,
    "beta_1": 0.9,
    "momentum_dtype": "bfloat16",
    "momentum_on": "update",
    "momentum_use": "exact",
    "factored": False,
    "min_dim_size_to_factor": 128,
    "maximize": True,
    "weight_decay": 0.004,
    "weight_decay_on": "step",
    "weight_decay_first": False,
    "exclude_from_weight_decay": ("bias", "norm$"),
    "clipnorm": 1.0,
    "global_clipnorm": 1.0,
    "clipvalue": 1.0,
    "use_ema": True,
    "ema_momentum": 0.5,
    "ema_overwrite_frequency": 100,
    "ema_on": "call",
    "loss_scale_factor": 1024.0,
    "gradient_accumulation_steps": 4,
    "on_nonfinite": "skip",
    "rounding": "stochastic",
    "seed": 42,
}
NEEDS = {name: {"beta_1": 0.9} for name in ("momentum_dtype", "momentum_on", "momentum_use")}
EVERY_SCHEDULE = [
    schedules.ExponentialDecay(0.1, decay_steps=10, decay_rate=0.5, staircase=True),
    schedules.PiecewiseConstantDecay([3, 7], [0.1, 0.01, 0.001]),
    schedules.PolynomialDecay(0.1, decay_steps=10, power=2.0, cycle=True),
    schedules.InverseTimeDecay(0.1, decay_steps=10, decay_rate=0.5),
    schedules.CosineDecay(0.1, decay_steps=10, alpha=0.1, warmup_target=0.2, warmup_steps=3),
    schedules.CosineDecayRestarts(0.1, first_decay_steps=10, t_mul=1.5, m_mul=0.9),
]


def config_with(name):
    return adafactor.Config(**{name: OTHER[name]}, **NEEDS.get(name, {}))


def test_the_knobs_are_the_core_s_with_its_defaults_in_its_order():
    table = adafactor._core.knobs()
    assert [name for name in FIELDS if name in table] == list(table)
    assert set(FIELDS) - set(table) == {"exclude_from_weight_decay"}
    assert set(OTHER) == set(FIELDS)
    default = adafactor.Config()
    for name, (value, words, allowed, sentence) in table.items():
        found = getattr(default, name)
        assert (found, type(found)) == (value, type(value)), name
        assert words is None or value in words
        assert words is None or allowed is None
        assert sentence


def words_of(hint):
    """The values that an annotation lists; `bool` lists two."""
    if hint is bool:
        return {True, False}
    if typing.get_origin(hint) is typing.Literal:
        return set(typing.get_args(hint))
    return set().union(*map(words_of, typing.get_args(hint)))


def test_the_core_s_words_are_those_of_the_annotations():
    hints = typing.get_type_hints(adafactor.Config)
    for name, (_, words, _, _) in adafactor._core.knobs().items():
        assert ("Literal" in str(hints[name])) == (words is not None), name
        assert words is None or words_of(hints[name]) == set(words), name


def test_every_knob_is_described():
    described = re.findall(r"^        (\w+): ", adafactor.Config.__doc__, re.MULTILINE)
    assert described[: len(FIELDS)] == list(FIELDS)


@pytest.mark.parametrize("name", OTHER)
def test_each_knob_is_kept_replaced_and_compared(name):
    default, other = adafactor.Config(), config_with(name)
    assert getattr(default, name) != OTHER[name]
    assert getattr(other, name) == OTHER[name]
    assert other != default
    assert other == config_with(name)
    assert hash(other) == hash(config_with(name))
    changed = default.replace(**{name: OTHER[name]}, **NEEDS.get(name, {}))
    assert changed == other
    assert default == adafactor.Config()
    back = {knob: getattr(default, knob) for knob in (name, *NEEDS.get(name, {}))}
    assert other.replace(**back) == default
    assert {default, other, changed} == {default, other}
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(other, name, getattr(default, name))
    with pytest.raises(dataclasses.FrozenInstanceError):
        delattr(other, name)


@pytest.mark.parametrize("name", OTHER)
def test_each_knob_survives_json_pickle_and_copy(name):
    config = config_with(name)
    knobs = config.to_dict()
    assert list(knobs) == list(FIELDS)
    assert adafactor.Config.from_dict(knobs) == config
    assert adafactor.Config.from_dict(json.loads(json.dumps(knobs))) == config
    for same in (
        pickle.loads(pickle.dumps(config)),
        copy.copy(config),
        copy.deepcopy(config),
        config.replace(),
    ):
        assert same == config
        assert hash(same) == hash(config)


@pytest.mark.parametrize("schedule", EVERY_SCHEDULE, ids=lambda schedule: type(schedule).__name__)
def test_each_schedule_survives_json_and_pickle(schedule):
    config = adafactor.Config(learning_rate=schedule)
    assert config.learning_rate is schedule
    knobs = json.loads(json.dumps(config.to_dict()))
    assert knobs["learning_rate"] == {"class_name": type(schedule).__name__, "config": schedule.get_config()}
    for same in (adafactor.Config.from_dict(knobs), pickle.loads(pickle.dumps(config))):
        assert same == config
        assert hash(same) == hash(config)
        assert [same.learning_rate(s) for s in range(25)] == [schedule(s) for s in range(25)]


def test_every_schedule_is_tried():
    assert {type(schedule).__name__ for schedule in EVERY_SCHEDULE} == set(schedules.__all__) - {
        "LearningRateSchedule"
    }


def test_a_rate_that_no_dictionary_holds_is_refused():
    class Mine(schedules.LearningRateSchedule):
        def __call__(self, step):
            return 0.1

    for rate in (lambda: 0.1, Mine()):
        config = adafactor.Config(learning_rate=rate)
        assert config.learning_rate is rate
        with pytest.raises(TypeError, match=r"^learning_rate: .* cannot be written into a dictionary$"):
            config.to_dict()


def test_a_dictionary_may_leave_knobs_out_but_not_invent_any():
    assert adafactor.Config.from_dict({}) == adafactor.Config()
    with pytest.raises(TypeError, match=r"^unknown knob 'learning_rates'; did you mean 'learning_rate'\?$"):
        adafactor.Config.from_dict({"learning_rates": 0.1})
    with pytest.raises(ValueError, match=r"^learning_rate: class_name 'os', expected one of "):
        adafactor.Config.from_dict({"learning_rate": {"class_name": "os", "config": {}}})
    with pytest.raises(ValueError, match=r"^learning_rate: class_name None, expected one of "):
        adafactor.Config.from_dict({"learning_rate": {}})
    with pytest.raises(ValueError, match=r"^epsilon_2: -1, expected "):
        adafactor.Config.from_dict({"epsilon_2": -1})


def test_values_are_brought_to_one_kind():
    config = adafactor.Config(learning_rate=1, clipnorm=2, exclude_from_weight_decay=iter(["a", "b"]))
    assert (config.learning_rate, type(config.learning_rate)) == (1.0, float)
    assert (config.clipnorm, type(config.clipnorm)) == (2.0, float)
    assert config.exclude_from_weight_decay == ("a", "b")
    assert adafactor.Config(exclude_from_weight_decay="bias").exclude_from_weight_decay == ("bias",)
    assert config == adafactor.Config(learning_rate=1.0, clipnorm=2.0, exclude_from_weight_decay=["a", "b"])


def test_replace_checks_as_the_constructor_does():
    config = adafactor.Config(clipnorm=1.0)
    with pytest.raises(ValueError, match=r"^clipnorm: contradicts clipvalue"):
        config.replace(clipvalue=1.0)
    with pytest.raises(TypeError, match=r"^unknown knob 'clipnrm'; did you mean 'clipnorm'\?$"):
        config.replace(clipnrm=1.0)
    assert config == adafactor.Config(clipnorm=1.0)


def test_a_config_is_what_its_repr_says():
    config = adafactor.Config(learning_rate=0.5, factored=False, exclude_from_weight_decay=("bias",))
    assert eval(repr(config), {"Config": adafactor.Config}) == config
    assert math.isclose(config.epsilon_1, 1e-30)


def test_init_puts_knobs_over_a_config():
    config = adafactor.Config(learning_rate=0.5, clipnorm=1.0)
    params = {}
    assert adafactor.init(params, config).config is config
    assert adafactor.init(params, config, clipnorm=None).config == adafactor.Config(learning_rate=0.5)
    assert adafactor.init(params, learning_rate=0.5).config == adafactor.Config(learning_rate=0.5)
    assert adafactor.init(params).config == adafactor.Config()
