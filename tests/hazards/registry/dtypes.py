"""Section 3: dtypes and kinds of memory, as far as NumPy has them."""

import ctypes
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
    over,
    same,
    with_grads,
    with_params,
    zeros,
)
from registry.libraries import IN_MEMORY, OF_ANY_KIND, memory_of


class Subclass(np.ndarray):
    pass


class OnlyArrayMethod:
    def __array__(self, dtype=None, copy=None):
        return np.zeros((6, 21), np.float32)


NOT_FLOATS = {
    "int64": np.int64,
    "bool": np.bool_,
    "complex64": np.complex64,
}
ONLY_OF_NUMPY = {
    "<U4": "U4",
    "object": object,
    "|V4": "V4",
    "datetime64[s]": "M8[s]",
    "[('x', '<f4')]": [("x", np.float32)],
}
PARTS = "; torch.view_as_real, or a view in NumPy, has both parts as real numbers"
HALVES = {"D4": np.float16, "D5": ml_dtypes.bfloat16}


def refused_dtype(number, name, dtype, libraries=()):
    """As a gradient, and as a parameter at init; NumPy's own name of the dtype is in the message."""
    shown = re.escape(name)
    more = re.escape(PARTS) if name == "complex64" else ""
    return [
        Case(
            f"{number} {name} as gradient",
            with_grads(b=zeros(21, dtype=dtype)),
            TypeError,
            f"grads b: dtype {shown}, expected float32, bfloat16 or float16{more}",
            libraries=libraries,
        ),
        Case(
            f"{number} {name} as parameter at init",
            leaf(zeros(2, 3, dtype=dtype)),
            TypeError,
            f"params w: dtype {shown}, expected float32, float64, bfloat16 or float16{more}",
            AT_INIT,
            libraries=libraries,
        ),
    ]


def rounded(tree, *dtypes):
    """The vector of a tree in another dtype, after the ones before."""

    def make(m):
        values = memory_of(getattr(m, tree)["b"])
        for dtype in dtypes:
            values = values.astype(dtype)
        return m.library.array(values)

    return make


def in_16_bits(number, dtype):
    """A gradient of 16 bits for a parameter of 32 and for one of 64, and a parameter unlike the state's."""
    name = np.dtype(dtype).name
    return [
        Case(
            f"{number} {name} as gradient",
            with_grads(b=rounded("grads", dtype)),
            like=with_grads(b=rounded("grads", dtype, np.float32)),
        ),
        Case(
            f"{number} {name} as gradient of float64",
            with_grads(b=rounded("grads", dtype)),
            TypeError,
            f"grads b: dtype {name}, expected float64",
            model=model(dtype="float64"),
        ),
        Case(
            f"{number} {name} as parameter",
            with_params(b=rounded("params", dtype)),
            TypeError,
            f"params b: dtype {name}, expected float32 as in the state",
        ),
    ]


def of_ctypes(m):
    """The vector in an array of ctypes, whose dtype names the byte order that it has."""
    array = np.asarray((ctypes.c_float * 21)(*m.params["b"]))
    assert array.dtype.byteorder != "="
    return array


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def nobody_may_write(m):
    trees = (m.params, m.grads)
    return tuple({path: m.library.over(read_only(memory_of(x))) for path, x in t.items()} for t in trees)


def new_arrays(outcome):
    assert all(p.flags.writeable and p.flags.c_contiguous for p in outcome.memory.values())


def in_file(mode):
    """The matrix in a file that is mapped into memory."""

    def make(m):
        with tempfile.NamedTemporaryFile() as file:
            memory_of(m.params["w"]).tofile(file.name)
            return m.library.over(np.memmap(file.name, np.float32, mode, shape=(6, 21)))

    return make


def in_shared_memory(m):
    shared = np.frombuffer(mmap.mmap(-1, 84), np.float32)
    shared[...] = memory_of(m.params["b"])
    return m.library.over(shared)


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
    assert outcome.memory["x"] == pytest.approx([1.0 - 1e-3, 2.0 + 1e-3], rel=1e-15)


