"""The bandwidth of a plain loop with two reads and a write: the ceiling that a step is held against."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

ELEMENTS = 4096 * 4096  # 64 MB an array, beyond the caches of one step's neighbours
PASSES = 4  # in one call, so that starting the threads does not count
BYTES_PER_CALL = PASSES * ELEMENTS * 12


class ReadReadWrite:
    """p -= g over large float32 arrays, each of `threads` threads on a piece of its own.

    NumPy releases the interpreter's lock in its loop, which is vectorised and reaches what the same loop in C
    does under OpenMP.
    """

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads)
        p, g = np.ones(ELEMENTS, np.float32), np.zeros(ELEMENTS, np.float32)
        self._pieces = list(zip(np.array_split(p, threads), np.array_split(g, threads), strict=True))

    @staticmethod
    def _subtract(piece: tuple[np.ndarray, np.ndarray]) -> None:
        p, g = piece
        for _ in range(PASSES):
            np.subtract(p, g, out=p)

    def __call__(self) -> None:
        for _ in self._pool.map(self._subtract, self._pieces):
            pass
