"""From a tree of arrays and a config to the core's plan: which leaf has which knobs."""

from __future__ import annotations

import dataclasses
import operator
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from adafactor import _core
from adafactor.arrays import name_of_library
from adafactor.config import Config
from adafactor.containers import name_of
from adafactor.errors import phrase
from adafactor.paths import at
from adafactor.patterns import Choice, check_pattern, nearest
from adafactor.row_rates import RowRates
from adafactor.tree import Tree

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


@dataclasses.dataclass(frozen=True)
class Description:
    """What a state is made of, beside its memory: enough to build the same plan again."""

    tree: Tree
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]
    config: Config
    overrides: tuple[Override, ...]
    libraries: tuple[str, ...]

    def rows(self) -> Rows:
        """The rows of knobs of these leaves."""
        return _make_rows(self.tree.paths, self.config, self.overrides)

    def plan(self, rows: Rows) -> _core.Plan:
        """The core's plan; raises ValueError or TypeError, naming the path, where a leaf is not allowed."""
        try:
            return _core.Plan(
                list(self.shapes),
                list(self.dtypes),
                list(rows.of_leaf),
                list(rows.core_knobs),
                list(self.tree.paths),
            )
        except _core.Error as error:
            raise phrase(error, self.tree.paths, "params" if error.leaf >= 0 else "") from None


def describe(params: Any, config: Config | None, overrides: Any, knobs: Mapping[str, Any]) -> Description:
    """Flatten the parameters, resolve the knobs and look at each array; writes nothing."""
    return describe_leaves(*Tree.of(params), _resolve(config, knobs), _check_overrides(overrides))


def _resolve(config: Config | None, knobs: Mapping[str, Any]) -> Config:
    """The config, the second argument of a call, with knobs that were given by name."""
    if config is not None and not isinstance(config, Config):
        what_to_do = "call it" if callable(config) else "single knobs go by name, as in learning_rate=0.01"
        raise TypeError(f"config: {type(config).__name__}, expected an adafactor.Config; {what_to_do}")
    if "config" in knobs:
        raise TypeError("config: goes by position, as the second argument, and not by name")
    return (config or Config()).replace(**knobs) if knobs else config or Config()


def describe_leaves(
    tree: Tree, leaves: Sequence[Any], config: Config, overrides: tuple[Override, ...] = ()
) -> Description:
    """Look at each array of a tree that has been flattened."""
    try:
        found = _core.inspect_arrays(list(leaves))
    except _core.Error as error:
        raise phrase(error, tree.paths) from None
    shapes = tuple(tuple(shape) for shape, _ in found)
    dtypes = tuple(dtype for _, dtype in found)
    libraries = tuple(name_of_library(type(leaf)) for leaf in leaves)
    return Description(tree, shapes, dtypes, config, overrides, libraries)


def foretell(params: Any, config: Config | None, knobs: Mapping[str, Any]) -> _core.Plan:
    """The plan of what has shapes and dtypes, which need not be arrays in memory."""
    tree, leaves = Tree.of(params)
    found = [
        _shape_and_dtype(leaf, at("params", path)) for leaf, path in zip(leaves, tree.paths, strict=True)
    ]
    shapes, dtypes = tuple(shape for shape, _ in found), tuple(dtype for _, dtype in found)
    description = Description(tree, shapes, dtypes, _resolve(config, knobs), (), ())
    return description.plan(description.rows())


def _shape_and_dtype(leaf: Any, where: str) -> tuple[tuple[int, ...], str]:
    try:
        shape, dtype = tuple(map(operator.index, leaf.shape)), leaf.dtype
    except (AttributeError, TypeError):
        raise TypeError(f"{where}: {name_of(leaf)}, expected something with a shape and a dtype") from None
    # NumPy's and JAX' dtypes have a name, and so have JAX' scalar types; torch's are written torch.float32.
    name = getattr(dtype, "name", None) or getattr(dtype, "__name__", None) or str(dtype).rpartition(".")[2]
    return shape, str(name)


def _check_overrides(overrides: Any) -> tuple[Override, ...]:
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


def _make_rows(paths: Sequence[str], config: Config, overrides: Sequence[Override]) -> Rows:
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
    core_rows = {(0, False): 0}  # the config itself comes first, whether a leaf has it or not
    of_leaf = [core_rows.setdefault((row, i in excluded), len(core_rows)) for i, row in enumerate(rows)]
    core_knobs = []
    for row, is_excluded in core_rows:
        knobs = configs[row].to_core()
        core_knobs.append(knobs | {"weight_decay": None} if is_excluded else knobs)
    of_core = tuple(row for row, _ in core_rows)
    rates = RowRates.of(configs, [False, *("learning_rate" in knobs for _, knobs in overrides)])
    idle = idle if paths else []
    return Rows(tuple(configs), rates, tuple(core_knobs), of_core, tuple(of_leaf), tuple(idle))


def warn_of_idle(rows: Rows, paths: Sequence[str], depth: int) -> None:
    """Warn of each pattern without effect; `depth` functions stand between the user's line and this one."""
    for count, (where, pattern, problem) in enumerate(rows.idle):
        words = f"{where}: {pattern!r} {problem}"
        if count == _MOST_WARNINGS:
            words = f"{words}, and {len(rows.idle) - count - 1} more patterns have no effect"
        elif problem == _FINDS_NONE:
            near = nearest(pattern, paths) or paths[:3]
            more = ", ..." if len(near) < len(paths) else ""
            words += f"; leaves are {', '.join(near)}{more}" if paths[0] else "; the one leaf has no path"
        warnings.warn(words, UserWarning, stacklevel=2 + depth)
        if count == _MOST_WARNINGS:
            return
