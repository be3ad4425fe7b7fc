"""The array libraries that a case is about: how each makes its arrays, and where the memory of one is."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

import dlpack_producer
import emulated_gpu
import peers
import snapshots


class NumPy:
    """NumPy, and what a library is for the registry."""

    name = "numpy"
    writes = True
    """Whether `step` can write its arrays; those of others are for `update` alone."""

    @classmethod
    def array(cls, values: np.ndarray) -> Any:
        """A new array of the library that holds these values."""
        return cls.over(np.array(values))

    @staticmethod
    def over(memory: np.ndarray) -> Any:
        """An array of the library over the very memory of NumPy's, strides and all."""
        return memory

    @staticmethod
    def exported(make: type, memory: np.ndarray, *more: Any, **header: Any) -> Any:
        """A producer of that memory, of a class of `dlpack_producer`."""
        return make(memory, *more, **header)

    @staticmethod
    def write(array: Any, values: Any) -> None:
        """Have the library itself write the values into an array."""
        memory_of(array)[...] = values

    @staticmethod
    def watched() -> contextlib.AbstractContextManager[None]:
        """What surrounds a case."""
        return contextlib.nullcontext()


class Torch(NumPy):
    """torch, whose tensors come in through an exchange interface."""

    name = "torch"

    @staticmethod
    def over(memory: np.ndarray) -> Any:
        """A view by strides of a tensor that has all of the buffer."""
        torch = peers.require("torch")
        if memory.dtype.kind == "V":  # of ml_dtypes
            bits = np.int16 if memory.itemsize == 2 else np.uint8
            return Torch.over(memory.view(bits)).view(getattr(torch, memory.dtype.name))
        buffer = snapshots.buffer_of(memory)
        if not memory.size:
            return torch.from_numpy(memory.reshape(-1)).as_strided(
                memory.shape, np.abs(memory.strides).tolist()
            )
        if not buffer.flags.c_contiguous:
            return torch.from_numpy(memory)
        start = memory.ctypes.data - buffer.ctypes.data
        whole = buffer.reshape(-1).view(np.uint8)[start % memory.itemsize :]
        whole = whole[: whole.size // memory.itemsize * memory.itemsize].view(memory.dtype)
        strides = [stride // memory.itemsize for stride in memory.strides]
        return torch.from_numpy(whole).as_strided(memory.shape, strides, start // memory.itemsize)


class Jax(NumPy):
    """JAX, whose arrays nobody may write."""

    name = "jax"
    writes = False

    @classmethod
    def array(cls, values: np.ndarray) -> Any:
        """A new array that holds these values."""
        return peers.require("jax").numpy.array(values)

    @staticmethod
    def watched() -> contextlib.AbstractContextManager[None]:
        return peers.jax_with_float64()


class DLPack(NumPy):
    """A library that is known for nothing but its `__dlpack__`."""

    name = "dlpack"

    @staticmethod
    def over(memory: np.ndarray) -> Any:
        """A producer of that memory."""
        return dlpack_producer.Producer(memory)

    @staticmethod
    def watched() -> contextlib.AbstractContextManager[None]:
        """Whatever is taken has to be given back once."""
        return dlpack_producer.watched()


class Gpu(NumPy):
    """Arrays on a GPU that a CPU stands in for; their memory is seen in copies.

    Every case is tried with them whose name does not begin with one of `hazards.NOT_ON_A_GPU`.
    """

    name = "gpu"

    @staticmethod
    def over(memory: np.ndarray) -> Any:
        """An array over the memory on the device of which this is a copy, or a copy of all that it is in."""
        return emulated_gpu.sharing(memory)

    @staticmethod
    def exported(make: type, memory: np.ndarray, *more: Any, **header: Any) -> Any:
        return emulated_gpu.sharing(memory, emulated_gpu.on_device(make), *more, **header)

    @staticmethod
    def write(array: Any, values: Any) -> None:
        array.write(values)

    @staticmethod
    def watched() -> contextlib.AbstractContextManager[None]:
        """Whatever is taken has to be given back once."""
        return dlpack_producer.watched()


OF_THE_CPU = (NumPy, Torch, Jax, DLPack)
LIBRARIES = (Gpu,) if emulated_gpu.IS_HERE else OF_THE_CPU
IN_MEMORY = ("numpy", "torch", "dlpack")
"""Libraries whose arrays can be made over given memory."""
OF_ANY_KIND = ("numpy", "dlpack")
"""Those of them that take any stride and any permission."""


def memory_of(value: Any) -> np.ndarray | None:
    """The memory of an array as one of NumPy whose base is all of the buffer; None for what has none."""
    if isinstance(value, np.ndarray):
        emulated_gpu.refresh(value)
        return None if value.dtype.hasobject else value
    if isinstance(value, emulated_gpu.Array):
        emulated_gpu.refresh(value.memory)
        return value.memory
    if isinstance(value, dlpack_producer.Producer):
        return value.memory
    torch, jax = sys.modules.get("torch"), sys.modules.get("jax")
    if torch and type(value) in (torch.Tensor, torch.nn.Parameter):
        return _memory_of_tensor(torch, value)
    if jax and isinstance(value, jax.Array) and not isinstance(value, jax.core.Tracer):
        has_memory = isinstance(value.dtype, np.dtype) and not value.is_deleted()
        return np.asarray(value) if has_memory else None
    return None


def _memory_of_tensor(torch: Any, tensor: Any) -> np.ndarray | None:
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_nested:
        return None
    try:
        storage = tensor.untyped_storage()
        if tensor.numel() and storage.data_ptr() == 0:
            return None
    except (NotImplementedError, RuntimeError):  # it stands for another tensor
        return None
    buffer = torch.empty(0, dtype=torch.uint8).set_(storage).numpy()
    try:
        dtype = np.dtype(str(tensor.dtype).removeprefix("torch."))
    except TypeError:  # one that only torch has
        return buffer
    if not tensor.numel():
        return np.empty(tuple(tensor.shape), dtype)
    strides = [stride * dtype.itemsize for stride in tensor.stride()]
    return np.ndarray(tuple(tensor.shape), dtype, buffer, tensor.storage_offset() * dtype.itemsize, strides)


def arrays_in(tree: Any) -> Iterator[np.ndarray]:
    """The memory of the arrays in some nesting of containers, however wrong the tree is otherwise."""
    pending, seen = [tree], set()
    while pending:
        value = pending.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            pending.extend(dict.values(value))
        elif isinstance(value, list | tuple):
            pending.extend(value)
        elif (memory := memory_of(value)) is not None:
            yield memory
