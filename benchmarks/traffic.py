"""How many bytes a step has to move between memory and the caches: what its bandwidth is judged by.

`moments` reads g of all leaves, `rms` reads g and p, `apply` reads both again and writes p. What the links
add is read and written along with these. An unfactored leaf goes through `moments` and `rms` at once, with
its second moment. A leaf that fits in the cache is read once for `rms` and `apply`, and under
`on_nonfinite="propagate"` once for all three.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from benchmarks.trees import Shape


@dataclass(frozen=True)
class Streams:
    """Bytes an element of each full-size array that a step goes through; 0 for what it does not have."""

    parameter: int = 4
    gradient: int = 4
    momentum: int = 0
    average: int = 0
    accumulator: int = 0
    looks_first: bool = True  # for non-finite gradients, in all leaves before any is written

    def of_leaf(self, moment: int, in_cache: bool) -> "Moved":
        """An element of a call that updates; `moment` are the bytes of an unfactored second moment."""
        gradient = self.gradient + self.accumulator
        sources = gradient + self.parameter + moment
        written = self.parameter + moment + self.accumulator
        linked = 2 * (self.momentum + self.average)
        if moment:  # `rms` needs no factors and goes along with `moments`
            once = in_cache and not self.looks_first
            return Moved(0 if once else sources, sources + written + linked)
        looks = 0 if in_cache and not self.looks_first else gradient
        return Moved(looks + sources, (0 if in_cache else sources) + written + linked)

    def of_accumulation(self) -> "Moved":
        """An element of a call that only adds to the accumulator: one pass to look, one to write."""
        read = self.gradient + self.accumulator
        return Moved(read, read + self.accumulator)


class Moved(NamedTuple):
    """Bytes of the passes that only read, and of the one that writes."""

    reading: float
    writing: float

    @property
    def total(self) -> float:
        return self.reading + self.writing

    def __add__(self, other: "Moved") -> "Moved":  # type: ignore[override]
        return Moved(self.reading + other.reading, self.writing + other.writing)

    def times(self, factor: float) -> "Moved":
        return Moved(self.reading * factor, self.writing * factor)

    def seconds(self, read: float, read_read_write: float) -> float:
        """What it takes at these bandwidths, in bytes a second: no loop over the same bytes is faster."""
        return self.reading / read + self.writing / read_read_write


def bytes_moved(shapes: Sequence[Shape], cache_bytes: int, streams: Streams | None = None) -> Moved:
    """What one updating call moves; a tree that fits in the cache as a whole keeps g from `moments`."""
    streams = streams or Streams()
    together = streams.parameter + streams.gradient
    sizes = [math.prod(shape) for shape in shapes]
    all_fits = together * sum(sizes) <= cache_bytes
    total = Moved(0, 0)
    for shape, size in zip(shapes, sizes, strict=True):
        moment = 4 if len(shape) < 2 else 0
        total += streams.of_leaf(moment, in_cache=together * size <= cache_bytes).times(size)
        if all_fits and streams.looks_first:
            total += (Moved(0, -(together + moment)) if moment else Moved(-streams.gradient, 0)).times(size)
    return total
