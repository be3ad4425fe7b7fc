"""DynamicLossScale: a loss scale that falls where gradients overflow and grows where they do not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from adafactor.engine import call
from adafactor.engine.warning import warn
from adafactor.knobs.numbers import exact_whole_number, real_number
from adafactor.report import StepReport
from adafactor.state import engine_of

__all__ = ["DynamicLossScale"]


class DynamicLossScale:
    """The loss scale of `keras.optimizers.LossScaleOptimizer`, as an object that drives `step`.

    Small gradients vanish in 16 bits. So the loss is multiplied by the scale before its gradients are
    computed, and the step divides the gradients by it. Where a gradient is not finite, the whole call is
    skipped and the scale halves; after `dynamic_growth_steps` good calls without a change it doubles. Unlike
    in Keras it stays between a floor and a ceiling.

    Args:
        initial_scale: the scale to begin with, above 0; default 2**15.
        dynamic_growth_steps: at least 1; good calls before the scale doubles, as Keras counts them; default
            2000.
        floor: the least scale, above 0; default 1.
        ceiling: the largest scale; default 2**126, the largest power of two by which float32 can be divided
            and multiplied again.

    Attributes:
        scale: what the loss is to be multiplied by now.
        counter: good calls since the scale has changed.

    Raises:
        TypeError: something is not a number.
        ValueError: a value out of its range, or an `initial_scale` that is not between floor and ceiling.

    Source: `keras.optimizers.LossScaleOptimizer` 3.15.1; Micikevicius et al. 2018, arXiv:1710.03740.

    >>> import numpy as np, adafactor
    >>> params = {"w": np.ones(3, np.float32)}
    >>> state = adafactor.init(params, learning_rate=0.1)
    >>> loss_scale = adafactor.DynamicLossScale()
    >>> grads = {"w": loss_scale.scale_loss(np.ones(3, np.float32))}
    >>> loss_scale.step(params, grads, state).grad_norm.round(6).tolist(), loss_scale
    ([1.732051], DynamicLossScale(scale=32768, counter=1))
    >>> grads["w"][0] = np.inf
    >>> loss_scale.step(params, grads, state).skipped, loss_scale
    (True, DynamicLossScale(scale=16384, counter=0))
    """

    def __init__(
        self,
        initial_scale: float = 2.0**15,
        dynamic_growth_steps: int = 2000,
        *,
        floor: float = 1.0,
        ceiling: float = 2.0**126,
    ) -> None:
        """Check the arguments; the counter starts at 0."""
        self._floor = real_number("floor", floor)
        self._ceiling = real_number("ceiling", ceiling)
        if not 0 < self._floor < math.inf:
            raise ValueError(f"floor: {floor!r}, expected a finite number > 0")
        if not self._floor <= self._ceiling < math.inf:
            raise ValueError(
                f"ceiling: {ceiling!r}, expected a finite number of at least floor, {self._floor}"
            )
        self._growth = exact_whole_number("dynamic_growth_steps", dynamic_growth_steps)
        if self._growth < 1:
            raise ValueError(f"dynamic_growth_steps: {self._growth}, expected a whole number >= 1")
        self._initial = self._checked_scale("initial_scale", initial_scale)
        self._scale, self._counter = self._initial, 0

    @property
    def scale(self) -> float:
        """What the loss is to be multiplied by now."""
        return self._scale

    @property
    def counter(self) -> int:
        """Good calls since the scale has changed."""
        return self._counter

    def scale_loss(self, loss: Any) -> Any:
        """Return the loss, or anything that can be multiplied, times the scale.

        >>> DynamicLossScale(initial_scale=8.0).scale_loss(0.5)
        4.0
        """
        return loss * self._scale

    def step(
        self, params: Any, grads: Any, state: Any, *, grad_multiplier: float = 1.0, learning_rate: Any = None
    ) -> StepReport:
        """Make one `adafactor.step` with gradients of the scaled loss, and adapt the scale.

        A gradient that is not finite skips the call, also where the state has `on_nonfinite="raise"`. So does
        one that is finite but whose squares add up to more than a double holds.

        Args:
            params: as for `adafactor.step`; written in place.
            grads: gradients of the loss that `scale_loss` gave.
            state: from `adafactor.init`, with an `on_nonfinite` other than "propagate" and without a
                `loss_scale_factor`.
            grad_multiplier: every gradient is multiplied by it besides.
            learning_rate: as for `adafactor.step`.

        Returns:
            A `StepReport`; where it is `skipped` for a gradient the scale has halved.

        Raises:
            ValueError: the state has `on_nonfinite="propagate"`, so that nobody would see the overflow, or a
                `loss_scale_factor`, so that the gradients would be divided twice.
            Exception: what `adafactor.step` raises, FloatingPointError for a parameter alone; the scale stays
                then.
        """
        engine = engine_of(state)
        if engine.config.on_nonfinite == "propagate":
            raise ValueError('on_nonfinite: "propagate" hides an overflow, expected "skip" or "raise"')
        if engine.config.loss_scale_factor is not None:
            raise ValueError("loss_scale_factor: the gradients would be divided twice, expected None")
        multiplier = real_number("grad_multiplier", grad_multiplier) / self._scale
        report = call.step(engine, params, grads, multiplier, learning_rate, raises=False)
        overflows = bool((report.nonfinite & ~np.isfinite(report.grad_norm)).any())
        if overflows or not report.skipped:
            self.advance(not overflows)
        return report

    def advance(self, finite: bool) -> None:
        """Adapt the scale after a call that something else made, such as `update` or another optimizer.

        Args:
            finite: whether all gradients were finite; if not, the call should have changed nothing. At the
                floor, where the scale cannot fall, that is a UserWarning.

        >>> loss_scale = DynamicLossScale(dynamic_growth_steps=2)
        >>> loss_scale.advance(True); loss_scale.advance(True); loss_scale.scale
        65536.0
        """
        if not finite:
            at_floor = self._scale == self._floor
            self._scale, self._counter = max(self._scale / 2, self._floor), 0
            if at_floor:
                warn(
                    f"loss scale: at its floor, {self._floor:g}, and a gradient is not finite all the same; "
                    "every call may be skipped from now on, which no scale can change"
                )
        elif self._counter == self._growth - 1:
            self._scale, self._counter = min(self._scale * 2, self._ceiling), 0
        else:
            self._counter += 1

    def get_state(self) -> dict[str, Any]:
        """Return scale and counter; `set_state` takes them back.

        >>> DynamicLossScale().get_state()
        {'scale': 32768.0, 'counter': 0}
        """
        return {"scale": self._scale, "counter": self._counter}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `get_state` returned; ValueError or TypeError, and no change, where it is not that.

        >>> loss_scale = DynamicLossScale()
        >>> loss_scale.set_state({"scale": 8.0, "counter": 3}); loss_scale
        DynamicLossScale(scale=8, counter=3)
        """
        if set(state) != {"scale", "counter"}:
            raise ValueError(f"state: keys {sorted(state)}, expected ['counter', 'scale']")
        scale = self._checked_scale("scale", state["scale"])
        counter = exact_whole_number("counter", state["counter"])
        if not 0 <= counter < self._growth:
            raise ValueError(f"counter: {counter}, expected a whole number from 0 to {self._growth - 1}")
        self._scale, self._counter = scale, counter

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments in values that JSON can write.

        >>> DynamicLossScale(floor=0.5).get_config()["floor"]
        0.5
        """
        return {
            "initial_scale": self._initial,
            "dynamic_growth_steps": self._growth,
            "floor": self._floor,
            "ceiling": self._ceiling,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Make a fresh one from what `get_config` returned.

        >>> DynamicLossScale.from_config({"initial_scale": 4.0}).scale
        4.0
        """
        return cls(**config)

    def __repr__(self) -> str:
        """The scale and the counter."""
        return f"DynamicLossScale(scale={self._scale:g}, counter={self._counter})"

    def _checked_scale(self, name: str, value: Any) -> float:
        scale = real_number(name, value)
        if not self._floor <= scale <= self._ceiling:
            raise ValueError(
                f"{name}: {value!r}, expected a number from {self._floor:g} to {self._ceiling:g}"
            )
        return scale
