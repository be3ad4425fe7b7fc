"""torch.compile: models that it compiled, and functions in which it comes upon a step.

Every script has a process of its own, since what torch has compiled once it uses again.
"""

import pytest

from cpp_build import required
from peers import require
from scripts import found_by

# By how much they change. The last one is the default, and of the first one nothing may differ at all.
FULL = pytest.mark.full
OF_MODELS = [pytest.param("eager", marks=FULL), pytest.param("aot_eager", marks=FULL), "inductor"]
OF_STEPS = [pytest.param("eager", marks=FULL), pytest.param("aot_eager", marks=FULL), "inductor"]

# `train(compile_model, compile_step)` makes 12 steps and is (parameters and state as text, gradients, what
# the reports say, how often autograd was told of a write). Each may be a function that compiles, or `plain`.
PREAMBLE = """
import json, sys, warnings
warnings.simplefilter("ignore")  # torch says of everything that it does not trace that it does not
import numpy as np
import torch
import adafactor

def plain(function):
    return function

def compiled(function):
    return torch.compile(function, backend=BACKEND)

def bits(params, state):
    arrays = [*(p.detach().numpy() for p in params.values()), *state.arrays().values()]
    return [array.tobytes().hex() for array in arrays]

def train(compile_model, compile_step, **knobs):
    torch.manual_seed(7)
    model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.Tanh(), torch.nn.Linear(32, 4))
    params = dict(model.named_parameters())
    state = adafactor.init(params, **knobs)
    call, grads, reports = compile_model(model), [], []

    def step(inputs):
        for p in params.values():
            p.grad = None
        call(inputs).square().mean().backward()
        given = {name: p.grad for name, p in params.items()}
        return adafactor.step(params, given, state), given

    step = compile_step(step)
    for _ in range(12):
        report, given = step(torch.randn(8, 16))
        grads.append({name: g.numpy().copy() for name, g in given.items()})
        reports.append(repr(report))
    return bits(params, state), grads, reports, [p._version for p in params.values()]

def replay(grads, **knobs):
    "The same steps on arrays of NumPy with gradients that are given."
    torch.manual_seed(7)
    model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.Tanh(), torch.nn.Linear(32, 4))
    params = {name: p.detach().numpy() for name, p in model.named_parameters()}
    state = adafactor.init(params, **knobs)
    for each in grads:
        adafactor.step(params, each, state)
    return bits({name: torch.from_numpy(p) for name, p in params.items()}, state)

def compare(eager, loop, knobs):
    "Steps are those of the gradients, autograd was told of as many, and all is as without compiling."
    same = [loop[0] == eager[0], loop[2] == eager[2]] if BACKEND != "inductor" else []
    return [loop[0] == replay(loop[1], **knobs), loop[3] == eager[3], *same]

KNOBS = {
    "plain": {"learning_rate": 0.01},
    "linked": {"beta_1": 0.9, "use_ema": True, "gradient_accumulation_steps": 2},
    "scheduled": {"learning_rate": adafactor.schedules.ExponentialDecay(0.01, 5, 0.5)},
}
"""


def execute(backend, script):
    """What a script assigns to `found`. What Inductor has compiled for an earlier run it uses again."""
    require("torch")
    if backend == "inductor":
        required("g++")
    return found_by(
        f"BACKEND = {backend!r}\n{PREAMBLE}\n{script}",
        TORCHINDUCTOR_COMPILE_THREADS="1",
    )


@pytest.mark.parametrize("backend", OF_MODELS)
def test_steps_of_a_compiled_model_have_the_bits_of_those_of_the_model(backend):
    """Inductor's gradients are others in the last bits; its steps are held against NumPy's with these."""
    script = """
found = []
for knobs in KNOBS.values():
    eager, loop = train(plain, plain, **knobs), train(compiled, plain, **knobs)
    found.append(compare(eager, loop, knobs))
"""
    assert execute(backend, script) == [[True] * (2 if backend == "inductor" else 4)] * 3


@pytest.mark.parametrize("backend", OF_STEPS)
def test_a_step_in_a_compiled_function_is_that_step(backend):
    """The graph ends where the step begins; autograd is told of the write as ever."""
    script = """
found = []
for knobs in KNOBS.values():
    torch._dynamo.reset()
    eager, loop = train(plain, plain, **knobs), train(plain, compiled, **knobs)
    found.append(compare(eager, loop, knobs))
"""
    assert execute(backend, script) == [[True] * (2 if backend == "inductor" else 4)] * 3


# A backward through what was saved before the step would give the gradient at other values.
STALE = """
w = torch.nn.Parameter(torch.full((3, 3), 2.0))
state = adafactor.init({"w": w}, learning_rate=1.0)

def stale():
    loss = (w * w).sum()
    adafactor.step({"w": w}, {"w": torch.ones(3, 3)}, state)
    loss.backward()

try:
    compiled(stale)()
    found = "no error"
except RuntimeError as error:
    found = str(error)
"""

# A call that raises, in a function that is used again.
RAISING = """
p = {"w": torch.ones(6, 4)}
state = adafactor.init(p)
step = compiled(lambda g: adafactor.step(p, {"w": 2 * g}, state).updated)
bad, found = torch.full((6, 4), float("nan")), []
for g in (bad, bad, torch.ones(6, 4)):
    try:
        found.append(step(g))
    except FloatingPointError as error:
        found += [str(error).partition(":")[0], bool((p["w"] == 1).all())]
found.append(state.iterations)
"""


def test_a_compiled_function_cannot_go_back_through_what_a_step_has_changed():
    assert "has been modified by an inplace operation" in execute("aot_eager", STALE)


def test_a_compiled_function_raises_what_a_step_raises():
    found = execute("aot_eager", RAISING)
    assert found == ["grads w", True, "grads w", True, True, 1]


def test_update_and_finalize_in_a_compiled_function_are_what_they_are_outside():
    script = """
def calls(wrap):
    p = {"w": torch.arange(24.0).reshape(6, 4)}
    state = adafactor.init(p, learning_rate=0.5, use_ema=True, ema_momentum=0.5)
    g = {"w": torch.linspace(-1, 1, 24).reshape(6, 4)}
    update = wrap(lambda p, state: adafactor.update(p, g, state)[:2])
    finalize = wrap(lambda p, state: state.finalize(p))
    for _ in range(3):
        p, state = update(p, state)
    averages = {"w": p["w"].clone()}
    finalize(averages, state)
    return bits(p, state) + bits(averages, state)

found = calls(plain) == calls(compiled)
"""
    assert execute("aot_eager", script)
