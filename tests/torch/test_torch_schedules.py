"""Values of a group that change from step to step: the bits of an optimizer that always had them."""

import pytest

import peers

torch = peers.require("torch")

SHAPES = ((6, 5), (7,), (2, 3, 4))
VALUES = {
    "weight_decay": [0.0, 0.1, 0.2, 0.0],
    "d": [1.0, 2.0, float("inf"), 0.5],
    "eps": [(None, 1e-3), (1e-4, 1e-2), (1e-6, 1e-3), (None, 1.0)],
    "clipnorm": [None, 0.1, 1.0, None],
    "beta_1": [0.9, 0.5, 0.0001, 0.9],
    "momentum_dtype": ["float32", "bfloat16", "float32", "bfloat16"],
    "ema_momentum": [0.5, 0.9, 0.99, 0.1],
    "maximize": [False, True, False, True],
}
WITH = {"beta_1": {"beta_1": 0.9}, "momentum_dtype": {"beta_1": 0.9}, "ema_momentum": {"use_ema": True}}


@pytest.fixture
def make(optimizers):
    def make(**kwargs):
        torch.manual_seed(0)
        params = [torch.nn.Parameter(torch.randn(shape)) for shape in SHAPES]
        return optimizers.Adafactor(params, lr=0.1, **kwargs), params

    return make


def give_gradients(params, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in params:
        parameter.grad = torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("name", VALUES)
def test_a_value_that_changes_has_the_bits_of_one_that_was_always_there(name, make):
    optimizer, params = make(**WITH.get(name, {}))
    assert name in optimizer.param_groups[0]
    for seed, value in enumerate(VALUES[name]):
        other, copies = make(**WITH.get(name, {}))
        other.load_state_dict(optimizer.state_dict())
        optimizer.param_groups[0][name] = other.param_groups[0][name] = value
        with torch.no_grad():
            for copy, parameter in zip(copies, params, strict=True):
                copy.copy_(parameter)
        for optimizer_of, own in ((optimizer, params), (other, copies)):
            give_gradients(own, seed)
            optimizer_of.step()
        for copy, parameter in zip(copies, params, strict=True):
            assert torch.equal(copy, parameter)
            state, expected = optimizer.state[parameter], other.state[copy]
            assert state.keys() == expected.keys()
            assert all(torch.equal(state[key], expected[key]) for key in state)


def test_a_value_that_changes_leaves_the_tensors_of_the_state(make):
    optimizer, params = make()
    give_gradients(params, 0)
    optimizer.step()
    before = [dict(optimizer.state[parameter]) for parameter in params]
    optimizer.param_groups[0]["weight_decay"] = 0.1
    optimizer.step()
    for parameter, tensors in zip(params, before, strict=True):
        assert all(optimizer.state[parameter][key] is tensor for key, tensor in tensors.items())


def test_a_state_that_changes_together_with_a_value_is_put_into_form(make):
    optimizer, params = make()
    straight, copies = make()
    for each, own in ((optimizer, params), (straight, copies)):
        give_gradients(own, 0)
        each.step()
    for state in optimizer.state.values():  # as one does to keep it in less memory
        state["step"] = int(state["step"])
        for key in state.keys() - {"step"}:
            state[key] = state[key].double()
    for each, own in ((optimizer, params), (straight, copies)):
        each.param_groups[0]["weight_decay"] = 0.1
        give_gradients(own, 1)
        each.step()
    assert all(map(torch.equal, params, copies))
    assert all(state["step"] == 2 for state in optimizer.state.values())


def test_a_state_that_is_not_a_state_is_refused_although_a_value_has_changed(make):
    optimizer, params = make()
    give_gradients(params, 0)
    optimizer.step()
    kept = [parameter.clone() for parameter in params]
    del optimizer.state[params[0]]["row_var"]
    optimizer.param_groups[0]["weight_decay"] = 0.1
    with pytest.raises(ValueError, match=r"^state 0: no row_var, expected"):
        optimizer.step()
    assert all(map(torch.equal, params, kept))


def test_a_wrong_value_changes_nothing(make):
    optimizer, params = make()
    give_gradients(params, 0)
    optimizer.step()
    kept = [parameter.clone() for parameter in params]
    for value in (-1.0, 0.1):
        optimizer.param_groups[0]["weight_decay"] = value
        if value > 0:
            optimizer.step()
            continue
        with pytest.raises(ValueError, match=r"^weight_decay: -1, expected"):
            optimizer.step()
        assert all(map(torch.equal, params, kept))
    assert not any(map(torch.equal, params, kept))
