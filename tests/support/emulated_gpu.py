"""Arrays on a GPU that a CPU stands in for: a library's namespace by the array API standard, as that of CuPy.

The device is tests/cpp/cuda, as the shared object that the package opens in the place of the one with CUDA:
a process that is to use it is started with ADAFACTOR_CUDA_LIBRARY set to what `built` has made. Its threads
get their turns in the order that ADAFACTOR_EMULATED_ORDER says: "shuffled", "forward" or "backward".
"""

import contextlib
import ctypes
import functools
import os
import sys
import weakref
from pathlib import Path

import ml_dtypes
import numpy as np

import dlpack_producer
from cpp_build import required, run
from dlpack_producer import CUDA, READ_ONLY, ManagedVersioned, Producer
from snapshots import buffer_of

ROOT = Path(__file__).parents[2]
VARIABLE = "ADAFACTOR_CUDA_LIBRARY"
ORDER = "ADAFACTOR_EMULATED_ORDER"

IS_HERE = VARIABLE in os.environ
"""Whether this process has the device."""

current_stream = 0
"""The stream on which what is asked for here is done, as CUDA's pointer."""


def built(folder, root=ROOT):
    """The shared object, compiled into a folder from the sources of the project, or of a copy of it.

    With the sanitizers that ADAFACTOR_SANITIZE names.
    """
    source, target = root / "tests/cpp/cuda", Path(folder) / "libadafactor_cuda.so"
    includes = [f"-I{root / name}" for name in ("include", "src", "tests/cpp")]
    flags = [
        "-std=c++20",
        "-O1",
        "-fPIC",
        "-shared",
        "-fvisibility=hidden",
        "-DADAFACTOR_COMPILED",
        *includes,
    ]
    if sanitizers := os.environ.get("ADAFACTOR_SANITIZE"):
        flags += ["-g", f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all"]
    files = [source / f"{name}.cpp" for name in ("emulated", "emulated_library", "fibers")]
    # Without what .ci/sanitize has loaded into each process before all else.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    compiled = run(required("g++"), *flags, *files, "-o", target, env=environment)
    assert compiled.returncode == 0, compiled.stdout
    return target


def device():
    """The functions of the shared object, beside those that the package calls."""
    if not _device:
        found = ctypes.CDLL(os.environ[VARIABLE])
        found.emulated_allocate.restype = ctypes.c_void_p
        found.emulated_allocate.argtypes = (ctypes.c_int64, ctypes.c_int)
        found.emulated_free.argtypes = (ctypes.c_void_p,)
        for copy in (found.emulated_write, found.emulated_read):
            copy.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p)
        found.emulated_order.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
        found.emulated_capture.argtypes = (ctypes.c_void_p, ctypes.c_bool)
        found.emulated_device_of.argtypes = (ctypes.c_void_p,)
        found.emulated_destroy.argtypes = (ctypes.c_void_p,)
        found.emulated_fail.argtypes = (ctypes.c_char_p,)
        found.emulated_fail_awaiting.argtypes = (ctypes.c_char_p, ctypes.c_bool)
        for name in ("waits", "launches", "allocations", "blocks", "bytes"):
            getattr(found, f"emulated_{name}").restype = ctypes.c_int64
        _device.append(found)
    return _device[0]


_device = []


@contextlib.contextmanager
def on_stream(handle):
    """Arrays are made and read on a stream, by its pointer."""
    global current_stream
    before, current_stream = current_stream, handle
    try:
        yield
    finally:
        current_stream = before


@contextlib.contextmanager
def captured(stream, has_legacy_wait=False):
    """A graph is captured on a stream; the legacy default stream may wait for it, as for most streams."""
    device().emulated_capture(stream, has_legacy_wait)
    try:
        yield
    finally:
        device().emulated_end_capture()


@contextlib.contextmanager
def current(index):
    """A device is the thread's current one, and still is in the end."""
    before = device().emulated_current()
    device().emulated_make_current(index)
    try:
        yield
        assert device().emulated_current() == index
    finally:
        device().emulated_make_current(before)


_owners = weakref.WeakValueDictionary()  # by the ids of the arrays of NumPy whose memory mirrors theirs


class Owner:
    """What keeps bytes on the device, from its address on.

    Args:
        mirror: as many bytes of the host, where they are seen, and changed before they are written.
    """

    def __init__(self, address, mirror):
        self.address, self.mirror = address, mirror
        _owners[id(buffer_of(mirror))] = self

    def write(self):
        """All of them to the device, on the current stream."""
        device().emulated_write(self.address, self.mirror.ctypes.data, self.mirror.nbytes, current_stream)

    def read(self):
        """All of them from there."""
        device().emulated_read(self.mirror.ctypes.data, self.address, self.mirror.nbytes, current_stream)


class Memory(Owner):
    """Bytes of a device that are freed when nobody has them any more."""

    def __init__(self, mirror, index=0):
        super().__init__(device().emulated_allocate(max(mirror.nbytes, 1), index), mirror)

    def __del__(self):
        device().emulated_free(self.address)


