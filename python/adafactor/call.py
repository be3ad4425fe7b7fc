"""One call on a state that is held: from lists of arrays in the order of its leaves to a report."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Sequence
from typing import Any, Protocol

import numpy as np

from adafactor import _core
from adafactor.arrays import as_numpy, library_named, library_of, name_of_library
from adafactor.arrays.bits import numbers
from adafactor.config import Config, real_number
from adafactor.errors import phrase
from adafactor.paths import at
from adafactor.report import StepReport, empty_report, make_report

__all__ = ["finished", "new_like", "run"]


class Steppable(Protocol):
    """What a call needs of a `State`."""

    _core: _core.State
    paths: tuple[str, ...]

    @property
    def config(self) -> Config:
        """The knobs."""

    @property
    def open_calls(self) -> int:
        """Calls of the open window of accumulation."""

    def rates(self, learning_rate: Any) -> list[tuple[float, bool]]:
        """The learning rates of a call."""

    def check_params(self, leaves: list[Any], written: bool = True) -> None:
        """Raise where a step would not take these arrays."""


def new_like(leaves: list[Any], state: Steppable) -> list[Any]:
    """Arrays for the new parameters; the caller holds the state.

    Nothing is allocated before all leaves are known to be arrays of the shapes and dtypes of the state.
    """
    state.check_params(leaves, written=False)
    return [library_of(leaf).new_like(leaf) for leaf in leaves]


def finished(outputs: Sequence[Any], leaves: Sequence[Any]) -> list[Any]:
    """Those arrays, written, as the caller gets them: each in the library of its old parameter."""
    names = [name_of_library(type(leaf)) for leaf in leaves]
    result = list(outputs)
    for name in set(names):
        places = [place for place, each in enumerate(names) if each == name]
        made = library_named(name).finished([outputs[i] for i in places], [leaves[i] for i in places])
        for place, array in zip(places, made, strict=True):
            result[place] = array
    return result


def run(
    state: Steppable,
    leaves: list[Any],
    outputs: list[Any],
    gradients: list[Any],
    grad_multiplier: Any = 1.0,
    learning_rate: Any = None,
    *,
    handed: Collection[int] | None = None,
    raises: bool = True,
    completes: bool = False,
    twin: str = "adafactor.update",
    depth: int = 1,
) -> StepReport:
    """Make one call.

    Args:
        state: held by the caller.
        leaves: the parameters.
        outputs: where they go; `leaves` itself where the step is in place.
        gradients: an array or None for each leaf.
        grad_multiplier: as for `step`.
        learning_rate: as for `step`.
        handed: the leaves that the user handed in: only their missing gradients are warned of. None: all.
        raises: whether a gradient that is not finite is an error under `on_nonfinite="raise"`; if not, the
            call is skipped.
        completes: whether this is the update of an open window of accumulation, of which no gradient is left.
            Where none is open nothing is done.
        twin: as in `phrase`.
        depth: how many functions stand between the user's line and this one; a warning names that line.
    """
    multiplier = _multiplier(grad_multiplier)
    if not leaves or (completes and state.open_calls == 0):
        return empty_report(state.paths)
    absent = _core.places_of_none(gradients)
    if len(absent) == len(leaves) and not completes:
        raise ValueError("grads: every gradient is None, expected at least one array")
    rates = state.rates(learning_rate)
    if absent and not completes:
        told = absent if handed is None else sorted(set(absent).intersection(handed))
        if told:
            # Before anything is written, since a filter may make an exception of it.
            _warn_of_absent([state.paths[index] for index in told], depth)
    try:
        summary, nonfinite_leaf, arrays = state._core.step(
            leaves, gradients, outputs, rates, multiplier, completes
        )
    except _core.Error as error:
        raise phrase(error, state.paths, twin=twin) from None
    except MemoryError:
        advice = "see adafactor.scratch_nbytes; nothing was changed"
        raise MemoryError(f"step: no memory for its scratch, {advice}") from None
    report = make_report(summary, state.paths, arrays)
    if outputs is leaves and report.updated:
        # Without a gradient, too, an average may overwrite a leaf, and a window of accumulation update it.
        knobs = state.config
        may_be_written = knobs.ema_overwrite_frequency or knobs.gradient_accumulation_steps
        _mark_written(leaves, frozenset(() if may_be_written else absent))
    if nonfinite_leaf >= 0 and _is_told(state, report, nonfinite_leaf, raises, outputs is leaves):
        _tell_of_nonfinite(state, report, nonfinite_leaf, leaves, gradients, depth)
    return report


def _is_told(state: Steppable, report: StepReport, leaf: int, raises: bool, in_place: bool) -> bool:
    """Whether more has to be said of what is not finite than the report says."""
    if not report.skipped:
        # A leaf was left alone, in new arrays that nobody needs to get.
        return not in_place and state.config.on_nonfinite == "raise"
    # A scale of the loss has its own way with gradients, and none with parameters.
    return raises or math.isfinite(report.grad_norm[leaf])


def _mark_written(leaves: list[Any], untouched: Collection[int]) -> None:
    """Tell the libraries of the arrays, those that want to know, what an update has written."""
    names = {name_of_library(cls) for cls in _core.classes_of(leaves)}
    if names == {"numpy"}:
        return
    if untouched:
        leaves = [leaf for index, leaf in enumerate(leaves) if index not in untouched]
    if len(names) == 1:
        return library_named(*names).mark_written(leaves)
    for name in names:
        library_named(name).mark_written([x for x in leaves if name_of_library(type(x)) == name])


def _multiplier(value: Any) -> float:
    multiplier = real_number("grad_multiplier", value)
    if not math.isfinite(multiplier):
        raise ValueError(f"grad_multiplier: {multiplier}, expected a finite number")
    return multiplier


def _warn_of_absent(absent: list[str], depth: int) -> None:
    named = ", ".join(absent[:3]) + (f" and {len(absent) - 3} more" if len(absent) > 3 else "")
    warnings.warn(f"grads: no gradient for {named}; left alone", UserWarning, stacklevel=3 + depth)


def _tell_of_nonfinite(
    state: Steppable, report: StepReport, leaf: int, leaves: list[Any], gradients: list[Any], depth: int
) -> None:
    """What a call that did nothing says of the first leaf that is to blame."""
    # It is the gradient, or else something that was there before it.
    role = "params" if math.isfinite(report.grad_norm[leaf]) else "grads"
    where = at(role, state.paths[leaf])
    if state.config.on_nonfinite == "skip":
        _warn_of_skips(state._core.skips, where, 1 + depth)
        return
    array = (leaves if role == "params" else gradients)[leaf]
    more = int(report.nonfinite.sum()) - 1
    also = f", and {more} more {'leaf' if more == 1 else 'leaves'}" if more else ""
    raise FloatingPointError(
        f"{where}: {_text_of_nonfinite(role, array)}{also}; nothing was changed; "
        'on_nonfinite="skip" skips such a call, "propagate" lets it through'
    )


def _warn_of_skips(count: int, where: str, depth: int) -> None:
    """At 10 in a row, 100 and so on: a training that stands still looks like one that goes on."""
    if count >= 10 and count == 10 ** (len(str(count)) - 1):
        warnings.warn(
            f"{where}: not finite, and so {count} calls in a row were skipped; "
            "nothing is learned until one goes through",
            UserWarning,
            stacklevel=3 + depth,
        )


def _text_of_nonfinite(role: str, array: Any) -> str:
    values = np.empty(0) if array is None else numbers(as_numpy(array))
    nan, infinite = int(np.isnan(values).sum()), int(np.isinf(values).sum())
    if nan or infinite:
        return f"{nan} NaN and {infinite} Inf of {values.size} values"
    return f"finite, but {_OVERFLOWS[role]}"


_OVERFLOWS = {
    "grads": "the sum of the squares of what the step uses overflows",
    "params": "the sum of its squares overflows, or a moment in the state is not finite",
}
