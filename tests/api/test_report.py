"""StepReport: every number is that of a plain computation, and NaN stands for what a call did not compute."""

import dataclasses
import math

import numpy as np
import pytest

import adafactor
from adafactor.report import MARKS, NUMBERS, PER_LEAF

SHAPES = {"vector": (37,), "matrix": (7, 37), "slices": (3, 2, 21), "number": ()}


def numbers(shape, seed):
    return np.asarray(np.random.default_rng(seed).standard_normal(shape), np.float32)


def tree(seed, shapes=SHAPES):
    return {path: numbers(shape, seed + i) for i, (path, shape) in enumerate(shapes.items())}


def rms(x):
    return math.sqrt(np.mean(np.square(x, dtype=np.float64)))


def norm(x):
    return math.sqrt(np.sum(np.square(x, dtype=np.float64)))


def first_update(g):
    """U of the first step, where beta2 is 0: algorithm 4 of the paper, slice by slice, in float64."""
    squares = np.square(g, dtype=np.float64) + 1e-30
    if g.ndim < 2:
        return g / np.sqrt(squares)
    row, col = squares.mean(-1, keepdims=True), squares.mean(-2, keepdims=True)
    return g / np.sqrt(row * col / row.mean(-2, keepdims=True))


def per_leaf(report, name):
    return dict(zip(report.paths, getattr(report, name).tolist(), strict=True))


def is_nan(report, *names):
    return [bool(np.isnan(getattr(report, name)).all()) for name in names]


@pytest.mark.parametrize("call", ["step", "update"])
def test_every_number_of_a_first_step(call):
    params, grads = tree(0), tree(10)
    before = {path: p.copy() for path, p in params.items()}
    state = adafactor.init(params, learning_rate=0.01, clip_threshold=0.9)
    result = getattr(adafactor, call)(params, grads, state, grad_multiplier=2.0)
    report = result if call == "step" else result[2]
    assert (report.updated, report.skipped, report.learning_rate, report.rho) == (True, False, 0.01, 0.01)
    assert report.beta_2 == 0
    assert report.paths == tuple(SHAPES)
    assert report.global_grad_norm == pytest.approx(2 * math.hypot(*map(norm, grads.values())), rel=1e-6)
    for path, index in zip(SHAPES, range(len(SHAPES)), strict=True):
        update_rms = rms(first_update(2 * grads[path]))
        expected = {
            "grad_norm": 2 * norm(grads[path]),
            "param_rms": rms(before[path]),
            "update_rms": update_rms,
            "clip_factor": 1 / max(1, update_rms / 0.9),
            "step_size": 0.01 * max(1e-3, rms(before[path])),
        }
        for name, value in expected.items():
            assert getattr(report, name)[index] == pytest.approx(value, rel=1e-5), (path, name)
    assert not report.nonfinite.any()


def test_the_arrays_are_numpy_s_in_double():
    params = tree(0)
    report = adafactor.step(params, tree(10), adafactor.init(params))
    for name in PER_LEAF:
        array = getattr(report, name)
        assert array.shape == (len(SHAPES),)
        assert array.dtype == (bool if name in MARKS else np.float64)
    assert type(report.updated) is type(report.skipped) is bool


def test_a_report_keeps_its_numbers():
    """They are copies: the next call does not change them, and neither does the end of the state."""
    params = tree(0)
    state = adafactor.init(params)
    report = adafactor.step(params, tree(10), state)
    kept = repr(report), report.as_dict()
    adafactor.step(params, tree(20), state)
    del state
    assert (repr(report), report.as_dict()) == kept


