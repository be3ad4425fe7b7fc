"""Section 4: values of parameters and gradients; V9 and V10, which change a whole process, are elsewhere."""

import numpy as np
import pytest

import adafactor
from registry.case import Case, Event, model, same, with_grads
from registry.libraries import memory_of

nan, inf = np.nan, np.inf
THREE = {"vector": (37,), "matrix": (7, 37), "slices": (3, 2, 21)}
ADVICE = 'nothing was changed; on_nonfinite="skip" skips such a call, "propagate" lets it through'
OVERFLOWS = "finite, but the sum of the squares of what the step uses overflows"


def poisoned(**values):
    """The model's gradients with these values at the third place of a leaf."""

    def given(m):
        grads = {path: np.array(memory_of(g)) for path, g in m.grads.items()}
        for path, value in values.items():
            grads[path].flat[2] = value
        return m.params, {path: m.library.array(g) for path, g in grads.items()}

    return given


def spoilt(path, value):
    """The model with such a value in a parameter."""

    def given(m):
        params = {name: np.array(memory_of(p)) for name, p in m.params.items()}
        params[path].flat[2] = value
        return {name: m.library.array(p) for name, p in params.items()}, m.grads

    return given


def leaf(params, grads, **knobs):
    """A model of one leaf with these values that has made no step."""
    params, grads = np.broadcast_arrays(np.float32(params), np.float32(grads))
    return model(values=({"x": params}, {"x": grads}), steps=0, **knobs)


