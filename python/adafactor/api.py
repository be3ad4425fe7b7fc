"""The functions: init, step, update, and what they cost."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from adafactor import _core
from adafactor.config import Config, real_number, whole_number
from adafactor.errors import phrase
from adafactor.plan import describe
from adafactor.report import StepReport, empty_report, make_report
from adafactor.state import State

__all__ = [
    "build_info",
    "get_num_threads",
    "init",
    "scratch_nbytes",
    "set_num_threads",
    "state_nbytes",
    "step",
    "update",
]


def init(params: Any, config: Config | None = None, /, *, overrides: Any = (), **knobs: Any) -> State:
    """Make the state of a tree of parameters; writes nothing into it.

    Args:
        params: any nesting of dict, list, tuple, namedtuple and dataclass around NumPy arrays of float32 or
            float64 of any shape and strides, or one array.
        config: the knobs; None for the defaults.
        overrides: a sequence of (regular expression, dict of knobs): a leaf whose path the expression finds
            (`re.search`) has these knobs instead; the first match wins. Knobs that concern the whole call
            (`global_clipnorm`, accumulation, loss scale, `on_nonfinite`, `seed`, and those of the average)
            cannot be overridden.
        **knobs: single knobs, put over `config`.

    Returns:
        A `State`: 6,144 bytes for a (1024, 512) parameter, where Adam's takes 4,194,304.

    Raises:
        TypeError: an unknown knob, something in the tree that is not an array, an array of another dtype.
        ValueError: a knob out of its range, two leaves with one path, a tree that is too deep or circular.

    >>> import numpy as np, adafactor
    >>> adafactor.init({"w": np.zeros((4, 3), np.float32)}, overrides=[("bias", {"weight_decay": None})])
    State(1 leaf, 28 bytes, 0 updates)
    """
    return State(describe(params, config, overrides, knobs))


def step(
    params: Any, grads: Any, state: State, *, grad_multiplier: float = 1.0, learning_rate: Any = None
) -> StepReport:
    """Update the parameters and the state in place: one step of Adafactor.

    A call either completes or raises with every byte of parameters, gradients and state as before.

    Args:
        params: the tree that `init` was given, with arrays that can be written.
        grads: a tree of the same structure with a gradient for each parameter, of its shape and dtype; a
            leaf that is None is left alone. Dicts are matched by key.
        state: from `init`.
        grad_multiplier: every gradient is multiplied by it before anything else.
        learning_rate: used for this call instead of the configured one, at least 0; a number, or a sequence
            with one for the config and one for each override. It counts as a schedule's value: no cap at
            1/sqrt(t) unless `relative_step="always"`.

    Returns:
        A `StepReport`.

    Raises:
        ValueError: a tree or shape that does not match, arrays that share memory, no gradient at all, a
            learning rate that is negative or not finite.
        TypeError: an array of the wrong kind or dtype.
        BufferError: a parameter that cannot be written.
        FloatingPointError: a gradient with NaN or Inf under `on_nonfinite="raise"`.
        RuntimeError: the state is in use, or was when this process was forked.

    Source: Shazeer and Stern 2018, arXiv:1804.04235, algorithms 4 to 6; `keras.optimizers.Adafactor`.

    >>> import numpy as np, adafactor
    >>> params = {"w": np.ones((2, 2), np.float32)}
    >>> state = adafactor.init(params, learning_rate=0.1)
    >>> report = adafactor.step(params, {"w": np.full((2, 2), 0.25, np.float32)}, state)
    >>> params["w"].tolist(), state.iterations
    ([[0.8999999761581421, 0.8999999761581421], [0.8999999761581421, 0.8999999761581421]], 1)
    """
    _require_state(state)
    with state.in_use():
        leaves = state._description.tree.leaves(params, "params")
        return _call(leaves, leaves, grads, state, grad_multiplier, learning_rate)


def update(
    params: Any, grads: Any, state: State, *, grad_multiplier: float = 1.0, learning_rate: Any = None
) -> tuple[Any, State, StepReport]:
    """Return new parameters and a new state; write to none of the inputs. For arrays that nobody may write.

    Args:
        params: as for `step`; may be read-only.
        grads: as for `step`.
        state: from `init` or the last `update`; it stays as it is.
        grad_multiplier: as for `step`.
        learning_rate: as for `step`.

    Returns:
        (new parameters in a tree like `params`, new state, `StepReport`). The numbers are those of `step`,
        bit for bit.

    Raises:
        The same as `step`.

    >>> import numpy as np, adafactor
    >>> before = np.ones(3)
    >>> after, state, report = adafactor.update(before, np.array([1.0, -2.0, 0.5]), adafactor.init(before))
    >>> before.tolist(), after.tolist()
    ([1.0, 1.0, 1.0], [0.999, 1.001, 0.999])
    """
    _require_state(state)
    after = state.copy()
    tree = state._description.tree
    with after.in_use():
        leaves = tree.leaves(params, "params")
        # What is not an array is refused by the call, which names it.
        outputs = [
            np.empty_like(leaf, subok=False) if isinstance(leaf, np.ndarray) else leaf for leaf in leaves
        ]
        report = _call(leaves, outputs, grads, after, grad_multiplier, learning_rate)
    return tree.build(params, outputs), after, report


def _require_state(state: Any) -> None:
    if not isinstance(state, State):
        raise TypeError(f"state: {type(state).__name__}, expected what adafactor.init returned")


def _call(
    leaves: list[Any],
    outputs: list[Any],
    grads: Any,
    state: State,
    grad_multiplier: float,
    learning_rate: Any,
) -> StepReport:
    """One call on a state that is held; `outputs` is `leaves` where the step is in place."""
    gradients = state._description.tree.leaves(grads, "grads", allow_none=True)
    multiplier = _multiplier(grad_multiplier)
    if not leaves:
        return empty_report()
    absent = [path for path, gradient in zip(state.paths, gradients, strict=True) if gradient is None]
    if len(absent) == len(leaves):
        raise ValueError("grads: every gradient is None")
    rates = state.rates(learning_rate)
    if absent:
        # Before anything is written, since a filter may make an exception of it.
        _warn_of_absent(absent)
    try:
        summary, nonfinite_leaf, table = state._core.step(leaves, gradients, outputs, rates, multiplier)
    except _core.Error as error:
        raise phrase(error, state.paths) from None
    report = make_report(summary, table, state.paths)
    if report.skipped and state.config.on_nonfinite == "raise":
        raise FloatingPointError(
            _nonfinite_message(state.paths[nonfinite_leaf], gradients[nonfinite_leaf], report)
        )
    return report


def _multiplier(value: Any) -> float:
    multiplier = real_number("grad_multiplier", value)
    if not math.isfinite(multiplier):
        raise ValueError(f"grad_multiplier: {multiplier}, expected a finite number")
    return multiplier


def _warn_of_absent(absent: list[str]) -> None:
    named = ", ".join(absent[:3]) + (f" and {len(absent) - 3} more" if len(absent) > 3 else "")
    warnings.warn(f"grads: no gradient for {named}; left alone", UserWarning, stacklevel=4)


def _nonfinite_message(path: str, gradient: Any, report: StepReport) -> str:
    where = f"grads {path or 'array'}"
    more = int(report.nonfinite.sum()) - 1
    also = f", and {more} more {'leaf' if more == 1 else 'leaves'}" if more else ""
    advice = 'nothing was changed; on_nonfinite="skip" skips such a call, "propagate" lets it through'
    nan = 0 if gradient is None else int(np.isnan(gradient).sum())
    infinite = 0 if gradient is None else int(np.isinf(gradient).sum())
    if nan or infinite:
        return f"{where}: {nan} NaN and {infinite} Inf of {gradient.size} values{also}; {advice}"
    return f"{where}: finite, but the sum of the squares of what the step uses overflows{also}; {advice}"


def state_nbytes(params: Any, config: Config | None = None, /, **knobs: Any) -> int:
    """Bytes that `init` would allocate for its arrays, without allocating them.

    >>> import numpy as np, adafactor
    >>> adafactor.state_nbytes(np.zeros((1024, 512), np.float32))
    6144
    """
    description = describe(params, config, (), knobs)
    return description.plan(description.rows()).state_nbytes


def scratch_nbytes(params: Any, config: Config | None = None, /, **knobs: Any) -> int:
    """Bytes that the first step allocates besides and the state keeps; independent of the number of threads.

    As much as the moments, those of the columns once more, partial sums of at most 2 % of the largest leaf
    (or 64 KiB), and some hundred bytes a leaf.

    >>> import numpy as np, adafactor
    >>> params = np.zeros((1024, 512), np.float32)
    >>> adafactor.scratch_nbytes(params) < 0.05 * params.nbytes
    True
    """
    description = describe(params, config, (), knobs)
    return description.plan(description.rows()).scratch_nbytes


def set_num_threads(n: int) -> None:
    """Let every step use n threads at most; 0 goes back to the default. Results do not depend on it.

    An explicit number wins over OMP_NUM_THREADS, which launchers set to 1. It cannot make threads where there
    are none: a build with serial loops, or a process forked from one that had loaded the package, when the
    threads are OpenMP's (they do not survive a fork).

    >>> import adafactor
    >>> adafactor.set_num_threads(1); adafactor.get_num_threads()
    1
    >>> adafactor.set_num_threads(0)
    """
    number = whole_number("n", n)
    if number < 0:
        raise ValueError(f"n: {number}, expected a whole number >= 0")
    _core.set_num_threads(min(number, 2**30))


def get_num_threads() -> int:
    """How many threads a step may use: what `set_num_threads` chose, else the default.

    The default is what OpenMP says now, so a limit of `threadpoolctl` counts; without OpenMP it is
    OMP_NUM_THREADS as the first step found it, or the number of processors. 1 where there are no threads.

    >>> import adafactor
    >>> adafactor.get_num_threads() >= 1
    True
    """
    return _core.get_num_threads()


def build_info() -> dict[str, Any]:
    """What was built: version, isa (in use), isas (available), threads (kind), num_threads, cuda, compiler.

    >>> import adafactor
    >>> adafactor.build_info()["version"] == adafactor.__version__
    True
    """
    return _core.build_info()
