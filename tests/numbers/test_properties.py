"""What must hold of every Adafactor, whatever its numbers: symmetries, bounds, and equal configurations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import adafactor
from golden import KERAS, OPTAX, TORCH, TRANSFORMERS

quick = settings(max_examples=100, deadline=None, database=None)
seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 70)


def stepped(p, gradients, **knobs):
    """A copy of the parameter after these gradients, and the last report."""
    p = p.copy()
    state = adafactor.init(p, **knobs)
    for g in gradients:
        report = adafactor.step(p, g, state)
    return p, report


@quick
@given(seeds, sizes, sizes, st.sampled_from(["add", "clamp"]))
def test_transposing_a_leaf_transposes_the_result(seed, rows, cols, mode):
    rng = np.random.default_rng(seed)
    p, *gradients = rng.standard_normal((4, rows, cols))
    straight, _ = stepped(p, gradients, learning_rate=0.1, epsilon_1_mode=mode)
    turned, _ = stepped(p.T.copy(), [g.T.copy() for g in gradients], learning_rate=0.1, epsilon_1_mode=mode)
    np.testing.assert_allclose(turned.T, straight, rtol=0, atol=1e-14 * np.max(np.abs(p)))


@quick
@given(seeds, sizes, sizes, st.integers(-20, 20), st.sampled_from(["last_two", False]))
def test_scaling_every_gradient_changes_nothing(seed, rows, cols, exponent, factored):
    """A power of two changes no bit as long as epsilon_1 is lost in the squares; that of any number a few."""
    rng = np.random.default_rng(seed)
    p, *gradients = rng.standard_normal((4, rows, cols), np.float32)
    knobs = {"learning_rate": 0.1, "factored": factored}
    straight, _ = stepped(p, gradients, **knobs)
    scaled, _ = stepped(p, [g * np.float32(2.0**exponent) for g in gradients], **knobs)
    np.testing.assert_array_equal(scaled, straight)
    wide, _ = stepped(p.astype(np.float64), [g.astype(np.float64) for g in gradients], **knobs)
    tripled, _ = stepped(p.astype(np.float64), [3.0 * g.astype(np.float64) for g in gradients], **knobs)
    np.testing.assert_allclose(tripled, wide, rtol=0, atol=1e-13 * np.max(np.abs(p)))


SPLIT_KNOBS = [
    {},
    {"clipnorm": 0.1},
    {"clipvalue": 0.1},
    {"beta_1": 0.9, "weight_decay": 0.1},
    {"use_ema": True, "ema_overwrite_frequency": 2},
    {"gradient_accumulation_steps": 2},
]


@pytest.mark.parametrize("knobs", SPLIT_KNOBS, ids=str)
def test_splitting_a_tree_changes_no_bit(knobs):
    rng = np.random.default_rng(3)
    shapes = [(), (9,), (300, 41), (5, 6, 7), (64, 64)]
    params = [np.asarray(rng.standard_normal(shape), np.float32) for shape in shapes]
    calls = [[np.asarray(rng.standard_normal(shape), np.float32) for shape in shapes] for _ in range(4)]
    together = [p.copy() for p in params]
    state = adafactor.init(together, **knobs)
    for grads in calls:
        adafactor.step(together, grads, state)
    for i, p in enumerate(params):
        alone, _ = stepped(p, [grads[i] for grads in calls], **knobs)
        np.testing.assert_array_equal(alone, together[i])


def test_splitting_a_tree_changes_a_global_norm():
    p, g = np.ones(4), np.full(4, 3.0)
    together = [p.copy(), p.copy()]
    knobs = {"global_clipnorm": 1.0, "epsilon_1": 1.0}  # so large an epsilon shows the size of the gradient
    adafactor.step(together, [g, g], adafactor.init(together, **knobs))
    alone, _ = stepped(p, [g], **knobs)
    assert np.all(alone < together[0])


@quick
@given(seeds, sizes, sizes, st.floats(0.05, 3))
def test_rms_of_a_step_is_bounded(seed, rows, cols, threshold):
    rng = np.random.default_rng(seed)
    p = rng.standard_normal((rows, cols))
    gradients = rng.standard_normal((3, rows, cols)) * 10.0 ** rng.uniform(-6, 6, (3, 1, 1))
    state = adafactor.init(p, learning_rate=0.1, clip_threshold=threshold)
    for g in gradients:
        before = p.copy()
        report = adafactor.step(p, g, state)
        moved = np.sqrt(np.mean((p - before) ** 2))
        assert moved <= report.step_size[0] * threshold * (1 + 1e-12) + 1e-16
        assert 0 < report.clip_factor[0] <= 1


@quick
@given(seeds, st.integers(1, 2000))
def test_first_step_of_an_unfactored_leaf_moves_by_the_sign(seed, n):
    rng = np.random.default_rng(seed)
    p, g = rng.standard_normal((2, n))
    after, report = stepped(p, [g], learning_rate=0.1)
    alpha = 0.1 * max(1e-3, np.sqrt(np.mean(p**2)))
    np.testing.assert_allclose(report.step_size, alpha, rtol=1e-14)
    np.testing.assert_allclose(after, p - alpha * np.sign(g), rtol=0, atol=1e-15 * np.max(np.abs(p)))


def test_four_libraries_agree_on_a_constant_rate():
    """keras, torch, transformers and optax do the same while the rate is below 1 / sqrt(t)."""
    rng = np.random.default_rng(5)
    p = rng.standard_normal((12, 9))
    gradients = rng.standard_normal((8, 12, 9))
    results = {
        name: stepped(p, gradients, **{**knobs, "learning_rate": 0.01})[0]
        for name, knobs in {
            "keras": KERAS,
            "torch": TORCH,
            "transformers": TRANSFORMERS,
            "optax": OPTAX,
        }.items()
    }
    for name, result in results.items():
        np.testing.assert_allclose(result, results["keras"], rtol=0, atol=1e-13, err_msg=name)
