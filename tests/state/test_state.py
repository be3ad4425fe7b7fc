"""State: what it holds for each leaf, and that copies and pickles go on as the original does, bit for bit."""

import copy
import gc
import itertools
import pickle
import sys
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import adafactor
import snapshots

SHAPES = {"vector": (37,), "matrix": (7, 37), "slices": (3, 2, 21), "number": ()}
FEATURES = {
    "plain": {},
    "momentum": {"beta_1": 0.9},
    "momentum in 16 bits": {"beta_1": 0.9, "momentum_dtype": "bfloat16"},
    "average": {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 3},
    "accumulation": {"gradient_accumulation_steps": 2},
    "all": {"beta_1": 0.9, "use_ema": True, "gradient_accumulation_steps": 2, "count_updates": "leaf"},
    "a schedule": {"learning_rate": adafactor.schedules.ExponentialDecay(0.1, 2, 0.5)},
    "largest two": {"factored": "largest_two"},
}


def numbers(shape, seed, dtype=np.float32):
    return np.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def tree(seed, shapes=SHAPES):
    return {path: numbers(shape, seed + i) for i, (path, shape) in enumerate(shapes.items())}


def item_size(kind, dtype, knobs):
    small = kind == "momentum" and knobs.get("momentum_dtype") == "bfloat16"
    return 2 if small else np.dtype(dtype).itemsize


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 9), max_size=5).map(tuple), st.sampled_from([np.float32, np.float64])
        ),
        max_size=6,
    ),
    st.sampled_from(list(FEATURES)),
    st.sampled_from(["last_two", "largest_two", "leading_two_or_last_two", False]),
    st.integers(0, 5),
)
def test_nbytes_is_the_sum_of_the_tensors(leaves, feature, factored, smallest):
    knobs = FEATURES[feature] | {"factored": factored, "min_dim_size_to_factor": smallest}
    params = [np.zeros(shape, dtype) for shape, dtype in leaves]
    state = adafactor.init(params, **knobs)
    tensors = state.tensors()
    assert state.nbytes == sum(tensor.nbytes for tensor in tensors.values())
    assert state.nbytes == adafactor.state_nbytes(params, **knobs)
    assert not any(tensor.any() for tensor in tensors.values())
    for index, p in enumerate(params):
        kinds = {kind: tensor for (path, kind), tensor in tensors.items() if path == str(index)}
        axes = _factored_axes(p.shape, factored, smallest)
        expected = {"full": p.shape}
        if axes:
            expected = {"row": np.delete(p.shape, axes[1]), "col": np.delete(p.shape, axes[0])}
        expected |= {"momentum": p.shape} if "beta_1" in knobs else {}
        expected |= {"average": p.shape} if knobs.get("use_ema") else {}
        expected |= {"accumulator": p.shape} if "gradient_accumulation_steps" in knobs else {}
        assert {kind: tensor.shape for kind, tensor in kinds.items()} == {
            kind: tuple(shape) for kind, shape in expected.items()
        }
        for kind, tensor in kinds.items():
            assert tensor.dtype.itemsize == item_size(kind, p.dtype, knobs)
            assert tensor.flags.writeable


def _factored_axes(shape, rule, smallest):
    """(row axis, column axis), as the documentation of each rule says."""
    last = len(shape) - 1
    if last < 1 or rule is False:
        return None
    by_size = sorted(range(last + 1), key=lambda axis: (shape[axis], axis))
    pairs = {
        "last_two": [(last - 1, last)],
        "largest_two": [tuple(by_size[-2:])],
        "leading_two_or_last_two": [(0, 1), (last - 1, last)],
    }[rule]
    return next((pair for pair in pairs if min(shape[axis] for axis in pair) >= smallest), None)


def test_a_matrix_takes_a_number_for_each_row_and_each_column():
    """(1024 + 512) * 4 bytes; Adam's two moments take 4,194,304."""
    params = np.zeros((1024, 512), np.float32)
    state = adafactor.init(params)
    assert state.nbytes == adafactor.state_nbytes(params) == 6144
    assert adafactor.scratch_nbytes(params) < 0.05 * params.nbytes


