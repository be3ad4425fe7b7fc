"""The trees of parameters that are measured, and the numbers in them."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

Shape = tuple[int, ...]


class Workload(NamedTuple):
    """A tree of parameters, as the shapes of its leaves."""

    title: str
    shapes: Sequence[Shape]

    @property
    def elements(self) -> int:
        return sum(math.prod(shape) for shape in self.shapes)


T5_SMALL: list[Shape] = [
    (32128, 512),
    *6 * [*4 * [(512, 512)], (2048, 512), (512, 2048), *2 * [(512,)]],
    *6 * [*8 * [(512, 512)], (2048, 512), (512, 2048), *3 * [(512,)]],
    *2 * [(512,)],
    *2 * [(32, 8)],
]

# By the names that the command line knows.
WORKLOADS = {
    "t5-small": Workload("T5-small tree", T5_SMALL),
    "4096x4096": Workload("4096x4096", [(4096, 4096)]),
    "1024x1024": Workload("1024x1024", [(1024, 1024)]),
    "small-leaves": Workload("500 x (64x64 and 64)", 500 * [(64, 64), (64,)]),
    "kernels-last": Workload("20 x (3,3,256,256)", 20 * [(3, 3, 256, 256)]),
    "kernels-first": Workload("20 x (512,256,3,3)", 20 * [(512, 256, 3, 3)]),
    "four-columns": Workload("(1000000, 4)", [(1_000_000, 4)]),
    "vector": Workload("vector of 16 M", [(1 << 24,)]),
}

DTYPES = {"float32": 4, "bfloat16": 2}  # bytes an element
ALIGNMENT = 64  # bytes: a line of the cache, and the widest vector


def parse(text: str) -> Workload:
    """A tree from the command line: `512x512,64` is a matrix and a vector."""
    shapes = [tuple(int(size) for size in leaf.split("x")) for leaf in text.split(",")]
    if any(size < 1 for shape in shapes for size in shape):
        raise ValueError(f"{text}: every size has to be at least 1")
    return Workload(text, shapes)


def numpy_dtype(name: str) -> Any:
    """NumPy's dtype; for bfloat16 that of ml_dtypes, which has to be installed."""
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def aligned(array: Any, dtype: Any = None) -> Any:
    """A copy that begins at a multiple of 64 bytes, in another dtype if one is given.

    NumPy's own begin at any 16, which differs from process to process, and what is in the cache is read and
    written at another speed from there.
    """
    dtype = np.dtype(array.dtype if dtype is None else dtype)
    memory = np.empty(array.size * dtype.itemsize + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    copy = memory[start : start + array.size * dtype.itemsize].view(dtype).reshape(array.shape)
    copy[...] = array
    return copy


def draw(shapes: Sequence[Shape], dtype: str, of_gradients: str | None = None) -> tuple[list[Any], list[Any]]:
    """Parameters and gradients: the same values at each call, and in 16 bits those values rounded.

    The gradients have the dtype of the parameters unless theirs is given.
    """
    random = np.random.default_rng(0)

    def normal(scale: float, name: str) -> list[Any]:
        drawn = (random.standard_normal(shape, dtype=np.float32) for shape in shapes)
        return [aligned(np.float32(scale) * array, numpy_dtype(name)) for array in drawn]

    return normal(0.05, dtype), normal(0.01, of_gradients or dtype)
