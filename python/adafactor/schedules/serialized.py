"""Schedules in dictionaries, as Keras writes and reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adafactor import schedules

__all__ = ["from_dict", "is_made_by_keras", "is_of_keras", "to_dict"]


def is_of_keras(rate: Any) -> bool:
    """Whether it is one of the schedules that Keras has too."""
    return type(rate) in _known().values() and type(rate) is not schedules.LearningRateSchedule


def is_made_by_keras(rate: Any) -> bool:
    """Whether it is a schedule out of Keras itself, of a class that is here too."""
    cls = type(rate)
    return cls.__module__.partition(".")[0] in ("keras", "tf_keras") and cls.__name__ in _known()


def to_dict(rate: Any) -> dict[str, Any]:
    """A schedule or a function as Keras serializes it: its class by name, and its arguments.

    Raises:
        TypeError: a callable that no name leads back to.
    """
    if not isinstance(rate, schedules.LearningRateSchedule):
        name = getattr(rate, "__name__", "<lambda>")
        if name == "<lambda>":
            raise TypeError(f"learning_rate: {rate!r} cannot be written into a dictionary")
        kind = type(rate).__name__
        return {"module": "builtins", "class_name": kind, "config": name, "registered_name": kind}
    name = type(rate).__name__
    known = is_of_keras(rate)
    return {
        "module": "keras.optimizers.schedules" if known else None,
        "class_name": name,
        "config": rate.get_config(),
        "registered_name": None if known else name,
    }


def from_dict(kept: Mapping[str, Any], custom_objects: Mapping[str, Any]) -> Any:
    """The learning rate that `to_dict`, or Keras, wrote.

    Args:
        kept: what was written; of its items only `class_name` and `config` count.
        custom_objects: classes and functions of the user's own by the name that they were written under.

    Raises:
        ValueError: the name is of no schedule and not among the custom objects.
    """
    name, config = kept.get("class_name"), kept.get("config", {})
    if isinstance(config, str):
        if config in custom_objects:
            return custom_objects[config]
        raise ValueError(f"learning_rate: the function {config!r}, expected one of custom_objects")
    known = _known() | dict(custom_objects)
    if name not in known:
        raise ValueError(f"learning_rate: class_name {name!r}, expected one of {list(known)}")
    return known[name].from_config(config)


def _known() -> dict[str, Any]:
    return {name: getattr(schedules, name) for name in schedules.__all__}
