"""The config that does what `pytorch_optimizer.AdaFactor` does, from its own arguments."""

from __future__ import annotations

from typing import Any

from adafactor.config import Config
from adafactor.knobs.numbers import real_number
from adafactor.presets.arguments import config_of, flag, momentum_knobs, refuse, refuse_caution, two_of

__all__ = ["pytorch_optimizer"]

_NAMES = {
    "learning_rate": "lr",
    "beta_1": "betas[0]",
    "beta_2_cap": "betas[1]",
    "beta_2_decay": "decay_rate",
    "epsilon_1": "eps1",
    "epsilon_2": "eps2",
}


def pytorch_optimizer(
    lr: Any = 1e-3,
    betas: tuple[float | None, float] = (0.9, 0.999),
    decay_rate: float = -0.8,
    weight_decay: float = 0.0,
    weight_decouple: bool = True,
    fixed_decay: bool = False,
    clip_threshold: float = 1.0,
    ams_bound: bool = False,
    scale_parameter: bool = True,
    relative_step: bool = True,
    warmup_init: bool = False,
    eps1: float = 1e-30,
    eps2: float = 1e-3,
    momentum_dtype: Any = "bfloat16",
    foreach: bool | None = None,
    maximize: bool = False,
    **knobs: Any,
) -> Config:
    """Return the config that does what `pytorch_optimizer.AdaFactor` 4.1.0 does.

    The arguments are its own, under its names and with its defaults, less the parameters. As there, `lr` has
    no effect with `relative_step`, which makes the rate min(0.01, 1/sqrt(t)). With momentum in bfloat16 it
    rounds the update before it is averaged; here the average alone is rounded, as it is stored.

    Args:
        lr: as in pytorch_optimizer; a schedule or a callable without arguments too.
        betas: as in pytorch_optimizer: momentum, or None for none, and the cap of beta2.
        decay_rate: as in pytorch_optimizer, with its sign; at most 0.
        weight_decay: as in pytorch_optimizer: of the step size, or of itself alone with `fixed_decay`.
        weight_decouple: True; a decay that is added to the gradient is not here.
        fixed_decay: as in pytorch_optimizer.
        clip_threshold: as in pytorch_optimizer.
        ams_bound: False; the largest second moment would be as large as the parameter.
        scale_parameter: as in pytorch_optimizer.
        relative_step: as in pytorch_optimizer.
        warmup_init: as in pytorch_optimizer; without effect unless `relative_step`.
        eps1: as in pytorch_optimizer: added to the squared gradient.
        eps2: as in pytorch_optimizer: the floor of the scale.
        momentum_dtype: float32 or bfloat16, by name or as torch has it.
        foreach: without effect: every step is fused.
        maximize: as in pytorch_optimizer.
        **knobs: knobs of `Config` that pytorch_optimizer lacks, such as `on_nonfinite`.

    Returns:
        A `Config`, for `adafactor.init`.

    Raises:
        TypeError, ValueError: as `Config`, under its names; `ams_bound`, `cautious`, and a coupled decay.

    Source: `pytorch_optimizer.AdaFactor`, pytorch_optimizer 4.1.0.

    >>> from adafactor import presets
    >>> presets.pytorch_optimizer(betas=(None, 0.99)).beta_2_cap
    0.99
    """
    if foreach is not None:
        flag("foreach", foreach)
    if flag("ams_bound", ams_bound):
        why = "it keeps the largest second moment, which is as large as the parameter; leave it out"
        refuse("ams_bound", True, why)
    if not flag("weight_decouple", weight_decouple) and weight_decay:
        refuse("weight_decouple", False, "weight decay is always decoupled; add it to the gradient yourself")
    relative = flag("relative_step", relative_step)
    if lr is None and not relative:
        raise ValueError("lr: None, expected a number with relative_step=False")
    if lr is not None and not callable(lr) and real_number("lr", lr) < 0:
        raise ValueError(f"lr: {lr}, expected >= 0")
    beta_1, cap = two_of("betas", betas)
    refuse_caution("cautious", knobs.pop("cautious", False), beta_1)
    set_by_it = {
        "learning_rate": 1e-2 if relative else lr,
        "relative_step": relative,
        "warmup_init": flag("warmup_init", warmup_init) and relative,
        "beta_2_decay": decay_rate,
        "beta_2_cap": real_number("betas[1]", cap),
        "epsilon_1": real_number("eps1", eps1),
        "epsilon_2": eps2,
        "scale_parameter": scale_parameter,
        "clip_threshold": real_number("clip_threshold", clip_threshold),
        **momentum_knobs(beta_1, "momentum_dtype", momentum_dtype),
        "weight_decay": weight_decay,
        "weight_decay_on": "none" if flag("fixed_decay", fixed_decay) else "step",
        "weight_decay_first": False,
        "maximize": maximize,
    }
    return config_of(set_by_it, knobs, _NAMES)
