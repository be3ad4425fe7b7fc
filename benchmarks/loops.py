"""The plain loops of benchmarks/loops.cpp: builds them for this machine and runs them on arrays of NumPy."""

import ctypes
import functools
import hashlib
import math
import mmap
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SOURCE = Path(__file__).with_name("loops.cpp")
CACHE = Path(__file__).resolve().parents[1] / "build" / "loops"
FLAGS = [
    "-std=c++20",
    "-O3",
    "-march=native",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-shared",
    "-fPIC",
    "-pthread",
]

APART = 1 << 16  # bytes
ARRAYS = ("g", "p", "v", "row_factors", "col_factors", "row_sums", "col_sums", "found")
LANES = 16
MATRIX, VECTOR, QUOTIENTS = range(3)
AT_ONCE, LOOKS_FIRST, WHOLE_PASSES = range(3)
MOMENTS, SQUARES, APPLY = 1, 2, 4
ALL = MOMENTS | SQUARES | APPLY


class LoopsError(RuntimeError):
    """The loops could not be built, or have no such job."""


class Variant(NamedTuple):
    """How the loops walk: rows side by side, and how many bytes ahead each stream is asked for."""

    side_by_side: int = 1
    ahead: int = 0

    def __str__(self) -> str:
        rows = f"{self.side_by_side} row{'s' if self.side_by_side > 1 else ''} side by side"
        how = {0: "no prefetching", EACH_PAGE: "each page asked for"}
        return f"{rows}, {how.get(self.ahead, f'prefetched {self.ahead} bytes ahead')}"


EACH_PAGE = -1
TREE_VARIANTS = [Variant(1, ahead) for ahead in (0, 1024, 2048, EACH_PAGE)]
MATRIX_VARIANTS = [*TREE_VARIANTS, Variant(1, 4096), Variant(4, 0), Variant(4, 1024)]


class _Job(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ARRAYS),
        *((name, ctypes.c_int64) for name in ("leaves", "rows", "cols")),
        *((name, ctypes.c_int32) for name in ("kind", "order", "phases", "is_bfloat16")),
        *((name, ctypes.c_int32) for name in ("side_by_side", "ahead", "threads", "times")),
    ]


def compiler() -> str:
    return os.environ.get("CXX", "g++")


@functools.cache
def library() -> Any:
    """The loops, built once for each state of their source and each machine.

    Raises:
        LoopsError: the compiler refuses; the message has its first words.
    """
    flags = Path("/proc/cpuinfo").read_bytes() if Path("/proc/cpuinfo").exists() else b""
    cpu = b"".join(
        line for line in flags.splitlines()[:40] if line.startswith((b"flags", b"model name", b"Features"))
    )
    built = CACHE / f"{hashlib.sha256(SOURCE.read_bytes() + cpu + repr(FLAGS).encode()).hexdigest()[:12]}.so"
    if not built.exists():
        built.parent.mkdir(parents=True, exist_ok=True)
        made = built.with_suffix(f".{os.getpid()}")
        command = [compiler(), *FLAGS, SOURCE, "-o", made]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
            raise LoopsError(f"{compiler()} does not build {SOURCE.name}: {said[0]}") from None
        made.replace(built)
    loops = ctypes.CDLL(str(built))
    loops.run_job.restype = ctypes.c_bool
    return loops


def in_pages(count: int, dtype: Any, *, huge: bool = False) -> Any:
    """An array in pages of 4 KB, as other libraries have them; NumPy's own large ones ask for 2 MB.

    It has a few pages more than it needs. Two arrays that lie a power of two apart, element for element, are
    kept in the same places of some caches: a third of the time would say that and nothing else.
    """
    dtype = np.dtype(dtype)
    memory = mmap.mmap(-1, count * dtype.itemsize + APART)
    if hasattr(memory, "madvise"):
        memory.madvise(mmap.MADV_HUGEPAGE if huge else mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, dtype, count)


