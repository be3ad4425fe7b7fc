"""The arguments of each preset are the library's own, and what it cannot honour is refused in its words."""

import inspect
import re

import ml_dtypes
import numpy as np
import pytest

import adafactor
import sources
from adafactor import presets
from peers import require, require_timm

NAMES = sorted(set(presets.__all__) - {"keras"})  # which has its own tests


def named(function, *, without=()):
    """The arguments of a function that have a name, and their defaults."""
    parameters = inspect.signature(function).parameters
    return {
        name: parameter.default
        for name, parameter in parameters.items()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD and name not in without
    }


def shown(default):
    """A default as the presets write it: a dtype is its name."""
    kind = str(getattr(default, "__name__", default)).rpartition(".")[2]
    return kind if kind in ("float32", "bfloat16") else default


def of_torch():
    return require("torch").optim.Adafactor


def of_transformers():
    return require("transformers.optimization").Adafactor


def of_optax():
    return require("optax").adafactor


def of_pytorch_optimizer():
    return require("pytorch_optimizer.optimizer.adafactor").AdaFactor


def of_timm():
    return require_timm("adafactor").Adafactor


def of_timm_big_vision():
    return require_timm("adafactor_bv").AdafactorBigVision


LIVE = [of_torch, of_transformers, of_optax, of_pytorch_optimizer, of_timm, of_timm_big_vision]


@pytest.mark.parametrize("library", LIVE, ids=lambda library: library.__name__)
def test_the_arguments_and_defaults_are_the_librarys(library):
    theirs = named(library(), without=("params",))
    ours = named(getattr(presets, library.__name__.removeprefix("of_")))
    assert ours == {name: shown(default) for name, default in theirs.items()}
    assert list(ours) == list(theirs)


@pytest.mark.parametrize("name", NAMES)
def test_every_argument_is_on_the_page_with_its_default(name):
    text = (sources.ROOT / f"docs/coming_from/{name}.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| `([^`]*)` \| ", text, re.MULTILINE))

    def written(default):
        if default is inspect.Parameter.empty:
            return "required"
        return default if isinstance(default, str) else repr(default)

    assert rows == {name: written(default) for name, default in named(getattr(presets, name)).items()}


WITHOUT_ARGUMENTS = [name for name in NAMES if name not in ("big_vision", "t5x")]


@pytest.mark.parametrize("name", WITHOUT_ARGUMENTS)
def test_knobs_that_the_library_lacks_can_be_given(name):
    assert getattr(presets, name)(on_nonfinite="skip", seed=3).on_nonfinite == "skip"


@pytest.mark.parametrize("name", WITHOUT_ARGUMENTS)
def test_a_config_comes_back_from_its_dictionary(name):
    config = getattr(presets, name)()
    assert adafactor.Config.from_dict(config.to_dict()) == config


def named_briefly(thing):
    """What a case is called: no address may be in it, since each process of the tests finds its own."""
    return getattr(thing, "__name__", None) or (" ".join(thing) if isinstance(thing, dict) else thing[:20])


