"""What a knob may be, by the annotation of its field: a value is brought to that kind or refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_args

from adafactor import _core
from adafactor.knobs.numbers import exact_whole_number, is_bool, real_number, shown
from adafactor.knobs.patterns import check_pattern
from adafactor.knobs.rates import LearningRate, rate_of

__all__ = ["of_kind"]


def of_kind(kind: Any, name: str, value: Any) -> Any:
    """The value of a knob brought to the kind that its annotation names; what the core checks is left to it.

    Args:
        kind: the annotation of the field, evaluated.
        name: of the knob.
        value: what the user gave.

    Raises:
        TypeError: the value is of another kind.
        ValueError: a number that no float64 holds.
    """
    if kind == LearningRate:
        return rate_of(value)
    if kind == tuple[str, ...]:
        return _patterns(name, value)
    kinds = set(get_args(kind) or [kind])
    if value is None and type(None) in kinds:
        return None
    checks = [_CHECKS.get(each) for each in kinds - {type(None)}]
    return checks[0](name, value) if len(checks) == 1 and checks[0] else _word(name, value)


def _truth(name: str, value: Any) -> bool:
    if not is_bool(value):
        raise TypeError(f"{name}: {shown(value)}, expected True or False")
    return bool(value)


def _word(name: str, value: Any) -> str | bool:
    """One of some words, and perhaps of True and False; the core knows which."""
    if is_bool(value):
        return bool(value)
    if not isinstance(value, str):
        words = _core.knobs()[name][1] or ()
        raise TypeError(f"{name}: {shown(value)}, expected one of {', '.join(map(repr, words))}")
    return str(value)


def _patterns(name: str, value: Any) -> tuple[str, ...]:
    patterns = (value,) if isinstance(value, str) else value
    if not isinstance(patterns, Iterable) or isinstance(patterns, Mapping):
        raise TypeError(f"{name}: {shown(value)}, expected regular expressions")
    patterns = tuple(patterns)
    for pattern in patterns:
        check_pattern(name, pattern)
    return patterns


_CHECKS: dict[type, Callable[[str, Any], Any]] = {
    float: real_number,
    int: exact_whole_number,
    bool: _truth,
}
