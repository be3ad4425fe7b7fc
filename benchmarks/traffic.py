"""How many bytes a step has to move between memory and the caches: what its bandwidth is judged by.

`moments` reads g of all leaves, `rms` reads g and p, `apply` reads both again and writes p. What the links
and an unfactored leaf's second moment add is read and written along with these. A leaf that fits in the cache
is read once for `rms` and `apply`, and under `on_nonfinite="propagate"` once for all three.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

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

    def of_leaf(self, moment: int, in_cache: bool) -> int:
        """Bytes an element of a call that updates; `moment` are those of an unfactored second moment."""
        gradient = self.gradient + self.accumulator
        sources = gradient + self.parameter + moment
        reads = [gradient, sources, sources]
        if in_cache:
            reads = [gradient, sources] if self.looks_first else [sources]
        written = self.parameter + moment + self.accumulator
        return sum(reads) + written + 2 * (self.momentum + self.average)

    def of_accumulation(self) -> int:
        """Bytes an element of a call that only adds to the accumulator: one pass to look, one to write."""
        return 2 * (self.gradient + self.accumulator) + self.accumulator


def bytes_moved(shapes: Sequence[Shape], cache_bytes: int, streams: Streams | None = None) -> int:
    """Bytes that one updating call moves; a tree that fits in the cache as a whole keeps g from `moments`."""
    streams = streams or Streams()
    together = streams.parameter + streams.gradient
    sizes = [math.prod(shape) for shape in shapes]
    all_fits = together * sum(sizes) <= cache_bytes
    total = 0
    for shape, size in zip(shapes, sizes, strict=True):
        moment = 4 if len(shape) < 2 else 0
        total += size * streams.of_leaf(moment, in_cache=together * size <= cache_bytes)
    return total - (streams.gradient * sum(sizes) if all_fits and streams.looks_first else 0)
