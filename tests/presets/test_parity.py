"""Each preset beside the library that it is named after: the same parameters, step by step.

Twenty steps on leaves of nine shapes, with gradients whose scales differ by three orders. In torch's shape a
leaf has a gradient in two steps of three, which tells who counts what. t5x does not install here: golden
numbers and the oracle stand for it. Of big_vision the few lines that make its optimizer of optax' parts are
written anew.
"""

import ast

import numpy as np
import pytest

import adafactor
from adafactor import presets
from golden import DATA, EXPECTED, gradients, start, tolerance
from oracle import Oracle
from peers import require, require_timm

SHAPES = [(), (5,), (7, 3), (3, 4, 5), (20, 33), (40, 20), (18, 17, 3, 3), (24, 24), (4, 20, 30)]
STEPS = 20
CLOSE = {"rtol": 1e-5, "atol": 2e-6}


def in_bfloat16(update):
    """How close momentum in bfloat16 comes: the others round the update, or a product, before they average.

    That is half a unit of eight bits, of updates that are so large, in each of the steps of 0.01.
    """
    return {"rtol": 0, "atol": STEPS * 0.01 * update * 2**-9}


def drawn(gaps=False):
    """Parameters, one of them tiny, and their gradients for each step; `gaps`: some of these are None."""
    random = np.random.default_rng(0)
    params = {f"{i}": np.asarray(0.3 * random.standard_normal(s), np.float32) for i, s in enumerate(SHAPES)}
    params["2"] *= np.float32(1e-5)
    scales = np.geomspace(1e-2, 10, len(SHAPES))
    grads = [
        {
            name: np.asarray(scale * random.standard_normal(p.shape), np.float32)
            for (name, p), scale in zip(params.items(), scales, strict=True)
        }
        for _ in range(STEPS)
    ]
    for g in grads if gaps else ():
        g.update({name: None for name in g if random.random() < 1 / 3})
    return params, grads


def ours(config, gaps=False):
    params, grads = drawn(gaps)
    state = adafactor.init(params, config)
    for g in grads:
        adafactor.step(params, g, state)
    return params


def with_torch(make):
    """What an optimizer of torch's shape makes of the parameters."""
    torch = require("torch")
    params, grads = drawn(gaps=True)
    leaves = {name: torch.nn.Parameter(torch.from_numpy(p.copy())) for name, p in params.items()}
    optimizer = make(list(leaves.values()))
    for g in grads:
        for name, leaf in leaves.items():
            leaf.grad = None if g[name] is None else torch.from_numpy(g[name].copy())
        optimizer.step()
    return {name: leaf.detach().numpy() for name, leaf in leaves.items()}


def with_optax(make):
    jax = require("jax")
    params, grads = drawn()
    optimizer = make()
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    for g in grads:
        updates, state = update(g, state, params)
        params = require("optax").apply_updates(params, updates)
    return {name: np.asarray(p) for name, p in params.items()}


# Nothing is said of a leaf without a gradient by the others.
pytestmark = pytest.mark.filterwarnings("ignore:grads. no gradient for:UserWarning")


def assert_close(found, expected, close=CLOSE):
    for name, p in expected.items():
        np.testing.assert_allclose(found[name], p, **close, err_msg=f"shape {SHAPES[int(name)]}")


TORCH = [
    {},
    {"lr": 0.1},
    {"lr": 0.001, "beta2_decay": -0.5},
    {"lr": 0.05, "weight_decay": 0.1},
    {"eps": (1e-3, 1e-2)},
    {"d": 2.0, "maximize": True},
    {"lr": 0.3, "eps": (None, 0.1), "d": 1.5, "weight_decay": 0.01},
]


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("arguments", TORCH, ids=str)
def test_torch(arguments, foreach):
    torch = require("torch")
    expected = with_torch(lambda leaves: torch.optim.Adafactor(leaves, **arguments, foreach=foreach))
    assert_close(ours(presets.torch(**arguments, foreach=foreach), gaps=True), expected)


@pytest.mark.parametrize("size", [1e-4, 1e-5, 1e-8])
def test_torch_keeps_the_second_moment_above_its_epsilon(size):
    torch = require("torch")
    random = np.random.default_rng(1)
    for shape in [(6, 4), (7,)]:
        p = np.asarray(random.standard_normal(shape), np.float32)
        leaf = torch.nn.Parameter(torch.from_numpy(p.copy()))
        optimizer = torch.optim.Adafactor([leaf], foreach=False)
        state = adafactor.init(p, presets.torch())
        for _ in range(5):
            g = np.asarray(size * random.standard_normal(shape), np.float32)
            leaf.grad = torch.from_numpy(g.copy())
            optimizer.step()
            adafactor.step(p, g, state)
        np.testing.assert_allclose(p, leaf.detach().numpy(), **CLOSE)


