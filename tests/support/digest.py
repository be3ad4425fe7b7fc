"""The cases of tests/data/digest.txt and the digest of their results; beside it tests/cpp/support/digest.hpp.

Everything here is arithmetic of integers, so that both languages make the same numbers to the last bit. Run
as a program it prints the file with the digests of the installed package.
"""

import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import ml_dtypes
import numpy as np

import adafactor
from adafactor.arrays import copied_as_numpy
from adafactor.report import NUMBERS

FILE = Path(__file__).parents[1] / "data" / "digest.txt"
FRACTION_BITS = {"float32": 24, "float64": 53, "float16": 11, "bfloat16": 8}
DTYPES = {name: np.dtype(name) for name in ("float32", "float64", "float16")} | {
    "bfloat16": np.dtype(ml_dtypes.bfloat16)
}


@dataclass(frozen=True)
class Spread:
    """Numbers are m * 2**e with e in [low, high] and |m| <= 1; one in `zeros` of them is zero (0: none)."""

    low: int
    high: int
    zeros: int


@dataclass(frozen=True)
class Case:
    name: str
    digest: str
    calls: int
    spread: Spread
    of_parameters: Spread
    leaves: tuple[tuple[str, str, tuple[int, ...]], ...]  # dtype of the parameter, of the gradient, shape
    knobs: dict

    def paths(self):
        return [f"{index:03}" for index in range(len(self.leaves))]


def mix(words):
    """The finalizer of splitmix64, in place: every bit of a word depends on all of them."""
    words ^= words >> np.uint64(30)
    words *= np.uint64(0xBF58476D1CE4E5B9)
    words ^= words >> np.uint64(27)
    words *= np.uint64(0x94D049BB133111EB)
    words ^= words >> np.uint64(31)
    return words


@cache
def mixed_indices(count):
    return mix(np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))


@cache
def numbers(seed, dtype, shape, spread):
    """A read-only array of numbers that depend on the seed and the index in C order alone."""
    words = mix(mixed_indices(int(np.prod(shape))) + np.uint64(seed * 0x632BE59BD9B4E019 & 2**64 - 1))
    fraction = FRACTION_BITS[dtype]
    whole = (words >> np.uint64(64 - fraction)).astype(np.int64) - 2 ** (fraction - 1)
    exponents = spread.low + ((words & np.uint64(0x7FF)) % np.uint64(spread.high - spread.low + 1)).astype(
        np.int32
    )
    wide = np.float64 if dtype == "float64" else np.float32
    values = np.ldexp(whole.astype(wide), exponents.astype(np.int32) - (fraction - 1)).astype(DTYPES[dtype])
    if spread.zeros:
        values[mix(words) % np.uint64(spread.zeros) == 0] = 0
    values.flags.writeable = False
    return values.reshape(shape)


def fold(digest, array):
    """A digest of a digest and of an array: each element's bits are mixed with its index, then added up."""
    words = np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}").ravel().astype(np.uint64)
    total = int(mix(words + mixed_indices(words.size)).sum(dtype=np.uint64)) if words.size else 0
    return int(mix(np.array([digest ^ total], np.uint64))[0])


def in_memory_order(array):
    """A view whose C order is the order of memory: the moments of inner slices are kept slice by slice."""
    return array.transpose(sorted(range(array.ndim), key=lambda axis: -array.strides[axis]))


def numbers_of(report):
    """What a report says, as one array: the norm of all gradients, then the numbers of each leaf."""
    columns = [getattr(report, name) for name in NUMBERS]
    found = np.concatenate([[report.global_grad_norm], np.stack(columns, axis=1).ravel()])
    found[np.isnan(found)] = np.nan  # one NaN is like another
    return found


def digest_of(params, state, reports):
    """The digest of the reports, of every parameter, then of every array of the state, leaf by leaf."""
    digest = 0
    for report in reports:
        digest = fold(digest, numbers_of(report))
    for array in params.values():
        digest = fold(digest, copied_as_numpy(array))
    for array in state.arrays().values():
        digest = fold(digest, in_memory_order(array))
    return f"{digest:016x}"


def inputs(case):
    """The parameters, and the gradients of each call."""

    def tree(seed, spread, role):
        leaves = zip(case.paths(), case.leaves, strict=True)
        return {
            path: numbers(seed + index, leaf[role], leaf[2], spread)
            for index, (path, leaf) in enumerate(leaves)
        }

    parameters = tree(1, case.of_parameters, 0)
    return parameters, [tree(1000 * (call + 1), case.spread, 1) for call in range(case.calls)]


def run(case, *, functional=False, params_as=np.array, grads_as=np.array):
    """The digest of a case and its last state; the arrays are laid out in memory by two functions."""
    params, gradients = inputs(case)
    params = {path: params_as(array) for path, array in params.items()}
    state = adafactor.init(params, **case.knobs)
    reports = []
    for gradient in gradients:
        gradient = {path: grads_as(array) for path, array in gradient.items()}
        if functional:
            params, state, report = adafactor.update(params, gradient, state)
        else:
            report = adafactor.step(params, gradient, state)
        reports.append(report)
    return digest_of(params, state, reports), state


def assert_program_prints_them(*command):
    """Run tests/cpp/support/print_digests.cpp, compiled, and hold what it prints against the file."""
    printed = subprocess.run([*command, FILE, "7"], capture_output=True, text=True, check=True).stdout
    found = {name: digests for name, *digests in (line.split() for line in printed.splitlines())}
    assert found == {name: [case.digest, case.digest] for name, case in CASES.items()}


def parse_value(text):
    words = {"True": True, "False": False, "None": None}
    if text in words:
        return words[text]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def parse_leaf(text):
    dtypes, _, extents = text.removesuffix("]").partition("[")
    dtype, _, of_gradient = dtypes.partition(":")
    return dtype, of_gradient or dtype, tuple(int(extent) for extent in extents.split(",") if extent)


def parse_case(line):
    name, digest, calls, numbers_text, leaves, knobs = (field.strip() for field in line.split("|"))
    exponents, zeros, *of_parameters = numbers_text.split()
    low, high = exponents.split(":")
    low_of_parameters, high_of_parameters = (of_parameters or ["-2:2"])[0].split(":")
    pairs = (knob.split("=") for knob in knobs.split())
    return Case(
        name,
        digest,
        int(calls),
        Spread(int(low), int(high), int(zeros)),
        Spread(int(low_of_parameters), int(high_of_parameters), 0),
        tuple(parse_leaf(leaf) for leaf in leaves.split()),
        {knob: parse_value(value) for knob, value in pairs},
    )


def lines():
    return FILE.read_text(encoding="utf-8").splitlines()


CASES = {case.name: case for case in (parse_case(line) for line in lines() if not line.startswith("#"))}


def main():
    for line in lines():
        if not line.startswith("#"):
            case = parse_case(line)
            line = line.replace(case.digest, run(case)[0], 1)
        sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
