"""What `adafactor.torch.Adafactor` refuses, by name, before a byte is written."""

import re

import pytest

import peers
from adafactor import presets, schedules

torch = peers.require("torch")


def weight(shape=(3, 4), **options):
    torch.manual_seed(0)
    return torch.nn.Parameter(torch.randn(shape, **options))


def refused_step(optimizer, error, words):
    """Has the optimizer step; holds that it raises, and that neither a parameter nor a state has changed."""

    def bits():
        tensors = [p for group in optimizer.param_groups for p in group["params"] if p.device.type == "cpu"]
        tensors += [value for entry in optimizer.state.values() for value in entry.values()]
        return [tensor.detach().clone() for tensor in tensors]

    before = bits()
    with pytest.raises(error, match=words):
        optimizer.step()
    after = bits()
    for a, b in zip(before, after, strict=False):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
    assert all(not tensor.any() for tensor in after[len(before) :])  # at most states that begin at zero


def nan():
    parameter = weight()
    parameter.grad = torch.ones(3, 4)
    parameter.grad[1, 2] = float("nan")
    return (
        [("w", parameter)],
        FloatingPointError,
        r"^grads w: 1 NaN and 0 Inf of 12 values; nothing was changed",
    )


def spoilt_parameter():
    parameter = weight()
    parameter.data[0, 0] = float("inf")
    parameter.grad = torch.ones(3, 4)
    return [("w", parameter)], FloatingPointError, r"^params w: 0 NaN and 1 Inf of 12 values"


def sparse():
    parameter = weight()
    parameter.grad = torch.sparse_coo_tensor([[0], [1]], [1.0], (3, 4), check_invariants=True)
    return (
        [parameter],
        RuntimeError,
        r"^Adafactor does not support sparse gradients: grads .* is one; use its to_dense\(\)",
    )


def sparse_parameter():
    parameter = torch.nn.Parameter(torch.sparse_coo_tensor([[0], [1]], [1.0], (3, 4), check_invariants=True))
    parameter.grad = torch.ones(3, 4).to_sparse()  # torch takes no other for it
    return [("w", parameter)], RuntimeError, "^Adafactor does not support sparse gradients: grads w is one"


def complex_parameter():
    parameter = torch.nn.Parameter(torch.ones(3, 4, dtype=torch.complex64))
    parameter.grad = torch.ones_like(parameter)
    words = r"^Adafactor does not support complex parameters: params w is one; make torch\.view_as_real\(\)"
    return [("w", parameter)], RuntimeError, words


def other_device():
    parameter = torch.nn.Parameter(torch.empty(3, 4, device="meta"))
    parameter.grad = torch.empty(3, 4, device="meta")
    return (
        [("w", parameter)],
        TypeError,
        r"^params w: a torch.nn.parameter.Parameter .*device meta.*, expected a dense array in memory",
    )


def subclass():
    class Tagged(torch.Tensor):
        pass

    parameter = torch.nn.Parameter(torch.randn(3, 4).as_subclass(Tagged))
    parameter.grad = torch.randn(3, 4)
    return (
        [("w", parameter)],
        TypeError,
        r"^params w: .*Tagged, expected a torch.Tensor or torch.nn.Parameter",
    )


def shared_memory():
    base = torch.randn(4, 4)
    one, other = torch.nn.Parameter(base[:3]), torch.nn.Parameter(base[1:])
    one.grad, other.grad = torch.ones(3, 4), torch.ones(3, 4)
    return [("one", one), ("other", other)], ValueError, "shares memory with params"


def state_in_the_parameter():
    parameter = weight()
    parameter.grad = torch.ones(3, 4)
    return (
        [("w", parameter)],
        ValueError,
        r"^params w: shares memory with state w|^state w: shares memory with params w",
    )