TRANSFORMERS = [
    {},
    {"warmup_init": True},
    {"beta1": 0.9},
    {"scale_parameter": False},
    {"weight_decay": 0.1, "clip_threshold": 0.5},
    {"lr": 0.01, "relative_step": False},
    {"lr": 0.01, "relative_step": False, "scale_parameter": False, "beta1": 0.5, "weight_decay": 0.1},
    {"decay_rate": -0.5, "eps": (1e-3, 1e-2)},
]


@pytest.mark.parametrize("arguments", TRANSFORMERS, ids=str)
def test_transformers(arguments):
    transformers = require("transformers.optimization")
    expected = with_torch(lambda leaves: transformers.Adafactor(leaves, **arguments))
    assert_close(ours(presets.transformers(**arguments), gaps=True), expected)


OPTAX = [
    {"learning_rate": 0.01},
    {"learning_rate": 0.01, "min_dim_size_to_factor": 1},
    {"learning_rate": 0.01, "min_dim_size_to_factor": 20, "momentum": 0.9},
    {"learning_rate": 0.01, "momentum": 0.9, "dtype_momentum": "bfloat16", "weight_decay_rate": 0.01},
    {"learning_rate": 0.01, "min_dim_size_to_factor": 3, "clipping_threshold": None},
    {"learning_rate": 0.01, "factored": False, "multiply_by_parameter_scale": False},
    {"learning_rate": 0.01, "min_dim_size_to_factor": 1, "decay_rate": 0.5, "eps": 1e-3},
    {"min_dim_size_to_factor": 1, "clipping_threshold": 0.02},
]


@pytest.mark.parametrize("arguments", OPTAX, ids=str)
def test_optax(arguments):
    optax = require("optax")
    expected = with_optax(lambda: optax.adafactor(**arguments))
    close = in_bfloat16(1.5) if "dtype_momentum" in arguments else CLOSE
    assert_close(ours(presets.optax(**arguments)), expected, close)


def test_optax_with_a_schedule():
    optax = require("optax")
    schedule = optax.warmup_cosine_decay_schedule(1e-3, 2e-2, 5, STEPS)
    arguments = {"learning_rate": schedule, "min_dim_size_to_factor": 1}
    assert_close(ours(presets.optax(**arguments)), with_optax(lambda: optax.adafactor(**arguments)))


PYTORCH_OPTIMIZER = [
    {"betas": (None, 0.999)},
    {"betas": (0.9, 0.9), "momentum_dtype": "float32"},
    {"betas": (None, 0.999), "warmup_init": True},
    {"betas": (None, 0.999), "weight_decay": 0.1},
    {"betas": (None, 0.999), "weight_decay": 0.01, "fixed_decay": True},
    {"betas": (None, 0.999), "lr": 0.01, "relative_step": False, "scale_parameter": False},
    {"betas": (0.5, 0.95), "momentum_dtype": "float32", "clip_threshold": 0.5, "maximize": True},
    {"betas": (None, 0.999), "decay_rate": -0.5, "eps1": 1e-3, "eps2": 1e-2},
    {},
]


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("arguments", PYTORCH_OPTIMIZER, ids=str)
def test_pytorch_optimizer(arguments, foreach):
    torch, peer = require("torch"), require("pytorch_optimizer.optimizer.adafactor")
    theirs = {**arguments, "momentum_dtype": getattr(torch, arguments.get("momentum_dtype", "bfloat16"))}
    expected = with_torch(lambda leaves: peer.AdaFactor(leaves, **theirs, foreach=foreach))
    rounds = arguments.get("betas", (0.9, 0.999))[0] is not None and "momentum_dtype" not in arguments
    close = in_bfloat16(1.5) if rounds else CLOSE
    assert_close(ours(presets.pytorch_optimizer(**theirs, foreach=foreach), gaps=True), expected, close)


TIMM = [
    {},
    {"warmup_init": True},
    {"min_dim_size_to_factor": 1},
    {"min_dim_size_to_factor": 17, "betas": (0.9, 0.999)},
    {"lr": 0.01, "weight_decay": 0.1},
    {"lr": 0.01, "min_dim_size_to_factor": 2, "decay_rate": -0.5, "clip_threshold": 0.5},
    {"scale_parameter": False, "eps": 1e-3},
    {"eps_scale": 1e-1},
]


@pytest.mark.parametrize("arguments", TIMM, ids=str)
def test_timm(arguments):
    timm = require_timm("adafactor")
    expected = with_torch(lambda leaves: timm.Adafactor(leaves, **arguments))
    assert_close(ours(presets.timm(**arguments), gaps=True), expected)


