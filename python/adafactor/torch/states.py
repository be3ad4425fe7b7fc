"""The state of a parameter: tensors under torch's names, in the shapes that torch has for them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from adafactor.config import Config
from adafactor.knobs.numbers import shown

__all__ = [
    "KEYS",
    "MOST_UPDATES",
    "checked_entry",
    "fitted_entry",
    "fresh_entry",
    "refuse_others",
    "updates_of",
]

KEYS = {"row": "row_var", "col": "col_var", "full": "variance", "momentum": "exp_avg", "average": "average"}
"""torch's name for each kind of array of the core, where it has one."""

_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)

MOST_UPDATES = 2**24
"""torch keeps `step` as float32, which is exact up to here."""

_OTHERS = {
    "exp_avg_sq_row": "transformers, timm or pytorch_optimizer",
    "exp_avg_sq_col": "transformers, timm or pytorch_optimizer",
    "exp_avg_sq_r": "timm's adafactorbv",
    "exp_avg_sq_c": "timm's adafactorbv",
    "exp_avg_sq": "another optimizer, such as Adam or another library's Adafactor",
    "square_avg": "another optimizer, such as RMSprop",
    "sum": "another optimizer, such as Adagrad",
    "momentum_buffer": "another optimizer, such as SGD",
}


def fresh_entry(
    parameter: torch.Tensor, layout: Mapping[str, Any], config: Config, updates: int
) -> dict[str, Any]:
    """The state of a parameter before its first update, on its device.

    Args:
        parameter: of any shape.
        layout: what the core's plan says of it.
        config: its knobs.
        updates: the count that it begins with.
    """
    entry: dict[str, Any] = {"step": _count(updates)}
    for kind in layout["kinds"]:
        entry[KEYS[kind]] = _blank(parameter, _form_of(parameter, layout, kind, config))
    if "average" in entry:  # so that of one who comes late it does not begin at zero
        entry["average"].copy_(parameter.detach())
    return entry


def fitted_entry(
    entry: dict[str, Any], parameter: torch.Tensor, layout: Mapping[str, Any], config: Config, where: str
) -> None:
    """Put a state that somebody has changed into the form that the core steps, in the same dictionary.

    Tensors of another dtype or other strides are copied once; the others stay the same objects.

    Raises:
        ValueError: a tensor is missing, or has another shape; a count that is none.
    """
    _require_keys(entry, layout, where)
    step = entry["step"]
    if not (isinstance(step, torch.Tensor) and step.dtype == torch.float32 and step.device.type == "cpu"):
        entry["step"] = _count(updates_of(entry, where))
    for kind in layout["kinds"]:
        key = KEYS[kind]
        form, given = _form_of(parameter, layout, kind, config), entry[key]
        _require_shape(given, form, f"{where} {key}")
        same = given.dtype == form.dtype and given.device == parameter.device
        if not (same and _has_strides(given, form)):
            entry[key] = _blank(parameter, form).copy_(given)


def checked_entry(
    given: Mapping[str, Any], parameter: torch.Tensor, layout: Mapping[str, Any], config: Config, where: str
) -> dict[str, Any]:
    """The state of a parameter out of a state dict, copied: nothing of it is shared with what was given.

    Raises:
        ValueError: it is the state of another optimizer, or of a parameter of another shape or with other
            knobs; a moment that is negative or not finite; a count that is none.
    """
    _require_keys(given, layout, where)
    entry: dict[str, Any] = {"step": _count(updates_of(given, where))}
    for kind in layout["kinds"]:
        key = KEYS[kind]
        form, value = _form_of(parameter, layout, kind, config), given[key]
        _require_shape(value, form, f"{where} {key}")
        made = entry[key] = _blank(parameter, form).copy_(value.detach())
        if not bool(torch.isfinite(made).all()):
            raise ValueError(f"{where} {key}: NaN or Inf, expected finite numbers")
        if kind in ("row", "col", "full") and bool((made < 0).any()):
            raise ValueError(f"{where} {key}: a negative number, expected means of squares")
    return entry


