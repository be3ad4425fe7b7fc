"""A leaf of more than 2^31 elements: what it would take, and a step, which takes 9 GB."""

import os

import numpy as np
import psutil
import pytest

import adafactor

SHAPE = (839845, 2557)
ROWS = 4096  # looked at together


def test_the_sizes_of_a_leaf_of_more_than_two_to_the_31_elements():
    w = np.broadcast_to(np.zeros((), np.float16), SHAPE)  # which takes no memory
    assert adafactor.state_nbytes(w) == 4 * sum(SHAPE)
    assert 0 < adafactor.scratch_nbytes(w) < 0.02 * w.nbytes


@pytest.mark.full
@pytest.mark.apart
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_a_leaf_of_more_than_two_to_the_31_elements(rounding):
    if psutil.virtual_memory().available < 10e9:
        required = os.environ.get("ADAFACTOR_REQUIRE_PEERS") == "1"
        (pytest.fail if required else pytest.skip)("takes 9 GB")
    assert SHAPE[0] * SHAPE[1] == 2**31 + 17
    random = np.random.default_rng(0)
    w = np.ones(SHAPE, np.float16)
    g = np.empty(SHAPE, np.float16)
    for first in range(0, SHAPE[0], ROWS):
        part = g[first : first + ROWS]
        part[...] = 1.0 - 2.0 * random.integers(0, 2, part.shape, np.int8)
    # Every square is 1, so that U is G, and a step of 2^-6 takes 1 to one of two numbers that float16 has.
    state = adafactor.init(w, learning_rate=2.0**-6, scale_parameter=False, rounding=rounding)
    report = adafactor.step(w, g, state)
    assert report.grad_norm[0] == pytest.approx(np.sqrt(2.0**31 + 17), rel=1e-12)
    assert np.all(state.tensors()["", "row"] == 1)
    assert np.all(state.tensors()["", "col"] == 1)
    for first in range(0, SHAPE[0], ROWS):
        part = slice(first, first + ROWS)
        assert np.array_equal(w[part], np.float16(1) - np.float16(2.0**-6) * g[part]), f"rows from {first}"
