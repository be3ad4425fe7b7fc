"""What a step of this project on tensors of torch consists of: each part as a call that can be timed alone.

The parts are the package's own functions, called as `adafactor.step` calls them. The core reads and checks
the arrays and steps in one call; the step itself is that call less the reading, which the core offers alone.
A state remembers where its arrays lay, so that which reads alone has none but the parameters, twice.
"""

from collections.abc import Callable, Mapping
from typing import Any

import adafactor
from adafactor import _core
from adafactor.arrays import library_named
from adafactor.report import make_report
from adafactor.state import engine_of
from benchmarks.contestants import TIMED_LEARNING_RATE, torch_parameters

# What the parts are called where they are shown, in the order in which they happen.
TITLES = {
    "gather": "`{name: p.grad for name, p in params.items()}`, before the call",
    "flatten": "flattening the two trees",
    "read": "reading and checking the arrays",
    "compute": "the step itself",
    "count": "raising the version counters",
    "report": "the report",
    "rest": "everything else",
    "whole": "the whole call",
}
_CALLS = ("flatten", "read", "compute", "count", "report")


def of_step(params: list[Any], grads: list[Any]) -> dict[str, Callable[[], object]]:
    """The calls to time; `core` is `read` and `compute` together."""
    named = {f"parameter.{index}": each for index, each in enumerate(torch_parameters(params, grads))}
    given = {name: parameter.grad for name, parameter in named.items()}
    state = adafactor.init(named, learning_rate=TIMED_LEARNING_RATE)
    engine, library = engine_of(state), library_named("torch")
    core, tree, rates = engine.core, engine.tree, engine.rates(None)
    leaves, gradients = list(named.values()), list(given.values())

    def core_step() -> tuple[Any, ...]:
        with engine.in_use():
            return core.step(leaves, gradients, leaves, rates, 1.0, False, [])

    reading = engine_of(adafactor.init(named))

    def read() -> None:
        with reading.in_use():
            reading.core.check_params(leaves)
            reading.core.check_params(leaves)  # for the gradients, tensors of the same shapes and dtype

    summary, _, found = core_step()
    return {
        "gather": lambda: {name: parameter.grad for name, parameter in named.items()},
        "flatten": lambda: tree.given(named, given),
        "read": read,
        "core": core_step,
        "count": lambda: _core.mark_written(library.mark, leaves),
        "report": lambda: make_report(summary, state.paths, found),
        "whole": lambda: adafactor.step(named, given, state),
    }


def microseconds(seconds: Mapping[str, float]) -> dict[str, float]:
    """Each part in microseconds, by the names of `TITLES`, and what is left of the whole without them."""
    found = {name: 1e6 * taken for name, taken in seconds.items()}
    found["compute"] = found.pop("core") - found["read"]
    found["rest"] = found["whole"] - sum(found[name] for name in _CALLS)
    return {name: found[name] for name in TITLES}