TIMM_BIG_VISION = [
    {"lr": 0.01, "momentum": None},
    {"lr": 0.01, "momentum_dtype": "float32"},
    {"lr": 0.01, "momentum_dtype": "float32", "min_dim_size_to_factor": 1, "clipping_threshold": 1.0},
    {"lr": 0.01, "momentum": None, "weight_decay": 0.1, "beta2_cap": 0.9},
    {"lr": 0.01, "momentum": None, "weight_decay": 0.01, "unscaled_wd": True},
    {"lr": 0.01, "momentum": None, "decay_offset": 3, "decay_rate": 0.5, "eps": 1e-3},
    {"lr": 0.01},
]


@pytest.mark.parametrize("arguments", TIMM_BIG_VISION, ids=str)
def test_timm_big_vision(arguments):
    timm = require_timm("adafactor_bv")
    expected = with_torch(lambda leaves: timm.AdafactorBigVision(leaves, **arguments))
    rounds = arguments.get("momentum", 0.9) is not None and "momentum_dtype" not in arguments
    assert_close(
        ours(presets.timm_big_vision(**arguments), gaps=True),
        expected,
        in_bfloat16(4) if rounds else CLOSE,
    )


# What a row says in words.
CALLS = {
    "big_vision(min_dim_size_to_factor=1, lr=0.01, momentum float32)": {
        "min_dim_size_to_factor": 1, "lr": 0.01, "dtype_momentum": "float32"},
    "big_vision(min_dim_size_to_factor=1, lr=0.01, momentum bfloat16)": {
        "min_dim_size_to_factor": 1, "lr": 0.01},
    "timm_big_vision(min_dim_size_to_factor=1, lr=0.01, momentum_dtype=float32, clipping_threshold=1.0)": {
        "min_dim_size_to_factor": 1, "lr": 0.01, "momentum_dtype": "float32", "clipping_threshold": 1.0},
}  # fmt: skip


def preset_of(call):
    """The config of a golden row, whose name and arguments are those of the row's call."""
    name, _, rest = call.partition("(")
    arguments = CALLS.get(call)
    if arguments is None:
        written = ast.parse(f"f({rest.partition(' (')[0]}", mode="eval").body
        arguments = {each.arg: ast.literal_eval(each.value) for each in written.keywords}
    return getattr(presets, name)(**arguments)


@pytest.mark.parametrize("call", [call for call in EXPECTED if not call.startswith("keras(")])
def test_a_preset_reproduces_the_golden_row(call):
    params = start()
    state = adafactor.init(params, preset_of(call))
    for k in range(3):
        adafactor.step(params, gradients(k, call), state)
    for path, expected in EXPECTED[call].items():
        np.testing.assert_allclose(params[path], expected, rtol=0, atol=tolerance(call))


T5X = {"learning_rate": 0.01, "relative_step": False, "weight_decay_first": False}
ORACLE = [
    ({"min_dim_size_to_factor": 1, "max_parameter_scale": 0.2},
     {"factored": "largest_two", "max_parameter_scale": 0.2}),
    ({"factored": False, "beta1": 0.9, "weight_decay_rate": 0.01},
     {"factored": False, "beta_1": 0.9, "weight_decay": 0.01, "weight_decay_on": "none"}),
    ({"min_dim_size_to_factor": 1, "weight_decay_rate": 0.5, "weight_decay_rate_lr_exponent": 1.0,
      "global_norm_clip_threshold": 1.0},
     {"factored": "largest_two", "weight_decay": 0.5, "global_clipnorm": 1.0}),
    ({"min_dim_size_to_factor": 20, "step_offset": 3, "decay_rate": 0.5, "clipping_threshold": 0.3,
      "epsilon1": 1e-3, "epsilon2": 0.1},
     {"factored": "largest_two", "min_dim_size_to_factor": 20, "step_offset": 3, "beta_2_decay": -0.5,
      "clip_threshold": 0.3, "epsilon_1": 1e-3, "epsilon_2": 0.1}),
    ({"clipping_threshold": None, "multiply_by_parameter_scale": False},
     {"factored": "largest_two", "min_dim_size_to_factor": 128, "clip_threshold": None,
      "scale_parameter": False}),
]  # fmt: skip


def assert_is_of_the_oracle(config, knobs):
    params, grads = drawn()
    oracle = Oracle(params, **knobs)
    for g in grads:
        oracle.step(g)
    assert_close(ours(config), {name: leaf.p for name, leaf in oracle.leaves.items()})


@pytest.mark.parametrize(("arguments", "knobs"), ORACLE, ids=str)
def test_t5x_does_what_the_oracle_does_in_float64(arguments, knobs):
    assert_is_of_the_oracle(presets.t5x(0.01, **arguments), {**T5X, **knobs})


