"""torch's own lists for its Adafactor, out of its package, with our class in the place of theirs.

And the properties that torch asks of every optimizer.
"""

import copy
import io
import pickle
import warnings

import pytest

import peers

torch = peers.require("torch")
common = peers.require("torch.testing._internal.common_optimizers")

INFO = next(info for info in common.optim_db if info.optim_cls is torch.optim.Adafactor)
INPUTS = INFO.optim_inputs_func(device="cpu")
ERRORS = INFO.optim_error_inputs_func(device="cpu", dtype=torch.float32)


def of(entry):
    return entry.desc or "unnamed"


@pytest.fixture
def make(optimizers):
    """Makes an optimizer for a small problem: (its class's, the parameters, how to give them gradients)."""

    def make(cls=optimizers.Adafactor, dtype=torch.float32, **kwargs):
        torch.manual_seed(0)
        params = [
            torch.nn.Parameter(torch.randn(shape, dtype=dtype)) for shape in ((10, 5), (10,), (3, 4, 2))
        ]
        inputs = torch.randn(5, dtype=dtype)

        def closure():
            for parameter in params:
                parameter.grad = None
            loss = (params[0].mv(inputs) + params[1]).pow(2).sum() + params[2].pow(4).sum()
            loss.backward()
            return loss

        return cls(params, **kwargs), params, closure

    return make


@pytest.mark.parametrize("entry", INPUTS, ids=of)
@pytest.mark.parametrize("foreach", [None, False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_inputs_of_torch_give_the_numbers_of_torch(entry, foreach, dtype, make):
    one, ours, closure_of_one = make(dtype=dtype, foreach=foreach, **entry.kwargs)
    other, theirs, closure_of_other = make(
        torch.optim.Adafactor, dtype=dtype, foreach=foreach, **entry.kwargs
    )
    for _ in range(10):
        assert torch.allclose(one.step(closure_of_one), other.step(closure_of_other), rtol=1e-5)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("entry", ERRORS, ids=lambda entry: of(entry.optimizer_error_input))
def test_the_errors_of_torch_are_raised(entry, optimizers):
    given = entry.optimizer_error_input
    params = given.params if given.params is not None else [torch.nn.Parameter(torch.randn(2, 3))]
    if issubclass(entry.error_type, Warning):
        with pytest.warns(entry.error_type, match=entry.error_regex):
            optimizers.Adafactor(params, **given.kwargs)
        return
    if entry.error_on is common.OptimizerErrorEnum.STEP_ERROR:
        optimizer = optimizers.Adafactor(params, **given.kwargs)
        with pytest.raises(entry.error_type, match=entry.error_regex):
            optimizer.step()
        return
    with pytest.raises(entry.error_type, match=entry.error_regex):
        optimizers.Adafactor(params, **given.kwargs)


@pytest.mark.parametrize(
    "bad",
    [{"lr": -1.0}, {"weight_decay": -0.1}, {"eps": (None, -1e-3)}],
    ids=["lr", "weight_decay", "eps"],
)
def test_other_bad_arguments_are_refused_in_the_words_of_torch(bad, optimizers):
    said = []
    for cls in (torch.optim.Adafactor, optimizers.Adafactor):
        with pytest.raises(ValueError, match="should be") as error:
            cls([torch.nn.Parameter(torch.zeros(2))], **bad)
        said.append(str(error.value))
    assert said[0] == said[1]


@pytest.mark.parametrize("entry", INPUTS, ids=of)
def test_a_closure_is_called_with_gradients_enabled_and_its_loss_returned(entry, make):
    optimizer, _, closure = make(**entry.kwargs)
    with torch.no_grad():
        losses = [float(optimizer.step(closure)) for _ in range(3)]
        assert float(optimizer.step(closure=closure)) > 0
    assert (losses[0] > losses[-1]) != entry.kwargs.get("maximize", False)


def test_a_rate_in_a_tensor_is_read_at_each_step(make):
    rate = torch.tensor(0.1)
    optimizer, params, closure = make(lr=rate)
    plain, others, closure_of_plain = make(lr=0.1)
    for value in (0.1, 0.02, 0.3):
        rate.fill_(value)
        plain.param_groups[0]["lr"] = float(rate)
        optimizer.step(closure)
        plain.step(closure_of_plain)
    assert all(torch.equal(a, b) for a, b in zip(params, others, strict=True))


SCHEDULERS = {
    "LambdaLR": lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda epoch: 0.9**epoch),
    "StepLR": lambda o: torch.optim.lr_scheduler.StepLR(o, gamma=0.5, step_size=2),
    "CosineAnnealingLR": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=4),
    "warm-up": lambda o: torch.optim.lr_scheduler.LinearLR(o, start_factor=1e-3, total_iters=4),
    "OneCycleLR": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=8, cycle_momentum=False),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_give_the_numbers_of_torch(name, make):
    one, ours, closure_of_one = make(lr=0.1)
    other, theirs, closure_of_other = make(torch.optim.Adafactor, lr=0.1)
    schedulers = [SCHEDULERS[name](optimizer) for optimizer in (one, other)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(6):
            one.step(closure_of_one)
            other.step(closure_of_other)
            for scheduler in schedulers:
                scheduler.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=2e-6)