CASES = [
    nan,
    spoilt_parameter,
    sparse,
    sparse_parameter,
    complex_parameter,
    other_device,
    subclass,
    shared_memory,
    state_in_the_parameter,
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
@pytest.mark.parametrize("place", ["first step", "later step"])
def test_a_step_is_refused_whole(case, place, optimizers):
    params, error, words = case()
    fine = torch.nn.Parameter(torch.ones(2, 2))
    first = ("fine", fine) if isinstance(params[0], tuple) else fine
    optimizer = optimizers.Adafactor([first])
    fine.grad = torch.ones(2, 2)
    if place == "later step":
        optimizer.step()
    optimizer.add_param_group({"params": params})
    if case is state_in_the_parameter:
        parameter = params[0][1]
        optimizer.step()
        optimizer.state[parameter]["row_var"] = parameter.data.view(-1)[:3].view(3, 1).abs_()
    refused_step(optimizer, error, words)


def test_sharded_parameters_are_refused(optimizers, one_rank):
    model = torch.nn.Linear(4, 3)
    one_rank.fsdp.fully_shard(model, mesh=one_rank.device_mesh.init_device_mesh("cpu", (1,)))
    model(torch.ones(2, 4)).sum().backward()
    optimizer = optimizers.Adafactor(model.named_parameters())
    with pytest.raises(
        TypeError, match=r"^params weight: torch.*DTensor, expected a torch.Tensor .*to_local"
    ):
        optimizer.step()
    assert not optimizer.state


def test_a_skipped_step_counts_nothing(optimizers):
    parameter = weight()
    optimizer = optimizers.Adafactor([parameter], on_nonfinite="skip")
    before = parameter.detach().clone()
    parameter.grad = torch.full((3, 4), float("inf"))
    for _ in range(9):
        optimizer.step()
    assert optimizer.report.skipped
    with pytest.warns(UserWarning, match="grads 0: not finite, and so 10 calls in a row were skipped"):
        optimizer.step()
    assert torch.equal(parameter, before)
    assert float(optimizer.state[parameter]["step"]) == 0


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (torch.tensor(2.5), "2.5"),
        (torch.tensor(-1.0), "-1.0"),
        (torch.tensor(2.0**24), "16777216.0"),
        (torch.tensor(float("nan")), "nan"),
        ("one", "'one'"),
    ],
    ids=["part", "negative", "too large", "nan", "word"],
)
def test_a_count_that_is_none_is_refused(count, words, optimizers):
    parameter = weight()
    optimizer = optimizers.Adafactor([parameter])
    parameter.grad = torch.ones(3, 4)
    optimizer.step()
    optimizer.state[parameter]["step"] = count
    before = parameter.detach().clone()
    with pytest.raises(ValueError, match=f"^state 0 step: {re.escape(words)}, expected"):
        optimizer.step()
    assert torch.equal(parameter, before)


def test_what_was_not_finite_is_remembered_where_knobs_change(optimizers):
    params = [weight(), weight()]
    optimizer = optimizers.Adafactor(params, weight_decay=0.1)
    for parameter in params:
        parameter.grad = torch.ones(3, 4)
    optimizer.step()
    params[0].data[0, 0] = float("nan")
    optimizer.step()  # the others are updated already when this one is found
    assert optimizer.report.nonfinite.tolist() == [True, False]
    for number in range(3):
        optimizer.param_groups[0]["weight_decay"] = 0.01 * number
        refused_step(optimizer, FloatingPointError, "^params 0: 1 NaN")


def test_a_parameter_that_is_overwritten_without_a_gradient_is_known_to_have_changed(optimizers):
    params = [weight((4, 4)), weight((4, 4))]
    config = presets.keras(use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2)
    optimizer = optimizers.Adafactor(params, config=config)
    for parameter in params:
        parameter.grad = torch.ones(4, 4)
    optimizer.step()
    x = torch.ones(4, requires_grad=True)
    loss = (params[0] @ x).sum()
    params[0].grad = None
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_one_step_at_a_time(optimizers):
    parameter = weight()
    parameter.grad = torch.ones(3, 4)
    optimizer = optimizers.Adafactor([parameter])
    with optimizer._stepping():
        for call in (optimizer.step, lambda: optimizer.step_param(parameter)):
            with pytest.raises(RuntimeError, match=r"^optimizer in use: another step"):
                call()
    optimizer.step()
    assert float(optimizer.state[parameter]["step"]) == 1


