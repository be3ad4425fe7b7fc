"""What only a tensor of torch can be: D17, D18 and layouts that its own operators make."""

import contextlib
import re
import warnings

import ml_dtypes
import numpy as np
import pytest

import adafactor
import peers
import snapshots
from registry.case import AT_INIT, IN_PLACE, Case, Event, Model, leaf, model, same, with_grads, with_params
from registry.dtypes import PARTS
from registry.libraries import Torch, memory_of
from registry.shapes import OWN

ONLY = ("torch",)
DENSE = "expected a dense array in memory"
PLAIN = r"expected a torch\.Tensor or torch\.nn\.Parameter; "
OF_A_CLASS = r"as_subclass\(torch\.Tensor\) gives that of a class which keeps nothing besides"


def torch_of(build):
    """How to make a tensor with a function of torch, without what torch says of features in the making."""

    def make(m):
        with warnings.catch_warnings(action="ignore"):
            return build(peers.require("torch"))

    return make


def unexported(attributes, why):
    return rf"a torch\.Tensor \({attributes}\) that cannot be exported: {why}, {DENSE}"


def of_layout(layout):
    attributes = f"dtype torch.float32, layout torch.{layout}, device cpu"
    advice = made_by(r"to_dense\(\)") if "sparse" in layout else ""
    return unexported(attributes, "Cannot access data pointer .*") + advice


def made_by(call):
    """How a message says that a call makes what was expected: for a gradient, and for a parameter."""
    return rf"( \({call} makes one\)|; {call} makes a copy: step that, and write it back)"


WRAPPED = unexported("dtype torch.float32, layout torch.strided, device cpu", ".*")
NEGATED = (
    r"a torch\.Tensor that is negated lazily, expected a tensor whose memory holds its values"
    + made_by(r"resolve_neg\(\)")
)
NO_MEMORY = "one without memory of its own, expected a tensor whose elements lie in memory"


def class_of(name):
    return f"{name}, {PLAIN}{OF_A_CLASS}"


def fake(torch):
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        return torch.ones(21)


def subclass(torch):
    return torch.ones(21).as_subclass(type("Subclass", (torch.Tensor,), {"__module__": "somebody"}))


def freed(torch):
    tensor = torch.ones(21)
    tensor.untyped_storage().resize_(0)
    return tensor


def complex_ones(torch, *shape):
    return torch.ones(shape, dtype=torch.complex64) * 1j


def escaped(torch):
    """What stood for a tensor while a function was mapped, after that."""
    kept = []
    torch.func.vmap(lambda x: kept.append(x) or x)(torch.ones(2, 21))
    return kept[0]


def distributed(torch):
    """A tensor of which a part would be here, in a group of one process that does not communicate."""
    import torch.distributed as dist
    from torch.distributed.tensor import DTensor, Shard
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=1)
    try:
        mesh = dist.init_device_mesh("cpu", (1,))
        return DTensor.from_local(torch.ones(21), mesh, [Shard(0)])
    finally:
        dist.destroy_process_group()


NO_PLAIN_MEMORY = {
    "sparse": (lambda t: t.ones(21).to_sparse(), TypeError, of_layout("sparse_coo")),
    "sparse by rows": (lambda t: t.eye(21).to_sparse_csr(), TypeError, of_layout("sparse_csr")),
    "of oneDNN": (lambda t: t.ones(21).to_mkldnn(), TypeError, of_layout("_mkldnn")),
    "quantized": (
        lambda t: t.quantize_per_tensor(t.ones(21), 0.1, 0, t.qint8),
        TypeError,
        unexported("dtype torch.qint8, layout torch.strided, device cpu", ".* not supported by dlpack"),
    ),
    "meta": (
        lambda t: t.ones(21, device="meta"),
        TypeError,
        unexported("dtype torch.float32, layout torch.strided, device meta", "Cannot pack tensors on meta"),
    ),
    "nested": (lambda t: t.nested.nested_tensor([t.ones(3), t.ones(4)]), TypeError, WRAPPED),
    "jagged": (
        lambda t: t.nested.nested_tensor([t.ones(3), t.ones(4)], layout=t.jagged),
        TypeError,
        class_of(r"torch\.nested\.\S+\.NestedTensor"),
    ),
    "fake": (fake, TypeError, class_of(r"torch\._subclasses\.fake_tensor\.FakeTensor")),
    "of a subclass": (subclass, TypeError, class_of(r"somebody\.Subclass")),
    "uninitialized": (
        lambda t: t.nn.UninitializedParameter(),
        TypeError,
        class_of(r"torch\.nn\.parameter\.UninitializedParameter"),
    ),
    "distributed": (
        distributed,
        TypeError,
        rf"torch\.distributed\.tensor\.DTensor, {PLAIN}to_local\(\) gives the part that is here",
    ),
    "negated": (lambda t: complex_ones(t, 21).conj().imag, TypeError, NEGATED),
    "negated, with other strides": (
        lambda t: complex_ones(t, 21).conj().imag.as_strided((21,), (1,)),
        TypeError,
        NEGATED,
    ),
    "negated, of one element": (lambda t: complex_ones(t).conj().imag, TypeError, NEGATED),
    "conjugated": (
        lambda t: complex_ones(t, 21).conj(),
        TypeError,
        "dtype complex64, expected .*" + re.escape(PARTS),
    ),
    "that escaped from vmap": (escaped, TypeError, WRAPPED),
    "functional": (lambda t: t._to_functional_tensor(t.ones(21)), BufferError, NO_MEMORY),
    "freed": (freed, BufferError, NO_MEMORY),
    "of zeros without memory": (lambda t: t._efficientzerotensor((21,)), BufferError, NO_MEMORY),
}


