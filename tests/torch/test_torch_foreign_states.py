"""State dicts of the Adafactor of other libraries: torch's own is loaded, the others are refused by name."""

import copy

import pytest

import peers

torch = peers.require("torch")


def drawn(*shapes, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in shapes]


def train(optimizer, params, steps=3):
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for parameter in params:
            parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
        optimizer.step()


def assert_same_dict(found, expected):
    """That two state dicts have the same tensors to the bit, in the same dtypes, and the same groups."""
    assert found.keys() == expected.keys()
    assert found["param_groups"] == expected["param_groups"]
    assert found["state"].keys() == expected["state"].keys()
    for number, entry in expected["state"].items():
        assert found["state"][number].keys() == entry.keys()
        for key, value in entry.items():
            if isinstance(value, torch.Tensor):
                assert found["state"][number][key].dtype == value.dtype
                assert torch.equal(found["state"][number][key], value)
            else:
                assert found["state"][number][key] == value


# torch's own, whose moments have the dtype of the parameter.

SHAPES = ((7, 3), (5,), (), (3, 4, 5), (20, 33))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64], ids=str)
def test_moments_of_torch_are_loaded_to_the_bit_in_the_dtype_that_they_have_here(dtype, optimizers):
    theirs, params = drawn(*SHAPES, dtype=dtype), drawn(*SHAPES, dtype=dtype)
    other = torch.optim.Adafactor(theirs, lr=0.1)
    train(other, theirs)
    saved = other.state_dict()
    kept = copy.deepcopy(saved)
    optimizer = optimizers.Adafactor(params)
    optimizer.load_state_dict(saved)
    for number, parameter in enumerate(params):
        entry, original = optimizer.state[parameter], saved["state"][number]
        assert entry.keys() == original.keys()
        for key, value in original.items():
            wide = torch.float64 if dtype == torch.float64 and key != "step" else torch.float32
            assert value.dtype == (torch.float32 if key == "step" else dtype)
            assert entry[key].dtype == wide
            assert value.any()
            assert torch.equal(entry[key], value.to(wide))
            assert entry[key].data_ptr() != value.data_ptr()
    assert_same_dict(saved, kept)
    train(optimizer, params)
    assert [float(entry["step"]) for entry in optimizer.state.values()] == [6] * len(params)
    assert_same_dict(saved, kept)
    train(other, theirs)  # which writes into the tensors of its dict, and into none of ours
    assert [float(entry["step"]) for entry in optimizer.state.values()] == [6] * len(params)


# Those of other libraries, live.


def of_transformers(params):
    return peers.require("transformers.optimization").Adafactor(params)


def with_momentum_of_transformers(params):
    return peers.require("transformers.optimization").Adafactor(params, beta1=0.9)


def of_timm(params):
    return peers.require_timm("adafactor").Adafactor(params, min_dim_size_to_factor=1)


def of_timm_big_vision(params):
    bv = peers.require_timm("adafactor_bv").AdafactorBigVision
    return bv(params, lr=0.01, min_dim_size_to_factor=1)


def without_momentum_of_timm_big_vision(params):
    bv = peers.require_timm("adafactor_bv").AdafactorBigVision
    return bv(params, lr=0.01, min_dim_size_to_factor=1, momentum=None)


def of_pytorch_optimizer(params):
    return peers.require("pytorch_optimizer.optimizer.adafactor").AdaFactor(params)


def without_momentum_of_pytorch_optimizer(params):
    return peers.require("pytorch_optimizer.optimizer.adafactor").AdaFactor(params, betas=(None, 0.999))


LIVE = [
    of_transformers,
    with_momentum_of_transformers,
    of_timm,
    of_timm_big_vision,
    without_momentum_of_timm_big_vision,
    of_pytorch_optimizer,
    without_momentum_of_pytorch_optimizer,
]
FIRST = {"a bias first": ((18,), (20, 17)), "a matrix first": ((20, 17), (18,)), "a bias alone": ((18,),)}


@pytest.mark.parametrize("shapes", FIRST.values(), ids=FIRST)
@pytest.mark.parametrize("live", LIVE, ids=lambda live: live.__name__)
@pytest.mark.parametrize("fresh", [True, False], ids=["before the first step", "later"])
def test_the_state_of_another_librarys_adafactor_is_refused(fresh, live, shapes, optimizers):
    theirs, params = drawn(*shapes), drawn(*shapes)
    other, optimizer = live(theirs), optimizers.Adafactor(params, lr=0.1, beta_1=0.9)
    train(other, theirs)
    if not fresh:
        train(optimizer, params)
    saved = other.state_dict()
    kept, own = copy.deepcopy(saved), copy.deepcopy(optimizer.state_dict())
    before = [parameter.detach().clone() for parameter in params]
    with pytest.raises(ValueError, match=r"^state \d: exp_avg_sq\w*, which is the state of"):
        optimizer.load_state_dict(saved)
    assert_same_dict(optimizer.state_dict(), own)
    assert_same_dict(saved, kept)
    assert all(torch.equal(a, b) for a, b in zip(params, before, strict=True))
    assert not optimizer._optimizer_load_state_dict_pre_hooks
    assert not optimizer._optimizer_load_state_dict_post_hooks
    train(optimizer, params)
    assert [float(entry["step"]) for entry in optimizer.state.values()] == [3 if fresh else 6] * len(params)
