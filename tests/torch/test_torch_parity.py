"""`adafactor.torch.Adafactor` beside torch's own Adafactor, and beside `adafactor.step` in every dialect."""

import itertools

import numpy as np
import pytest

import adafactor
from adafactor import presets

STEPS = 20
CLOSE = {"rtol": 1e-5, "atol": 2e-6}

ARGUMENTS = {
    "defaults": {},
    "rate": {"lr": 0.3},
    "rate of zero": {"lr": 0.0},
    "decay of beta": {"beta2_decay": -0.5},
    "no memory": {"beta2_decay": 0.0},
    "floor": {"eps": (1e-4, 1e-2)},
    "no floor": {"eps": (0.0, 1e-3)},
    "clipping": {"d": 1.5},
    "decay": {"weight_decay": 0.1},
    "maximize": {"weight_decay": 0.1, "maximize": True},
    "all": {"lr": 0.1, "beta2_decay": -1.0, "eps": (1e-5, 1e-4), "d": 3.0, "weight_decay": 0.2},
}


def values(params):
    return [parameter.detach().double().numpy() for parameter in params]


@pytest.mark.parametrize("foreach", [False, True], ids=["one by one", "foreach"])
@pytest.mark.parametrize("gaps", [False, True], ids=["all gradients", "gaps"])
@pytest.mark.parametrize("name", ARGUMENTS)
def test_the_numbers_are_those_of_torch(name, gaps, foreach, torch, optimizers, problem, step):
    drawn = problem()
    ours, theirs = drawn.params(), drawn.params()
    one = optimizers.Adafactor(ours, **ARGUMENTS[name], foreach=foreach)
    other = torch.optim.Adafactor(theirs, **ARGUMENTS[name], foreach=foreach)
    for _ in range(STEPS):
        gradients = drawn.gradients(gaps)
        step(one, ours, gradients)
        step(other, theirs, gradients)
    for a, b in zip(values(ours), values(theirs), strict=True):
        np.testing.assert_allclose(a, b, **CLOSE)
    for parameter, twin in zip(ours, theirs, strict=True):
        assert one.state[parameter].keys() == other.state[twin].keys()
        for key, value in other.state[twin].items():
            assert one.state[parameter][key].shape == value.shape
            np.testing.assert_allclose(one.state[parameter][key], value, rtol=1e-5, atol=1e-12)


