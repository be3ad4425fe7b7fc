"""The state in a state dict: checked whole before anything changes, and copied."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from adafactor.torch.calls import Leaves, Planned
from adafactor.torch.groups import configs_of, key_of
from adafactor.torch.states import checked_entry, refuse_others
from adafactor.trees.paths import at

__all__ = ["states_in"]


def states_in(
    given: Mapping[str, Any], groups: Sequence[dict[str, Any]], defaults: Mapping[str, Any]
) -> dict[torch.Tensor, dict[str, Any]]:
    """The state in a state dict, by parameter; nothing of it is shared with the dict.

    Args:
        given: what `state_dict()` of this optimizer, or of torch's own Adafactor, returned.
        groups: those of the optimizer that loads it, whose values it replaces.
        defaults: the values that its groups may lack.

    Returns:
        Nothing where its groups are of other sizes, which torch refuses.

    Raises:
        TypeError, ValueError: as `Adafactor.load_state_dict`.
    """
    saved = given["param_groups"]
    if [len(group["params"]) for group in groups] != [len(group["params"]) for group in saved]:
        return {}
    numbers = itertools.chain.from_iterable(group["params"] for group in saved)
    parameters = itertools.chain.from_iterable(group["params"] for group in groups)
    entries = {
        parameter: given["state"][number]
        for parameter, number in zip(parameters, numbers, strict=True)
        if given["state"].get(number)
    }
    leaves = Leaves.among(groups, list(entries))
    for parameter, path in zip(leaves.parameters, leaves.paths, strict=True):
        refuse_others(entries[parameter], at("state", path))
    keys = [key_of({**defaults, **group}) for group in saved]
    if not entries:  # it was saved before its first step
        configs_of(keys)
        return {}
    planned = Planned(leaves, keys)
    return {
        parameter: checked_entry(
            entries[parameter],
            parameter,
            planned.layouts[leaf],
            planned.config_of(leaves, leaf),
            at("state", leaves.paths[leaf]),
        )
        for leaf, parameter in enumerate(leaves.parameters)
    }