def test_hooks_run_around_a_step(make):
    optimizer, _, closure = make()
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.append(("pre", optimizer.report)))
    optimizer.register_step_post_hook(lambda *_: seen.append(("post", optimizer.report)))
    optimizer.step(closure)
    assert [name for name, _ in seen] == ["pre", "post"]
    assert seen[0][1] is None
    assert seen[1][1].updated


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "torch.save"])
def test_a_copy_goes_on_with_the_same_bits(way, make):
    optimizer, params, closure = make(lr=0.1, beta_1=0.9)
    optimizer.step(closure)
    pair = (params, optimizer)
    if way == "deepcopy":
        others, copied = copy.deepcopy(pair)
    elif way == "pickle":
        others, copied = pickle.loads(pickle.dumps(pair))
    else:
        file = io.BytesIO()
        torch.save(pair, file)
        file.seek(0)
        others, copied = torch.load(file, weights_only=False)
    assert {name for name in vars(copied) if not name.startswith("_")} == {
        name for name in vars(optimizer) if not name.startswith("_")
    }
    for _ in range(3):
        for these, one in ((params, optimizer), (others, copied)):
            for parameter in these:
                parameter.grad = parameter.detach().clone()
            one.step()
    assert all(torch.equal(a, b) for a, b in zip(params, others, strict=True))


def test_a_step_without_gradients_does_nothing(make):
    optimizer, params, closure = make()
    before = [parameter.detach().clone() for parameter in params]
    optimizer.step()
    assert not optimizer.state
    assert all(torch.equal(a, b) for a, b in zip(params, before, strict=True))
    optimizer.step(closure)
    counts = [float(optimizer.state[parameter]["step"]) for parameter in params]
    optimizer.zero_grad()
    optimizer.step()
    assert counts == [float(optimizer.state[parameter]["step"]) for parameter in params] == [1, 1, 1]


def test_gradients_of_zero_move_nothing(make):
    optimizer, params, _ = make(lr=0.1)
    before = [parameter.detach().clone() for parameter in params]
    for parameter in params:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(params, before, strict=True))
    assert all(float(optimizer.state[parameter]["step"]) == 1 for parameter in params)


def test_groups_come_late_and_may_be_empty(make):
    optimizer, params, closure = make(lr=0.1)
    optimizer.step(closure)
    late = torch.nn.Parameter(torch.randn(4, 4))
    optimizer.add_param_group({"params": [late], "lr": 0.2})
    optimizer.add_param_group({"params": []})
    late.grad = torch.randn(4, 4)
    optimizer.step()
    assert float(optimizer.state[late]["step"]) == 1
    assert float(optimizer.state[params[0]]["step"]) == 2


def test_a_group_with_a_bad_value_is_not_added(make):
    optimizer, _, _ = make()
    with pytest.raises(ValueError, match=r"^param_groups\[1\]: d: 0, expected a finite number > 0"):
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(2))], "d": 0.0})
    assert len(optimizer.param_groups) == 1


