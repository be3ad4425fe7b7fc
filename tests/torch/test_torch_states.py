"""States of `adafactor.torch.Adafactor`: dicts go to torch's own Adafactor and come from it, unchanged."""

import copy
import gc
import io
import weakref

import pytest

import peers
from adafactor import presets

torch = peers.require("torch")


def train(step, optimizer, params, drawn, count):
    for gradients in drawn[:count]:
        step(optimizer, params, gradients)
    del drawn[:count]


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("direction", ["to torch", "from torch"])
def test_a_state_dict_moves_unchanged(direction, groups, optimizers, problem, step):
    drawn = problem()
    gradients = [drawn.gradients() for _ in range(20)]
    first, second, straight = drawn.params(), drawn.params(), drawn.params()

    def make(cls, params):
        halves = [params] if groups == 1 else [params[:4], params[4:]]
        return cls([{"params": half, "lr": 0.1 / (1 + i)} for i, half in enumerate(halves)], weight_decay=0.1)

    classes = [optimizers.Adafactor, torch.optim.Adafactor]
    before, after = classes if direction == "to torch" else classes[::-1]
    one = make(before, first)
    train(step, one, first, gradients[:10], 10)
    other = make(after, second)
    with torch.no_grad():
        for to, value in zip(second, first, strict=True):
            to.copy_(value)
    other.load_state_dict(one.state_dict())
    train(step, other, second, gradients[10:], 10)
    whole = make(torch.optim.Adafactor, straight)
    train(step, whole, straight, gradients[:], 20)
    for a, b in zip(second, straight, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
    for a, b in zip(other.state.values(), whole.state.values(), strict=True):
        assert {key: value.dtype for key, value in a.items()} == {
            key: value.dtype for key, value in b.items()
        }


def test_moments_of_bfloat16_come_back_as_they_were(optimizers, problem, step):
    drawn = problem(torch.bfloat16)
    params, others = drawn.params(), drawn.params()
    optimizer = optimizers.Adafactor(params, lr=0.1)
    step(optimizer, params, drawn.gradients())
    saved = optimizer.state_dict()
    kept = copy.deepcopy(saved)
    loaded = optimizers.Adafactor(others)
    loaded.load_state_dict(saved)
    for entry, original in zip(loaded.state.values(), optimizer.state.values(), strict=True):
        for key, value in original.items():
            assert entry[key].dtype == torch.float32
            assert torch.equal(entry[key], value)
            assert entry[key].data_ptr() != value.data_ptr()
    step(loaded, others, drawn.gradients())
    for number, entry in kept["state"].items():
        assert all(torch.equal(saved["state"][number][key], value) for key, value in entry.items())


def test_a_dict_survives_torch_save_with_weights_only(optimizers, problem, step):
    drawn = problem()
    params = drawn.params()
    optimizer = optimizers.Adafactor(
        [(f"p{i}", p) for i, p in enumerate(params)], lr=torch.tensor(0.1), clipnorm=1.0, beta_1=0.9
    )
    step(optimizer, params, drawn.gradients())
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    loaded = optimizers.Adafactor([(f"p{i}", p) for i, p in enumerate(drawn.params())], beta_1=0.9)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    assert loaded.param_groups[0]["clipnorm"] == 1.0
    assert float(loaded.param_groups[0]["lr"]) == pytest.approx(0.1)
    assert [float(entry["step"]) for entry in loaded.state.values()] == [1] * len(params)


def test_a_count_may_be_a_number(optimizers, problem, step):
    drawn = problem()
    params = drawn.params()
    optimizer = optimizers.Adafactor(params)
    step(optimizer, params, drawn.gradients())
    saved = optimizer.state_dict()
    for entry in saved["state"].values():
        entry["step"] = 5
    optimizer.load_state_dict(saved)
    step(optimizer, params, drawn.gradients())
    assert {float(entry["step"]) for entry in optimizer.state.values()} == {6}


def test_hooks_see_the_whole_dict_and_the_whole_state(optimizers, problem, step):
    drawn = problem()
    params = drawn.params()
    optimizer = optimizers.Adafactor(params)
    step(optimizer, params, drawn.gradients())
    saved = optimizer.state_dict()
    seen = []
    fresh = optimizers.Adafactor(drawn.params())
    fresh.register_load_state_dict_pre_hook(lambda _, given: seen.append(len(given["state"])))
    fresh.register_load_state_dict_post_hook(lambda loaded: seen.append(len(loaded.state)))
    fresh.load_state_dict(saved)
    assert seen == [len(params), len(params)]
    assert len(fresh._optimizer_load_state_dict_pre_hooks) == 1
    assert len(fresh._optimizer_load_state_dict_post_hooks) == 1


def overflow(entry):
    entry["row_var"] = torch.full((7, 1), 1e300, dtype=torch.float64)


def be_complex(entry):
    entry["row_var"] = torch.zeros(7, 1, dtype=torch.complex64)


def be_of_adam(entry):
    entry.clear()
    entry.update(step=torch.tensor(1.0), exp_avg=torch.zeros(7, 3), exp_avg_sq=torch.zeros(7, 3))


def spoil_row(entry):
    entry["row_var"][0] = float("nan")


def spoil_col(entry):
    entry["col_var"][..., 0] = -1.0


def lose(entry):
    del entry["col_var"]


def add(entry):
    entry["exp_avg"] = torch.zeros(7, 3)


def grow(entry):
    entry["row_var"] = torch.zeros(8, 1)


def be_of_transformers(entry):
    entry.clear()
    entry.update(step=1, exp_avg_sq_row=torch.zeros(7), exp_avg_sq_col=torch.zeros(3), RMS=0.1)


def count_badly(entry):
    entry["step"] = torch.tensor(1.5)


def count_too_far(entry):
    entry["step"] = 2**24


def be_no_tensor(entry):
    entry["row_var"] = [0.0] * 7


BAD = {
    overflow: "state 2 row_var: NaN or Inf, expected finite numbers",
    be_complex: "state 2 row_var: torch.complex64, torch.strided on cpu, expected a dense tensor of floating",
    be_of_adam: "state 2: exp_avg_sq, which is the state of another optimizer, such as Adam",
    spoil_row: "state 2 row_var: NaN or Inf, expected finite numbers",
    spoil_col: "state 2 col_var: a negative number, expected means of squares",
    lose: "state 2: no col_var, expected col_var, row_var, step",
    add: "state 2: exp_avg besides, expected col_var, row_var, step",
    grow: r"state 2 row_var: shape \(8, 1\), expected \(7, 1\)",
    be_of_transformers: "state 2: exp_avg_sq_row, which is the state of transformers, timm",
    count_badly: "state 2 step: 1.5, expected a whole number",
    count_too_far: "state 2 step: 16777216, expected a whole number",
    be_no_tensor: "state 2 row_var: list, expected a tensor",
}


@pytest.mark.parametrize("spoil", BAD, ids=lambda spoil: spoil.__name__)
def test_a_bad_state_is_refused_and_nothing_changes(spoil, optimizers, problem, step):
    drawn = problem()
    params = drawn.params()
    optimizer = optimizers.Adafactor(params, lr=0.1)
    step(optimizer, params, drawn.gradients())
    saved = copy.deepcopy(optimizer.state_dict())
    saved["param_groups"][0]["lr"] = 0.7
    spoil(saved["state"][2])
    kept = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ValueError, match=BAD[spoil]):
        optimizer.load_state_dict(saved)
    for number, entry in optimizer.state_dict()["state"].items():
        assert all(torch.equal(value, kept["state"][number][key]) for key, value in entry.items())
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert len(optimizer._optimizer_load_state_dict_pre_hooks) == 0


