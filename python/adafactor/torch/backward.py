"""Steps inside the backward: each parameter as soon as its gradient is complete."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Self

import torch
import torch.distributed

from adafactor.torch.groups import require_alone

__all__ = ["FusedBackward"]

_WRAPPERS = {
    "DistributedDataParallel": "steps each parameter before the gradients of the ranks are averaged",
    "FullyShardedDataParallel": "steps parts of parameters, whose sums over the ranks are still missing",
    "FSDPModule": "steps parts of parameters, whose sums over the ranks are still missing",
}


class FusedBackward:
    """What `Adafactor.fuse_backward` returns: it is in force until `remove()`, or the end of its `with`.

    Args:
        groups: those of the optimizer.
        step: updates one parameter, and frees its gradient.
        model: whose parameters are stepped as soon as their gradients are complete.
        per_rank: whether each of several ranks may do so for itself.

    >>> import torch, adafactor.torch
    >>> model = torch.nn.Linear(4, 2)
    >>> optimizer = adafactor.torch.Adafactor(model.parameters())
    >>> with optimizer.fuse_backward(model) as fused:
    ...     with fused.accumulating():
    ...         model(torch.ones(3, 4)).sum().backward()
    ...     waited = model.weight.grad is not None
    ...     model(torch.ones(3, 4)).sum().backward()
    >>> waited, model.weight.grad
    (True, None)
    >>> fused.remove()  # the end of the `with` did so before
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        step: Callable[[torch.Tensor], None],
        model: torch.nn.Module,
        per_rank: bool,
    ) -> None:
        """Hook the parameters of the groups; `step` updates one. Raises what `fuse_backward` says."""
        _refuse_wrappers(model)
        for group in groups:
            require_alone(group)
        own = {id(parameter) for group in groups for parameter in group["params"]}
        self._names: dict[torch.Tensor, str] = {
            p: name for name, p in model.named_parameters() if id(p) in own and p.requires_grad
        }
        if not self._names:
            raise ValueError("model: none of its parameters is in a group of the optimizer")
        self._step, self._per_rank = step, per_rank
        self._stepped: set[torch.Tensor] = set()  # since the last forward
        self._accumulates = False
        self._handles: list[Any] = [model.register_forward_pre_hook(_Hook(self._begin))]
        for parameter in self._names:
            self._handles.append(parameter.register_post_accumulate_grad_hook(_Hook(self._complete)))  # type: ignore[no-untyped-call]

    def _begin(self, *_: Any) -> None:
        if torch._C._current_graph_task_id() == -1:  # else a backward computes it once more
            self._stepped.clear()

    def _complete(self, parameter: torch.Tensor) -> None:
        if self._accumulates:
            return
        if not self._per_rank and _ranks() > 1:
            raise RuntimeError(
                f"fuse_backward: {_ranks()} ranks, each of which would step with its own gradients; average "
                "them and call step(), or allow it with per_rank=True"
            )
        if parameter in self._stepped:
            raise RuntimeError(
                f"fuse_backward: {self._names[parameter]} has a gradient for the second time since the last "
                "forward of the model, and would be stepped twice; a weight that is used twice under "
                "reentrant checkpointing needs use_reentrant=False, several backwards need accumulating(), "
                "and the model that is called has to be the one that fuse_backward was given"
            )
        self._stepped.add(parameter)
        self._step(parameter)

    @contextlib.contextmanager
    def accumulating(self) -> Iterator[None]:
        """Backwards in this `with` add their gradients up; the next one outside steps with the sum."""
        before, self._accumulates = self._accumulates, True
        try:
            yield
        finally:
            self._accumulates = before

    def remove(self) -> None:
        """Leave the gradients to `step()` again."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove it."""
        self.remove()


class _Hook:
    """A hook that stays behind where its module is copied or saved: the copy has no optimizer."""

    def __init__(self, call: Callable[..., None]) -> None:
        self._call = call

    def __call__(self, *given: Any) -> None:
        self._call(*given)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Hook:
        return _Hook(_do_nothing)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Hook, (_do_nothing,)


def _do_nothing(*_: Any) -> None:
    """What a hook does in a copy."""


def _ranks() -> int:
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return 1
    return torch.distributed.get_world_size()


def _refuse_wrappers(model: torch.nn.Module) -> None:
    for module in model.modules():
        for cls in type(module).__mro__:
            if cls.__name__ in _WRAPPERS and cls.__module__.startswith("torch."):
                raise ValueError(f"fuse_backward: {cls.__name__} {_WRAPPERS[cls.__name__]}; call step()")
