"""How tensors of DLPack come and go: capsules, exports, devices, exchange interfaces, D12 to D16, T11."""

import pathlib

import numpy as np
import pytest

import adafactor
import dlpack_producer
import emulated_gpu
from dlpack_producer import (
    CPU,
    CUDA,
    CUDA_HOST,
    CUDA_MANAGED,
    IS_COPIED,
    METAL,
    ONE_API,
    ROCM,
    Answers,
    Producer,
)
from registry.case import AT_INIT, IN_PLACE, Event, leaf, with_grads
from registry.dlpack_headers import COPY, OF_THE_CPU, ONLY, either, gradient, parameter, refused, taken
from registry.libraries import memory_of
from registry.process import run

NO_CUDA = r"\(this build has no CUDA\)"
IN_USE = "state in use: another call, from a thread or from inside this one, runs on it"
FRESH = r"expected a fresh DLPack capsule from __dlpack__\(\)"


def used_up(m):
    """A gradient whose capsule has been taken before."""
    memory = memory_of(m.grads["b"])
    lent = m.library.exported(Producer, memory).lend(b"dltensor_versioned")
    answers = m.library.exported(Answers, memory, lent.capsule)
    adafactor.init(answers)
    return answers


def refused_inside(m):
    with pytest.raises(RuntimeError, match=f"^{IN_USE}$"):
        adafactor.step(m.params, m.grads, m.state)


def when(event, what):
    """A gradient that does something when it is exported (`before`) or given back (`when_returned`)."""
    return with_grads(
        b=lambda m: m.library.exported(Producer, memory_of(m.grads["b"]), **{event: lambda: what(m)})
    )


def with_an_error(given):
    """The same call with a gradient of another shape besides."""

    def both(m):
        params, grads = given(m)
        return params, grads | {"w": m.library.exported(Producer, np.zeros((21, 6), np.float32))}

    return both


OTHER_SHAPE = r"grads w: shape \(21, 6\), expected \(6, 21\)"
AT_THE_END = """
import atexit, sys
sys.path.insert(0, sys.argv[1])
import numpy as np, adafactor, dlpack_producer
leaves = [dlpack_producer.Producer(np.ones(3, np.float32)) for _ in range(2)]
state = adafactor.init(leaves[0])
atexit.register(lambda: print(adafactor.step(*leaves, state).updated))
"""


def at_the_end(m):
    assert run(AT_THE_END, pathlib.Path(dlpack_producer.__file__).parent) == "True\n"


USED = b"used_dltensor"
CAPSULES = [
    *either("D13 a used name", BufferError, "a capsule named used_dltensor", FRESH, capsule_name=USED),
    *either("D13 another name", BufferError, "a capsule named array", FRESH, capsule_name=b"array"),
    *(
        each
        for name, answer in (("None", None), ("a number", 7), ("an array", np.zeros(21, np.float32)))
        for each in either(f"D13 {name} for a capsule", BufferError, r"[\w.]+", FRESH, Answers, answer)
    ),
    refused(
        "D13 a capsule that was taken before",
        with_grads(b=used_up),
        BufferError,
        f"grads b: a capsule named used_dltensor_versioned, {FRESH}",
    ),
    taken("D13 no deleter, gradient", gradient(deleter="none")),
    taken("D13 no deleter, parameter", parameter(deleter="none")),
    taken("D13 no deleter, without versions", gradient(versioned=False, deleter="none")),
    taken("D14 a deleter that raises", gradient(deleter="raises")),
    refused(
        "D14 a deleter that raises in a call that fails",
        with_an_error(gradient(deleter="raises")),
        ValueError,
        OTHER_SHAPE,
    ),
    taken("D14 a deleter that calls step", when("when_returned", refused_inside), calls=IN_PLACE),
    refused(
        "D14 a deleter that calls step in a call that fails",
        with_an_error(when("when_returned", refused_inside)),
        ValueError,
        OTHER_SHAPE,
        IN_PLACE,
    ),
    Event("D14 a step when the interpreter ends", at_the_end, libraries=ONLY),
]


def emptied(m):
    """Gradients that are gone from their tree once one of them is exported."""
    grads = dict(m.grads)
    grads["w"] = m.library.exported(Producer, memory_of(m.grads["w"]), before=grads.clear)
    return m.params, grads


def raising(error):
    def raises(m):
        raise error

    return raises


NATURE = r" \(dtype float32\)" if emulated_gpu.IS_HERE else ""  # what these arrays say of themselves
NOT_EXPORTED = (
    "a dlpack_producer.{}" + NATURE + " that cannot be exported: mine, expected a dense array in memory"
)
EXPORTS = [
    *(
        refused(
            f"T11 an export that raises {type(error).__name__}",
            when("before", raising(error)),
            as_what,
            "grads b: " + NOT_EXPORTED.format("Producer"),
        )
        for error, as_what in (
            (BufferError("mine"), BufferError),
            (ValueError("mine"), BufferError),
            (TypeError("mine"), TypeError),
        )
    ),
    *(
        refused(
            f"T11 an export that raises {type(error).__name__}",
            when("before", raising(error)),
            type(error),
            "mine",
        )
        for error in (OSError("mine"), KeyboardInterrupt("mine"), SystemExit("mine"))
    ),
    refused(
        "T11 an export that calls step",
        when("before", lambda m: adafactor.step(m.params, m.grads, m.state)),
        RuntimeError,
        IN_USE,
        IN_PLACE,
    ),
    taken("T11 an export that empties the tree", emptied),
]


