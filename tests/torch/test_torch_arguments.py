"""The arguments of `adafactor.torch.Adafactor`: torch's own, `config=` beside them, and what groups keep."""

import copy
import inspect

import pytest

import peers
from adafactor import presets

torch = peers.require("torch")

STEPS = 4


@pytest.fixture
def trained(optimizers):
    """Trains a matrix and a vector with an optimizer of some arguments; gives the optimizer and the two."""

    def trained(*args, group=None, **kwargs):
        generator = torch.Generator().manual_seed(0)
        draw = lambda *shape: torch.randn(shape, generator=generator)  # noqa: E731
        params = [torch.nn.Parameter(0.3 * draw(20, 17)), torch.nn.Parameter(0.3 * draw(18))]
        optimizer = optimizers.Adafactor([{"params": params, **(group or {})}], *args, **kwargs)
        for _ in range(STEPS):
            for parameter in params:
                parameter.grad = draw(*parameter.shape)
            optimizer.step()
        return optimizer, params

    return trained


def assert_same(found, expected):
    """That two optimizers have trained to the same bits."""
    (one, params), (other, others) = found, expected
    for a, b in zip(params, others, strict=True):
        assert torch.equal(a, b)
        assert one.state[a].keys() == other.state[b].keys()
        assert all(torch.equal(value, other.state[b][key]) for key, value in one.state[a].items())


def are_apart(found, other):
    return not any(torch.equal(a, b) for a, b in zip(found[1], other[1], strict=True))


# The signature.


def described(cls):
    """Name, kind and default of each argument, in order."""
    parameters = inspect.signature(cls).parameters.values()
    return [(each.name, each.kind, each.default) for each in parameters]


def test_the_arguments_are_those_of_torch_and_a_config_and_knobs_come_after_them(optimizers):
    ours, theirs = described(optimizers.Adafactor), described(torch.optim.Adafactor)
    assert len(theirs) >= 8
    assert ours[: len(theirs)] == theirs
    kinds = inspect.Parameter
    assert ours[len(theirs) :] == [
        ("config", kinds.KEYWORD_ONLY, None),
        ("knobs", kinds.VAR_KEYWORD, kinds.empty),
    ]


def test_the_arguments_of_a_step_are_those_of_torch(optimizers):
    assert described(optimizers.Adafactor.step) == described(torch.optim.Adafactor.step)


def test_what_torch_takes_by_position_goes_by_position(trained):
    optimizer, _ = found = trained(0.1, -0.5, (1e-4, 1e-2), 2.0, 0.1)
    names = {"lr": 0.1, "beta2_decay": -0.5, "eps": (1e-4, 1e-2), "d": 2.0, "weight_decay": 0.1}
    assert {name: optimizer.param_groups[0][name] for name in names} == names
    assert_same(found, trained(**names))


@pytest.mark.parametrize("given", ["foreach", "maximize", "config"])
def test_what_torch_takes_by_name_alone_does_not_go_by_position(given, optimizers):
    weight = torch.nn.Parameter(torch.ones(2, 2))
    assert inspect.signature(optimizers.Adafactor).parameters[given].kind is inspect.Parameter.KEYWORD_ONLY
    with pytest.raises(TypeError, match="positional argument"):
        optimizers.Adafactor([weight], 1e-2, -0.8, (None, 1e-3), 1.0, 0.0, None)


# Beside a config.

CONFIGS = {
    "transformers": lambda **knobs: presets.transformers(relative_step=False, **{"lr": 0.2} | knobs),
    "transformers, relative": lambda **knobs: presets.transformers(**knobs),
    "timm": lambda **knobs: presets.timm(**{"lr": 0.2} | knobs),
    "keras": lambda **knobs: presets.keras(0.2, **knobs),
    "torch": lambda **knobs: presets.torch(**{"lr": 0.2} | knobs),
}
of_configs = pytest.mark.parametrize("config_of", CONFIGS.values(), ids=CONFIGS)


@of_configs
def test_no_rate_beside_a_config_is_the_rate_of_the_config(config_of, trained):
    config = config_of()
    found = trained(lr=None, config=config)
    assert found[0].param_groups[0]["lr"] == config.learning_rate
    assert_same(found, trained(config=config))
    assert_same(found, trained(lr=config.learning_rate, config=config))


@of_configs
@pytest.mark.parametrize("kind", [float, torch.tensor], ids=["number", "tensor"])
def test_a_rate_beside_a_config_takes_the_place_of_its_own(kind, config_of, trained):
    config, rate = config_of(), kind(1 / 256)
    found = trained(lr=rate, config=config)
    assert found[0].param_groups[0]["lr"] is rate
    assert_same(found, trained(config=config.replace(learning_rate=1 / 256)))
    assert are_apart(found, trained(config=config))


