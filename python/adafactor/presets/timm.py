"""The config that does what `timm.optim.Adafactor` does, from its own arguments."""

from __future__ import annotations

from typing import Any

from adafactor.config import Config
from adafactor.knobs.numbers import real_number
from adafactor.presets.arguments import config_of, flag, minimum_above, refuse_caution, two_of

__all__ = ["timm"]

_NAMES = {
    "learning_rate": "lr",
    "epsilon_1": "eps",
    "epsilon_2": "eps_scale",
    "beta_2_decay": "decay_rate",
    "beta_1": "betas[0]",
}


def timm(
    lr: Any = None,
    eps: float = 1e-30,
    eps_scale: float = 1e-3,
    clip_threshold: float = 1.0,
    decay_rate: float = -0.8,
    betas: tuple[float | None, float] | None = None,
    weight_decay: float = 0.0,
    scale_parameter: bool = True,
    warmup_init: bool = False,
    min_dim_size_to_factor: int = 16,
    caution: bool = False,
    **knobs: Any,
) -> Config:
    """Return the config that does what `timm.optim.Adafactor` 1.0.31 does.

    The arguments are timm's own, under its names and with its defaults, less the parameters. Without `lr` the
    rate is min(0.01, 1/sqrt(t)); with it neither the cap nor the parameter's scale applies, as there. A leaf
    of three or more axes, as the weight of a convolution, is factored along its first two where both are
    longer than `min_dim_size_to_factor`, everything else along its last two where these are.

    Args:
        lr: as in timm: None, or a number; a schedule or a callable without arguments too.
        eps: as in timm: added to the squared gradient.
        eps_scale: as in timm: the floor of the scale.
        clip_threshold: as in timm.
        decay_rate: as in timm, with its sign; at most 0.
        betas: as in timm: None, or a pair of which the first is the momentum and the second means nothing.
        weight_decay: as in timm: of the step size, scale and all.
        scale_parameter: as in timm; without effect beside `lr`.
        warmup_init: as in timm; only without `lr`.
        min_dim_size_to_factor: as in timm: an axis has to be longer than this.
        caution: False, unless there is no momentum; the mask is divided by its mean, another pass.
        **knobs: knobs of `Config` that timm lacks, such as `on_nonfinite`.

    Returns:
        A `Config`, for `adafactor.init`.

    Raises:
        TypeError, ValueError: as `Config`, under timm's names; `warmup_init` beside `lr`, and `caution`.

    Source: `timm.optim.Adafactor`, timm 1.0.31.

    >>> from adafactor import presets
    >>> presets.timm().scale_parameter, presets.timm(lr=0.1).scale_parameter
    (True, False)
    """
    beta_1 = None if betas is None else two_of("betas", betas)[0]
    refuse_caution("caution", caution, beta_1)
    relative = lr is None
    if flag("warmup_init", warmup_init) and not relative:
        raise ValueError("warmup_init: True, expected False beside lr: it is how the relative rate begins")
    set_by_it = {
        "learning_rate": 1e-2 if relative else lr,
        "relative_step": relative,
        "warmup_init": warmup_init,
        "beta_2_decay": decay_rate,
        "epsilon_1": real_number("eps", eps),
        "epsilon_2": eps_scale,
        "scale_parameter": flag("scale_parameter", scale_parameter) and relative,
        "clip_threshold": real_number("clip_threshold", clip_threshold),
        "beta_1": beta_1,
        "factored": "leading_two_or_last_two",
        "min_dim_size_to_factor": minimum_above("min_dim_size_to_factor", min_dim_size_to_factor),
        "weight_decay": weight_decay,
        "weight_decay_on": "step",
        "count_updates": "leaf",
    }
    return config_of(set_by_it, knobs, _NAMES)
