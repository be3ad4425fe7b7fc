"""Reports of calls that a GPU may still be at."""

from __future__ import annotations

from adafactor import _core
from adafactor.engine.nonfinite import is_blamed, warn_of_skips
from adafactor.report import StepReport, fill, is_filled, late_report

__all__ = ["report_when_asked"]


def report_when_asked(
    core: _core.State | _core.Stepper, number: int, paths: tuple[str, ...], raises: bool = True
) -> StepReport:
    """The report of the call of that number, which a GPU may still be at; filled in when somebody looks.

    It may outlive the engine, which it does not hold, so that memory of the GPU is free as soon as both are.

    Args:
        core: who made the call.
        number: what the core has called it.
        paths: of its leaves.
        raises: as in `run`.
    """

    def ask(report: StepReport) -> None:
        found = core.found(number)
        if found is None or is_filled(report):  # another thread was first
            return
        summary, nonfinite_leaf, arrays = found
        fill(report, summary, arrays)
        if nonfinite_leaf >= 0 and report.skipped and is_blamed(report, nonfinite_leaf, raises):
            warn_of_skips(core.skips, report, nonfinite_leaf)

    return late_report(paths, ask)
