"""An array of a library that nobody knows: it exports any DLPack header, legal or not, over memory of NumPy.

Every tensor that was lent is written down with how often its deleter ran, so that a test can say of each that
it was given back once if it was taken, and never otherwise. What is lent stays alive until the next
`watched`.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

CPU, CUDA, CUDA_HOST, METAL, ROCM, CUDA_MANAGED, ONE_API = 1, 2, 3, 8, 10, 13, 14
READ_ONLY, IS_COPIED = 1, 2
CODES = {"i": 0, "u": 1, "f": 2, "c": 5, "b": 6}
BFLOAT, FLOAT8_E4M3FN = 4, 10


class Tensor(ctypes.Structure):
    """DLTensor."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_kind", ctypes.c_int32),
        ("device_index", ctypes.c_int32),
        ("rank", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class Managed(ctypes.Structure):
    """DLManagedTensor, of before version 1."""

    _fields_ = (("tensor", Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


class ManagedVersioned(ctypes.Structure):
    """DLManagedTensorVersioned."""

    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", Tensor),
    )


class ExchangeApi(ctypes.Structure):
    """DLPackExchangeAPI."""

    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("previous", ctypes.c_void_p),
        ("allocate", ctypes.c_void_p),
        ("managed_from_object", ctypes.c_void_p),
        ("to_object", ctypes.c_void_p),
        ("tensor_from_object", ctypes.c_void_p),
        ("current_work_stream", ctypes.c_void_p),
    )


_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype = ctypes.py_object
_new_capsule.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
_name_of = ctypes.pythonapi.PyCapsule_GetName
_name_of.restype = ctypes.c_char_p
_name_of.argtypes = (ctypes.py_object,)

_loans: dict[int, Loan] = {}
_earlier: dict[int, Loan] = {}  # of before watching began, and not given back yet
_kept: list[Any] = []  # names and interfaces, to which capsules point for as long as they are


class Loan:
    """A tensor that was handed out, in a capsule with a name or, without one, by an exchange interface."""

    def __init__(self, managed: Any, name: bytes | None, when_returned: Callable[[], Any] | None) -> None:
        self.managed = managed
        self.address = ctypes.addressof(managed)
        self.name = name
        self.when_returned = when_returned
        self.returned = 0
        self.capsule = None
        if name is not None:
            _kept.append(name)
            self.capsule = _new_capsule(self.address, name, None)
        _loans[self.address] = self

    @property
    def is_taken(self) -> bool:
        """Whether somebody is to give it back: a capsule gets another name when it is used up."""
        return self.capsule is None or _name_of(self.capsule) != self.name


@ctypes.CFUNCTYPE(None, ctypes.c_void_p)
def _delete(address: int) -> None:
    loan = _loans.get(address) or _earlier.pop(address)
    loan.returned += 1
    if loan.when_returned is not None:
        loan.when_returned()


def _address_of(function: Any) -> int | None:
    return ctypes.cast(function, ctypes.c_void_p).value


# Functions that set a Python exception: the first whatever it is given, the second what the `__len__` of an
# object raises, for which it returns -1.
_RAISES = _address_of(ctypes.pythonapi.PyErr_BadArgument)
_MEASURES = _address_of(ctypes.pythonapi.PyObject_Size)
DELETERS = {"counts": _address_of(_delete), "none": None, "raises": _RAISES}


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Lend, and in the end find each tensor given back once if it was taken, and else not at all."""
    hook, raised = sys.unraisablehook, []
    sys.unraisablehook = raised.append
    # What an earlier call still has stays where it is.
    earlier = {address: loan for address, loan in _loans.items() if loan.is_taken and not loan.returned}
    _loans.clear()
    if not earlier:
        _kept.clear()
    _earlier.update(earlier)
    try:
        yield
        for loan in _loans.values():
            if loan.managed.deleter == _RAISES:  # it cannot count, but Python is told of what it raised
                loan.returned = len(raised)
                raised.clear()
            owed = loan.is_taken and loan.managed.deleter is not None
            assert loan.returned == int(owed), f"given back {loan.returned} times, expected {int(owed)}"
        assert [report.exc_value for report in raised] == []
    finally:
        sys.unraisablehook = hook


def lent() -> int:
    """How many tensors have been handed out since watching began."""
    return len(_loans)


class Producer:
    """An array without any other property than that it exports its memory as told.

    Args:
        memory: what is exported.
        versioned: whether the capsule is of the kind that has flags.
        version: the version in it.
        flags: those in it; None: READ_ONLY where the memory is.
        deleter: a word of DELETERS.
        capsule_name: None: the right one.
        before: is called first by `__dlpack__`.
        when_returned: is called by the deleter.
        says_device: what `__dlpack_device__` returns; None: what the header has.
        **header: fields of the header that are not what the memory has; `shape` and `strides`, in elements,
            are lists, or None for a null pointer. Where the `byte_offset` is given, and `data` is not, the
            latter is as far before the memory.
    """

    def __init__(
        self,
        memory: np.ndarray,
        *,
        versioned: bool = True,
        version: tuple[int, int] = (1, 1),
        flags: int | None = None,
        deleter: str = "counts",
        capsule_name: bytes | None = None,
        before: Callable[[], Any] | None = None,
        when_returned: Callable[[], Any] | None = None,
        says_device: Any = None,
        **header: Any,
    ) -> None:
        self.memory = memory
        self.versioned = versioned
        self.version = version
        self.flags = (0 if memory.flags.writeable else READ_ONLY) if flags is None else flags
        self.deleter = DELETERS[deleter]
        self.name = capsule_name or (b"dltensor_versioned" if versioned else b"dltensor")
        self.before = before
        self.when_returned = when_returned
        self.tensor = header_of(memory, header)
        self.says_device = says_device or (self.tensor.device_kind, self.tensor.device_index)

    def __dlpack_device__(self) -> Any:
        return self.says_device

    def __dlpack__(self, *, max_version: Any = None) -> Any:
        if self.before is not None:
            self.before()
        return self.lend(self.name).capsule

    def lend(self, name: bytes | None) -> Loan:
        """Hand out the tensor once more."""
        if self.versioned:
            managed = ManagedVersioned(*self.version, None, self.deleter, self.flags, self.tensor)
        else:
            managed = Managed(self.tensor, None, self.deleter)
        return Loan(managed, name, self.when_returned)


class OldProducer(Producer):
    """One whose `__dlpack__` was written before there were versions."""

    def __dlpack__(self) -> Any:
        return super().__dlpack__()


class Answers(Producer):
    """One whose `__dlpack__` returns what it was given instead of a capsule, or raises it."""

    def __init__(self, memory: np.ndarray, answer: Any, **header: Any) -> None:
        super().__init__(memory, **header)
        self.answer = answer

    def __dlpack__(self, *, max_version: Any = None) -> Any:
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


def header_of(memory: np.ndarray, changes: dict[str, Any]) -> Tensor:
    """The header of an array, but for the fields that are to be otherwise."""
    dtype = memory.dtype
    fields = {
        "data": memory.ctypes.data - changes.get("byte_offset", 0),
        "device_kind": CPU,
        "device_index": 0,
        "rank": memory.ndim,
        "code": {"bfloat16": BFLOAT, "float8_e4m3fn": FLOAT8_E4M3FN}.get(dtype.name, CODES.get(dtype.kind)),
        "bits": 8 * dtype.itemsize,
        "lanes": 1,
        "shape": memory.shape,
        "strides": [stride // dtype.itemsize for stride in memory.strides],
        "byte_offset": 0,
    }
    assert changes.keys() <= fields.keys()
    fields |= changes
    for name in ("shape", "strides"):
        numbers = fields[name]
        fields[name] = None if numbers is None else (ctypes.c_int64 * len(numbers))(*numbers)
        if numbers is not None:
            fields[name] = ctypes.cast(fields[name], ctypes.POINTER(ctypes.c_int64))
    return Tensor(**fields)


@ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.POINTER(ctypes.c_void_p))
def _managed_from_object(producer: Producer, out: Any) -> int:
    out[0] = producer.lend(None).address
    return 0


@ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.POINTER(Tensor))
def _tensor_from_object(producer: Producer, out: Any) -> int:
    out[0] = producer.tensor
    return 0


@ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.POINTER(ctypes.c_void_p))
def _nothing_from_object(producer: Producer, out: Any) -> int:
    out[0] = None
    return 0


class Measured(Producer):
    """One that raises what it was given when its length is asked for."""

    def __init__(self, memory: np.ndarray, error: BaseException, **header: Any) -> None:
        super().__init__(memory, **header)
        self.error = error

    def __len__(self) -> int:
        raise self.error


MANAGED = {
    "lends": _address_of(_managed_from_object),
    "lends nothing": _address_of(_nothing_from_object),
    "raises": _MEASURES,
}


def exchanging(
    *versions: tuple[int, int],
    managed: str = "lends",
    base: type = Producer,
    stream: int | None = None,
    shows: bool = False,
) -> type:
    """A class of producers with an exchange interface.

    Args:
        *versions: of the interface, then of those that it calls its previous ones.
        managed: a word of MANAGED: what its function that lends a tensor does.
        base: the class of the producers.
        stream: the address of its function that says on which stream it works.
        shows: whether it has a function that shows a tensor without lending it.
    """
    chain = None
    for version in reversed(versions):
        chain = ExchangeApi(
            *version,
            chain and ctypes.addressof(chain),
            None,
            MANAGED[managed],
            None,
            _address_of(_tensor_from_object) if shows else None,
            stream,
        )
        _interfaces.append(chain)
    capsule = _new_capsule(ctypes.addressof(chain), b"dlpack_exchange_api", None)
    return type("Exchanging", (base,), {"__dlpack_c_exchange_api__": capsule})


_interfaces: list[ExchangeApi] = []  # which live as long as the process, as those of a library do


class OnTpu:
    """What JAX answers of an array on a TPU, for which DLPack has no number."""

    __module__ = "jaxlib._jax"
    device = types.SimpleNamespace(platform="tpu", id=3)

    def __dlpack_device__(self) -> None:
        raise BufferError("__dlpack__ device only supported for CPU and GPU, got platform: tpu")

    def __dlpack__(self, **_: Any) -> None:
        raise AssertionError("its memory was asked for")
