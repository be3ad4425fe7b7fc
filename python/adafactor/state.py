"""State: the moments, averages and counters of a tree of parameters."""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adafactor import _core
from adafactor.config import Config, checked_rate, real_number
from adafactor.errors import phrase
from adafactor.plan import Description
from adafactor.schedules import LearningRateSchedule

__all__ = ["State"]


class State:
    """What Adafactor remembers of a tree of parameters; made by `adafactor.init`.

    A state can be pickled and copied (`copy`, `copy.copy` and `copy.deepcopy` are all independent). One call
    at a time may use it: a second one, from another thread or from inside a schedule, gets a RuntimeError.
    So does every call in a forked process on a state that another thread was using at that moment.

    Attributes:
        config: the knobs.
        paths: the paths of the leaves, in the order of `params` at `init`.
        iterations: updates made.
        calls: calls that counted; more than `iterations` under gradient accumulation. A call that raised or
            was skipped does not count.
        nbytes: bytes of all its arrays together.

    >>> import numpy as np, adafactor
    >>> adafactor.init({"w": np.zeros((1024, 512), np.float32)}).nbytes
    6144
    """

    def __init__(self, description: Description) -> None:
        """Make a fresh state of what `describe` found; users call `adafactor.init`."""
        self._build(description, None)

    def _build(self, description: Description, core: _core.State | None) -> None:
        self._description = description
        self._rows = description.rows()
        self._core = core or _core.State(description.plan(self._rows))
        self.paths: tuple[str, ...] = description.tree.paths

    @property
    def config(self) -> Config:
        """The knobs that `init` was given."""
        return self._description.config

    @property
    def iterations(self) -> int:
        """Updates made."""
        return self._core.updates

    @property
    def calls(self) -> int:
        """Calls that counted."""
        return self._core.calls

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays of the state together."""
        return self._core.plan.state_nbytes

    def tensors(self) -> dict[tuple[str, str], NDArray[Any]]:
        """Return every array of the state by (path, kind), without a copy.

        Kinds are `row` (the leaf's shape without the column axis), `col` (without the row axis), `full`,
        `momentum`, `average` and `accumulator` (the leaf's shape). They are float32, or float64 for a
        float64 leaf; a bfloat16 momentum is an `ml_dtypes.bfloat16` array where that package is loaded, its
        bits as uint16 otherwise. Writing into them changes the state.

        >>> import numpy as np, adafactor
        >>> state = adafactor.init({"w": np.zeros((3, 4, 5), np.float32), "b": np.zeros(5, np.float32)})
        >>> {key: array.shape for key, array in state.tensors().items()}
        {('w', 'row'): (3, 4), ('w', 'col'): (3, 5), ('b', 'full'): (5,)}
        """
        arrays = {}
        for leaf, path in enumerate(self.paths):
            for kind in _core.state_kinds:
                array = self._core.array(leaf, kind)
                if array is not None:
                    arrays[path, kind] = _with_bfloat16(array) if array.dtype == np.uint16 else array
        return arrays

    def copy(self) -> State:
        """Return an independent copy; RuntimeError while a call uses this one."""
        with self.in_use():
            return self._wrap(self._core.copy())

    def finalize(self, params: Any) -> None:
        """Copy the averages into the parameters: what Keras calls `finalize_variable_values`.

        Args:
            params: the tree of parameters; written in place.

        Raises:
            ValueError: the config has no `use_ema`, no update was made yet, or the tree is another.
            TypeError, BufferError: an array is not what a step would take.
        """
        if not self.config.use_ema:
            raise ValueError("finalize: there are no averages without use_ema=True")
        if self.iterations == 0:
            raise ValueError("finalize: the averages are empty before the first update")
        with self.in_use():
            leaves = self._description.tree.leaves(params, "params")
            try:
                self._core.check_params(leaves)
            except _core.Error as error:
                raise phrase(error, self.paths) from None
            for index, leaf in enumerate(leaves):
                leaf[...] = self._core.array(index, "average")

    def in_use(self) -> contextlib.AbstractContextManager[None]:
        """What holds the state in a `with`, for one call; RuntimeError there if another call holds it."""
        return self._core

    def rates(self, learning_rate: Any) -> list[tuple[float, bool]]:
        """The learning rate of this call and whether it was scheduled, for each of the core's rows.

        Each schedule and each callable is evaluated once, however many rows share it.
        """
        if learning_rate is None:
            evaluated: dict[int, tuple[float, bool]] = {}
            by_row = [self._evaluate(config.learning_rate, evaluated) for config in self._rows.configs]
        else:
            by_row = [(rate, True) for rate in self._given_rates(learning_rate)]
        return [by_row[row] for row in self._rows.of_core]

    def _evaluate(
        self,
        rate: float | LearningRateSchedule | Callable[[], float],
        evaluated: dict[int, tuple[float, bool]],
    ) -> tuple[float, bool]:
        if not callable(rate):
            return rate, False
        if id(rate) not in evaluated:
            if isinstance(rate, LearningRateSchedule):
                evaluated[id(rate)] = checked_rate("learning_rate", rate(self.calls)), True
            else:
                evaluated[id(rate)] = checked_rate("learning_rate", rate()), True
        return evaluated[id(rate)]

    def _given_rates(self, learning_rate: Any) -> list[float]:
        count = len(self._rows.configs)
        if isinstance(learning_rate, list | tuple) or getattr(learning_rate, "ndim", 0) == 1:
            if len(learning_rate) != count:
                raise ValueError(f"learning_rate: {len(learning_rate)} rates, expected one or {count}")
            return [_given_rate(rate) for rate in learning_rate]
        return [_given_rate(learning_rate)] * count

    def _wrap(self, core: _core.State) -> State:
        state = State.__new__(State)
        state._build(self._description, core)
        return state

    def __copy__(self) -> State:
        """The same as `copy`."""
        return self.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> State:
        """The same as `copy`, and a schedule of your own is copied too."""
        with self.in_use():
            core = self._core.copy()
        state = State.__new__(State)
        state._build(copy.deepcopy(self._description, memo), core)
        return state

    def __getstate__(self) -> dict[str, Any]:
        """What pickle keeps: the description, the bytes of the arrays and the counters."""
        with self.in_use():
            return {
                "description": self._description,
                "memory": self._core.memory().tobytes(),
                "updates": self._core.updates,
                "calls": self._core.calls,
                "counts": self._core.counts,
            }

    def __setstate__(self, kept: dict[str, Any]) -> None:
        """Build the plan again and fill it."""
        self._build(kept["description"], None)
        self._core.memory()[...] = np.frombuffer(kept["memory"], np.uint8)
        self._core.updates = kept["updates"]
        self._core.calls = kept["calls"]
        self._core.counts = kept["counts"]

    def __repr__(self) -> str:
        """Leaves, bytes and updates."""
        leaves = f"{len(self.paths)} leaf" if len(self.paths) == 1 else f"{len(self.paths)} leaves"
        updates = f"{self.iterations} update" if self.iterations == 1 else f"{self.iterations} updates"
        return f"State({leaves}, {self.nbytes:,} bytes, {updates})"


def _given_rate(value: Any) -> float:
    return checked_rate("learning_rate", real_number("learning_rate", value))


def _with_bfloat16(bits: NDArray[Any]) -> NDArray[Any]:
    ml_dtypes = sys.modules.get("ml_dtypes")
    return bits.view(ml_dtypes.bfloat16) if ml_dtypes else bits
