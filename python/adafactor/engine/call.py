"""One call on a state that is held: from lists of arrays in the order of its leaves to a report."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

from adafactor import _core
from adafactor.arrays import library_named, name_of_library
from adafactor.engine.engine import Engine
from adafactor.engine.late import report_when_asked
from adafactor.engine.nonfinite import is_told, tell_of_nonfinite
from adafactor.engine.warning import warn
from adafactor.errors import phrase
from adafactor.knobs.numbers import finite_number
from adafactor.report import StepReport, empty_report, make_report
from adafactor.trees.given import Given

__all__ = ["anew", "complete_window", "run", "step", "update"]


def run(
    engine: Engine,
    given: Given,
    outputs: list[Any],
    grad_multiplier: Any = 1.0,
    learning_rate: Any = None,
    *,
    handed: Collection[int] | None = None,
    raises: bool = True,
    completes: bool = False,
    twin: str = "adafactor.update",
) -> StepReport:
    """Make one call.

    Args:
        engine: the state, held by the caller.
        given: the parameters and the gradients.
        outputs: where the new parameters go; the list of the old ones where the step is in place.
        grad_multiplier: as for `step`.
        learning_rate: as for `step`.
        handed: the leaves that the user handed in: only their missing gradients are warned of. None: all.
        raises: whether a gradient that is not finite is an error under `on_nonfinite="raise"`; if not, the
            call is skipped.
        completes: whether this is the update of an open window of accumulation, of which no gradient is left.
            Where none is open nothing is done.
        twin: as in `phrase`.
    """
    multiplier = finite_number("grad_multiplier", grad_multiplier)
    leaves, gradients, absent = given.leaves, given.gradients, given.absent
    if engine.late is not None:
        _settle(engine, leaves)
    if not leaves or (completes and engine.core.open_calls == 0):
        return empty_report(engine.paths)
    if len(absent) == len(leaves) and not completes:
        raise ValueError("grads: every gradient is None, expected at least one array")
    rates = engine.rates(learning_rate)
    if absent and not completes:
        # Before anything is written, since a filter may make an exception of it.
        _warn_of_absent([engine.paths[leaf] for leaf in absent if handed is None or leaf in handed])
    in_place = outputs is leaves
    marks = _marks(engine, given) if in_place else []
    try:
        found = engine.core.step(leaves, gradients, outputs, rates, multiplier, completes, marks)
    except _core.Error as error:
        raise phrase(error, engine.paths, twin=twin) from None
    except MemoryError:
        advice = "see adafactor.scratch_nbytes; nothing was changed"
        raise MemoryError(f"step: no memory for its scratch, {advice}") from None
    if isinstance(found, int):
        engine.late = report_when_asked(engine.core, found, engine.paths, raises)
        return engine.late
    summary, nonfinite_leaf, arrays = found
    report = make_report(summary, engine.paths, arrays)
    if nonfinite_leaf >= 0 and is_told(engine, report, nonfinite_leaf, raises, in_place):
        tell_of_nonfinite(engine, report, nonfinite_leaf, leaves, gradients)
    return report


def _settle(engine: Engine, leaves: list[Any]) -> None:
    """Fill in the report of a call of which nobody has asked yet, unless the next one is refused anyway."""
    try:
        engine.core.refuse_capture(leaves)
    except _core.Error as error:
        raise phrase(error, engine.paths) from None
    report, engine.late = engine.late, None
    if report is not None:  # another thread may have been first
        report.settle()


def _marks(engine: Engine, given: Given) -> list[tuple[Callable[[Any], object], list[Any]]]:
    """For each library that wants to know of a write: what tells it, and the arrays that an update writes."""
    names = {name_of_library(cls) for cls in given.classes}
    if names == {"numpy"}:
        return []
    leaves, knobs = given.leaves, engine.config
    # Without a gradient, too, an average may overwrite a leaf, and a window of accumulation update it.
    if given.absent and not (knobs.ema_overwrite_frequency or knobs.gradient_accumulation_steps):
        untouched = frozenset(given.absent)
        leaves = [leaf for index, leaf in enumerate(leaves) if index not in untouched]
    found = []
    for name in names:
        mark = library_named(name).mark
        if mark is not None:
            mine = leaves if len(names) == 1 else [x for x in leaves if name_of_library(type(x)) == name]
            found.append((mark, mine))
    return found


def _warn_of_absent(absent: list[str]) -> None:
    if not absent:
        return
    named = ", ".join(absent[:3]) + (f" and {len(absent) - 3} more" if len(absent) > 3 else "")
    warn(f"grads: no gradient for {named}; left alone")


def step(
    engine: Engine,
    params: Any,
    grads: Any,
    grad_multiplier: Any = 1.0,
    learning_rate: Any = None,
    *,
    raises: bool = True,
) -> StepReport:
    """Make a call on trees, in place; what the arguments are is said of `run`."""
    with engine.in_use():
        given = engine.tree.given(params, grads)
        return run(engine, given, given.leaves, grad_multiplier, learning_rate, raises=raises)


def update(
    engine: Engine,
    params: Any,
    grads: Any,
    grad_multiplier: Any = 1.0,
    learning_rate: Any = None,
    role: str = "params",
) -> tuple[Any, StepReport]:
    """Make a call on trees, into new parameters; `role` is what these are called in messages."""

    def write(leaves: list[Any], outputs: list[Any]) -> StepReport:
        gradients = engine.tree.leaves(grads, "grads", allow_none=True)
        return run(engine, Given.of(leaves, gradients), outputs, grad_multiplier, learning_rate)

    return anew(engine, params, write, role)


def complete_window(engine: Engine, leaves: list[Any], outputs: list[Any], twin: str = "") -> StepReport:
    """Make the update of an open window of accumulation; the caller holds the state."""
    given = Given.of(leaves, [None] * len(leaves))
    return run(engine, given, outputs, completes=True, twin=twin)


_Result = TypeVar("_Result")


def anew(
    engine: Engine, params: Any, write: Callable[[list[Any], list[Any]], _Result], role: str = "params"
) -> tuple[Any, _Result]:
    """New parameters in a tree like `params`, and what writing them returned; the state is held meanwhile.

    Args:
        engine: the state.
        params: the old parameters; nothing is written into them.
        write: is given the old arrays and those to be written, in the order of the leaves.
        role: what the parameters are called in messages.
    """
    with engine.in_use():
        leaves = engine.tree.leaves(params, role)
        outputs = _new_like(leaves, engine)
        result = write(leaves, outputs)
    return engine.tree.build(params, _finished(outputs, leaves)), result


def _new_like(leaves: list[Any], engine: Engine) -> list[Any]:
    """Arrays for the new parameters; the caller holds the state.

    Nothing is allocated before all leaves are known to be arrays of the shapes and dtypes of the state.
    """
    engine.check_params(leaves, written=False)
    return [engine.library_of(leaf).new_like(leaf) for leaf in leaves]


def _finished(outputs: Sequence[Any], leaves: Sequence[Any]) -> list[Any]:
    """Those arrays, written, as the caller gets them: each in the library of its old parameter."""
    names = [name_of_library(type(leaf)) for leaf in leaves]
    result = list(outputs)
    for name in set(names):
        places = [place for place, each in enumerate(names) if each == name]
        made = library_named(name).finished([outputs[i] for i in places], [leaves[i] for i in places])
        for place, array in zip(places, made, strict=True):
            result[place] = array
    return result