@pytest.mark.parametrize(
    ("knobs", "rates", "rhos"),
    [
        ({"learning_rate": 0.8}, [0.8, 0.8, 0.8], [0.8, 2**-0.5, 3**-0.5]),
        ({"learning_rate": 0.8, "relative_step": False}, [0.8] * 3, [0.8] * 3),
        ({"learning_rate": lambda: 0.8}, [0.8] * 3, [0.8] * 3),
        ({"learning_rate": lambda: 0.8, "relative_step": "always"}, [0.8] * 3, [0.8, 2**-0.5, 3**-0.5]),
        ({"warmup_init": True}, [1e-6, 2e-6, 3e-6], [1e-6, 2e-6, 3e-6]),
    ],
    ids=["capped", "not capped", "callable", "always", "warm-up"],
)
def test_learning_rate_and_rho(knobs, rates, rhos):
    params = tree(0)
    state = adafactor.init(params, scale_parameter=False, **knobs)
    reports = [adafactor.step(params, tree(10 + k), state) for k in range(3)]
    assert [report.learning_rate for report in reports] == pytest.approx(rates, rel=1e-15)
    assert [report.rho for report in reports] == pytest.approx(rhos, rel=1e-15)
    for report in reports:
        assert report.step_size == pytest.approx(np.full(len(SHAPES), report.rho), rel=1e-15)


@pytest.mark.parametrize(
    ("knobs", "beta_2"),
    [
        ({}, [1 - t**-0.8 for t in (1, 2, 3, 4)]),
        ({"beta_2_decay": -0.5}, [1 - t**-0.5 for t in (1, 2, 3, 4)]),
        ({"beta_2_cap": 0.5}, [0, 1 - 2**-0.8, 0.5, 0.5]),
        ({"step_offset": 2}, [0, 0, 0, 1 - 2**-0.8]),
        ({"beta_2_decay": 0}, [0, 0, 0, 0]),
    ],
    ids=str,
)
def test_beta_2(knobs, beta_2):
    params = tree(0)
    state = adafactor.init(params, **knobs)
    found = [adafactor.step(params, tree(10 + k), state).beta_2 for k in range(4)]
    assert found == pytest.approx(beta_2, abs=1e-15)


@pytest.mark.parametrize("limit", [0.5, 1e6])
def test_the_norms_are_those_before_clipping(limit):
    expected = adafactor.update(tree(0), tree(10), adafactor.init(tree(0)))[2]
    for knob in ("clipnorm", "global_clipnorm", "clipvalue"):
        params = tree(0)
        report = adafactor.step(params, tree(10), adafactor.init(params, **{knob: limit}))
        assert report.grad_norm == pytest.approx(expected.grad_norm, rel=1e-6)
        assert report.global_grad_norm == pytest.approx(expected.global_grad_norm, rel=1e-6)


def test_the_loss_scale_is_taken_out():
    params, grads = tree(0), tree(10)
    scaled = {path: np.asarray(1024 * g) for path, g in grads.items()}
    report = adafactor.step(params, scaled, adafactor.init(params, loss_scale_factor=1024.0))
    assert report.grad_norm == pytest.approx([norm(g) for g in grads.values()], rel=1e-6)


def test_the_scale_of_the_parameter_is_that_of_the_decayed_one_but_its_rms_is_not():
    params, grads = tree(0), tree(10)
    before = [rms(p) for p in params.values()]
    state = adafactor.init(params, learning_rate=0.5, weight_decay=0.5)
    report = adafactor.step(params, grads, state)
    assert report.param_rms == pytest.approx(before, rel=1e-6)
    assert report.step_size == pytest.approx([0.5 * 0.75 * scale for scale in before], rel=1e-6)


def test_nothing_measures_without_a_scale_and_a_threshold():
    params = tree(0)
    state = adafactor.init(params, scale_parameter=False, clip_threshold=None, learning_rate=0.25)
    report = adafactor.step(params, tree(10), state)
    assert is_nan(report, "param_rms", "update_rms") == [True, True]
    assert (report.clip_factor == 1).all()
    assert (report.step_size == 0.25).all()


