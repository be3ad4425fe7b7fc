"""Arrays of every library: read and written where they lie, handed back as they came, with the same bits."""

import array
import ctypes
import pickle
import subprocess
import sys
import warnings

import ml_dtypes
import numpy as np
import pytest

import adafactor
import digest
from adafactor.arrays import as_numpy
from peers import jax_with_float64, require

torch = require("torch")
jax = require("jax")

DTYPES = ["float32", "float64", "float16", "bfloat16"]


def to_torch(values):
    """A tensor of its own with the strides of an array."""
    if values.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(np.array(values).view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(np.array(values))


class Exported:
    """An array that can be had through `__dlpack__` alone, in a capsule that grants writes."""

    def __init__(self, values):
        self.tensor = to_torch(values)

    def __dlpack_device__(self):
        return self.tensor.__dlpack_device__()

    def __dlpack__(self, *, max_version=None):
        return self.tensor.__dlpack__(max_version=max_version)


MUTABLE = {"numpy": np.array, "torch": to_torch, "dlpack": Exported}
ALL = MUTABLE | {"jax": jax.numpy.asarray}


@pytest.fixture(autouse=True)
def _double_precision():
    with jax_with_float64():
        yield


def drawn(shape, dtype="float32", seed=1):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.dtype(dtype))


def address(values):
    return as_numpy(values).__array_interface__["data"][0]


def bits(values):
    return as_numpy(values).tobytes()


@pytest.mark.parametrize("name", digest.CASES)
@pytest.mark.parametrize("library", [name for name in ALL if name != "numpy"])
def test_every_library_gives_the_digest(library, name):
    case = digest.CASES[name]
    make = ALL[library]
    if library != "jax":
        assert digest.run(case, params_as=make, grads_as=make)[0] == case.digest, "in place"
    assert digest.run(case, functional=True, params_as=make, grads_as=make)[0] == case.digest, "functional"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("library", MUTABLE)
def test_a_parameter_is_written_where_it_lies(library, dtype):
    make = MUTABLE[library]
    p, g = make(drawn((30, 20), dtype)), make(drawn((30, 20), dtype, 2))
    before, gradient, where = bits(p), bits(g), address(p)
    state = adafactor.init(p, learning_rate=0.5)
    assert adafactor.step(p, g, state).updated
    assert address(p) == where
    assert bits(p) != before
    assert bits(g) == gradient


@pytest.mark.parametrize("library", ALL)
def test_update_returns_what_it_was_given(library):
    make = ALL[library]
    p, g = make(drawn((6, 4))), make(drawn((6, 4), seed=2))
    before = bits(p)
    new, state, _ = adafactor.update({"w": p}, {"w": g}, adafactor.init({"w": p}))
    expected = np.array(as_numpy(p))
    adafactor.step({"w": expected}, {"w": np.array(as_numpy(g))}, adafactor.init({"w": expected}))
    assert type(new["w"]) is (np.ndarray if library == "dlpack" else type(p))
    assert bits(new["w"]) == expected.tobytes()
    assert bits(p) == before
    assert state.iterations == 1


@pytest.mark.parametrize("library", ALL)
def test_gaps_between_the_elements_of_a_gradient_and_of_a_new_parameter_do_not_count(library):
    make = ALL[library]
    p, g = drawn((8, 10)), drawn((8, 10), seed=2)
    views = (
        [make(values)[::2, 1::3] for values in (p, g)]
        if library != "dlpack"
        else [p[::2, 1::3], g[::2, 1::3]]
    )
    new, _, _ = adafactor.update(*views, adafactor.init(views[0]))
    tight = [np.ascontiguousarray(values[::2, 1::3]) for values in (p, g)]
    adafactor.step(*tight, adafactor.init(tight[0]))
    assert np.ascontiguousarray(as_numpy(new)).tobytes() == tight[0].tobytes()


@pytest.mark.parametrize(
    "view",
    [
        lambda t: t[::2, 1::3],
        lambda t: t.t()[2:5],
        lambda t: t[:, :7],
        lambda t: torch.as_strided(t, (4, 3), (1, 20), 5),
        lambda t: t.reshape(2, 6, 2, 5).permute(3, 0, 2, 1)[1:4, :, 1],
    ],
)
def test_what_lies_between_the_elements_of_a_tensor_stays(view):
    room = torch.from_numpy(drawn((12, 10)))
    copy = room.clone()
    p, expected = view(room), view(copy).contiguous()
    g = torch.from_numpy(drawn(tuple(p.shape), seed=2))
    adafactor.step(p, g, adafactor.init(p, learning_rate=0.5))
    adafactor.step(expected, g, adafactor.init(expected, learning_rate=0.5))
    view(copy).copy_(expected)
    assert torch.equal(room, copy)