def test_the_moments_of_a_convolution_are_views_in_the_leaf_s_own_order():
    """Factored by the two largest axes: nine slices that lie inside, stored one after another."""
    params = np.zeros((16, 8, 3, 3), np.float32)
    state = adafactor.init(params, factored="largest_two")
    grads = numbers(params.shape, 0)
    adafactor.step(params, grads, state)
    tensors = {kind: tensor for (_, kind), tensor in state.tensors().items()}
    squares = np.square(grads, dtype=np.float64) + 1e-30
    # The largest axis is the column's, so that `row` is the mean over it.
    assert tensors["row"].shape == (8, 3, 3)
    assert tensors["col"].shape == (16, 3, 3)
    assert tensors["row"] == pytest.approx(squares.mean(0), rel=1e-5)
    assert tensors["col"] == pytest.approx(squares.mean(1), rel=1e-5)
    assert not tensors["row"].flags.c_contiguous
    assert state.nbytes == (8 + 16) * 9 * 4


def test_the_moments_are_those_of_the_paper():
    params, grads = tree(0), tree(10)
    state = adafactor.init(params)
    adafactor.step(params, grads, state)
    tensors = state.tensors()
    for path, g in grads.items():
        squares = np.square(g, dtype=np.float64) + 1e-30
        if g.ndim < 2:
            assert tensors[path, "full"] == pytest.approx(squares, rel=1e-6)
        else:
            assert tensors[path, "row"] == pytest.approx(squares.mean(-1), rel=1e-6)
            assert tensors[path, "col"] == pytest.approx(squares.mean(-2), rel=1e-6)


def test_tensors_are_no_copies_and_keep_the_state_alive():
    params = {"w": np.ones(3)}
    state = adafactor.init(params)
    full = state.tensors()["w", "full"]
    adafactor.step(params, {"w": np.full(3, 2.0)}, state)
    assert full == pytest.approx([4, 4, 4])
    full[...] = 9.0
    assert state.tensors()["w", "full"].tolist() == [9, 9, 9]
    core = weakref.ref(state)
    del state
    gc.collect()
    assert core() is None
    assert full.tolist() == [9, 9, 9]


def test_a_momentum_in_16_bits_is_a_bfloat16_array():
    import ml_dtypes

    params = {"w": np.ones((2, 3), np.float32)}
    state = adafactor.init(params, beta_1=0.9, momentum_dtype="bfloat16", learning_rate=0.1)
    adafactor.step(params, {"w": np.ones((2, 3), np.float32)}, state)
    momentum = state.tensors()["w", "momentum"]
    assert momentum.dtype == ml_dtypes.bfloat16
    assert momentum.astype(np.float32) == pytest.approx(np.full((2, 3), 0.01), rel=2**-8)


COPIES = {
    "State.copy": lambda state: state.copy(),
    "copy.copy": copy.copy,
    "copy.deepcopy": copy.deepcopy,
    "pickle": lambda state: pickle.loads(pickle.dumps(state)),
    "pickle, protocol 2": lambda state: pickle.loads(pickle.dumps(state, 2)),
}


@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("calls", [0, 3])
def test_a_copy_is_independent_and_goes_on_the_same(feature, make, calls):
    params = tree(0)
    state = adafactor.init(params, overrides=[("matrix", {"clip_threshold": 0.5})], **FEATURES[feature])
    for k in range(calls):
        adafactor.step(params, tree(10 + k), state)
    other, other_params = make(state), {path: p.copy() for path, p in params.items()}
    assert snapshots.of_state(other) == snapshots.of_state(state)
    assert (other.config, other.paths, repr(other)) == (state.config, state.paths, repr(state))
    before = snapshots.of_state(state)
    reports = [adafactor.step(other_params, tree(20 + k), other) for k in range(3)]
    assert snapshots.of_state(state) == before
    assert [repr(adafactor.step(params, tree(20 + k), state)) for k in range(3)] == [repr(r) for r in reports]
    assert snapshots.same_bits(params.values(), other_params.values())
    assert snapshots.of_state(other) == snapshots.of_state(state)


