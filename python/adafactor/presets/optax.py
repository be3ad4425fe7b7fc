"""The config that does what `optax.adafactor` does, from its own arguments."""

from __future__ import annotations

from typing import Any

from adafactor.config import Config
from adafactor.knobs.numbers import real_number
from adafactor.presets.arguments import (
    beta_2_decay_of,
    config_of,
    flag,
    momentum_knobs,
    rate_by_count,
    refuse,
)

__all__ = ["optax"]

_NAMES = {
    "step_offset": "decay_offset",
    "scale_parameter": "multiply_by_parameter_scale",
    "clip_threshold": "clipping_threshold",
    "beta_1": "momentum",
    "momentum_dtype": "dtype_momentum",
    "weight_decay": "weight_decay_rate",
    "epsilon_1": "eps",
}


def optax(
    learning_rate: Any = None,
    min_dim_size_to_factor: int = 128,
    decay_rate: float = 0.8,
    decay_offset: int = 0,
    multiply_by_parameter_scale: bool = True,
    clipping_threshold: float | None = 1.0,
    momentum: float | None = None,
    dtype_momentum: Any = "float32",
    weight_decay_rate: float | None = None,
    eps: float = 1e-30,
    factored: bool = True,
    weight_decay_mask: Any = None,
    **knobs: Any,
) -> Config:
    """Return the config that does what `optax.adafactor` 0.2.8 does.

    The arguments are optax' own, under its names and with its defaults. A leaf is factored along its two
    longest axes, where both have `min_dim_size_to_factor`; weight decay is not multiplied by the rate. With
    `decay_offset` above 0 optax gives NaN from the first step on, unless its count begins there; here t stays
    at 1 until the offset is passed. Of momentum in bfloat16 optax rounds a product too, here the average
    alone is rounded, as it is stored.

    Args:
        learning_rate: as in optax: a number, a function of the number of calls before, or None, which is 1.
        min_dim_size_to_factor: as in optax.
        decay_rate: as in optax, without a sign; at least 0.
        decay_offset: as in optax.
        multiply_by_parameter_scale: as in optax.
        clipping_threshold: as in optax.
        momentum: as in optax.
        dtype_momentum: float32 or bfloat16, by name or as JAX or NumPy have it; None is float32.
        weight_decay_rate: as in optax; a number.
        eps: as in optax.
        factored: as in optax.
        weight_decay_mask: None, unless nothing decays; `exclude_from_weight_decay` takes regular expressions.
        **knobs: knobs of `Config` that optax lacks, such as `on_nonfinite`.

    Returns:
        A `Config`, for `adafactor.init`.

    Raises:
        TypeError, ValueError: as `Config`, under optax' names; a mask, and a schedule of the decay.

    Source: `optax.adafactor`, optax 0.2.8.

    >>> from adafactor import presets
    >>> config = presets.optax(lambda count: 0.1 / (count + 1), momentum=0.9)
    >>> config.learning_rate(4), config.beta_1
    (0.02, 0.9)
    """
    if weight_decay_mask is not None and weight_decay_rate is not None:
        refuse("weight_decay_mask", weight_decay_mask, "exclude_from_weight_decay takes the paths of leaves")
    if callable(weight_decay_rate):
        why = 'give a number; .replace(weight_decay_on="learning_rate") lets it follow the rate'
        refuse("weight_decay_rate", weight_decay_rate, why)
    stored_as = "float32" if dtype_momentum is None else dtype_momentum
    set_by_it = {
        "learning_rate": 1.0 if learning_rate is None else rate_by_count("learning_rate", learning_rate),
        "relative_step": False,
        "beta_2_decay": beta_2_decay_of("decay_rate", decay_rate),
        "step_offset": decay_offset,
        "epsilon_1": real_number("eps", eps),
        "scale_parameter": multiply_by_parameter_scale,
        "clip_threshold": clipping_threshold,
        **momentum_knobs(momentum, "dtype_momentum", stored_as, momentum_use="exact"),
        "factored": "largest_two" if flag("factored", factored) else False,
        "min_dim_size_to_factor": min_dim_size_to_factor,
        "weight_decay": weight_decay_rate,
        "weight_decay_on": "none",
        "weight_decay_first": False,
    }
    return config_of(set_by_it, knobs, _NAMES)
