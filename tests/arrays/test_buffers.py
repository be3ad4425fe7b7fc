"""Arrays that only lend a buffer: those of `array`, of ctypes, mapped files, and views of any of them."""

import array
import contextlib
import ctypes
import mmap
import re

import numpy as np
import pytest

import adafactor

VALUES = [0.5, -1.5, 2.0, 4.0, -0.25, 1.0]


def mapped(values):
    memory = mmap.mmap(-1, 4 * len(values))
    memory[:] = array.array("f", values).tobytes()
    return memoryview(memory).cast("f")


# Each holds VALUES in six elements of float32, in a row.
LENDERS = {
    "array.array": lambda values: array.array("f", values),
    "ctypes": lambda values: (ctypes.c_float * 6)(*values),
    "a bytearray": lambda values: memoryview(bytearray(array.array("f", values))).cast("f"),
    "a mapped file": mapped,
    "NumPy": lambda values: memoryview(np.array(values, np.float32)),
}
# The same as two rows of three.
MATRICES = {
    "ctypes": lambda values: (ctypes.c_float * 3 * 2)(tuple(values[:3]), tuple(values[3:])),
    "a bytearray": lambda values: memoryview(bytearray(array.array("f", values))).cast("f", (2, 3)),
    "NumPy, transposed": lambda values: memoryview(np.array(values, np.float32).reshape(2, 3).T.copy().T),
    "NumPy, with gaps": lambda values: memoryview(np.repeat(np.float32(values), 2)[::2].reshape(2, 3)),
}


def numpy_of(buffer):
    return np.asarray(buffer)


def as_numpy_does(params, grads):
    """A step of these buffers, an update and another step end with the bits that arrays of NumPy have."""
    twins = [np.array(numpy_of(each)) for each in (params, grads)]
    state, like = adafactor.init(params), adafactor.init(twins[0])
    for _ in range(2):
        assert repr(adafactor.step(params, grads, state)) == repr(adafactor.step(*twins, like))
    assert numpy_of(params).tobytes() == twins[0].tobytes()
    after, _, _ = adafactor.update(params, grads, state)
    expected, _, _ = adafactor.update(*twins, like)
    assert isinstance(after, np.ndarray)
    assert (after.shape, after.tobytes()) == (expected.shape, expected.tobytes())
    assert numpy_of(params).tobytes() == twins[0].tobytes()


@pytest.mark.parametrize("make", LENDERS.values(), ids=LENDERS.keys())
def test_a_buffer_is_stepped_as_an_array(make):
    as_numpy_does(make(VALUES), make(VALUES[::-1]))


@pytest.mark.parametrize("make", MATRICES.values(), ids=MATRICES.keys())
def test_a_buffer_of_two_axes_is_a_matrix(make):
    assert adafactor.init(make(VALUES)).nbytes == 4 * (2 + 3)
    as_numpy_does(make(VALUES), make(VALUES[::-1]))


@pytest.mark.parametrize("code", ["d", "e"])
def test_a_buffer_may_hold_float64_and_float16(code):
    params, grads = (np.array(values, code) for values in (VALUES, VALUES[::-1]))
    as_numpy_does(memoryview(params), memoryview(grads))


@pytest.mark.parametrize("order", ["", "@", "=", "<"])
def test_a_format_may_name_the_byte_order_of_this_machine(order):
    as_numpy_does(view_of(VALUES, f"{order}f"), view_of(VALUES, f"{order}f"))


def test_a_buffer_may_have_gaps_or_run_backwards():
    memory = np.arange(12, dtype=np.float32)
    params = memoryview(memory)[1::2]
    between = memory[::2].copy()
    as_numpy_does(params, memoryview(np.float32(VALUES))[::-1])
    assert memory[::2].tobytes() == between.tobytes()


