"""State: the moments, averages and counters of a tree of parameters."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from adafactor.config import Config
from adafactor.engine.call import anew, complete_window
from adafactor.engine.engine import Engine
from adafactor.report import StepReport

__all__ = ["State", "engine_of"]


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

    __slots__ = ("__weakref__", "_engine")

    _engine: Engine

    def __init__(self, engine: Engine) -> None:
        """Give an engine the words for users; they call `adafactor.init`."""
        object.__setattr__(self, "_engine", engine)

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths of the leaves, in the order of `params` at `init`."""
        return self._engine.paths

    @property
    def config(self) -> Config:
        """The knobs that `init` was given, a `Config`; its learning rate may have been set since."""
        return self._engine.config

    @property
    def iterations(self) -> int:
        """Updates made, from 0. A call that raised, was skipped or only accumulated is none."""
        return self._engine.core.updates

    @property
    def calls(self) -> int:
        """Calls that counted, from 0; more than `iterations` under gradient accumulation.

        A schedule is asked at this number. A call that raised or was skipped does not count.
        """
        return self._engine.core.calls

    @property
    def open_calls(self) -> int:
        """Calls that wait in an open window of accumulation for the others; 0 where none is open."""
        return self._engine.core.open_calls

    @property
    def leaf_updates(self) -> list[int]:
        """Updates of each leaf, in the order of `paths`; they differ where gradients were missing."""
        return [updates for updates, _, _ in self._engine.core.counters[3]]

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays of the state together, as `state_nbytes` foretells."""
        return self._engine.core.plan.state_nbytes

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
        return self._engine.handed_out()

    def arrays(self) -> dict[tuple[str, str], NDArray[Any]]:
        """Return the same as arrays of NumPy, whatever the parameters are: the memory itself, never a copy.

        Only of a state on a GPU these are copies, made when all calls are done.

        >>> import numpy as np, adafactor
        >>> state = adafactor.init(np.zeros((3, 4), np.float32))
        >>> {kind: type(array).__name__ for (_, kind), array in state.arrays().items()}
        {'row': 'ndarray', 'col': 'ndarray'}
        """
        return self._engine.handed_out("numpy")

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
        return State(self._engine.copy())

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
        engine = self._engine
        with engine.in_use():
            leaves = engine.tree.leaves(params, "params")
            return complete_window(engine, leaves, leaves, "state.completed_window")

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
        after = self._engine.copy()
        params, report = anew(after, params, functools.partial(complete_window, after))
        return params, State(after), report

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
        with self._engine.in_use():
            self._engine.core.drop_window()

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
        with self._engine.in_use():
            self._engine.finalize(self._engine.tree.leaves(params, "params"))

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
        return anew(self._engine, params, lambda _, outputs: self._engine.finalize(outputs))[0]

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
        with self._engine.in_use():
            self._engine.fill(self._engine.snapshot().with_parts(calls, tensors, updates))

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
        with self._engine.in_use():
            self._engine.set_learning_rate(learning_rate)

    def __copy__(self) -> State:
        """The same as `copy`."""
        return self.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> State:
        """The same as `copy`, and a schedule of your own is copied too."""
        return State(copy.deepcopy(self._engine, memo))

    def __getstate__(self) -> dict[str, Any]:
        """What pickle keeps."""
        with self._engine.in_use():
            return {"snapshot": self._engine.snapshot().copied()}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        """Make the state anew."""
        engine = Engine.of(kept["snapshot"]) if "snapshot" in kept else Engine.of_earlier(kept)
        object.__setattr__(self, "_engine", engine)

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse to set what a state does not have: it would change nothing."""
        raise AttributeError(
            f"{name}: cannot be set in a state; knobs are given to init, "
            "the learning rate of one call to step or update"
        )

    def __repr__(self) -> str:
        """Leaves, bytes and updates."""
        leaves = f"{len(self.paths)} leaf" if len(self.paths) == 1 else f"{len(self.paths)} leaves"
        updates = f"{self.iterations} update" if self.iterations == 1 else f"{self.iterations} updates"
        return f"State({leaves}, {self.nbytes:,} bytes, {updates})"


def engine_of(state: Any) -> Engine:
    """What the calls of a state work on; TypeError where the state of a call is something else."""
    if not isinstance(state, State):
        raise TypeError(f"state: {type(state).__name__}, expected what adafactor.init(params) returned")
    return state._engine