@pytest.mark.parametrize("knobs", [{"scale_parameter": False}, {"clip_threshold": None}], ids=str)
def test_either_of_the_two_is_enough_to_measure_both(knobs):
    params = tree(0)
    before = [rms(p) for p in params.values()]
    report = adafactor.step(params, tree(10), adafactor.init(params, **knobs))
    assert report.param_rms == pytest.approx(before, rel=1e-6)
    assert report.update_rms == pytest.approx([rms(first_update(g)) for g in tree(10).values()], rel=1e-5)


def test_a_leaf_without_a_gradient_has_no_numbers():
    params, grads = tree(0), tree(10)
    with pytest.warns(UserWarning, match="no gradient for matrix"):
        report = adafactor.step(params, grads | {"matrix": None}, adafactor.init(params))
    for name in NUMBERS:
        assert np.isnan(getattr(report, name)).tolist() == [False, True, False, False]
    others = (norm(g) for path, g in grads.items() if path != "matrix")
    assert report.global_grad_norm == pytest.approx(math.hypot(*others), rel=1e-6)
    assert not report.nonfinite.any()


def test_a_skipped_call():
    params, grads = tree(0), tree(10)
    grads["vector"][5] = np.nan
    grads["slices"][...] = np.inf
    report = adafactor.step(params, grads, adafactor.init(params, on_nonfinite="skip"))
    assert (report.updated, report.skipped, report.learning_rate) == (False, True, 0.001)
    assert is_nan(report, "beta_2", "rho", *NUMBERS[1:]) == [True] * 6
    assert per_leaf(report, "nonfinite") == {"vector": True, "matrix": False, "slices": True, "number": False}
    assert np.isfinite(report.grad_norm).tolist() == [False, True, False, True]
    assert report.grad_norm[1] == pytest.approx(norm(grads["matrix"]), rel=1e-6)
    assert not math.isfinite(report.global_grad_norm)


@pytest.mark.parametrize("learning_rate", [0.01, lambda: 0.01])
def test_a_window_of_accumulation(learning_rate):
    """An adding call reports its part of the mean so far, so that the norms of a window are one curve."""
    params = tree(0)
    state = adafactor.init(params, gradient_accumulation_steps=3, learning_rate=learning_rate)
    total = {path: np.zeros(shape) for path, shape in SHAPES.items()}
    for k in range(3):
        grads = tree(10 * k + 10)
        total = {path: total[path] + grads[path] for path in SHAPES}
        report = adafactor.step(params, grads, state)
        expected = [norm(g) / 3 for g in total.values()]
        assert report.grad_norm == pytest.approx(expected, rel=1e-5)
        assert report.global_grad_norm == pytest.approx(math.hypot(*expected), rel=1e-5)
        assert report.learning_rate == 0.01
        assert (report.updated, report.skipped) == (k == 2, False)
        assert is_nan(report, "beta_2", "rho", *NUMBERS[1:]) == [k < 2] * 6
    assert report.update_rms == pytest.approx([rms(first_update(g)) for g in total.values()], rel=1e-5)


def test_the_learning_rate_of_an_adding_call_while_warming_up():
    """It is that of the update to which the call adds."""
    params = tree(0)
    state = adafactor.init(params, gradient_accumulation_steps=2, warmup_init=True)
    rates = [adafactor.step(params, tree(10), state).learning_rate for _ in range(4)]
    assert rates == pytest.approx([1e-6, 1e-6, 2e-6, 2e-6], rel=1e-12)


def test_the_call_s_numbers_are_those_of_the_config_not_of_an_override():
    params = tree(0)
    state = adafactor.init(params, learning_rate=0.25, overrides=[("vector", {"learning_rate": 0.5})])
    report = adafactor.step(params, tree(10), state)
    assert (report.learning_rate, report.rho) == (0.25, 0.25)
    scales = report.step_size / np.maximum(1e-3, report.param_rms)
    assert scales == pytest.approx([0.5, 0.25, 0.25, 0.25], rel=1e-6)


