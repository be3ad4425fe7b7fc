"""Arrays that a call must refuse by their shape, strides, dtype, class or memory, and memory that is fine.

Hazards S1, S10 to S14, and D1 to D8, D19 and D20 as far as NumPy expresses them.
"""

import mmap

import ml_dtypes
import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

import adafactor
import snapshots
from hazards import AT_INIT, IN_PLACE, Case, Model, check, parameters


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


def with_param(**leaves):
    return lambda m: (m.params | leaves, m.grads)


def with_grad(**leaves):
    return lambda m: (m.params, m.grads | leaves)


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def field_of_records(shape):
    """A field of a record of six bytes: its strides are no multiples of its four."""
    return np.zeros(shape, np.dtype([("x", np.float32), ("y", np.int16)]))["x"]


class Subclass(np.ndarray):
    pass


class OnlyArrayMethod:
    def __array__(self, dtype=None, copy=None):
        return np.zeros((6, 21), np.float32)


NOT_FLOATS = {
    "int": np.int64,
    "bool": np.bool_,
    "complex": np.complex64,
    "string": "U4",
    "object": object,
    "void": "V4",
    "datetime": "M8[s]",
    "record": [("x", np.float32)],
}
OTHER_FLOATS = {
    "float16": np.float16,
    "longdouble": np.longdouble,
    "bfloat16": ml_dtypes.bfloat16,
    "fp8": ml_dtypes.float8_e4m3fn,
}

CASES = [
    Case(
        "S1 gradient transposed",
        with_grad(w=zeros(21, 6)),
        ValueError,
        r"^grads w: shape \(21, 6\), expected \(6, 21\)$",
    ),
    Case("S1 a row for a matrix", with_grad(w=zeros(1, 21)), ValueError, r"^grads w: shape \(1, 21\)"),
    Case(
        "S1 an element for a vector", with_grad(b=zeros(1)), ValueError, r"^grads b: shape \(1,\), expected"
    ),
    Case("S1 a scalar for a vector", with_grad(b=zeros()), ValueError, r"^grads b: shape \(\), expected"),
    Case(
        "S1 an axis too many", with_grad(b=zeros(21, 1)), ValueError, r"^grads b: shape \(21, 1\), expected"
    ),
    Case("S1 empty for a vector", with_grad(b=zeros(0)), ValueError, r"^grads b: shape \(0,\), expected"),
    Case(
        "S10 zero stride in a parameter",
        with_param(b=as_strided(zeros(1), (21,), (0,))),
        BufferError,
        "^params b: some elements share memory",
        IN_PLACE,
    ),
    Case(
        "S11 a sliding window as parameter",
        with_param(w=as_strided(zeros(26), (6, 21), (4, 4))),
        BufferError,
        "^params w: some elements share memory",
        IN_PLACE,
    ),
    Case(
        "S13 strides between elements, parameter",
        with_param(b=field_of_records(21)),
        BufferError,
        "^params b: a stride of 6 bytes, expected strides that are multiples of 4 bytes$",
    ),
    Case(
        "S13 strides between elements, gradient",
        with_grad(w=field_of_records((6, 21))),
        BufferError,
        "^grads w: a stride of",
    ),
    Case(
        "D1 float64 gradient", with_grad(b=zeros(21, dtype=np.float64)), TypeError, "^grads b: dtype float64"
    ),
    *(
        Case(
            f"D2 {name} at init",
            lambda m, d=dtype: ({"w": np.empty((2, 3), d)}, {}),
            TypeError,
            "^params w: dtype",
            AT_INIT,
        )
        for name, dtype in NOT_FLOATS.items()
    ),
    *(
        Case(
            f"D2 {name} gradient",
            with_grad(b=np.zeros(21, dtype)),
            TypeError,
            "^grads b: dtype .*, expected float32",
        )
        for name, dtype in NOT_FLOATS.items()
    ),
    *(
        Case(
            f"{'D5' if name == 'bfloat16' else 'D4'} {name}",
            with_grad(b=np.zeros(21, dtype)),
            TypeError,
            "^grads b: dtype",
        )
        for name, dtype in OTHER_FLOATS.items()
    ),
    *(
        Case(
            f"{'D5' if name == 'bfloat16' else 'D4'} {name} at init",
            lambda m, d=dtype: ({"w": np.zeros((2, 3), d)}, {}),
            TypeError,
            "^params w: dtype .*, expected float32 or float64$",
            AT_INIT,
        )
        for name, dtype in OTHER_FLOATS.items()
    ),
    Case(
        "D6 the other byte order, parameter",
        with_param(b=zeros(21).astype(">f4")),
        TypeError,
        "^params b: byte order",
    ),
    Case(
        "D6 the other byte order, gradient",
        with_grad(b=zeros(21).astype(">f4")),
        TypeError,
        "^grads b: byte order",
    ),
    Case(
        "D8 read-only parameter",
        lambda m: (m.params | {"b": read_only(m.params["b"])}, m.grads),
        BufferError,
        "^params b: a read-only array, expected an array that can be written$",
        IN_PLACE,
    ),
    Case(
        "D8 a parameter in bytes",
        with_param(b=np.frombuffer(bytes(84), np.float32)),
        BufferError,
        "^params b: a read-only array",
        IN_PLACE,
    ),
    Case(
        "D19 masked",
        with_param(w=np.ma.masked_array(zeros(6, 21), mask=np.eye(6, 21))),
        TypeError,
        r"^params w: numpy\.ma\.\S*MaskedArray, expected a numpy\.ndarray$",
    ),
    Case(
        "D19 masked gradient",
        with_grad(w=np.ma.masked_array(zeros(6, 21))),
        TypeError,
        "^grads w: .*MaskedArray",
    ),
    Case(
        "D19 matrix",
        lambda m: (m.params | {"w": np.asmatrix(m.params["w"])}, m.grads),
        TypeError,
        "^params w: .*matrix",
    ),
    Case(
        "D19 a subclass", with_param(b=zeros(21).view(Subclass)), TypeError, "^params b: .*Subclass, expected"
    ),
    Case(
        "D19 only __array__",
        with_param(w=OnlyArrayMethod()),
        TypeError,
        "^params w: .*OnlyArrayMethod, expected",
    ),
    Case("D19 a NumPy scalar", with_grad(b=np.float32(1)), TypeError, r"^grads b: .*float32, expected"),
    Case("D19 a buffer", with_grad(b=memoryview(zeros(21))), TypeError, "^grads b: memoryview, expected"),
]


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize(("case", "call"), parameters(CASES))
def test_refused(case, call):
    check(case, call)


