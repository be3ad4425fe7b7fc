"""Numbers that a user gives, as Python's own; what is none is refused in words."""

from __future__ import annotations

import contextlib
import math
import operator
from typing import Any

__all__ = [
    "count",
    "exact_whole_number",
    "finite_number",
    "is_bool",
    "real_number",
    "shown",
    "whole_number",
]


def real_number(name: str, value: Any) -> float:
    """The value as a float; TypeError unless it is a real number and no bool, ValueError if too large."""
    # NumPy's bools, complex numbers, strings, times and objects, which `float` takes one way or another.
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    if (
        isinstance(value, bool | str | bytes | complex)
        or kind in tuple("bcSUmMO")
        or not (hasattr(value, "__float__") or hasattr(value, "__index__"))
        or getattr(value, "ndim", 0) != 0
    ):
        raise TypeError(f"{name}: {shown(value)}, expected a number")
    try:
        return float(value)
    except (OverflowError, ValueError):  # too large, or a decimal's signaling NaN
        raise ValueError(f"{name}: {shown(value)}, expected a finite number") from None
    except TypeError:
        raise TypeError(f"{name}: {shown(value)}, expected a number") from None


def is_bool(value: Any) -> bool:
    """Whether a value is a bool of Python or of NumPy."""
    return type(value).__name__ in ("bool", "bool_")


def whole_number(name: str, value: Any) -> int:
    """The value as an int; TypeError unless it is a whole number by its kind and no bool."""
    # Older versions of NumPy take their bool for an index.
    if not is_bool(value) and getattr(value, "ndim", 0) == 0:
        with contextlib.suppress(TypeError):
            return operator.index(value)
    raise TypeError(f"{name}: {shown(value)}, expected a whole number")


def exact_whole_number(name: str, value: Any) -> int:
    """A whole number of a size that a float64 holds exactly; ValueError beyond."""
    number = whole_number(name, value)
    if abs(number) > 2**53:
        raise ValueError(f"{name}: {shown(value)}, expected a whole number of at most 2**53")
    return number


def shown(value: Any) -> str:
    """A value in a message: its repr, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def count(name: str, value: Any) -> int:
    """A counter of that name: a whole number of at least 0; raises where the value is something else."""
    number = exact_whole_number(name, value)
    if number < 0:
        raise ValueError(f"{name}: {number}, expected a whole number >= 0")
    return number


def finite_number(name: str, value: Any) -> float:
    """The value as a float; TypeError unless it is a real number, ValueError unless it is finite."""
    number = real_number(name, value)
    if not math.isfinite(number):
        raise ValueError(f"{name}: {number}, expected a finite number")
    return number
