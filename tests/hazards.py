"""Bad inputs: a case says what a call is given and how it is refused, and one check serves all of them.

The number at the head of a case's name is that of the hazard in the design's list.
"""

import collections.abc
import dataclasses
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import adafactor
import snapshots


class Model:
    """A tree of two leaves, gradients and a state that has made two steps."""

    def __init__(self, **knobs: Any) -> None:
        generator = np.random.default_rng(7)
        self.params, self.grads = (
            {
                "w": generator.standard_normal((6, 21), np.float32),
                "b": generator.standard_normal(21, np.float32),
            }
            for _ in range(2)
        )
        self.state = adafactor.init(self.params, **knobs)
        for _ in range(2):
            adafactor.step(self.params, self.grads, self.state)

    def everything(self, *more: Any) -> Any:
        arrays = [*self.params.values(), *self.grads.values(), *(a for tree in more for a in arrays_of(tree))]
        return snapshots.memory(arrays), snapshots.of_state(self.state)


@dataclasses.dataclass(frozen=True)
class Case:
    """A call that is refused.

    `build` gets a model and returns what the call gets: for `step` and `update` (params, grads) or (params,
    grads, keywords), for `init` (params, keywords). `knobs` makes the knobs of the model.
    """

    name: str
    build: Callable[[Model], tuple[Any, ...]]
    error: type[BaseException]
    message: str
    calls: tuple[str, ...] = ("step", "update")
    knobs: Callable[[], dict[str, Any]] = dict

    @property
    def hazard(self) -> str:
        return self.name.split()[0]


IN_PLACE = ("step",)
AT_INIT = ("init",)


def arrays_of(tree: Any) -> list[np.ndarray]:
    """The NumPy arrays in some nesting of plain containers, however wrong the tree is otherwise."""
    found, pending, seen = [], [tree], set()
    while pending:
        value = pending.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, np.ndarray):
            if value.size < 2**20 and not value.dtype.hasobject:  # a view of zero stride may be endless
                found.append(value)
        elif isinstance(value, dict):
            pending.extend(value.values())
        elif isinstance(value, list | tuple):
            pending.extend(value)
    return found


def parameters(cases: collections.abc.Iterable[Case]) -> list[Any]:
    """What pytest.mark.parametrize("case, call", ...) takes."""
    return [
        pytest.param(case, call, id=f"{case.name} ({call})" if len(case.calls) > 1 else case.name)
        for case in cases
        for call in case.calls
    ]


def make(call: str, given: tuple[Any, ...], state: adafactor.State) -> Any:
    """The call of this name with what a case built."""
    if call == "init":
        return adafactor.init(given[0], **given[1])
    params, grads, keywords = given if len(given) == 3 else (*given, {})
    return getattr(adafactor, call)(params, grads, state, **keywords)


def check(case: Case, call: str) -> None:
    """The call raises what it should and changes nothing; a good step after it is as if it had not been."""
    model, twin = Model(**case.knobs()), Model(**case.knobs())
    given = case.build(model)
    before = model.everything(given)
    with pytest.raises(case.error) as caught:
        make(call, given, model.state)
    assert type(caught.value) is case.error
    assert re.search(case.message, str(caught.value)), str(caught.value)
    assert model.everything(given) == before
    check_next_step(model, twin)


def check_next_step(model: Model, twin: Model) -> None:
    """A good step of the model does what it does to its twin, which saw nothing bad."""
    for each in (model, twin):
        report = adafactor.step(each.params, each.grads, each.state)
        assert report.updated
    assert model.everything() == twin.everything()