@pytest.mark.parametrize(
    ("group", "error", "words"),
    [
        ({"clip_threshold": 2.0}, TypeError, "^clip_threshold: no value of a group; did you mean 'd'"),
        ({"epsilon_2": 2.0}, TypeError, "^epsilon_2: no value of a group; did you mean 'eps'"),
        ({"loss_scale_factor": 2.0}, TypeError, "^loss_scale_factor: no value of a group; torch.amp"),
        (
            {"use_ema": True},
            ValueError,
            r"^use_ema: True in param_groups\[1\] and False in param_groups\[0\]",
        ),
    ],
    ids=["other name", "pair", "not offered", "whole call"],
)
def test_a_group_is_refused_when_it_is_added(group, error, words, optimizers):
    optimizer = optimizers.Adafactor([weight()])
    with pytest.raises(error, match=words):
        optimizer.add_param_group({"params": [weight()], **group})
    assert len(optimizer.param_groups) == 1


ARGUMENTS = {
    "no rate": ({"lr": None}, TypeError, "^lr: None, expected a number"),
    "overwriting": (
        {"use_ema": True, "ema_overwrite_frequency": 5},
        ValueError,
        '^ema_overwrite_frequency: needs count_updates="state"',
    ),
    "eps beside a config": (
        {"config": presets.timm(), "eps": (None, 1e-3)},
        TypeError,
        "^eps: goes into the config, and not beside it$",
    ),
    "d beside a config": ({"config": presets.timm(), "d": 1.0}, TypeError, "^d: goes into the config"),
    "no config": (
        {"config": presets.timm},
        TypeError,
        "^config: function, expected an adafactor.Config; call it",
    ),
    "schedule": (
        {"config": presets.optax(learning_rate=schedules.CosineDecay(0.1, 10))},
        ValueError,
        "^learning_rate: .*expected a number; a scheduler of torch.optim changes it",
    ),
    "accumulation": (
        {"config": presets.keras(gradient_accumulation_steps=2)},
        ValueError,
        r"^gradient_accumulation_steps: 2 has no counterpart in torch; call backward\(\) several times",
    ),
    "loss scale": (
        {"loss_scale_factor": 8.0},
        ValueError,
        "^loss_scale_factor: 8.0 has no counterpart in torch; torch.amp.GradScaler",
    ),
    "unknown": ({"lrr": 0.1}, TypeError, "^unknown argument 'lrr'"),
    "of Config": ({"learning_rate": 0.1}, TypeError, "^unknown argument 'learning_rate'; did you mean 'lr'"),
    "negative": ({"clipnorm": -1.0}, ValueError, "^clipnorm: -1, expected a finite number > 0"),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_an_argument_is_refused(name, optimizers):
    arguments, error, words = ARGUMENTS[name]
    with pytest.raises(error, match=words):
        optimizers.Adafactor([weight()], **arguments)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lr": -0.1}, r"^param_groups\[0\]: Learning rate should be >= 0 but is: -0.1"),
        ({"lr": float("nan")}, r"^param_groups\[0\]: Learning rate should be >= 0 but is: nan"),
        ({"beta2_decay": 0.8}, r"^param_groups\[0\]: beta2_decay: 0.8, expected .* <= 0"),
        ({"eps": (None, -1.0)}, r"^param_groups\[0\]: eps\[1\]: -1, expected"),
        ({"weight_decay": -1.0}, r"^param_groups\[0\]: weight_decay: -1, expected"),
        (
            {"on_nonfinite": "skip"},
            r"^on_nonfinite: 'raise' in param_groups\[1\] and 'skip' in param_groups\[0\]",
        ),
    ],
    ids=["rate", "rate of NaN", "beta2_decay", "eps", "weight_decay", "whole call"],
)
def test_a_value_of_a_group_is_refused_at_the_step(change, words, optimizers):
    params = [weight(), weight()]
    optimizer = optimizers.Adafactor([{"params": [parameter]} for parameter in params])
    for parameter in params:
        parameter.grad = torch.ones(3, 4)
    optimizer.step()
    optimizer.param_groups[0].update(change)
    refused_step(optimizer, ValueError, words)


def test_a_parameter_that_was_saved_for_a_backward_is_known_to_have_changed(optimizers):
    parameter = weight((4, 4))
    x = torch.ones(4, requires_grad=True)
    loss = (parameter @ x).sum()
    optimizer = optimizers.Adafactor([parameter])
    parameter.grad = torch.ones(4, 4)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
