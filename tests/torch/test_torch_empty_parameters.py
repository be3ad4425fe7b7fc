"""Parameters of no elements, which torch has in models, and which its own Adafactor divides by."""

import contextlib

import pytest

import peers

torch = peers.require("torch")

SHAPES = {
    "vector": (0,),
    "no rows": (0, 3),
    "no columns": (4, 0),
    "no slices": (0, 3, 4),
    "slices": (2, 0, 3),
}
of_shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def drawn(*shapes):
    """Parameters of these shapes."""
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def train(optimizer, params, steps=3):
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for parameter in params:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()


def shapes_of(entry):
    return {key: tuple(value.shape) for key, value in entry.items()}


KNOBS = {
    "torch": {},
    "momentum": {"beta_1": 0.9, "weight_decay": 0.1, "use_ema": True},
    "clipped": {"clipnorm": 0.1},
    "clipped together": {"global_clipnorm": 0.1},
}


@of_shapes
@pytest.mark.parametrize("knobs", KNOBS.values(), ids=KNOBS)
def test_a_parameter_of_no_elements_counts_and_leaves_the_others_alone(knobs, shape, optimizers):
    one, without, (empty,) = drawn((3, 4), (5,)), drawn((3, 4), (5,)), drawn(shape)
    params = [one[0], empty, one[1]]
    both, plain = (optimizers.Adafactor(each, lr=0.1, **knobs) for each in (params, without))
    train(both, params)
    train(plain, without)
    assert all(torch.equal(a, b) for a, b in zip(one, without, strict=True))
    for a, b in zip(one, without, strict=True):
        assert all(torch.equal(value, plain.state[b][key]) for key, value in both.state[a].items())
    assert float(both.state[empty]["step"]) == 3
    assert not any(value.any() for key, value in both.state[empty].items() if key != "step")
    assert empty.shape == shape


@of_shapes
def test_alone_it_is_stepped_too(shape, optimizers):
    params = drawn(shape)
    optimizer = optimizers.Adafactor(params, lr=0.1)
    train(optimizer, params)
    assert float(optimizer.state[params[0]]["step"]) == 3
    assert optimizer.report.updated
    assert optimizer.report.global_grad_norm == 0


def of_torch(params):
    """torch's Adafactor with a state of each parameter, which it makes before it divides by their sizes."""
    optimizer = torch.optim.Adafactor(params, lr=0.1)
    with contextlib.suppress(ZeroDivisionError):
        train(optimizer, params, steps=1)
    return optimizer


@of_shapes
def test_its_state_has_the_shapes_of_torch(shape, optimizers):
    params, others = drawn((3, 4), shape), drawn((3, 4), shape)
    ours = optimizers.Adafactor(params, lr=0.1)
    train(ours, params)
    theirs = of_torch(others)
    assert shapes_of(ours.state[params[1]]) == shapes_of(theirs.state[others[1]])


@of_shapes
def test_its_state_goes_to_torch_and_comes_back(shape, optimizers):
    params, others, straight = (drawn((3, 4), shape) for _ in range(3))
    first, resumed, whole = (optimizers.Adafactor(each, lr=0.1) for each in (params, others, straight))
    train(first, params)
    theirs = torch.optim.Adafactor(drawn((3, 4), shape))
    theirs.load_state_dict(first.state_dict())
    resumed.load_state_dict(theirs.state_dict())
    for a, b in zip(params, others, strict=True):
        entry, original = resumed.state[b], first.state[a]
        assert shapes_of(entry) == shapes_of(original)
        assert all(torch.equal(entry[key], value) for key, value in original.items())
    with torch.no_grad():
        others[0].copy_(params[0])
    train(whole, straight)
    for optimizer, each in ((resumed, others), (whole, straight)):
        train(optimizer, each)
    assert torch.equal(others[0], straight[0])
    assert [float(entry["step"]) for entry in resumed.state.values()] == [6, 6]


@of_shapes
def test_the_state_that_torch_made_of_it_loads(shape, optimizers):
    params = drawn((3, 4), shape)
    saved = of_torch(drawn((3, 4), shape)).state_dict()
    optimizer = optimizers.Adafactor(params)
    optimizer.load_state_dict(saved)
    for number, parameter in enumerate(params):
        assert shapes_of(optimizer.state[parameter]) == shapes_of(saved["state"][number])
    train(optimizer, params)
    assert all(torch.isfinite(parameter).all() for parameter in params)
    before = [float(saved["state"][number]["step"]) for number in range(2)]
    assert [float(optimizer.state[parameter]["step"]) for parameter in params] == [n + 3 for n in before]


@of_shapes
def test_a_state_of_another_size_of_no_elements_is_refused(shape, optimizers):
    params, others = drawn(shape), drawn((*shape[:-1], shape[-1] + 2))
    one, other = optimizers.Adafactor(params), optimizers.Adafactor(others)
    train(one, params)
    train(other, others)
    with pytest.raises(ValueError, match=r"^state 0 \w+: shape .*, expected "):
        one.load_state_dict(other.state_dict())
    assert float(one.state[params[0]]["step"]) == 3


@of_shapes
def test_a_backward_that_steps_takes_it_along(shape, optimizers):
    params = drawn((3, 4), shape)
    model = torch.nn.ParameterList(params)
    optimizer = optimizers.Adafactor(model.parameters(), lr=0.1)
    with optimizer.fuse_backward(model):
        sum(parameter.square().sum() for parameter in params).backward()
    assert [parameter.grad for parameter in params] == [None, None]
    assert [float(optimizer.state[parameter]["step"]) for parameter in params] == [1, 1]