def test_s14_sizes_beyond_any_memory_are_refused():
    """NumPy has such arrays only where all elements are one."""
    endless = np.broadcast_to(np.float32(0), (2**48 + 1,))
    with pytest.raises(ValueError, match=r"^params w: a larger shape, expected at most 2\*\*48 elements$"):
        adafactor.init({"w": endless})
    with pytest.raises(ValueError, match=r"at most 2\*\*48 elements$"):
        adafactor._core.Plan([(2**40, 2**40)], ["float32"], [0], [adafactor.Config().to_core()])


def test_d8_update_reads_what_nobody_may_write():
    model, twin = Model(), Model()
    params = {path: read_only(p) for path, p in model.params.items()}
    grads = {path: read_only(g) for path, g in model.grads.items()}
    after, state, _ = adafactor.update(params, grads, model.state)
    adafactor.step(twin.params, grads, twin.state)
    assert snapshots.same_bits(after.values(), twin.params.values())
    assert snapshots.of_state(state) == snapshots.of_state(twin.state)
    assert all(p.flags.writeable and p.flags.c_contiguous for p in after.values())


def test_d20_a_file_in_memory_is_written(tmp_path):
    path = tmp_path / "params"
    expected = Model().params["w"].copy()
    expected.tofile(path)
    mapped = np.memmap(path, np.float32, "r+", shape=(6, 21))
    grads = Model().grads["w"].copy()
    adafactor.step(mapped, grads, adafactor.init(mapped))
    adafactor.step(expected, grads, adafactor.init(expected))
    mapped.flush()
    assert np.fromfile(path, np.float32).tobytes() == expected.tobytes()


def test_d20_a_file_that_may_not_be_written_is_refused(tmp_path):
    path = tmp_path / "params"
    Model().params["w"].copy().tofile(path)
    mapped = np.memmap(path, np.float32, "r", shape=(6, 21))
    with pytest.raises(BufferError, match=r"^params: a read-only array"):
        adafactor.step(mapped, Model().grads["w"].copy(), adafactor.init(mapped))


def test_d20_shared_memory_is_written():
    with mmap.mmap(-1, 84) as memory:
        params = np.frombuffer(memory, np.float32)
        adafactor.step(params, np.ones(21, np.float32), adafactor.init(params, learning_rate=0.5))
        assert np.frombuffer(memory[:], np.float32) == pytest.approx(np.full(21, -0.0005))
        del params
