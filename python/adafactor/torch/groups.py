"""The values of a parameter group: what torch calls them, and the config that they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from adafactor import _core, presets
from adafactor.config import Config
from adafactor.knobs.numbers import shown

__all__ = [
    "Key",
    "check_rate",
    "config_of_group",
    "configs_of",
    "dialect_of_torch",
    "group_of_config",
    "key_of",
    "rates_of",
    "refuse_misnamed",
    "require_alone",
]

Key = tuple[Any, ...]
"""What a group says of its knobs, the rate aside: groups with equal keys have the same config."""

NOT_OFFERED = {
    "gradient_accumulation_steps": "call backward() several times before step(), as torch does it",
    "loss_scale_factor": "torch.amp.GradScaler scales the loss",
}

# What torch has names of its own for; `eps` is a pair.
_RENAMED = {"beta_2_decay": "beta2_decay", "clip_threshold": "d"}
_PAIR = ("epsilon_1", "epsilon_2")
_PLAIN = tuple(
    field.name
    for field in dataclasses.fields(Config)
    if field.name not in {"learning_rate", *_RENAMED, *_PAIR, *NOT_OFFERED}
)
_OF_KNOB = {"learning_rate": "lr"} | {name: _RENAMED.get(name, name) for name in (*_RENAMED, *_PLAIN)}
_IN_GROUP = ("eps", *_RENAMED.values(), *_PLAIN)
_WHOLE_CALL = tuple(name for name in _core.whole_call_knobs if name in _PLAIN)


def group_of_config(config: Config, lr: Any, foreach: bool | None) -> dict[str, Any]:
    """The values of a group with these knobs, as plain values; `lr` is its rate as the user gave it."""
    for name, instead in NOT_OFFERED.items():
        if getattr(config, name) is not None:
            raise ValueError(f"{name}: {getattr(config, name)} has no counterpart in torch; {instead}")
    group = {
        "lr": lr,
        "beta2_decay": config.beta_2_decay,
        "eps": (config.epsilon_1, config.epsilon_2),
        "d": config.clip_threshold,
        "weight_decay": config.weight_decay or 0.0,
        "foreach": foreach,
    }
    return group | {name: getattr(config, name) for name in _PLAIN if name not in group}


def key_of(group: Mapping[str, Any]) -> Key:
    """What the knobs of a group are now; numbers in tensors, which may change where they lie, are read."""
    key = tuple(map(group.get, _IN_GROUP))
    kinds = set(map(type, key)) | (set(map(type, key[0])) if type(key[0]) is tuple else set())
    if torch.Tensor in kinds or list in kinds:
        key = tuple(map(_as_plain, key))
    return key


def _as_plain(value: Any) -> Any:
    """A value that nobody changes where it lies."""
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return value.item()
    return tuple(map(_as_plain, value)) if isinstance(value, list | tuple) else value


def config_of_group(key: Key) -> Config:
    """The config that the values of a group say, without its rate.

    Raises:
        TypeError, ValueError: as `Config`, under the names that the values have in a group.
    """
    values = dict(zip(_IN_GROUP, key, strict=True))
    eps = values.pop("eps")
    if not isinstance(eps, Sequence) or isinstance(eps, str) or len(eps) != 2:
        raise TypeError(f"eps: {shown(eps)}, expected a pair")
    knobs: dict[str, Any] = dict(zip(_PAIR, eps, strict=True))
    knobs |= {knob: values[name] for knob, name in _OF_KNOB.items() if name in values}
    if knobs["clip_threshold"] == float("inf"):
        knobs["clip_threshold"] = None
    try:
        config = Config(**knobs)
    except (TypeError, ValueError) as error:
        raise type(error)(_in_names_of_torch(str(error))) from None
    if config.ema_overwrite_frequency and config.count_updates == "leaf":
        # Which update it is would be known from the counts of parameters alone, which may all stand still.
        raise ValueError(
            'ema_overwrite_frequency: needs count_updates="state"; torch\'s own rule counts by parameter'
        )
    return config


def _in_names_of_torch(message: str) -> str:
    knob, colon, problem = message.partition(":")
    names = {**_OF_KNOB, "epsilon_1": "eps[0]", "epsilon_2": "eps[1]"}
    return f"{names.get(knob, knob)}{colon}{problem}"


def configs_of(keys: Sequence[Key]) -> list[Config]:
    """The configs of groups whose parameters one call steps, without their rates.

    Raises:
        TypeError, ValueError: as `config_of_group`, with the number of the group where there are several.
        ValueError: they differ in what concerns the whole call.
    """
    configs = []
    for number, key in enumerate(keys):
        try:
            configs.append(config_of_group(key))
        except (TypeError, ValueError) as error:
            raise type(error)(_in_group(str(error), number, len(keys))) from None
    _require_one_call(configs)
    return configs


def rates_of(groups: Sequence[Mapping[str, Any]], default: Any) -> list[float]:
    """The rates of the groups in this call; None stands for the rate that the optimizer was made with."""
    rates = [float(default if group["lr"] is None else group["lr"]) for group in groups]
    for number, rate in enumerate(rates):
        if not 0 <= rate < float("inf"):
            problem = f"Learning rate should be >= 0 but is: {rate}"
            raise ValueError(_in_group(problem, number, len(rates)))
    return rates


def _in_group(problem: str, number: int, count: int) -> str:
    return f"param_groups[{number}]: {problem}" if count > 1 else problem


def require_alone(group: Mapping[str, Any]) -> None:
    """Raise ValueError where a parameter of a group cannot be stepped before the others."""
    if group["global_clipnorm"] is not None:
        raise ValueError("global_clipnorm: the norm of all gradients needs all at once; clipnorm does not")
    if group["count_updates"] != "leaf":
        raise ValueError(
            f"count_updates: {group['count_updates']!r} counts what the others do, too; a parameter that is "
            'stepped alone needs "leaf"'
        )


def refuse_misnamed(group: Mapping[str, Any]) -> None:
    """Raise TypeError for names of `Config` that a group does not have, or has under another name."""
    for name in ("learning_rate", *_PAIR, *_RENAMED, *NOT_OFFERED):
        if name in group:
            instead = "eps" if name in _PAIR else _OF_KNOB.get(name)
            hint = f"did you mean {instead!r}?" if instead else NOT_OFFERED[name]
            raise TypeError(f"{name}: no value of a group; {hint}")


def _require_one_call(configs: Sequence[Config]) -> None:
    """Raise ValueError where groups differ in what concerns the whole call."""
    for number, config in enumerate(configs):
        for name in _WHOLE_CALL:
            own, first = getattr(config, name), getattr(configs[0], name)
            if own != first:
                raise ValueError(
                    f"{name}: {own!r} in param_groups[{number}] and {first!r} in param_groups[0], expected "
                    "one value, since it concerns the whole call"
                )


def check_rate(lr: Any) -> None:
    """Raise what torch raises of a learning rate."""
    if lr is None:
        raise TypeError("lr: None, expected a number; None stands for that of a config")
    if isinstance(lr, torch.Tensor) and lr.numel() != 1:
        raise ValueError("Tensor lr must be 1-element")
    if not lr >= 0.0:
        raise ValueError(f"Learning rate should be >= 0 but is: {lr}")


def dialect_of_torch(
    lr: Any,
    beta2_decay: float,
    eps: tuple[float | None, float],
    d: float,
    weight_decay: float,
    maximize: bool,
    knobs: Mapping[str, Any],
) -> Config:
    """The config of torch's own arguments, which are refused in torch's own words."""
    check_rate(lr)
    if not beta2_decay <= 0.0:
        raise ValueError(f"beta2_decay should be <= 0 but is: {beta2_decay}")
    if eps[0] is not None and not eps[0] >= 0.0:
        raise ValueError(f"epsilon1 should be >= 0 but is: {eps[0]}")
    if not eps[1] >= 0.0:
        raise ValueError(f"epsilon2 should be >= 0 but is: {eps[1]}")
    if not d >= 1.0:
        raise ValueError(f"Clipping threshold d should be >= 1 but is: {d}")
    if not weight_decay >= 0.0:
        raise ValueError(f"weight_decay should be >= 0 but is: {weight_decay}")
    return presets.torch(lr, beta2_decay, eps, d, weight_decay, maximize=maximize, **knobs)