def test_a_buffer_may_have_no_axes_or_no_elements():
    as_numpy_does(memoryview(np.array(2, np.float32)), memoryview(np.array(3, np.float32)))
    nothing = memoryview(np.zeros((0, 3), np.float32))
    assert adafactor.step(nothing, nothing, adafactor.init(nothing)).updated
    lent = array.array("f")
    assert adafactor.step(lent, array.array("f"), adafactor.init(lent)).updated


def test_averages_are_written_into_a_buffer():
    params = array.array("f", VALUES)
    state = adafactor.init(params, use_ema=True)
    for _ in range(2):
        adafactor.step(params, array.array("f", VALUES), state)
    state.finalize(params)
    assert numpy_of(params).tobytes() == state.tensors()["", "average"].tobytes()


def test_a_read_only_buffer_is_for_update_and_for_gradients():
    read_only = memoryview(array.array("f", VALUES).tobytes()).cast("f")
    params, state = array.array("f", VALUES), adafactor.init(read_only)
    with pytest.raises(
        BufferError, match=r"^params: a read-only array, expected an array that can be written"
    ):
        adafactor.step(read_only, params, state)
    assert state.calls == 0
    after, _, _ = adafactor.update(read_only, params, state)
    adafactor.step(params, read_only, state)
    assert after.tobytes() == params.tobytes()
    with pytest.raises(BufferError, match="a read-only array"):
        adafactor.step(memoryview(params).toreadonly(), read_only, state)


