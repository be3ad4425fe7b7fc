"""The likeliest mistakes of a new user, each with the whole text of its error, which says what to do."""

import inspect

import numpy as np
import pytest

import adafactor
from adafactor import config
from adafactor.knobs import hints
from peers import require

ARRAY = "an array, or a dict, list, tuple, namedtuple or dataclass of arrays"


class DataFrame:
    """What looks like this to us can be had as an array, but is none."""

    def __array__(self, dtype=None, copy=None):
        return np.zeros((4, 3), np.float32)


DataFrame.__module__ = "pandas"


class Model:
    """What a module of torch looks like to us."""

    def named_parameters(self):
        raise AssertionError("nobody asks for them")


def params():
    return {"encoder": {"w": np.ones((4, 3), np.float32), "b": np.zeros(3, np.float32)}}


def grads(w=None, b=None):
    made = params()["encoder"]
    return {"encoder": {"w": made["w"] if w is None else w, "b": made["b"] if b is None else b}}


def read_only():
    made = params()
    made["encoder"]["w"].flags.writeable = False
    return made


def step(params, grads):
    return adafactor.step(params, grads, adafactor.init(params))


MISTAKES = {
    "a gradient that is transposed": (
        lambda: step(params(), grads(w=np.ones((3, 4), np.float32))),
        ValueError,
        "grads encoder/w: shape (3, 4), expected (4, 3)",
    ),
    "gradients in a list": (
        lambda: step(params(), [np.ones((4, 3), np.float32), np.zeros(3, np.float32)]),
        ValueError,
        "grads: list, expected dict",
    ),
    "parameters of whole numbers": (
        lambda: adafactor.init({"w": np.ones((4, 3), int)}),
        TypeError,
        "params w: dtype int64, expected float32, float64, bfloat16 or float16",
    ),
    "gradients computed in double": (
        lambda: step(params(), grads(b=np.zeros(3))),
        TypeError,
        "grads encoder/b: dtype float64, expected float32, bfloat16 or float16",
    ),
    "numbers in lists": (
        lambda: adafactor.init({"w": [[1.0, 2.0], [3.0, 4.0]]}),
        TypeError,
        f"params w/0/0: float, expected {ARRAY}; numpy.array makes one of a list of numbers",
    ),
    "a gradient of numbers in a list": (
        lambda: step(params(), grads(b=[0.0, 0.0, 0.0])),
        ValueError,
        "grads encoder/b: list, expected an array; numpy.array makes one of a list of numbers",
    ),
    "a gradient of numbers in lists": (
        lambda: step(params(), grads(w=[[0.0] * 3] * 4)),
        ValueError,
        "grads encoder/w: list, expected an array; numpy.array makes one of a list of numbers",
    ),
    "a gradient under another name": (
        lambda: step(params(), {"encoder": {"weight": np.ones((4, 3), np.float32), "b": np.zeros(3, "f")}}),
        ValueError,
        "grads encoder/w: missing, found encoder/weight",
    ),
    "a table for a parameter": (
        lambda: adafactor.init({"w": DataFrame()}),
        TypeError,
        "params w: pandas.DataFrame, expected an array of NumPy, torch or another library with DLPack; "
        "numpy.array() makes a copy: step that, and write it back",
    ),
    "a table for a gradient": (
        lambda: step(params(), grads(w=DataFrame())),
        TypeError,
        "grads encoder/w: pandas.DataFrame, expected an array of NumPy, torch or another library with DLPack "
        "(numpy.array() makes one)",
    ),
    "a model for its parameters": (
        lambda: adafactor.init(Model()),
        TypeError,
        f"params: {__name__}.Model, expected arrays (dict(module.named_parameters()) has those of a module)",
    ),
    "a config for a state": (
        lambda: adafactor.step(params(), grads(), adafactor.Config(learning_rate=0.01)),
        TypeError,
        "state: Config, expected what adafactor.init(params) returned",
    ),
    "no state": (
        lambda: adafactor.step(params(), grads(), None),
        TypeError,
        "state: NoneType, expected what adafactor.init(params) returned",
    ),
    "a learning rate without its name": (
        lambda: adafactor.init(params(), 0.01),
        TypeError,
        "config: float, expected an adafactor.Config; single knobs go by name, as in learning_rate=0.01",
    ),
    "a typo": (
        lambda: adafactor.init(params(), learning_rte=0.01),
        TypeError,
        "unknown knob 'learning_rte'; did you mean 'learning_rate'?",
    ),
    "the name that torch has": (
        lambda: adafactor.init(params(), lr=0.01),
        TypeError,
        "unknown knob 'lr'; did you mean 'learning_rate'?",
    ),
    "a knob of torch alone": (
        lambda: adafactor.init(params(), foreach=True),
        TypeError,
        "unknown knob 'foreach'; every step is fused, there is nothing to choose",
    ),
    "a config by name": (
        lambda: adafactor.init(params(), config=adafactor.Config()),
        TypeError,
        "config: goes by position, as the second argument, and not by name",
    ),
    "a preset that is not called": (
        lambda: adafactor.init(params(), adafactor.presets.keras),
        TypeError,
        "config: function, expected an adafactor.Config; call it",
    ),
    "overrides in a dict": (
        lambda: adafactor.init(params(), overrides={"bias": {"weight_decay": None}}),
        TypeError,
        "overrides: dict, expected a sequence of (regular expression, dict of knobs), "
        'as in [("bias", {"weight_decay": None})]',
    ),
    "a learning rate as a function of the step": (
        lambda: adafactor.init(params(), learning_rate=lambda step: 0.1 / step),
        TypeError,
        "learning_rate: <lambda>(step): missing a required argument: 'step', expected a callable without "
        "arguments; what depends on the step is an adafactor.schedules.LearningRateSchedule",
    ),
    "parameters where torch takes them": (
        lambda: adafactor.Adafactor([np.ones(3, np.float32)]),
        TypeError,
        "learning_rate: list, expected a number, a LearningRateSchedule or a callable without arguments; "
        "parameters are given to init, or to build",
    ),
    "a learning rate set in the state": (
        lambda: setattr(adafactor.init(params()), "learning_rate", 0.1),
        AttributeError,
        "learning_rate: cannot be set in a state; knobs are given to init, "
        "the learning rate of one call to step or update",
    ),
    "a learning rate set by torch's name": (
        lambda: setattr(adafactor.Adafactor(), "lr", 0.1),
        AttributeError,
        "lr: cannot be set; did you mean 'learning_rate'?",
    ),
    "a learning rate in quotes": (
        lambda: adafactor.init(params(), learning_rate="0.01"),
        TypeError,
        "learning_rate: '0.01', expected a number, a LearningRateSchedule or a callable without arguments",
    ),
    "the other sign of beta_2_decay": (
        lambda: adafactor.init(params(), beta_2_decay=0.8),
        ValueError,
        "beta_2_decay: 0.8, expected a finite number <= 0 (beta2 = 1 - t**beta_2_decay, so -0.8 and not 0.8)",
    ),
    "a gradient with a NaN": (
        lambda: step(params(), grads(b=np.array([0, np.nan, 0], np.float32))),
        FloatingPointError,
        "grads encoder/b: 1 NaN and 0 Inf of 3 values; nothing was changed; "
        'on_nonfinite="skip" skips such a call, "propagate" lets it through',
    ),
    "a parameter that nobody may write": (
        lambda: step(read_only(), grads()),
        BufferError,
        "params encoder/w: a read-only array, expected an array that can be written "
        "(adafactor.update returns new ones)",
    ),
    "the state of another model": (
        lambda: adafactor.step(params(), grads(), adafactor.init({"encoder": {"w": np.ones((3, 3))}})),
        ValueError,
        "params encoder/b: not in the state, expected the tree that init was given",
    ),
    "the state of a smaller model": (
        lambda: adafactor.step(
            params(), grads(), adafactor.init({"encoder": params()["encoder"] | {"w": np.ones((2, 3), "f")}})
        ),
        ValueError,
        "params encoder/w: shape (4, 3), expected (2, 3) as in the state",
    ),
    "no gradients": (
        lambda: step(params(), {"encoder": {"w": None, "b": None}}),
        ValueError,
        "grads: every gradient is None, expected at least one array",
    ),
}