def optimizer_of_big_vision(lr, wd=None, schedule=None, grad_clip_norm=None, **of_optax):
    """What Big Vision's trainer makes of optax' parts."""
    jax, optax = require("jax"), require("optax")
    given = dict.fromkeys(("clipping_threshold", "decay_offset")) | {
        "min_dim_size_to_factor": 32, "decay_rate": 0.8, "beta2_cap": 0.999, "momentum": 0.9,
        "dtype_momentum": "bfloat16", "eps": 1e-30} | of_optax  # fmt: skip
    parts = [] if grad_clip_norm is None else [optax.clip_by_global_norm(grad_clip_norm)]
    parts.append(
        optax.scale_by_factored_rms(
            decay_rate=given["decay_rate"],
            step_offset=given["decay_offset"] or 0,
            min_dim_size_to_factor=given["min_dim_size_to_factor"],
            epsilon=given["eps"],
            decay_rate_fn=lambda count, rate: jax.numpy.minimum(
                given["beta2_cap"], 1 - jax.numpy.maximum(count + 1.0, 1.0) ** -rate
            ),
        )
    )
    if given["clipping_threshold"]:
        parts.append(optax.clip_by_block_rms(given["clipping_threshold"]))
    if given["momentum"]:
        parts.append(optax.ema(given["momentum"], debias=False, accumulator_dtype=given["dtype_momentum"]))
    parts.append(optax.scale(lr))
    if wd:
        parts.append(optax.add_decayed_weights(wd))
    return optax.chain(*parts, optax.scale_by_schedule(schedule or (lambda count: 1.0)), optax.scale(-1.0))


BIG_VISION = [
    {"lr": 0.01, "momentum": None},
    {"lr": 0.01, "dtype_momentum": "float32", "wd": 0.001, "grad_clip_norm": 1.0},
    {"lr": 0.01, "momentum": 0, "min_dim_size_to_factor": 3, "beta2_cap": 0.9, "clipping_threshold": 0.5},
    {"lr": 0.1, "momentum": None, "wd": 0.01, "schedule": lambda count: 0.1 / (count + 1)},
    {"lr": 0.01, "momentum": None, "decay_rate": 0.5, "decay_offset": 2, "eps": 1e-3},
    {"lr": 0.01},
]


@pytest.mark.parametrize("arguments", BIG_VISION, ids=lambda arguments: str(sorted(arguments)))
def test_big_vision(arguments):
    expected = with_optax(lambda: optimizer_of_big_vision(**arguments))
    rounds = not {"momentum", "dtype_momentum"} & arguments.keys()
    assert_close(ours(presets.big_vision(**arguments)), expected, in_bfloat16(4) if rounds else CLOSE)


OF_BIG_VISION = {"relative_step": False, "beta_2_cap": 0.999, "scale_parameter": False,
                 "clip_threshold": None, "beta_1": 0.9, "momentum_on": "update", "momentum_use": "exact",
                 "factored": "largest_two", "min_dim_size_to_factor": 32, "learning_rate": 0.01}  # fmt: skip
BIG_VISION_ORACLE = [
    ({"dtype_momentum": "float32"}, {}),
    ({"momentum": None, "min_dim_size_to_factor": 3, "beta2_cap": 0.9, "clipping_threshold": 0.5},
     {"beta_1": None, "min_dim_size_to_factor": 3, "beta_2_cap": 0.9, "clip_threshold": 0.5}),
    ({"momentum": None, "wd": 0.001, "grad_clip_norm": 1.0, "decay_rate": 0.5, "decay_offset": 2,
      "eps": 1e-3},
     {"beta_1": None, "weight_decay": 0.001, "weight_decay_on": "none", "global_clipnorm": 1.0,
      "beta_2_decay": -0.5, "step_offset": 2, "epsilon_1": 1e-3}),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "knobs"), BIG_VISION_ORACLE, ids=str)
def test_big_vision_does_what_the_oracle_does_in_float64(arguments, knobs):
    assert_is_of_the_oracle(presets.big_vision(0.01, **arguments), {**OF_BIG_VISION, **knobs})


def test_t5x_continues_from_its_moments():
    data = DATA["t5x_injected_state"]
    fixed = {"min_dim_size_to_factor": data["min_dim_size_to_factor"], "decay_rate": data["decay_rate"]}
    p, g = np.ones((3, 2), np.float32), np.ones((3, 2), np.float32)
    state = adafactor.init(p, presets.t5x(data["learning_rate"], **fixed))
    adafactor.step(p, g, state)
    p[...] = 1
    tensors = state.tensors()
    tensors["", "row"][...], tensors["", "col"][...] = data["v_row"], data["v_col"]
    adafactor.step(p, g, state)
    np.testing.assert_allclose(p, data["after"]["p"], rtol=0, atol=1e-6)