def test_a_tree_may_mix_libraries():
    params = {"t": to_torch(drawn((4, 3))), "n": drawn((3,)), "b": array.array("f", [1.0, 2.0])}
    grads = {
        "t": drawn((4, 3), seed=2),
        "n": to_torch(drawn((3,), seed=3)),
        "b": jax.numpy.ones(2, "float32"),
    }
    plain = {path: np.array(as_numpy(p)) for path, p in params.items()}
    plain_grads = {path: np.array(as_numpy(g)) for path, g in grads.items()}
    state = adafactor.init(params, use_ema=True)
    adafactor.step(params, grads, state)
    adafactor.step(plain, plain_grads, adafactor.init(plain, use_ema=True))
    assert {path: bits(p) for path, p in params.items()} == {path: p.tobytes() for path, p in plain.items()}
    kinds = {key: type(tensor) for key, tensor in state.tensors().items()}
    assert kinds["t", "row"] is torch.Tensor
    assert kinds["n", "full"] is np.ndarray
    assert kinds["b", "average"] is np.ndarray


@pytest.mark.parametrize("make", [lambda: array.array("f", [1, 2, 3]), lambda: (ctypes.c_float * 3)(1, 2, 3)])
def test_a_buffer_is_an_array(make):
    p, expected = make(), np.array([1, 2, 3], np.float32)
    adafactor.step(p, make(), adafactor.init(p, learning_rate=0.5))
    adafactor.step(expected, np.array(make()), adafactor.init(expected, learning_rate=0.5))
    assert list(p) == expected.tolist()


def test_the_state_of_a_tensor_is_its_memory_and_that_of_an_array_of_jax_is_a_copy():
    knobs = {"beta_1": 0.9, "momentum_dtype": "bfloat16", "use_ema": True}
    p = to_torch(drawn((4, 3)))
    state = adafactor.init(p, **knobs)
    adafactor.step(p, p.clone(), state)
    tensors = state.tensors()
    assert {kind: t.dtype for (_, kind), t in tensors.items()} == {
        "row": torch.float32,
        "col": torch.float32,
        "momentum": torch.bfloat16,
        "average": torch.float32,
    }
    for key, memory in state.arrays().items():
        assert address(tensors[key]) == memory.__array_interface__["data"][0]
    x = jax.numpy.asarray(drawn((4, 3)))
    _, state, _ = adafactor.update(x, x, adafactor.init(x, **knobs))
    kept = {key: np.array(t) for key, t in state.tensors().items()}
    assert all(isinstance(t, jax.Array) for t in state.tensors().values())
    assert state.tensors()["", "momentum"].dtype == jax.numpy.bfloat16
    handed_out = state.tensors()
    for memory in state.arrays().values():
        memory[...] = 0
    assert all(np.array_equal(np.array(handed_out[key]), kept[key]) for key in kept)


@pytest.mark.parametrize("library", ALL)
def test_a_state_goes_on_after_pickling_and_from_its_tensors(library):
    make = ALL[library]
    p, g = make(drawn((6, 4))), make(drawn((6, 4), seed=2))
    new, state, _ = adafactor.update(p, g, adafactor.init(p, beta_1=0.9, momentum_dtype="bfloat16"))
    expected = bits(adafactor.update(new, g, state)[0])
    thawed = pickle.loads(pickle.dumps(state))
    restored = adafactor.init(new, beta_1=0.9, momentum_dtype="bfloat16")
    restored.restore(state.calls, state.tensors())
    for other in (thawed, restored):
        assert [type(t) for t in other.tensors().values()] == [type(t) for t in state.tensors().values()]
        assert bits(adafactor.update(new, g, other)[0]) == expected


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("library", MUTABLE)
def test_finalize_writes_averages_into_the_arrays_of_every_library(library, dtype):
    make = MUTABLE[library]
    values = drawn((6, 4), dtype)
    p, expected = make(values), np.array(values)
    for each in (p, expected):
        state = adafactor.init(each, learning_rate=0.5, use_ema=True, ema_momentum=0.7)
        for seed in (2, 3):
            adafactor.step(each, drawn((6, 4), dtype, seed), state)
        where = address(each)
        state.finalize(each)
        assert address(each) == where
    assert bits(p) == expected.tobytes()


def test_a_gradient_that_is_not_finite_is_counted_in_every_library():
    values = drawn((6, 4))
    values[1, 2], values[3, 0], values[0, 0] = np.nan, np.inf, np.nan
    for make in ALL.values():
        for dtype in ("float32", "bfloat16"):
            p = make(drawn((6, 4), dtype))
            with pytest.raises(FloatingPointError, match=r"grads: 2 NaN and 1 Inf of 24 values"):
                adafactor.update(p, make(values.astype(dtype)), adafactor.init(p))


