"""Hooks of state dicts: before and after one is made, and before one is loaded, as torch has them."""

import copy

import pytest

import peers

torch = peers.require("torch")


@pytest.fixture(params=["ours", "torch"])
def make(request, optimizers):
    """Makes an optimizer after a step, ours or that of torch, which has to do the same."""
    cls = {"ours": optimizers.Adafactor, "torch": torch.optim.Adafactor}[request.param]

    def make(lr=0.1, steps=1, gradient=1.0):
        params = [torch.nn.Parameter(torch.ones(3, 4)), torch.nn.Parameter(torch.ones(5))]
        optimizer = cls([{"params": params[:1]}, {"params": params[1:], "lr": 0.5}], lr=lr)
        for _ in range(steps):
            for parameter in params:
                parameter.grad = torch.full_like(parameter, gradient)
            optimizer.step()
        return optimizer

    return make


def rates(optimizer):
    return [group["lr"] for group in optimizer.param_groups]


def steps(optimizer):
    return [float(entry["step"]) for entry in optimizer.state.values()]


def test_a_hook_before_a_dict_is_made_sees_the_optimizer_and_what_it_changes_is_saved(make):
    optimizer, seen = make(), []

    def note(given):
        seen.append((given is optimizer, rates(given), steps(given)))
        given.param_groups[0]["lr"] = 0.25

    handle = optimizer.register_state_dict_pre_hook(note)
    assert optimizer.state_dict()["param_groups"][0]["lr"] == 0.25
    assert seen == [(True, [0.1, 0.5], [1, 1])]
    handle.remove()
    optimizer.state_dict()
    assert len(seen) == 1


def test_a_hook_after_a_dict_is_made_may_return_another(make):
    optimizer = make()
    plain, seen = optimizer.state_dict(), []

    def other(given, saved):
        seen.append((given is optimizer, saved.keys() == plain.keys(), len(saved["state"])))
        return {**saved, "epoch": 7}

    optimizer.register_state_dict_post_hook(other)
    found = optimizer.state_dict()
    assert seen == [(True, True, 2)]
    assert found.keys() == {*plain, "epoch"}
    assert found["epoch"] == 7
    assert "epoch" not in plain


def test_a_hook_that_returns_nothing_may_write_into_the_dict_and_the_next_sees_it(make):
    optimizer, seen = make(), []
    optimizer.register_state_dict_post_hook(lambda _, saved: seen.append(sorted(saved)))
    optimizer.register_state_dict_post_hook(lambda _, saved: {"only": saved["epoch"]})
    optimizer.register_state_dict_post_hook(lambda _, saved: saved.update(epoch=7), prepend=True)
    assert optimizer.state_dict() == {"only": 7}
    assert seen == [["epoch", "param_groups", "state"]]


def test_a_dict_that_hooks_have_written_is_loaded_by_one_whose_hook_reads_it(make):
    saver, loader, epochs = make(steps=3), make(lr=0.2), []
    saver.register_state_dict_post_hook(lambda _, saved: {"inner": saved, "epoch": 7})

    def unwrap(_, given):
        epochs.append(given["epoch"])
        return given["inner"]

    loader.register_load_state_dict_pre_hook(unwrap)
    saved = saver.state_dict()
    assert saved.keys() == {"inner", "epoch"}
    loader.load_state_dict(saved)
    assert epochs == [7]
    assert rates(loader) == [0.1, 0.5]
    assert steps(loader) == [3, 3]
    for entry, original in zip(loader.state.values(), saver.state.values(), strict=True):
        assert all(torch.equal(entry[key], value) for key, value in original.items())


def test_a_hook_before_loading_may_return_another_dict(make):
    optimizer = make()
    given, other = make(lr=0.2, steps=2).state_dict(), make(lr=0.4, steps=3, gradient=2.0).state_dict()
    kept, seen = copy.deepcopy(given), []

    def exchange(of, loaded):
        seen.append((of is optimizer, loaded is given, loaded["param_groups"][0]["lr"]))
        return other

    optimizer.register_load_state_dict_pre_hook(exchange)
    optimizer.load_state_dict(given)
    assert seen == [(True, False, 0.2)]
    assert rates(optimizer) == [0.4, 0.5]
    assert steps(optimizer) == [3, 3]
    for number, entry in enumerate(optimizer.state.values()):
        assert all(torch.equal(entry[key], value) for key, value in other["state"][number].items())
        assert all(torch.equal(given["state"][number][key], v) for key, v in kept["state"][number].items())


def test_hooks_before_loading_run_one_after_the_other_on_what_the_last_has_left(make):
    optimizer, given, order = make(), make(lr=0.2, steps=2).state_dict(), []

    def scaled(name, factor):
        def hook(_, loaded):
            order.append(name)
            first, *others = loaded["param_groups"]
            return {**loaded, "param_groups": [{**first, "lr": factor * first["lr"] + 1}, *others]}

        return hook

    def emptied(_, loaded):
        order.append("emptied")
        loaded["state"] = {}

    optimizer.register_load_state_dict_pre_hook(scaled("second", 8.0))
    optimizer.register_load_state_dict_pre_hook(scaled("first", 4.0), prepend=True)
    optimizer.register_load_state_dict_pre_hook(emptied)
    optimizer.load_state_dict(given)
    assert order == ["first", "second", "emptied"]
    assert rates(optimizer) == [8.0 * (4.0 * 0.2 + 1) + 1, 0.5]
    assert not optimizer.state
    assert len(given["state"]) == 2
    assert given["param_groups"][0]["lr"] == 0.2


def test_a_step_after_hooks_goes_on_from_what_they_loaded(make):
    loaded, straight = make(), make(lr=0.4, steps=3)
    saved = copy.deepcopy(straight.state_dict())  # else torch would have both write into the same tensors
    loaded.register_load_state_dict_pre_hook(lambda *_: saved)
    loaded.load_state_dict(make(lr=0.2, steps=2).state_dict())
    for optimizer in (loaded, straight):
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.data.fill_(0.5)
                parameter.grad = torch.full_like(parameter, 3.0)
        optimizer.step()
    for group, other in zip(loaded.param_groups, straight.param_groups, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(group["params"], other["params"], strict=True))


def test_a_dict_that_a_hook_returns_is_refused_whole_where_its_state_is_none(optimizers):
    """torch would load it."""
    parameter = torch.nn.Parameter(torch.ones(3, 4))
    optimizer = optimizers.Adafactor([parameter], lr=0.1)
    parameter.grad = torch.ones(3, 4)
    optimizer.step()
    kept = copy.deepcopy(optimizer.state_dict())

    def spoil(_, given):
        bad = copy.deepcopy(given)
        bad["state"][0]["row_var"][0] = -1.0
        bad["param_groups"][0]["lr"] = 0.7
        return bad

    handle = optimizer.register_load_state_dict_pre_hook(spoil)
    with pytest.raises(ValueError, match=r"^state 0 row_var: a negative number"):
        optimizer.load_state_dict(optimizer.state_dict())
    found = optimizer.state_dict()
    assert found["param_groups"] == kept["param_groups"]
    assert all(torch.equal(found["state"][0][key], value) for key, value in kept["state"][0].items())
    assert list(optimizer._optimizer_load_state_dict_pre_hooks) == [handle.id]
    assert not optimizer._optimizer_load_state_dict_post_hooks
