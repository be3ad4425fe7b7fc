"""Section 3: dtypes and kinds of memory, as far as NumPy has them."""

import mmap
import re
import tempfile

import ml_dtypes
import numpy as np
import pytest

import adafactor
from registry.case import (
    AT_INIT,
    IN_PLACE,
    Case,
    Event,
    leaf,
    model,
    same,
    with_grads,
    with_params,
    zeros,
)


class Subclass(np.ndarray):
    pass


class OnlyArrayMethod:
    def __array__(self, dtype=None, copy=None):
        return np.zeros((6, 21), np.float32)


NOT_FLOATS = {
    "int64": np.int64,
    "bool": np.bool_,
    "complex64": np.complex64,
    "<U4": "U4",
    "object": object,
    "|V4": "V4",
    "datetime64[s]": "M8[s]",
    "[('x', '<f4')]": [("x", np.float32)],
}
OTHER_FLOATS = {
    "D4": {
        str(np.dtype(np.longdouble)): np.longdouble,
        "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    },
}
HALVES = {"D4": np.float16, "D5": ml_dtypes.bfloat16}


def refused_dtype(number, name, dtype):
    """As a gradient, and as a parameter at init; NumPy's own name of the dtype is in the message."""
    shown = re.escape(name)
    return [
        Case(
            f"{number} {name} as gradient",
            with_grads(b=lambda m: np.zeros(21, dtype)),
            TypeError,
            f"grads b: dtype {shown}, expected float32, bfloat16 or float16",
            library="numpy",
        ),
        Case(
            f"{number} {name} as parameter at init",
            leaf(lambda: np.zeros((2, 3), dtype)),
            TypeError,
            f"params w: dtype {shown}, expected float32, float64, bfloat16 or float16",
            AT_INIT,
            library="numpy",
        ),
    ]


def in_16_bits(number, dtype):
    """A gradient of 16 bits for a parameter of 32 and for one of 64, and a parameter unlike the state's."""
    name = np.dtype(dtype).name
    return [
        Case(
            f"{number} {name} as gradient",
            with_grads(b=lambda m: m.grads["b"].astype(dtype)),
            like=with_grads(b=lambda m: m.grads["b"].astype(dtype).astype(np.float32)),
            library="numpy",
        ),
        Case(
            f"{number} {name} as gradient of float64",
            with_grads(b=lambda m: m.grads["b"].astype(dtype)),
            TypeError,
            f"grads b: dtype {name}, expected float64",
            model=model(dtype="float64"),
        ),
        Case(
            f"{number} {name} as parameter",
            with_params(b=lambda m: m.params["b"].astype(dtype)),
            TypeError,
            f"params b: dtype {name}, expected float32 as in the state",
            library="numpy",
        ),
    ]


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def nobody_may_write(m):
    return tuple({path: read_only(x) for path, x in tree.items()} for tree in (m.params, m.grads))


def new_arrays(outcome):
    assert all(p.flags.writeable and p.flags.c_contiguous for p in outcome.params.values())


def in_file(mode):
    """The matrix in a file that is mapped into memory."""

    def make(m):
        with tempfile.NamedTemporaryFile() as file:
            m.params["w"].tofile(file.name)
            return np.memmap(file.name, np.float32, mode, shape=(6, 21))

    return make


def in_shared_memory(m):
    shared = np.frombuffer(mmap.mmap(-1, 84), np.float32)
    shared[...] = m.params["b"]
    return shared


def the_file_is_written(m):
    with tempfile.NamedTemporaryFile() as file:
        m.params["w"].tofile(file.name)
        mapped = np.memmap(file.name, np.float32, "r+", shape=(6, 21))
        plain = m.params["w"].copy()
        for p in (mapped, plain):
            adafactor.step(p, m.grads["w"], adafactor.init(p))
        mapped.flush()
        assert np.fromfile(file.name, np.float32).tobytes() == plain.tobytes()


def resized(m):
    """Arrays are looked at after the schedule has returned, so one that it made smaller is refused."""
    grads = {path: g.copy() for path, g in m.grads.items()}

    def resize():
        grads["b"].resize((3,), refcheck=False)
        return 0.1

    state = adafactor.init(m.params, learning_rate=resize)
    with pytest.raises(ValueError, match=r"^grads b: shape \(3,\), expected \(21,\)$"):
        adafactor.step(m.params, grads, state)
    assert state.calls == 0


def held(m):
    """While a call has an array, its owner cannot give the memory back."""
    trees = [{path: x.copy() for path, x in tree.items()} for tree in (m.params, m.grads)]

    def resize():
        with pytest.raises(ValueError, match="cannot resize"):
            trees[1]["b"].resize((10**6,))
        return 0.1

    assert adafactor.step(*trees, adafactor.init(trees[0], learning_rate=resize)).updated


def computed_in_double(outcome):
    """The step of an equal gradient is the learning rate, to the last bits of a double."""
    assert outcome.params["x"] == pytest.approx([1.0 - 1e-3, 2.0 + 1e-3], rel=1e-15)


ONE_AND_TWO = ({"x": np.array([1.0, 2.0])}, {"x": np.array([1.0, -1.0])})
READ_ONLY = r"a read-only array, expected an array that can be written \(adafactor\.update returns new ones\)"
NOT_SHARED = r"expected a numpy\.ndarray that shares its memory \(numpy\.asarray makes one\)"
CONVERTED = r"expected a numpy\.ndarray \(numpy\.asarray makes one\)"

DTYPES = [
    Case(
        "D1 float64 for float32",
        with_grads(b=zeros(21, dtype="float64")),
        TypeError,
        "grads b: dtype float64, expected float32, bfloat16 or float16",
    ),
    Case(
        "D1 float32 for float64",
        with_grads(b=zeros(21)),
        TypeError,
        "grads b: dtype float32, expected float64",
        model=model(dtype="float64"),
    ),
    Case(
        "D1 a parameter of the other dtype",
        with_params(b=zeros(21)),
        TypeError,
        "params b: dtype float32, expected float64 as in the state",
        model=model(dtype="float64"),
    ),
    *(case for name, dtype in NOT_FLOATS.items() for case in refused_dtype("D2", name, dtype)),
    *(
        case
        for number, dtypes in OTHER_FLOATS.items()
        for name, dtype in dtypes.items()
        for case in refused_dtype(number, name, dtype)
    ),
    Case(
        "D3 float64 is computed in double",
        same,
        model=model(values=ONE_AND_TWO, steps=0, learning_rate=1e-3, scale_parameter=False),
        expect=computed_in_double,
    ),
    *(case for number, dtype in HALVES.items() for case in in_16_bits(number, dtype)),
    Case(
        "D6 the other byte order, parameter",
        with_params(b=lambda m: m.params["b"].astype(">f4")),
        TypeError,
        "params b: byte order '>', expected the byte order of this machine",
        library="numpy",
    ),
    Case(
        "D6 the other byte order, gradient",
        with_grads(b=lambda m: m.grads["b"].astype(">f4")),
        TypeError,
        "grads b: byte order '>', expected the byte order of this machine",
        library="numpy",
    ),
    Case(
        "D6 the other byte order, at init",
        leaf(lambda: np.zeros(3, ">f8")),
        TypeError,
        "params w: byte order '>', expected the byte order of this machine",
        AT_INIT,
        library="numpy",
    ),
]

MEMORY = [
    Case(
        "D8 a read-only parameter",
        with_params(b=lambda m: read_only(m.params["b"])),
        BufferError,
        f"params b: {READ_ONLY}",
        IN_PLACE,
    ),
    Case(
        "D8 a parameter in bytes",
        with_params(b=lambda m: np.frombuffer(bytes(84), np.float32)),
        BufferError,
        f"params b: {READ_ONLY}",
        IN_PLACE,
        library="numpy",
    ),
    Case(
        "D8 update reads what nobody may write",
        nobody_may_write,
        calls=("update",),
        like=same,
        expect=new_arrays,
    ),
    Case("D8 a read-only gradient", with_grads(w=lambda m: read_only(m.grads["w"])), like=same),
    *(
        Case(f"D19 {name}", given, TypeError, message, library="numpy")
        for name, given, message in (
            (
                "masked",
                with_params(w=lambda m: np.ma.masked_array(m.params["w"], mask=np.eye(6, 21))),
                rf"params w: numpy\.ma\.\S*MaskedArray, {NOT_SHARED}",
            ),
            (
                "masked gradient",
                with_grads(w=lambda m: np.ma.masked_array(m.grads["w"])),
                rf"grads w: numpy\.ma\.\S*MaskedArray, {CONVERTED}",
            ),
            (
                "a matrix",
                with_params(w=lambda m: np.asmatrix(m.params["w"])),
                rf"params w: numpy\.matrix, {NOT_SHARED}",
            ),
            (
                "a subclass",
                with_params(b=lambda m: m.params["b"].view(Subclass)),
                rf"params b: registry\.dtypes\.Subclass, {NOT_SHARED}",
            ),
            (
                "only __array__",
                with_params(w=lambda m: OnlyArrayMethod()),
                rf"params w: registry\.dtypes\.OnlyArrayMethod, {NOT_SHARED}",
            ),
            (
                "a NumPy scalar",
                with_grads(b=lambda m: np.float32(1)),
                rf"grads b: numpy\.float32, {CONVERTED}",
            ),
            (
                "a buffer",
                with_grads(b=lambda m: memoryview(m.grads["b"])),
                r"grads b: memoryview, expected a numpy\.ndarray",
            ),
            ("bytes", with_params(b=lambda m: bytes(84)), "params b: bytes, expected an array"),
        )
    ),
    Case(
        "D20 a file that may not be written",
        with_params(w=in_file("r")),
        BufferError,
        f"params w: {READ_ONLY}",
        IN_PLACE,
        library="numpy",
    ),
    Case("D20 a file in memory", with_params(w=in_file("r+")), like=same, library="numpy"),
    Case("D20 shared memory", with_params(b=in_shared_memory), like=same, library="numpy"),
    Event("D20 what a step writes is in the file", the_file_is_written, library="numpy"),
    Event("D21 a gradient is resized by a schedule", resized, library="numpy"),
    Event("D21 a gradient is held", held, library="numpy"),
]

CASES = [*DTYPES, *MEMORY]