def numbers(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


START = numbers(6, 21)


def zero_gradients(**knobs):
    return leaf(START, 0.0, **knobs)


# What must come of it.


def ends_with(expected, **tolerance):
    """The parameters are these numbers; 1e-6 is some roundings of a float32."""
    tolerance = tolerance or {"rel": 1e-6}

    def expect(outcome):
        assert outcome.report.updated
        assert outcome.memory["x"] == pytest.approx(
            np.broadcast_to(expected, outcome.memory["x"].shape), **tolerance
        )
        assert all(np.isfinite(tensor).all() for tensor in outcome.state.arrays().values())

    return expect


def skipped(outcome):
    assert outcome.report.skipped
    assert not outcome.report.updated
    assert outcome.report.nonfinite.tolist() == [False, True]


def propagated(outcome):
    assert outcome.report.updated
    assert outcome.report.nonfinite.tolist() == [True, False]
    assert np.isfinite(outcome.memory["b"]).all()
    assert np.isnan(outcome.memory["w"].flat[2])


def negative_zeros(outcome):
    assert np.signbit(outcome.memory["x"]).all()
    assert not outcome.memory["x"].any()


def zero_row_and_column(outcome):
    params = outcome.memory["x"]
    assert (params[0] == 1).all()
    assert (params[:, 0] == 1).all()
    assert (params[1:, 1:] < 1).all()
    assert np.isfinite(params).all()


def odd_bits_without_a_gradient(m):
    """Payloads and all, where nothing is computed."""
    odd = np.array([0x7FC01234, 0x7F800001, 0x80000000, 0x00000001, 0xFF800000], np.uint32).view(np.float32)
    ones = np.ones(3, np.float32)
    params, grads = ({"odd": leaf, "w": m.library.array(ones)} for leaf in (m.library.array(odd), None))
    state = adafactor.init(params)
    with pytest.warns(UserWarning, match="no gradient for odd"):
        after, _, _ = adafactor.update(params, grads, state)
    with pytest.warns(UserWarning, match="no gradient for odd"):
        adafactor.step(params, grads, state)
    assert [memory_of(tree["odd"]).tobytes() for tree in (params, after)] == [odd.tobytes()] * 2


def norm_of_all(outcome):
    """The squares of each leaf add up to 1.7e308 and those of both to twice that; U of a first step is 1."""
    assert outcome.report.global_grad_norm == pytest.approx(0.75e154 * 6**0.5, rel=1e-14)
    assert np.concatenate(list(outcome.memory.values())) == pytest.approx(np.full(6, 0.9), rel=1e-14)


LARGE_SQUARES = tuple({path: np.full(3, value) for path in "ab"} for value in (1.0, 0.75e154))
DOUBLES = tuple({"vector": np.full(37, value)} for value in (1.0, 0.5))
UNMEASURED = {"clip_threshold": None, "scale_parameter": False, "relative_step": False}
# (parameter, multiplier, knobs): U is 1. The factor of the first row is 7e29, and out of range with what else
# it is multiplied by.
ROW_FACTORS = [
    (1e12, 1.0, {"learning_rate": 1e-3}),
    (1e12, 1.0, {"learning_rate": 1e-3, "epsilon_1_mode": "clamp"}),
    (1e12, 1.0, {"learning_rate": 1e9, **UNMEASURED}),
    (1.0, 1e13, {"learning_rate": 1e-3, **UNMEASURED}),
    (1.0, 1e13, {"learning_rate": 1e-3, "beta_1": 0.0, "momentum_on": "update", **UNMEASURED}),
]
ZERO_BUT_FOR_A_BLOCK = np.pad(np.full((3, 4), 0.5, np.float32), ((1, 0), (1, 0)))
OUTER = np.outer(np.logspace(-9, 9, 7), np.logspace(9, -9, 21))  # squares from 1e-36 to 1e36
SIGNS = np.sign(numbers(7, 21))
UNSCALED = {"learning_rate": 1.0, "scale_parameter": False}

CASES = [
    Case("V1 a NaN", poisoned(b=nan), FloatingPointError, f"grads b: 1 NaN and 0 Inf of 21 values; {ADVICE}"),
    Case(
        "V1 an Inf", poisoned(w=-inf), FloatingPointError, f"grads w: 0 NaN and 1 Inf of 126 values; {ADVICE}"
    ),
    Case(
        "V1 both leaves",
        poisoned(w=inf, b=nan),
        FloatingPointError,
        f"grads w: 0 NaN and 1 Inf of 126 values, and 1 more leaf; {ADVICE}",
    ),
    Case("V1 skipped", poisoned(b=nan), model=model(on_nonfinite="skip"), is_nothing=True, expect=skipped),
    Case("V1 propagated", poisoned(w=nan), model=model(on_nonfinite="propagate"), expect=propagated),
    *(
        Case(
            f"V2 {value} in the {path}",
            spoilt(path, value),
            FloatingPointError,
            f"params {path}: {found} of {np.prod(shape)} values; {ADVICE}",
            model=model(shapes=THREE, steps=0),
        )
        for value, found in ((nan, "1 NaN and 0 Inf"), (inf, "0 NaN and 1 Inf"), (-inf, "0 NaN and 1 Inf"))
        for path, shape in THREE.items()
    ),
    Case(
        "V2 a parameter whose squares overflow in double",
        lambda m: (m.params | {"vector": m.library.array(np.full(37, 1e160))}, m.grads),
        FloatingPointError,
        f"params vector: finite, but the sum of its squares overflows, .*; {ADVICE}",
        model=model(values=DOUBLES, steps=0),
    ),
    Case(
        "V3 a square that overflows", poisoned(b=2e19), FloatingPointError, f"grads b: {OVERFLOWS}; {ADVICE}"
    ),
    Case(
        # Each is a quarter of the largest float32, and there are eight in a column.
        "V3 squares that overflow together",
        with_grads(w=lambda m: m.library.array(np.full((8, 21), 9e18, np.float32))),
        FloatingPointError,
        f"grads w: {OVERFLOWS}; {ADVICE}",
        model=model(shapes={"w": (8, 21)}),
    ),
    *(
        Case(
            f"V3 a {name} whose squares overflow is measured in double",
            same,
            model=leaf(np.full(shape, 2e19), 1.0, learning_rate=0.1),
            expect=ends_with(1.8e19),
        )
        for name, shape in THREE.items()
    ),
    Case(
        "V3 the norm of all leaves, whose square overflows",
        same,
        model=model(values=LARGE_SQUARES, steps=0, learning_rate=0.1, global_clipnorm=1.0),
        expect=norm_of_all,
    ),
    # U is the gradient over the root of epsilon_1 = 1e-30.
    *(
        Case(
            f"V4 a {name} of gradients of {g}",
            same,
            model=leaf(np.ones(shape), g, **UNSCALED),
            expect=ends_with(1 - g * 1e15),
        )
        for g in (1e-23, -1e-30, 1e-40)
        for name, shape in THREE.items()
    ),
    *(
        Case(
            f"V5 zero gradients {knobs}",
            same,
            model=zero_gradients(**knobs),
            expect=ends_with(START, abs=0),
        )
        for knobs in ({}, {"clip_threshold": None, "scale_parameter": False}, {"beta_1": 0.9})
    ),
    Case(
        "V5 zero gradients and decay",
        same,
        model=leaf(np.ones((6, 21)), 0.0, learning_rate=0.5, weight_decay=0.25),
        expect=ends_with(0.875),
    ),
    Case(
        "V8 an epsilon_1 that no float16 holds",
        same,
        model=zero_gradients(epsilon_1=1e-30, **UNSCALED),
        expect=ends_with(START, abs=0),
    ),
    Case(
        "V8 an epsilon_1 that no float32 holds",
        same,
        model=zero_gradients(epsilon_1=1e-60, **UNSCALED),
        expect=ends_with(START, abs=0),
    ),
    *(
        Case(
            f"V11 negative zeros {knobs}",
            same,
            model=leaf(np.full((6, 21), -0.0), 0.0, **knobs),
            expect=negative_zeros,
        )
        for knobs in ({}, {"weight_decay": 0.1}, {"beta_1": 0.9})
    ),
    Event("V11 payloads of a leaf without a gradient", odd_bits_without_a_gradient),
    *(
        Case(
            f"V12 a {name} of zeros",
            same,
            model=leaf(np.zeros(shape), 1.0, learning_rate=0.1, epsilon_2=0.25),
            expect=ends_with(-0.025),
        )
        for name, shape in THREE.items()
    ),
    *(
        Case(
            f"V13 a zero row and column, {mode}",
            same,
            model=leaf(
                np.ones((4, 5)), ZERO_BUT_FOR_A_BLOCK, learning_rate=0.1, epsilon_1=0.0, epsilon_1_mode=mode
            ),
            expect=zero_row_and_column,
        )
        for mode in ("add", "clamp")
    ),
    Case(
        "V13 zero gradients",
        same,
        model=zero_gradients(epsilon_1=0.0),
        expect=ends_with(START, abs=0),
    ),
    # |G| is an outer product, so U is its sign. 1e-5: the roots of moments that span 36 orders of magnitude.
    *(
        Case(
            f"V14 rows and columns of any scale {knobs}",
            same,
            model=leaf(np.zeros((7, 21)), SIGNS * OUTER, epsilon_1=0.0, **UNSCALED, **knobs),
            expect=ends_with(-SIGNS, rel=1e-5),
        )
        for knobs in ({}, {"clip_threshold": None}, {"beta_1": 0.0}, {"weight_decay": 0.0})
    ),
    *(
        Case(
            f"V14 a row factor out of range, {parameter} {multiplier} {knobs}",
            lambda m, multiplier=multiplier: (m.params, m.grads, {"grad_multiplier": multiplier}),
            model=leaf(
                np.full((2, 4), parameter),
                np.outer([1e-15, 1e15], np.ones(4)) / multiplier,
                epsilon_1=0.0,
                **knobs,
            ),
            expect=ends_with(parameter * 0.999),
        )
        for parameter, multiplier, knobs in ROW_FACTORS
    ),
    # U of diag(10^n, 10^-n) is diag(1, 10^2n); its rms is half of the latter, so that clipping leaves 2.
    *(
        Case(
            f"V15 an update out of range, 1e{n} {knobs}",
            same,
            model=leaf(
                np.ones((2, 2)), np.diag([10.0**n, 10.0**-n]), learning_rate=0.1, epsilon_1=0.0, **knobs
            ),
            expect=ends_with([[1, 1], [1, 0.8]]),
        )
        for n in (10, 14, 18)
        for knobs in ({}, {"momentum_on": "update", "beta_1": 0.0}, {"use_ema": True})
    ),
    Case(
        "V15 an update out of range that nothing measures",
        same,
        model=leaf(
            np.ones((2, 2)),
            np.diag([1e18, 1e-18]),
            learning_rate=1e-37,
            clip_threshold=None,
            scale_parameter=False,
            epsilon_1=0.0,
        ),
        expect=ends_with([[1, 1], [1, 0.9]]),
    ),
]
