"""Config: every knob of the optimizer, checked once and then immutable."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any, Literal, Self, get_type_hints

from adafactor import _core
from adafactor.errors import phrase
from adafactor.knobs.hints import refuse_unknown
from adafactor.knobs.kinds import of_kind
from adafactor.knobs.rates import LearningRate
from adafactor.schedules import serialized

__all__ = ["Config"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Every knob of Adafactor. Frozen and hashable; `replace` makes a changed copy.

    The defaults are those that the documentation of `keras.optimizers.Adafactor` states. Numbers may be
    anything with `__float__` (a NumPy scalar, a Fraction) but not a bool or a string.

    Args:
        learning_rate: at least 0; a number, a `LearningRateSchedule`, or a callable without arguments, which
            is evaluated once a call. Default: 0.001.
        relative_step: True caps a learning rate that is a number at 1/sqrt(t); False never caps; "always"
            caps schedules too, as the code of Keras and torch does. Default: True.
        warmup_init: the learning rate is 1e-6 * t instead. Needs `relative_step`. Default: False.
        beta_2_decay: at most 0. beta2 = 1 - t**beta_2_decay. Default: -0.8.
        beta_2_cap: in [0, 1]. beta2 is at most this. None: no cap. Default: None.
        step_offset: at least 0. In beta2, and only there, t is counted from here and never below 1. Default:
            0.
        count_updates: "state": t counts the updates of the state (Keras, optax); "leaf": those of each leaf
            (torch, transformers, timm). Default: "state".
        epsilon_1: at least 0. Regularises the squared gradient. None: `finfo(dtype of the leaf).eps`.
            Default: 1e-30.
        epsilon_1_mode: "add": added to g**2; "clamp": a floor of the estimate, twice, as torch does it.
            Default: "add".
        epsilon_2: at least 0. Floor of the parameter's scale. Default: 0.001.
        scale_parameter: the step is multiplied by max(epsilon_2, rms(p)). Default: True.
        max_parameter_scale: above 0 and at least `epsilon_2`. Ceiling of the parameter's scale. None: none.
            Default: None.
        clip_threshold: above 0. The update u is divided by max(1, rms(u) / clip_threshold). None: not
            clipped. Default: 1.0.
        beta_1: in [0, 1). Momentum; costs a buffer as large as the parameter. None: no momentum. Default:
            None.
        momentum_dtype: "float32" (float64 for a float64 leaf) or "bfloat16", how that buffer is stored.
            Default: "float32".
        momentum_on: "scaled": average of alpha * u; "update": average of u. Default: "scaled".
        momentum_use: "stored": the step uses the momentum as it was stored; "exact": before rounding.
            Default: "stored".
        factored: which two axes are factored: "last_two", "largest_two", "leading_two_or_last_two", or False
            for none. Default: "last_two".
        min_dim_size_to_factor: at least 0. Both factored axes must be at least this long. Default: 0.
        maximize: ascend instead of descend. Default: False.
        weight_decay: at least 0. Decoupled decay. None: none. Default: None.
        weight_decay_on: "learning_rate": p shrinks by weight_decay * learning_rate * p; "step": by
            weight_decay * step size * p; "none": by weight_decay * p. Default: "learning_rate".
        weight_decay_first: whether rms(p) is that of the decayed p. None: True, but False with
            `weight_decay_on="step"`, where True is not possible. Default: None.
        exclude_from_weight_decay: regular expressions; a leaf whose path one of them finds (`re.search`)
            does not decay. Default: ().
        clipnorm: above 0. Largest norm of the gradient of one leaf. Default: None.
        global_clipnorm: above 0. Largest norm of all gradients together. Default: None.
        clipvalue: above 0. Largest absolute value in a gradient. At most one of the three. Default: None.
        use_ema: keep a moving average of the parameters in the state. Default: False.
        ema_momentum: in [0, 1]. Decay of that average. Default: 0.99.
        ema_overwrite_frequency: at least 1. Every so many updates the average replaces the parameters. None:
            never. Default: None.
        ema_on: "update": the average moves on updates; "call": on every call, also an accumulating one, as
            Keras' code does. Default: "update".
        loss_scale_factor: above 0. Gradients are divided by it. None: 1. Default: None.
        gradient_accumulation_steps: at least 2. That many calls are averaged into one update. None: every
            call is one. Default: None.
        on_nonfinite: what NaN or Inf in a gradient does, or in a parameter: "raise" (nothing is changed),
            "skip" (nothing is changed and the report says so), "propagate" (it goes through, as in other
            optimizers). Default: "raise".
        rounding: of parameters stored in 16 bits: "nearest" (ties to even) loses an update that is smaller
            than half a unit of its parameter; "stochastic" rounds up as often as the rest is of a unit, so
            that such updates add up. Default: "nearest".
        seed: at least 0. Of stochastic rounding: the noise is a function of the seed, the leaf's path, its
            update and the element alone. Default: 0.

    Raises:
        TypeError: an unknown knob (the message names the nearest one) or a value of the wrong kind.
        ValueError: a value out of its range, or two knobs that contradict each other.

    Source: Shazeer and Stern 2018, arXiv:1804.04235; `keras.optimizers.Adafactor` 3.15.1.

    >>> config = Config(learning_rate=0.01, weight_decay=0.004)
    >>> config.replace(clip_threshold=None).clip_threshold is None
    True
    """

    learning_rate: LearningRate = 0.001
    relative_step: bool | Literal["always"] = True
    warmup_init: bool = False
    beta_2_decay: float = -0.8
    beta_2_cap: float | None = None
    step_offset: int = 0
    count_updates: Literal["state", "leaf"] = "state"
    epsilon_1: float | None = 1e-30
    epsilon_1_mode: Literal["add", "clamp"] = "add"
    epsilon_2: float = 1e-3
    scale_parameter: bool = True
    max_parameter_scale: float | None = None
    clip_threshold: float | None = 1.0
    beta_1: float | None = None
    momentum_dtype: Literal["float32", "bfloat16"] = "float32"
    momentum_on: Literal["scaled", "update"] = "scaled"
    momentum_use: Literal["stored", "exact"] = "stored"
    factored: Literal["last_two", "largest_two", "leading_two_or_last_two", False] = "last_two"
    min_dim_size_to_factor: int = 0
    maximize: bool = False
    weight_decay: float | None = None
    weight_decay_on: Literal["learning_rate", "step", "none"] = "learning_rate"
    weight_decay_first: bool | None = None
    exclude_from_weight_decay: tuple[str, ...] = ()
    clipnorm: float | None = None
    global_clipnorm: float | None = None
    clipvalue: float | None = None
    use_ema: bool = False
    ema_momentum: float = 0.99
    ema_overwrite_frequency: int | None = None
    ema_on: Literal["update", "call"] = "update"
    loss_scale_factor: float | None = None
    gradient_accumulation_steps: int | None = None
    on_nonfinite: Literal["raise", "skip", "propagate"] = "raise"
    rounding: Literal["nearest", "stochastic"] = "nearest"
    seed: int = 0

    def __new__(cls, **knobs: Any) -> Self:
        """Refuse an unknown knob with the name of the nearest one."""
        refuse_unknown(knobs, list(_KINDS), "knob")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        """Bring every value to its kind, and have the core check ranges and contradictions."""
        self._set({name: getattr(self, name) for name in _KINDS})

    def _set(self, knobs: Mapping[str, Any]) -> None:
        for name, value in knobs.items():
            object.__setattr__(self, name, of_kind(_KINDS[name], name, value))
        try:
            _core.check_config(core_knobs(self))
        except _core.Error as error:
            raise phrase(error) from None

    def replace(self, **knobs: Any) -> Config:
        """Return a copy with some knobs (those of `Config`, by name) changed; raises as the constructor does.

        >>> Config().replace(learning_rate=0.5).learning_rate
        0.5
        """
        refuse_unknown(knobs, list(_KINDS), "knob")
        changed = copy.copy(self)
        changed._set(knobs)  # the others are checked already
        return changed

    def to_dict(self) -> dict[str, Any]:
        """Return all knobs as values that JSON can write; `from_dict` takes them back.

        A schedule becomes `{"class_name": ..., "config": ...}`, as Keras writes it.

        Raises:
            TypeError: `learning_rate` is a callable that is not a schedule, or a schedule of a class of
                your own, which no dictionary can hold.

        >>> Config().to_dict()["beta_2_decay"]
        -0.8
        """
        knobs = {name: getattr(self, name) for name in _KINDS}
        knobs["exclude_from_weight_decay"] = list(self.exclude_from_weight_decay)
        rate = self.learning_rate
        if callable(rate):
            if not serialized.is_of_keras(rate):
                raise TypeError(f"learning_rate: {rate!r} cannot be written into a dictionary")
            written = serialized.to_dict(rate)
            knobs["learning_rate"] = {name: written[name] for name in ("class_name", "config")}
        return knobs

    @classmethod
    def from_dict(cls, knobs: Mapping[str, Any]) -> Self:
        """Build a config from what `to_dict` returned; knobs that are absent get their defaults.

        Raises:
            TypeError: a name that is no knob, or a value of the wrong kind.
            ValueError: a value out of its range, or a schedule that is none of `adafactor.schedules`.

        >>> Config.from_dict({"learning_rate": 0.1}) == Config(learning_rate=0.1)
        True
        """
        values = dict(knobs)
        if isinstance(values.get("learning_rate"), Mapping):
            values["learning_rate"] = serialized.from_dict(values["learning_rate"], {})
        return cls(**values)


def core_knobs(config: Config) -> dict[str, Any]:
    """The knobs that the core knows; a rate that changes from call to call is handed over with each."""
    knobs = {name: getattr(config, name) for name in _KINDS}
    del knobs["exclude_from_weight_decay"]
    if callable(config.learning_rate):
        knobs["learning_rate"] = 0.0
    return knobs


# What each knob is, as its annotation says.
_KINDS = get_type_hints(Config)

# `help` and editors would show the signature of __new__, which takes any name, so as to refuse it in words.
_SIGNATURE = inspect.signature(Config.__init__)
Config.__signature__ = _SIGNATURE.replace(  # type: ignore[attr-defined]
    parameters=list(_SIGNATURE.parameters.values())[1:]
)
