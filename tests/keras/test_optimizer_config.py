"""The class Adafactor as a config: it goes to live Keras and back, with schedules and with the user's own."""

import json

import numpy as np
import pytest

import adafactor


def test_knobs_can_be_read_and_not_set():
    optimizer = adafactor.Adafactor(clipvalue=0.5, relative_step=False, beta_1=0.9)
    assert (optimizer.clipvalue, optimizer.relative_step, optimizer.beta_1) == (0.5, False, 0.9)
    with pytest.raises(
        AttributeError, match=r"^clipvalue: cannot be set; construct a new optimizer with it$"
    ):
        optimizer.clipvalue = 1.0
    with pytest.raises(AttributeError, match="has no attribute 'momentum'"):
        _ = optimizer.momentum
    assert optimizer.clipvalue == 0.5


CONFIGS = [
    {},
    {"learning_rate": 0.5, "beta_2_decay": -0.65, "epsilon_1": 1e-15, "clip_threshold": 0.9, "name": "mine"},
    {"relative_step": False, "weight_decay": 0.1, "global_clipnorm": 1.0, "loss_scale_factor": 8.0},
    {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 2, "gradient_accumulation_steps": 2},
]


# Keras' variables have no `copy` in their __array__, of which NumPy complains.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("arguments", CONFIGS, ids=["defaults", "numbers", "words", "averages"])
def test_a_config_goes_to_keras_and_back(arguments, keras):
    config = json.loads(json.dumps(adafactor.Adafactor(**arguments).get_config()))
    peer = keras.optimizers.Adafactor.from_config(dict(config))
    theirs = peer.get_config()
    assert config.keys() == theirs.keys()
    assert {**theirs, "learning_rate": 0} == {**config, "learning_rate": 0}
    assert np.float32(config["learning_rate"]) == theirs["learning_rate"]  # Keras keeps it in float32
    assert adafactor.Adafactor.from_config(config).get_config() == config
    assert adafactor.Adafactor.from_config(theirs).get_config() == theirs


def test_a_schedule_in_a_config_goes_to_keras_and_back(keras):
    for name in set(adafactor.schedules.__all__) - {"LearningRateSchedule", "PiecewiseConstantDecay"}:
        arguments = (0.1, 10, 0.5) if name in ("ExponentialDecay", "InverseTimeDecay") else (0.1, 10)
        optimizer = adafactor.Adafactor(getattr(adafactor.schedules, name)(*arguments))
        config = json.loads(json.dumps(optimizer.get_config()))
        theirs = keras.optimizers.Adafactor.from_config({**config}).get_config()
        assert theirs["learning_rate"] == config["learning_rate"]
        again = adafactor.Adafactor.from_config(theirs)
        assert again.get_config() == config
        assert again._config == optimizer._config


def test_a_config_has_the_knobs_that_keras_lacks():
    arguments = {"beta_1": 0.9, "on_nonfinite": "skip", "exclude_from_weight_decay": ("b", "c")}
    optimizer = adafactor.Adafactor(**arguments)
    config = json.loads(json.dumps(optimizer.get_config()))
    assert {name: config[name] for name in arguments} == {
        **arguments,
        "exclude_from_weight_decay": ["b", "c"],
    }
    assert adafactor.Adafactor.from_config(config)._config == optimizer._config


class Mine(adafactor.schedules.LearningRateSchedule):
    def __init__(self, peak):
        self.peak = peak

    def __call__(self, step):
        return self.peak / (step + 1)

    def get_config(self):
        return {"peak": self.peak}


def tenth():
    return 0.1


def test_a_config_names_what_is_the_user_s_own():
    for rate, known in ((Mine(0.5), {"Mine": Mine}), (tenth, {"tenth": tenth})):
        config = json.loads(json.dumps(adafactor.Adafactor(rate).get_config()))
        assert adafactor.Adafactor.from_config(config, known)._config.learning_rate == rate
        with pytest.raises(ValueError, match=r"^learning_rate: .* expected one of "):
            adafactor.Adafactor.from_config(config)
    with pytest.raises(TypeError, match=r"^learning_rate: .* cannot be written into a dictionary$"):
        adafactor.Adafactor(lambda: 0.1).get_config()
