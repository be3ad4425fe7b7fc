"""The bandwidth of plain loops over large arrays: the ceiling that a step is held against."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

ELEMENTS = 8192 * 8192  # 256 MB an array, beyond the largest caches


class Loops:
    """p -= g, and a pass that reads g, over large float32 arrays; each thread has a piece of its own.

    NumPy releases the interpreter's lock in these loops, which are vectorised and reach what the same loops
    in C do under OpenMP. A loop that only reads has less of the bandwidth than one that writes, too.
    """

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads)
        # Written, both of them: pages that nobody has written are all one, and that stays in the cache.
        p, g = (np.full(ELEMENTS, each, np.float32) for each in (1, 0))
        self._pieces = list(zip(np.array_split(p, threads), np.array_split(g, threads), strict=True))

    def _on_each_piece(self, loop: Callable[[np.ndarray, np.ndarray], object]) -> None:
        list(self._pool.map(lambda piece: loop(*piece), self._pieces))

    def read(self) -> None:
        self._on_each_piece(lambda p, g: g.max())

    def read_read_write(self) -> None:
        self._on_each_piece(lambda p, g: np.subtract(p, g, out=p))

    def each(self) -> dict[str, tuple[Callable[[], None], int]]:
        """Each loop and the bytes that a call of it moves."""
        once = ELEMENTS * np.dtype(np.float32).itemsize
        return {"read": (self.read, once), "read-read-write": (self.read_read_write, 3 * once)}
