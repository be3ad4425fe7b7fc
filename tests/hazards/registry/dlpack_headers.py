"""What only the header of a DLPack tensor can say, from a producer of anything: S14 to S18, D8 to D12."""

import numpy as np

import emulated_gpu
from dlpack_producer import IS_COPIED, READ_ONLY, OldProducer, Producer
from registry.case import AT_INIT, IN_PLACE, Case, leaf, model, same, with_grads, with_params
from registry.libraries import memory_of

ONLY = ("dlpack",)
OF_THE_CPU = "expected one in the CPU's memory" + (" or on a GPU of NVIDIA" if emulated_gpu.IS_HERE else "")
WRITABLE = r"expected an array that can be written \(adafactor\.update returns new ones\)"


def produced(tree, path, make=Producer, *positional, **options):
    """A producer over the memory of a parameter or gradient."""
    return lambda m: m.library.exported(make, memory_of(getattr(m, tree)[path]), *positional, **options)


def gradient(*positional, **options):
    """The usual trees, but for the gradient of b, which is exported so."""
    return with_grads(b=produced("grads", "b", *positional, **options))


def parameter(*positional, **options):
    """The same of the parameter b."""
    return with_params(b=produced("params", "b", *positional, **options))


def taken(name, given, **more):
    """A case whose array is as good as any."""
    return Case(name, given, like=same, libraries=ONLY, **more)


def refused(name, given, error, message, *more, **options):
    return Case(name, given, error, message, *more, libraries=ONLY, **options)


def either(name, error, found, expected, *positional, **options):
    """What is refused as a gradient and as a parameter, whatever the call would do with it."""
    return [
        refused(
            f"{name}, gradient", gradient(*positional, **options), error, f"grads b: {found}, {expected}"
        ),
        refused(
            f"{name}, parameter", parameter(*positional, **options), error, f"params b: {found}, {expected}"
        ),
    ]


def behind(offset):
    """The vector some bytes into a buffer, of which the header has the beginning."""

    def make(m):
        buffer = np.zeros(84 + offset, np.uint8)
        view = buffer[offset:].view(np.float32)
        view[...] = memory_of(m.params["b"])
        return m.library.exported(Producer, view, byte_offset=offset)

    return make


def of_nothing(**header):
    """A leaf without elements, as parameter and as gradient."""

    def given(m):
        leaves = [m.library.exported(Producer, np.zeros((0, 4), np.float32), **header) for _ in range(2)]
        return m.params | {"x": leaves[0]}, m.grads | {"x": leaves[1]}

    return given


def huge(*shape, **header):
    """For `init`: a header with such a shape, and no memory behind it but one number."""
    header |= {"rank": len(shape), "shape": shape}
    return leaf(lambda m: m.library.exported(Producer, np.zeros(1, np.float32), **header))


BOTH = {"w": (6, 21), "b": (21,), "x": (0, 4)}

HEADERS = [
    taken("S16 a gradient without strides", with_grads(w=produced("grads", "w", strides=None))),
    taken("S16 a parameter without strides", with_params(w=produced("params", "w", strides=None))),
    taken(
        "S16 no axes, no strides and no shape",
        with_params(x=produced("params", "x", strides=None, shape=None)),
        model=model(shapes={"x": ()}),
    ),
    taken("S17 an offset", with_params(b=behind(64))),
    taken("S17 an odd offset", with_params(b=behind(3))),
    *either("S17 four lanes", TypeError, "dtype float32 in 4 lanes", "expected float32.*", lanes=4),
    *either("S17 no lanes", TypeError, "dtype float32 in 0 lanes", "expected float32.*", lanes=0),
    *either("S17 odd bits", TypeError, "dtype float24", "expected float32.*", bits=24),
    *either("S17 an unknown code", TypeError, "dtype code 99 of 32 bits", "expected float32.*", code=99),
    *(
        each
        for rank in (-1, -(2**31), 65, 2**31 - 1)
        for each in either(
            f"S17 {rank} axes", BufferError, f"{rank} axes", "expected at most 64 axes", rank=rank
        )
    ),
    *either("S17 no shape", BufferError, "one without", "expected a tensor with a shape", shape=None),
    *either("S17 a negative extent", BufferError, "a negative extent", "expected extents .*", shape=[-21]),
    *either(
        "S18 nothing where there should be elements",
        BufferError,
        "one without memory of its own",
        ".*",
        data=None,
    ),
    refused(
        "S14 a size beyond 64 bits",
        huge(2**62, 2**62, 4),
        ValueError,
        r"params w: shape \(4611686018427387904, 4611686018427387904, 4\), expected at most 2\*\*48 elements",
        AT_INIT,
    ),
    refused(
        "S14 the most negative stride",
        with_grads(w=produced("grads", "w", strides=[-(2**63), 1])),
        ValueError,
        "grads w: a stride of -9223372036854775808 elements, expected strides within 64 bits",
    ),
    refused(
        "S14 a parameter of a size beyond 64 bits",
        parameter(rank=2, shape=[2**62, 4], strides=None),
        ValueError,
        r"params b: shape \(4611686018427387904, 4\), expected \(21,\) as in the state",
    ),
    *(
        taken(f"S18 no elements, {where}", of_nothing(**header), model=model(shapes=BOTH))
        for where, header in (
            ("at null", {"data": None}),
            ("at null and an offset", {"data": None, "byte_offset": 8}),
            ("at a bad address", {"data": 0x1000}),
            ("at an odd address", {"data": 0x1001}),
            ("at null, without strides", {"data": None, "strides": None}),
        )
    ),
]

COPY = f"a copy, in which a write would be lost, {WRITABLE}"
UNWRITABLE = f"a read-only array, {WRITABLE}"
FLAGS = [
    refused(
        "D9 a copy as parameter",
        parameter(flags=IS_COPIED),
        BufferError,
        f"params b: {COPY}",
        IN_PLACE,
    ),
    taken("D9 update reads a copy", parameter(flags=IS_COPIED), calls=("update",)),
    taken("D9 a copy as gradient", gradient(flags=IS_COPIED)),
    taken("D9 flags that say nothing of a float", parameter(flags=2**2 | 2**40)),
    refused(
        "D8 a flag of read-only memory",
        parameter(flags=READ_ONLY | IS_COPIED),
        BufferError,
        f"params b: {UNWRITABLE}",
        IN_PLACE,
    ),
    *(
        refused(
            f"D10 {name} as parameter",
            parameter(make, versioned=False),
            BufferError,
            f"params b: {UNWRITABLE}",
            IN_PLACE,
        )
        for name, make in (
            ("a capsule without flags", Producer),
            ("a producer without versions", OldProducer),
        )
    ),
    *(
        taken(f"D10 {name} as gradient", gradient(make, versioned=False))
        for name, make in (
            ("a capsule without flags", Producer),
            ("a producer without versions", OldProducer),
        )
    ),
    taken("D10 update reads a capsule without flags", parameter(versioned=False), calls=("update",)),
    *(
        each
        for major in (0, 2)
        for each in either(
            f"D12 version {major}",
            BufferError,
            f"version {major}",
            "expected version 1 of DLPack",
            version=(major, 0),
            data=None,
            rank=-1,
        )
    ),
    taken("D12 a later minor version", parameter(version=(1, 99))),
]

CASES = [*HEADERS, *FLAGS]
