"""Who steps: this project, with its options and on other libraries' arrays, and the optimizers beside it.

Each contestant makes, out of NumPy parameters and gradients, a step on a copy of the parameters. No step
writes to a gradient, so those are shared where the library can. Settings are the library's defaults, but all
have one learning rate and none has momentum. Libraries are imported where they are used.
"""

import functools
import importlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

import adafactor
from benchmarks import trees
from benchmarks.traffic import Streams

Arrays = list[Any]
LEARNING_RATE = 1e-2  # torch's and transformers' default
# Where many steps with the same gradients are timed: parameters that grew all the time would leave float.
TIMED_LEARNING_RATE = 1e-6


class Made(NamedTuple):
    """A step, and a look at the parameters as it left them, in the order of the leaves."""

    step: Callable[[], object]
    parameters: Callable[[], Arrays]


class Contestant(NamedTuple):
    """How a contestant is shown, made and counted."""

    title: str
    make: Callable[..., Made]  # of parameters and gradients; takes a learning_rate
    needs: Sequence[str] = ()  # modules
    keras: str | None = None  # the backend, which Keras fixes when it is imported: a process for each
    streams: Streams | None = None  # of this project's steps
    calls: int = 1  # of the library in one step of what is made
    bytes_per_float32: int | None = None  # that a peer has to move, where that is plain


def ours(params: Arrays, grads: Arrays, learning_rate: float = LEARNING_RATE, **knobs: Any) -> Made:
    params = [trees.aligned(array) for array in params]
    state = adafactor.init(params, learning_rate=learning_rate, **knobs)
    return Made(lambda: adafactor.step(params, grads, state), lambda: params)


def ours_in_sixteen_bits(
    params: Arrays, grads: Arrays, learning_rate: float = LEARNING_RATE, *, gradients_too: bool
) -> Made:
    dtype = trees.numpy_dtype("bfloat16")
    return ours(
        [array.astype(dtype) for array in params],  # `ours` copies them to where they begin
        [trees.aligned(array, dtype) for array in grads] if gradients_too else grads,
        learning_rate,
    )


def ours_accumulating(params: Arrays, grads: Arrays, learning_rate: float = LEARNING_RATE) -> Made:
    made = ours(params, grads, learning_rate, gradient_accumulation_steps=2)

    def window() -> None:
        made.step()
        made.step()

    return Made(window, made.parameters)


def torch_tensor(array: Any) -> Any:
    """A tensor over the array's memory; torch knows no bfloat16 of NumPy's, so that goes by its bits."""
    import torch

    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view("int16")).view(torch.bfloat16)
    return torch.from_numpy(array)


def torch_array(tensor: Any) -> Any:
    import torch

    tensor = tensor.detach()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def torch_parameters(params: Arrays, grads: Arrays) -> Arrays:
    """Parameters with their gradients, as a module has them after a backward."""
    import torch

    parameters = [torch.nn.Parameter(torch_tensor(trees.aligned(array))) for array in params]
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = torch_tensor(grad)
    return parameters


def of_torch(
    params: Arrays,
    grads: Arrays,
    learning_rate: float = LEARNING_RATE,
    *,
    module: str,
    name: str,
    **settings: Any,
) -> Made:
    """An optimizer in torch's shape, from whichever library."""
    parameters = torch_parameters(params, grads)
    optimizer = getattr(importlib.import_module(module), name)(parameters, lr=learning_rate, **settings)
    return Made(optimizer.step, lambda: [torch_array(parameter) for parameter in parameters])


def ours_on_torch(params: Arrays, grads: Arrays, learning_rate: float = LEARNING_RATE) -> Made:
    """Each step gathers the gradients from the parameters, as those of torch's own optimizers do."""
    named = {f"parameter.{index}": each for index, each in enumerate(torch_parameters(params, grads))}
    state = adafactor.init(named, learning_rate=learning_rate)

    def step() -> None:
        adafactor.step(named, {name: parameter.grad for name, parameter in named.items()}, state)

    return Made(step, lambda: [torch_array(parameter) for parameter in named.values()])