def updates_of(entry: Mapping[str, Any], where: str) -> int:
    """The count in a state, which may be a tensor of one number, or a number; ValueError if it is none."""
    step = entry["step"]
    if isinstance(step, torch.Tensor) and step.numel() == 1 and step.device.type != "meta":
        step = step.item()
    if isinstance(step, bool) or not isinstance(step, int | float):
        raise ValueError(f"{where} step: {shown(step)}, expected a count of updates")
    if not (math.isfinite(step) and 0 <= step < MOST_UPDATES and step == int(step)):
        raise ValueError(f"{where} step: {step}, expected a whole number from 0 to 2**24 - 1")
    return int(step)


def _count(updates: int) -> torch.Tensor:
    """A count as torch keeps it, whatever the default device is."""
    return torch.tensor(float(updates), dtype=torch.float32, device="cpu")


class _Form(NamedTuple):
    """What a kind of array is in the state of a parameter."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype


def _form_of(parameter: torch.Tensor, layout: Mapping[str, Any], kind: str, config: Config) -> _Form:
    """The axes that an array of this kind lacks are 1 long.

    In memory it has the core's order: the axes that are not factored, then the rows, then the columns.
    """
    row, col = layout["row_axis"], layout["col_axis"]
    shape = list(parameter.shape)
    if kind == "row":
        shape[col] = 1
    elif kind == "col":
        shape[row] = 1
    dtype = torch.float64 if parameter.dtype == torch.float64 else torch.float32
    if kind == "momentum" and config.momentum_dtype == "bfloat16":
        dtype = torch.bfloat16
    order = [axis for axis in range(len(shape)) if axis not in (row, col)]
    order += [row, col] if layout["factored"] else []
    strides, stride = [1] * len(shape), 1
    for axis in reversed(order):
        strides[axis] = stride
        stride *= shape[axis]
    return _Form(tuple(shape), tuple(strides), dtype)


def _blank(parameter: torch.Tensor, form: _Form) -> torch.Tensor:
    """An array of zeros, on the device of the parameter."""
    made = torch.empty_strided(form.shape, form.strides, dtype=form.dtype, device=parameter.device)
    return made.zero_()


def _has_strides(tensor: torch.Tensor, form: _Form) -> bool:
    lengths = zip(form.shape, tensor.stride(), form.strides, strict=True)
    return all(length <= 1 or own == needed for length, own, needed in lengths)


def refuse_others(entry: Mapping[str, Any], where: str) -> None:
    """Raise ValueError for the state of another optimizer."""
    for key, library in _OTHERS.items():
        if key in entry:
            raise ValueError(
                f"{where}: {key}, which is the state of {library}; expected that of torch.optim.Adafactor."
                " Without its state the moments begin anew"
            )


def _require_keys(entry: Mapping[str, Any], layout: Mapping[str, Any], where: str) -> None:
    expected = {"step", *(KEYS[kind] for kind in layout["kinds"])}
    if entry.keys() == expected:
        return
    refuse_others(entry, where)
    missing, extra = expected - entry.keys(), entry.keys() - expected
    problem = f"no {_list(missing)}" if missing else f"{_list(extra)} besides"
    raise ValueError(
        f"{where}: {problem}, expected {_list(expected)}, as the knobs of its group and its shape say"
    )


def _require_shape(value: Any, form: _Form, where: str) -> None:
    if not isinstance(value, torch.Tensor):
        raise ValueError(f"{where}: {type(value).__name__}, expected a tensor")
    if value.shape != form.shape:
        raise ValueError(f"{where}: shape {tuple(value.shape)}, expected {form.shape}")
    is_plain = value.layout is torch.strided and value.device.type != "meta"
    if not (is_plain and value.dtype in _DTYPES):
        found = f"{value.dtype}, {value.layout} on {value.device}"
        raise ValueError(f"{where}: {found}, expected a dense tensor of floating-point numbers")


def _list(names: Any) -> str:
    return ", ".join(sorted(map(str, names)))
