"""Whoever wants to see a step sees it, from whenever on; where nobody does, torch's wrapper is left out."""

import contextlib

import pytest

from peers import require

torch = require("torch")
theirs = require("torch.optim.optimizer")

MARK = "Optimizer.step#Adafactor.step"


@pytest.fixture
def optimizer(optimizers):
    weight = torch.nn.Parameter(torch.ones(2, 3))
    weight.grad = torch.ones(2, 3)
    return optimizers.Adafactor([weight], lr=0.1)


@contextlib.contextmanager
def hook_of(register):
    seen = []
    handle = register(lambda *_: seen.append("step"))
    try:
        yield seen
    finally:
        handle.remove()


@contextlib.contextmanager
def profiler(seen_by, **how):
    seen = []
    with seen_by(**how) as found:
        yield seen
    events = getattr(found, "profiler", found).function_events
    seen += [event.name for event in events if event.name == MARK]


WATCHERS = {
    "a hook before": lambda optimizer: hook_of(optimizer.register_step_pre_hook),
    "a hook after": lambda optimizer: hook_of(optimizer.register_step_post_hook),
    "a hook before all": lambda optimizer: hook_of(theirs.register_optimizer_step_pre_hook),
    "a hook after all": lambda optimizer: hook_of(theirs.register_optimizer_step_post_hook),
    "a profiler": lambda optimizer: profiler(
        torch.profiler.profile, activities=[torch.profiler.ProfilerActivity.CPU]
    ),
    "a profiler of all threads": lambda optimizer: profiler(
        torch.profiler.profile,
        activities=[torch.profiler.ProfilerActivity.CPU],
        experimental_config=torch._C._profiler._ExperimentalConfig(profile_all_threads=True),
    ),
    "autograd's profiler": lambda optimizer: profiler(torch.autograd.profiler.profile),
}


@pytest.mark.parametrize("watcher", WATCHERS)
def test_who_watches_sees_each_step_while_it_does(watcher, optimizer):
    optimizer.step()
    with WATCHERS[watcher](optimizer) as seen:
        optimizer.step()
        optimizer.step()
    assert len(seen) == 2
    optimizer.step()
    assert len(seen) == 2
    (state,) = optimizer.state.values()
    assert state["step"] == 4


def test_torchs_wrapper_is_left_out_where_nobody_watches(optimizer, monkeypatch):
    wrapped = []
    monkeypatch.setattr(optimizer, "_optimizer_step_code", lambda: wrapped.append("step"))
    optimizer.step()
    assert not wrapped
    with hook_of(optimizer.register_step_pre_hook):
        optimizer.step()
    assert wrapped == ["step"]


def test_a_hook_may_give_the_step_other_arguments(optimizer):
    optimizer.register_step_pre_hook(lambda optimizer, args, kwargs: ((optimizer, lambda: 7.0), {}))
    assert optimizer.step(lambda: 1.0) == 7.0
    optimizer.register_step_pre_hook(lambda *_: "neither")
    with pytest.raises(RuntimeError, match="must return None or a tuple"):
        optimizer.step()


def test_a_hook_that_a_closure_adds_sees_its_step(optimizer):
    seen = []
    optimizer.step(lambda: optimizer.register_step_post_hook(lambda *_: seen.append("step")))
    assert seen == ["step"]


def test_a_step_of_a_subclass_is_watched(optimizers):
    class Noisy(optimizers.Adafactor):
        def step(self, closure=None):
            return super().step(closure)

    weight = torch.nn.Parameter(torch.ones(2, 3))
    weight.grad = torch.ones(2, 3)
    optimizer = Noisy([weight])
    optimizer.step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
        optimizer.step()
    assert "Optimizer.step#Noisy.step" in {event.name for event in found.events()}