def ours_as_optimizer(params: Arrays, grads: Arrays, learning_rate: float = LEARNING_RATE) -> Made:
    config = adafactor.Config(learning_rate=learning_rate)
    return of_torch(params, grads, learning_rate, module="adafactor.torch", name="Adafactor", config=config)


def ours_on_jax(params: Arrays, grads: Arrays, learning_rate: float = LEARNING_RATE) -> Made:
    """The functional call, whose results are the next one's inputs."""
    import jax

    values = [jax.numpy.array(array) for array in params]
    gradients = [jax.numpy.asarray(array) for array in grads]
    held = [values, adafactor.init(values, learning_rate=learning_rate)]

    def step() -> None:
        held[:] = adafactor.update(held[0], gradients, held[1])[:2]
        jax.block_until_ready(held[0])

    return Made(step, lambda: [np.asarray(value) for value in held[0]])


class Exporter:
    """An array that can be had through `__dlpack__` alone, as from a library that nobody here knows."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._array.__dlpack_device__()

    def __dlpack__(self, *, max_version: tuple[int, int] | None = None) -> object:
        return self._array.__dlpack__(max_version=max_version)


def ours_through_dlpack(params: Arrays, grads: Arrays, learning_rate: float = LEARNING_RATE) -> Made:
    params = [trees.aligned(array) for array in params]
    exported, gradients = ([Exporter(array) for array in arrays] for arrays in (params, grads))
    state = adafactor.init(exported, learning_rate=learning_rate)
    return Made(lambda: adafactor.step(exported, gradients, state), lambda: params)


def optax_step(params: Arrays, grads: Arrays, learning_rate: float = LEARNING_RATE) -> Made:
    """The compiled step, with the old parameters and state given away to it, as a training loop has it."""
    import jax
    import optax

    optimizer = optax.adafactor(learning_rate=learning_rate)

    @functools.partial(jax.jit, donate_argnums=(0, 2))
    def compiled(values: Any, gradients: Any, state: Any) -> Any:
        updates, state = optimizer.update(gradients, state, values)
        return optax.apply_updates(values, updates), state

    values = [jax.numpy.array(array) for array in params]
    gradients = [jax.numpy.asarray(array) for array in grads]
    held = [values, optimizer.init(values)]

    def step() -> None:
        held[:] = compiled(held[0], gradients, held[1])
        jax.block_until_ready(held)

    return Made(step, lambda: [np.asarray(value) for value in held[0]])


def keras_on_torch(params: Arrays, grads: Arrays, learning_rate: float = LEARNING_RATE) -> Made:
    import keras
    import torch

    variables = [
        keras.Variable(torch_tensor(trees.aligned(array)), dtype=array.dtype.name) for array in params
    ]
    gradients = [torch_tensor(array) for array in grads]
    optimizer = keras.optimizers.Adafactor(learning_rate)
    optimizer.build(variables)

    def step() -> None:
        with torch.no_grad():
            optimizer.apply(gradients, variables)

    return Made(step, lambda: [torch_array(each.value) for each in variables])


def keras_on_jax(params: Arrays, grads: Arrays, learning_rate: float = LEARNING_RATE) -> Made:
    """The optimizer's stateless half, compiled, as Keras' own training loop on JAX has it."""
    import jax
    import keras

    variables = [keras.Variable(array, dtype=array.dtype.name) for array in params]
    gradients = [jax.numpy.asarray(array) for array in grads]
    optimizer = keras.optimizers.Adafactor(learning_rate)
    optimizer.build(variables)
    compiled = jax.jit(optimizer.stateless_apply, donate_argnums=(0, 2))
    held = [[each.value for each in variables], [each.value for each in optimizer.variables]]

    def step() -> None:
        held[:] = compiled(held[1], gradients, held[0])
        jax.block_until_ready(held)

    return Made(step, lambda: [np.asarray(value) for value in held[0]])


_NO_MOMENTUM = {"betas": (None, 0.999), "relative_step": False}
_torch_adafactor = functools.partial(of_torch, module="torch.optim", name="Adafactor")

OURS = "adafactor"
PROPAGATE = "propagate"
OPTIMIZER = "route-torch-optimizer"
CONTESTANTS = {
    OURS: Contestant("adafactor", ours, streams=Streams()),
    PROPAGATE: Contestant(
        'adafactor, on_nonfinite="propagate"',
        functools.partial(ours, on_nonfinite="propagate"),
        streams=Streams(looks_first=False),
    ),
}
# The same step on the arrays of each library that is taken.
ROUTES = {
    "route-numpy": Contestant("adafactor.step, arrays of NumPy", ours),
    "route-torch": Contestant("adafactor.step, parameters of torch", ours_on_torch, ["torch"]),
    OPTIMIZER: Contestant("adafactor.torch.Adafactor", ours_as_optimizer, ["torch"], streams=Streams()),
    "route-dlpack": Contestant("adafactor.step, DLPack alone", ours_through_dlpack),
    "route-jax": Contestant("adafactor.update, arrays of JAX", ours_on_jax, ["jax"]),
}
PEERS = {
    "torch": Contestant(
        "torch.optim.Adafactor, for-loop", functools.partial(_torch_adafactor, foreach=False), ["torch"]
    ),
    "torch-foreach": Contestant(
        "torch.optim.Adafactor, foreach", functools.partial(_torch_adafactor, foreach=True), ["torch"]
    ),
    "transformers": Contestant(
        "transformers.Adafactor",
        functools.partial(
            of_torch, module="transformers.optimization", name="Adafactor", relative_step=False
        ),
        ["torch", "transformers"],
    ),
    "pytorch-optimizer": Contestant(
        "pytorch_optimizer.AdaFactor",
        functools.partial(of_torch, module="pytorch_optimizer", name="AdaFactor", **_NO_MOMENTUM),
        ["torch", "pytorch_optimizer"],
    ),
    "optax": Contestant("optax.adafactor, jit, donated", optax_step, ["jax", "optax"]),
    "keras-torch": Contestant("keras Adafactor on torch", keras_on_torch, ["keras", "torch"], keras="torch"),
    "keras-jax": Contestant("keras Adafactor on jax, jit", keras_on_jax, ["keras", "jax"], keras="jax"),
    "adamw": Contestant(
        "torch.optim.AdamW, fused",
        functools.partial(of_torch, module="torch.optim", name="AdamW", fused=True),
        ["torch"],
        bytes_per_float32=28,
    ),
    "sgd": Contestant(
        "torch.optim.SGD, fused",
        functools.partial(of_torch, module="torch.optim", name="SGD", fused=True),
        ["torch"],
        bytes_per_float32=12,
    ),
}
# What the options of this project add to a plain float32 step.
OPTIONS = {
    "ema": Contestant("EMA", functools.partial(ours, use_ema=True), streams=Streams(average=4)),
    "momentum": Contestant("momentum", functools.partial(ours, beta_1=0.9), streams=Streams(momentum=4)),
    "clip-decay": Contestant(
        "clipvalue and weight decay",
        functools.partial(ours, clipvalue=0.02, weight_decay=0.01),
        streams=Streams(),
    ),
    "accumulation": Contestant(
        "accumulation over 2 calls", ours_accumulating, streams=Streams(accumulator=4), calls=2
    ),
    "bfloat16": Contestant(
        "bfloat16 parameters and gradients",
        functools.partial(ours_in_sixteen_bits, gradients_too=True),
        ["ml_dtypes"],
        streams=Streams(parameter=2, gradient=2),
    ),
    "bfloat16-parameters": Contestant(
        "bfloat16 parameters, float32 gradients",
        functools.partial(ours_in_sixteen_bits, gradients_too=False),
        ["ml_dtypes"],
        streams=Streams(parameter=2),
    ),
}
CONTESTANTS |= ROUTES | PEERS | OPTIONS
