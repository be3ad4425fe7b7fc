"""The plain loops that a step is held against read and write every byte that they claim."""

import sys

import numpy as np
import pytest

import sources
from benchmark_results import run

sys.path.append(str(sources.ROOT))  # `benchmarks` is no part of the package: it lies beside it

from benchmarks import floor, loops

ROWS, COLS = 64, 1024
VARIANTS = sorted({*loops.MATRIX_VARIANTS, *loops.TREE_VARIANTS})


def small_tree(dtype, kind=loops.MATRIX, order=loops.AT_ONCE, leaves=2):
    shape = (ROWS, COLS) if kind == loops.MATRIX else (ROWS * 4096,)
    return loops.tree(shape, leaves, dtype, kind=kind, order=order, huge=False)


def as_numbers(array):
    """The values of an array in float32; bfloat16 is kept as its bits."""
    return array.copy() if array.dtype == np.float32 else (array.astype(np.uint32) << 16).view(np.float32)


def rounded(numbers, dtype):
    if dtype == np.float32:
        return numbers
    bits = numbers.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("order", [loops.AT_ONCE, loops.LOOKS_FIRST, loops.WHOLE_PASSES])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_passes_over_a_tree_make_the_sums_and_the_parameters(dtype, variant, order, threads):
    tree = small_tree(dtype, order=order)
    g, p = as_numbers(tree.g), as_numbers(tree.p)
    tree.run(variant, threads=threads)
    shaped = g.reshape(2, ROWS, COLS)
    squares = (np.float32(1e-3) * shaped) ** 2
    np.testing.assert_allclose(tree.row_sums, squares[-1].sum(1, dtype=float), rtol=1e-5)
    np.testing.assert_allclose(tree.col_sums.sum(0), squares[-1].sum(0, dtype=float), rtol=1e-5)
    u = (g * np.float32(1e-3)) * np.float32(1e-6)
    found = squares.sum(dtype=float) + (u**2).sum(dtype=float) + (p**2).sum(dtype=float)
    np.testing.assert_allclose(tree.found.sum(), found, rtol=1e-5)
    np.testing.assert_array_equal(tree.p, rounded(p - u, tree.p.dtype))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_passes_over_a_vector_make_the_sums_the_moments_and_the_parameters(dtype):
    tree = small_tree(dtype, kind=loops.VECTOR, leaves=1)
    g, p, v = as_numbers(tree.g), as_numbers(tree.p), tree.v.copy()
    tree.run(loops.Variant(), threads=2)
    after = np.float32(0.75) * v + np.float32(0.25) * (g * g + np.float32(1e-30))
    u = g / np.sqrt(after)
    np.testing.assert_allclose(tree.v, after, rtol=1e-6)
    np.testing.assert_allclose(
        as_numbers(tree.p), p - u * np.float32(1e-3), rtol=1e-2 if dtype == "bfloat16" else 1e-5
    )
    found = (g**2).sum(dtype=float) + (u**2).sum(dtype=float) + (p**2).sum(dtype=float)
    np.testing.assert_allclose(tree.found.sum(), found, rtol=1e-5)


@pytest.mark.parametrize(
    ("phases", "reads"),
    [(loops.MOMENTS, {"g"}), (loops.SQUARES, {"g", "p"}), (loops.APPLY, {"g", "p"})],
)
def test_each_pass_depends_on_each_element_that_it_claims_to_read_and_on_no_other(phases, reads):
    tree = small_tree("float32", leaves=1)

    def outcome():
        p = tree.p.copy()
        tree.run(loops.Variant(1, 1024), threads=2, phases=phases)
        found = (tree.found.sum(), tree.p.copy())
        tree.p[...] = p
        return found

    sums, written = outcome()
    for name in ("g", "p"):
        array = getattr(tree, name)
        for index in (0, 511, 512, COLS, ROWS * COLS // 2, ROWS * COLS - 1):
            before, array[index] = array[index], 1e6
            changed_sums, changed = outcome()
            array[index] = before
            depends = changed[index] != written[index] if phases == loops.APPLY else changed_sums != sums
            assert depends == (name in reads)
    per_element = {loops.MOMENTS: 4, loops.SQUARES: 8, loops.APPLY: 12}[phases]
    assert tree.bytes_of(phases) == per_element * ROWS * COLS


def test_bytes_are_those_of_what_is_stored():
    assert small_tree("bfloat16", leaves=1).bytes_of(loops.ALL) == 12 * ROWS * COLS
    vector = small_tree("float32", kind=loops.VECTOR, leaves=1)
    assert vector.bytes_of(loops.ALL) == 32 * vector.elements
    vector = small_tree("bfloat16", kind=loops.VECTOR, leaves=1)
    assert vector.bytes_of(loops.ALL) == 22 * vector.elements


def test_jobs_without_loops_are_refused():
    with pytest.raises(loops.LoopsError, match="no loops for 64 x 1024 in 3 threads"):
        small_tree("float32").run(loops.Variant(), threads=3)
    with pytest.raises(loops.LoopsError, match="3 rows side by side"):
        small_tree("float32").run(loops.Variant(3), threads=1)


def test_a_compiler_that_fails_is_named(monkeypatch, tmp_path):
    loops.library.cache_clear()
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(loops, "CACHE", tmp_path)
    with pytest.raises(loops.LoopsError, match=r"no-such-compiler does not build loops\.cpp"):
        loops.library()
    loops.library.cache_clear()


def test_the_step_is_held_against_the_loops(tmp_path, monkeypatch):
    small = {
        "one": floor.Case("one", (64, 512)),
        "tree": floor.Case("tree", (64, 512), 3, order=loops.LOOKS_FIRST),
        "kernels": floor.Case("kernels", (32, 256, 3, 3), 2, order=loops.LOOKS_FIRST),
        "vector": floor.Case("vector", (1 << 17,), kind=loops.VECTOR),
    }
    monkeypatch.setattr(floor, "CASES", small)
    result, words = run(floor.main, tmp_path, "--rounds", "1", "--seconds", "0", "--threads", "1", "2")
    assert [(row["title"], row["threads"]) for row in result["rows"]] == [
        (name, threads) for name in small for threads in (1, 2)
    ]
    for row in result["rows"]:
        assert 0 < row["floor_nanoseconds"] < 1e6
        assert row["share"] == row["floor_nanoseconds"] / row["step_nanoseconds"]
        assert row["title"] in words
    kernels = next(row for row in result["rows"] if row["title"] == "kernels")
    assert kernels["floor_nanoseconds"] >= kernels["variants"]["quotients"]