REFUSED = [
    (presets.torch, {"d": 0.5}, "d: 0.5, expected >= 1"),
    (presets.torch, {"beta2_decay": 0.5}, "beta2_decay: 0.5"),
    (presets.torch, {"eps": (None, -1.0)}, r"eps\[1\]: -1"),
    (presets.torch, {"eps": 1e-3}, "eps: 0.001, expected a pair"),
    (presets.torch, {"lr": -1.0}, "lr: -1"),
    (presets.torch, {"learning_rate": 0.1}, "unknown argument 'learning_rate'; did you mean 'lr'"),
    (presets.torch, {"relative_step": True}, "unknown argument 'relative_step'; it is what makes"),
    (presets.torch, {"foreach": 1}, "foreach: 1, expected True or False"),
    (presets.transformers, {"lr": 0.1}, "lr: 0.1, expected None beside relative_step=True"),
    (presets.transformers, {"relative_step": False}, "lr: None, expected a number"),
    (presets.transformers, {"lr": 0.1, "relative_step": False, "warmup_init": True}, "warmup_init"),
    (presets.optax, {"decay_rate": -0.8}, "decay_rate: -0.8, expected >= 0"),
    (presets.optax, {"weight_decay_mask": {"w": True}, "weight_decay_rate": 0.1},
     "weight_decay_mask: .*exclude_from_weight_decay"),
    (presets.optax, {"weight_decay_rate": lambda count: 0.1}, "weight_decay_rate: .*follow the rate"),
    (presets.optax, {"decay_rate": float("inf")}, "decay_rate: inf, expected a finite number"),
    (presets.optax, {"eps": None}, "eps: None, expected a number"),
    (presets.optax, {"momentum": 0.9, "dtype_momentum": "float16"}, "dtype_momentum: 'float16', expected"),
    (presets.optax, {"momentum": 1.5}, "momentum: 1.5"),
    (presets.timm, {"caution": True, "betas": (0.9, 0.99)}, "caution: True has no counterpart here: .*mean"),
    (presets.timm, {"beta1": 0.9}, r"unknown argument 'beta1'; did you mean 'betas\[0\]'"),
    (presets.timm, {"clip_threshold": None}, "clip_threshold: None, expected a number"),
    (presets.timm, {"lr": 0.1, "warmup_init": True}, "warmup_init: True, expected False beside lr"),
    (presets.timm, {"min_dim_size_to_factor": -1}, "min_dim_size_to_factor: -1"),
    (presets.timm_big_vision, {"caution": True}, "caution: True has no counterpart here"),
    (presets.timm_big_vision, {"corrected_weight_decay": True, "weight_decay": 0.1},
     "corrected_weight_decay: True has no .*unscaled_wd"),
    (presets.timm_big_vision, {"beta2_cap": None}, "beta2_cap: None, expected a number"),
    (presets.timm_big_vision, {"momentum_dtype": "float16"}, "momentum_dtype: 'float16', expected"),
    (presets.big_vision, {"lr": 0}, "lr: 0, expected a number > 0"),
    (presets.big_vision, {"lr": 0.01, "wd": -0.1}, "wd: -0.1, expected >= 0"),
    (presets.big_vision, {"lr": 0.01, "schedule": {"decay_type": "cosine"}}, "schedule: .*a function"),
    (presets.big_vision, {"lr": 0.01, "schedule": 0.5}, "schedule: 0.5, expected None or a function"),
    (presets.pytorch_optimizer, {"ams_bound": True}, "ams_bound: True has no counterpart here"),
    (presets.pytorch_optimizer, {"cautious": True}, "cautious: True has no counterpart here"),
    (presets.pytorch_optimizer, {"weight_decouple": False, "weight_decay": 0.1}, "weight_decouple: False"),
    (presets.pytorch_optimizer, {"lr": None, "relative_step": False}, "lr: None, expected a number"),
    (presets.pytorch_optimizer, {"betas": (0.9, 1.5)}, r"betas\[1\]: 1.5"),
    (presets.pytorch_optimizer, {"betas": (None, None)}, r"betas\[1\]: None, expected a number"),
    (presets.pytorch_optimizer, {"lr": -1.0}, "lr: -1.0, expected >= 0"),
    (presets.pytorch_optimizer, {"lr": "x"}, "lr: 'x', expected a number"),
    (presets.transformers, {"eps": (None, 1e-3)}, r"eps\[0\]: None, expected a number"),
    (presets.torch, {"lr": np.ones(2)}, "lr: .*expected one element"),
    (presets.t5x, {}, "learning_rate: None, expected a number"),
    (presets.t5x, {"learning_rate": 1, "factor_map": {}}, "factor_map: .*factored"),
    (presets.t5x, {"learning_rate": 1, "logical_factor_rules": {}}, "logical_factor_rules: .*factored"),
    (presets.t5x, {"learning_rate": 1, "skip_nan_updates": True}, "skip_nan_updates: .*on_nonfinite"),
    (
        presets.t5x,
        {"learning_rate": 1, "weight_decay_rate_lr_exponent": 2},
        "weight_decay_rate_lr_exponent: 2 has no",
    ),
    (
        presets.t5x,
        {"learning_rate": 1, "multiply_by_parameter_scale": {}},
        "multiply_by_parameter_scale: .*overrides",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("preset", "arguments", "words"), REFUSED, ids=named_briefly)
def test_what_cannot_be_honoured_is_refused_in_the_librarys_words(preset, arguments, words):
    with pytest.raises((TypeError, ValueError), match=f"^{words}") as refused:
        preset(**arguments)
    assert isinstance(refused.value, ValueError) or "has no counterpart here" not in str(refused.value)


def test_a_decay_without_effect_is_no_reason_to_refuse():
    assert presets.pytorch_optimizer(weight_decouple=False).weight_decay == 0
    assert presets.pytorch_optimizer(cautious=False).beta_1 == 0.9
    assert presets.t5x(1.0, weight_decay_rate_lr_exponent=0).weight_decay is None
    assert presets.t5x(1.0, weight_decay_rate_lr_exponent=1).weight_decay == 1
    assert presets.t5x(1.0, weight_decay_rate=0.0, weight_decay_rate_lr_exponent=1).weight_decay == 1
    assert presets.t5x(1.0, skip_nan_updates=None, dtype_momentum="float16").beta_1 is None
    assert presets.optax(weight_decay_mask={"w": True}, dtype_momentum=None).weight_decay is None
    assert presets.timm(caution=True).beta_1 is None
    assert presets.timm_big_vision(corrected_weight_decay=True).weight_decay == 0


@pytest.mark.parametrize(
    "config",
    [
        presets.torch(d=float("inf")),
        presets.transformers(clip_threshold=float("inf")),
        presets.optax(clipping_threshold=float("inf")),
        presets.timm_big_vision(clipping_threshold=float("inf")),
    ],
)
def test_a_threshold_of_infinity_is_none(config):
    assert config.clip_threshold is None


@pytest.mark.parametrize(
    ("config", "used"),
    [
        (presets.optax(momentum=0.9), "exact"),
        (presets.big_vision(0.1), "exact"),
        (presets.t5x(0.1, beta1=0.9), "exact"),
        (presets.timm_big_vision(), "stored"),
        (presets.pytorch_optimizer(), "stored"),
    ],
)
def test_a_step_uses_momentum_as_the_library_does(config, used):
    assert config.momentum_use == used


def test_a_rate_of_a_function_has_its_name_and_equals_another_of_it():
    def falling(count):
        return -0.1 * count

    config = presets.optax(falling)
    assert config == presets.optax(falling) != presets.optax(lambda count: 0.1)
    p, g = np.ones(3, np.float32), np.full(3, 0.5, np.float32)
    state = adafactor.init(p, config)
    adafactor.step(p, g, state)
    with pytest.raises(ValueError, match=r"^learning_rate: falling returned -0\.1"):
        adafactor.step(p, g, state)


@pytest.mark.parametrize("given", ["bfloat16", ml_dtypes.bfloat16, np.dtype(ml_dtypes.bfloat16)])
def test_a_dtype_is_taken_in_any_librarys_words(given):
    assert presets.optax(momentum=0.9, dtype_momentum=given).momentum_dtype == "bfloat16"


def test_a_rate_of_torch_may_be_a_tensor():
    torch = require("torch")
    assert presets.torch(lr=torch.tensor(0.25)).learning_rate == 0.25
    assert presets.torch(lr=torch.tensor([0.5])).learning_rate == 0.5


def test_a_schedule_may_answer_in_the_arrays_of_jax():
    jax = require("jax")
    config = presets.t5x(lambda count: jax.numpy.float32(0.5) / (count + 1))
    assert config.learning_rate(3) == 0.125


def test_a_schedule_of_this_package_is_taken_as_it_is():
    schedule = adafactor.schedules.ExponentialDecay(0.1, 10, 0.5)
    assert presets.optax(schedule).learning_rate is schedule
