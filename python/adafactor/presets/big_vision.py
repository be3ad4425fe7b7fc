"""The config that does what Big Vision's trainer does with its Adafactor, from its own arguments."""

from __future__ import annotations

from typing import Any

from adafactor.config import Config
from adafactor.knobs.numbers import real_number, shown
from adafactor.presets.arguments import (
    beta_2_decay_of,
    config_of,
    momentum_knobs,
    rate_by_count,
)

__all__ = ["big_vision"]

_NAMES = {
    "learning_rate": "lr",
    "step_offset": "decay_offset",
    "beta_2_cap": "beta2_cap",
    "clip_threshold": "clipping_threshold",
    "beta_1": "momentum",
    "momentum_dtype": "dtype_momentum",
    "epsilon_1": "eps",
    "weight_decay": "wd",
    "global_clipnorm": "grad_clip_norm",
}


def big_vision(
    lr: float,
    wd: float | None = None,
    schedule: Any = None,
    grad_clip_norm: float | None = None,
    *,
    min_dim_size_to_factor: int = 32,
    decay_rate: float = 0.8,
    decay_offset: int = 0,
    beta2_cap: float = 0.999,
    clipping_threshold: float | None = None,
    momentum: float | None = 0.9,
    dtype_momentum: Any = "bfloat16",
    eps: float = 1e-30,
    **knobs: Any,
) -> Config:
    """Return the config that does what Big Vision does with `optax_name="big_vision.scale_by_adafactor"`.

    The first four arguments are of its configuration file, where `schedule` is what the trainer makes its
    function of; the others are what is under `optax` there, with their names and defaults. The decay is
    multiplied by the schedule but not by `lr`. Big Vision decays leaves whose path ends in `/kernel` alone,
    if nothing else is said: give `exclude_from_weight_decay=[r"^(?!.*/kernel$)"]` for the same. Of momentum
    in bfloat16 it rounds a product too, here the average alone is rounded, as it is stored.

    Args:
        lr: as in `config.lr`: a number above 0.
        wd: as in `config.wd`; None and 0 are off.
        schedule: what the rate and the decay are multiplied by: None, or a function of the number of calls
            before. The trainer makes it of `config.schedule`.
        grad_clip_norm: as in `config.grad_clip_norm`; None and 0 are off.
        min_dim_size_to_factor: as in Big Vision.
        decay_rate: as in Big Vision, without a sign; at least 0.
        decay_offset: as in Big Vision.
        beta2_cap: as in Big Vision.
        clipping_threshold: as in Big Vision; None and 0 are off.
        momentum: as in Big Vision; None and 0 are off.
        dtype_momentum: float32 or bfloat16, by name or as JAX or NumPy have it.
        eps: as in Big Vision.
        **knobs: knobs of `Config` that Big Vision lacks, such as `on_nonfinite`.

    Returns:
        A `Config`, for `adafactor.init`.

    Raises:
        TypeError, ValueError: as `Config`, under Big Vision's names.

    Source: `big_vision.optax` of github.com/google-research/big_vision at 11eea57.

    >>> from adafactor import presets
    >>> config = presets.big_vision(lr=0.1, wd=0.001, schedule=lambda count: 1 / (count + 1))
    >>> config.learning_rate(3), config.weight_decay * config.learning_rate(3)
    (0.025, 0.00025)
    """
    rate = real_number("lr", lr)
    if not rate > 0:
        raise ValueError(f"lr: {lr}, expected a number > 0")
    if schedule is not None and not callable(schedule):
        expected = "None or a function of the number of calls before, which the trainer makes of it"
        raise ValueError(f"schedule: {shown(schedule)}, expected {expected}")
    decay = real_number("wd", wd) if wd else 0.0
    if decay < 0:
        raise ValueError(f"wd: {wd}, expected >= 0")
    set_by_it = {
        "learning_rate": rate if schedule is None else rate_by_count("schedule", schedule, rate),
        "relative_step": False,
        "beta_2_decay": beta_2_decay_of("decay_rate", decay_rate),
        "beta_2_cap": real_number("beta2_cap", beta2_cap),
        "step_offset": decay_offset,
        "epsilon_1": real_number("eps", eps),
        "scale_parameter": False,
        "clip_threshold": clipping_threshold or None,
        **momentum_knobs(
            momentum or None, "dtype_momentum", dtype_momentum, momentum_on="update", momentum_use="exact"
        ),
        "factored": "largest_two",
        "min_dim_size_to_factor": min_dim_size_to_factor,
        # Of the schedule alone: what a call's rate is divided by is here.
        "weight_decay": decay / rate,
        "weight_decay_on": "learning_rate",
        "global_clipnorm": grad_clip_norm or None,
    }
    return config_of(set_by_it, knobs, _NAMES)
