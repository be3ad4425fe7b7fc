"""Calls of which more is known later, as on a GPU: who asks for which of them, and when."""

import pytest

import peers
from adafactor import _core

torch = peers.require("torch")


class Late:
    """Has the core make each call at once, say its number, and what it found when it is asked for that.

    Attributes:
        asked: the numbers, in the order in which they were asked for.
    """

    def __init__(self, patch):
        self.asked, found, step = [], [], _core.Stepper.step

        def begin(stepper, *call):
            found.append(step(stepper, *call))
            return len(found)

        def ask(stepper, number):
            self.asked.append(number)
            return found[number - 1]

        patch.setattr(_core.Stepper, "step", begin)
        patch.setattr(_core.Stepper, "found", ask)


@pytest.fixture
def late(monkeypatch):
    return Late(monkeypatch)


def backward(model):
    model(torch.ones(2, 4)).square().sum().backward()


@pytest.fixture
def trained(optimizers):
    """A model of two parameters, its optimizer, and what steps each of them in the backward."""
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 3)
    optimizer = optimizers.Adafactor(model.parameters(), lr=0.1, on_nonfinite="skip")
    return model, optimizer, optimizer.fuse_backward(model)


def test_a_step_asks_for_the_one_before(late, trained):
    model, optimizer, fused = trained
    fused.remove()
    for count in range(3):
        backward(model)
        optimizer.step()
        assert late.asked == list(range(1, count + 1))
    assert optimizer.report.updated
    assert late.asked == [1, 2, 3]


def test_a_backward_waits_for_none_of_its_own_calls(late, trained):
    model, optimizer, _ = trained
    backward(model)
    assert late.asked == []
    backward(model)
    assert sorted(late.asked) == [1, 2]
    first = optimizer.report
    backward(model)
    assert sorted(late.asked) == [1, 2, 3, 4]
    assert first.updated
    assert sorted(late.asked) == [1, 2, 3, 4]
    assert optimizer.report.updated
    assert late.asked[-1] == 6


def test_a_step_of_all_asks_for_those_of_each_and_the_other_way_round(late, trained):
    model, optimizer, fused = trained
    backward(model)
    with fused.accumulating():
        backward(model)
    optimizer.step()
    assert sorted(late.asked) == [1, 2]
    backward(model)
    assert sorted(late.asked) == [1, 2, 3]
    assert {entry["step"].item() for entry in optimizer.state_dict()["state"].values()} == {3.0}


def test_a_parameter_that_goes_is_waited_for(late, trained, monkeypatch):
    model, optimizer, _ = trained
    settled, settle = [], _core.Stepper.settle

    def counted(stepper):
        settled.append(stepper)
        settle(stepper)

    monkeypatch.setattr(_core.Stepper, "settle", counted)
    backward(model)
    optimizer.param_groups[0]["params"] = [model.weight]
    model.bias.requires_grad_(False)
    settled.clear()
    optimizer.param_groups[0] = dict(optimizer.param_groups[0])  # the place is another one
    backward(model)
    assert len(settled) == 2
