"""What a call says of numbers that are not finite: an error, a warning now and then, or nothing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adafactor.arrays import as_numpy
from adafactor.engine.engine import Engine
from adafactor.engine.warning import warn
from adafactor.report import StepReport
from adafactor.trees.paths import at

__all__ = ["is_told", "tell_of_nonfinite"]


def is_told(engine: Engine, report: StepReport, leaf: int, raises: bool, in_place: bool) -> bool:
    """Whether more has to be said of what is not finite than the report says."""
    if not report.skipped:
        # A leaf was left alone, in new arrays that nobody needs to get.
        return not in_place and engine.config.on_nonfinite == "raise"
    # A scale of the loss has its own way with gradients, and none with parameters.
    return raises or math.isfinite(report.grad_norm[leaf])


def tell_of_nonfinite(
    engine: Engine, report: StepReport, leaf: int, leaves: list[Any], gradients: list[Any]
) -> None:
    """What a call that did nothing says of the first leaf that is to blame."""
    # It is the gradient, or else something that was there before it.
    role = "params" if math.isfinite(report.grad_norm[leaf]) else "grads"
    where = at(role, engine.paths[leaf])
    if engine.config.on_nonfinite == "skip":
        _warn_of_skips(engine.core.skips, where)
        return
    array = (leaves if role == "params" else gradients)[leaf]
    more = int(report.nonfinite.sum()) - 1
    also = f", and {more} more {'leaf' if more == 1 else 'leaves'}" if more else ""
    raise FloatingPointError(
        f"{where}: {_text_of_nonfinite(role, array)}{also}; nothing was changed; "
        'on_nonfinite="skip" skips such a call, "propagate" lets it through'
    )


def _warn_of_skips(count: int, where: str) -> None:
    """At 10 in a row, 100 and so on: a training that stands still looks like one that goes on."""
    if count >= 10 and count == 10 ** (len(str(count)) - 1):
        warn(
            f"{where}: not finite, and so {count} calls in a row were skipped; "
            "nothing is learned until one goes through"
        )


def _text_of_nonfinite(role: str, array: Any) -> str:
    values = np.empty(0) if array is None else _numbers(as_numpy(array))
    nan, infinite = int(np.isnan(values).sum()), int(np.isinf(values).sum())
    if nan or infinite:
        return f"{nan} NaN and {infinite} Inf of {values.size} values"
    return f"finite, but {_OVERFLOWS[role]}"


_OVERFLOWS = {
    "grads": "the sum of the squares of what the step uses overflows",
    "params": "the sum of its squares overflows, or a moment in the state is not finite",
}


def _numbers(array: NDArray[Any]) -> NDArray[Any]:
    """The values of an array that may hold the bits of bfloat16."""
    if array.dtype != np.uint16:
        return array
    return (array.astype(np.uint32) << 16).view(np.float32)
