"""The calls on one list of parameters: the core's plan for them, made again where anything has changed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, MutableMapping, Sequence
from typing import Any

import torch

from adafactor import _core
from adafactor.arrays import CPU
from adafactor.arrays.torch import allocator, mark
from adafactor.config import Config
from adafactor.engine.late import report_when_asked
from adafactor.engine.leaves import device_of_all
from adafactor.engine.nonfinite import warn_of_skips
from adafactor.engine.rows import rows_of_core
from adafactor.engine.warning import warn
from adafactor.errors import phrase
from adafactor.knobs.patterns import Choice
from adafactor.report import StepReport, make_report
from adafactor.torch.groups import Key, configs_of
from adafactor.torch.scaler import Scale
from adafactor.torch.states import KEYS, fitted_entry, fresh_entry, updates_of
from adafactor.trees.paths import at

__all__ = ["Calls", "Leaves", "Place", "Places", "Planned", "refuse_sparse"]

_Entry = dict[str, Any]


class Leaves:
    """Parameters, what they are called, and which group each is in."""

    __slots__ = ("groups", "parameters", "paths")

    def __init__(
        self, parameters: Sequence[torch.Tensor], groups: Sequence[int], paths: Sequence[str]
    ) -> None:
        self.parameters, self.groups, self.paths = list(parameters), list(groups), list(paths)

    def some(self, places: Sequence[int]) -> Leaves:
        """Those at these places."""
        return Leaves(
            [self.parameters[place] for place in places],
            [self.groups[place] for place in places],
            [self.paths[place] for place in places],
        )

    @classmethod
    def among(cls, groups: Sequence[dict[str, Any]], parameters: Sequence[torch.Tensor]) -> Leaves:
        """Some parameters of some groups, in the order of the groups."""
        wanted = set(map(id, parameters))
        found = [place for place in places_in(groups) if id(place[0]) in wanted]
        return cls([each[0] for each in found], [each[1] for each in found], [each[3] for each in found])


def places_in(groups: Sequence[dict[str, Any]]) -> Iterator[tuple[torch.Tensor, int, int, str]]:
    """Each parameter, the number of its group, its place there, and what it is called: no two the same."""
    index = itertools.count()
    taken: set[str] = set()
    for number, group in enumerate(groups):
        names = group.get("param_names") or ()
        for place, (parameter, which) in enumerate(zip(group["params"], index, strict=False)):
            name = names[place] if place < len(names) else str(which)
            if name in taken:
                name = f"{name} (param_groups[{number}], {place})"
            taken.add(name)
            yield parameter, number, place, name


class Place:
    """Where one parameter is among the groups, and the calls on it alone."""

    __slots__ = ("_index", "_parameter", "_path", "calls", "group")

    def __init__(self, parameter: torch.Tensor, group: dict[str, Any], index: int, path: str) -> None:
        self._parameter, self.group, self._index, self._path = parameter, group, index, path
        self.calls: Any = None  # Calls, once there are some

    def holds(self, groups: Sequence[dict[str, Any]]) -> bool:
        """Whether it is there still."""
        own = self.group["params"]
        is_there = self._index < len(own) and own[self._index] is self._parameter
        return is_there and any(group is self.group for group in groups)

    def leaves(self) -> Leaves:
        """The parameter alone, in a group that is the first."""
        return Leaves([self._parameter], [0], [self._path])


class Places:
    """Where each parameter is among the groups, for those that are stepped alone."""

    __slots__ = ("_places",)

    def __init__(self) -> None:
        self._places: dict[torch.Tensor, Place] = {}

    def find(self, parameter: torch.Tensor, groups: Sequence[dict[str, Any]]) -> Place:
        """That of a parameter in these groups; what is there still keeps its calls.

        Raises:
            ValueError: it is in none of them.
        """
        place = self._places.get(parameter)
        if place is None or not place.holds(groups):
            self._find_all(groups)
            place = self._places.get(parameter)
        if place is None:
            raise ValueError("param: in no group of the optimizer, expected one of its parameters")
        return place

    def _find_all(self, groups: Sequence[dict[str, Any]]) -> None:
        self.settle()
        before, self._places = self._places, {}
        for parameter, number, index, path in places_in(groups):
            place = self._places[parameter] = Place(parameter, groups[number], index, path)
            if parameter in before:
                place.calls = before[parameter].calls

    def settle_report(self) -> None:
        """As that of `Calls`, for all of them."""
        for place in self._places.values():
            if place.calls is not None:
                place.calls.settle_report()

    def settle(self) -> None:
        """Wait until GPUs are done, and the counts in the states are right."""
        for place in self._places.values():
            if place.calls is not None:
                place.calls.settle()


def refuse_sparse(leaves: Leaves, gradients: Sequence[torch.Tensor | None]) -> None:
    """Raise RuntimeError for gradients that are not dense."""
    for gradient, path in zip(gradients, leaves.paths, strict=True):
        if gradient is not None and gradient.layout is not torch.strided:
            refused = f"Adafactor does not support sparse gradients: {at('grads', path)} is one"
            raise RuntimeError(f"{refused}; use its to_dense(), or an embedding with sparse=False")


class Planned:
    """The core's plan for some leaves, and how it lays out the state of each.

    Attributes:
        configs: the knobs of each group.
        device: where all leaves lie.
        layouts: what the plan says of each leaf.
        group_of_row: the group whose rate each of the plan's rows of knobs has.
    """

    __slots__ = ("configs", "device", "group_of_row", "layouts", "plan")

    def __init__(self, leaves: Leaves, keys: Sequence[Key], warns: bool = False) -> None:
        """Raise TypeError, ValueError or RuntimeError where a parameter or a group is not what it can be.

        Args:
            leaves: at least one.
            keys: of the groups that they are in.
            warns: whether a pattern that finds none of the leaves is warned of.
        """
        for parameter, path in zip(leaves.parameters, leaves.paths, strict=True):
            if parameter.is_complex():
                refused = f"Adafactor does not support complex parameters: {at('params', path)} is one"
                raise RuntimeError(f"{refused}; make torch.view_as_real() of it the parameter")
        self.configs = configs_of(keys)
        excluded = _excluded(leaves, self.configs, warns)
        knobs, self.group_of_row, of_leaf = rows_of_core(self.configs, leaves.groups, excluded)
        try:
            found = _core.inspect_arrays(leaves.parameters)
            shapes, dtypes = [tuple(shape) for shape, _, _ in found], [dtype for _, dtype, _ in found]
            self.plan = _core.Plan(shapes, dtypes, list(of_leaf), list(knobs), list(leaves.paths))
        except _core.Error as error:
            role = "params" if error.leaf >= 0 and not error.role else ""
            raise phrase(error, leaves.paths, role) from None
        self.device = device_of_all([device for _, _, device in found], leaves.paths)
        self.layouts = [self.plan.layout(leaf) for leaf in range(len(of_leaf))]

    def config_of(self, leaves: Leaves, leaf: int) -> Config:
        return self.configs[leaves.groups[leaf]]

    def lays_out_as(self, other: Planned) -> bool:
        """Whether the state of each leaf has the form that it has under another plan for the same leaves."""
        dtypes, others = ([config.momentum_dtype for config in each.configs] for each in (self, other))
        return self.layouts == other.layouts and dtypes == others and self.device == other.device


def _excluded(leaves: Leaves, configs: Sequence[Config], warns: bool) -> list[bool]:
    """Whether the patterns of its group exclude a leaf from weight decay."""
    excluded = [False] * len(leaves.paths)
    for group, config in enumerate(configs):
        if config.exclude_from_weight_decay:
            mine = [leaf for leaf, of in enumerate(leaves.groups) if of == group]
            choice = Choice(config.exclude_from_weight_decay, [leaves.paths[leaf] for leaf in mine])
            for leaf, first in zip(mine, choice.first, strict=True):
                excluded[leaf] = first is not None
            for index in choice.idle if warns else ():
                pattern = config.exclude_from_weight_decay[index]
                where = f"parameter of param_groups[{group}]; model.named_parameters() gives them names"
                warn(f"exclude_from_weight_decay: {pattern!r} finds no {where}")
    return excluded


def _complete(state: MutableMapping[torch.Tensor, _Entry], leaves: Leaves, planned: Planned) -> None:
    """Put the states of the leaves into form, and make those that are not there yet."""
    born, missing = 0, []
    for leaf, parameter in enumerate(leaves.parameters):
        entry, where = state.get(parameter), at("state", leaves.paths[leaf])
        if entry:
            fitted_entry(entry, parameter, planned.layouts[leaf], planned.config_of(leaves, leaf), where)
            born = max(born, updates_of(entry, where))
        else:
            missing.append(leaf)
    for leaf in missing:
        parameter, config = leaves.parameters[leaf], planned.config_of(leaves, leaf)
        # Who counts with all others is born with their count, who counts for itself with none.
        count = born if config.count_updates == "state" else 0
        state[parameter] = fresh_entry(parameter, planned.layouts[leaf], config, count)


def _stepper_on(planned: Planned, leaves: Leaves) -> Any:
    """The core's stepper for a plan.

    Raises RuntimeError while a CUDA graph is captured: nothing was waited for yet, and no tensor was made,
    which would be the graph's.
    """
    allocate = allocator(planned.device) if planned.device != CPU else None
    stepper = _core.Stepper(planned.plan, KEYS, "step", planned.device, allocate)
    stepper.refuse_capture(leaves.parameters)
    return stepper


class Calls:
    """What is kept from call to call for some leaves: the plan, its stepper, and whose state that is."""

    __slots__ = ("_cuts", "_entries", "_keys", "_late", "_leaves", "_planned", "_stepper", "paths")

    def __init__(
        self,
        leaves: Leaves,
        keys: Sequence[Key],
        cuts: Key,
        state: MutableMapping[torch.Tensor, _Entry],
        before: Calls | None,
        warns: bool = True,
    ) -> None:
        """Plan the leaves, and give each the state that it lacks; what there is is put into form.

        Args:
            leaves: at least one.
            keys: of the groups that they are in.
            cuts: tells in which of them each is.
            state: the optimizer's.
            before: whose place these calls take. Where they were of the same leaves, what was not finite
                there is remembered; else the first call looks at all parameters before it writes one.
            warns: whether a pattern that finds none of these leaves is warned of.
        """
        planned = Planned(leaves, keys, warns and before is None and len(leaves.parameters) > 1)
        self._leaves, self._keys, self._cuts, self._planned = leaves, list(keys), cuts, planned
        self.paths = tuple(leaves.paths)
        self._late: StepReport | None = None  # of a call of which nobody may have asked yet
        self._stepper: Any = _stepper_on(planned, leaves)
        _complete(state, leaves, planned)
        if before is not None and _core.are_same(before._leaves.parameters, leaves.parameters):
            self._stepper.take_over(before._stepper)
        self._entries = [state[parameter] for parameter in leaves.parameters]

    def serve(
        self,
        parameters: list[torch.Tensor],
        keys: list[Key],
        cuts: Key,
        state: MutableMapping[torch.Tensor, _Entry],
    ) -> bool:
        """Whether they are those of these very parameters, in these groups and with this state.

        The values of the groups may have changed, as weight decay on a schedule does at each step: then there
        is a new plan, and the state stays as it is. They do not serve where it would have another form.
        """
        if self._cuts != cuts or not _core.are_same(self._leaves.parameters, parameters):
            return False
        return self._has_entries_of(state) and (self._keys == keys or self._plan_anew(keys))

    def _has_entries_of(self, state: MutableMapping[torch.Tensor, _Entry]) -> bool:
        own = self._leaves.parameters
        # Mostly the state has no others, and tensors are slow to hash.
        if len(state) == len(own) and _core.are_same(self._entries, list(state.values())):
            return True
        return _core.are_same(self._entries, [state.get(parameter) for parameter in own])

    def _plan_anew(self, keys: list[Key]) -> bool:
        planned = Planned(self._leaves, keys)
        if not planned.lays_out_as(self._planned):
            return False
        stepper = _stepper_on(planned, self._leaves)
        stepper.take_over(self._stepper)
        self._keys, self._planned, self._stepper = keys, planned, stepper
        return True

    def run(self, gradients: list[torch.Tensor | None], rates: Sequence[float], scale: Scale) -> StepReport:
        """Make one call; `rates` has one for each group. Raises `_core.Error` before anything was written."""
        leaves, planned = self._leaves, self._planned
        of_row = [(rates[group], False) for group in planned.group_of_row]
        written = leaves.parameters
        # An average may overwrite a parameter without a gradient, too.
        if _core.places_of_none(gradients) and not planned.configs[0].ema_overwrite_frequency:
            pairs = zip(leaves.parameters, gradients, strict=True)
            written = [parameter for parameter, gradient in pairs if gradient is not None]
        found = self._stepper.step(
            leaves.parameters,
            gradients,
            self._entries,
            of_row,
            scale.multiplier,
            [(mark, written)],
            scale.on_device,
        )
        if isinstance(found, int):
            self._late = report_when_asked(self._stepper, found, self.paths)
            return self._late
        summary, nonfinite, arrays = found
        report = make_report(summary, self.paths, arrays)
        if nonfinite >= 0 and report.skipped:
            if planned.configs[0].on_nonfinite == "raise":
                self._stepper.refuse_nonfinite(leaves.parameters, gradients, nonfinite)
            warn_of_skips(self._stepper.skips, report, nonfinite)
        return report

    def settle_report(self) -> None:
        """Have the last call known before the next one, if a GPU may still be at it.

        Raises RuntimeError, before it waits, where the next one would go into a CUDA graph.
        """
        if self._late is not None:
            self._stepper.refuse_capture(self._leaves.parameters)
            self._late.settle()
            self._late = None

    def settle(self) -> None:
        """Wait until a GPU is done, and the counts in the states are right."""
        self._stepper.settle()