def test_the_keras_shaped_class_takes_tensors():
    values = [drawn((5, 4)), drawn((4,))]
    gradients = [drawn((5, 4), seed=2), drawn((4,), seed=3)]
    variables = [torch.nn.Parameter(to_torch(v)) for v in values]
    ours, plain = adafactor.Adafactor(0.1), adafactor.Adafactor(0.1)
    arrays = [v.copy() for v in values]
    for _ in range(3):
        ours.apply([to_torch(g) for g in gradients], variables)
        plain.apply(gradients, arrays)
    assert [bits(v) for v in variables] == [a.tobytes() for a in arrays]
    # A view of the same elements is the variable.
    assert ours.apply([to_torch(gradients[0])], [variables[0].detach()]) == 4


def test_a_torch_without_functions_for_c_goes_through_capsules():
    """As torch was before 2.10: a parameter that requires a gradient exports nothing itself."""
    script = """
import numpy as np, torch
import adafactor
del torch.Tensor.__dlpack_c_exchange_api__
p = torch.nn.Parameter(torch.ones(5, 4))
expected = np.ones((5, 4), np.float32)
g = torch.arange(20.0).reshape(5, 4)
for each, gradient in ((p, g), (expected, g.numpy())):
    state = adafactor.init(each, learning_rate=0.5)
    for _ in range(3):
        adafactor.step(each, gradient, state)
assert p.detach().numpy().tobytes() == expected.tobytes()
assert p._version == 3
for odd in (torch.ones(5, 4, dtype=torch.complex64).conj().imag, torch.ones(5, 4).to_sparse()):
    try:
        adafactor.step(p, odd, state)
    except (BufferError, TypeError) as error:
        assert str(error).startswith("grads: "), error
    else:
        raise AssertionError(odd)
assert p.detach().numpy().tobytes() == expected.tobytes()
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_a_tensor_without_elements_is_a_gradient_all_the_same():
    """torch has it at a null pointer."""
    params = {"x": torch.zeros(0, 4), "w": torch.ones(3)}
    state = adafactor.init(params, count_updates="leaf")
    report = adafactor.step(params, {"x": torch.zeros(0, 4), "w": torch.ones(3)}, state)
    assert report.as_dict()["x"]["grad_norm"] == 0
    assert state.leaf_updates == [1, 1]


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.broadcast_to(np.float32(0), (2**48 + 1,)),
        lambda: torch.zeros(1).expand(2**48 + 1),
        lambda: jax.random.key(0),
        lambda: jax.jit(lambda x: x),
    ],
    ids=[
        "NumPy, larger than any memory",
        "torch, larger than any memory",
        "a key of JAX",
        "a function of JAX",
    ],
)
def test_an_update_refuses_a_parameter_by_name_before_it_makes_a_new_one(make):
    params = {"w": np.ones(3, np.float32)}
    state = adafactor.init(params)
    with pytest.raises((TypeError, ValueError), match=r"^params w: .*, expected "):
        adafactor.update({"w": make()}, params, state)


def test_an_array_that_cannot_say_where_it_is_is_refused_by_name():
    class Somewhere(Exported):
        def __dlpack_device__(self):
            return "cpu"

    deleted = jax.numpy.ones(3)
    deleted.delete()
    with pytest.raises(
        BufferError, match=r"^params w: str, expected two whole numbers from __dlpack_device__"
    ):
        adafactor.init({"w": Somewhere(drawn((3,)))})
    with pytest.raises(BufferError, match=r"^params w: a jaxlib\.\S+ArrayImpl that was deleted, or donated "):
        adafactor.init({"w": deleted})


def test_a_tensor_that_is_negated_lazily_is_refused_whatever_its_strides():
    imaginary = torch.ones(4, dtype=torch.complex64).conj().imag
    for tensor in (imaginary, imaginary.as_strided((4,), (1,))):
        assert tensor.is_neg()
        with pytest.raises(TypeError, match=r"negated lazily, expected .*; resolve_neg\(\) makes a copy: "):
            adafactor.init(tensor)
        assert adafactor.init(tensor.resolve_neg()).nbytes == 16


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_what_was_refused_is_refused_again_and_what_moved_is_looked_at_anew(library):
    """A step remembers where arrays lay, and never that they were wrong there."""
    make = MUTABLE[library]
    ours, plain = make(drawn((4, 4))), drawn((4, 4))
    gradient = make(drawn((4, 4), seed=2))
    state, same = adafactor.init(ours), adafactor.init(plain)

    def steps(given):
        adafactor.step(ours, given, state)
        adafactor.step(plain, np.array(as_numpy(given)), same)
        assert bits(ours) == bits(plain)

    steps(gradient)
    steps(gradient)
    # At the same address: other strides, other shapes, other types, and the parameter's own memory.
    turned = gradient.T
    steps(turned)
    steps(gradient)
    whole = turned.view(np.int32) if library == "numpy" else turned.view(torch.int32)
    for wrong, error in ((gradient.reshape(16), ValueError), (gradient[:3], ValueError), (whole, TypeError)):
        for _ in range(2):
            with pytest.raises(error, match=r"^grads: .*, expected "):
                adafactor.step(ours, wrong, state)
    for _ in range(2):
        with pytest.raises(ValueError, match="shares memory with"):
            adafactor.step(ours, ours, state)
    steps(gradient)
    steps(make(drawn((4, 4), seed=3)))


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_a_step_goes_where_its_arrays_are_whatever_was_looked_at_before(library):
    """As one with a fresh copy of the state, which remembers nothing, does."""
    make = MUTABLE[library]
    trees = [{"w": make(drawn((6, 5), seed=k)), "b": make(drawn((5,), seed=k + 9))} for k in range(3)]
    grads = {"w": make(drawn((6, 5), seed=20)), "b": make(drawn((5,), seed=21))}
    state = adafactor.init(trees[0], use_ema=True, ema_overwrite_frequency=None)

    def steps(tree, given):
        fresh = state.copy()
        expected = {name: make(np.array(as_numpy(values))) for name, values in tree.items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a gradient is None
            adafactor.step(expected, given, fresh)
            adafactor.step(tree, given, state)
        for name, values in tree.items():
            assert bits(values) == bits(expected[name])
        assert pickle.dumps(state.arrays()) == pickle.dumps(fresh.arrays())

    first, second, third = trees
    steps(first, grads)
    steps(first, grads)
    state.finalize(second)  # which looks at other arrays, and writes them
    steps(second, grads)
    state.finalize(third)
    steps(second, grads)
    steps(second, grads | {"b": None})
    steps(second, grads | {"b": None})
    steps(second, grads)
    adafactor.update(third, grads, state)
    steps(first, {name: make(np.array(as_numpy(values))) for name, values in grads.items()})
    with pytest.raises(ValueError, match="shape"):
        adafactor.step(third, {"w": grads["w"], "b": grads["w"]}, state)
    steps(third, grads)


def test_memory_that_was_written_to_is_refused_when_it_comes_back_negated():
    """With the strides that its negation can have; torch is asked of others when they move."""
    numbers = torch.ones(6, dtype=torch.complex64)
    state = adafactor.init(p := torch.ones(6))
    for tensor in (numbers.imag, numbers.imag):
        adafactor.step(p, tensor, state)
    for _ in range(2):
        with pytest.raises(TypeError, match="negated lazily"):
            adafactor.step(p, numbers.conj().imag, state)
    adafactor.step(p, torch.ones(6), state)
    negated = torch.ones(12, dtype=torch.complex64).conj().imag.as_strided((6,), (1,))
    for _ in range(2):
        with pytest.raises(TypeError, match="negated lazily"):
            adafactor.step(p, negated, state)


def versions(steps, **knobs):
    """How often autograd was told of writes to two tensors of which one gets no gradient in the last step."""
    p = {"with": torch.ones(3), "without": torch.ones(3)}
    state = adafactor.init(p, **knobs)
    for index in range(steps):
        last = index == steps - 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a gradient is None
            adafactor.step(p, {"with": torch.ones(3), "without": None if last else torch.ones(3)}, state)
    return [tensor._version for tensor in p.values()]


def test_autograd_is_told_of_what_a_step_has_written_and_of_nothing_else():
    assert versions(1) == [1, 0]
    assert versions(2) == [2, 1]
    # Earlier calls of the window update the tensor, and an average overwrites it.
    assert versions(2, gradient_accumulation_steps=2) == [1, 1]
    assert versions(2, use_ema=True, ema_overwrite_frequency=2) == [2, 2]
    p = torch.ones(3)
    state = adafactor.init(p, on_nonfinite="skip")
    assert adafactor.step(p, torch.full((3,), torch.nan), state).skipped
    adafactor.update(p, torch.ones(3), state)
    assert p._version == 0
    inference = torch.inference_mode()(lambda: torch.ones(3))()
    adafactor.step(
        {"p": p, "i": inference},
        {"p": torch.ones(3), "i": torch.ones(3)},
        adafactor.init({"p": p, "i": inference}),
    )
    assert p._version >= 1


def test_a_backward_through_what_was_saved_before_a_step_raises():
    p = torch.nn.Parameter(torch.ones(3))
    loss = (p * p).sum()
    adafactor.step(p, torch.ones(3), adafactor.init(p))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
