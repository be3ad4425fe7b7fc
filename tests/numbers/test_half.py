"""Parameters and gradients of 16 bits: computed in float32, rounded once, and by noise without a bias."""

import itertools
import pickle

import ml_dtypes
import numpy as np
import pytest

import adafactor
import snapshots

HALVES = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16}
FLOATS = {**HALVES, "float32": np.float32}
PAIRS = list(itertools.product(FLOATS, FLOATS))
SHAPES = [(70, 90), (40,), (), (300, 3, 3), (5, 6, 40), (200, 5)]
LINKS = {
    "plain": {},
    "momentum": {"beta_1": 0.9},
    "links": {"clipvalue": 0.5, "weight_decay": 0.1, "loss_scale_factor": 8.0},
    "unfactored": {"factored": False},
    "largest_two": {"factored": "largest_two"},
    "clamp": {"epsilon_1_mode": "clamp", "epsilon_1": 0.5},
}


@pytest.fixture(autouse=True)
def _default_threads():
    yield
    adafactor.set_num_threads(0)


def memory_of(w, g, state):
    return snapshots.memory([w, g]), snapshots.of_state(state)


def drawn(dtype, seed):
    random = np.random.default_rng(seed)
    return [np.asarray(random.standard_normal(shape).astype(dtype)) for shape in SHAPES]


def wide(arrays):
    return [np.asarray(array.astype(np.float32)) for array in arrays]


@pytest.mark.parametrize("links", LINKS)
@pytest.mark.parametrize(("p", "g"), PAIRS)
def test_a_step_is_that_of_float32_rounded_once(p, g, links):
    params, grads = drawn(FLOATS[p], 1), drawn(FLOATS[g], 2)
    params32, grads32 = wide(params), wide(grads)
    state = adafactor.init(params, **LINKS[links])
    state32 = adafactor.init(params32, **LINKS[links])
    assert state.nbytes == state32.nbytes
    adafactor.step(params, grads, state)
    adafactor.step(params32, grads32, state32)
    for half, full in zip(params, params32, strict=True):
        assert half.tobytes() == full.astype(half.dtype).tobytes()
    for key, array in state.tensors().items():
        assert array.tobytes() == state32.tensors()[key].tobytes(), key


@pytest.mark.parametrize(("p", "g"), [(p, "float64") for p in FLOATS] + [("float64", g) for g in FLOATS])
def test_float64_goes_with_itself_alone(p, g):
    dtypes = FLOATS | {"float64": np.float64}
    w, gradient = np.ones((3, 4), dtypes[p]), np.ones((3, 4), dtypes[g])
    state = adafactor.init(w)
    before = memory_of(w, gradient, state)
    with pytest.raises(TypeError, match=rf"^grads: dtype {g}, expected "):
        adafactor.step(w, gradient, state)
    assert memory_of(w, gradient, state) == before


@pytest.mark.parametrize("dtype", HALVES)
def test_epsilon_of_none_is_that_of_the_dtype(dtype):
    w, g = np.ones((4, 4), HALVES[dtype]), np.zeros((4, 4), HALVES[dtype])
    state = adafactor.init(w, epsilon_1=None, beta_2_decay=-0.8)
    adafactor.step(w, g, state)
    assert np.all(state.tensors()["", "row"] == np.float32(ml_dtypes.finfo(HALVES[dtype]).eps))


@pytest.mark.parametrize("dtype", HALVES)
def test_what_is_left_alone_keeps_its_bits(dtype):
    """Of every 16 bits, NaN with a payload among them, also where another leaf is updated into new arrays."""
    every = np.arange(65536, dtype=np.uint16).view(HALVES[dtype]).reshape(256, 256)
    params = {"kept": every[:, ::-1], "w": np.ones((4, 4), HALVES[dtype])}
    state = adafactor.init(params)
    with pytest.warns(UserWarning, match="kept"):
        new, _, _ = adafactor.update(params, {"kept": None, "w": np.ones_like(params["w"])}, state)
    assert np.ascontiguousarray(new["kept"]).tobytes() == np.ascontiguousarray(params["kept"]).tobytes()


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_the_average_is_that_of_the_parameters_as_they_are_stored(dtype, rounding):
    w = np.linspace(1, 2, 12).reshape(3, 4).astype(HALVES[dtype])
    state = adafactor.init(w, learning_rate=0.01, use_ema=True, ema_momentum=0.5, rounding=rounding)
    expected = None
    for _ in range(3):
        adafactor.step(w, np.ones_like(w), state)
        now = w.astype(np.float32)
        expected = now if expected is None else np.float32(0.5) * expected + np.float32(0.5) * now
        assert np.array_equal(state.tensors()["", "average"], expected)
    state.finalize(w)
    assert np.array_equal(w, expected.astype(w.dtype))


