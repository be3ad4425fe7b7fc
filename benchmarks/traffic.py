"""How many bytes a step has to move between memory and the caches: what its options are judged by.

`moments` reads g of all leaves, `rms` reads g and p, `apply` reads both again and writes p. What the links
add is read and written along with these. An unfactored leaf goes through `moments` and `rms` at once, with
its second moment. A leaf that fits in the cache is read once for `rms` and `apply`, and under
`on_nonfinite="propagate"` once for all three.
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
        """An element of a call that updates; `moment` are the bytes of an unfactored second moment."""
        gradient = self.gradient + self.accumulator
        sources = gradient + self.parameter + moment
        written = self.parameter + moment + self.accumulator
        linked = 2 * (self.momentum + self.average)
        if moment:  # `rms` needs no factors and goes along with `moments`
            once = in_cache and not self.looks_first
            return (1 if once else 2) * sources + written + linked
        looks = 0 if in_cache and not self.looks_first else gradient
        return looks + (1 if in_cache else 2) * sources + written + linked

    def of_accumulation(self) -> int:
        """An element of a call that only adds to the accumulator: one pass to look, one to write."""
        read = self.gradient + self.accumulator
        return 2 * read + self.accumulator


def bytes_moved(shapes: Sequence[Shape], cache_bytes: int, streams: Streams | None = None) -> float:
    """What one updating call moves; a tree that fits in the cache as a whole keeps g from `moments`."""
    streams = streams or Streams()
    together = streams.parameter + streams.gradient
    sizes = [math.prod(shape) for shape in shapes]
    all_fits = together * sum(sizes) <= cache_bytes
    total = 0
    for shape, size in zip(shapes, sizes, strict=True):
        moment = 4 if len(shape) < 2 else 0
        total += size * streams.of_leaf(moment, in_cache=together * size <= cache_bytes)
        if all_fits and streams.looks_first:
            total -= size * (together + moment if moment else streams.gradient)
    return total