def test_a_parameter_that_changes_its_group_has_the_rate_of_the_new_one(optimizers):
    params = [torch.nn.Parameter(torch.ones(3, 3)) for _ in range(3)]
    optimizer = optimizers.Adafactor([{"params": params[:2], "lr": 0.0}, {"params": params[2:], "lr": 0.5}])
    for parameter in params:
        parameter.grad = torch.ones(3, 3)
    optimizer.step()
    assert torch.equal(params[1], torch.ones(3, 3))
    first, second = optimizer.param_groups
    second["params"].insert(0, first["params"].pop())
    optimizer.step()
    assert not torch.equal(params[1], torch.ones(3, 3))


def test_equal_names_in_two_groups_are_told_apart(optimizers):
    params = [torch.nn.Parameter(torch.ones(40, 40, dtype=torch.bfloat16)) for _ in range(2)]
    optimizer = optimizers.Adafactor([{"params": [("w", params[0])]}], lr=1e-3, rounding="stochastic")
    optimizer.add_param_group({"params": [("w", params[1])]})
    for parameter in params:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert optimizer.report.paths == ("w", "w (param_groups[1], 0)")
    assert not torch.equal(*params)  # each is rounded by noise of its own


def test_values_that_change_where_they_lie_are_read_at_each_step(optimizers):
    parameter = torch.nn.Parameter(torch.full((3, 3), 1e-6))
    parameter.grad = torch.ones(3, 3)
    optimizer = optimizers.Adafactor([parameter], lr=1e-6)
    optimizer.param_groups[0]["eps"] = [None, torch.tensor(1e-3)]
    optimizer.step()
    small = optimizer.report.step_size[0]
    optimizer.param_groups[0]["eps"][1].fill_(1.0)
    optimizer.step()
    assert optimizer.report.step_size[0] == pytest.approx(1000 * small)
    optimizer.param_groups[0]["eps"][1] = 1e-3
    optimizer.step()
    assert optimizer.report.step_size[0] == pytest.approx(small)


def test_a_pattern_that_finds_no_parameter_is_warned_of(optimizers):
    layer = torch.nn.Linear(3, 3)
    layer(torch.ones(2, 3)).sum().backward()
    optimizer = optimizers.Adafactor(
        layer.parameters(), weight_decay=0.5, exclude_from_weight_decay=("bias",)
    )
    with pytest.warns(UserWarning, match=r"'bias' finds no parameter of param_groups\[0\]; model.named"):
        optimizer.step()
    named = optimizers.Adafactor(
        layer.named_parameters(), lr=0.0, weight_decay=0.5, exclude_from_weight_decay=("bias",)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        named.step()


def test_a_frozen_parameter_is_stepped_where_it_has_a_gradient(make):
    optimizer, params, closure = make(lr=0.1)
    params[1].requires_grad_(False)
    optimizer.step(closure)
    assert params[1] not in optimizer.state
    before = params[1].clone()
    params[1].grad = torch.ones(10)
    optimizer.step()
    assert not torch.equal(before, params[1])
    params[2].requires_grad_(False)
    for parameter in params:
        parameter.grad = None
    params[0].grad = torch.ones(10, 5)
    optimizer.step()
    assert [float(optimizer.state[parameter]["step"]) for parameter in params] == [3, 1, 2]


def test_a_model_may_change_its_dtype_between_steps(make):
    optimizer, params, closure = make(lr=0.1)
    optimizer.step(closure)
    kept = optimizer.state[params[0]]["row_var"]
    for parameter in params:
        parameter.data = parameter.data.to(torch.bfloat16)
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    assert optimizer.state[params[0]]["row_var"] is kept
    assert kept.dtype == torch.float32
    assert float(optimizer.state[params[0]]["step"]) == 2


def test_a_compiled_training_function_calls_the_step_without_a_warning(optimizers):
    parameter, twin = (torch.nn.Parameter(torch.linspace(-1, 1, 16).reshape(4, 4)) for _ in range(2))
    compiled, plain = optimizers.Adafactor([parameter], lr=0.1), optimizers.Adafactor([twin], lr=0.1)

    def train(parameter, optimizer, x):
        loss = (parameter @ x).square().sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    run = torch.compile(train, backend="eager")
    for number in range(3):
        x = torch.full((4,), 1.0 + number)
        run(parameter, compiled, x)
        train(twin, plain, x)
    assert torch.equal(parameter, twin)
    assert float(compiled.state[parameter]["step"]) == 3
