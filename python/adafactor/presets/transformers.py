"""The config that does what `transformers.Adafactor` does, from its own arguments."""

from __future__ import annotations

from typing import Any

from adafactor.config import Config
from adafactor.knobs.numbers import real_number
from adafactor.presets.arguments import config_of, flag, two_of

__all__ = ["transformers"]

_NAMES = {
    "learning_rate": "lr",
    "epsilon_1": "eps[0]",
    "epsilon_2": "eps[1]",
    "beta_2_decay": "decay_rate",
    "beta_1": "beta1",
}


def transformers(
    lr: Any = None,
    eps: tuple[float, float] = (1e-30, 1e-3),
    clip_threshold: float = 1.0,
    decay_rate: float = -0.8,
    beta1: float | None = None,
    weight_decay: float = 0.0,
    scale_parameter: bool = True,
    relative_step: bool = True,
    warmup_init: bool = False,
    **knobs: Any,
) -> Config:
    """Return the config that does what `transformers.Adafactor` 5.24.0 does.

    The arguments are its own, under its names and with its defaults, less the parameters. `AdafactorSchedule`
    is not needed: `StepReport` has the step sizes that it shows.

    Args:
        lr: as in transformers: None with `relative_step`, which finds the rate itself, min(0.01, 1/sqrt(t)),
            otherwise a number; a schedule or a callable without arguments too.
        eps: as in transformers: what is added to the squared gradient, and the floor of the scale.
        clip_threshold: as in transformers.
        decay_rate: as in transformers, with its sign; at most 0.
        beta1: as in transformers.
        weight_decay: as in transformers: of the step size, scale and all.
        scale_parameter: as in transformers.
        relative_step: as in transformers.
        warmup_init: as in transformers; needs `relative_step`.
        **knobs: knobs of `Config` that transformers lacks, such as `on_nonfinite`.

    Returns:
        A `Config`, for `adafactor.init`.

    Raises:
        TypeError, ValueError: as `Config`, under transformers' names; `lr` beside `relative_step`, as there.

    Source: `transformers.Adafactor`, transformers 5.24.0.

    >>> from adafactor import presets
    >>> presets.transformers().learning_rate, presets.transformers().relative_step
    (0.01, True)
    """
    if flag("relative_step", relative_step):
        if lr is not None:
            raise ValueError(
                f"lr: {lr}, expected None beside relative_step=True, which finds the rate itself"
            )
        lr = 1e-2
    elif lr is None:
        raise ValueError("lr: None, expected a number with relative_step=False")
    added, scale = two_of("eps", eps)
    set_by_it = {
        "learning_rate": lr,
        "relative_step": relative_step,
        "warmup_init": warmup_init,
        "beta_2_decay": decay_rate,
        "epsilon_1": real_number("eps[0]", added),
        "epsilon_2": scale,
        "scale_parameter": scale_parameter,
        "clip_threshold": real_number("clip_threshold", clip_threshold),
        "beta_1": beta1,
        "weight_decay": weight_decay,
        "weight_decay_on": "step",
        "count_updates": "leaf",
    }
    return config_of(set_by_it, knobs, _NAMES)