def refused_everywhere(name, build, error, message):
    make = torch_of(build)
    for where, given, role, calls in (
        ("gradient", with_grads(b=make), "grads b", ("step", "update")),
        ("parameter", with_params(b=make), "params b", ("step", "update")),
        ("parameter at init", leaf(make), "params w", AT_INIT),
    ):
        yield Case(f"D18 a tensor {name}, {where}", given, error, f"{role}: {message}", calls, libraries=ONLY)


def in_transform(transform):
    """Inside of a transform a tensor stands for others, the model's own ones too: neither is an array."""

    def happen(m):
        torch = peers.require("torch")

        def function(x):
            for params, grads in ((m.params, m.grads | {"b": x}), (m.params | {"b": x}, m.grads)):
                for call in (adafactor.step, adafactor.update):
                    with pytest.raises(TypeError, match=f"^(params|grads) [bw]: {WRAPPED}$"):
                        call(params, grads, m.state)
            return (x * x).sum()

        with warnings.catch_warnings(action="ignore"):
            transform(torch.func)(function)

    return happen


def ones(*shape):
    return peers.require("torch").ones(*shape)


TRANSFORMS = {
    "vmap": lambda func: lambda f: func.vmap(f)(ones(2, 21)),
    "grad": lambda func: lambda f: func.grad(f)(ones(21)),
    "jvp": lambda func: lambda f: func.jvp(f, (ones(21),), (ones(21),)),
}


def of_library(m, tensor):
    """The tensor, or where it cannot be one an array with its memory and strides."""
    return tensor if m.library is Torch else m.library.over(memory_of(tensor))


def layout(view):
    """Both trees with a view of other memory, made by torch, that has the values of the matrix."""

    def given(m):
        torch = peers.require("torch")
        trees = []
        for tree in (m.params, m.grads):
            tensor = view(torch)
            memory_of(tensor)[...] = memory_of(tree["w"])
            trees.append(tree | {"w": of_library(m, tensor)})
        return tuple(trees)

    return given


LAYOUTS = {
    "S7 a transposed tensor": lambda t: t.zeros(21, 6).t(),
    "S7 a tensor of columns": lambda t: t.zeros(6, 1, 21, 1).to(memory_format=t.channels_last)[:, 0, :, 0],
    "S8 a tensor by strides": lambda t: t.zeros(500).as_strided((6, 21), (60, 2), 7),
    "S8 columns of a tensor": lambda t: t.zeros(6, 40).narrow(1, 3, 21),
    "S8 every third row of a tensor": lambda t: t.zeros(18, 21)[1::3],
    "S8 the real parts of a tensor": lambda t: t.zeros(6, 21, dtype=t.complex64).real,
    "S8 one of the stacked matrices of a tensor": lambda t: t.zeros(3, 6, 21).select(0, 1),
    "S8 a diagonal of a tensor": lambda t: t.zeros(21, 6, 21).diagonal(0, 0, 2),
}


def reads(name, make):
    """A gradient whose elements share memory; the same call with a copy of it does the same."""
    given = with_grads(w=lambda m: of_library(m, make(peers.require("torch"))))
    like = with_grads(w=lambda m: of_library(m, make(peers.require("torch")).contiguous()))
    return Case(name, given, like=like, libraries=ONLY)


def require_gradients(m):
    """Parameters of a module, which require gradients, over the same memory."""
    torch = peers.require("torch")
    return {path: torch.nn.Parameter(p) for path, p in m.params.items()}, m.grads


def in_inference_mode(m):
    torch = peers.require("torch")
    with torch.inference_mode():
        return {path: p.clone() for path, p in m.params.items()}, m.grads


def versions(tree):
    return [tensor._version for tensor in tree.values()]


@contextlib.contextmanager
def raised(tree, *by):
    before = versions(tree)
    yield
    assert [now - then for now, then in zip(versions(tree), before, strict=True)] == list(by)


