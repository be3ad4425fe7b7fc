"""The config that does what T5X' Adafactor does, from its own arguments."""

from __future__ import annotations

from typing import Any

from adafactor.config import Config
from adafactor.knobs.numbers import is_bool, real_number
from adafactor.presets.arguments import (
    beta_2_decay_of,
    config_of,
    flag,
    momentum_knobs,
    rate_by_count,
    refuse,
)

__all__ = ["t5x"]

_NAMES = {
    "scale_parameter": "multiply_by_parameter_scale",
    "beta_1": "beta1",
    "clip_threshold": "clipping_threshold",
    "weight_decay": "weight_decay_rate",
    "epsilon_1": "epsilon1",
    "epsilon_2": "epsilon2",
    "momentum_dtype": "dtype_momentum",
    "global_clipnorm": "global_norm_clip_threshold",
}


def t5x(
    learning_rate: Any = None,
    factored: bool = True,
    multiply_by_parameter_scale: bool = True,
    beta1: float | None = None,
    decay_rate: float = 0.8,
    step_offset: int = 0,
    clipping_threshold: float | None = 1.0,
    weight_decay_rate: float | None = None,
    min_dim_size_to_factor: int = 128,
    epsilon1: float = 1e-30,
    epsilon2: float = 1e-3,
    dtype_momentum: Any = "float32",
    factor_map: Any = None,
    logical_factor_rules: Any = None,
    weight_decay_rate_lr_exponent: float | None = None,
    global_norm_clip_threshold: float | None = None,
    max_parameter_scale: float | None = None,
    skip_nan_updates: bool = False,
    **knobs: Any,
) -> Config:
    """Return the config that does what `t5x.adafactor.Adafactor` does.

    The arguments are T5X' own, under its names and with its defaults. Matrices are factored along their two
    axes, where both have `min_dim_size_to_factor`. Of more axes T5X wants a rule for each leaf; here the two
    longest are factored and the others are slices, whose scale and clipping are the whole leaf's. Of momentum
    in bfloat16 T5X rounds a product too, here the average alone is rounded, as it is stored.

    Args:
        learning_rate: a number, or a function of the number of calls before; T5X' trainer brings it with each
            call, and here it is needed.
        factored: as in T5X.
        multiply_by_parameter_scale: True or False; a knob of single leaves is an override of
            `scale_parameter`.
        beta1: as in T5X.
        decay_rate: as in T5X, without a sign; at least 0.
        step_offset: as in T5X.
        clipping_threshold: as in T5X.
        weight_decay_rate: as in T5X.
        min_dim_size_to_factor: as in T5X.
        epsilon1: as in T5X: added to the squared gradient.
        epsilon2: as in T5X: the floor of the scale.
        dtype_momentum: float32 or bfloat16, by name or as JAX or NumPy have it.
        factor_map: None; which axes are factored is the knob `factored`, for all leaves or for some.
        logical_factor_rules: None, as `factor_map`.
        weight_decay_rate_lr_exponent: as in T5X: None and 0 for a decay of itself alone, or 1, which
            multiplies it by the rate; then a decay of None or 0 is 1.
        global_norm_clip_threshold: as in T5X; None and 0 are off.
        max_parameter_scale: as in T5X.
        skip_nan_updates: False; it keeps single elements. `on_nonfinite="skip"` leaves a whole call undone.
        **knobs: knobs of `Config` that T5X lacks, such as `on_nonfinite`.

    Returns:
        A `Config`, for `adafactor.init`.

    Raises:
        TypeError, ValueError: as `Config`, under T5X' names; maps of rules, other exponents, and no rate.

    Source: `t5x/adafactor.py` of github.com/google-research/t5x at 0eb60a6.

    >>> from adafactor import presets
    >>> presets.t5x(0.1, weight_decay_rate=0.01).weight_decay_on
    'none'
    """
    if learning_rate is None:
        raise ValueError("learning_rate: None, expected a number or a function of the number of calls before")
    for name, rules in (("factor_map", factor_map), ("logical_factor_rules", logical_factor_rules)):
        if rules is not None:
            refuse(name, rules, "which axes are factored is the knob `factored`, also in overrides")
    if not is_bool(multiply_by_parameter_scale):  # T5X has maps of them, by the names of leaves
        why = "a knob of single leaves is the key scale_parameter of overrides"
        refuse("multiply_by_parameter_scale", multiply_by_parameter_scale, why)
    if skip_nan_updates is not None and flag("skip_nan_updates", skip_nan_updates):
        refuse("skip_nan_updates", True, 'on_nonfinite="skip" leaves a call with NaN undone as a whole')
    exponent = weight_decay_rate_lr_exponent or None
    if exponent not in (None, 1):
        why = "the decay is multiplied by the rate, which is 1, or by nothing, which is None"
        refuse("weight_decay_rate_lr_exponent", exponent, why)
    if exponent:
        weight_decay_rate = weight_decay_rate or 1.0
    set_by_it = {
        "learning_rate": rate_by_count("learning_rate", learning_rate),
        "relative_step": False,
        "beta_2_decay": beta_2_decay_of("decay_rate", decay_rate),
        "step_offset": step_offset,
        "epsilon_1": real_number("epsilon1", epsilon1),
        "epsilon_2": epsilon2,
        "scale_parameter": bool(multiply_by_parameter_scale),
        "max_parameter_scale": max_parameter_scale,
        "clip_threshold": clipping_threshold,
        **momentum_knobs(beta1, "dtype_momentum", dtype_momentum, momentum_use="exact"),
        "factored": "largest_two" if flag("factored", factored) else False,
        "min_dim_size_to_factor": min_dim_size_to_factor,
        "weight_decay": weight_decay_rate,
        "weight_decay_on": "learning_rate" if exponent else "none",
        "weight_decay_first": False,
        "global_clipnorm": global_norm_clip_threshold or None,
    }
    return config_of(set_by_it, knobs, _NAMES)