@pytest.mark.parametrize("name", ["AdamW", "RMSprop", "Adagrad", "SGD"])
def test_the_dict_of_another_optimizer_is_refused(name, optimizers, problem, step):
    drawn = problem()
    params = drawn.params()
    other = getattr(torch.optim, name)(params, **({"momentum": 0.9} if name == "SGD" else {}))
    step(other, params, drawn.gradients())
    with pytest.raises(ValueError, match="which is the state of another optimizer, such as"):
        optimizers.Adafactor(params).load_state_dict(other.state_dict())


def test_counts_are_made_on_the_cpu_whatever_the_default_device_is(optimizers, problem, step):
    drawn = problem()
    params = drawn.params()
    optimizer = optimizers.Adafactor(params)
    gradients = drawn.gradients()
    with torch.device("meta"):
        optimizer.load_state_dict(optimizer.state_dict())
        step(optimizer, params, gradients)
        optimizer.load_state_dict(optimizer.state_dict())
    assert [float(entry["step"]) for entry in optimizer.state.values()] == [1] * len(params)


def test_groups_of_other_sizes_are_torchs_to_refuse(optimizers, problem):
    drawn = problem()
    saved = optimizers.Adafactor(drawn.params()).state_dict()
    with pytest.raises(ValueError, match="doesn't match the size"):
        optimizers.Adafactor(drawn.params()[:3]).load_state_dict(saved)


def test_what_is_put_into_a_state_counts_at_the_next_step(optimizers, problem, step):
    drawn = problem()
    params, others = drawn.params(), drawn.params()
    one, other = optimizers.Adafactor(params, lr=0.1), optimizers.Adafactor(others, lr=0.1)
    first, second = drawn.gradients(), drawn.gradients()
    step(one, params, first)
    step(other, others, first)
    # A tensor of another dtype, one with other strides, a number for a count, and a whole new dictionary.
    one.state[params[2]]["row_var"] = one.state[params[2]]["row_var"].double()
    one.state[params[4]]["col_var"] = one.state[params[4]]["col_var"].repeat(1, 2)[:, ::2].contiguous()
    one.state[params[3]]["row_var"] = one.state[params[3]]["row_var"].transpose(0, 1).clone().transpose(0, 1)
    one.state[params[5]]["step"] = 1
    one.state[params[6]] = dict(one.state[params[6]])
    with torch.no_grad():
        one.state[params[4]]["col_var"].copy_(other.state[others[4]]["col_var"])
    step(one, params, second)
    step(other, others, second)
    assert all(torch.equal(a, b) for a, b in zip(params, others, strict=True))
    assert one.state[params[5]]["step"].dtype == torch.float32


