"""The config that does what `torch.optim.Adafactor` does, from its own arguments."""

from __future__ import annotations

from typing import Any

from adafactor.config import Config
from adafactor.knobs.numbers import real_number, shown
from adafactor.presets.arguments import config_of, flag, two_of

__all__ = ["torch"]

_NAMES = {
    "learning_rate": "lr",
    "beta_2_decay": "beta2_decay",
    "epsilon_1": "eps[0]",
    "epsilon_2": "eps[1]",
    "clip_threshold": "d",
}


def torch(
    lr: Any = 1e-2,
    beta2_decay: float = -0.8,
    eps: tuple[float | None, float] = (None, 1e-3),
    d: float = 1.0,
    weight_decay: float = 0.0,
    *,
    foreach: bool | None = None,
    maximize: bool = False,
    **knobs: Any,
) -> Config:
    """Return the config that does what `torch.optim.Adafactor` 2.13.0 does.

    The arguments are torch's own, under its names and with its defaults, less the parameters. As there, the
    rate is capped at 1/sqrt(t), whatever a scheduler says, the second moment is kept above eps[0] and not
    added to it, and each parameter counts its own updates. Statistics are float32 here, also of parameters in
    16 bits, and where eps[0] is None it follows each parameter's dtype; torch takes that of the first
    parameter of a group.

    Args:
        lr: as in torch; a tensor is read once, here. A schedule or a callable without arguments too.
        beta2_decay: as in torch; at most 0.
        eps: as in torch: the floor of the second moment's root, None for `finfo(dtype).eps`, and that of the
            parameter's scale.
        d: as in torch; at least 1.
        weight_decay: as in torch.
        foreach: without effect: every step is fused.
        maximize: as in torch.
        **knobs: knobs of `Config` that torch lacks, such as `on_nonfinite`.

    Returns:
        A `Config`, for `adafactor.init`.

    Raises:
        TypeError, ValueError: as `Config`, under torch's names.

    Source: `torch.optim.Adafactor`, torch 2.13.0.

    >>> from adafactor import presets
    >>> presets.torch(lr=0.1, d=2).clip_threshold
    2.0
    """
    if foreach is not None:
        flag("foreach", foreach)
    if hasattr(lr, "reshape"):  # a tensor of one element, of any rank
        try:
            lr = lr.reshape(())
        except (RuntimeError, ValueError):
            raise ValueError(f"lr: {shown(lr)}, expected one element") from None
    floor, scale = two_of("eps", eps)
    if not real_number("d", d) >= 1:
        raise ValueError(f"d: {d}, expected >= 1, as torch does")
    set_by_it = {
        "learning_rate": lr,
        "relative_step": "always",
        "beta_2_decay": beta2_decay,
        "epsilon_1": floor,
        "epsilon_1_mode": "clamp",
        "epsilon_2": scale,
        "clip_threshold": d,
        "weight_decay": weight_decay,
        "weight_decay_on": "learning_rate",
        "weight_decay_first": False,
        "count_updates": "leaf",
        "maximize": maximize,
    }
    return config_of(set_by_it, knobs, _NAMES)
