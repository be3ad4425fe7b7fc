"""Snapshot: a state outside of the core, the form of whatever leaves a state or goes into one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from adafactor.engine.leaves import Description
from adafactor.engine.rates import RowRates
from adafactor.engine.restoring import as_stored, counts_of, refuse_other_keys

__all__ = ["Counters", "Snapshot"]


class Counters(NamedTuple):
    """Every counter of a state, exactly.

    Attributes:
        updates: made.
        calls: that counted.
        skips: calls in a row, the last among them, that were skipped.
        leaves: of each leaf its updates, whether a gradient of it is in the open window of accumulation, and
            whether its last update found NaN or Inf and left it alone.
    """

    updates: int
    calls: int
    skips: int
    leaves: tuple[tuple[int, bool, bool], ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Snapshot:
    """What a state is made of: enough to make it anew, to the bit.

    Attributes:
        description: paths, shapes, dtypes, libraries and knobs.
        rates: the learning rates of the rows of knobs.
        counters: all of them.
        arrays: by (path, kind), each with the leaf's own order of axes; 16-bit numbers as these bits.
    """

    description: Description
    rates: RowRates
    counters: Counters
    arrays: Mapping[tuple[str, str], NDArray[Any]]

    def with_parts(self, calls: Any, tensors: Mapping[tuple[str, str], Any], updates: Any) -> Snapshot:
        """A snapshot of the same leaves from parts that carry fewer counters; each part is checked.

        In an open window of accumulation a leaf has gathered something if its accumulator is not zero.

        Args:
            calls: how many calls counted.
            tensors: every array by (path, kind), of any library.
            updates: of each leaf: by path or in the order of the paths; None: as many as of the state.
        """
        config, paths = self.description.config, self.description.tree.paths
        window = config.gradient_accumulation_steps or 1
        calls, counts = counts_of(calls, updates, paths, window)
        refuse_other_keys("tensors", tensors, self.arrays)
        finite = config.on_nonfinite != "propagate"
        arrays = {key: as_stored(tensors[key], own, key, finite) for key, own in self.arrays.items()}
        opened = calls % window != 0
        gathered = [opened and bool(np.any(arrays[path, "accumulator"])) for path in paths]
        leaves = tuple((count, has, False) for count, has in zip(counts, gathered, strict=True))
        return dataclasses.replace(self, counters=Counters(calls // window, calls, 0, leaves), arrays=arrays)

    def with_rate(self, learning_rate: Any) -> Snapshot:
        """A snapshot with another learning rate, or with one for each row of knobs."""
        rates = self.rates.replace(learning_rate)
        return dataclasses.replace(self, description=self.description.with_rate(rates.rates[0]), rates=rates)

    def copied(self) -> Snapshot:
        """The same with arrays of its own, which no later call writes."""
        return dataclasses.replace(self, arrays={key: array.copy() for key, array in self.arrays.items()})