def elsewhere(kind, index=0, **options):
    """Memory that must not be touched, nor asked for."""
    return {"device_kind": kind, "device_index": index, "before": pytest.fail, **options}


DEVICES = [
    *either("D15 a GPU", ValueError, f"an array on cuda:0 {NO_CUDA}", OF_THE_CPU, **elsewhere(CUDA)),
    *either("D15 another GPU", ValueError, f"an array on cuda:3 {NO_CUDA}", OF_THE_CPU, **elsewhere(CUDA, 3)),
    *either(
        "D15 Metal", ValueError, r"an array on metal:0 \(of Apple, mps\)", OF_THE_CPU, **elsewhere(METAL)
    ),
    *either("D15 ROCm", ValueError, r"an array on rocm:1 \(of AMD\)", OF_THE_CPU, **elsewhere(ROCM, 1)),
    *either(
        "D15 oneAPI", ValueError, r"an array on oneapi:0 \(of Intel, xpu\)", OF_THE_CPU, **elsewhere(ONE_API)
    ),
    *either("D15 an unknown device", ValueError, "an array on device type 99:0", OF_THE_CPU, **elsewhere(99)),
    *either(
        "D16 managed memory",
        ValueError,
        f"an array on cuda_managed:0 {NO_CUDA}",
        OF_THE_CPU,
        **elsewhere(CUDA_MANAGED),
    ),
    *either(
        "D16 a GPU that calls itself the CPU",
        ValueError,
        f"an array on cuda:0 {NO_CUDA}",
        OF_THE_CPU,
        device_kind=CUDA,
        says_device=(CPU, 0),
    ),
    refused(
        "D16 a GPU at init",
        leaf(lambda m: Producer(np.zeros(3, np.float32), **elsewhere(CUDA))),
        ValueError,
        f"params w: an array on cuda:0 {NO_CUDA}, {OF_THE_CPU}",
        AT_INIT,
    ),
    taken("D16 pinned memory", parameter(device_kind=CUDA_HOST)),
    taken("D16 pinned memory of another GPU", gradient(device_kind=11, device_index=2)),
    *either(
        "D16 a word for a device", BufferError, "str", "expected two whole numbers from .*", says_device="cpu"
    ),
    *either("D16 a device without a number", BufferError, "tuple", "expected two .*", says_device=(CPU,)),
]

INTERFACE = dlpack_producer.exchanging((1, 1))
NEWER = dlpack_producer.exchanging((2, 0))
NEWER_AND_THIS = dlpack_producer.exchanging((3, 0), (2, 1), (1, 0))
LENDS_NOTHING = dlpack_producer.exchanging((1, 1), managed="lends nothing")
RAISES = dlpack_producer.exchanging((1, 1), managed="raises", base=dlpack_producer.Measured)

INTERFACES = [
    taken("D12 an exchange interface", parameter(INTERFACE, before=pytest.fail)),
    taken("D12 an interface behind newer ones", parameter(NEWER_AND_THIS, before=pytest.fail)),
    taken("D12 an interface of another version alone, so a capsule", parameter(NEWER)),
    *either(
        "D12 a tensor of another version from an interface",
        BufferError,
        "version 2",
        "expected version 1 of DLPack",
        INTERFACE,
        version=(2, 0),
    ),
    refused(
        "D9 a copy from an interface",
        parameter(INTERFACE, flags=IS_COPIED),
        BufferError,
        f"params b: {COPY}",
        IN_PLACE,
    ),
    taken("D13 no deleter from an interface", gradient(INTERFACE, deleter="none")),
    taken("D14 a deleter of an interface that raises", gradient(INTERFACE, deleter="raises")),
    *either(
        "D13 nothing from an interface",
        BufferError,
        "nothing",
        "expected a tensor from its .*",
        LENDS_NOTHING,
    ),
    *(
        refused(
            f"T11 an interface that raises {type(error).__name__}",
            gradient(RAISES, error),
            as_what,
            "grads b: " + NOT_EXPORTED.format("Exchanging"),
        )
        for error, as_what in ((BufferError("mine"), BufferError), (TypeError("mine"), TypeError))
    ),
    refused(
        "T11 an interface that raises KeyboardInterrupt",
        gradient(RAISES, KeyboardInterrupt("mine")),
        KeyboardInterrupt,
        "mine",
    ),
]


def asks_each_array_once(m):
    """A step takes a tensor of each of its four arrays, and gives it back: the watch sees to that."""
    params = {path: m.library.exported(Producer, memory_of(p).copy()) for path, p in m.params.items()}
    state, before = adafactor.init(params), dlpack_producer.lent()
    for _ in range(3):
        adafactor.step(params, m.grads, state)
    assert dlpack_producer.lent() - before == 12


CASES = [
    *CAPSULES,
    *EXPORTS,
    *DEVICES,
    *INTERFACES,
    Event("D14 each array lends one tensor a step", asks_each_array_once, libraries=ONLY),
]
