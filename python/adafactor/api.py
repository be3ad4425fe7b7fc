"""The functions: init, step, update, and what they cost."""

from __future__ import annotations

from typing import Any

from adafactor import _core
from adafactor.config import Config
from adafactor.engine import call
from adafactor.engine.engine import Engine
from adafactor.engine.leaves import are_on_gpu, describe, foretell
from adafactor.errors import phrase
from adafactor.knobs.numbers import whole_number
from adafactor.report import StepReport
from adafactor.state import State, engine_of

__all__ = [
    "build_info",
    "get_num_threads",
    "init",
    "scratch_nbytes",
    "set_num_threads",
    "state_nbytes",
    "step",
    "update",
]


def init(params: Any, config: Config | None = None, /, *, overrides: Any = (), **knobs: Any) -> State:
    """Make the state of a tree of parameters; writes nothing into it.

    Args:
        params: any nesting of dict, list, tuple, namedtuple and dataclass around arrays of NumPy, torch, JAX
            or any library with DLPack or a buffer, or one array; of float32, float64, float16 or bfloat16
            (`ml_dtypes.bfloat16` in NumPy), of any shape and strides. Of them the state keeps shapes, dtypes
            and libraries, and no array.
        config: the knobs; None for the defaults.
        overrides: a sequence of (regular expression, dict of knobs): a leaf whose path the expression finds
            (`re.search`) has these knobs instead; the first match wins. A slash inside a key is ~1 in a path;
            the keys joined plainly are searched too. An expression that finds no leaf is a UserWarning. Knobs
            that concern the whole call (`global_clipnorm`, accumulation, loss scale, `on_nonfinite`, `seed`,
            and those of the average) cannot be overridden.
        **knobs: single knobs, put over `config`.

    Returns:
        A `State`: 6,144 bytes for a (1024, 512) float32 parameter, where Adam's takes 4,194,304.

    Raises:
        TypeError: an unknown knob, something in the tree that is not an array, an array of another dtype.
        ValueError: a knob out of its range, two leaves with one path, a tree that is too deep or circular.

    Source: Shazeer and Stern 2018, arXiv:1804.04235, section 3, for what is remembered.

    >>> import numpy as np, adafactor
    >>> adafactor.init({"w": np.zeros((4, 3), np.float32)}, overrides=[("w", {"weight_decay": None})])
    State(1 leaf, 28 bytes, 0 updates)
    """
    engine = Engine(describe(params, config, overrides, knobs))
    engine.warn_of_idle_patterns()
    return State(engine)


def step(
    params: Any, grads: Any, state: State, *, grad_multiplier: float = 1.0, learning_rate: Any = None
) -> StepReport:
    """Update the parameters and the state in place: one step of Adafactor.

    A call either completes or raises with every byte of parameters, gradients and state as before.

    Args:
        params: the tree that `init` was given, with arrays that can be written: of NumPy, torch (whether
            they require a gradient or not), or any library with DLPack or a buffer. Nobody may write those of
            JAX, which go to `update`. The version counters of torch's are raised.
        grads: a tree of the same structure with a gradient for each parameter, an array of whatever library
            and of its shape: float64 for float64, any of float32, bfloat16 and float16 for each other dtype;
            a leaf that is None is left alone, with a warning. Dicts are matched by key. Those of a module
            of torch are `{name: p.grad for name, p in module.named_parameters()}`.
        state: from `init`.
        grad_multiplier: every gradient is multiplied by it before anything else; finite; default 1.
        learning_rate: used for this call instead of the configured one, at least 0; a number, of which an
            override with a rate of its own gets the same part as `State.set_learning_rate` gives it, or a
            sequence with one for the config and one for each override. It counts as a schedule's value: no
            cap at 1/sqrt(t) unless `relative_step="always"`. Default None: the configured one.

    Returns:
        A `StepReport`.

    Raises:
        ValueError: a tree or shape that does not match, arrays that share memory, no gradient at all, a
            learning rate that is negative or not finite.
        TypeError: an array of the wrong kind or dtype.
        BufferError: a parameter that cannot be written: read-only, a copy, of JAX.
        FloatingPointError: a gradient, or a parameter, with NaN or Inf under `on_nonfinite="raise"`.
        RuntimeError: the state is in use, or was when this process was forked.

    Source: Shazeer and Stern 2018, arXiv:1804.04235, algorithms 4 to 6; `keras.optimizers.Adafactor`.

    >>> import numpy as np, adafactor
    >>> params = {"w": np.ones((2, 2), np.float32)}
    >>> state = adafactor.init(params, learning_rate=0.1)
    >>> report = adafactor.step(params, {"w": np.full((2, 2), 0.25, np.float32)}, state)
    >>> params["w"].tolist(), state.iterations
    ([[0.8999999761581421, 0.8999999761581421], [0.8999999761581421, 0.8999999761581421]], 1)
    """
    return call.step(engine_of(state), params, grads, grad_multiplier, learning_rate)