ONE_AND_TWO = ({"x": np.array([1.0, 2.0])}, {"x": np.array([1.0, -1.0])})
READ_ONLY = r"a read-only array, expected an array that can be written \(adafactor\.update returns new ones\)"
PLAIN = r"expected a numpy\.ndarray \(numpy\.asarray makes one in the same memory\)"
NO_ARRAY = r"expected an array of NumPy, torch or another library with DLPack"

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
    *(case for name, dtype in ONLY_OF_NUMPY.items() for case in refused_dtype("D2", name, dtype, ("numpy",))),
    *refused_dtype("D4", str(np.dtype(np.longdouble)), np.longdouble, ("numpy",)),
    *refused_dtype("D4", "float8_e4m3fn", ml_dtypes.float8_e4m3fn),
    Case(
        "D3 float64 is computed in double",
        same,
        model=model(values=ONE_AND_TWO, steps=0, learning_rate=1e-3, scale_parameter=False),
        expect=computed_in_double,
    ),
    *(case for number, dtype in HALVES.items() for case in in_16_bits(number, dtype)),
    Case(
        "D6 the other byte order, parameter",
        with_params(b=rounded("params", ">f4")),
        TypeError,
        "params b: byte order '>', expected the byte order of this machine",
        libraries=("numpy",),
    ),
    Case(
        "D6 the other byte order, gradient",
        with_grads(b=rounded("grads", ">f4")),
        TypeError,
        "grads b: byte order '>', expected the byte order of this machine",
        libraries=("numpy",),
    ),
    Case(
        "D6 the byte order of this machine by its name",
        with_params(b=of_ctypes),
        like=same,
        libraries=("numpy",),
    ),
    Case(
        "D6 the other byte order, at init",
        leaf(zeros(3, dtype=">f8")),
        TypeError,
        "params w: byte order '>', expected the byte order of this machine",
        AT_INIT,
        libraries=("numpy",),
    ),
]

MEMORY = [
    Case(
        "D8 a read-only parameter",
        with_params(b=lambda m: m.over("params", "b", read_only)),
        BufferError,
        f"params b: {READ_ONLY}",
        IN_PLACE,
        libraries=OF_ANY_KIND,
    ),
    Case(
        "D8 a parameter in bytes",
        with_params(b=over(lambda: np.frombuffer(bytes(84), np.float32))),
        BufferError,
        f"params b: {READ_ONLY}",
        IN_PLACE,
        libraries=OF_ANY_KIND,
    ),
    Case(
        "D8 update reads what nobody may write",
        nobody_may_write,
        calls=("update",),
        like=same,
        expect=new_arrays,
        libraries=OF_ANY_KIND,
    ),
    Case(
        "D8 a read-only gradient",
        with_grads(w=lambda m: m.over("grads", "w", read_only)),
        like=same,
        libraries=OF_ANY_KIND,
    ),
    *(
        Case(f"D19 {name}", given, TypeError, message, libraries=("numpy",))
        for name, given, message in (
            (
                "masked",
                with_params(w=lambda m: np.ma.masked_array(m.params["w"], mask=np.eye(6, 21))),
                rf"params w: numpy\.ma\.\S*MaskedArray, {PLAIN}",
            ),
            (
                "masked gradient",
                with_grads(w=lambda m: np.ma.masked_array(m.grads["w"])),
                rf"grads w: numpy\.ma\.\S*MaskedArray, {PLAIN}",
            ),
            (
                "a matrix",
                with_params(w=lambda m: np.asmatrix(m.params["w"])),
                rf"params w: numpy\.matrix, {PLAIN}",
            ),
            (
                "a subclass",
                with_params(b=lambda m: m.params["b"].view(Subclass)),
                rf"params b: registry\.dtypes\.Subclass, {PLAIN}",
            ),
            (
                "only __array__",
                with_params(w=lambda m: OnlyArrayMethod()),
                rf"params w: registry\.dtypes\.OnlyArrayMethod, {NO_ARRAY}; "
                r"numpy\.array\(\) makes a copy: step that, and write it back",
            ),
            ("bytes", with_params(b=lambda m: bytes(84)), "params b: bytes, expected an array"),
        )
    ),
    Case(
        "D19 a NumPy scalar",
        with_params(x=lambda m: np.float32(1)),
        BufferError,
        f"params x: {READ_ONLY}",
        IN_PLACE,
        model(shapes={"x": ()}),
        libraries=("numpy",),
    ),
    Case(
        "D20 a file that may not be written",
        with_params(w=in_file("r")),
        BufferError,
        f"params w: {READ_ONLY}",
        IN_PLACE,
        libraries=OF_ANY_KIND,
    ),
    Case("D20 a file in memory", with_params(w=in_file("r+")), like=same, libraries=IN_MEMORY),
    Case("D20 shared memory", with_params(b=in_shared_memory), like=same, libraries=IN_MEMORY),
    Event("D20 what a step writes is in the file", the_file_is_written),
    Event("D21 a gradient is resized by a schedule", resized),
    Event("D21 a gradient is held", held),
]

CASES = [*DTYPES, *MEMORY]