@pytest.mark.parametrize("dtype", HALVES)
def test_small_updates_add_up_by_noise_and_not_by_nearest(dtype):
    """A thousand updates, each below half a unit of its parameter."""

    def trained(dtype, **knobs):
        w = np.linspace(1, 2, 64 * 64).reshape(64, 64).astype(dtype)
        before = w.astype(np.float64)
        state = adafactor.init(w, learning_rate=1e-4, scale_parameter=False, **knobs)
        for _ in range(1000):
            adafactor.step(w, np.ones_like(w), state)
        return w.astype(np.float64) - before

    unit = float(ml_dtypes.finfo(HALVES[dtype]).eps)
    assert unit / 2 > 1e-4
    moved = trained(np.float32).mean()
    assert moved == pytest.approx(-0.1, abs=1e-3)
    assert np.all(trained(HALVES[dtype]) == 0)
    by_noise = trained(HALVES[dtype], rounding="stochastic")
    # 1,000 steps, each with a variance of at most (what is lost) x (a unit), in 4,096 elements that are
    # independent: five standard errors.
    error = np.sqrt(1000 * unit * 1e-4 / by_noise.size)
    assert abs(by_noise.mean() - moved) < 5 * error


@pytest.mark.parametrize("dtype", HALVES)
def test_the_mean_of_rounded_updates_is_the_exact_one(dtype):
    """10,000 updates of the same parameter by the same gradient, each with noise of its own."""
    start = np.linspace(0.5, 2, 25).astype(HALVES[dtype]).reshape(5, 5)
    gradient = np.linspace(-1, 1, 25, dtype=np.float32).reshape(5, 5)
    knobs = {"learning_rate": 1e-3, "beta_2_cap": 0.0}  # every step as the first
    exact = start.astype(np.float32)
    adafactor.step(exact, gradient, adafactor.init(exact, **knobs))
    state = adafactor.init(start, rounding="stochastic", **knobs)
    count = 10_000
    total = np.zeros((5, 5))
    squares = np.zeros((5, 5))
    for _ in range(count):
        w = start.copy()
        adafactor.step(w, gradient, state)
        change = w.astype(np.float64) - exact
        total += change
        squares += change**2
    errors = np.sqrt(squares / count) / np.sqrt(count)
    assert np.count_nonzero(errors) > 20
    assert np.all(np.abs(total / count) <= 4 * errors)


def stepped(w, g, threads=1, **knobs):
    adafactor.set_num_threads(threads)
    new = w.copy(order="K")
    adafactor.step({"w": new}, {"w": g}, adafactor.init({"w": new}, rounding="stochastic", **knobs))
    return np.ascontiguousarray(new).tobytes()


@pytest.mark.parametrize("dtype", HALVES)
def test_the_noise_depends_on_seed_path_update_and_element_alone(dtype):
    random = np.random.default_rng(3)
    w = random.standard_normal((600, 500)).astype(HALVES[dtype])
    g = random.standard_normal((600, 500)).astype(np.float32)
    one = stepped(w, g)
    assert stepped(w, g, threads=2) == one
    assert stepped(w, g, threads=7) == one
    assert stepped(np.asfortranarray(w), g) == one
    assert stepped(w, np.asfortranarray(g)) == one
    functional, _, _ = adafactor.update({"w": w}, {"w": g}, adafactor.init({"w": w}, rounding="stochastic"))
    assert functional["w"].tobytes() == one
    assert stepped(w, g, seed=1) != one
    other = w.copy()
    adafactor.step({"v": other}, {"v": g}, adafactor.init({"v": other}, rounding="stochastic"))
    assert other.tobytes() != one


def test_other_leaves_and_skipped_calls_change_no_noise():
    """The update counts, not the call, and not what else is in the tree."""
    random = np.random.default_rng(4)
    w = random.standard_normal((30, 50)).astype(ml_dtypes.bfloat16)
    g = random.standard_normal((30, 50)).astype(np.float32)
    alone = w.copy()
    adafactor.step({"w": alone}, {"w": g}, adafactor.init({"w": alone}, rounding="stochastic"))
    tree = {"a": np.ones(7, np.float32), "w": w.copy()}
    state = adafactor.init(tree, rounding="stochastic", on_nonfinite="skip")
    assert adafactor.step(tree, {"a": np.full(7, np.nan, np.float32), "w": g}, state).skipped
    adafactor.step(tree, {"a": np.ones(7, np.float32), "w": g}, state)
    assert tree["w"].tobytes() == alone.tobytes()


def test_a_resumed_run_has_the_noise_of_an_unbroken_one():
    random = np.random.default_rng(5)
    start = random.standard_normal((30, 50)).astype(ml_dtypes.bfloat16)
    grads = [random.standard_normal((30, 50)).astype(np.float32) for _ in range(4)]
    unbroken, broken = start.copy(), start.copy()
    state = adafactor.init(unbroken, rounding="stochastic")
    for g in grads:
        adafactor.step(unbroken, g, state)
    state = adafactor.init(broken, rounding="stochastic")
    for g in grads:
        adafactor.step(broken, g, state)
        state = pickle.loads(pickle.dumps(state))
    assert broken.tobytes() == unbroken.tobytes()


@pytest.mark.parametrize("dtype", HALVES)
def test_a_gradient_of_16_bits_that_is_not_finite_changes_nothing(dtype):
    w = np.ones((3, 4), HALVES[dtype])
    g = np.ones((3, 4), HALVES[dtype])
    g[1, 2] = np.inf
    g[0, 0] = np.nan
    state = adafactor.init(w)
    before = memory_of(w, g, state)
    with pytest.raises(FloatingPointError, match=r"^grads: 1 NaN and 1 Inf of 12 values"):
        adafactor.step(w, g, state)
    assert memory_of(w, g, state) == before
