"""Section 2: shapes, strides and layouts, S1 to S15 and S18."""

import tempfile

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

import adafactor
from registry.case import (
    AT_INIT,
    IN_PLACE,
    Case,
    Event,
    leaf,
    model,
    over,
    same,
    with_grads,
    with_params,
    zeros,
)
from registry.libraries import IN_MEMORY, OF_ANY_KIND, memory_of

# Ways to lay out an array in memory: each copies an array of C order into an odd place.


def spread(*steps):
    """Into a larger array of noise with these steps along its axes, negative ones backwards."""

    def make(array):
        ends = [1 + extent * abs(step) for extent, step in zip(array.shape, steps, strict=True)]
        buffer = np.random.default_rng(5).standard_normal([end + 2 for end in ends])
        forward = tuple(slice(1, end, abs(step)) for end, step in zip(ends, steps, strict=True))
        backward = tuple(slice(None, None, -1 if step < 0 else 1) for step in steps)
        view = buffer.astype(array.dtype)[forward][backward]
        view[...] = array
        return view

    return make


def permuted(*axes):
    """With its axes in memory in this order."""
    return lambda array: np.ascontiguousarray(array.transpose(axes)).transpose(np.argsort(axes))


def misaligned(array):
    """One byte off."""
    memory = np.zeros(array.nbytes + 1, np.uint8)
    view = memory[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def odd_where_it_does_not_matter(array):
    """With strange strides along every axis of length 1."""
    strides = [
        stride if extent > 1 else 7777 for extent, stride in zip(array.shape, array.strides, strict=True)
    ]
    return as_strided(array, array.shape, strides)


LAYOUTS = {
    "S7 Fortran order": (permuted(1, 0), (37, 21)),
    "S7 Fortran order, three axes": (permuted(2, 1, 0), (3, 7, 21)),
    "S7 permuted axes": (permuted(1, 2, 0), (3, 7, 21)),
    "S7 permuted slices": (permuted(1, 0, 3, 2), (2, 3, 5, 21)),
    "S7 Fortran order, several tiles": (permuted(1, 0), (3, 50005)),
    "S8 a vector with gaps": (spread(3), (37,)),
    "S8 padding between rows": (spread(1, 1), (7, 37)),
    "S8 gaps everywhere": (spread(2, 3), (7, 37)),
    "S8 slices with gaps": (spread(2, 1, 2), (3, 5, 21)),
    "S9 a vector backwards": (spread(-1), (37,)),
    "S9 backwards with gaps": (spread(-2, -3), (7, 37)),
    "S9 rows backwards": (spread(-1, 1), (7, 37)),
    "S12 odd strides of a row": (odd_where_it_does_not_matter, (1, 37)),
    "S12 odd strides of a column": (odd_where_it_does_not_matter, (37, 1)),
    "S12 odd strides of one element": (odd_where_it_does_not_matter, (1, 1, 1)),
    "S12 odd strides of nothing": (lambda array: as_strided(array, array.shape, (7777, -3, 5)), (2, 0, 5)),
    "D7 a misaligned vector": (misaligned, (37,)),
    "D7 a misaligned matrix": (misaligned, (7, 37)),
    "D7 misaligned, three axes": (misaligned, (3, 7, 21)),
}
# The paths that a gradient or an update takes through the loops, and a dtype.
LINKS = {
    "": {},
    ", update links": {"beta_1": 0.9, "weight_decay": 0.01, "use_ema": True, "ema_overwrite_frequency": 2},
    ", gradient links": {"gradient_accumulation_steps": 2, "clipvalue": 0.5},
    ", largest two": {"factored": "largest_two"},
    ", double": {"dtype": "float64"},
}


def laid_out(lay_out):
    return lambda m: ({"x": m.over("params", "x", lay_out)}, {"x": m.over("grads", "x", lay_out)})


STRIDES = [
    Case(
        name + links,
        laid_out(lay_out),
        model=model(shapes={"x": shape}, **knobs),
        like=same,
        libraries=OF_ANY_KIND if name.startswith("S9") else IN_MEMORY,
    )
    for name, (lay_out, shape) in LAYOUTS.items()
    for links, knobs in LINKS.items()
]


def copied(given):
    """The same call with copies of its gradients."""

    def make(m):
        params, grads = given(m)
        return params, {path: m.library.array(memory_of(g)) for path, g in grads.items()}

    return make


def reading(name, **gradients):
    given = with_grads(**gradients)
    return Case(name, given, like=copied(given), libraries=IN_MEMORY)


def one_number(b):
    return as_strided(b, (6, 21), (0, 0))


def one_row(b):
    return as_strided(b, (6, 21), (0, 4))


def window(m):
    return m.library.over(as_strided(np.arange(26, dtype=np.float32), (6, 21), (4, 4)))


def field_of_records(*shape):
    """A field of a record of six bytes: its strides are no multiples of its four."""
    return lambda m: np.zeros(shape, np.dtype([("x", np.float32), ("y", np.int16)]))["x"]


class Interface:
    """Memory that NumPy takes our word for."""

    def __init__(self, shape, address):
        self.__array_interface__ = {
            "shape": shape,
            "typestr": "<f4",
            "data": (address, False),
            "version": 3,
        }


def nowhere(*shape):
    """An array without elements, at an address that must not be read."""
    return over(lambda: np.asarray(Interface(shape, 0x1000)))


def stretched(m):
    """A gradient whose last row would be beyond all addresses."""
    return m.library.over(as_strided(np.zeros(21, np.float32), (6, 21), (2**62, 4)))


def far_apart(m):
    """The rows of a matrix 2**30 elements apart, in a file of which next to nothing is on the disk."""
    with tempfile.TemporaryFile() as file:
        memory = np.memmap(file, np.float32, "w+", shape=(5 * 2**30 + 21,))
    rows = as_strided(memory, (6, 21), (4 * 2**30, 4))
    rows[...] = memory_of(m.params["w"])
    return m.params | {"w": m.library.over(rows)}, m.grads


def counted_in_64_bits(m):
    """2**33 + 17 rows of 3: the moments of rows and of columns, in bytes."""
    huge = np.broadcast_to(np.float32(0), (2**33 + 17, 3))
    assert adafactor.state_nbytes(huge) == 4 * (2**33 + 17 + 3)
    assert adafactor.state_nbytes(huge, beta_1=0.9) == 4 * (2**33 + 17 + 3 + 3 * (2**33 + 17))
    assert adafactor.state_nbytes(huge.T, factored=False) == 4 * 3 * (2**33 + 17)


def nothing_in_x(outcome):
    report = outcome.report.as_dict()["x"]
    assert report["grad_norm"] == 0
    assert not report["nonfinite"]
    assert np.isnan([report["param_rms"], report["update_rms"], report["step_size"]]).all()


def with_x(*shape, **arguments):
    """A model of the usual two leaves and one of this shape."""
    return model(shapes={"w": (6, 21), "x": shape}, **arguments)


def a_bias_is_not_factored(outcome):
    assert [kind for path, kind in outcome.state.tensors() if path == "b"] == ["full"]


def every_element_has_a_moment(outcome):
    """The gradient is the same in every step, so the update is its sign."""
    assert sorted(kind for _, kind in outcome.state.tensors()) == ["col", "row"]
    assert outcome.report.update_rms == pytest.approx([1], rel=1e-6)


OWN = "expected an array whose elements each have memory of their own"
MANY_AXES = (1,) * 64

CASES = [
    Case(
        "S1 a transposed gradient",
        with_grads(w=zeros(21, 6)),
        ValueError,
        r"grads w: shape \(21, 6\), expected \(6, 21\)",
    ),
    Case(
        "S1 a row for a matrix",
        with_grads(w=zeros(1, 21)),
        ValueError,
        r"grads w: shape \(1, 21\), expected \(6, 21\)",
    ),
    Case(
        "S1 an element for a vector",
        with_grads(b=zeros(1)),
        ValueError,
        r"grads b: shape \(1,\), expected \(21,\)",
    ),
    Case(
        "S1 a number for a vector",
        with_grads(b=zeros()),
        ValueError,
        r"grads b: shape \(\), expected \(21,\)",
    ),
    Case(
        "S1 an axis too many",
        with_grads(b=zeros(21, 1)),
        ValueError,
        r"grads b: shape \(21, 1\), expected \(21,\)",
    ),
    Case(
        "S1 nothing for a vector",
        with_grads(b=zeros(0)),
        ValueError,
        r"grads b: shape \(0,\), expected \(21,\)",
    ),
    Case(
        "S2 a parameter of another shape than the state's",
        with_params(w=zeros(21, 6)),
        ValueError,
        r"params w: shape \(21, 6\), expected \(6, 21\) as in the state",
    ),
    Case(
        "S2 a parameter with an axis more than the state's",
        with_params(b=zeros(1, 21)),
        ValueError,
        r"params b: shape \(1, 21\), expected \(21,\) as in the state",
    ),
    Case(
        "S3 no axes are one of length one",
        same,
        model=model(shapes={"x": ()}),
        twin=model(shapes={"x": (1,)}),
    ),
    Case(
        "S3 no axes for one of length one",
        with_grads(x=zeros()),
        ValueError,
        r"grads x: shape \(\), expected \(1,\)",
        model=model(shapes={"x": (1,)}),
    ),
    *(
        Case(f"S4 no elements, {shape}", same, model=with_x(*shape, **knobs), expect=nothing_in_x)
        for shape, knobs in (
            ((0,), {}),
            ((0, 4), {}),
            ((4, 0), LINKS[", update links"]),
            ((3, 0, 2), LINKS[", largest two"]),
        )
    ),
    Case(
        "S4 no elements, alone",
        same,
        model=model(shapes={"x": (0, 4)}),
        expect=nothing_in_x,
    ),
    Case(
        "S4 no elements of another shape",
        with_grads(x=zeros(4, 0)),
        ValueError,
        r"grads x: shape \(4, 0\), expected \(0, 4\)",
        model=with_x(0, 4),
    ),
    Case("S5 a bias is a vector", same, expect=a_bias_is_not_factored),
    *(
        Case(
            f"S5 a matrix of {shape}",
            same,
            model=model(shapes={"x": shape}),
            expect=every_element_has_a_moment,
        )
        for shape in ((1, 21), (21, 1), (1, 1))
    ),
    Case(
        "S6 nine axes are the slices of three",
        same,
        model=model(shapes={"x": (2,) * 9}),
        twin=model(shapes={"x": (2**7, 2, 2)}),
    ),
    Case("S6 sixty-four axes", same, model=model(shapes={"x": MANY_AXES}), twin=model(shapes={"x": (1, 1)})),
    Case(
        "S6 an axis too few",
        with_grads(x=zeros(*MANY_AXES[1:])),
        ValueError,
        r"grads x: shape \(1(, 1){62}\), expected \(1(, 1){63}\)",
        model=model(shapes={"x": MANY_AXES}),
    ),
    *STRIDES,
    Case(
        "S10 zero strides in a parameter",
        with_params(b=over(lambda: as_strided(np.zeros(1, np.float32), (21,), (0,)))),
        BufferError,
        f"params b: some elements share memory, {OWN}",
        IN_PLACE,
        libraries=IN_MEMORY,
    ),
    reading("S10 one number as gradient", w=lambda m: m.over("grads", "b", one_number)),
    reading("S10 one row as gradient", w=lambda m: m.over("grads", "b", one_row)),
    Case(
        "S11 a sliding window as parameter",
        with_params(w=window),
        BufferError,
        f"params w: some elements share memory, {OWN}",
        IN_PLACE,
        libraries=IN_MEMORY,
    ),
    reading("S11 a sliding window as gradient", w=window),
    Case(
        "S13 strides between elements, parameter",
        with_params(b=field_of_records(21)),
        BufferError,
        "params b: a stride of 6 bytes, expected strides that are multiples of 4 bytes",
        libraries=("numpy",),
    ),
    Case(
        "S13 strides between elements, gradient",
        with_grads(w=field_of_records(6, 21)),
        BufferError,
        "grads w: a stride of 126 bytes, expected strides that are multiples of 4 bytes",
        libraries=("numpy",),
    ),
    Case(
        "S14 more elements than any memory has",
        leaf(over(lambda: as_strided(np.zeros(1, np.float32), (2**48 + 1,), (0,)))),
        ValueError,
        r"params w: shape \(281474976710657,\), expected at most 2\*\*48 elements",
        AT_INIT,
        libraries=IN_MEMORY,
    ),
    Case(
        "S14 strides beyond 64 bits",
        with_grads(w=stretched),
        ValueError,
        "grads w: a stride of 1152921504606846976 elements, expected strides within 64 bits",
        libraries=OF_ANY_KIND,
    ),
    Case("S15 rows more than 2**32 elements apart", far_apart, like=same, libraries=IN_MEMORY),
    Event("S15 sizes beyond 2**32", counted_in_64_bits),
    Case(
        "S18 nothing at a bad address",
        lambda m: (m.params | {"x": nowhere(0, 4)(m)}, m.grads | {"x": nowhere(0, 4)(m)}),
        like=same,
        model=with_x(0, 4),
        libraries=IN_MEMORY,
    ),
    Case(
        "S18 a gradient of nothing at a bad address",
        with_grads(x=nowhere(3, 0, 2)),
        like=same,
        model=with_x(3, 0, 2),
        libraries=IN_MEMORY,
    ),
]
