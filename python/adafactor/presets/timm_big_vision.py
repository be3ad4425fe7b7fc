"""The config that does what `timm.optim.AdafactorBigVision` does, from its own arguments."""

from __future__ import annotations

from typing import Any

from adafactor.config import Config
from adafactor.knobs.numbers import real_number
from adafactor.presets.arguments import (
    beta_2_decay_of,
    config_of,
    flag,
    momentum_knobs,
    refuse,
    refuse_caution,
)

__all__ = ["timm_big_vision"]

_NAMES = {
    "learning_rate": "lr",
    "step_offset": "decay_offset",
    "beta_2_cap": "beta2_cap",
    "beta_1": "momentum",
    "epsilon_1": "eps",
    "clip_threshold": "clipping_threshold",
}


def timm_big_vision(
    lr: Any = 1.0,
    min_dim_size_to_factor: int = 16,
    decay_rate: float = 0.8,
    decay_offset: int = 0,
    beta2_cap: float = 0.999,
    momentum: float | None = 0.9,
    momentum_dtype: Any = "bfloat16",
    eps: float | None = None,
    weight_decay: float = 0.0,
    clipping_threshold: float | None = None,
    unscaled_wd: bool = False,
    caution: bool = False,
    corrected_weight_decay: bool = False,
    **knobs: Any,
) -> Config:
    """Return the config that does what `timm.optim.AdafactorBigVision` 1.0.31 does.

    The arguments are timm's own, under its names and with its defaults, less the parameters. A leaf is
    factored along its two longest axes. With momentum in bfloat16 timm rounds the update before it is
    averaged; here the average alone is rounded, as it is stored. `eps=None` is 1e-30, also for float16, whose
    statistics are float32 here.

    Args:
        lr: as in timm; a schedule or a callable without arguments too.
        min_dim_size_to_factor: as in timm: both axes have to be at least this long.
        decay_rate: as in timm, without a sign; at least 0.
        decay_offset: as in timm.
        beta2_cap: as in timm.
        momentum: as in timm; None is off.
        momentum_dtype: float32 or bfloat16, by name or as torch has it.
        eps: as in timm: added to the squared gradient.
        weight_decay: as in timm: of the rate, or of itself alone with `unscaled_wd`.
        clipping_threshold: as in timm; None is off.
        unscaled_wd: as in timm.
        caution: False, unless there is no momentum; the mask is divided by its mean, another pass.
        corrected_weight_decay: False, unless nothing decays; it would depend on the largest rate so far.
        **knobs: knobs of `Config` that timm lacks, such as `on_nonfinite`.

    Returns:
        A `Config`, for `adafactor.init`.

    Raises:
        TypeError, ValueError: as `Config`, under timm's names; `caution` and `corrected_weight_decay`.

    Source: `timm.optim.AdafactorBigVision`, timm 1.0.31.

    >>> from adafactor import presets
    >>> presets.timm_big_vision(momentum_dtype="float32").factored
    'largest_two'
    """
    refuse_caution("caution", caution, momentum)
    if flag("corrected_weight_decay", corrected_weight_decay) and weight_decay:
        why = "weight_decay is multiplied by the rate of the call, or by nothing; choose by unscaled_wd"
        refuse("corrected_weight_decay", True, why)
    set_by_it = {
        "learning_rate": lr,
        "relative_step": False,
        "beta_2_decay": beta_2_decay_of("decay_rate", decay_rate),
        "beta_2_cap": real_number("beta2_cap", beta2_cap),
        "step_offset": decay_offset,
        "epsilon_1": 1e-30 if eps is None else eps,
        "scale_parameter": False,
        "clip_threshold": clipping_threshold,
        **momentum_knobs(momentum, "momentum_dtype", momentum_dtype, momentum_on="update"),
        "factored": "largest_two",
        "min_dim_size_to_factor": min_dim_size_to_factor,
        "weight_decay": weight_decay,
        "weight_decay_on": "none" if flag("unscaled_wd", unscaled_wd) else "learning_rate",
        "count_updates": "leaf",
    }
    return config_of(set_by_it, knobs, _NAMES)
