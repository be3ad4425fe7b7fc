"""From a tree of arrays and a config to the core's plan: which leaf has which knobs."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from adafactor import _core
from adafactor.arrays import name_of_library
from adafactor.config import Config, check_pattern
from adafactor.errors import phrase
from adafactor.tree import Tree

# What concerns the whole call, so that a single leaf cannot differ in it.
WHOLE_CALL = frozenset(
    {
        "ema_momentum",
        "ema_on",
        "ema_overwrite_frequency",
        "global_clipnorm",
        "gradient_accumulation_steps",
        "loss_scale_factor",
        "on_nonfinite",
        "seed",
        "use_ema",
    }
)

Override = tuple[str, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Rows:
    """The rows of knobs: the config itself, then one for each override, in that order.

    The core's rows are finer, since an excluded leaf has a row without weight decay; `of_core[i]` is the
    index in `configs` of the core's row i, and `of_leaf` holds the core's row of each leaf.
    """

    configs: tuple[Config, ...]
    core_knobs: tuple[dict[str, Any], ...]
    of_core: tuple[int, ...]
    of_leaf: tuple[int, ...]


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
    if config is not None and not isinstance(config, Config):
        what_to_do = "call it" if callable(config) else "single knobs go by name, as in learning_rate=0.01"
        raise TypeError(f"config: {type(config).__name__}, expected an adafactor.Config; {what_to_do}")
    if "config" in knobs:
        raise TypeError("config: goes by position, as the second argument, and not by name")
    resolved = (config or Config()).replace(**knobs) if knobs else config or Config()
    return describe_leaves(*Tree.of(params), resolved, _check_overrides(overrides))


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
    patterns = [re.compile(pattern) for pattern, _ in overrides]
    core_rows = {(0, False): 0}  # the config itself comes first, whether a leaf has it or not
    of_leaf = []
    for path in paths:
        row = next((i for i, pattern in enumerate(patterns, start=1) if pattern.search(path)), 0)
        excluded = any(re.search(pattern, path) for pattern in configs[row].exclude_from_weight_decay)
        of_leaf.append(core_rows.setdefault((row, excluded), len(core_rows)))
    core_knobs = []
    for row, excluded in core_rows:
        knobs = configs[row].to_core()
        core_knobs.append(knobs | {"weight_decay": None} if excluded else knobs)
    return Rows(tuple(configs), tuple(core_knobs), tuple(row for row, _ in core_rows), tuple(of_leaf))
