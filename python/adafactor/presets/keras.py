"""The config that does what `keras.optimizers.Adafactor` does, from its own arguments."""

from __future__ import annotations

from typing import Any

from adafactor.config import Config
from adafactor.knobs.hints import refuse_unknown
from adafactor.knobs.numbers import real_number

__all__ = ["keras"]


def keras(
    learning_rate: Any = 0.001,
    beta_2_decay: float = -0.8,
    epsilon_1: float = 1e-30,
    epsilon_2: float = 0.001,
    clip_threshold: float | None = 1.0,
    relative_step: bool = True,
    weight_decay: float | None = None,
    clipnorm: float | None = None,
    clipvalue: float | None = None,
    global_clipnorm: float | None = None,
    use_ema: bool = False,
    ema_momentum: float = 0.99,
    ema_overwrite_frequency: int | None = None,
    loss_scale_factor: float | None = None,
    gradient_accumulation_steps: int | None = None,
    name: str | None = "adafactor",
    **knobs: Any,
) -> Config:
    """Return the config that does what the code of `keras.optimizers.Adafactor` 3.15.1 does.

    The arguments are Keras' own, under its names and with its defaults; the learning rate may be a number,
    one of `adafactor.schedules`, or a callable without arguments. Where Keras' code and its documentation
    part, this follows the code: the cap of the learning rate at 1/sqrt(t) applies whatever `relative_step`
    says, and the moving average moves on every call, an accumulating one too. Limits of Keras that are not
    reproduced: its full-size velocity, NaN for zero rows and columns, and statistics in 16 bits.

    Args:
        learning_rate: as in Keras.
        beta_2_decay: as in Keras.
        epsilon_1: as in Keras.
        epsilon_2: as in Keras.
        clip_threshold: as in Keras; None is off.
        relative_step: True or False; without effect, as in Keras.
        weight_decay: as in Keras.
        clipnorm: as in Keras; 0 and below is off.
        clipvalue: as in Keras; 0 and below is off.
        global_clipnorm: as in Keras; 0 and below is off.
        use_ema: as in Keras.
        ema_momentum: as in Keras.
        ema_overwrite_frequency: as in Keras.
        loss_scale_factor: as in Keras.
        gradient_accumulation_steps: as in Keras.
        name: Keras' name of the optimizer; without effect.
        **knobs: knobs of `Config` that Keras lacks, such as `on_nonfinite`.

    Returns:
        A `Config`, for `adafactor.init`.

    Raises:
        TypeError, ValueError: as `Config`; the knobs that reproduce Keras' code cannot be given.

    Source: `keras.optimizers.Adafactor` and its base class, Keras 3.15.1.

    >>> from adafactor import presets
    >>> presets.keras(learning_rate=0.01).relative_step
    'always'
    """
    if not isinstance(relative_step, bool):
        raise TypeError(f"relative_step: {relative_step!r}, expected True or False")
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name: {name!r}, expected a string")
    refuse_unknown(knobs, sorted(set(Config().to_dict()) - {"ema_on"}), "argument")
    clips: dict[str, Any] = {"clipnorm": clipnorm, "clipvalue": clipvalue, "global_clipnorm": global_clipnorm}
    given = [clip for clip, value in clips.items() if value is not None]
    # Of two that are given Config complains, as Keras does, whatever their values are.
    if len(given) == 1 and real_number(given[0], clips[given[0]]) <= 0:
        del clips[given[0]]
    return Config(
        learning_rate=learning_rate,
        relative_step="always",
        beta_2_decay=beta_2_decay,
        epsilon_1=epsilon_1,
        epsilon_2=epsilon_2,
        clip_threshold=clip_threshold,
        weight_decay=weight_decay,
        use_ema=use_ema,
        ema_momentum=ema_momentum,
        ema_overwrite_frequency=ema_overwrite_frequency,
        ema_on="call",
        loss_scale_factor=loss_scale_factor,
        gradient_accumulation_steps=gradient_accumulation_steps,
        **clips,
        **knobs,
    )
