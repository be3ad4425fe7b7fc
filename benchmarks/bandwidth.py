"""The bandwidth of plain loops over large arrays: the ceiling that a step is held against."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

ELEMENTS = 4096 * 4096  # 64 MB an array, beyond the caches of one step's neighbours
PASSES = 4  # in one call, so that starting the threads does not count


class Loops:
    """p -= g, and a pass that reads g, over large float32 arrays; each thread has a piece of its own.

    NumPy releases the interpreter's lock in these loops, which are vectorised and reach what the same loops
    in C do under OpenMP. A loop that only reads has less of the bandwidth than one that writes, too.
    """

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads)
        p, g = np.ones(ELEMENTS, np.float32), np.zeros(ELEMENTS, np.float32)
        self._pieces = list(zip(np.array_split(p, threads), np.array_split(g, threads), strict=True))

    def _on_each_piece(self, loop: Callable[[np.ndarray, np.ndarray], object]) -> None:
        def repeat(piece: tuple[np.ndarray, np.ndarray]) -> None:
            for _ in range(PASSES):
                loop(*piece)

        list(self._pool.map(repeat, self._pieces))

    def read(self) -> None:
        self._on_each_piece(lambda p, g: g.max())

    def read_read_write(self) -> None:
        self._on_each_piece(lambda p, g: np.subtract(p, g, out=p))

    def each(self) -> dict[str, tuple[Callable[[], None], int]]:
        """Each loop and the bytes that a call of it moves."""
        once = PASSES * ELEMENTS * np.dtype(np.float32).itemsize
        return {"read": (self.read, once), "read-read-write": (self.read_read_write, 3 * once)}
