"""Arrays of odd shape and strides that are fine: the bits are those of a plain array, whatever lies between.

Hazards S3 to S13, D3 and D7.
"""

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

import adafactor
import snapshots


def numbers(shape, seed, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def background(array):
    """The bytes of the array's buffer that are not its elements."""
    elements = array.copy()
    array[...] = 0
    around = snapshots.buffer_of(array).tobytes()
    array[...] = elements
    return around


def assert_as_if_contiguous(make, shape, dtype=np.float32, **knobs):
    """Two steps on what `make` makes of C-ordered arrays: the bits of C order, and nothing else touched."""
    plain, odd = numbers(shape, 0, dtype), make(numbers(shape, 0, dtype))
    knobs = {"learning_rate": 0.1} | knobs
    plain_state, odd_state = adafactor.init(plain, **knobs), adafactor.init(odd, **knobs)
    around = background(odd)
    for k in (1, 2):
        grads = numbers(shape, k, dtype)
        odd_grads = make(grads.copy())
        kept = snapshots.memory([odd_grads])
        report = adafactor.step(plain, grads, plain_state)
        odd_report = adafactor.step(odd, odd_grads, odd_state)
        assert odd.tobytes() == plain.tobytes()
        assert snapshots.of_state(odd_state) == snapshots.of_state(plain_state)
        assert repr(odd_report) == repr(report)
        assert snapshots.memory([odd_grads]) == kept
        updated, _, _ = adafactor.update(odd, odd_grads, odd_state)
        expected, _, _ = adafactor.update(plain, grads, plain_state)
        assert updated.tobytes() == expected.tobytes()
    assert background(odd) == around


def spread(*steps):
    """Copies an array into a larger one of noise with these steps along its axes, negative ones backwards."""

    def make(array):
        buffer = numbers([extent * abs(step) + 3 for extent, step in zip(array.shape, steps, strict=True)], 5)
        ends = [1 + extent * abs(step) for extent, step in zip(array.shape, steps, strict=True)]
        forward = tuple(slice(1, end, abs(step)) for end, step in zip(ends, steps, strict=True))
        backward = tuple(slice(None, None, -1 if step < 0 else 1) for step in steps)
        view = buffer.astype(array.dtype)[forward][backward]
        view[...] = array
        return view

    return make


def permuted(*axes):
    """The same array with its axes in memory in this order."""
    return lambda array: np.ascontiguousarray(array.transpose(axes)).transpose(np.argsort(axes))


def misaligned(array):
    """The same array one byte off."""
    memory = np.zeros(array.nbytes + 1, np.uint8)
    view = memory[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def odd_where_it_does_not_matter(array):
    """Strange strides along every axis of length 1."""
    strides = [
        stride if extent > 1 else 7777 for extent, stride in zip(array.shape, array.strides, strict=True)
    ]
    return as_strided(array, array.shape, strides)


LAYOUTS = {
    "S7 Fortran": (permuted(1, 0), (37, 21)),
    "S7 Fortran, three axes": (permuted(2, 1, 0), (3, 7, 21)),
    "S7 permuted": (permuted(1, 2, 0), (3, 7, 21)),
    "S7 permuted slices": (permuted(1, 0, 3, 2), (2, 3, 5, 21)),
    "S7 Fortran, several tiles": (permuted(1, 0), (3, 50005)),
    "S8 vector with gaps": (spread(3), (37,)),
    "S8 padding between rows": (spread(1, 1), (7, 37)),
    "S8 gaps everywhere": (spread(2, 3), (7, 37)),
    "S8 slices with gaps": (spread(2, 1, 2), (3, 5, 21)),
    "S9 backwards vector": (spread(-1), (37,)),
    "S9 backwards with gaps": (spread(-2, -3), (7, 37)),
    "S9 backwards rows": (spread(-1, 1), (7, 37)),
    "S12 a row": (odd_where_it_does_not_matter, (1, 37)),
    "S12 a column": (odd_where_it_does_not_matter, (37, 1)),
    "S12 one element": (odd_where_it_does_not_matter, (1, 1, 1)),
    "S12 empty": (lambda array: as_strided(array, array.shape, (7777, -3, 5)), (2, 0, 5)),
    "D7 misaligned vector": (misaligned, (37,)),
    "D7 misaligned matrix": (misaligned, (7, 37)),
    "D7 misaligned, three axes": (misaligned, (3, 7, 21)),
}
LINKS = {
    "plain": {},
    "links": {"beta_1": 0.9, "weight_decay": 0.01, "use_ema": True, "ema_overwrite_frequency": 2},
    "gradient links": {"gradient_accumulation_steps": 2, "clipvalue": 0.5},
    "largest two": {"factored": "largest_two"},
}


@pytest.mark.parametrize("links", LINKS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_strides_do_not_matter(layout, links):
    make, shape = LAYOUTS[layout]
    assert_as_if_contiguous(make, shape, **LINKS[links])


@pytest.mark.parametrize(
    "layout", ["S7 permuted", "S8 gaps everywhere", "S9 backwards rows", "D7 misaligned matrix"]
)
def test_strides_do_not_matter_in_double(layout):
    make, shape = LAYOUTS[layout]
    assert_as_if_contiguous(make, shape, np.float64)


def expanded(array):
    return np.broadcast_to(array, (6, 21))


@pytest.mark.parametrize(
    "gradient",
    [expanded(np.float32(0.5)), expanded(numbers((21,), 3)), as_strided(numbers((26,), 3), (6, 21), (4, 4))],
    ids=["S10 one number", "S10 one row", "S11 sliding window"],
)
def test_a_gradient_may_overlap_itself(gradient):
    params = numbers((6, 21), 0), numbers((6, 21), 0)
    kept = gradient.tobytes()
    adafactor.step(params[0], gradient, adafactor.init(params[0]))
    adafactor.step(params[1], gradient.copy(), adafactor.init(params[1]))
    assert params[0].tobytes() == params[1].tobytes()
    assert gradient.tobytes() == kept


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "shape",
    [(), (1,), (1, 1), (1, 5), (5, 1), (1, 1, 5), (2,) * 9, (1,) * 64],
    ids=lambda shape: str(shape[:10]),
)
def test_s3_s5_s6_small_and_many_axes(shape, dtype):
    """The first step of an equal gradient is the learning rate times its sign, whatever the shape."""
    params = np.ones(shape, dtype)
    state = adafactor.init(params, learning_rate=0.25)
    report = adafactor.step(params, np.full(shape, -0.5, dtype), state)
    assert params.ravel() == pytest.approx(np.full(params.size, 1.25), rel=2e-7)
    assert report.update_rms == pytest.approx(1, rel=1e-6)
    kinds = {kind: array.shape for (_, kind), array in state.tensors().items()}
    if len(shape) < 2:
        assert kinds == {"full": shape}
    else:
        assert kinds == {"row": shape[:-1], "col": shape[:-2] + shape[-1:]}


@pytest.mark.parametrize("shape", [(0,), (0, 4), (4, 0), (3, 0, 2), (0, 0)], ids=str)
def test_s4_an_empty_leaf_is_fine(shape):
    params = {"empty": np.empty(shape, np.float32), "w": np.ones((2, 3), np.float32)}
    grads = {"empty": np.empty(shape, np.float32), "w": np.full((2, 3), 0.5, np.float32)}
    for knobs in LINKS.values():
        state = adafactor.init(params, **knobs)
        for _ in range(2):
            report = adafactor.step(params, grads, state)
            assert report.grad_norm[0] == 0
            assert not report.nonfinite.any()
            assert np.isnan([report.param_rms[0], report.update_rms[0], report.step_size[0]]).all()
    alone = adafactor.init(params["empty"])
    assert adafactor.step(params["empty"], grads["empty"], alone).updated
    assert alone.iterations == 1


def test_d3_float64_is_computed_in_double():
    params = np.array([1.0, 2.0])
    adafactor.step(
        params, np.array([1.0, -1.0]), adafactor.init(params, learning_rate=1e-3, scale_parameter=False)
    )
    assert params == pytest.approx([1.0 - 1e-3, 2.0 + 1e-3], rel=1e-15)