def test_as_dict_has_plain_numbers_by_path():
    params, grads = tree(0), tree(10)
    report = adafactor.step(params, grads, adafactor.init(params))
    numbers_of = report.as_dict()
    assert list(numbers_of) == list(SHAPES)
    for index, row in enumerate(numbers_of.values()):
        assert list(row) == list(PER_LEAF)
        for name, value in row.items():
            assert value == getattr(report, name)[index]
            assert type(value) is (bool if name in MARKS else float)


def test_the_repr_is_a_line_for_the_call_and_one_for_each_of_the_first_leaves():
    params, grads = tree(0), tree(10)
    report = adafactor.step(params, grads, adafactor.init(params, learning_rate=0.01))
    lines = repr(report).splitlines()
    assert lines[0].startswith(
        "StepReport(updated, learning_rate=0.01, rho=0.01, beta_2=0, global_grad_norm="
    )
    assert lines[1].split() == ["leaf", *NUMBERS]
    assert [line.split()[0] for line in lines[2:]] == list(SHAPES)
    assert [float(cell) for cell in lines[3].split()[1:]] == pytest.approx(
        [getattr(report, name)[1] for name in NUMBERS], rel=1e-3
    )
    assert len({len(line) for line in lines[1:]}) == 1

    grads["vector"][0] = np.nan
    skipped = repr(adafactor.step(params, grads, adafactor.init(params, on_nonfinite="skip"))).splitlines()
    assert skipped[0].startswith("StepReport(skipped, ")
    assert [line.endswith("non-finite") for line in skipped[2:]] == [True, False, False, False]

    state = adafactor.init(params, gradient_accumulation_steps=2)
    assert repr(adafactor.step(params, tree(10), state)).startswith("StepReport(no update, ")


def test_the_repr_of_many_leaves_is_short():
    params = [np.ones(3, np.float32) for _ in range(500)]
    lines = repr(adafactor.step(params, [p.copy() for p in params], adafactor.init(params))).splitlines()
    assert len(lines) < 30
    assert lines[-1] == "... and 480 more leaves"


def test_the_repr_of_no_leaves():
    assert repr(adafactor.step({}, {}, adafactor.init({}))).startswith(
        "StepReport(no update, learning_rate=nan"
    )


def test_a_report_is_frozen():
    report = adafactor.step({}, {}, adafactor.init({}))
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.updated = True


def test_a_leaf_at_the_floor_of_its_scale_is_marked():
    """Below epsilon_2, decay counted in; without a scale of the parameter there is no floor."""
    params = {
        "zero": np.zeros(4),
        "small": np.full((2, 3), 5e-4),
        "at": np.full(4, 1e-3),
        "large": np.ones(3),
    }
    grads = {path: np.ones_like(p) for path, p in params.items()}

    def marked(**knobs):
        _new, _, report = adafactor.update(params, grads, adafactor.init(params, **knobs))
        return report

    report = marked()
    assert report.at_floor.tolist() == [True, True, False, False]
    lines = repr(report).splitlines()
    assert [line.endswith("  at its floor") for line in lines[2:6]] == [True, True, False, False]
    assert lines[6].startswith("at its floor: 2 of 4 leaves; rms(p) is below epsilon_2")
    assert marked(weight_decay=0.5, weight_decay_on="none").at_floor.tolist() == [True, True, True, False]
    assert marked(epsilon_2=1e-4).at_floor.tolist() == [True, False, False, False]
    for unscaled in ({"scale_parameter": False}, {"epsilon_2": 0.0}):
        report = marked(**unscaled)
        assert not report.at_floor.any()
        assert "floor" not in repr(report)


def test_a_leaf_that_was_not_updated_is_not_at_its_floor():
    params = {"zero": np.zeros(4), "rests": np.zeros(4)}
    with pytest.warns(UserWarning, match="no gradient for rests"):
        report = adafactor.step(params, {"zero": np.ones(4), "rests": None}, adafactor.init(params))
    assert report.at_floor.tolist() == [True, False]
    state = adafactor.init(params, gradient_accumulation_steps=2)
    assert not adafactor.step(params, {"zero": np.ones(4), "rests": np.ones(4)}, state).at_floor.any()
