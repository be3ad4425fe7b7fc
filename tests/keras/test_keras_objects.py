"""What a program hands in that trained with Keras: its schedules, configs, variables, and assignments."""

import copy
import pickle

import numpy as np
import pytest

import adafactor
import peers

SCHEDULES = {
    "CosineDecay": lambda s: s.CosineDecay(0.1, 10, alpha=0.25),
    "CosineDecayRestarts": lambda s: s.CosineDecayRestarts(0.1, 3),
    "ExponentialDecay": lambda s: s.ExponentialDecay(0.1, 10, 0.9, staircase=True),
    "InverseTimeDecay": lambda s: s.InverseTimeDecay(0.1, 10, 0.9),
    "PiecewiseConstantDecay": lambda s: s.PiecewiseConstantDecay([2, 4], [0.1, 0.05, 0.01]),
    "PolynomialDecay": lambda s: s.PolynomialDecay(0.1, 10),
}


def taken(optimizer):
    return optimizer.get_config()["learning_rate"]["config"]


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_of_keras_is_taken_as_the_one_of_its_name(name):
    keras = peers.require("keras")
    theirs, ours = (SCHEDULES[name](place) for place in (keras.optimizers.schedules, adafactor.schedules))
    assert adafactor.Config(learning_rate=theirs).learning_rate == ours
    assert adafactor.presets.keras(learning_rate=theirs).learning_rate == ours
    state = adafactor.init(np.zeros(3), overrides=[("", {"learning_rate": theirs})])
    state.set_learning_rate([0.1, theirs])
    assert adafactor.Adafactor(theirs).learning_rate == ours(0)
    config = keras.optimizers.Adafactor(theirs).get_config()
    assert taken(adafactor.Adafactor.from_config(config)) == ours.get_config()


def test_a_schedule_of_somebodys_own_class_is_refused_with_what_to_derive_from():
    keras = peers.require("keras")

    class Own(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            return 0.1

    message = r"^learning_rate: Own\(step\): .*is an adafactor\.schedules\.LearningRateSchedule$"
    with pytest.raises(TypeError, match=message):
        adafactor.Adafactor(Own())


def test_a_variable_of_keras_is_refused_and_its_value_taken():
    keras = peers.require("keras")
    variables = [keras.Variable([[1.0, 2.0], [3.0, 4.0]])]
    grads = [np.ones((2, 2), np.float32)]
    with pytest.raises(
        TypeError, match=r"^params 0: keras\.\S+Variable, expected .*; its `value` may be one$"
    ):
        adafactor.Adafactor().build(variables)
    adafactor.Adafactor(0.1).apply(grads, [variable.value for variable in variables])
    assert variables[0].value[0, 0] < 1


def test_a_learning_rate_is_assigned_as_keras_variable_is():
    b = np.zeros(3)
    optimizer = adafactor.Adafactor(0.5)
    optimizer.learning_rate.assign(0.25)
    optimizer.build([b])
    optimizer.learning_rate.assign(0.125)
    rate = optimizer.learning_rate
    assert (rate, float(optimizer.variables[1]), repr(rate)) == (0.125, 0.125, "0.125")
    for copied in (copy.copy(rate), copy.deepcopy(rate), pickle.loads(pickle.dumps(rate))):
        assert (type(copied), copied) == (float, 0.125)
    with pytest.raises(ValueError, match=r"^learning_rate: -1"):
        rate.assign(-1)
    scheduled = adafactor.Adafactor(adafactor.schedules.CosineDecay(0.1, 10))
    with pytest.raises(TypeError, match=r"^learning_rate: 0.1 cannot be set in the place of a schedule"):
        scheduled.learning_rate.assign(0.1)
