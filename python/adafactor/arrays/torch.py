"""Tensors of torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import NDArray

from adafactor import _core
from adafactor.arrays import library_named
from adafactor.arrays.bits import held_by, signed_bits

mark = torch.autograd.graph.increment_version
"""Raises the version counters: a backward through a tensor that was saved before the step then raises.

Without it autograd would not notice the write, and give wrong gradients. In a compiled function a call of it
would be part of the graph, and do nothing; that of the core is not.
"""


def new_like(leaf: Any) -> Any:
    """A tensor for a step to write into."""
    return torch.empty_like(leaf, requires_grad=False)


def finished(outputs: list[Any], leaves: list[Any]) -> list[Any]:
    """The tensors themselves."""
    return outputs


def is_sole(leaf: Any) -> bool:
    """Whether the memory is torch's, and of no other tensor or process; False where torch does not tell."""
    try:
        storage = leaf.untyped_storage()
        # The tensor has it, and `storage`.
        holders = torch._C._storage_Use_Count(storage._cdata)
        own = storage.resizable() and not storage.is_shared()
        return bool(own and leaf._use_count() == 1 and holders == 2)
    except (AttributeError, RuntimeError, TypeError):
        return False


def assign(leaf: Any, values: NDArray[Any]) -> None:
    """Write the values into the leaf's memory, rounded to nearest.

    In the CPU's memory by NumPy: torch copies with threads of its own, which a forked process waits for in
    vain.
    """
    if leaf.device.type == "cpu":
        library_named("numpy").assign(leaf, values)
    else:
        with torch.no_grad():
            leaf.copy_(torch.from_numpy(values))
    _core.mark_written(mark, [leaf])


def handed_out(array: NDArray[Any]) -> torch.Tensor:
    """A tensor over the same memory."""
    name = held_by(array.dtype)
    if name:
        return torch.from_numpy(signed_bits(array)).view(getattr(torch, name))
    return torch.from_numpy(array)


def lent(piece: Any) -> torch.Tensor:
    """A tensor over the same memory of a device."""
    return torch.utils.dlpack.from_dlpack(piece)


def allocator(device: str) -> Callable[[int], Any] | None:
    """torch's own memory, so that its statistics count it, and it frees what it can where there is none."""

    def allocate(nbytes: int) -> torch.Tensor:
        with torch.cuda.device(device):
            if torch.cuda.is_current_stream_capturing():
                instead = "expected a stream that runs; make it outside of the graph"
                raise RuntimeError(f"state: a CUDA graph is being captured, {instead}")
            return torch.zeros(-(-nbytes // 4), dtype=torch.float32, device=device)

    return allocate
