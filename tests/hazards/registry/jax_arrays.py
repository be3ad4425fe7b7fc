"""What only an array of JAX can be: D11, and the capsules without flags that it exports, D10."""

import numpy as np
import pytest

import adafactor
import peers
from dlpack_producer import OnTpu
from registry.case import AT_INIT, IN_PLACE, Case, Event, leaf, same, with_grads, with_params
from registry.dlpack_headers import OF_THE_CPU
from registry.libraries import Jax, memory_of
from registry.process import run

ONLY = ("jax",)
IMMUTABLE = (
    r"an immutable array, expected an array that can be written \(adafactor\.update returns new ones\)"
)
ANY_ARRAY = "expected an array of NumPy, torch or another library with DLPack"
TRACED = (
    r"jax\.\S+Tracer, expected an array that is there; inside jax\.jit and jax\.grad there is none yet: "
    r"make the gradients there, and call adafactor\.update outside"
)


def arrays_of_jax(outcome):
    jax = peers.require("jax")
    for p in outcome.params.values():
        assert isinstance(p, jax.Array)
        assert p.dtype == np.float32
        assert not p.weak_type


def one_of_numpy(m):
    """A parameter that could be written before one that cannot."""
    return {"w": memory_of(m.params["w"]).copy(), "b": m.params["b"]}, m.grads


def gradients_of_jax(m):
    return m.params, {path: Jax.array(memory_of(g)) for path, g in m.grads.items()}


def deleted(m):
    array = Jax.array(np.zeros(21, np.float32))
    array.delete()
    return array


def refused_as_tracer(m, role, call):
    with pytest.raises(TypeError, match=rf"^{role} w: {TRACED}$"):
        call()


def traced(transform):
    """A tracer as a parameter of `update`, and as a gradient."""

    def happen(m):
        def function(x):
            refused_as_tracer(m, "params", lambda: adafactor.update(m.params | {"w": x}, m.grads, m.state))
            refused_as_tracer(m, "grads", lambda: adafactor.update(m.params, m.grads | {"w": x}, m.state))
            return (x * x).sum()

        transform(peers.require("jax"))(function)(m.params["w"])

    return happen


TRANSFORMS = {
    "jit": lambda jax: jax.jit,
    "grad": lambda jax: jax.grad,
    "vmap": lambda jax: lambda f: lambda x: jax.vmap(f)(x[None]),
}
NO_ARRAYS = {
    "a key of random numbers": (lambda jax: jax.random.key(0), r"jax\.\S+\.PRNGKeyArray", ".*"),
    "a shape and dtype": (
        lambda jax: jax.ShapeDtypeStruct((21,), np.float32),
        r"jax\.(_src\.api\.)?ShapeDtypeStruct",
        "",
    ),
    "a compiled function": (lambda jax: jax.jit(lambda x: x), r"jaxlib\.\S+", ""),
}


def no_array(name, build, found, more):
    def make(m):
        return build(peers.require("jax"))

    for where, given, calls in (
        ("params b", with_params(b=make), ("update",)),
        ("grads b", with_grads(b=make), ("update",)),
        ("params w", leaf(make), AT_INIT),
    ):
        message = f"{where}: {found}, {ANY_ARRAY}{more}"
        yield Case(f"D11 {name} for {where}", given, TypeError, message, calls, libraries=ONLY)


# Two devices of the CPU, which JAX has only if it is told so before it is first asked for one.
DEVICES = """
import numpy as np, jax, adafactor
from jax.sharding import Mesh, NamedSharding, PartitionSpec
w = np.ones((2, 3), np.float32)
state = adafactor.init({"w": w})
mesh = Mesh(np.array(jax.devices()), ("rows",))
sharded = jax.device_put(w, NamedSharding(mesh, PartitionSpec("rows")))
for call in (
    lambda: adafactor.init({"w": sharded}),
    lambda: adafactor.update({"w": sharded}, {"w": w}, state),
    lambda: adafactor.step({"w": w}, {"w": sharded}, state),
):
    try:
        call()
    except BufferError as error:
        print(str(error).partition(" (")[0], "unsharded" in str(error))
second = jax.device_put(w, jax.devices()[1])
after, state, report = adafactor.update({"w": second}, {"w": w}, state)
print(after["w"].devices() == second.devices(), state.iterations)
"""


def several_devices(m):
    """A sharded array is refused by name; one that is on another device stays there."""
    peers.require("jax")
    printed = run(DEVICES, XLA_FLAGS="--xla_force_host_platform_device_count=2")
    array = "a jaxlib._jax.ArrayImpl"
    assert printed.splitlines() == [
        f"params w: {array} True",
        f"params w: {array} True",
        f"grads w: {array} True",
        "True 1",
    ]


def on_tpu(_m):
    return OnTpu()


TPU = f"an array on tpu:3, {OF_THE_CPU}"


CASES = [
    Case("D11 parameters of step", same, BufferError, f"params w: {IMMUTABLE}", IN_PLACE, libraries=ONLY),
    Case(
        "D11 one parameter of step",
        one_of_numpy,
        BufferError,
        f"params b: {IMMUTABLE}",
        IN_PLACE,
        libraries=ONLY,
    ),
    Case("D11 update returns arrays of JAX", same, calls=("update",), expect=arrays_of_jax, libraries=ONLY),
    Case("D10 gradients of JAX", gradients_of_jax, like=same, libraries=("numpy", "torch", "dlpack")),
    *(case for name, row in NO_ARRAYS.items() for case in no_array(name, *row)),
    *(
        Case(
            f"D11 a deleted array, {role}",
            given,
            BufferError,
            rf"{role} b: a jaxlib\.\S+ that was deleted, or donated to a function of jax\.jit, "
            "expected one that is there still",
            ("update",),
            libraries=ONLY,
        )
        for role, given in (("params", with_params(b=deleted)), ("grads", with_grads(b=deleted)))
    ),
    *(
        Event(f"D11 a tracer inside of {name}", traced(transform), libraries=ONLY)
        for name, transform in TRANSFORMS.items()
    ),
    Event("D15 arrays of JAX on several devices", several_devices),
    Case(
        "D15 a TPU, gradient",
        with_grads(b=on_tpu),
        ValueError,
        f"grads b: {TPU}",
        libraries=("numpy", "torch", "dlpack"),
    ),
    Case(
        "D15 a TPU, parameter",
        with_params(b=on_tpu),
        ValueError,
        f"params b: {TPU}",
        ("update",),
        libraries=ONLY,
    ),
    Case("D15 a TPU at init", leaf(on_tpu), ValueError, f"params w: {TPU}", AT_INIT, libraries=ONLY),
]