def test_a_deep_copy_has_a_schedule_of_its_own():
    class Counting(adafactor.schedules.LearningRateSchedule):
        def __init__(self):
            self.seen = []

        def __call__(self, step):
            self.seen.append(step)
            return 0.1

    params = np.ones(3)
    state = adafactor.init(params, learning_rate=Counting())
    shallow, deep = copy.copy(state), copy.deepcopy(state)
    adafactor.step(params, np.ones(3), deep)
    assert state.config.learning_rate.seen == []
    adafactor.step(params, np.ones(3), shallow)
    assert state.config.learning_rate.seen == [0]


def test_a_state_that_cannot_be_pickled_is_free_afterwards():
    params = np.ones(3)
    state = adafactor.init(params, learning_rate=lambda: 0.1)
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(state)
    assert adafactor.step(params, np.ones(3), state).updated


def test_update_leaves_the_state_that_it_was_given():
    params, grads = tree(0), tree(10)
    for feature, knobs in FEATURES.items():
        state = adafactor.init(params, **knobs)
        before = snapshots.of_state(state), snapshots.memory((*params.values(), *grads.values()))
        after, after_state, _ = adafactor.update(params, grads, state)
        kept = snapshots.of_state(state), snapshots.memory((*params.values(), *grads.values()))
        assert kept == before, feature
        stepped = {path: p.copy() for path, p in params.items()}
        adafactor.step(stepped, grads, state)
        assert snapshots.same_bits(stepped.values(), after.values()), feature
        assert snapshots.of_state(after_state) == snapshots.of_state(state), feature


def test_repr():
    one = np.ones((2, 3), np.float32)
    state = adafactor.init(one)
    assert repr(state) == "State(1 leaf, 20 bytes, 0 updates)"
    adafactor.step(one, np.ones((2, 3), np.float32), state)
    assert repr(state) == "State(1 leaf, 20 bytes, 1 update)"
    assert repr(adafactor.init([np.zeros(1000), np.zeros(1)])) == "State(2 leaves, 8,008 bytes, 0 updates)"


def test_the_counters_count_updates_and_calls():
    params = tree(0)
    state = adafactor.init(params, gradient_accumulation_steps=3, on_nonfinite="skip")
    seen = []
    for k in range(7):
        adafactor.step(params, tree(10 + k), state)
        seen.append((state.iterations, state.calls))
        bad = tree(10 + k) | {"number": np.asarray(np.nan, np.float32)}
        assert adafactor.step(params, bad, state).skipped
        assert (state.iterations, state.calls) == seen[-1]
    assert seen == [(0, 1), (0, 2), (1, 3), (1, 4), (1, 5), (2, 6), (2, 7)]


def test_nobody_sets_a_counter_or_invents_an_attribute_of_the_config():
    state = adafactor.init(np.ones(3))
    for name in ("iterations", "calls", "config", "nbytes"):
        with pytest.raises(AttributeError):
            setattr(state, name, 1)


def test_init_writes_nothing_and_keeps_no_array():
    params = tree(0)
    before = snapshots.memory(params.values())
    held = weakref.ref(params["matrix"])
    state = adafactor.init(params)
    assert snapshots.memory(params.values()) == before
    adafactor.step(params, tree(10), state)
    del params
    gc.collect()
    assert held() is None


def test_finalize_copies_the_averages_into_the_parameters():
    params = tree(0)
    state = adafactor.init(params, use_ema=True, ema_momentum=0.5, learning_rate=0.1)
    for k in range(3):
        adafactor.step(params, tree(10 + k), state)
    averages = {path: tensor.copy() for (path, kind), tensor in state.tensors().items() if kind == "average"}
    before = snapshots.of_state(state)
    assert not snapshots.same_bits(params.values(), averages.values())
    fortran = params | {"matrix": np.asfortranarray(params["matrix"])}
    state.finalize(fortran)
    state.finalize(params)
    assert snapshots.same_bits(params.values(), averages.values())
    assert snapshots.same_bits(fortran.values(), averages.values())
    assert snapshots.of_state(state) == before
    assert adafactor.step(params, tree(20), state).updated


