"""Adafactor in the shape of `torch.optim`: groups and state dicts as torch's own Adafactor has them."""

from __future__ import annotations

import contextlib
import functools
import itertools
import operator
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from adafactor import _core
from adafactor.config import Config
from adafactor.engine.leaves import resolve
from adafactor.errors import phrase
from adafactor.knobs.numbers import shown
from adafactor.report import StepReport
from adafactor.torch.backward import FusedBackward
from adafactor.torch.calls import Leaves, Places, refuse_sparse
from adafactor.torch.groups import (
    Key,
    check_rate,
    configs_of,
    dialect_of_torch,
    group_of_config,
    key_of,
    rates_of,
    refuse_misnamed,
    require_alone,
)
from adafactor.torch.hooks import HookedOptimizer
from adafactor.torch.loading import states_in
from adafactor.torch.scaler import PLAIN, Scale, scale_of
from adafactor.torch.several import AnyCalls, calls_on

__all__ = ["Adafactor"]

# The defaults of torch, objects of their own: so an argument that nobody gave is known from an equal one.
_LR, _BETA2_DECAY, _FLOOR, _D, _WEIGHT_DECAY = map(float, ("1e-2", "-0.8", "1e-3", "1.0", "0.0"))
_EPS: tuple[float | None, float] = (None, _FLOOR)

_GRADIENT_OF = operator.attrgetter("grad")