class Array(Producer):
    """An array in capsules alone: whoever writes it has to be done when he returns.

    Args:
        owner: whose bytes they are.
        like: a view of the mirror that has the array's type, shape and strides.
        *more: what a class of producers wants besides.
        index: of the device.
        **header: as for a Producer.
    """

    def __init__(self, owner, like, *more, index=0, **header):
        self.owner, self.dtype, self.shape, self.index = owner, like.dtype, like.shape, index
        self.address = owner.address + like.ctypes.data - owner.mirror.ctypes.data
        data = self.address - header.get("byte_offset", 0)
        super().__init__(like, *more, **({"data": data, "device_kind": CUDA, "device_index": index} | header))
        self.streams = []  # that it was asked for

    def __array_namespace__(self):
        return sys.modules[__name__]

    def __dlpack__(self, *, stream=None, **more):
        self.streams.append(stream)
        wanted = 0 if stream == 1 else stream
        if wanted not in (-1, None, current_stream):
            device().emulated_order(wanted, current_stream, self.index)
        return super().__dlpack__(**more)

    def write(self, values):
        """On the current stream."""
        self.memory[...] = values
        self.owner.write()

    def numpy(self):
        """A copy in the host's memory."""
        self.owner.read()
        return self.memory.copy()


_ASK = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_int32, ctypes.c_int32, ctypes.POINTER(ctypes.c_void_p))
_asked = []  # functions that live as long as the process


def exchanging_on(stream, base, **knobs):
    """A class of arrays whose library says on which stream it works, and goes on there behind whoever writes.

    None: on the current one.
    """

    def ask(kind, index, out):
        out[0] = current_stream if stream is None else stream
        return 0

    _asked.append(_ASK(ask))
    address = ctypes.cast(_asked[-1], ctypes.c_void_p).value
    return dlpack_producer.exchanging((1, 3), base=base, stream=address, **knobs)


Exchanged = exchanging_on(None, Array)
"""An array of such a library."""


class _Negatable(Array):
    """One that may be the negative of what its memory says."""

    says_negated = False

    def is_neg(self):
        """What torch calls the question."""
        return self.says_negated


def tensor_on(stream):
    """A class of arrays that the core takes for tensors of torch: it reads them without a loan."""
    made = exchanging_on(stream, _Negatable, shows=True)
    made.__module__, made.__name__, made.__qualname__ = "torch", "Tensor", "Tensor"
    return made


Tensor = tensor_on(None)
"""An array of the library whose tensors the core knows by torch's name."""


@functools.cache
def on_device(make):
    """A class of producers whose memory is the device's."""
    return type(make.__name__, (Array, make), {"__module__": make.__module__})


def over(values, kind=Exchanged, *more, shift=0, index=0, **header):
    """An array with the values and strides of one of NumPy, so many bytes from the beginning of a line.

    It lies on the device of that index.
    """
    values = np.asarray(values)
    start = values.ctypes.data
    low, high = np.lib.array_utils.byte_bounds(values) if values.size else (start, start)
    mirror = np.zeros(shift + high - low, np.uint8)
    like = np.ndarray(values.shape, values.dtype, mirror, shift + start - low, values.strides)
    array = kind(Memory(mirror, index), like, *more, index=index, **header)
    array.write(values)
    return array


def placed(values):
    """The array itself, or in a process that has the device one there with its values."""
    return over(values) if IS_HERE else values


def seen(array):
    """The values of an array that was placed so."""
    return array.numpy() if IS_HERE else array


def refresh(view):
    """Read the memory again that a view is a copy of, if it is one."""
    if (owner := _owners.get(id(buffer_of(view)))) is not None:
        owner.read()


def sharing(view, kind=Exchanged, *more, **header):
    """An array over the memory of which a view is a copy, or over a copy of all that the view is in.

    One without elements says that it lies where the view does, and one that nobody may write that it is so.
    """
    root = buffer_of(view)
    if (owner := _owners.get(id(root))) is not None:
        return kind(owner, view, *more, **header)
    if not root.nbytes:
        return over(view, kind, *more, **({"data": view.ctypes.data} | header))
    if not (root.flags.c_contiguous and root.flags.writeable):
        flags = 0 if view.flags.writeable else READ_ONLY
        return over(view, kind, *more, **({"flags": flags} | header))
    owner = Memory(root.reshape(-1).view(np.uint8))
    owner.write()
    return kind(owner, view, *more, **header)


def capsuled(values):
    """The same in capsules alone."""
    return over(values, Array)


def empty_like(array):
    return over(np.zeros(array.shape, array.dtype), type(array), index=array.index)


def asarray(values):
    return over(values)


_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
_rename = ctypes.pythonapi.PyCapsule_SetName
_rename.argtypes = (ctypes.py_object, ctypes.c_char_p)
_NAMES = {(2, 32): np.float32, (2, 64): np.float64, (2, 16): np.float16, (4, 16): ml_dtypes.bfloat16}
_USED = b"used_dltensor_versioned"


class Taken(Owner):
    """A tensor that was taken out of a capsule, given back when nobody has it any more.

    It is `like` a view of the mirror.
    """

    def __init__(self, capsule):
        self.managed = ManagedVersioned.from_address(_pointer(capsule, b"dltensor_versioned"))
        _rename(capsule, _USED)
        tensor = self.managed.tensor
        shape, strides = tensor.shape[: tensor.rank], tensor.strides[: tensor.rank]
        dtype = np.dtype(_NAMES[tensor.code, tensor.bits])
        steps = zip(shape, strides, strict=True)
        reach = 1 + sum((n - 1) * step for n, step in steps) if all(shape) else 0
        super().__init__(tensor.data, np.zeros(reach * dtype.itemsize, np.uint8))
        self.like = np.ndarray(shape, dtype, self.mirror, 0, [dtype.itemsize * step for step in strides])

    def __del__(self):
        deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self.managed.deleter)
        deleter(ctypes.addressof(self.managed))


def from_dlpack(piece):
    """An array over the memory of another one."""
    kind, index = piece.__dlpack_device__()
    assert kind == CUDA
    taken = Taken(piece.__dlpack__(stream=current_stream or 1, max_version=(1, 0)))
    return Exchanged(taken, taken.like, index=index)
