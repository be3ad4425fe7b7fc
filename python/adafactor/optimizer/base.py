"""An optimizer in Keras' shape but for its calls: knobs and state, and how both are written and read."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any, Concatenate, ParamSpec, Self

import numpy as np
from numpy.typing import NDArray

from adafactor import presets
from adafactor.arrays.bits import as_bits
from adafactor.config import Config
from adafactor.knobs.rates import rate_at_call
from adafactor.optimizer.rate import AssignableRate
from adafactor.optimizer.weights import head, restore, weights
from adafactor.schedules import serialized
from adafactor.state import State

__all__ = ["BaseOptimizer", "takes_arguments_of"]

_BESIDES = ("name", "learning_rate", "knobs")

# Keras' own arguments besides name and learning rate.
_KERAS = [name for name in inspect.signature(presets.keras).parameters if name not in _BESIDES]
_PATHS = "paths"  # in a store
_KNOBS = tuple(field.name for field in dataclasses.fields(Config))

_Arguments = ParamSpec("_Arguments")


def takes_arguments_of(
    function: Callable[_Arguments, Any],
) -> Callable[[Callable[..., None]], Callable[Concatenate[Any, _Arguments], None]]:
    """Give a constructor the arguments of a function, for `help`, editors and type checkers alike."""

    def decorate(constructor: Callable[..., None]) -> Callable[Concatenate[Any, _Arguments], None]:
        own = next(iter(inspect.signature(constructor).parameters.values()))
        signature = inspect.signature(function)
        parameters = [own, *signature.parameters.values()]
        shown = signature.replace(parameters=parameters, return_annotation=None)
        constructor.__signature__ = shown  # type: ignore[attr-defined]
        return constructor

    return decorate


class BaseOptimizer:
    """What an optimizer in Keras' shape is between its calls: knobs and state, and how both are written.

    The knobs of its config can be read as attributes.
    """

    @takes_arguments_of(presets.keras)
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Keep the knobs; memory is taken by `build`."""
        given = inspect.signature(presets.keras).bind(*args, **kwargs)
        given.apply_defaults()
        self._config = presets.keras(*args, **kwargs)
        name = given.arguments["name"]
        self.name: str = "adafactor" if name is None else name
        self._relative_step: bool = given.arguments["relative_step"]
        self._state: State | None = None

    @property
    def iterations(self) -> int:
        """Updates made; under accumulation fewer than there were calls."""
        return self._state.iterations if self._state else 0

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next call, which is the number or what the schedule or the callable gives.

        A number can be set, or assigned as to Keras' variable (`optimizer.learning_rate.assign(0.01)`), and
        so can a schedule or a callable; in their place no number can be set any more (TypeError), as in
        Keras.
        """
        rate = self._current.learning_rate
        if callable(rate):
            rate = rate_at_call(rate, self._state.calls if self._state else 0)
        return AssignableRate.of(rate, lambda value: setattr(self, "learning_rate", value))

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        if callable(self._current.learning_rate) and not callable(learning_rate):
            raise TypeError(
                f"learning_rate: {learning_rate!r} cannot be set in the place of a schedule or a callable; "
                "construct the optimizer with a number to set numbers later"
            )
        if self._state:
            self._state.set_learning_rate(learning_rate)
        else:
            self._config = self._config.replace(learning_rate=learning_rate)

    @property
    def built(self) -> bool:
        """Whether the optimizer has its variables and its state."""
        return self._state is not None

    @property
    def variables(self) -> list[NDArray[Any]]:
        """The state as a list, in Keras' order and without its full-size velocity of a factored variable.

        The number of calls; the learning rate, if it is a number; the averages and the accumulators of all
        variables, if there are any; then leaf by leaf the moments `row` and `col` or `full`, and `momentum`;
        at the end, with `count_updates="leaf"`, the updates of each leaf. All but the first two and the last
        are the state itself, not copies. Before `build` there are only the first two.
        """
        return weights(self._state) if self._state else head(0, self._config.learning_rate)

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Set the whole state; all is checked before anything is written.

        Args:
            weights: values for what `variables` lists. As in Keras they carry no names: they go in by their
                place, so that of variables of one shape nobody can tell which is which.

        Raises:
            ValueError: the optimizer was not built, a length or a shape does not match, a negative counter.
            TypeError: something that is not an array of numbers.

        >>> import numpy as np, adafactor
        >>> b = np.zeros(3)
        >>> first, second = adafactor.Adafactor(), adafactor.Adafactor()
        >>> first.apply([np.ones(3)], [b])
        1
        >>> second.build([b.copy()]); second.set_weights(first.variables); second.iterations
        1
        """
        restore(self._built("set_weights"), weights, "weights")

    def save_own_variables(self, store: MutableMapping[str, Any]) -> None:
        """Put a copy of what `variables` lists into a store, under "0", "1" and so on, and the paths.

        Together with `get_config` this is all that training goes on from, bit for bit.

        Args:
            store: anything with `store[key] = array`: a dict, a group of an HDF5 file. Momentum in bfloat16
                is stored as its bits, in uint16. Under "paths" are the paths of the variables in their order:
                a list in JSON, its bytes as uint8.

        >>> import numpy as np, adafactor
        >>> optimizer = adafactor.Adafactor()
        >>> optimizer.build([np.zeros((4, 3))])
        >>> store = {}
        >>> optimizer.save_own_variables(store); {key: array.shape for key, array in store.items()}
        {'0': (), '1': (), '2': (4,), '3': (3,), 'paths': (5,)}
        """
        for index, array in enumerate(self.variables):
            store[str(index)] = np.array(as_bits(array))
        if self._state:
            store[_PATHS] = np.frombuffer(json.dumps(self._state.paths).encode(), np.uint8)

    def load_own_variables(self, store: Mapping[str, Any]) -> None:
        """Set the state from what `save_own_variables` stored; raises as `set_weights`.

        It goes in by the paths, in whatever order the variables are now. A store without paths, as Keras
        writes it, goes in by place, as in `set_weights`. Keras warns of a store that does not match and goes
        on without it; here it is a ValueError.

        >>> import numpy as np, adafactor
        >>> optimizer = adafactor.Adafactor()
        >>> optimizer.build([np.zeros(3)])
        >>> optimizer.load_own_variables({"0": 7, "1": 0.1, "2": np.ones(3)})
        >>> optimizer.iterations, optimizer.learning_rate
        (7, 0.1)
        """
        state = self._built("load_own_variables")
        found = set(store.keys())
        paths = _paths_in(store[_PATHS]) if _PATHS in found else None
        keys = [str(index) for index in range(len(found - {_PATHS}))]
        if set(keys) != found - {_PATHS}:
            raise ValueError(f"store: keys {sorted(found)}, expected '0', '1' and so on")
        restore(state, [store[key] for key in keys], "store", paths)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments in values that JSON can write, under Keras' keys.

        `keras.optimizers.Adafactor.from_config` takes it too, unless there are knobs that Keras lacks. Of the
        variables excluded from weight decay those of `var_list` are in it, by their paths, once the optimizer
        is built.

        Raises:
            TypeError: the learning rate is a lambda, or another callable without a name.

        >>> import adafactor
        >>> config = adafactor.Adafactor(learning_rate=0.5, on_nonfinite="skip").get_config()
        >>> config["learning_rate"], config["relative_step"], config["on_nonfinite"]
        (0.5, True, 'skip')
        """
        config, plain = self._current, presets.keras()
        rate = config.learning_rate
        kept: dict[str, Any] = {
            "name": self.name,
            "learning_rate": serialized.to_dict(rate) if callable(rate) else rate,
        }
        kept |= {knob: getattr(self, knob) for knob in _KERAS}
        for knob in _KNOBS:
            value = getattr(config, knob)
            if knob not in kept and value != getattr(plain, knob):
                kept[knob] = list(value) if isinstance(value, tuple) else value
        return kept

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Self:
        """Build an optimizer from what `get_config`, also Keras', returned.

        Args:
            config: the arguments by name; a schedule as Keras serializes it.
            custom_objects: schedule classes and functions of your own by name.

        Raises:
            TypeError, ValueError: an argument that the constructor refuses, a schedule that nobody knows.

        >>> import adafactor
        >>> config = adafactor.Adafactor(weight_decay=0.004).get_config()
        >>> adafactor.Adafactor.from_config(config).weight_decay
        0.004
        """
        arguments = dict(config)
        if isinstance(arguments.get("learning_rate"), Mapping):
            arguments["learning_rate"] = serialized.from_dict(
                arguments["learning_rate"], custom_objects or {}
            )
        return cls(**arguments)

    def scale_loss(self, loss: Any) -> Any:
        """Return the loss times `loss_scale_factor`, by which the gradients are divided again.

        >>> import adafactor
        >>> adafactor.Adafactor(loss_scale_factor=1024.0).scale_loss(0.5)
        512.0
        """
        factor = self._current.loss_scale_factor
        return loss if factor is None else loss * factor

    @property
    def _current(self) -> Config:
        return self._state.config if self._state else self._config

    def _built(self, what: str) -> State:
        if self._state is None:
            raise ValueError(f"{what}: the optimizer is not built yet; call build(variables) first")
        return self._state

    def __getattr__(self, name: str) -> Any:
        """The knobs, as Keras has them."""
        if name == "relative_step":
            return self._relative_step
        # Not the learning rate: an AttributeError of a callable would end here too.
        if name in _KNOBS and name != "learning_rate":
            return getattr(self._current, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse to set a knob, or the learning rate by torch's name: it would change nothing."""
        if name == "lr":
            raise AttributeError("lr: cannot be set; did you mean 'learning_rate'?")
        if name in _KNOBS and name != "learning_rate":
            raise AttributeError(f"{name}: cannot be set; construct a new optimizer with it")
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        """Leaves, bytes and updates, or that there are none yet."""
        inside = repr(self._state)[len("State(") : -1] if self._state else "not built"
        return f"{type(self).__name__}({inside})"


def _paths_in(written: Any) -> list[str]:
    """The paths as `save_own_variables` wrote them."""
    with contextlib.suppress(ValueError):
        paths = json.loads(np.asarray(written).tobytes())
        if isinstance(paths, list) and all(isinstance(path, str) for path in paths):
            return paths
    raise ValueError(f"store {_PATHS}: expected a list of paths in JSON, its bytes as uint8")