@dataclass
class Tree:
    """Equal leaves in two arrays, g and p, as the loops and the step both take them; bfloat16 as its bits."""

    leaves: int
    rows: int
    cols: int
    g: Any
    p: Any
    kind: int = MATRIX
    order: int = AT_ONCE
    v: Any = None
    row_factors: Any = field(init=False)
    col_factors: Any = field(init=False)
    row_sums: Any = field(init=False)
    col_sums: Any = field(init=False)
    found: Any = field(init=False)

    def __post_init__(self) -> None:
        self.row_factors = np.full(self.rows, 1e-3, np.float32)
        self.col_factors = np.full(self.cols, 1e-6, np.float32)
        self.row_sums = np.zeros(self.rows)

    @property
    def elements(self) -> int:
        return self.leaves * self.rows * self.cols

    def run(self, variant: Variant, *, threads: int, times: int = 1, phases: int = ALL) -> Any:
        """The seconds of each of so many walks.

        Raises:
            LoopsError: there are no such loops.
        """
        self.col_sums, self.found = np.zeros((threads, self.cols)), np.zeros(threads)
        seconds = np.zeros(times)
        arrays = {name: getattr(self, name) for name in ARRAYS}
        places = {name: None if array is None else array.ctypes.data for name, array in arrays.items()}
        job = _Job(
            **places,
            **{name: getattr(self, name) for name in ("leaves", "rows", "cols", "kind", "order")},
            phases=phases,
            is_bfloat16=self.g.dtype.itemsize == 2,
            side_by_side=variant.side_by_side,
            ahead=variant.ahead,
            threads=threads,
            times=times,
        )
        if not library().run_job(ctypes.byref(job), ctypes.c_void_p(seconds.ctypes.data)):
            raise LoopsError(f"no loops for {self.rows} x {self.cols} in {threads} threads, {variant}")
        return seconds

    def bytes_of(self, phases: int) -> int:
        """Bytes that the passes read and write: each element of an array once a pass."""
        g, p, v = (0 if array is None else array.dtype.itemsize for array in (self.g, self.p, self.v))
        if self.kind == QUOTIENTS:
            return 0
        passes = {MOMENTS: g, SQUARES: g + p, APPLY: g + 2 * p}
        if self.kind == VECTOR:
            passes = {MOMENTS: g + p + v, APPLY: g + 2 * p + 2 * v}
        return self.elements * sum(count for phase, count in passes.items() if phases & phase)


def matrix_of(shape: tuple[int, ...]) -> tuple[int, int]:
    """A matrix of as many elements, of at most 4096 columns and of rows that two threads can share."""
    size, cols = math.prod(shape), 4096
    while cols > LANES and size % (32 * cols):
        cols //= 2
    return size // cols, cols


def tree(shape: tuple[int, ...], leaves: int, dtype: str, *, kind: int, order: int, huge: bool) -> Tree:
    """A tree with numbers in it, of leaves of a shape; what is no matrix is one for the loops."""
    rows, cols = shape if len(shape) == 2 else matrix_of(shape)
    random = np.random.default_rng(0)

    def drawn(scale: float) -> Any:
        stored = np.float32 if dtype == "float32" else np.uint16
        numbers = in_pages(leaves * rows * cols, stored, huge=huge)
        for first in range(0, len(numbers), 1 << 22):  # in pieces: a copy of all would be as large again
            count = min(1 << 22, len(numbers) - first)
            piece = np.float32(scale) * random.standard_normal(count, dtype=np.float32)
            numbers[first : first + count] = piece if stored == np.float32 else piece.view(np.uint32) >> 16
        return numbers

    made = Tree(leaves, rows, cols, drawn(0.01), drawn(0.05), kind, order)
    if kind == VECTOR:
        made.v = in_pages(leaves * rows * cols, np.float32, huge=huge)
        made.v[...] = 1e-4
    return made
