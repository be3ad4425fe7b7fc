"""From a tree of arrays and a config to the core's plan: what each leaf is."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Mapping, Sequence
from typing import Any

from adafactor import _core
from adafactor.arrays import CPU, name_of_library_on
from adafactor.config import Config
from adafactor.engine.rows import Override, Rows, check_overrides, make_rows
from adafactor.errors import phrase
from adafactor.trees.containers import name_of
from adafactor.trees.paths import at
from adafactor.trees.tree import Tree

__all__ = ["Description", "are_on_gpu", "describe", "describe_leaves", "device_of_all", "foretell", "resolve"]


_GPUS = (2, 13)  # as DLPack numbers the memory of CUDA, and what it shares with the host


@dataclasses.dataclass(frozen=True)
class Description:
    """What a state is made of, beside its memory: enough to build the same plan again."""

    tree: Tree
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]
    config: Config
    overrides: tuple[Override, ...]
    libraries: tuple[str, ...]
    device: str = CPU

    def with_rate(self, learning_rate: Any) -> Description:
        """The same with another learning rate in the config."""
        return dataclasses.replace(self, config=self.config.replace(learning_rate=learning_rate))

    def rows(self) -> Rows:
        """The rows of knobs of these leaves."""
        return make_rows(self.tree.paths, self.config, self.overrides)

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
    return describe_leaves(*Tree.of(params), resolve(config, knobs), check_overrides(overrides))


def resolve(config: Config | None, knobs: Mapping[str, Any]) -> Config:
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
    shapes = tuple(tuple(shape) for shape, _, _ in found)
    dtypes = tuple(dtype for _, dtype, _ in found)
    device = device_of_all([each for _, _, each in found], tree.paths)
    libraries = tuple(name_of_library_on(device, leaf) for leaf in leaves)
    if device != CPU and "jax" in libraries:
        where = at("params", tree.paths[libraries.index("jax")])
        raise ValueError(f"{where}: an array of JAX on {device}, expected one in the CPU's memory")
    return Description(tree, shapes, dtypes, config, overrides, libraries, device)


def device_of_all(devices: Sequence[str], paths: Sequence[str]) -> str:
    """The device on which all leaves lie; ValueError where they lie on several."""
    for device, path in zip(devices, paths, strict=True):
        if device != devices[0]:
            where, first = at("params", path), at("params", paths[0])
            raise ValueError(
                f"{where}: an array on {device}, expected all on one device, as {first} on {devices[0]}; "
                "a state for each device steps them"
            )
    return devices[0] if devices else CPU


def foretell(params: Any, config: Config | None, knobs: Mapping[str, Any]) -> _core.Plan:
    """The plan of what has shapes and dtypes, which need not be arrays in memory."""
    tree, leaves = Tree.of(params)
    found = [
        _shape_and_dtype(leaf, at("params", path)) for leaf, path in zip(leaves, tree.paths, strict=True)
    ]
    shapes, dtypes = tuple(shape for shape, _ in found), tuple(dtype for _, dtype in found)
    description = Description(tree, shapes, dtypes, resolve(config, knobs), (), ())
    return description.plan(description.rows())


def are_on_gpu(params: Any) -> bool:
    """Whether the first leaf of a tree lies in the memory of a GPU, as far as it says."""
    _, leaves = Tree.of(params)
    ask = getattr(leaves[0], "__dlpack_device__", None) if leaves else None
    try:
        return ask is not None and ask()[0] in _GPUS
    except (BufferError, RuntimeError, TypeError, ValueError):  # of a tensor without memory
        return False


def _shape_and_dtype(leaf: Any, where: str) -> tuple[tuple[int, ...], str]:
    try:
        shape, dtype = tuple(map(operator.index, leaf.shape)), leaf.dtype
    except (AttributeError, TypeError):
        raise TypeError(f"{where}: {name_of(leaf)}, expected something with a shape and a dtype") from None
    # NumPy's and JAX' dtypes have a name, and so have JAX' scalar types; torch's are written torch.float32.
    name = getattr(dtype, "name", None) or getattr(dtype, "__name__", None) or str(dtype).rpartition(".")[2]
    return shape, str(name)
