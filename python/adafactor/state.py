"""State: the moments, averages and counters of a tree of parameters."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adafactor import _core
from adafactor.arrays import library_named, library_of
from adafactor.call import finished, new_like, run
from adafactor.config import Config
from adafactor.errors import phrase
from adafactor.plan import Description, Rows, warn_of_idle
from adafactor.report import StepReport
from adafactor.restoring import as_stored, count, refuse_other_keys
from adafactor.row_rates import RowRates
from adafactor.tree import Tree

__all__ = ["State", "require_state"]


class State:
    """What Adafactor remembers of a tree of parameters; made by `adafactor.init`.

    A state can be pickled and copied (`copy`, `copy.copy` and `copy.deepcopy` are all independent). Formats
    that hold no classes, such as what `torch.load` reads by default, npz and safetensors, take it apart, and
    `restore` puts it together: `arrays()` (or `tensors()`), `calls`, and `leaf_updates` by path, as arrays in
    one flat dict. The example below shows how; docs/guide/start.md does it for each of these formats.

    One call at a time may use a state: a second one, from another thread or from inside a schedule, gets a
    RuntimeError. So does every call in a forked process on a state that another thread was using at that
    moment.

    Attributes:
        paths: the paths of the leaves, in the order of `params` at `init`: a tuple of str.

    >>> import numpy as np, adafactor
    >>> state = adafactor.init({"w": np.zeros((1024, 512), np.float32)}, learning_rate=0.01)
    >>> state.nbytes, state.config.learning_rate, state.iterations, state.calls
    (6144, 0.01, 0, 0)
    >>> flat = {f"{kind}/{path}": array for (path, kind), array in state.arrays().items()}
    >>> flat |= {f"updates/{path}": np.array(n) for path, n in zip(state.paths, state.leaf_updates)}
    >>> sorted(flat)
    ['col/w', 'row/w', 'updates/w']
    >>> again = adafactor.init({"w": np.zeros((1024, 512), np.float32)}, state.config)
    >>> again.restore(state.calls, {("w", kind): flat[f"{kind}/w"] for kind in ("row", "col")}, {"w": 0})
    """

    __slots__ = ("__weakref__", "_core", "_description", "_rates", "_rows", "paths")

    def __init__(self, description: Description) -> None:
        """Make a fresh state of what `describe` found; users call `adafactor.init`."""
        rows = description.rows()
        self._assign(description, rows, rows.rates, _fresh_core(description, rows))

    def _assign(self, description: Description, rows: Rows, rates: RowRates, core: _core.State) -> None:
        self._description, self._rows, self._rates, self._core = description, rows, rates, core
        self.paths: tuple[str, ...] = description.tree.paths

    @property
    def config(self) -> Config:
        """The knobs that `init` was given, a `Config`; its learning rate may have been set since."""
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
    def open_calls(self) -> int:
        """Calls that wait in an open window of accumulation for the others; 0 where none is open."""
        return self._core.open_calls

    @property
    def leaf_updates(self) -> list[int]:
        """Updates of each leaf, in the order of `paths`; they differ where gradients were missing."""
        return [updates for updates, _, _ in self._core.counts]

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
        made = State.__new__(State)
        with self.in_use():
            made._assign(self._description, self._rows, self._rates, self._core.copy())
        return made

    def complete_window(self, params: Any) -> StepReport:
        """Make the update of an open window of accumulation, at the end of an epoch, from what it has.

        The mean is that over the calls which the window had; the others count as made, so that the next call
        begins a window. Without an open window nothing is done, as `updated` says.

        Args:
            params: as for `step`; written in place.

        Returns:
            A `StepReport`. Raises what `step` raises.

        >>> import numpy as np, adafactor
        >>> params = np.ones(3)
        >>> state = adafactor.init(params, learning_rate=0.1, gradient_accumulation_steps=4)
        >>> for _ in range(6):
        ...     report = adafactor.step(params, np.ones(3), state)
        >>> state.open_calls, state.complete_window(params).updated, state.open_calls
        (2, True, 0)
        >>> state.iterations, state.calls, params.round(3).tolist()
        (2, 8, [0.81, 0.81, 0.81])
        """
        with self.in_use():
            leaves = self.tree.leaves(params, "params")
            return self.complete_leaves(leaves, leaves, "state.completed_window")

    def completed_window(self, params: Any) -> tuple[Any, State, StepReport]:
        """Do the same as `complete_window`, but return new parameters and a new state and write to neither.

        Args:
            params: as for `update`.

        Returns:
            (new parameters in a tree like `params`, new state, `StepReport`).

        >>> import numpy as np, adafactor
        >>> params = np.ones(3)
        >>> state = adafactor.init(params, learning_rate=0.1, gradient_accumulation_steps=4)
        >>> params, state, report = adafactor.update(params, np.ones(3), state)
        >>> params, state, report = state.completed_window(params)
        >>> params.tolist(), state.calls
        ([0.9, 0.9, 0.9], 4)
        """
        after = self.copy()
        with after.in_use():
            leaves = self.tree.leaves(params, "params")
            outputs = new_like(leaves, after)
            report = after.complete_leaves(leaves, outputs)
        return self.tree.build(params, finished(outputs, leaves)), after, report

    def complete_leaves(self, leaves: list[Any], outputs: list[Any], twin: str = "") -> StepReport:
        """The same for arrays in the order of `paths`; the caller holds the state."""
        return run(self, leaves, outputs, [None] * len(leaves), completes=True, twin=twin, depth=2)

    def drop_window(self) -> None:
        """Forget the calls of an open window of accumulation; without one do nothing.

        `calls` goes back to what it was when the window began.

        Raises:
            RuntimeError: a call uses the state.

        >>> import numpy as np, adafactor
        >>> params = np.ones(3)
        >>> state = adafactor.init(params, gradient_accumulation_steps=4)
        >>> for _ in range(6):
        ...     report = adafactor.step(params, np.ones(3), state)
        >>> state.drop_window(); state.iterations, state.calls
        (1, 4)
        """
        with self.in_use():
            self._core.drop_window()

    def finalize(self, params: Any) -> None:
        """Copy the averages into the parameters: what Keras calls `finalize_variable_values`.

        Args:
            params: the tree of parameters; written in place. `finalized` returns new ones.

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
        with self.in_use():
            self.finalize_leaves(self.tree.leaves(params, "params"))

    def finalized(self, params: Any) -> Any:
        """Return new parameters that hold the averages, and write to none.

        Args:
            params: as for `finalize`; may be read-only, and arrays of JAX.

        Returns:
            A tree like `params`, of arrays as `update` returns them. Raises what `finalize` raises.

        >>> import numpy as np, adafactor
        >>> params = np.ones(2)
        >>> state = adafactor.init(params, learning_rate=0.5, use_ema=True, ema_momentum=0.5)
        >>> params, state, report = adafactor.update(params, np.ones(2), state)
        >>> state.finalized(params).tolist()
        [0.5, 0.5]
        """
        leaves = self.tree.leaves(params, "params")
        with self.in_use():
            outputs = new_like(leaves, self)
            self.finalize_leaves(outputs)
        return self.tree.build(params, finished(outputs, leaves))

    def finalize_leaves(self, leaves: list[Any], twin: str = "state.finalized") -> None:
        """The same as `finalize` for arrays in the order of `paths`; the caller holds the state."""
        if not self.config.use_ema:
            raise ValueError("finalize: there are no averages without use_ema=True")
        if self.iterations == 0:
            raise ValueError("finalize: the averages are empty before the first update")
        self.check_params(leaves, twin=twin)
        averages = [array for (_, kind), array in self._arrays().items() if kind == "average"]
        for index, leaf in enumerate(leaves):
            library_of(leaf).assign(leaf, averages[index])

    def check_params(self, leaves: list[Any], written: bool = True, twin: str = "adafactor.update") -> None:
        """Raise where a step would not take these arrays as parameters; the caller holds the state.

        Args:
            leaves: arrays in the order of `paths`.
            written: whether they are to be written.
            twin: as in `phrase`.
        """
        try:
            self._core.check_params(leaves, written)
        except _core.Error as error:
            raise phrase(error, self.paths, twin=twin) from None

    def restore(self, calls: int, tensors: Mapping[tuple[str, str], Any], updates: Any = None) -> None:
        """Become a state of the same parameters and knobs that was taken apart: its counter and its arrays.

        All is checked before anything is written. In an open window of accumulation a leaf has gathered
        something if its accumulator is not zero.

        Args:
            calls: its `calls`, at least 0.
            tensors: what its `tensors()` returned, or copies of these arrays; other real numbers are
                converted, except those of a momentum in bfloat16, of which the bits are taken.
            updates: how many each leaf has had, for `count_updates="leaf"`: a whole number by path, or one
                for each in the order of `paths`. None: as many as the state.

        Raises:
            TypeError: an array does not hold real numbers.
            ValueError: a counter below 0, an array that is missing, unknown, or of another shape; a NaN, an
                Inf, or a moment below 0, unless `on_nonfinite="propagate"` let it in.
            RuntimeError: a call uses the state.

        >>> import numpy as np, adafactor
        >>> params = {"w": np.ones((2, 3), np.float32)}
        >>> state, other = adafactor.init(params), adafactor.init(params)
        >>> adafactor.step(params, {"w": np.ones((2, 3), np.float32)}, state).updated
        True
        >>> updates = dict(zip(state.paths, state.leaf_updates))
        >>> other.restore(state.calls, state.tensors(), updates); other
        State(1 leaf, 20 bytes, 1 update)
        """
        window = self.config.gradient_accumulation_steps or 1
        calls = count("calls", calls)
        counts = [calls // window] * len(self.paths)
        if isinstance(updates, Mapping):
            refuse_other_keys("updates", updates, self.paths)
            updates = [updates[path] for path in self.paths]
        if updates is not None:
            counts = [count("updates", value) for value in updates]
            if len(counts) != len(self.paths):
                raise ValueError(f"updates: {len(counts)} numbers, expected {len(self.paths)}")
        with self.in_use():
            own = self.arrays()
            refuse_other_keys("tensors", tensors, own)
            finite = self.config.on_nonfinite != "propagate"
            arrays = {key: as_stored(tensors[key], array, key, finite) for key, array in own.items()}
            for key, array in arrays.items():
                own[key][...] = array
            gathered = [calls % window != 0 and bool(own[path, "accumulator"].any()) for path in self.paths]
            self._core.updates, self._core.calls = calls // window, calls
            self._core.counts = [(n, has, False) for n, has in zip(counts, gathered, strict=True)]

    def set_learning_rate(self, learning_rate: Any) -> None:
        """Go on with another learning rate than the config has; everything else stays.

        Args:
            learning_rate: as in `Config`, for the config and all overrides: one with a rate of its own gets
                this times the ratio of its rate to the config's at `init`, so that 0 stays 0. Or a sequence
                with one for the config and one for each override.

        Raises:
            TypeError, ValueError: as `Config`; a ValueError for one rate where an override has one of its own
                and there is no ratio, since the config's was 0 or one of the two a schedule or a callable.
            RuntimeError: a call uses the state.

        >>> import numpy as np, adafactor
        >>> state = adafactor.init(np.zeros(3), learning_rate=0.1)
        >>> state.set_learning_rate(0.01); state.config.learning_rate
        0.01
        """
        with self.in_use():
            rates = self._rates.replace(learning_rate)
            # The core takes the rates with each call, so that its plan stays the same.
            config = self.config.replace(learning_rate=rates.rates[0])
            self._description, self._rates = dataclasses.replace(self._description, config=config), rates

    def warn_of_idle_patterns(self, depth: int) -> None:
        """Warn of patterns that find no leaf; `depth` functions stand between the user's line and this."""
        warn_of_idle(self._rows, self.paths, depth + 1)

    def in_use(self) -> contextlib.AbstractContextManager[None]:
        """What holds the state in a `with`, for one call; RuntimeError there if another call holds it."""
        return self._core

    def rates(self, learning_rate: Any) -> list[tuple[float, bool]]:
        """The learning rate of this call and whether it was scheduled, for each of the core's rows."""
        by_row = self._rates.at_call(self.calls, learning_rate)
        return [by_row[row] for row in self._rows.of_core]

    def __copy__(self) -> State:
        """The same as `copy`."""
        return self.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> State:
        """The same as `copy`, and a schedule of your own is copied too."""
        made = self.copy()
        made._assign(*copy.deepcopy((self._description, self._rows, self._rates), memo), made._core)
        return made

    def __getstate__(self) -> dict[str, Any]:
        """What pickle keeps: the description, the rates, the bytes of the arrays and the counters."""
        with self.in_use():
            return {
                "description": self._description,
                "rates": self._rates,
                "memory": self._core.memory().tobytes(),
                "updates": self._core.updates,
                "calls": self._core.calls,
                "counts": self._core.counts,
                "skips": self._core.skips,
            }

    def __setstate__(self, kept: dict[str, Any]) -> None:
        """Build the plan again and fill it."""
        description = kept["description"]
        rows = description.rows()
        self._assign(description, rows, kept["rates"], _fresh_core(description, rows))
        self._core.memory()[...] = np.frombuffer(kept["memory"], np.uint8)
        self._core.updates = kept["updates"]
        self._core.calls = kept["calls"]
        # The first versions kept two numbers of each leaf, and no skips.
        self._core.counts = [
            (updates, gathered, *(rest or [False])) for updates, gathered, *rest in kept["counts"]
        ]
        self._core.skips = kept.get("skips", 0)

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


def _fresh_core(description: Description, rows: Rows) -> _core.State:
    plan = description.plan(rows)
    try:
        return _core.State(plan)
    except _core.Error as error:
        raise phrase(error) from None
    except MemoryError:
        raise MemoryError(f"init: no memory for a state of {plan.state_nbytes:,} bytes") from None


def require_state(state: Any) -> None:
    """Raise a TypeError where the state of a call is something else."""
    if not isinstance(state, State):
        raise TypeError(f"state: {type(state).__name__}, expected what adafactor.init(params) returned")