def test_a_rate_beside_a_config_counts_where_it_is_the_default_of_torch(trained):
    found = trained(lr=1e-2, config=CONFIGS["timm"]())
    assert found[0].param_groups[0]["lr"] == 1e-2
    assert_same(found, trained(config=CONFIGS["timm"](lr=1e-2)))


@of_configs
@pytest.mark.parametrize("lr", [None, 1 / 256], ids=["of the config", "beside it"])
def test_a_group_without_a_rate_has_that_of_the_optimizer(lr, config_of, trained):
    found = trained(group={"lr": None}, lr=lr, config=config_of())
    assert found[0].param_groups[0]["lr"] is None
    assert_same(found, trained(lr=lr, config=config_of()))


def test_a_group_without_a_rate_and_no_config_has_that_of_the_optimizer(trained):
    assert_same(trained(group={"lr": None}), trained())
    assert_same(trained(group={"lr": None}, lr=0.3), trained(lr=0.3))


BESIDE = {
    "weight decay": {"weight_decay": 0.25},
    "ascent": {"maximize": True},
    "both": {"weight_decay": 0.25, "maximize": True},
    "a knob": {"clipnorm": 0.1},
}


@of_configs
@pytest.mark.parametrize("beside", BESIDE.values(), ids=BESIDE)
def test_what_stands_beside_a_config_is_as_if_it_stood_in_it(beside, config_of, trained):
    found = trained(config=config_of(), **beside)
    assert_same(found, trained(config=config_of(**beside)))
    assert_same(found, trained(config=config_of().replace(**beside)))
    assert {name: found[0].param_groups[0][name] for name in beside} == beside
    plain = trained(config=config_of())
    assert not all(torch.equal(a, b) for a, b in zip(found[1], plain[1], strict=True))


def test_no_weight_decay_beside_a_config_that_has_some_is_none(trained):
    config = presets.transformers(weight_decay=0.25)
    found = trained(config=config, weight_decay=0.0)
    assert_same(found, trained(config=presets.transformers()))
    assert are_apart(found, trained(config=config))
    assert trained(config=config)[0].param_groups[0]["weight_decay"] == 0.25


# What a step leaves of the groups.

KEPT = {
    "torch": {"lr": 0.1, "weight_decay": 0.1},
    "torch, a tensor": {"lr": torch.tensor(0.1)},
    "transformers, relative": {"config": presets.transformers(relative_step=True)},
    "transformers, warm-up": {"config": presets.transformers(warmup_init=True)},
    "timm": {"config": presets.timm(betas=(0.9, 0.999))},
    "pytorch_optimizer": {"config": presets.pytorch_optimizer()},
    "keras": {"config": presets.keras(use_ema=True)},
    "a group without a rate": {"config": presets.transformers(), "group": {"lr": None, "d": 2.0}},
}


@pytest.mark.parametrize("given", KEPT.values(), ids=KEPT)
def test_the_values_of_a_group_are_as_they_were_after_steps(given, optimizers):
    params = [torch.nn.Parameter(torch.ones(3, 4)), torch.nn.Parameter(torch.ones(5))]
    given = dict(given)
    groups = [{"params": params[:1], **given.pop("group", {})}, {"params": params[1:]}]
    optimizer = optimizers.Adafactor(groups, **given)
    values = [{name: group[name] for name in group if name != "params"} for group in optimizer.param_groups]
    before = copy.deepcopy(values)
    for _ in range(3):
        for parameter in params:
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    assert all(entry["step"] == 3 for entry in optimizer.state.values())
    assert not any((parameter == 1).any() for parameter in params)
    for group, kept, value_of in zip(optimizer.param_groups, before, values, strict=True):
        assert group.keys() == {"params", *kept}
        assert {name: group[name] for name in kept} == kept
        assert all(group[name] is value for name, value in value_of.items())
    assert [group["params"] for group in optimizer.param_groups] == [params[:1], params[1:]]


@pytest.mark.parametrize("how", [{}, {"config": presets.timm(lr=0.1)}], ids=["alone", "beside a config"])
def test_a_direction_that_is_none_is_refused(how, optimizers):
    with pytest.raises(TypeError, match=r"^maximize: 'no', expected True or False"):
        optimizers.Adafactor([torch.nn.Parameter(torch.ones(2))], maximize="no", **how)
