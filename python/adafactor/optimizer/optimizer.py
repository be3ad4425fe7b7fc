"""Adafactor: the optimizer as an object in Keras' shape. Its work is done by a `State`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from adafactor import presets
from adafactor.engine import call
from adafactor.engine.engine import Engine
from adafactor.engine.leaves import describe_leaves
from adafactor.knobs.patterns import pattern_of_path
from adafactor.optimizer.base import BaseOptimizer, takes_arguments_of
from adafactor.optimizer.variables import Variables, as_list
from adafactor.optimizer.weights import restore, weights
from adafactor.report import StepReport
from adafactor.state import State, engine_of
from adafactor.trees.given import Given
from adafactor.trees.tree import Tree

__all__ = ["Adafactor"]


class Adafactor(BaseOptimizer):
    """`keras.optimizers.Adafactor` on your own arrays: its arguments, methods and numbers, without Keras.

    The knobs can be read as attributes (`optimizer.clipnorm`); only the learning rate can be set. The arrays
    that the optimizer was built with are updated in place. It can be copied and pickled, with these arrays; a
    copy may be built again, which binds it to other arrays of the same structure and keeps its state.

    Args:
        learning_rate: at least 0; a number, one of `adafactor.schedules`, or a callable without arguments.
        beta_2_decay: at most 0. beta2 = 1 - t**beta_2_decay.
        epsilon_1: at least 0. Added to the squared gradient.
        epsilon_2: at least 0. Floor of the parameter's scale.
        clip_threshold: above 0. The update u is divided by max(1, rms(u) / clip_threshold). None: off.
        relative_step: True or False; without effect, as in Keras' code: the learning rate is capped at
            1/sqrt(t) in any case.
        weight_decay: at least 0. None: none.
        clipnorm: largest norm of the gradient of one variable. None, 0 and below: off.
        clipvalue: largest absolute value in a gradient. None, 0 and below: off.
        global_clipnorm: largest norm of all gradients together; at most one of the three is given.
        use_ema: keep a moving average of the variables.
        ema_momentum: in [0, 1]. Decay of that average.
        ema_overwrite_frequency: at least 1. Every so many updates the average replaces the variables.
        loss_scale_factor: above 0. Gradients are divided by it. None: 1.
        gradient_accumulation_steps: at least 2. That many calls are averaged into one update. None: 1.
        name: a name for you to see; None: "adafactor".
        **knobs: knobs of `Config` that Keras lacks, such as `on_nonfinite`.

    Raises:
        TypeError, ValueError: as `adafactor.presets.keras`.

    Source: `keras.optimizers.Adafactor` 3.15.1.

    >>> import numpy as np, adafactor
    >>> w = np.ones((2, 2), np.float32)
    >>> optimizer = adafactor.Adafactor(learning_rate=0.1)
    >>> optimizer.build([w])
    >>> optimizer.apply([np.full((2, 2), 0.25, np.float32)])
    1
    >>> w.tolist()
    [[0.8999999761581421, 0.8999999761581421], [0.8999999761581421, 0.8999999761581421]]
    """

    @takes_arguments_of(presets.keras)
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Keep the knobs; memory is taken by `build`."""
        super().__init__(*args, **kwargs)
        self._variables = Variables([])
        self._is_copy = False
        self._excluded: list[Any] = []
        self._patterns = self._config.exclude_from_weight_decay

    def build(self, variables: Any) -> None:
        """Make the state of these variables; nothing is written into them.

        A second time, it binds the optimizer to arrays of the same structure and keeps its state.

        Args:
            variables: a list, or any nesting of dict, list, tuple, namedtuple and dataclass, of arrays
                of the dtypes that `init` takes. A variable's name is its path: the position in a list, the
                key in a dict.

        Raises:
            TypeError, ValueError: as `adafactor.init`; and a ValueError where a variable of
                `exclude_from_weight_decay(var_list)` is not among them, or where the optimizer is built and
                the structure is another.

        >>> import numpy as np, adafactor
        >>> optimizer = adafactor.Adafactor()
        >>> optimizer.build({"kernel": np.zeros((4, 3), np.float32), "bias": np.zeros(3, np.float32)})
        >>> optimizer, optimizer.built
        (Adafactor(2 leaves, 40 bytes, 0 updates), True)
        """
        self._build(variables)

    def apply(self, grads: Any, trainable_variables: Any = None) -> int:
        """Update the variables in place with these gradients.

        A call either completes or raises with every variable and the state as before.

        Args:
            grads: a gradient for each variable: a list, or a tree as given to `build`, or one like
                `trainable_variables`. None leaves a variable alone, with a warning.
            trainable_variables: the variables that the gradients are of, a list or a tree: all of those that
                the optimizer was built with, or some, in any order; matched by their memory. The first call
                builds the optimizer with them. None: all of them, as they were given to `build`.

        Returns:
            The number of calls so far, accumulating ones too. Without any gradient it stays as it is.

        Raises:
            ValueError: the optimizer was not built and there are no variables, a variable is unknown or
                comes twice, a shape or a structure does not match, every gradient is None.
            TypeError, BufferError, FloatingPointError, RuntimeError: as `adafactor.step`.

        >>> import numpy as np, adafactor
        >>> w, b = np.ones((2, 3)), np.zeros(3)
        >>> optimizer = adafactor.Adafactor()
        >>> optimizer.apply([np.ones((2, 3)), np.ones(3)], [w, b]), optimizer.apply([np.ones(3)], [b])
        (1, 2)
        """
        return self._apply(grads, trainable_variables)

    def apply_gradients(self, grads_and_vars: Iterable[tuple[Any, Any]]) -> int:
        """Update the variables in place: `apply` with pairs of gradient and variable.

        Args:
            grads_and_vars: pairs, as from `zip(grads, variables)`.

        Returns:
            The number of calls so far.

        Raises:
            TypeError: something is no pair, or as `apply`.
            ValueError, BufferError, FloatingPointError, RuntimeError: as `apply`.

        >>> import numpy as np, adafactor
        >>> b = np.zeros(3)
        >>> adafactor.Adafactor().apply_gradients([(np.ones(3), b)]), b.tolist()
        (1, [-1e-06, -1e-06, -1e-06])
        """
        pairs = list(grads_and_vars)
        for index, pair in enumerate(pairs):
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                raise TypeError(
                    f"grads_and_vars[{index}]: {type(pair).__name__}, expected (gradient, variable)"
                )
        return self._apply([grad for grad, _ in pairs], [variable for _, variable in pairs])

    def stateless_apply(
        self, optimizer_variables: Sequence[Any], grads: Any, trainable_variables: Any
    ) -> tuple[Any, list[NDArray[Any]]]:
        """Return new variables; write neither into the arguments nor into the optimizer.

        Args:
            optimizer_variables: values for what `variables` lists.
            grads: as for `apply`, of all variables.
            trainable_variables: arrays of the structure that the optimizer was built with; may be read-only.

        Returns:
            (new trainable variables in a tree like `trainable_variables`, new optimizer variables). The
            numbers are those of `apply`, bit for bit.

        Raises:
            TypeError, ValueError: as `set_weights` and `apply`.
            FloatingPointError, RuntimeError: as `apply`.

        >>> import numpy as np, adafactor
        >>> optimizer, b = adafactor.Adafactor(), np.zeros(3)
        >>> optimizer.build([b])
        >>> after, variables = optimizer.stateless_apply(optimizer.variables, [np.ones(3)], [b])
        >>> b.tolist(), after[0].tolist(), int(variables[0]), optimizer.iterations
        ([0.0, 0.0, 0.0], [-1e-06, -1e-06, -1e-06], 1, 0)
        """
        state = self._built("stateless_apply").copy()
        restore(state, optimizer_variables, "optimizer_variables")
        variables, grads = as_list(trainable_variables), as_list(grads)
        made, _ = call.update(engine_of(state), variables, grads, role="trainable_variables")
        return made, weights(state)

    def complete_window(self) -> StepReport:
        """Make the update of an open window of accumulation from what it has: `State.complete_window`.

        Raises:
            ValueError: the optimizer was not built.

        >>> import numpy as np, adafactor
        >>> b = np.zeros(2)
        >>> optimizer = adafactor.Adafactor(gradient_accumulation_steps=4)
        >>> optimizer.apply([np.ones(2)], [b]), optimizer.complete_window().updated, b.tolist()
        (1, True, [-1e-06, -1e-06])
        """
        engine, leaves = engine_of(self._built("complete_window")), self._variables.leaves
        with engine.in_use():
            return call.complete_window(engine, leaves, leaves, "stateless_apply")

    def drop_window(self) -> None:
        """Forget the calls of an open window of accumulation: `State.drop_window`.

        Raises:
            ValueError: the optimizer was not built.

        >>> import numpy as np, adafactor
        >>> optimizer = adafactor.Adafactor(gradient_accumulation_steps=4)
        >>> optimizer.apply([np.ones(2)], [np.zeros(2)])
        1
        >>> optimizer.drop_window(); optimizer.complete_window().updated
        False
        """
        self._built("drop_window").drop_window()

    def exclude_from_weight_decay(self, var_list: Any = None, var_names: Iterable[str] | None = None) -> None:
        """Exclude variables from weight decay, in the place of those that an earlier call excluded.

        Args:
            var_list: a list or tree of variables, matched by their memory with those of `build`.
            var_names: regular expressions; a variable whose path one of them finds (`re.search`) does not
                decay. In a list a path is the position, in a dict the key.

        Raises:
            ValueError: the optimizer has been built already (Keras ignores the call then), or something is no
                regular expression.

        >>> import numpy as np, adafactor
        >>> params = {"kernel": np.ones((2, 2)), "bias": np.ones(2)}
        >>> optimizer = adafactor.Adafactor(learning_rate=0.5, weight_decay=0.5)
        >>> optimizer.exclude_from_weight_decay(var_names=["bias"])
        >>> optimizer.apply({"kernel": np.zeros((2, 2)), "bias": np.zeros(2)}, params)
        1
        >>> params["kernel"].tolist(), params["bias"].tolist()
        ([[0.75, 0.75], [0.75, 0.75]], [1.0, 1.0])
        """
        if self.built:
            raise ValueError(
                "exclude_from_weight_decay: the optimizer is built; call it before build and apply"
            )
        excluded = [] if var_list is None else Tree.of(as_list(var_list), "var_list")[1]
        names = [var_names] if isinstance(var_names, str) else list(var_names or ())
        patterns = (*self._patterns, *names)
        self._config = self._config.replace(exclude_from_weight_decay=patterns)
        self._excluded = excluded

    def finalize_variable_values(self, var_list: Any) -> None:
        """Copy the averages into the variables at the end of training; without `use_ema` do nothing.

        Args:
            var_list: all variables, a list or a tree in any order, matched by their memory.

        Raises:
            ValueError: the optimizer was not built, no update was made yet, a variable is unknown, comes
                twice or is missing.

        >>> import numpy as np, adafactor
        >>> b = np.zeros(2)
        >>> optimizer = adafactor.Adafactor(learning_rate=1.0, use_ema=True, ema_momentum=0.5)
        >>> optimizer.apply([np.ones(2)], [b]), optimizer.apply([np.ones(2)]), b.round(6).tolist()
        (1, 2, [-0.001707, -0.001707])
        >>> optimizer.finalize_variable_values([b]); b.round(6).tolist()
        [-0.001354, -0.001354]
        """
        if not self._current.use_ema:
            return
        engine = engine_of(self._built("finalize_variable_values"))
        leaves = self._variables.leaves
        places = self._variables.places(*Tree.of(as_list(var_list), "var_list"), "var_list")
        if len(places) != len(leaves):
            raise ValueError(f"var_list: {len(places)} variables, expected all {len(leaves)}")
        with engine.in_use():
            engine.finalize(leaves)

    def _apply(self, grads: Any, variables: Any) -> int:
        grads = as_list(grads)
        if isinstance(grads, list) and not grads:
            return self._state.calls if self._state else 0
        if variables is None:
            engine, handed = engine_of(self._built("apply")), None
            gradients = engine.tree.leaves(grads, "grads", allow_none=True)
            self._variables.warn_of_unseen(engine.paths)
        else:
            handed, given = self._match(grads, as_list(variables))
            engine = engine_of(self._built("apply"))
            gradients = [None] * len(self._variables.leaves)
            for place, gradient in zip(handed, given, strict=True):
                gradients[place] = gradient
        leaves = self._variables.leaves
        with engine.in_use():
            call.run(engine, Given.of(leaves, gradients), leaves, handed=handed, twin="stateless_apply")
        return engine.core.calls

    def _match(self, grads: Any, variables: Any) -> tuple[list[int], list[Any]]:
        """Which variables these are, and their gradients; builds the optimizer if that has not been done."""
        # The lists of a training loop need no look at their structure: what is no array is refused later.
        if type(grads) is type(variables) is list and len(grads) == len(variables):
            known = self._variables.known(variables)
            if known is not None:
                return known, grads
        tree, wanted = Tree.of(variables, "trainable_variables")
        given = tree.leaves(grads, "grads", allow_none=True)
        # A copy takes the arrays that it is handed first, unless it was copied with them.
        if not self.built or (self._is_copy and None in self._variables.find(wanted)):
            self._build(variables)
        return self._variables.places(tree, wanted, "trainable_variables"), given

    def _build(self, variables: Any) -> None:
        variables = as_list(variables)
        if self._state is None:
            tree, leaves = Tree.of(variables, "variables")
            found = Variables(leaves)
            patterns = (*self._config.exclude_from_weight_decay, *self._excluded_paths(tree, found))
            config = self._config.replace(exclude_from_weight_decay=patterns)
            engine = Engine(describe_leaves(tree, leaves, config))
            engine.warn_of_idle_patterns()
            self._state = State(engine)
            self._excluded = []  # from now on they are paths
        else:
            engine = engine_of(self._state)
            with engine.in_use():
                leaves = engine.tree.leaves(variables, "variables")
                engine.check_params(leaves, twin="stateless_apply")
            found = Variables(leaves)
        self._variables, self._is_copy = found, False

    def _excluded_paths(self, tree: Tree, variables: Variables) -> Iterator[str]:
        """A regular expression for each variable that was excluded from weight decay as an array."""
        for array, place in zip(self._excluded, variables.find(self._excluded), strict=True):
            if place is None:
                raise ValueError(
                    f"exclude_from_weight_decay: var_list has an array of shape {np.shape(array)} that is "
                    "not among the variables; they are matched by memory, so that a copy is another"
                )
            yield pattern_of_path(tree.paths[place])

    def __setstate__(self, kept: dict[str, Any]) -> None:
        """Become a copy, with copies of the arrays."""
        vars(self).update(kept, _is_copy=True)

    def __copy__(self) -> Self:
        """An optimizer with a state of its own for the same arrays."""
        clone = type(self).__new__(type(self))
        vars(clone).update(vars(self) | {"_state": self._state and self._state.copy()})
        return clone
