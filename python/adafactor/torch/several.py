"""The calls on parameters that lie on several GPUs: one for each of them."""

from __future__ import annotations

import math
from collections.abc import MutableMapping, Sequence
from typing import Any

import numpy as np
import torch

from adafactor import _core
from adafactor.errors import phrase
from adafactor.report import PER_LEAF, StepReport, fill, late_report
from adafactor.torch.calls import Calls, Leaves
from adafactor.torch.groups import Key, config_of_group, configs_of
from adafactor.torch.scaler import Scale

__all__ = ["AnyCalls", "SeveralCalls", "calls_on"]


def _places_by_device(parameters: Sequence[torch.Tensor]) -> list[list[int]]:
    """The indices of the parameters on each device, in the order in which the devices come up."""
    places: dict[torch.device, list[int]] = {}
    for index, parameter in enumerate(parameters):
        places.setdefault(parameter.device, []).append(index)
    return list(places.values())


class SeveralCalls:
    """As `Calls`, for leaves that are stepped in parts, one after another."""

    __slots__ = ("_cuts", "_entries", "_keys", "_leaves", "_parts", "_places", "_state", "paths")

    def __init__(
        self,
        leaves: Leaves,
        keys: Sequence[Key],
        cuts: Key,
        state: MutableMapping[torch.Tensor, dict[str, Any]],
        places: list[list[int]],
    ) -> None:
        """Plan the parts.

        Args:
            leaves: all of them.
            keys: of the groups that they are in.
            cuts: tells in which of them each is.
            state: the optimizer's.
            places: of each part the indices of its leaves.

        Raises:
            ValueError: `global_clipnorm`, which needs all gradients at once; `count_updates="state"`, which
                counts the updates of all.
        """
        _require_apart(keys)
        self._leaves, self._keys, self._cuts, self._state = leaves, list(keys), cuts, state
        self._places, self.paths = places, tuple(leaves.paths)
        self._parts = [self._part(part, None) for part in places]
        self._entries = [state[parameter] for parameter in leaves.parameters]

    def _part(self, places: list[int], before: Calls | None) -> Calls:
        return Calls(self._leaves.some(places), self._keys, self._cuts, self._state, before, warns=False)

    def serve(
        self,
        parameters: list[torch.Tensor],
        keys: list[Key],
        cuts: Key,
        state: MutableMapping[torch.Tensor, dict[str, Any]],
    ) -> bool:
        """Whether they are those of these very parameters, in these groups and with this state."""
        own = self._leaves.parameters
        if self._cuts != cuts or not _core.are_same(own, parameters):
            return False
        if not _core.are_same(self._entries, [state.get(parameter) for parameter in parameters]):
            return False
        return self._keys == keys or self._plan_anew(keys)

    def _plan_anew(self, keys: list[Key]) -> bool:
        """Whether the parts go on with other values of the groups; as in `Calls.serve`."""
        _require_apart(keys)
        for part, places in zip(self._parts, self._places, strict=True):
            if not part.serve([self._leaves.parameters[i] for i in places], keys, self._cuts, self._state):
                return False
        self._keys = keys
        return True

    def run(self, gradients: list[torch.Tensor | None], rates: Sequence[float], scale: Scale) -> StepReport:
        """Make the calls; one that raises has changed nothing, but those before it have been made."""
        reports: list[tuple[list[int], StepReport]] = []
        try:
            # An average goes on without a gradient, too.
            averages = config_of_group(self._keys[0]).use_ema
            for index, places in enumerate(self._places):
                own = [gradients[place] for place in places]
                if averages or any(gradient is not None for gradient in own):
                    reports.append((places, self._run_part(index, own, rates, scale)))
        except BaseException:
            for _, report in reports:
                report.settle()
            raise

        def ask(report: StepReport) -> None:
            fill(report, *_merged(len(self.paths), reports))

        return late_report(self.paths, ask)

    def settle_report(self) -> None:
        """As that of `Calls`."""
        for part in self._parts:
            part.settle_report()

    def settle(self) -> None:
        """Wait until the GPUs are done, and the counts in the states are right."""
        for part in self._parts:
            part.settle()

    def _run_part(
        self, index: int, gradients: list[torch.Tensor | None], rates: Sequence[float], scale: Scale
    ) -> StepReport:
        """Make one call, after a new plan where a tensor is another than it was.

        Whoever would plan all parts anew would make the calls before this one once more.
        """
        try:
            return self._parts[index].run(gradients, rates, scale)
        except KeyError:
            pass
        except _core.Error as error:
            if error.kind in ("nonfinite", "busy"):
                raise phrase(error, self._parts[index].paths) from None
        self._parts[index] = self._part(self._places[index], self._parts[index])
        try:
            return self._parts[index].run(gradients, rates, scale)
        except _core.Error as error:
            raise phrase(error, self._parts[index].paths) from None


def _require_apart(keys: Sequence[Key]) -> None:
    """Raise ValueError where a knob needs all parameters at once, or counts the updates of all."""
    for config in configs_of(keys):
        if config.global_clipnorm is not None or config.count_updates == "state":
            knob = "count_updates='state'" if config.global_clipnorm is None else "global_clipnorm"
            raise ValueError(f"{knob}: needs all parameters on one device, found some on several")


def _merged(count: int, reports: Sequence[tuple[list[int], StepReport]]) -> tuple[tuple[Any, ...], list[Any]]:
    """What several reports say together, as `fill` takes it."""
    columns = []
    for name in PER_LEAF:
        dtype = getattr(reports[0][1], name).dtype
        column = np.full(count, np.nan if dtype == np.float64 else False, dtype)
        for places, report in reports:
            column[places] = getattr(report, name)
        columns.append(column)
    found = [report for _, report in reports]
    first = next((report for report in found if report.updated), found[0])
    summary = (
        any(report.updated for report in found),
        all(report.skipped for report in found),
        first.learning_rate,
        first.beta_2,
        first.rho,
        math.sqrt(sum(report.global_grad_norm**2 for report in found)),
    )
    return summary, columns


AnyCalls = Calls | SeveralCalls


def calls_on(
    leaves: Leaves,
    keys: Sequence[Key],
    cuts: Key,
    state: MutableMapping[torch.Tensor, dict[str, Any]],
    before: AnyCalls | None,
) -> AnyCalls:
    """The calls on some leaves, wherever they lie; see `Calls`.

    Leaves of which some lie in the CPU's memory and others on a GPU are refused by `Calls`.
    """
    places = _places_by_device(leaves.parameters)
    if len(places) == 1 or any(parameter.device.type != "cuda" for parameter in leaves.parameters):
        return Calls(leaves, keys, cuts, state, before if isinstance(before, Calls) else None)
    return SeveralCalls(leaves, keys, cuts, state, places)
