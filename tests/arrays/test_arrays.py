"""Arrays of every library: read and written where they lie, handed back as they came, with the same bits."""

import array
import ctypes
import pickle

import numpy as np
import pytest

import adafactor
import digest
from adafactor.arrays import as_numpy
from array_libraries import ALL, DTYPES, MUTABLE, Exported, address, bits, drawn, jax, to_torch, torch
from peers import jax_with_float64


@pytest.fixture(autouse=True)
def _double_precision():
    with jax_with_float64():
        yield


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