class PyBuffer(ctypes.Structure):
    """Py_buffer."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.c_void_p),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.POINTER(ctypes.c_ssize_t)),
        ("strides", ctypes.POINTER(ctypes.c_ssize_t)),
        ("suboffsets", ctypes.POINTER(ctypes.c_ssize_t)),
        ("internal", ctypes.c_void_p),
    )


_kept = []  # memory that views point to without holding it
_view_from = ctypes.pythonapi.PyMemoryView_FromBuffer
_view_from.restype = ctypes.py_object


def view_of(values, form, itemsize=4, suboffsets=None):
    """A view with any format, or of pointers to its rows."""
    memory = (ctypes.c_float * len(values))(*values)
    shape = (ctypes.c_ssize_t * 1)(4 * len(values) // itemsize)
    strides = (ctypes.c_ssize_t * 1)(itemsize)
    offsets = suboffsets and (ctypes.c_ssize_t * 1)(*suboffsets)
    text = form.encode()
    _kept.append((memory, text))  # a view copies the numbers and not the text
    fields = (ctypes.sizeof(memory), itemsize, 0, 1, text, shape, strides, offsets, None)
    return _view_from(ctypes.byref(PyBuffer(ctypes.addressof(memory), None, *fields)))


NO_FLOATS = {
    "bytes of a bytearray": (lambda: memoryview(bytearray(24)), "B"),
    "bytes of a mapped file": (lambda: mmap.mmap(-1, 24), "B"),
    "whole numbers": (lambda: array.array("i", range(6)), "i"),
    "whole numbers of ctypes": (lambda: (ctypes.c_int32 * 6)(), "i"),
    "truth values": (lambda: memoryview(bytearray(6)).cast("?"), "?"),
    "complex numbers": (lambda: memoryview(np.zeros(6, np.complex64)), "Zf"),
    "long doubles": (lambda: memoryview(np.zeros(6, np.longdouble)), "g"),
    "records": (lambda: memoryview(np.zeros(6, [("x", np.float32)])), "T{f:x:}"),
    "structures": (
        lambda: (type("S", (ctypes.Structure,), {"_fields_": [("x", ctypes.c_float)]}) * 6)(),
        "T{",
    ),
    "two at a time": (lambda: view_of([0.0] * 12, "2f", 8), "2f"),
    "no format": (lambda: view_of(VALUES, ""), ""),
    "a byte order alone": (lambda: view_of(VALUES, "="), ""),
    "a float of eight bytes": (lambda: view_of([0.0] * 12, "f", 8), "f"),
}


@pytest.mark.parametrize(("make", "form"), NO_FLOATS.values(), ids=NO_FLOATS.keys())
def test_a_buffer_of_anything_but_floats_is_refused(make, form):
    params = np.float32(VALUES)
    state = adafactor.init(params)
    shown = f"a buffer of format '{re.escape(form)}"
    with pytest.raises(TypeError, match=f"^grads: {shown}.*', expected float32, bfloat16 or float16$"):
        adafactor.step(params, make(), state)
    with pytest.raises(
        TypeError, match=f"^params: {shown}.*', expected float32, float64, bfloat16 or float16$"
    ):
        adafactor.init(make())
    for call in (adafactor.step, adafactor.update):
        with pytest.raises(TypeError, match=f"^params: {shown}.*', expected float32$"):
            call(make(), params, state)
    assert (params.tolist(), state.calls) == (VALUES, 0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: (ctypes.c_float.__ctype_be__ * 6)(),
        lambda: memoryview(np.zeros(6, ">f4")),
        lambda: view_of(VALUES, "!f"),
    ],
    ids=["ctypes", "NumPy", "of the network"],
)
def test_the_other_byte_order_is_refused(make):
    with pytest.raises(TypeError, match=r"^params: byte order '>', expected the byte order of this machine$"):
        adafactor.init(make())


def test_a_buffer_of_pointers_is_refused():
    pointers = view_of(VALUES, "f", suboffsets=[0])
    with pytest.raises(BufferError, match=r"^params: a buffer of pointers, expected one block of memory$"):
        adafactor.init(pointers)
    assert adafactor.init(view_of(VALUES, "f", suboffsets=[-1])).nbytes == 4 * 6  # none of its axes has any


def test_a_view_that_was_released_is_refused():
    view = memoryview(array.array("f", VALUES))
    view.release()
    with pytest.raises(
        BufferError, match=r"^params: a memoryview: .*released.*, expected an object that lends"
    ):
        adafactor.init(view)


def test_views_of_one_buffer_are_found_out():
    memory = array.array("f", VALUES)
    views = {"a": memoryview(memory)[:4], "b": memoryview(memory)[3:]}
    grads = {"a": array.array("f", VALUES[:4]), "b": array.array("f", VALUES[3:])}
    state = adafactor.init(views)
    with pytest.raises(
        ValueError, match=r"^params a: shares memory with params b, expected memory of its own$"
    ):
        adafactor.step(views, grads, state)
    assert memory.tolist() == VALUES
    assert adafactor.step({"a": views["a"], "b": array.array("f", VALUES[3:])}, grads, state).updated


@pytest.mark.parametrize("call", [adafactor.step, adafactor.update])
@pytest.mark.parametrize("size", [6, 3], ids=["a good call", "a call that is refused"])
def test_every_buffer_is_given_back(call, size):
    """An array that still lends its buffer cannot grow."""
    params, grads = array.array("f", VALUES), array.array("f", VALUES[:size])
    state = adafactor.init(params)
    refusal = pytest.raises(ValueError, match=r"^grads: shape \(3,\), expected \(6,\)$")
    with refusal if size == 3 else contextlib.nullcontext():
        call(params, grads, state)
    params.append(1.0)
    grads.append(1.0)


def test_a_buffer_is_held_while_a_call_reads_other_arrays():
    """What an array does while it is asked for its memory cannot take away that of one before."""
    params, refusals = {"a": array.array("f", VALUES), "b": np.float32(VALUES)}, []

    class Meddles:
        def __dlpack__(self, **_):
            with pytest.raises(BufferError) as caught:
                params["a"].append(1.0)
            refusals.append(caught.value)
            return params["b"].__dlpack__()

    state = adafactor.init(params)
    grads = {"a": array.array("f", VALUES), "b": Meddles()}
    with pytest.raises(ValueError, match="shares memory"):
        adafactor.step(params, grads, state)
    assert len(refusals) == 1


def test_bytes_alone_are_no_array():
    for value in (bytes(24), bytearray(24)):
        with pytest.raises(TypeError, match=rf"^params: {type(value).__name__}, expected an array"):
            adafactor.init(value)
