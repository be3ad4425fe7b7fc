"""One bad or odd input: what a call is given, what must happen, and the check that serves every case.

Whatever happened, the last assertions are the same: parameters, gradients, state and counters hold the bytes
that they should, and a good step right after gives the bits that a twin gets, which never saw the odd input.
"""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import adafactor
import snapshots
from registry.libraries import OF_THE_CPU, Gpu, NumPy, arrays_in, memory_of

SHAPES = {"w": (6, 21), "b": (21,)}


class Model:
    """Parameters, gradients and a state that has made some steps.

    `values` are the parameters and gradients by path where they are not to be drawn, by shape and dtype.
    """

    def __init__(
        self,
        library: type[NumPy] = NumPy,
        shapes: dict[str, tuple[int, ...]] = SHAPES,
        dtype: str = "float32",
        steps: int = 2,
        values: tuple[dict[str, np.ndarray], dict[str, np.ndarray]] | None = None,
        **knobs: Any,
    ) -> None:
        generator = np.random.default_rng(7)
        drawn = values or tuple(
            {path: np.asarray(generator.standard_normal(shape, dtype)) for path, shape in shapes.items()}
            for _ in range(2)
        )
        self.library = library
        self.params, self.grads = ({path: library.array(x) for path, x in tree.items()} for tree in drawn)
        self.state = adafactor.init(self.params, **knobs)
        for _ in range(steps):
            self.good_call()

    def good_call(self) -> adafactor.StepReport:
        """A step, or an update where a step could not write."""
        if self.library.writes:
            return adafactor.step(self.params, self.grads, self.state)
        self.params, self.state, report = adafactor.update(self.params, self.grads, self.state)
        return report

    def over(self, tree: str, path: str, view: Callable[[np.ndarray], np.ndarray]) -> Any:
        """Another array over the memory of a parameter or a gradient."""
        return self.library.over(view(memory_of(getattr(self, tree)[path])))

    def copies_of_params(self) -> dict[str, Any]:
        """The parameters in memory of their own."""
        return {path: self.library.array(memory_of(p)) for path, p in self.params.items()}

    def memory(self, *more: Any) -> Any:
        """Everything that a call could write, as bytes: also what lies between the elements of an array."""
        trees = (self.params, self.grads, *more)
        return snapshots.memory(a for tree in trees for a in arrays_in(tree)), snapshots.of_state(self.state)

    def values(self) -> Any:
        """The elements of all parameters, the state and the counters."""
        return [p.tobytes() for p in arrays_in(self.params)], snapshots.of_state(self.state)


