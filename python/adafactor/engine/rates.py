"""The learning rates of the rows of knobs: those of `init`, and those that a call or a scheduler gives."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, cast

from adafactor.config import Config
from adafactor.knobs.numbers import real_number
from adafactor.knobs.rates import LearningRate, checked_rate, rate_at_call

__all__ = ["RowRates"]


@dataclasses.dataclass(frozen=True)
class RowRates:
    """The rate of each row: of the config, then of each override.

    One rule for whoever gives one rate for all: a row with a rate of its own gets it times the ratio of its
    rate to the config's at `init`, so that a frozen leaf stays frozen; each other row gets it as it is.

    Attributes:
        rates: what gives the rate of each row, or one from which those of all follow.
        own: for each row the rate that its override had at `init`, None where it had none.
        common: the config's rate at `init`.
    """

    rates: tuple[LearningRate, ...]
    own: tuple[LearningRate | None, ...]
    common: LearningRate

    @classmethod
    def of(cls, configs: Sequence[Config], has_own: Sequence[bool]) -> RowRates:
        """Those of the configs of all rows, some of which have rates of their own."""
        rates = tuple(config.learning_rate for config in configs)
        own = tuple(rate if has else None for rate, has in zip(rates, has_own, strict=True))
        return cls(rates, own, rates[0])

    def replace(self, learning_rate: Any) -> RowRates:
        """The same rows with another rate, or with a sequence of one for each; each as in `Config`.

        Raises:
            TypeError, ValueError: as `Config`; a ValueError for another number of rates, and for one rate
                where a row has a rate of its own and no ratio.
        """
        given = self._given(learning_rate)
        return dataclasses.replace(
            self, rates=tuple(Config(learning_rate=rate).learning_rate for rate in given)
        )

    def at_call(self, calls: int, learning_rate: Any = None) -> list[tuple[float, bool]]:
        """The rate of each row for the call after so many others, and whether it was scheduled.

        Args:
            calls: the number of calls so far, at which a schedule is asked. Each schedule and each callable
                is evaluated once, however many rows share it.
            learning_rate: given for this call, in the place of what there is: a number, or a sequence with
                one for each row. It counts as scheduled.
        """
        if learning_rate is not None:
            given = [_number(rate) for rate in self._given(learning_rate)]
            return [(rate, True) for rate in self._for_rows(given)]
        if self.constant is not None:
            return self.constant
        givers = {id(rate): rate for rate in self.rates if callable(rate)}
        known = {key: rate_at_call(rate, calls) for key, rate in givers.items()}
        scheduled = [callable(rate) for rate in self.rates] * (len(self.own) // len(self.rates))
        rates = self._for_rows([known[id(rate)] if callable(rate) else rate for rate in self.rates])
        return list(zip(rates, scheduled, strict=True))

    @functools.cached_property
    def constant(self) -> list[tuple[float, bool]] | None:
        """What every call gets where no rate is a schedule or a callable."""
        if any(map(callable, self.rates)):
            return None
        return [(rate, False) for rate in self._for_rows(cast(Sequence[float], self.rates))]

    def _given(self, learning_rate: Any) -> Sequence[Any]:
        """What was given, as a sequence: of one for all rows, or of one for each."""
        if isinstance(learning_rate, list | tuple) or getattr(learning_rate, "ndim", 0) == 1:
            count = len(self.own)
            if len(learning_rate) != count:
                expected = "one" if count == 1 else f"one or {count}"
                raise ValueError(f"learning_rate: {len(learning_rate)} rates, expected {expected}")
            return cast(Sequence[Any], learning_rate)
        for row, own in enumerate(self.own):
            if own is not None and (callable(own) or callable(self.common) or self.common == 0):
                each = [repr(learning_rate if own is None else own) for own in self.own]
                example = ", ".join([*each[:5], *["..."][: len(each) > 5]])
                raise ValueError(
                    f"learning_rate: one for all, but overrides[{row - 1}] had {own!r} where the config had "
                    f"{self.common!r}, which is no ratio; give one for each, as in learning_rate=[{example}]"
                )
        return [learning_rate]

    def _for_rows(self, rates: Sequence[float]) -> Sequence[float]:
        """A number for each row, where there may be one for all."""
        return rates if len(rates) == len(self.own) else [self._following(rates[0], own) for own in self.own]

    def _following(self, rate: float, own: Any) -> float:
        """What a row makes of the rate for all; of the config's rate at `init`, its own to the bit."""
        if own is None:
            return rate
        return own if rate == self.common else checked_rate("learning_rate:", rate * (own / self.common))


def _number(value: Any) -> float:
    return checked_rate("learning_rate:", real_number("learning_rate", value))
