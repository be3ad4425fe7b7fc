"""A state in the order of its leaves: the rows of knobs, their learning rates, and the core's memory."""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adafactor import _core
from adafactor.arrays import CPU, Library, library_named, library_of
from adafactor.config import Config
from adafactor.engine.leaves import Description
from adafactor.engine.rates import RowRates
from adafactor.engine.rows import Rows, warn_of_idle
from adafactor.engine.snapshot import Counters, Snapshot
from adafactor.errors import phrase
from adafactor.report import StepReport
from adafactor.trees.tree import Tree

__all__ = ["Engine"]


class Engine:
    """What the calls of a state work on; `adafactor.State` is this with the words for users.

    Attributes:
        core: the core's state: moments, averages, counters, and who holds it.
        paths: the paths of the leaves, in their order.
        late: the report of the last call, if a GPU may still be at it.
    """

    __slots__ = ("_description", "_rates", "_rows", "core", "late", "paths")

    core: _core.State
    paths: tuple[str, ...]
    late: StepReport | None

    def __init__(self, description: Description) -> None:
        """Make a fresh state of what was described."""
        rows = description.rows()
        self._assign(description, rows, rows.rates, _fresh_core(description, rows))

    def _assign(self, description: Description, rows: Rows, rates: RowRates, core: _core.State) -> None:
        self._description, self._rows, self._rates, self.core = description, rows, rates, core
        self.paths = description.tree.paths
        self.late = None

    @property
    def config(self) -> Config:
        """The knobs, with the learning rate that holds now."""
        return self._description.config

    @property
    def tree(self) -> Tree:
        """The structure of the parameters, without their arrays."""
        return self._description.tree

    def in_use(self) -> contextlib.AbstractContextManager[None]:
        """What holds the state in a `with`, for one call; RuntimeError there if another call holds it."""
        return self.core

    def warn_of_idle_patterns(self) -> None:
        """Warn of patterns that find no leaf."""
        warn_of_idle(self._rows, self.paths)

    def rates(self, learning_rate: Any) -> list[tuple[float, bool]]:
        """The learning rate of this call and whether it was scheduled, for each of the core's rows."""
        constant = self._rates.constant if learning_rate is None else None
        by_row = constant or self._rates.at_call(self.core.calls, learning_rate)
        return [by_row[row] for row in self._rows.of_core]

    def set_learning_rate(self, learning_rate: Any) -> None:
        """Go on with another rate, or with one for each row; the caller holds the state."""
        rates = self._rates.replace(learning_rate)
        # The core takes the rates with each call, so that its plan stays the same.
        self._description, self._rates = self._description.with_rate(rates.rates[0]), rates

    def check_params(
        self, leaves: Sequence[Any], written: bool = True, twin: str = "adafactor.update"
    ) -> None:
        """Raise where a step would not take these arrays as parameters; the caller holds the state.

        Args:
            leaves: arrays in the order of `paths`.
            written: whether they are to be written.
            twin: as in `phrase`.
        """
        try:
            self.core.check_params(list(leaves), written)
        except _core.Error as error:
            raise phrase(error, self.paths, twin=twin) from None

    @property
    def device(self) -> str:
        """Where the state and its parameters lie: "cpu", or as "cuda:0"."""
        return self._description.device

    def library_of(self, leaf: Any) -> Library:
        """The module for an array that a call hands in."""
        return library_of(leaf, self.device)

    def arrays(self) -> dict[tuple[str, str], NDArray[Any]]:
        """Every array by (path, kind); what is stored in 16 bits comes as these bits.

        The memory itself; of a state on a device, which the caller holds, a copy.
        """
        return self._arrays_in(self.core.memory())

    def _arrays_in(self, memory: NDArray[np.uint8]) -> dict[tuple[str, str], NDArray[Any]]:
        return self._pieces(lambda leaf, kind: self.core.array(leaf, kind, memory))

    def _pieces(self, piece: Callable[[int, str], Any]) -> dict[tuple[str, str], Any]:
        pieces = itertools.product(enumerate(self.paths), _core.state_kinds)
        found = {(path, kind): piece(leaf, kind) for (leaf, path), kind in pieces}
        return {key: array for key, array in found.items() if array is not None}

    def handed_out(self, library: str | None = None) -> dict[tuple[str, str], Any]:
        """These arrays in the library of that name; None: each in the one of its parameter, where it lies."""
        names = self._description.libraries if library is None else [library] * len(self.paths)
        of_path = dict(zip(self.paths, map(library_named, names), strict=True))
        if self.device == CPU:
            return {key: of_path[key[0]].handed_out(array) for key, array in self.arrays().items()}
        with self.in_use():
            if library is None:
                lent = self._pieces(self.core.piece)
                return {key: of_path[key[0]].lent(piece) for key, piece in lent.items()}
            return {key: of_path[key[0]].handed_out(array) for key, array in self.arrays().items()}

    def finalize(self, leaves: Sequence[Any], twin: str = "state.finalized") -> None:
        """Copy the averages into these parameters; the caller holds the state."""
        if not self.config.use_ema:
            raise ValueError("finalize: there are no averages without use_ema=True")
        self.check_params(leaves, twin=twin)
        if self.core.updates == 0:
            raise ValueError("finalize: the averages are empty before the first update")
        averages = [array for (_, kind), array in self.arrays().items() if kind == "average"]
        for leaf, average in zip(leaves, averages, strict=True):
            self.library_of(leaf).assign(leaf, average)

    def snapshot(self) -> Snapshot:
        """What the state is made of; its arrays are the memory itself. The caller holds the state."""
        updates, calls, skips, leaves = self.core.counters
        counters = Counters(updates, calls, skips, tuple(leaves))
        return Snapshot(self._description, self._rates, counters, self.arrays())

    def fill(self, snapshot: Snapshot) -> None:
        """Become what a snapshot of the same leaves says; the caller holds the state."""
        memory = self.core.memory()
        own = self._arrays_in(memory)
        for key, array in snapshot.arrays.items():
            own[key][...] = array
        self.core.assign(memory)
        self._description, self._rates = snapshot.description, snapshot.rates
        updates, calls, skips, leaves = snapshot.counters
        self.core.counters = updates, calls, skips, list(leaves)

    @classmethod
    def of(cls, snapshot: Snapshot) -> Engine:
        """A state made of a snapshot."""
        made = cls(snapshot.description)
        made.fill(snapshot)
        return made

    @classmethod
    def of_earlier(cls, kept: Mapping[str, Any]) -> Engine:
        """A state of what pickles kept before there were snapshots: all arrays as one piece of memory."""
        made = cls(kept["description"])
        made.core.assign(np.frombuffer(kept["memory"], np.uint8))
        # The first versions kept two numbers of each leaf, and no skips.
        leaves = tuple((updates, has, *(rest or [False])) for updates, has, *rest in kept["counts"])
        counters = Counters(kept["updates"], kept["calls"], kept.get("skips", 0), leaves)
        made.fill(Snapshot(kept["description"], kept["rates"], counters, made.arrays()))
        return made

    def copy(self) -> Engine:
        """An independent copy; RuntimeError if a call holds the state."""
        made = Engine.__new__(Engine)
        with self.in_use():
            made._assign(self._description, self._rows, self._rates, self.core.copy())
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> Engine:
        """A copy, and a schedule of the user's own is copied too."""
        made = self.copy()
        made._assign(*copy.deepcopy((self._description, self._rows, self._rates), memo), made.core)
        return made


def _fresh_core(description: Description, rows: Rows) -> _core.State:
    plan = description.plan(rows)
    libraries, device = description.libraries, description.device
    allocate = library_named(libraries[0]).allocator(device) if device != CPU else None
    try:
        return _core.State(plan, device, allocate)
    except _core.Error as error:
        raise phrase(error) from None
    except MemoryError:
        raise MemoryError(f"init: no memory for a state of {plan.state_nbytes:,} bytes") from None