# What other libraries call a knob of ours.
NAMES = {
    "lr": "learning_rate",
    "beta1": "beta_1",
    "momentum": "beta_1",
    "dtype_momentum": "momentum_dtype",
    "beta2_cap": "beta_2_cap",
    "decay_offset": "step_offset",
    "eps1": "epsilon_1",
    "eps2": "epsilon_2",
    "eps_scale": "epsilon_2",
    "d": "clip_threshold",
    "clipping_threshold": "clip_threshold",
    "max_grad_norm": "global_clipnorm",
    "multiply_by_parameter_scale": "scale_parameter",
    "wd": "weight_decay",
    "weight_decay_mask": "exclude_from_weight_decay",
    "ema": "use_ema",
    "ema_decay": "ema_momentum",
}

# What is not one of ours by another name, and what the error has to say.
NOT_THE_SAME = {
    "decay_rate": "did you mean 'beta_2_decay'? it is the exponent itself, and so negative",
    "beta2": "it is not constant here: beta2 = 1 - t**beta_2_decay",
    "betas": "the first is beta_1",
    "eps": "did you mean 'epsilon_1', added to the squared gradient, or 'epsilon_2'",
    "weight_decay_rate": 'weight_decay_on="none"',
    "stochastic_rounding": 'it is rounding="stochastic"',
    "fused": "every step is fused",
    "amsgrad": "no knob does the same",
    "nesterov": "no knob does the same",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_knob_is_recognised_by_the_name_that_others_have(name):
    with pytest.raises(TypeError) as caught:
        adafactor.Config(**{name: 1})
    assert str(caught.value) == f"unknown knob {name!r}; did you mean {NAMES[name]!r}?"


@pytest.mark.parametrize("name", NOT_THE_SAME)
def test_a_name_that_is_no_knob_by_another_name_is_answered_in_words(name):
    with pytest.raises(TypeError) as caught:
        adafactor.Config(**{name: 1})
    assert str(caught.value).startswith(f"unknown knob {name!r}; ")
    assert NOT_THE_SAME[name] in str(caught.value)


@pytest.mark.parametrize("peer", ["torch.optim.Adafactor", "torch.optim.AdamW"])
def test_every_argument_of_a_peer_is_a_knob_or_has_an_answer(peer):
    """One that was thought of, and not what is spelt nearest."""
    package, _, name = peer.rpartition(".")
    arguments = set(inspect.signature(getattr(require(package), name)).parameters)
    assert len(arguments) > 5
    unanswered = arguments - set(config._KINDS) - set(hints.ELSEWHERE) - set(hints.IN_WORDS)
    assert unanswered == {"params"} & arguments


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_error_says_what_to_do(mistake):
    make, error, text = MISTAKES[mistake]
    with pytest.raises(error) as caught:
        make()
    assert type(caught.value) is error
    assert str(caught.value) == text