def test_finalize_refuses_what_a_step_would():
    params = tree(0)
    with pytest.raises(ValueError, match=r"^finalize: there are no averages without use_ema=True$"):
        adafactor.init(params).finalize(params)
    state = adafactor.init(params, use_ema=True)
    with pytest.raises(ValueError, match=r"^finalize: the averages are empty before the first update$"):
        state.finalize(params)
    adafactor.step(params, tree(10), state)
    before = snapshots.memory(params.values())
    read_only = params["number"].copy()
    read_only.flags.writeable = False
    for wrong, error, message in (
        ({"vector": params["vector"]}, ValueError, r"^params matrix: missing, expected as in the state$"),
        (params | {"number": read_only}, BufferError, r"^params number: a read-only array"),
        (
            params | {"number": np.zeros(())},
            TypeError,
            r"^params number: dtype float64, expected float32 as",
        ),
        (
            params | {"number": params["vector"]},
            ValueError,
            r"^params number: shape \(37,\), expected \(\) as",
        ),
        (params | {"number": params["vector"][:1].reshape(())}, ValueError, r"^params vector: shares memory"),
    ):
        with pytest.raises(error, match=message):
            state.finalize(wrong)
        assert snapshots.memory(params.values()) == before
    state.finalize(params)


def test_finalize_before_the_first_update_of_a_window():
    """With `ema_on="call"` an average moves before there is an update; there is none to finalize yet."""
    params = tree(0)
    state = adafactor.init(params, use_ema=True, ema_on="call", gradient_accumulation_steps=2)
    adafactor.step(params, tree(10), state)
    with pytest.raises(ValueError, match="before the first update"):
        state.finalize(params)


def test_the_core_refuses_what_the_package_never_hands_it():
    """Its methods are private, and a mistake in the package is an error all the same, not a crash."""
    state = adafactor.init([np.ones(3)], overrides=[("", {"learning_rate": 0.1})])._engine.core
    with pytest.raises(TypeError):
        adafactor._core.State(None)
    arrays = [np.ones(3)]
    for rates in ([], [(0.1, False)] * 3):
        with pytest.raises(ValueError, match=r"^rates: one for each row of knobs$"):
            state.step(arrays, [np.ones(3)], arrays, rates, 1.0, False, [])
    with pytest.raises(IndexError):
        state.step([], [], [], [(0.1, False)] * 2, 1.0, False, [])
    assert (arrays[0] == 1).all()


@pytest.mark.parametrize("name", ["step", "update", *COPIES])
def test_an_interrupt_leaves_the_state_free_and_whole(name):
    """Python looks for Ctrl-C after a call and on entering a function; at each of these it comes once."""
    grads = tree(10)
    calls = {
        "step": lambda params, state: adafactor.step(params, grads, state),
        "update": lambda params, state: adafactor.update(params, grads, state),
        **{copier: lambda params, state, make=make: make(state) for copier, make in COPIES.items()},
    }

    def everything(params, state):
        return snapshots.memory(params.values()), snapshots.of_state(state)

    params = tree(0)
    state = adafactor.init(params, use_ema=True)
    interrupted = 0
    while True:
        before, twin, twin_state = everything(params, state), copy.deepcopy(params), state.copy()
        calls[name](twin, twin_state)
        if not interrupts(lambda: calls[name](params, state), interrupted):
            break
        assert everything(params, state) in (before, everything(twin, twin_state))
        assert adafactor.step(params, grads, state).updated
        interrupted += 1
    assert interrupted > 3


def interrupts(call, place):
    """Whether the call came to this place, where it gets a KeyboardInterrupt."""
    places = itertools.count()

    def interrupt(frame, event, argument):
        if event in ("call", "c_return") and next(places) == place:
            sys.setprofile(None)
            raise KeyboardInterrupt

    gc.disable()  # in a collection it would hit functions of others, as JAX', which nobody can tell of it
    sys.setprofile(interrupt)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(None)
        gc.enable()
    return False