def test_the_numbers_are_those_of_torch_in_float64(torch, optimizers, problem, step):
    drawn = problem(torch.float64)
    ours, theirs = drawn.params(), drawn.params()
    one, other = optimizers.Adafactor(ours, lr=0.1), torch.optim.Adafactor(theirs, lr=0.1)
    for _ in range(STEPS):
        gradients = drawn.gradients()
        step(one, ours, gradients)
        step(other, theirs, gradients)
    for a, b in zip(values(ours), values(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


DIALECTS = {
    "torch": presets.torch(lr=0.05, weight_decay=0.1),
    "keras": presets.keras(learning_rate=0.05),
    "keras, all": presets.keras(learning_rate=0.05, use_ema=True, clipnorm=0.5, weight_decay=0.01),
    "transformers": presets.transformers(),
    "transformers, momentum": presets.transformers(beta1=0.9, weight_decay=0.01),
    "optax": presets.optax(learning_rate=0.05),
    "timm": presets.timm(lr=0.05),
    "timm_big_vision": presets.timm_big_vision(lr=0.05),
    "big_vision": presets.big_vision(lr=0.05),
    "pytorch_optimizer": presets.pytorch_optimizer(lr=0.05),
    "t5x": presets.t5x(learning_rate=0.05),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("name", DIALECTS)
def test_a_dialect_has_the_bits_of_the_function(name, dtype, torch, optimizers, problem, step):
    drawn = problem(getattr(torch, dtype))
    ours, theirs = drawn.params(), drawn.params()
    optimizer = optimizers.Adafactor(ours, config=DIALECTS[name])
    state = adafactor.init(theirs, DIALECTS[name])
    for _ in range(STEPS):
        gradients = drawn.gradients()
        step(optimizer, ours, gradients)
        report = adafactor.step(theirs, gradients, state)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    kept = {
        "row": "row_var",
        "col": "col_var",
        "full": "variance",
        "momentum": "exp_avg",
        "average": "average",
    }
    for (path, kind), array in state.tensors().items():
        entry = optimizer.state[ours[int(path)]]
        assert entry["step"] == STEPS
        assert torch.equal(entry[kept.get(kind, kind)].reshape(array.shape), array)
    np.testing.assert_array_equal(optimizer.report.step_size, report.step_size)


@pytest.mark.parametrize("name", ["momentum", "stochastic", "momentum in bfloat16"])
def test_knobs_that_torch_lacks_have_the_bits_of_the_function(name, torch, optimizers, problem, step):
    knobs = {
        "momentum": {"beta_1": 0.9, "clipvalue": 0.5},
        "stochastic": {"rounding": "stochastic", "seed": 3},
        "momentum in bfloat16": {"beta_1": 0.8, "momentum_dtype": "bfloat16", "global_clipnorm": 1.0},
    }[name]
    drawn = problem(torch.bfloat16)
    ours, theirs = drawn.params(), drawn.params()
    optimizer = optimizers.Adafactor(ours, lr=0.02, **knobs)
    state = adafactor.init(theirs, presets.torch(lr=0.02, **knobs))
    for _ in range(STEPS):
        gradients = drawn.gradients()
        step(optimizer, ours, gradients)
        adafactor.step(theirs, gradients, state)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_groups_are_read_at_each_step(torch, optimizers, problem, step):
    drawn = problem()
    ours, theirs = drawn.params(), drawn.params()

    def groups(params):
        return [{"params": params[:4], "lr": 0.1}, {"params": params[4:], "weight_decay": 0.1, "d": 2.0}]

    one, other = optimizers.Adafactor(groups(ours)), torch.optim.Adafactor(groups(theirs))
    for number in range(STEPS):
        gradients = drawn.gradients()
        for optimizer in (one, other):
            optimizer.param_groups[0]["lr"] = 0.1 / (1 + number)
            optimizer.param_groups[1]["weight_decay"] = 0.1 * (number % 3)
            optimizer.param_groups[1]["eps"] = (None, 1e-3 * (1 + number // 10))
        step(one, ours, gradients)
        step(other, theirs, gradients)
    for a, b in zip(values(ours), values(theirs), strict=True):
        np.testing.assert_allclose(a, b, **CLOSE)


def test_each_group_may_have_any_knob(torch, optimizers, problem, step):
    drawn = problem()
    ours, plain, clipped = drawn.params(), drawn.params(), drawn.params()
    both = optimizers.Adafactor(
        [{"params": ours[:5]}, {"params": ours[5:], "clipnorm": 0.1, "factored": False}], lr=0.1
    )
    first = optimizers.Adafactor(plain, lr=0.1)
    second = optimizers.Adafactor(clipped, lr=0.1, clipnorm=0.1, factored=False)
    for _ in range(3):
        gradients = drawn.gradients()
        for optimizer, params in ((both, ours), (first, plain), (second, clipped)):
            step(optimizer, params, gradients)
    expected = [*plain[:5], *clipped[5:]]
    assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))
    assert set(both.state[ours[7]]) == {"step", "variance"}


@pytest.mark.parametrize("layout", ["transposed", "sliced", "channels last"])
def test_strided_parameters_have_the_bits_of_others(layout, torch, optimizers):
    torch.manual_seed(0)
    if layout == "channels last":
        value = torch.randn(4, 3, 5, 6)
        strided = torch.nn.Parameter(value.clone(memory_format=torch.channels_last))
    else:
        value = torch.randn(12, 7)
        base = torch.zeros(7, 12).T if layout == "transposed" else torch.zeros(12, 21)[:, ::3]
        strided = torch.nn.Parameter(base.copy_(value))
    plain = torch.nn.Parameter(value.clone())
    assert strided.stride() != plain.stride()
    gradient = torch.randn_like(value)
    for parameter in (strided, plain):
        optimizer = optimizers.Adafactor([parameter], lr=0.1)
        for _ in range(3):
            parameter.grad = gradient.clone()
            optimizer.step()
    assert torch.equal(strided, plain)


def test_a_convolution_of_timm_is_kept_in_the_shapes_of_its_axes(torch, optimizers):
    kernel = torch.nn.Parameter(torch.randn(32, 48, 3, 3))
    config = presets.timm_big_vision(lr=0.1, min_dim_size_to_factor=8)
    optimizer = optimizers.Adafactor([kernel], config=config)
    kernel.grad = torch.randn(32, 48, 3, 3)
    optimizer.step()
    kept = optimizer.state[kernel]
    shapes = {key: tuple(value.shape) for key, value in kept.items()}
    assert shapes["row_var"] in ((32, 1, 3, 3), (1, 48, 3, 3)), shapes
    again = optimizers.Adafactor([kernel], config=config)
    again.load_state_dict(optimizer.state_dict())
    before = kernel.detach().clone()
    optimizer.step()
    after = kernel.detach().clone()
    with torch.no_grad():
        kernel.copy_(before)
    again.step()
    assert torch.equal(kernel, after)


def test_the_report_is_of_the_last_step(torch, optimizers, problem, step):
    drawn = problem()
    params = drawn.params()
    names = [f"layer.{number}" for number in range(len(params))]
    optimizer = optimizers.Adafactor(zip(names, params, strict=True), lr=0.25)
    assert optimizer.report is None
    gradients = drawn.gradients()
    gradients[3] = None
    step(optimizer, params, gradients)
    report = optimizer.report
    assert report.updated
    assert report.paths == tuple(names)
    assert report.learning_rate == 0.25
    norms = [np.nan if gradient is None else float(gradient.norm()) for gradient in gradients]
    np.testing.assert_allclose(report.grad_norm, norms, rtol=1e-6)
    unnamed = optimizers.Adafactor([{"params": drawn.params()[:2]}, {"params": drawn.params()[2:3]}])
    for parameter in itertools.chain.from_iterable(group["params"] for group in unnamed.param_groups):
        parameter.grad = torch.ones_like(parameter)
    unnamed.step()
    assert unnamed.report.paths == ("0", "1", "2")
