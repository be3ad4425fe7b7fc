"""StepReport: what the phases of one call knew anyway."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["StepReport"]

# The arrays of a report, in the order of the core: numbers, then truth values.
NUMBERS = ("grad_norm", "param_rms", "update_rms", "clip_factor", "step_size")
MARKS = ("nonfinite", "at_floor")
PER_LEAF = (*NUMBERS, *MARKS)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class StepReport:
    """What one call did and found; no extra pass over any array is made for it.

    Of a call on a GPU that nobody has waited for, the first look at any of it but `paths` waits.

    A number that the call had no reason to compute is NaN: all of a leaf without a gradient, `param_rms` and
    `update_rms` where neither the parameter's scale nor the clipping of the update asks for them, everything
    but `grad_norm` on a call that made no update.

    The arrays have shape (leaves,), float64 (bool for `nonfinite` and `at_floor`); norms and root mean
    squares are over all elements of a leaf.

    Attributes:
        updated: whether parameters were updated; False on an accumulating or a skipped call.
        skipped: whether a number that is not finite made the call do nothing (`on_nonfinite="skip"`).
        learning_rate: the learning rate of the call (of the config's own row of knobs).
        beta_2: decay of the moments in this update, in [0, 1).
        rho: the relative step size, a share of the parameter's scale: the learning rate, capped at 1/sqrt(t)
            where the cap applies.
        global_grad_norm: norm of all gradients together, before clipping.
        paths: the paths of the leaves, in the order of the arrays below.
        grad_norm: norm of each gradient G after multiplier, loss scale and mean, before clipping by norm.
        param_rms: root mean square of each parameter before the call.
        update_rms: root mean square of each update U before clipping, without unit; about 1 or below in a
            healthy run.
        clip_factor: what U was multiplied by, in (0, 1].
        step_size: alpha, what U times `clip_factor` is multiplied by, in the parameter's unit.
        nonfinite: whether a gradient (or the sum of its squares) was not finite; or the parameter, or what
            the state has of it, so that this leaf was left alone.
        at_floor: whether rms(p) lies below `epsilon_2`, which then is the parameter's scale: the steps are as
            small as if the leaf were that small. A leaf that begins at zero has to grow out of it.

    Source: Shazeer and Stern 2018, arXiv:1804.04235, for the quantities.

    >>> import numpy as np, adafactor
    >>> params = {"w": np.ones((2, 3))}
    >>> report = adafactor.step(params, {"w": np.full((2, 3), 0.5)}, adafactor.init(params))
    >>> report.updated, float(report.update_rms[0].round(6)), report.as_dict()["w"]["step_size"]
    (True, 1.0, 0.001)
    """

    updated: bool
    skipped: bool
    learning_rate: float
    beta_2: float
    rho: float
    global_grad_norm: float
    paths: tuple[str, ...]
    grad_norm: NDArray[np.float64]
    param_rms: NDArray[np.float64]
    update_rms: NDArray[np.float64]
    clip_factor: NDArray[np.float64]
    step_size: NDArray[np.float64]
    nonfinite: NDArray[np.bool_]
    at_floor: NDArray[np.bool_]

    def __getattr__(self, name: str) -> Any:
        """What was not known when the report was made; asked for once."""
        if name in _FIELDS:
            self.settle()
            if name in self.__dict__:
                return self.__dict__[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __getstate__(self) -> dict[str, Any]:
        """What pickle and copy keep."""
        self.settle()
        return self.__dict__

    def settle(self) -> None:
        """Wait until the call has come to its end, and all numbers are there; else the first look does.

        Raises:
            RuntimeError: the GPU failed.

        >>> import numpy as np, adafactor
        >>> params = np.ones(3)
        >>> report = adafactor.step(params, np.ones(3), adafactor.init(params))
        >>> report.settle()  # of arrays in the CPU's memory everything is known
        """
        ask = self.__dict__.get("_ask")
        if ask is not None:
            ask(self)

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """Return the numbers of each leaf by its path, as Python numbers.

        >>> import numpy as np, adafactor
        >>> params = {"w": np.full(4, 2.0)}
        >>> adafactor.step(params, {"w": np.ones(4)}, adafactor.init(params)).as_dict()["w"]["param_rms"]
        2.0
        """
        columns = {name: getattr(self, name).tolist() for name in PER_LEAF}
        return {
            path: {name: column[i] for name, column in columns.items()} for i, path in enumerate(self.paths)
        }

    def __repr__(self) -> str:
        """A short table: a line for the call, and one for each of the first leaves."""
        what = "updated" if self.updated else "skipped" if self.skipped else "no update"
        head = (
            f"StepReport({what}, learning_rate={self.learning_rate:.4g}, rho={self.rho:.4g}, "
            f"beta_2={self.beta_2:.4g}, global_grad_norm={self.global_grad_norm:.4g})"
        )
        shown = min(len(self.paths), 20)
        width = max((len(path) for path in self.paths[:shown]), default=0)
        width = max(width, len("leaf"))
        lines = [head, "  ".join(["leaf".ljust(width), *(name.rjust(11) for name in NUMBERS)])]
        for i in range(shown):
            cells = [f"{getattr(self, name)[i]:11.4g}" for name in NUMBERS]
            mark = "  non-finite" if self.nonfinite[i] else "  at its floor" if self.at_floor[i] else ""
            lines.append("  ".join([self.paths[i].ljust(width), *cells]) + mark)
        if shown < len(self.paths):
            lines.append(f"... and {len(self.paths) - shown} more leaves")
        if self.at_floor.any():
            lines.append(
                f"at its floor: {int(self.at_floor.sum())} of {len(self.paths)} leaves; rms(p) is below "
                'epsilon_2, which scales the step: see "Choosing a rate"'
            )
        return "\n".join(lines)


_FIELDS = tuple(field.name for field in dataclasses.fields(StepReport))


def make_report(
    summary: tuple[Any, ...], paths: tuple[str, ...], arrays: Iterable[NDArray[Any]]
) -> StepReport:
    """The report of one call of the core: `summary` is its first six fields, `arrays` those of `PER_LEAF`."""
    report = object.__new__(StepReport)
    # As the dataclass would; that takes a call for each field, which is much of a step of a few small leaves.
    report.__dict__.update(zip(_FIELDS, (*summary, paths, *arrays), strict=True))
    return report


def late_report(paths: tuple[str, ...], ask: Callable[[StepReport], None]) -> StepReport:
    """The report of a call of which nothing is known yet: `ask` is called until it has filled it (`fill`)."""
    report = object.__new__(StepReport)
    report.__dict__.update(paths=paths, _ask=ask)
    return report


def is_filled(report: StepReport) -> bool:
    """Whether all is known of the call."""
    return "_ask" not in report.__dict__


def fill(report: StepReport, summary: tuple[Any, ...], arrays: Iterable[NDArray[Any]]) -> None:
    """Write into a report what is known now; nobody asks for it any more."""
    report.__dict__.update(zip(_FIELDS, (*summary, report.paths, *arrays), strict=True))
    report.__dict__.pop("_ask", None)


def empty_report(paths: tuple[str, ...]) -> StepReport:
    """The report of a call that did nothing, on leaves of these paths."""
    nan, count = math.nan, len(paths)
    arrays = [np.full(count, nan) for _ in NUMBERS] + [np.zeros(count, bool) for _ in MARKS]
    return make_report((False, False, nan, nan, nan, nan), paths, arrays)
