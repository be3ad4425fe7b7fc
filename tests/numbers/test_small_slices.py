"""Small slices, such as kernels of 3x3: their factors are made, and measured, along with `moments`.

A norm that never clips keeps these phases apart, as other leaves have them: then the same bits come out.
"""

import ml_dtypes
import numpy as np
import pytest

import adafactor
import snapshots

NEVER = 1e30
SHAPES = [(64, 32, 3, 3), (15000, 3, 3), (4000, 2, 5), (60, 1, 1), (33, 15, 15), (17, 7, 4), (16, 1, 3)]
KNOBS = {
    "plain": {},
    "unmeasured": {"scale_parameter": False, "clip_threshold": None},
    "links": {"beta_1": 0.9, "weight_decay": 0.1, "use_ema": True, "loss_scale_factor": 8.0},
    "accumulation": {"gradient_accumulation_steps": 2},
    "skip": {"on_nonfinite": "skip"},
    "propagate": {"on_nonfinite": "propagate"},
}
FLOATS = {"float32": np.float32, "float64": np.float64, "bfloat16": ml_dtypes.bfloat16}


def drawn(shape, dtype, seed):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def after_steps(params, gradients, **knobs):
    """What parameters, state and report are after a step with each gradient."""
    params = params.copy()
    state = adafactor.init(params, **knobs)
    reports = [adafactor.step(params, gradient, state) for gradient in gradients]
    sums = [(report.update_rms, report.grad_norm, report.step_size) for report in reports]
    return params.tobytes(), snapshots.of_state(state), repr(sums)


def assert_alike(params, gradients, **knobs):
    together = after_steps(params, gradients, **knobs)
    apart = after_steps(params, gradients, clipnorm=NEVER, **knobs)
    assert together == apart


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("knobs", KNOBS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_phases_together_give_the_bits_that_they_give_apart(shape, knobs, dtype):
    params = drawn(shape, FLOATS[dtype], 0)
    gradients = [drawn(shape, FLOATS[dtype], seed) for seed in (1, 2, 3, 4)]
    assert_alike(params, gradients, **KNOBS[knobs])


@pytest.mark.parametrize("layout", ["fortran", "gaps"])
def test_they_do_so_of_any_memory_layout(layout):
    shape = (2000, 3, 3)
    params, gradient = drawn(shape, np.float32, 0), drawn(shape, np.float32, 1)
    if layout == "fortran":
        gradient = np.asfortranarray(gradient)
    else:
        gradient = np.repeat(gradient, 2, axis=-1)[..., ::2]
    assert_alike(params, [gradient, gradient])


@pytest.mark.parametrize("policy", ["skip", "propagate"])
@pytest.mark.parametrize("where", [0, 17999])
def test_they_do_so_where_a_gradient_is_not_finite(policy, where):
    """A norm that is NaN goes into each moment of a leaf, also of slices done before it was found."""
    shape = (2000, 3, 3)
    gradients = [drawn(shape, np.float32, seed) for seed in (1, 2, 3)]
    gradients[1].ravel()[where] = np.nan
    assert_alike(drawn(shape, np.float32, 0), gradients, on_nonfinite=policy)


def test_they_do_so_where_squares_leave_float():
    """Then U is measured anew, in double."""
    shape = (2000, 3, 3)
    gradient = drawn(shape, np.float32, 1)
    gradient[5] *= np.float32(1e-18)
    gradient[7] *= np.float32(1e18)
    params = drawn(shape, np.float32, 0) * np.float32(1e19)
    assert_alike(params, [gradient, gradient])