Given = tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What there is after a call that was not refused."""

    params: Any
    state: adafactor.State
    report: adafactor.StepReport

    @property
    def memory(self) -> dict[str, np.ndarray]:
        """The parameters, of which each is an array, in NumPy."""
        return {path: memory_of(p) for path, p in self.params.items()}


@dataclasses.dataclass(frozen=True)
class Case:
    """A call and what must happen: it is refused, does nothing, or does what another call does.

    `name` begins with the number of the hazard. `given` makes what the call gets, of a model: (params, grads)
    or (params, grads, keywords) for `step` and `update`, (params, keywords) for `init`. A call that is
    refused has an `error` and a pattern of the whole `message`. One that is not does nothing if `is_nothing`;
    else a twin makes the call `like`, or the same one, and ends with the same bits; `expect` looks at the
    outcome.
    """

    name: str
    given: Callable[[Model], Given]
    error: type[BaseException] | None = None
    message: str = ""
    calls: tuple[str, ...] = ("step", "update")
    model: Callable[[type[NumPy]], Model] = Model
    twin: Callable[[type[NumPy]], Model] | None = None
    like: Callable[[Model], Given] | None = None
    is_nothing: bool = False
    expect: Callable[[Outcome], None] | None = None
    libraries: tuple[str, ...] = ()  # the only ones of a CPU that can express it; none: all can

    def __post_init__(self) -> None:
        means = (self.error, self.like, self.twin, self.expect)
        assert self.is_nothing or any(mean is not None for mean in means), f"{self.name} asserts nothing"

    def check(self, call: str, library: type[NumPy]) -> None:
        model, twin = self.model(library), (self.twin or self.model)(library)
        given = self.given(model)
        arrays, grads = list(arrays_in(given)), list(arrays_in(given[1]))
        before, borrowed = model.memory(arrays), (snapshots.memory(grads), around(given[0]))
        if self.error is not None:
            with pytest.raises(self.error) as caught:
                make(call, given, model.state)
            assert type(caught.value) is self.error
            assert re.fullmatch(self.message, str(caught.value), re.DOTALL), str(caught.value)
            outcome = None
        else:
            outcome = make(call, given, model.state)
            assert (snapshots.memory(grads), around(given[0])) == borrowed
        if outcome is None or self.is_nothing or call == "update":
            assert model.memory(arrays) == before
        if outcome is not None:
            self._compare(outcome, call, model, twin)
        if outcome is not None and library is Gpu:
            self._compare_with_a_cpu(outcome, call, model)
        check_next_step(model, twin)

    def _compare(self, outcome: Outcome, call: str, model: Model, twin: Model) -> None:
        if self.expect is not None:
            self.expect(outcome)
        model.params, model.state = outcome.params, outcome.state
        if not self.is_nothing:
            like = make(call, (self.like or self.given)(twin), twin.state)
            twin.params, twin.state = like.params, like.state
            assert repr(outcome.report) == repr(like.report)
        assert model.values() == twin.values()

    def _compare_with_a_cpu(self, outcome: Outcome, call: str, model: Model) -> None:
        """What a GPU has made has the bits of a CPU, with arrays of the first library that has such."""
        library = next((each for each in OF_THE_CPU if each.name in self.libraries), NumPy)
        twin = (self.twin or self.model)(library)
        if not self.is_nothing:
            like = make(call, (self.like or self.given)(twin), twin.state)
            twin.params, twin.state = like.params, like.state
            assert repr(outcome.report) == repr(like.report)
        assert model.values() == twin.values()


@dataclasses.dataclass(frozen=True)
class Event:
    """Something that happens beside a model, which must not notice: `happen` asserts what must come of it."""

    name: str
    happen: Callable[[Model], None]
    model: Callable[[type[NumPy]], Model] = Model
    calls: tuple[str, ...] = ("",)
    libraries: tuple[str, ...] = ("numpy",)  # most things happen whatever library the arrays are from

    def check(self, call: str, library: type[NumPy]) -> None:
        model, twin = self.model(library), self.model(library)
        before = model.memory()
        self.happen(model)
        assert model.memory() == before
        check_next_step(model, twin)


IN_PLACE = ("step",)
AT_INIT = ("init",)


def make(call: str, given: Given, state: adafactor.State) -> Outcome:
    """The call of this name with what a case made."""
    if call == "init":
        made = adafactor.init(given[0], **given[1])
        return Outcome(given[0], made, None)
    params, grads, keywords = given if len(given) == 3 else (*given, {})
    if call == "update":
        return Outcome(*adafactor.update(params, grads, state, **keywords))
    return Outcome(params, state, adafactor.step(params, grads, state, **keywords))


def check_next_step(model: Model, twin: Model) -> None:
    """A good step of the model does what it does to its twin, which saw nothing odd."""
    reports = [each.good_call() for each in (model, twin)]
    assert reports[0].updated or not model.state.paths
    assert repr(reports[0]) == repr(reports[1])
    assert model.values() == twin.values()


def around(params: Any) -> list[bytes]:
    """The bytes of the buffers of parameters that are not elements of any of them."""
    views = [p for p in arrays_in(params) if _has_surroundings(p)]
    elements = [view.copy() for view in views]
    for view in views:
        view[...] = 0
    found = [snapshots.buffer_of(view).tobytes() for view in views]
    for view, values in zip(views, elements, strict=True):
        view[...] = values
    return found


def _has_surroundings(array: np.ndarray) -> bool:
    buffer = snapshots.buffer_of(array)
    is_small = max(buffer.nbytes, array.nbytes) <= snapshots.MOST
    return buffer is not array and array.flags.writeable and is_small


# What cases are made of.


def same(model: Model) -> Given:
    """The model's own parameters and gradients."""
    return model.params, model.grads


def model(**arguments: Any) -> Callable[[type[NumPy]], Model]:
    """How to make a model with these arguments."""
    return lambda library: Model(library, **arguments)


def zeros(*shape: int, dtype: Any = "float32") -> Callable[[Model], Any]:
    """How to make an array of zeros of the model's library."""
    return lambda m: m.library.array(np.zeros(shape, dtype))


def with_params(**leaves: Callable[[Model], Any]) -> Callable[[Model], Given]:
    """The model's trees, but for these parameters."""
    return lambda m: (m.params | {path: leaf(m) for path, leaf in leaves.items()}, m.grads)


def with_grads(**leaves: Callable[[Model], Any]) -> Callable[[Model], Given]:
    """The model's trees, but for these gradients."""
    return lambda m: (m.params, m.grads | {path: leaf(m) for path, leaf in leaves.items()})


def leaf(make_leaf: Callable[[Model], Any]) -> Callable[[Model], tuple[Any, dict[str, Any]]]:
    """For `init`: a tree with one leaf, and no knobs."""
    return lambda m: ({"w": make_leaf(m)}, {})


def over(make_memory: Callable[[], np.ndarray]) -> Callable[[Model], Any]:
    """How to make an array of the model's library over such memory."""
    return lambda m: m.library.over(make_memory())
