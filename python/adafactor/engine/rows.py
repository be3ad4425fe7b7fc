"""The rows of knobs: the config's own and one for each override, and which leaf has which."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from adafactor import _core
from adafactor.config import Config, core_knobs
from adafactor.engine.rates import RowRates
from adafactor.engine.warning import warn
from adafactor.knobs.patterns import Choice, check_pattern, nearest

__all__ = ["Override", "Rows", "check_overrides", "make_rows", "rows_of_core", "warn_of_idle"]

# What concerns the whole call, so that a single leaf cannot differ in it.
WHOLE_CALL = frozenset(_core.whole_call_knobs)

Override = tuple[str, dict[str, Any]]

# What is the matter with a pattern without effect.
_FINDS_NONE = "finds no leaf"
_COMES_LATE = "finds only leaves that an earlier override has"
_MOST_WARNINGS = 10


@dataclasses.dataclass(frozen=True)
class Rows:
    """The rows of knobs: the config itself, then one for each override, in that order.

    The core's rows are finer, since an excluded leaf has a row without weight decay; `of_core[i]` is the
    index in `configs` of the core's row i, and `of_leaf` holds the core's row of each leaf. `idle` says of
    each pattern without effect where it stands, what it is, and what is the matter with it.
    """

    configs: tuple[Config, ...]
    rates: RowRates
    core_knobs: tuple[dict[str, Any], ...]
    of_core: tuple[int, ...]
    of_leaf: tuple[int, ...]
    idle: tuple[tuple[str, str, str], ...]


def check_overrides(overrides: Any) -> tuple[Override, ...]:
    if isinstance(overrides, str | Mapping) or not isinstance(overrides, Iterable):
        raise TypeError(
            f"overrides: {type(overrides).__name__}, expected a sequence of (regular expression, dict of "
            'knobs), as in [("bias", {"weight_decay": None})]'
        )
    checked = []
    for index, override in enumerate(overrides):
        where = f"overrides[{index}]"
        if not isinstance(override, Sequence) or isinstance(override, str) or len(override) != 2:
            raise TypeError(f"{where}: {override!r}, expected (regular expression, dict of knobs)")
        pattern, knobs = override
        check_pattern(where, pattern)
        if not isinstance(knobs, Mapping):
            raise TypeError(f"{where}: {type(knobs).__name__}, expected a dict of knobs")
        for knob in knobs:
            if knob in WHOLE_CALL:
                raise ValueError(f"{where}: {knob} concerns the whole call and cannot be overridden")
        checked.append((str(pattern), dict(knobs)))
    return tuple(checked)


def make_rows(paths: Sequence[str], config: Config, overrides: Sequence[Override]) -> Rows:
    configs = [config]
    for index, (pattern, knobs) in enumerate(overrides):
        try:
            configs.append(config.replace(**knobs))
        except (TypeError, ValueError) as error:
            raise type(error)(f"overrides[{index}] {pattern!r}: {error}") from None
    choice = Choice([pattern for pattern, _ in overrides], paths)
    rows = [0 if first is None else 1 + first for first in choice.first]
    heads = [f"overrides[{index}]" for index in range(len(overrides))]
    idle = [(heads[index], overrides[index][0], _FINDS_NONE) for index in choice.idle]
    idle += [(heads[index], overrides[index][0], _COMES_LATE) for index in choice.behind]
    # Rows whose override does not have exclusions of its own share the config's list, the very object.
    by_list: dict[int, tuple[int, list[int]]] = {id(config.exclude_from_weight_decay): (0, [])}
    for leaf, row in enumerate(rows):
        by_list.setdefault(id(configs[row].exclude_from_weight_decay), (row, []))[1].append(leaf)
    excluded: set[int] = set()
    for row, leaves in by_list.values():
        patterns = configs[row].exclude_from_weight_decay
        choice = Choice(patterns, [paths[leaf] for leaf in leaves])
        excluded |= {leaf for leaf, first in zip(leaves, choice.first, strict=True) if first is not None}
        head = f"{heads[row - 1]} exclude_from_weight_decay" if row else "exclude_from_weight_decay"
        idle += [(head, patterns[index], _FINDS_NONE) for index in choice.idle]
    of_each, of_core, of_leaf = rows_of_core(configs, rows, [leaf in excluded for leaf in range(len(rows))])
    rates = RowRates.of(configs, [False, *("learning_rate" in knobs for _, knobs in overrides)])
    idle = idle if paths else []
    return Rows(tuple(configs), rates, of_each, of_core, of_leaf, tuple(idle))


def rows_of_core(
    configs: Sequence[Config], rows: Sequence[int], excluded: Sequence[bool]
) -> tuple[tuple[dict[str, Any], ...], tuple[int, ...], tuple[int, ...]]:
    """The core's rows of knobs, which are finer, since an excluded leaf has one without weight decay.

    Args:
        configs: of each row.
        rows: the row of each leaf.
        excluded: whether it is excluded from weight decay.

    Returns:
        The knobs of each of the core's rows, the index in `configs` of each, and the core's row of each leaf.
    """
    core_rows = {(0, False): 0}  # the first config comes first, whether a leaf has it or not
    pairs = zip(rows, excluded, strict=True)
    of_leaf = tuple([core_rows.setdefault(pair, len(core_rows)) for pair in pairs])
    of_each = []
    for row, is_excluded in core_rows:
        knobs = core_knobs(configs[row])
        of_each.append(knobs | {"weight_decay": None} if is_excluded else knobs)
    return tuple(of_each), tuple(row for row, _ in core_rows), of_leaf


def warn_of_idle(rows: Rows, paths: Sequence[str]) -> None:
    """Warn of each pattern without effect."""
    for count, (where, pattern, problem) in enumerate(rows.idle):
        words = f"{where}: {pattern!r} {problem}"
        if count == _MOST_WARNINGS:
            words = f"{words}, and {len(rows.idle) - count - 1} more patterns have no effect"
        elif problem == _FINDS_NONE:
            near = nearest(pattern, paths) or paths[:3]
            more = ", ..." if len(near) < len(paths) else ""
            words += f"; leaves are {', '.join(near)}{more}" if paths[0] else "; the one leaf has no path"
        warn(words)
        if count == _MOST_WARNINGS:
            return
