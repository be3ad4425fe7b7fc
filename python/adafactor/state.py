"""State: the moments, averages and counters of a tree of parameters."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adafactor import _core
from adafactor.arrays import as_numpy, library_named, library_of
from adafactor.config import Config, checked_rate, exact_whole_number, rate_of_call, real_number
from adafactor.errors import phrase
from adafactor.paths import at
from adafactor.plan import Description
from adafactor.schedules import LearningRateSchedule
from adafactor.tree import Tree

__all__ = ["State"]


class State:
    """What Adafactor remembers of a tree of parameters; made by `adafactor.init`.

    A state can be pickled and copied (`copy`, `copy.copy` and `copy.deepcopy` are all independent). One call
    at a time may use it: a second one, from another thread or from inside a schedule, gets a RuntimeError.
    So does every call in a forked process on a state that another thread was using at that moment.

    Attributes:
        paths: the paths of the leaves, in the order of `params` at `init`: a tuple of str.

    >>> import numpy as np, adafactor
    >>> state = adafactor.init({"w": np.zeros((1024, 512), np.float32)}, learning_rate=0.01)
    >>> state.nbytes, state.config.learning_rate, state.iterations, state.calls
    (6144, 0.01, 0, 0)
    """

    __slots__ = ("__weakref__", "_core", "_description", "_rows", "paths")

    def __init__(self, description: Description) -> None:
        """Make a fresh state of what `describe` found; users call `adafactor.init`."""
        self._build(description, None)

    def _build(self, description: Description, core: _core.State | None) -> None:
        self._description = description
        self._rows = description.rows()
        self._core = core or self._fresh_core()
        self.paths: tuple[str, ...] = description.tree.paths

    def _fresh_core(self) -> _core.State:
        plan = self._description.plan(self._rows)
        try:
            return _core.State(plan)
        except _core.Error as error:
            raise phrase(error) from None
        except MemoryError:
            raise MemoryError(f"init: no memory for a state of {plan.state_nbytes:,} bytes") from None

    @property
    def config(self) -> Config:
        """The knobs that `init` was given, a `Config`."""
        return self._description.config

    @property
    def tree(self) -> Tree:
        """The structure of `params` at `init`, without its arrays."""
        return self._description.tree

    @property
    def iterations(self) -> int:
        """Updates made, from 0. A call that raised, was skipped or only accumulated is none."""
        return self._core.updates

    @property
    def calls(self) -> int:
        """Calls that counted, from 0; more than `iterations` under gradient accumulation.

        A schedule is asked at this number. A call that raised or was skipped does not count.
        """
        return self._core.calls

    @property
    def leaf_updates(self) -> list[int]:
        """Updates of each leaf, which differ where gradients were missing."""
        return [updates for updates, _ in self._core.counts]

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays of the state together, as `state_nbytes` foretells."""
        return self._core.plan.state_nbytes

    def tensors(self) -> dict[tuple[str, str], Any]:
        """Return every array of the state by (path, kind), in the library of its parameter, without a copy.

        Kinds are `row` (the leaf's shape without the column axis), `col` (without the row axis), `full`,
        `momentum`, `average` and `accumulator` (the leaf's shape). They are float32, or float64 for a
        float64 leaf; in NumPy a bfloat16 momentum is an `ml_dtypes.bfloat16` array where that package is
        loaded, its bits as uint16 otherwise. Writing into them changes the state; those of JAX, which cannot
        be written, are copies.

        >>> import numpy as np, adafactor
        >>> state = adafactor.init({"w": np.zeros((3, 4, 5), np.float32), "b": np.zeros(5, np.float32)})
        >>> {key: array.shape for key, array in state.tensors().items()}
        {('w', 'row'): (3, 4), ('w', 'col'): (3, 5), ('b', 'full'): (5,)}
        """
        library = dict(zip(self.paths, map(library_named, self._description.libraries), strict=True))
        return {key: library[key[0]].handed_out(array) for key, array in self._arrays().items()}

    def arrays(self) -> dict[tuple[str, str], NDArray[Any]]:
        """Return the same as arrays of NumPy, whatever the parameters are: the memory itself, never a copy.

        >>> import numpy as np, adafactor
        >>> state = adafactor.init(np.zeros((3, 4), np.float32))
        >>> {kind: type(array).__name__ for (_, kind), array in state.arrays().items()}
        {'row': 'ndarray', 'col': 'ndarray'}
        """
        numpy = library_named("numpy")
        return {key: numpy.handed_out(array) for key, array in self._arrays().items()}

    def _arrays(self) -> dict[tuple[str, str], NDArray[Any]]:
        pieces = itertools.product(enumerate(self.paths), _core.state_kinds)
        found = {(path, kind): self._core.array(leaf, kind) for (leaf, path), kind in pieces}
        return {key: array for key, array in found.items() if array is not None}

    def copy(self) -> State:
        """Return an independent copy; it goes on as this one would, bit for bit.

        Raises:
            RuntimeError: a call uses this one.

        >>> import numpy as np, adafactor
        >>> params = np.ones(3)
        >>> state = adafactor.init(params)
        >>> before = state.copy()
        >>> adafactor.step(params, np.ones(3), state).updated, state.iterations, before.iterations
        (True, 1, 0)
        """
        with self.in_use():
            return self._wrap(self._core.copy())

    def finalize(self, params: Any) -> None:
        """Copy the averages into the parameters: what Keras calls `finalize_variable_values`.

        Args:
            params: the tree of parameters; written in place.

        Raises:
            ValueError: the config has no `use_ema`, no update was made yet, or the tree is another.
            TypeError, BufferError: an array is not what a step would take.

        >>> import numpy as np, adafactor
        >>> params = np.ones(2)
        >>> state = adafactor.init(params, learning_rate=0.5, use_ema=True, ema_momentum=0.5)
        >>> for _ in range(2):
        ...     report = adafactor.step(params, np.ones(2), state)
        >>> before = params.tolist()
        >>> state.finalize(params)
        >>> before, params.tolist()
        ([0.25, 0.25], [0.375, 0.375])
        """
        self.finalize_leaves(self.tree.leaves(params, "params"))

    def finalize_leaves(self, leaves: list[Any]) -> None:
        """The same for arrays in the order of `paths`."""
        if not self.config.use_ema:
            raise ValueError("finalize: there are no averages without use_ema=True")
        if self.iterations == 0:
            raise ValueError("finalize: the averages are empty before the first update")
        with self.in_use():
            self.check_params(leaves)
            averages = [array for (_, kind), array in self._arrays().items() if kind == "average"]
            for index, leaf in enumerate(leaves):
                library_of(leaf).assign(leaf, averages[index])

    def check_params(self, leaves: list[Any], written: bool = True) -> None:
        """Raise where a step would not take these arrays as parameters; the caller holds the state.

        Args:
            leaves: arrays in the order of `paths`.
            written: whether they are to be written.
        """
        try:
            self._core.check_params(leaves, written)
        except _core.Error as error:
            raise phrase(error, self.paths) from None

    def restore(self, calls: int, tensors: Mapping[tuple[str, str], Any], updates: Any = None) -> None:
        """Become a state of the same parameters and knobs that was taken apart: its counter and its arrays.

        All is checked before anything is written. In an open window of accumulation a leaf has gathered
        something if its accumulator is not zero.

        Args:
            calls: its `calls`, at least 0.
            tensors: what its `tensors()` returned, or copies of these arrays; other real numbers are
                converted, except those of a momentum in bfloat16, of which the bits are taken.
            updates: how many each leaf has had, a whole number for each, for `count_updates="leaf"`. None:
                as many as the state.

        Raises:
            TypeError: an array does not hold real numbers.
            ValueError: a counter below 0, an array that is missing, unknown, or of another shape.
            RuntimeError: a call uses the state.

        >>> import numpy as np, adafactor
        >>> params = {"w": np.ones((2, 3), np.float32)}
        >>> state, other = adafactor.init(params), adafactor.init(params)
        >>> adafactor.step(params, {"w": np.ones((2, 3), np.float32)}, state).updated
        True
        >>> other.restore(state.calls, state.tensors()); other
        State(1 leaf, 20 bytes, 1 update)
        """
        window = self.config.gradient_accumulation_steps or 1
        calls = _count("calls", calls)
        counts = [calls // window] * len(self.paths)
        if updates is not None:
            counts = [_count("updates", count) for count in updates]
            if len(counts) != len(self.paths):
                raise ValueError(f"updates: {len(counts)} numbers, expected {len(self.paths)}")
        with self.in_use():
            own = self.arrays()
            for path, kind in sorted(tensors.keys() ^ own.keys()):
                problem = "missing" if (path, kind) in own else "not in the state"
                raise ValueError(f"{at('tensors', path)} {kind}: {problem}")
            arrays = {key: _as_stored(tensors[key], array, key) for key, array in own.items()}
            for key, array in arrays.items():
                own[key][...] = array
            gathered = [calls % window != 0 and bool(own[path, "accumulator"].any()) for path in self.paths]
            self._core.updates, self._core.calls = calls // window, calls
            self._core.counts = list(zip(counts, gathered, strict=True))

    def set_learning_rate(self, learning_rate: Any) -> None:
        """Go on with another learning rate than the config has; everything else stays.

        Args:
            learning_rate: as in `Config`.

        Raises:
            TypeError, ValueError: as `Config`.
            RuntimeError: a call uses the state.

        >>> import numpy as np, adafactor
        >>> state = adafactor.init(np.zeros(3), learning_rate=0.1)
        >>> state.set_learning_rate(0.01); state.config.learning_rate
        0.01
        """
        with self.in_use():
            config = self.config.replace(learning_rate=learning_rate)
            # The core takes the rate with each call, so that its plan stays the same.
            self._description = dataclasses.replace(self._description, config=config)
            self._rows = self._description.rows()

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
            evaluated[id(rate)] = rate_of_call(rate, self.calls), True
        return evaluated[id(rate)]

    def _given_rates(self, learning_rate: Any) -> list[float]:
        count = len(self._rows.configs)
        if isinstance(learning_rate, list | tuple) or getattr(learning_rate, "ndim", 0) == 1:
            if len(learning_rate) != count:
                expected = "one" if count == 1 else f"one or {count}"
                raise ValueError(f"learning_rate: {len(learning_rate)} rates, expected {expected}")
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

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse to set what a state does not have: it would change nothing."""
        try:
            super().__setattr__(name, value)
        except AttributeError:
            raise AttributeError(
                f"{name}: cannot be set in a state; knobs are given to init, "
                "the learning rate of one call to step or update"
            ) from None

    def __repr__(self) -> str:
        """Leaves, bytes and updates."""
        leaves = f"{len(self.paths)} leaf" if len(self.paths) == 1 else f"{len(self.paths)} leaves"
        updates = f"{self.iterations} update" if self.iterations == 1 else f"{self.iterations} updates"
        return f"State({leaves}, {self.nbytes:,} bytes, {updates})"


def _count(name: str, value: Any) -> int:
    count = exact_whole_number(name, value)
    if count < 0:
        raise ValueError(f"{name}: {count}, expected a whole number >= 0")
    return count


def _as_stored(value: Any, like: NDArray[Any], key: tuple[str, str]) -> NDArray[Any]:
    """A value as an array that can be written over `like`; raises where it cannot.

    Bits of bfloat16 count as such whether they come as uint16, as `ml_dtypes.bfloat16` or as raw bytes.
    """
    path, kind = key
    where = f"{at('tensors', path)} {kind}"
    array = _numbers(value)
    if array.shape != like.shape:
        raise ValueError(f"{where}: shape {array.shape}, expected {like.shape}")
    if like.dtype.itemsize == 2:
        if array.dtype.itemsize != 2 or array.dtype == np.float16:
            raise TypeError(f"{where}: dtype {array.dtype}, expected bfloat16 or its bits as uint16")
        return np.ascontiguousarray(array).view(like.dtype).reshape(like.shape)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{where}: dtype {array.dtype}, expected {like.dtype}")
    return array.astype(like.dtype)


def _numbers(value: Any) -> NDArray[Any]:
    """Any array as one of NumPy, of bfloat16 in another library the bits."""
    try:
        return as_numpy(value)
    except _core.Error:
        return np.asarray(value)


def _given_rate(value: Any) -> float:
    return checked_rate("learning_rate:", real_number("learning_rate", value))
