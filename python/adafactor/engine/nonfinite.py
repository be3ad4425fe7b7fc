"""What a call says of numbers that are not finite: an error, a warning now and then, or nothing."""

from __future__ import annotations

import math
from typing import Any

from adafactor import _core
from adafactor.engine.engine import Engine
from adafactor.engine.warning import warn
from adafactor.errors import phrase
from adafactor.report import StepReport
from adafactor.trees.paths import at

__all__ = ["is_blamed", "is_told", "tell_of_nonfinite", "warn_of_skips"]


def is_told(engine: Engine, report: StepReport, leaf: int, raises: bool, in_place: bool) -> bool:
    """Whether more has to be said of what is not finite than the report says."""
    if not report.skipped:
        # A leaf was left alone, in new arrays that nobody needs to get.
        return not in_place and engine.config.on_nonfinite == "raise"
    return is_blamed(report, leaf, raises)


def is_blamed(report: StepReport, leaf: int, raises: bool) -> bool:
    """Whether the leaf of a skipped call is spoken of.

    A scale of the loss, which asks that nothing be raised, has its own way with gradients, and none with
    parameters.
    """
    return raises or math.isfinite(report.grad_norm[leaf])


def tell_of_nonfinite(
    engine: Engine, report: StepReport, leaf: int, leaves: list[Any], gradients: list[Any]
) -> None:
    """What a call that did nothing says of the first leaf that is to blame."""
    if engine.config.on_nonfinite == "skip":
        return warn_of_skips(engine.core.skips, report, leaf)
    try:
        engine.core.refuse_nonfinite(leaves, gradients, leaf)
    except _core.Error as error:
        raise phrase(error, engine.paths) from None


def warn_of_skips(count: int, report: StepReport, leaf: int) -> None:
    """At 10 in a row, 100 and so on: a training that stands still looks like one that goes on."""
    if count >= 10 and count == 10 ** (len(str(count)) - 1):
        # It is the gradient, or else something that was there before it.
        where = at("params" if math.isfinite(report.grad_norm[leaf]) else "grads", report.paths[leaf])
        warn(
            f"{where}: not finite, and so {count} calls in a row were skipped; "
            "nothing is learned until one goes through"
        )
