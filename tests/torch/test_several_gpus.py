"""The calls on parameters of several GPUs, one for each: here of two halves of those of a CPU."""

import numpy as np
import pytest

import adafactor
import peers
from adafactor.report import PER_LEAF
from adafactor.torch import several

torch = peers.require("torch")


@pytest.fixture
def halves(monkeypatch):
    """Every other parameter lies on another device, as it were."""

    def places(parameters):
        return [list(range(0, len(parameters), 2)), list(range(1, len(parameters), 2))]

    def calls(leaves, keys, cuts, state, before):
        return several.SeveralCalls(leaves, keys, cuts, state, places(leaves.parameters))

    monkeypatch.setattr("adafactor.torch.optimizer.calls_on", calls)


def trained(optimizers, problem, step, count=3, **knobs):
    drawn = problem()
    params = drawn.params()
    optimizer = optimizers.Adafactor(params, lr=0.1, **knobs)
    for _ in range(count):
        step(optimizer, params, drawn.gradients())
    return params, optimizer


def test_the_bits_are_those_of_one_call(optimizers, problem, step, request):
    expected, whole = trained(optimizers, problem, step, clipnorm=1.0)
    request.getfixturevalue("halves")
    found, parts = trained(optimizers, problem, step, clipnorm=1.0)
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)
    for name in PER_LEAF:
        np.testing.assert_array_equal(getattr(parts.report, name), getattr(whole.report, name))
    assert parts.report.global_grad_norm == pytest.approx(whole.report.global_grad_norm, rel=1e-12)
    assert (parts.report.updated, parts.report.skipped, parts.report.paths) == (
        True,
        False,
        whole.report.paths,
    )
    assert [entry["step"].item() for entry in parts.state.values()] == [3.0] * len(found)


def test_a_part_without_a_gradient_is_left_alone(optimizers, problem, step, halves):
    drawn = problem()
    params = drawn.params()
    optimizer = optimizers.Adafactor(params, lr=0.1)
    gradients = [gradient if index % 2 else None for index, gradient in enumerate(drawn.gradients())]
    before = [parameter.detach().clone() for parameter in params]
    step(optimizer, params, gradients)
    changed = [not torch.equal(a, b) for a, b in zip(params, before, strict=True)]
    assert changed == [index % 2 == 1 for index in range(len(params))]
    assert np.isnan(optimizer.report.grad_norm[::2]).all()
    assert np.isfinite(optimizer.report.grad_norm[1::2]).all()


def test_what_needs_all_parameters_at_once_is_refused(optimizers, problem, step, halves):
    words = "needs all parameters on one device, found some on several"
    with pytest.raises(ValueError, match=f"global_clipnorm: {words}"):
        trained(optimizers, problem, step, global_clipnorm=1.0)
    with pytest.raises(ValueError, match=f"count_updates='state': {words}"):
        trained(optimizers, problem, step, config=adafactor.Config(count_updates="state"))


def test_a_part_that_is_planned_anew_does_not_have_the_others_step_twice(optimizers, problem, step, halves):
    drawn, twin = problem(), problem()
    params, others = drawn.params(), twin.params()
    split, again = (optimizers.Adafactor(each, lr=0.1) for each in (params, others))
    for call in range(3):
        for optimizer, mine, source in ((split, params, drawn), (again, others, twin)):
            if call == 1 and optimizer is split:  # the same numbers in a tensor of another layout
                entry = optimizer.state[mine[1]]
                name = next(key for key in entry if key != "step")
                entry[name] = entry[name].double()
            step(optimizer, mine, source.gradients())
    assert [entry["step"].item() for entry in split.state.values()] == [3.0] * len(params)
    for a, b in zip(params, others, strict=True):
        assert torch.equal(a, b)


def test_knobs_that_change_at_each_step_leave_the_parts_as_they_are(optimizers, problem, step, request):
    def on_schedule(optimizer, params, gradients):
        for group in optimizer.param_groups:
            group["weight_decay"] = 0.1 / (1 + len(made))
        step(optimizer, params, gradients)
        made.append(getattr(optimizer._calls, "_parts", None))

    made = []
    expected, _ = trained(optimizers, problem, on_schedule)
    made = []
    request.getfixturevalue("halves")
    found, optimizer = trained(optimizers, problem, on_schedule)
    assert all(parts is made[0] for parts in made)
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)
    for group in optimizer.param_groups:
        group["global_clipnorm"] = 1.0
    with pytest.raises(ValueError, match="global_clipnorm: needs all parameters on one device"):
        step(optimizer, found, problem().gradients())


def test_a_part_that_is_refused_says_so_and_those_before_it_are_whole(optimizers, problem, step, halves):
    drawn = problem()
    params = drawn.params()
    optimizer = optimizers.Adafactor(params, lr=0.1)
    gradients = drawn.gradients()
    gradients[1] = torch.full_like(gradients[1], torch.nan)
    with pytest.raises(FloatingPointError, match=r"grads 1: .* NaN"):
        step(optimizer, params, gradients)
    steps = [optimizer.state[parameter]["step"].item() for parameter in params]
    assert steps == [1.0 - index % 2 for index in range(len(params))]


def test_parameters_go_together_by_their_device():
    class Parameter:
        def __init__(self, device):
            self.device = torch.device(device)

    found = several._places_by_device([Parameter(f"cuda:{index}") for index in (1, 0, 1, 2, 0)])
    assert found == [[0, 2], [1, 4], [3]]
