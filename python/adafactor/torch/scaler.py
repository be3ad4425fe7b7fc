"""What a `torch.amp.GradScaler` leaves to an optimizer that says `_step_supports_amp_scaling`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

__all__ = ["PLAIN", "Scale", "scale_of"]


class Scale(NamedTuple):
    """What the gradients of a step are multiplied by.

    Attributes:
        multiplier: a number that the host knows.
        on_device: the scale that they are divided by besides, and a number that is not 0 where the step is to
            be skipped; tensors of the GPU of the parameters, at which nobody has looked, or None.
    """

    multiplier: float
    on_device: tuple[torch.Tensor | None, torch.Tensor | None] | None


PLAIN = Scale(1.0, None)


def scale_of(optimizer: Any, parameters: Sequence[torch.Tensor]) -> Scale | None:
    """What a scaler has left; None where it has found, and the host can see, that there is nothing to do."""
    found_inf, scale = getattr(optimizer, "found_inf", None), getattr(optimizer, "grad_scale", None)
    if found_inf is None and scale is None:
        return PLAIN
    numbers = [each for each in (found_inf, scale) if each is not None]
    if all(isinstance(each, torch.Tensor) and each.device.type == "cuda" for each in numbers):
        places = {each.device for each in (*numbers, *parameters)}
        if len(places) == 1 and all(each.dtype == torch.float32 for each in numbers):
            return Scale(1.0, (scale, found_inf))
    if found_inf is not None and float(found_inf) != 0:
        return None
    return Scale(1.0 if scale is None else 1.0 / float(scale), None)