class Adafactor(HookedOptimizer):
    """Adafactor as a `torch.optim.Optimizer`, with the signature and the numbers of `torch.optim.Adafactor`.

    State dicts move between the two unchanged, in both directions. A step is one fused call of the core; it
    completes or leaves every byte of parameters and state as it was. Moments are float32 (float64 for a
    float64 parameter), also those of parameters in 16 bits. Groups are read at each step, and every knob of
    `Config` may differ from group to group, but those of the whole call (`global_clipnorm`, `use_ema` and its
    kin, `on_nonfinite`, `seed`). Sparse, complex and sharded parameters are refused by name.

    Parameters lie in the CPU's memory or on a GPU of NVIDIA, where the package was built for them, with the
    same bits; those on several GPUs are stepped in one call for each. Such a call is given to the GPU's
    current stream, and waits for it under `on_nonfinite="raise"` alone: with "skip" or "propagate" what it
    found, the counts in `state` included, is known once somebody looks at the report or takes a state dict.

    Args:
        params: parameters, groups (dicts), or named parameters, as in torch. The names are the paths in
            messages and in `report`; without them a parameter's index in `state_dict()` is.
        lr: learning rate, at least 0; a tensor of one element too. None: the config's. Default: 1e-2, or the
            config's.
        beta2_decay: at most 0; beta2 = 1 - t**beta2_decay. Default: -0.8.
        eps: the floor of the second moment's root (None: `finfo(dtype).eps`), and that of the parameter's
            scale. Default: (None, 1e-3).
        d: at least 1; the update u is divided by max(1, rms(u) / d). Default: 1.0.
        weight_decay: at least 0; decoupled, times the learning rate. Default: 0.0, or the config's.
        foreach: without effect, since every step is fused.
        maximize: ascend instead of descend. Default: False, or the config's.
        config: the knobs of another dialect, as in `config=adafactor.presets.transformers(...)`; then
            `beta2_decay`, `eps` and `d` are not to be given. A group holds its knobs under torch's names,
            where torch has one, and under those of `Config`.
        **knobs: knobs of `Config` besides, such as `clipnorm=1.0` or `rounding="stochastic"`. Accumulation
            and loss scale are torch's own affair, and not among them.

    Attributes:
        report: the `StepReport` of the last call that did something; None before it.

    Raises:
        TypeError, ValueError: an argument of the wrong kind or out of its range, in torch's words where torch
            refuses it too.

    Source: Shazeer and Stern 2018, arXiv:1804.04235; `torch.optim.Adafactor`, torch 2.13.0.

    >>> import torch, adafactor.torch
    >>> model = torch.nn.Linear(4, 2)
    >>> optimizer = adafactor.torch.Adafactor(model.named_parameters(), lr=0.1)
    >>> model(torch.ones(3, 4)).sum().backward()
    >>> optimizer.step()
    >>> optimizer.report.updated, sorted(optimizer.state[model.weight])
    (True, ['col_var', 'row_var', 'step'])
    """

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor | None = _LR,
        beta2_decay: float = _BETA2_DECAY,
        eps: tuple[float | None, float] = _EPS,
        d: float = _D,
        weight_decay: float = _WEIGHT_DECAY,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        config: Config | None = None,
        **knobs: Any,
    ) -> None:
        self._forget()
        if config is None:
            config = dialect_of_torch(lr, beta2_decay, eps, d, weight_decay, maximize, knobs)
        else:
            given = {"beta2_decay": beta2_decay is not _BETA2_DECAY, "eps": eps is not _EPS, "d": d is not _D}
            for name, is_given in given.items():
                if is_given:
                    raise TypeError(f"{name}: goes into the config, and not beside it")
            beside = {"weight_decay": weight_decay} if weight_decay is not _WEIGHT_DECAY else {}
            beside |= {"maximize": maximize} if maximize is not False else {}
            config = resolve(config, {**beside, **knobs})
            if lr is _LR or lr is None:
                if callable(config.learning_rate):
                    found, instead = shown(config.learning_rate), "a scheduler of torch.optim changes it"
                    raise ValueError(f"learning_rate: {found}, expected a number; {instead}")
                lr = config.learning_rate
            check_rate(lr)
        super().__init__(params, group_of_config(config, lr, foreach))

    def _forget(self) -> None:
        """Begin without what a call leaves for the next one."""
        self._busy = threading.Lock()
        self._stepper = 0  # the thread that has it
        self._calls: AnyCalls | None = None
        self._single = Places()
        self._report: StepReport | None = None

    @property
    def report(self) -> StepReport | None:
        """What the last call found, of all its parameters, or of the one of `step_param`; None before it.

        Where a GPU may still be at that call, the first look at a number waits for it.
        """
        return self._report

    def _settle(self) -> None:
        """Wait until GPUs are done with all calls, the last of which an interrupt may have hidden."""
        self._single.settle()
        if self._calls is not None:
            self._calls.settle()

    def state_dict(self) -> dict[str, Any]:
        """Return what torch's optimizers return, for this class and for `torch.optim.Adafactor`."""
        self._settle()
        return super().state_dict()

    def __getstate__(self) -> dict[str, Any]:
        """What pickle and copy keep."""
        self._settle()
        return super().__getstate__()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, whose values may differ from the others'; as in torch.

        Raises:
            TypeError, ValueError: what torch raises; a value that its knob does not take, a name that is none
                of a group's. No group is added.

        >>> import torch, adafactor.torch
        >>> weight, bias = torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(2))
        >>> optimizer = adafactor.torch.Adafactor([weight], weight_decay=0.01)
        >>> optimizer.add_param_group({"params": [bias], "weight_decay": 0.0, "clipnorm": 1.0})
        >>> [group["weight_decay"] for group in optimizer.param_groups]
        [0.01, 0.0]
        """
        if isinstance(param_group, dict):  # else torch says what it is
            refuse_misnamed(param_group)
            groups = [*self.param_groups, {**self.defaults, **param_group}]
            configs_of(list(map(key_of, groups)))
        super().add_param_group(param_group)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over what was pickled, copied or loaded; values that a group lacks are the defaults."""
        super().__setstate__(state)
        self._forget()
        for group in self.param_groups:
            for name, value in self.defaults.items():
                if name != "differentiable":  # torch's own, which a group that was not loaded lacks
                    group.setdefault(name, value)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient, or do nothing at all.

        Args:
            closure: evaluated first, with gradients enabled; its value is returned.

        Returns:
            What the closure returned, or None.

        Raises:
            FloatingPointError: a gradient with NaN or Inf, under `on_nonfinite="raise"`, or a parameter that
                has it at the first step; one that gets it later is left alone, and the next step raises.
            RuntimeError: complex parameters, sparse gradients; another thread is in a step.
            TypeError, ValueError, BufferError: a tensor that lies on another device, a value of a group that
                its knob does not take, parameters that share memory, a state that does not fit.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        parameters = list(itertools.chain.from_iterable(group["params"] for group in self.param_groups))
        scale = scale_of(self, parameters)
        if scale is None:
            return loss
        gradients = list(map(_GRADIENT_OF, parameters))
        absent = _core.places_of_none(gradients)
        if len(absent) == len(parameters):
            return loss
        frozen = frozenset(index for index in absent if not parameters[index].requires_grad)
        if frozen:
            parameters = [p for index, p in enumerate(parameters) if index not in frozen]
            gradients = [g for index, g in enumerate(gradients) if index not in frozen]
        cuts = (frozen, *(len(group["params"]) for group in self.param_groups))
        with self._stepping():
            self._single.settle_report()
            leaves = functools.partial(Leaves.among, self.param_groups, parameters)
            groups = self.param_groups
            self._calls = self._run(self._calls, groups, cuts, leaves, parameters, gradients, scale)
        return loss

    @contextlib.contextmanager
    def _stepping(self, waits: bool = False) -> Iterator[None]:
        """One step at a time; who waits does so for another thread's, as in a backward over several GPUs."""
        thread = threading.get_ident()
        if not self._busy.acquire(blocking=waits and self._stepper != thread):
            raise RuntimeError(
                "optimizer in use: another step, from a thread or from inside this one, runs on it"
            )
        self._stepper = thread
        try:
            yield
        finally:
            self._stepper = 0
            self._busy.release()

    def step_param(self, param: torch.Tensor) -> None:
        """Update one parameter, and free its gradient. The bits are those of `step`.

        For gradients that are stepped as soon as each is complete: see `fuse_backward`. The state is the one
        that `step` uses, and the scratch is that of one parameter.

        Args:
            param: one of the optimizer's.

        Raises:
            ValueError: it is in no group; `global_clipnorm`, which needs all gradients at once;
                `count_updates="state"`, which counts those of others. Else what `step` raises; then the
                gradient stays.

        >>> import torch, adafactor.torch
        >>> weight = torch.nn.Parameter(torch.ones(2, 2))
        >>> optimizer = adafactor.torch.Adafactor([weight], lr=0.1)
        >>> weight.square().sum().backward()
        >>> optimizer.step_param(weight)
        >>> weight.grad, f"{weight[0, 0].item():.1f}"
        (None, '0.9')
        """
        with self._stepping(waits=True):
            if self._calls is not None:
                self._calls.settle_report()
            place = self._single.find(param, self.param_groups)
            if param.grad is None:
                return
            require_alone(place.group)
            place.calls = self._run(place.calls, [place.group], (), place.leaves, [param], [param.grad])
        param.grad = None

    def fuse_backward(self, model: torch.nn.Module, *, per_rank: bool = False) -> FusedBackward:
        """Have each parameter stepped, and its gradient freed, as soon as a backward has completed it.

        The gradients of a model then never stand in memory together: their peak is that of the largest
        parameter. `step()` afterwards finds no gradient and does nothing, so that schedulers stay content.

        Args:
            model: its parameters that are in a group are stepped so.
            per_rank: allow it in a process group of several ranks, each of which then trains for itself.

        Returns:
            A `FusedBackward`: `remove()` ends it, and so does the end of a `with`; inside of its
            `with fused.accumulating():` gradients add up, and nothing is stepped.

        Raises:
            ValueError: what would go wrong in silence: a model in DistributedDataParallel or FSDP, which
                still has to bring the gradients of the ranks together; `global_clipnorm` and
                `count_updates="state"`; a model without a parameter of the optimizer.

        Under a GradScaler gradients are still scaled, and `clip_grad_norm_` comes too late: `clipnorm` does
        it for each parameter.

        >>> import torch, adafactor.torch
        >>> model = torch.nn.Linear(4, 2)
        >>> optimizer = adafactor.torch.Adafactor(model.parameters())
        >>> fused = optimizer.fuse_backward(model)
        >>> model(torch.ones(3, 4)).sum().backward()
        >>> [parameter.grad for parameter in model.parameters()]
        [None, None]
        >>> fused.remove()
        """
        return FusedBackward(self.param_groups, self.step_param, model, per_rank)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load what `state_dict()` of this class, or of `torch.optim.Adafactor`, returned.

        As in torch, hooks and the values of groups included. Tensors are copied, into the dtypes that the
        state has here, and nothing is shared with what was given.

        Args:
            state_dict: it is not written to.

        Raises:
            TypeError, ValueError: groups of other sizes; the state of another optimizer; a value that its
                knob does not take; a moment that is negative, not finite or of another shape; a count that is
                none. Nothing was changed.

        >>> import torch, adafactor.torch
        >>> weight = torch.nn.Parameter(torch.ones(2, 2))
        >>> weight.grad = torch.ones(2, 2)
        >>> theirs = torch.optim.Adafactor([weight])
        >>> theirs.step()
        >>> ours = adafactor.torch.Adafactor([weight])
        >>> ours.load_state_dict(theirs.state_dict())
        >>> ours.state[weight]["row_var"].shape
        torch.Size([2, 1])
        """
        kept: dict[torch.Tensor, dict[str, Any]] = {}

        def take(_: Any, given: dict[str, Any]) -> dict[str, Any]:  # after the user's hooks
            kept.update(states_in(given, self.param_groups, self.defaults))
            return {**given, "state": {}}

        def put(_: Any) -> None:  # before the user's hooks
            self.state.update(kept)

        handles = (
            self.register_load_state_dict_pre_hook(take),
            self.register_load_state_dict_post_hook(put, prepend=True),
        )
        try:
            super().load_state_dict(dict(state_dict))
        finally:
            for handle in handles:
                handle.remove()

    def _run(
        self,
        calls: AnyCalls | None,
        groups: list[dict[str, Any]],
        cuts: Key,
        leaves: Callable[[], Leaves],
        parameters: list[torch.Tensor],
        gradients: list[torch.Tensor | None],
        scale: Scale = PLAIN,
    ) -> AnyCalls:
        """Make one call of these, or of new ones where anything has changed; returns those that made it.

        `cuts` tells in which of the groups each parameter is, `leaves` what they are called.
        """
        if calls is not None:
            calls.settle_report()
        keys = list(map(key_of, groups))
        rates = rates_of(groups, self.defaults["lr"])
        if calls is not None and calls.serve(parameters, keys, cuts, self.state):
            try:
                self._report = calls.run(gradients, rates, scale)
                return calls
            except KeyError:
                pass
            except _core.Error as error:
                if error.kind in ("nonfinite", "busy"):
                    raise phrase(error, calls.paths) from None
            # Somebody may have given a parameter another dtype, or put another tensor into its state.
        found = leaves()
        refuse_sparse(found, gradients)
        is_first = not self.state
        calls = calls_on(found, keys, cuts, self.state, calls)
        if is_first and not any(rates) and not any(map(_has_anything, gradients)):
            return calls  # torch's helpers for checkpoints want the state to be there, and nothing to be done
        try:
            self._report = calls.run(gradients, rates, scale)
        except _core.Error as error:
            raise phrase(error, calls.paths) from None
        return calls


def _has_anything(gradient: torch.Tensor | None) -> bool:
    return gradient is not None and bool(gradient.any())
