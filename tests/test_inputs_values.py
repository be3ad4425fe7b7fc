"""Odd values in parameters and gradients, and a floating-point environment that somebody else has changed.

Hazards V2 to V5 and V9 to V15; V1 and the rest of V3 are in test_atomic.py.
"""

import json
import platform
import subprocess
import sys

import numpy as np
import pytest

import adafactor
import snapshots

SHAPES = {"vector": (37,), "matrix": (7, 37), "slices": (3, 2, 21)}


def numbers(shape, seed, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def tree(seed, dtype=np.float32):
    return {path: numbers(shape, seed + i, dtype) for i, (path, shape) in enumerate(SHAPES.items())}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("path", SHAPES)
def test_v2_a_bad_parameter_spoils_its_leaf_alone_and_shows_in_the_report(path, value):
    params, expected, grads = tree(0), tree(0), tree(10)
    state, expected_state = adafactor.init(params), adafactor.init(expected)
    params[path].flat[3] = value
    report = adafactor.step(params, grads, state)
    adafactor.step(expected, grads, expected_state)
    spoilt = [other == path for other in SHAPES]
    assert report.updated
    assert not report.nonfinite.any()
    assert (~np.isfinite(report.param_rms)).tolist() == spoilt
    assert [not np.isfinite(p).all() for p in params.values()] == spoilt
    for other in SHAPES:
        assert other == path or snapshots.same_bits([params[other]], [expected[other]])
    assert snapshots.of_state(state) == snapshots.of_state(expected_state)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_v3_parameters_whose_squares_overflow_are_measured_in_double(shape):
    """rms(p) = 2e19 has a square above the largest float32; the first step is 0.1 of it against the sign."""
    params = np.full(shape, 2e19, np.float32)
    report = adafactor.step(params, np.ones(shape, np.float32), adafactor.init(params, learning_rate=0.1))
    assert report.param_rms == pytest.approx(2e19, rel=1e-6)
    assert params == pytest.approx(np.full(shape, 1.8e19), rel=1e-6)


def test_v3_a_norm_of_all_leaves_is_known_where_its_square_overflows():
    """The squares of each leaf add up to 1.7e308 and those of both to twice that; U of a first step is 1."""
    grads = {path: np.full(3, 0.75e154) for path in "ab"}
    params = {path: np.ones(3) for path in "ab"}
    report = adafactor.step(params, grads, adafactor.init(params, learning_rate=0.1, global_clipnorm=1.0))
    assert report.global_grad_norm == pytest.approx(0.75e154 * 6**0.5, rel=1e-14)
    assert np.concatenate(list(params.values())) == pytest.approx(np.full(6, 0.9), rel=1e-14)


@pytest.mark.parametrize("gradient", [1e-23, -1e-30, 1e-40])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_v4_squares_of_tiny_gradients_count_as_zero(shape, gradient):
    """The squares are far below epsilon_1 = 1e-30, so U is the gradient over 1e-15."""
    params = np.ones(shape, np.float32)
    state = adafactor.init(params, learning_rate=1.0, scale_parameter=False)
    report = adafactor.step(params, np.full(shape, gradient, np.float32), state)
    assert report.update_rms == pytest.approx(abs(gradient) * 1e15, rel=1e-5)
    assert params == pytest.approx(np.full(shape, 1 - gradient * 1e15), rel=1e-6)
    assert all(t == pytest.approx(np.full(t.shape, 1e-30), rel=1e-5) for t in state.tensors().values())


@pytest.mark.parametrize("epsilon_1", [1e-30, 0.0])
@pytest.mark.parametrize(
    "knobs", [{}, {"clip_threshold": None, "scale_parameter": False}, {"beta_1": 0.9}], ids=str
)
def test_v5_v13_zero_gradients_leave_the_parameters(knobs, epsilon_1):
    params = tree(0)
    before = snapshots.memory(params.values())
    state = adafactor.init(params, epsilon_1=epsilon_1, **knobs)
    for _ in range(3):
        report = adafactor.step(params, {path: np.zeros_like(p) for path, p in params.items()}, state)
        assert report.updated
    assert snapshots.memory(params.values()) == before
    assert all(np.isfinite(tensor).all() for tensor in state.tensors().values())


def test_v5_zero_gradients_decay_the_parameters():
    params, before = tree(0, np.float64), tree(0, np.float64)
    state = adafactor.init(params, learning_rate=0.5, weight_decay=0.25)
    adafactor.step(params, {path: np.zeros_like(p) for path, p in params.items()}, state)
    for path in SHAPES:
        assert params[path] == pytest.approx(before[path] * (1 - 0.5 * 0.25), rel=1e-15)


@pytest.mark.parametrize("knobs", [{}, {"weight_decay": 0.1}, {"beta_1": 0.9}], ids=str)
def test_v11_negative_zero_keeps_its_sign(knobs):
    params = {path: np.full(shape, -0.0, np.float32) for path, shape in SHAPES.items()}
    grads = {path: np.zeros(shape, np.float32) for path, shape in SHAPES.items()}
    adafactor.step(params, grads, adafactor.init(params, **knobs))
    after, _, _ = adafactor.update(params, grads, adafactor.init(params, **knobs))
    for p in (*params.values(), *after.values()):
        assert np.signbit(p).all()
        assert not p.any()


def test_v11_a_leaf_without_a_gradient_keeps_every_bit():
    odd = np.array([0x7FC01234, 0x7F800001, 0x80000000, 0x00000001, 0xFF800000], np.uint32).view(np.float32)
    params = {"odd": odd, "w": np.ones(3, np.float32)}
    grads = {"odd": None, "w": np.ones(3, np.float32)}
    bits = odd.tobytes()
    state = adafactor.init(params)
    with pytest.warns(UserWarning, match="no gradient for odd"):
        after, _, _ = adafactor.update(params, grads, state)
    with pytest.warns(UserWarning, match="no gradient for odd"):
        adafactor.step(params, grads, state)
    assert (odd.tobytes(), after["odd"].tobytes()) == (bits, bits)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_v12_parameters_of_zero_move_by_the_floor_of_the_scale(shape):
    params = np.zeros(shape, np.float32)
    adafactor.step(
        params, np.ones(shape, np.float32), adafactor.init(params, learning_rate=0.1, epsilon_2=0.25)
    )
    assert params == pytest.approx(np.full(shape, -0.025), rel=1e-6)


@pytest.mark.parametrize("mode", ["add", "clamp"])
def test_v13_a_zero_row_and_column_without_epsilon_stay(mode):
    params = np.ones((4, 5), np.float32)
    grads = np.zeros((4, 5), np.float32)
    grads[1:, 1:] = 0.5
    state = adafactor.init(params, learning_rate=0.1, epsilon_1=0.0, epsilon_1_mode=mode)
    adafactor.step(params, grads, state)
    assert (params[0] == 1).all()
    assert (params[:, 0] == 1).all()
    assert np.isfinite(params).all()
    assert (params[1:, 1:] < 1).all()


@pytest.mark.parametrize(
    "knobs", [{}, {"clip_threshold": None}, {"beta_1": 0.0}, {"weight_decay": 0.0}], ids=str
)
def test_v14_rows_and_columns_of_any_scale_step_alike(knobs):
    """|G| is an outer product, so U is its sign: squares from 1e-36 to 1e36 in one leaf."""
    signs = np.sign(numbers((7, 21), 0))
    scale = np.outer(np.logspace(-9, 9, 7), np.logspace(9, -9, 21))
    params = np.zeros((7, 21), np.float32)
    state = adafactor.init(params, learning_rate=1.0, scale_parameter=False, epsilon_1=0.0, **knobs)
    adafactor.step(params, (signs * scale).astype(np.float32), state)
    assert params == pytest.approx(-signs, rel=1e-5)


UNMEASURED = {"clip_threshold": None, "scale_parameter": False, "relative_step": False}


@pytest.mark.parametrize(
    ("parameter", "multiplier", "knobs"),
    [
        (1e12, 1.0, {"learning_rate": 1e-3}),
        (1e12, 1.0, {"learning_rate": 1e-3, "epsilon_1_mode": "clamp"}),
        (1e12, 1.0, {"learning_rate": 1e9, **UNMEASURED}),
        (1.0, 1e13, {"learning_rate": 1e-3, **UNMEASURED}),
        (1.0, 1e13, {"learning_rate": 1e-3, "beta_1": 0.0, "momentum_on": "update", **UNMEASURED}),
    ],
    ids=str,
)
def test_v14_a_row_factor_out_of_range_is_none_of_the_update(parameter, multiplier, knobs):
    """U is 1. The factor of the first row is 7e29, and out of range with what else it is multiplied by."""
    grads = np.outer([1e-15, 1e15], np.ones(4)).astype(np.float32) / np.float32(multiplier)
    params = np.full((2, 4), parameter, np.float32)
    adafactor.step(params, grads, adafactor.init(params, epsilon_1=0.0, **knobs), grad_multiplier=multiplier)
    assert params == pytest.approx(np.full((2, 4), parameter * 0.999), rel=1e-6)


@pytest.mark.parametrize("knobs", [{}, {"momentum_on": "update", "beta_1": 0.0}, {"use_ema": True}], ids=str)
@pytest.mark.parametrize("exponent", [10, 14, 18])
def test_v15_an_update_out_of_range_is_exact(exponent, knobs):
    """U of diag(10^n, 10^-n) is diag(1, 10^2n); its rms is half of the latter, so that clipping leaves 2."""
    params = np.ones((2, 2), np.float32)
    grads = np.diag(np.array([10.0**exponent, 10.0**-exponent], np.float32))
    state = adafactor.init(params, learning_rate=0.1, epsilon_1=0.0, **knobs)
    report = adafactor.step(params, grads, state)
    assert params == pytest.approx(np.array([[1, 1], [1, 0.8]]), abs=1e-6)
    assert report.update_rms == pytest.approx(0.5 * 10.0 ** (2 * exponent), rel=1e-5)


def test_v15_an_update_out_of_range_that_nothing_measures_is_exact():
    params = np.ones((2, 2), np.float32)
    grads = np.diag(np.array([1e18, 1e-18], np.float32))
    knobs = {"clip_threshold": None, "scale_parameter": False, "epsilon_1": 0.0}
    adafactor.step(params, grads, adafactor.init(params, learning_rate=1e-37, **knobs))
    assert params == pytest.approx(np.array([[1, 1], [1, 0.9]]), abs=1e-6)


# Runs in a process of its own, whose threads inherit what it does to its environment.
ENVIRONMENT = """
import ctypes, hashlib, json, sys
import numpy as np

def mxcsr():
    buffer = (ctypes.c_uint32 * 8)()  # glibc's fenv_t: the control and status of the vector unit come last
    libm.fegetenv(buffer)
    return buffer[7]

def set_mxcsr(value):
    buffer = (ctypes.c_uint32 * 8)()
    libm.fegetenv(buffer)
    buffer[7] = value
    libm.fesetenv(buffer)

libm = ctypes.CDLL("libm.so.6")
generator = np.random.default_rng(0)
shapes = {"vector": (200005,), "matrix": (3, 50005), "small": (7, 37)}
params = {path: generator.standard_normal(shape).astype(np.float32) for path, shape in shapes.items()}
params["tiny"] = np.full(50, 1e-40, np.float32)  # below the smallest normal number
grads = {path: generator.standard_normal(p.shape).astype(np.float32) for path, p in params.items()}
grads["tiny"][...] = 0
set_mxcsr(int(sys.argv[1], 16))
before = mxcsr() & 0xffc0
import adafactor
adafactor.set_num_threads(int(sys.argv[2]))
state = adafactor.init(params, weight_decay=0.5, weight_decay_on="none", beta_1=0.9)
for _ in range(2):
    adafactor.step(params, grads, state)
after = mxcsr() & 0xffc0
set_mxcsr(0x1f80)
digest = hashlib.sha256()
for array in (*params.values(), *state.tensors().values()):
    digest.update(array.tobytes())
tiny = float(params["tiny"][0])
print(json.dumps([before, after, digest.hexdigest(), tiny, float(np.finfo(np.float32).smallest_subnormal)]))
"""


def run_in(mxcsr, threads):
    command = [sys.executable, "-c", ENVIRONMENT, hex(mxcsr), str(threads)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


@pytest.mark.skipif(
    platform.machine() != "x86_64" or platform.libc_ver()[0] != "glibc",
    reason="sets glibc's fenv_t of x86-64",
)
def test_v9_v10_the_floating_point_environment_of_the_caller_changes_no_bit():
    """Denormals off, as -ffast-math leaves them, and rounding upwards; the caller gets its own back."""
    expected = run_in(0x1F80, 1)
    assert expected[:2] == [0x1F80, 0x1F80]
    assert expected[3] == pytest.approx(0.25e-40, rel=1e-4)
    assert expected[4] > 0
    for mxcsr in (0x1F80 | 0x8040, 0x1F80 | 0x4000):
        for threads in (1, 3):
            assert run_in(mxcsr, threads) == [mxcsr, mxcsr, *expected[2:]]
