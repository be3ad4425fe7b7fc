"""While a CUDA graph is captured the optimizer is refused before it waits, and before it makes a tensor."""

import contextlib

import pytest

import peers
from adafactor import _core
from adafactor.arrays.torch import allocator
from adafactor.report import fill, late_report

torch = peers.require("torch")

IS_CAPTURED = "a CUDA graph is being captured"


@pytest.fixture
def captured(monkeypatch):
    """A context in which the core finds that a graph is captured, as on a GPU."""

    def refuse(stepper, params):
        raise RuntimeError(f"step: {IS_CAPTURED}")

    @contextlib.contextmanager
    def capturing():
        with monkeypatch.context() as patch:
            patch.setattr(_core.Stepper, "refuse_capture", refuse)
            yield

    return capturing


@pytest.fixture
def trained(optimizers, problem, step):
    """Makes parameters, where their gradients come from, and an optimizer after so many steps."""

    def make(count, **knobs):
        drawn = problem()
        params = drawn.params()
        optimizer = optimizers.Adafactor(params, lr=0.1, **knobs)
        for _ in range(count):
            step(optimizer, params, drawn.gradients())
        return params, drawn, optimizer

    return make


def test_no_state_is_made_in_the_memory_of_a_graph(captured, trained, step):
    params, drawn, optimizer = trained(0)
    with captured(), pytest.raises(RuntimeError, match=IS_CAPTURED):
        step(optimizer, params, drawn.gradients())
    assert len(optimizer.state) == 0
    step(optimizer, params, drawn.gradients())
    assert {entry["step"].item() for entry in optimizer.state.values()} == {1.0}


@pytest.mark.parametrize("knob", [{}, {"weight_decay": 0.1}], ids=["as before", "planned anew"])
def test_the_call_before_is_not_waited_for(captured, trained, step, knob):
    params, drawn, optimizer = trained(1)
    asked = []
    summary = (True, False, 0.1, 0.0, 0.1, 1.0)

    def ask(report):
        asked.append(report)
        fill(report, summary, [[]] * 7)

    late = optimizer._report = optimizer._calls._late = late_report((), ask)
    before = [parameter.detach().clone() for parameter in params]
    for group in optimizer.param_groups:
        group.update(knob)
    gradients = drawn.gradients()
    with captured():
        for _ in range(2):
            with pytest.raises(RuntimeError, match=IS_CAPTURED):
                step(optimizer, params, gradients)
    assert asked == []
    assert optimizer.report is late
    assert all(map(torch.equal, params, before))
    step(optimizer, params, gradients)
    assert asked == [late]
    assert {entry["step"].item() for entry in optimizer.state.values()} == {2.0}


def test_torch_gives_no_memory_for_a_state_to_a_graph(monkeypatch):
    devices = []

    def entered(device):
        devices.append(device)
        return contextlib.nullcontext()

    monkeypatch.setattr(torch.cuda, "device", entered)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(RuntimeError, match=rf"^state: {IS_CAPTURED}, expected a stream that runs; make it"):
        allocator("cuda:1")(64)
    assert devices == ["cuda:1"]
