"""What torch puts around each step: hooks, and a mark that profilers see."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch.optim import optimizer as theirs

__all__ = ["HookedOptimizer"]

_P = ParamSpec("_P")
_Result = TypeVar("_Result")


class HookedOptimizer(torch.optim.Optimizer):
    """An optimizer whose step is wrapped by torch where a hook or a profiler would see it, and else alone.

    Torch itself opens and closes the mark at each step, whether anybody looks or not: that is a tenth of a
    step of 300 tensors of 8x8. Of an ExecutionTraceObserver and of a recorded history of a GPU's memory,
    where no profiler runs beside them, torch does not say that they are there: they do not see the mark.
    """

    @staticmethod
    @functools.wraps(torch.optim.Optimizer.profile_hook_step)
    def profile_hook_step(  # type: ignore[override]
        func: Callable[_P, _Result],
    ) -> Callable[_P, _Result]:
        watched = torch.optim.Optimizer.profile_hook_step(func)

        @functools.wraps(func)
        def either(*args: _P.args, **kwargs: _P.kwargs) -> _Result:
            # A closure may begin to watch.
            alone = len(args) == 1 and not kwargs and not _is_watched(args[0])
            return (func if alone else watched)(*args, **kwargs)

        return either


def _is_watched(optimizer: Any) -> bool:
    return bool(
        optimizer._optimizer_step_pre_hooks
        or optimizer._optimizer_step_post_hooks
        or theirs._global_optimizer_pre_hooks
        or theirs._global_optimizer_post_hooks
        or torch._C._autograd._profiler_enabled()  # by this thread
        or torch.autograd.profiler._is_profiler_enabled  # by any
    )