def counters(m):
    """The version counters of what was written are raised, and no other: in the order w, b."""
    other = Model(Torch, on_nonfinite="skip", gradient_accumulation_steps=2)
    bad = other.grads | {"b": other.grads["b"] / 0}
    with raised(other.params, 0, 0), raised(other.grads, 0, 0):
        adafactor.step(other.params, other.grads, other.state)
        assert adafactor.step(other.params, bad, other.state).skipped
        adafactor.update(other.params, other.grads, other.state)
        with pytest.raises(ValueError, match="shape"):
            adafactor.step(other.params, other.grads | {"b": other.grads["w"]}, other.state)
    with raised(other.params, 1, 1), raised(other.grads, 0, 0):
        adafactor.step(other.params, other.grads, other.state)
    other = Model(Torch)
    with raised(other.params, 1, 0), pytest.warns(UserWarning, match="no gradient for b"):
        adafactor.step(other.params, other.grads | {"b": None}, other.state)


def counters_of_several_libraries(m):
    """A leaf of NumPy, one of JAX that is read, and a tensor, in one call."""
    jax = peers.require("jax")
    other = Model(Torch)
    params = {"w": other.params["w"], "b": memory_of(other.params["b"])}
    grads = {"w": jax.numpy.asarray(memory_of(other.grads["w"])), "b": other.grads["b"]}
    twin = Model(Torch)
    with raised({"w": other.params["w"]}, 1):
        report = adafactor.step(params, grads, other.state)
    assert repr(report) == repr(adafactor.step(twin.params, twin.grads, twin.state))
    assert other.values() == twin.values()


def backward_is_refused(m):
    """Where a backward has saved a tensor before the step, it says so; its gradient would be wrong."""
    torch = peers.require("torch")
    weight = torch.nn.Parameter(torch.full((3,), 2.0))
    state = adafactor.init(weight)
    loss = (weight * weight).sum()
    before = snapshots.memory([memory_of(weight)])
    adafactor.step(weight, torch.ones(3), state)
    assert snapshots.memory([memory_of(weight)]) != before
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def trained(m):
    """The gradients of autograd, step after step, which every library's loop hands over."""
    torch = peers.require("torch")
    module = torch.nn.Linear(3, 2)
    torch.nn.init.zeros_(module.weight)  # far enough from where it goes that no step goes past it
    torch.nn.init.zeros_(module.bias)
    params = dict(module.named_parameters())
    state = adafactor.init(params, learning_rate=0.1)
    losses = []
    for _ in range(5):
        loss = ((module(torch.ones(4, 3)) - 1) ** 2).sum()
        module.zero_grad()
        loss.backward()
        adafactor.step(params, {path: p.grad for path, p in params.items()}, state)
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)


HALF = np.float32(1) / 256  # half of what lies between 1 and the next number of bfloat16 above it


def rounds_to_nearest(outcome):
    """An update of less than half a unit of bfloat16 is lost."""
    assert (outcome.memory["x"] == np.ones(21, ml_dtypes.bfloat16)).all()


def overflows(outcome):
    """As rounding says: what is beyond the largest number of float16 by half a unit is infinite."""
    assert np.isinf(outcome.memory["x"]).all()


def one_leaf(dtype, parameter, gradient, **knobs):
    values = tuple({"x": np.full(21, value, dtype)} for value in (parameter, gradient))
    return model(values=values, steps=0, scale_parameter=False, relative_step=False, **knobs)


CASES = [
    *(case for name, row in NO_PLAIN_MEMORY.items() for case in refused_everywhere(name, *row)),
    *(
        Event(f"D18 a tensor inside of {name}", in_transform(t), libraries=ONLY)
        for name, t in TRANSFORMS.items()
    ),
    Case("D17 parameters that require a gradient", require_gradients, like=same, libraries=ONLY),
    Case("D17 tensors of the inference mode", in_inference_mode, like=same, libraries=ONLY),
    Event("D17 the counters of versions", counters, libraries=ONLY),
    Event("D17 a backward through what the step has changed", backward_is_refused, libraries=ONLY),
    Event("D17 training", trained, libraries=ONLY),
    Event("D17 several libraries in one call", counters_of_several_libraries, libraries=ONLY),
    *(Case(name, layout(view), like=same, libraries=ONLY) for name, view in LAYOUTS.items()),
    reads("S10 an expanded gradient", lambda t: t.arange(6.0)[:, None].expand(6, 21)),
    reads("S11 an unfolded gradient", lambda t: t.arange(26.0).unfold(0, 21, 1)),
    Case(
        "S10 an expanded parameter",
        with_params(b=lambda m: of_library(m, peers.require("torch").ones(1).expand(21))),
        BufferError,
        f"params b: some elements share memory, {OWN}",
        IN_PLACE,
        libraries=ONLY,
    ),
    Case(
        "V6 an update below half a unit of bfloat16",
        same,
        model=one_leaf(ml_dtypes.bfloat16, 1.0, -1.0, learning_rate=0.99 * HALF),
        expect=rounds_to_nearest,
    ),
    Case(
        "V7 a parameter that leaves float16",
        same,
        model=one_leaf(np.float16, 65504.0, -1.0, learning_rate=16.5),
        expect=overflows,
    ),
]
