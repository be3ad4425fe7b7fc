"""What to write in the place of an argument that is no knob: what has that name here, or why nothing has."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["ELSEWHERE", "IN_WORDS", "refuse_unknown"]

# What other libraries call a knob, where the spelling does not lead to ours.
ELSEWHERE = {
    "lr": "learning_rate",
    "beta1": "beta_1",
    "momentum": "beta_1",
    "dtype_momentum": "momentum_dtype",
    "beta2_decay": "beta_2_decay",
    "beta2_cap": "beta_2_cap",
    "decay_offset": "step_offset",
    "eps1": "epsilon_1",
    "eps2": "epsilon_2",
    "eps_scale": "epsilon_2",
    "d": "clip_threshold",
    "clipping_threshold": "clip_threshold",
    "max_grad_norm": "global_clipnorm",
    "max_norm": "global_clipnorm",
    "multiply_by_parameter_scale": "scale_parameter",
    "wd": "weight_decay",
    "weight_decay_mask": "exclude_from_weight_decay",
    "ema": "use_ema",
    "ema_decay": "ema_momentum",
}

_TWO_EPSILONS = (
    "did you mean 'epsilon_1', added to the squared gradient, or 'epsilon_2', the floor of the scale?"
)
_EXPONENT = "did you mean 'beta_2_decay'? it is the exponent itself, and so negative: -0.8"
_DECAY_OF_MOMENTS = "it is not constant here: beta2 = 1 - t**beta_2_decay, at most beta_2_cap"
_ALWAYS_FUSED = "every step is fused, there is nothing to choose"
_NONE = "no knob does the same"

# What of theirs is not a knob by another name.
IN_WORDS = {
    "decay_rate": _EXPONENT,
    "decay_exponent": _EXPONENT,
    "eps": _TWO_EPSILONS,
    "epsilon": _TWO_EPSILONS,
    "beta_2": _DECAY_OF_MOMENTS,
    "beta2": _DECAY_OF_MOMENTS,
    "betas": f"the first is beta_1; of the second, {_DECAY_OF_MOMENTS}",
    "weight_decay_rate": 'optax\' is weight_decay with weight_decay_on="none"',
    "unscaled_wd": 'it is weight_decay_on="none"',
    "stochastic_rounding": 'it is rounding="stochastic"',
    "bf16_stochastic_round": 'it is rounding="stochastic"',
    "decay": "a rate that falls is a schedule of adafactor.schedules",
    "foreach": _ALWAYS_FUSED,
    "fused": _ALWAYS_FUSED,
    "jit_compile": _ALWAYS_FUSED,
    "capturable": _ALWAYS_FUSED,
    "differentiable": _NONE,
    "amsgrad": _NONE,
    "ams_bound": _NONE,
    "nesterov": _NONE,
    "caution": _NONE,
    "cautious": _NONE,
    "fixed_decay": 'weight_decay_on says what the decay is multiplied by, "none" for itself alone',
    "weight_decouple": "weight_decay is always decoupled",
}


def refuse_unknown(names: Iterable[str], known: list[str], what: str) -> None:
    """Raise a TypeError for the first name that is not known, with what to write in its place."""
    for name in names:
        if name not in known:
            raise TypeError(f"unknown {what} {name!r}; {_hint(name, known)}")


def _hint(name: str, known: list[str]) -> str:
    if name in IN_WORDS:
        return IN_WORDS[name]
    near = [ELSEWHERE[name]] if ELSEWHERE.get(name) in known else []
    near = near or difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else "help(adafactor.Config) lists the knobs"