def test_a_state_that_was_cleared_begins_anew(optimizers, problem, step):
    drawn = problem()
    params = drawn.params()
    optimizer = optimizers.Adafactor(params)
    step(optimizer, params, drawn.gradients())
    optimizer.state.clear()
    step(optimizer, params, drawn.gradients())
    assert {float(entry["step"]) for entry in optimizer.state.values()} == {1}


def test_a_group_may_be_listed_twice_in_a_dict(optimizers, problem, step):
    drawn = problem()
    params = drawn.params()
    optimizer = optimizers.Adafactor(params)
    step(optimizer, params, drawn.gradients())
    optimizer.param_groups.append(optimizer.param_groups[0])
    saved = optimizer.state_dict()
    assert len(saved["param_groups"]) == 2
    assert len(saved["state"]) == len(params)


def test_who_counts_with_all_is_born_with_their_count(optimizers, problem, step):
    drawn = problem()
    params = drawn.params()
    optimizer = optimizers.Adafactor(params, config=presets.keras())
    gradients = drawn.gradients()
    gradients[0] = None
    step(optimizer, params, gradients)
    assert {float(entry["step"]) for entry in optimizer.state.values()} == {1}
    late = torch.nn.Parameter(torch.ones(3, 3))
    optimizer.add_param_group({"params": late})
    late.grad = torch.ones(3, 3)
    optimizer.step()
    assert {float(entry["step"]) for entry in optimizer.state.values()} == {2}


def test_a_tensor_before_one_that_is_refused_is_not_taken_for_the_old_one(optimizers, problem, step):
    drawn = problem()
    params, others = drawn.params(), drawn.params()
    one, other = optimizers.Adafactor(params, lr=0.1), optimizers.Adafactor(others, lr=0.1)
    gradients = [drawn.gradients() for _ in range(3)]
    step(one, params, gradients[0])
    step(other, others, gradients[0])
    old = one.state[params[2]]["row_var"]
    one.state[params[2]]["row_var"] = old.clone()
    kept = one.state[params[4]]["row_var"]
    one.state[params[4]]["row_var"] = torch.zeros(3, 1)
    with pytest.raises(ValueError, match=r"state 4 row_var: shape \(3, 1\), expected \(20, 1\)"):
        step(one, params, gradients[1])
    one.state[params[4]]["row_var"] = kept
    old.fill_(float("nan"))
    for drawn_now in gradients[1:]:
        step(one, params, drawn_now)
        step(other, others, drawn_now)
    assert all(torch.equal(a, b) for a, b in zip(params, others, strict=True))


def stepped(optimizers, *shapes):
    """An optimizer after one update of parameters of ones, all of whose gradients are ones."""
    params = [torch.nn.Parameter(torch.ones(shape)) for shape in shapes]
    for parameter in params:
        parameter.grad = torch.ones_like(parameter)
    optimizer = optimizers.Adafactor(params, lr=0.1)
    optimizer.step()
    return optimizer


def test_a_moment_is_read_where_its_tensor_points_now(optimizers):
    one, straight = (stepped(optimizers, (3, 4), (5,)) for _ in range(2))
    left = []
    for entry in one.state.values():
        for tensor in entry.values():
            left.append((tensor.detach(), tensor.clone()))
            tensor.data = tensor.clone()
    one.step()
    straight.step()
    for a, b in zip(one.state.values(), straight.state.values(), strict=True):
        for key, tensor in a.items():
            assert torch.equal(tensor, b[key])
    assert all(torch.equal(now, then) for now, then in left)


def test_what_is_taken_out_of_a_state_is_freed(optimizers):
    optimizer = stepped(optimizers, (3, 4), (2000,))
    small, large = optimizer.state.values()
    gone = [weakref.ref(entry.pop(key)) for entry, key in ((small, "row_var"), (large, "variance"))]
    assert gone[1]() is None
    small["row_var"], large["variance"] = torch.ones(3, 1), torch.ones(2000)
    optimizer.step()
    assert gone[0]() is None
    gone = [weakref.ref(tensor) for entry in (small, large) for tensor in entry.values()]
    del optimizer, small, large
    gc.collect()
    assert not any(each() is not None for each in gone)


def test_a_parameter_has_no_owner_besides(optimizers):
    """As `Module.to` and `load_state_dict` ask for, where torch is told to exchange tensors."""
    optimizer = stepped(optimizers, (3, 4))
    (parameter,) = optimizer.state
    parameter.grad = None
    torch.utils.swap_tensors(parameter, torch.nn.Parameter(torch.zeros(3, 4)))
    assert not parameter.any()