def update(
    params: Any, grads: Any, state: State, *, grad_multiplier: float = 1.0, learning_rate: Any = None
) -> tuple[Any, State, StepReport]:
    """Return new parameters and a new state; write to none of the inputs. For arrays that nobody may write.

    Args:
        params: as for `step`; may be read-only, and arrays of JAX.
        grads: as for `step`.
        state: from `init` or the last `update`; it stays as it is.
        grad_multiplier: as for `step`.
        learning_rate: as for `step`.

    Returns:
        (new parameters in a tree like `params`, new state, `StepReport`). A new parameter is an array of
        NumPy, torch or JAX as the old one, and of NumPy where that is of another library. The numbers are
        those of `step`, bit for bit. Raises what `step` raises.

    >>> import numpy as np, adafactor
    >>> before = np.ones(3)
    >>> after, state, report = adafactor.update(before, np.array([1.0, -2.0, 0.5]), adafactor.init(before))
    >>> before.tolist(), after.tolist()
    ([1.0, 1.0, 1.0], [0.999, 1.001, 0.999])
    """
    after = engine_of(state).copy()
    made, report = call.update(after, params, grads, grad_multiplier, learning_rate)
    return made, State(after), report


def state_nbytes(params: Any, config: Config | None = None, /, **knobs: Any) -> int:
    """Bytes that `init` would allocate for its arrays, without allocating them.

    Args:
        params: as for `init`; at the place of a leaf whatever has a shape and a dtype, such as a tensor on
            torch's meta device or on another one, or a `jax.ShapeDtypeStruct`.
        config: as for `init`.
        **knobs: as for `init`.

    Returns:
        Bytes, the same as `State.nbytes`: for a matrix one number a row and one a column, float32 (float64
        for a float64 leaf); momentum, average and accumulator take a number for each element besides.

    Raises:
        TypeError, ValueError: as `init`.

    >>> import numpy as np, adafactor
    >>> adafactor.state_nbytes(np.zeros((1024, 512), np.float32))
    6144
    """
    return foretell(params, config, knobs).state_nbytes


def scratch_nbytes(params: Any, config: Config | None = None, /, **knobs: Any) -> int:
    """Bytes that the first step allocates besides and the state keeps; independent of the number of threads.

    Args:
        params: as for `init`; at the place of a leaf whatever has a shape and a dtype, such as a tensor on
            torch's meta device or on another one, or a `jax.ShapeDtypeStruct`.
        config: as for `init`.
        **knobs: as for `init`.

    Returns:
        Bytes: as much as the moments, those of the columns once more, partial sums of at most 2 % of the
        largest leaf (or 64 KiB), and some hundred bytes a leaf. Of arrays on a GPU those in its memory, where
        partial sums take up to 1.3 % of the leaves, and ten bytes for each row of less than sixteen elements;
        the host has what a step on the CPU has, too.

    Raises:
        TypeError, ValueError: as `init`.

    >>> import numpy as np, adafactor
    >>> params = np.zeros((1024, 512), np.float32)
    >>> adafactor.scratch_nbytes(params) < 0.05 * params.nbytes
    True
    """
    plan = foretell(params, config, knobs)
    return plan.gpu_scratch_nbytes if are_on_gpu(params) else plan.scratch_nbytes


def set_num_threads(n: int) -> None:
    """Let every step use n threads at most; 0 goes back to the default. Results do not depend on it.

    An explicit number wins over OMP_NUM_THREADS, which launchers set to 1. It cannot make threads where there
    are none: a build with serial loops, or, where the threads are OpenMP's, a process forked from one that
    had loaded the package.

    Args:
        n: a whole number, at least 0. Small leaves take fewer threads, since more would not help.

    Raises:
        TypeError: n is not a whole number.
        ValueError: n is negative.

    >>> import adafactor
    >>> adafactor.set_num_threads(1); adafactor.get_num_threads()
    1
    >>> adafactor.set_num_threads(0)
    """
    number = whole_number("n", n)
    if number < 0:
        raise ValueError(f"n: {number}, expected a whole number >= 0")
    _core.set_num_threads(min(number, 2**30))


def get_num_threads() -> int:
    """Return how many threads a step may use: what `set_num_threads` chose, else the default.

    The default is OMP_NUM_THREADS as the first step found it, or the cores that the process may use: those
    of its affinity and of its control group. It is never more than the OpenMP runtimes in the process have,
    such as torch's, so that a limit of `threadpoolctl` counts. 1 where there are no threads.

    >>> import adafactor
    >>> adafactor.get_num_threads() >= 1
    True
    """
    return _core.get_num_threads()


def build_info() -> dict[str, Any]:
    """Return what was built, and what of it is in use.

    Returns:
        A dict: `version`; `isa`, the instruction set in use, and `isas`, those that this build has and this
        machine can run, the fastest last; `threads`, the kind of threads, such as "openmp" or "serial", and
        `num_threads`, how many a step may use; `compiler`. `cuda`: False in a build without it; else a dict
        with `toolkit` and `architectures`, by which and for which its kernels were compiled, the version of
        the `driver` and the number of `devices` that were found, and `missing`, why no step can run on a
        GPU, or None.

    Raises:
        ValueError: the environment variable `ADAFACTOR_ISA`, read when the first state is made or here, names
            none of `isas`. Unset or empty stands for the fastest; the bits of a step are the same with all.

    >>> import adafactor
    >>> adafactor.build_info()["version"] == adafactor.__version__
    True
    """
    try:
        return _core.build_info()
    except _core.Error as error:
        raise phrase(error) from None
