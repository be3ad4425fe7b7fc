"""Numbers that are none where a step would spread them: in a parameter, or in what the state has of it."""

import copy
import pickle

import numpy as np
import pytest

import adafactor
import snapshots

SHAPES = {"vector": (37,), "matrix": (7, 37), "slices": (3, 2, 21)}
BAD = [np.nan, np.inf, -np.inf]


def tree(seed):
    random = np.random.default_rng(seed)
    return {path: random.standard_normal(shape).astype(np.float32) for path, shape in SHAPES.items()}


def started(**knobs):
    """Parameters, and a state that has made one step of them."""
    params = tree(0)
    state = adafactor.init(params, learning_rate=0.1, **knobs)
    adafactor.step(params, tree(1), state)
    return params, state


def spoil(array, value=np.nan):
    array.flat[2] = value


def everything(params, state):
    return snapshots.memory(params.values()), snapshots.of_state(state)


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("path", SHAPES)
def test_a_leaf_that_is_spoilt_between_steps_is_left_alone_and_the_others_go_on(path, value):
    (params, state), (twins, twin) = started(use_ema=True), started(use_ema=True)
    spoil(params[path], value)
    before = params[path].tobytes(), {key: a.tobytes() for key, a in state.arrays().items()}
    report = adafactor.step(params, tree(2), state)
    adafactor.step(twins, tree(2), twin)

    assert report.updated
    assert report.nonfinite.tolist() == [name == path for name in SHAPES]
    assert params[path].tobytes() == before[0]
    after = twin.arrays()
    for (name, kind), array in state.arrays().items():
        assert array.tobytes() == (before[1][name, kind] if name == path else after[name, kind].tobytes()), (
            kind
        )
    for name in SHAPES:
        assert name == path or params[name].tobytes() == twins[name].tobytes()
    assert state.leaf_updates == [1 if name == path else 2 for name in SHAPES]


@pytest.mark.parametrize("path", SHAPES)
def test_the_call_after_that_is_refused_with_every_byte_as_before_until_the_leaf_is_mended(path):
    params, state = started()
    good = params[path].copy()
    spoil(params[path])
    adafactor.step(params, tree(2), state)
    before = everything(params, state)
    for _ in range(2):
        with pytest.raises(FloatingPointError, match=rf"^params {path}: 1 NaN and 0 Inf of .* nothing was"):
            adafactor.step(params, tree(3), state)
        assert everything(params, state) == before
    params[path][...] = good
    for seed in (3, 4):
        report = adafactor.step(params, tree(seed), state)
        assert report.updated
        assert not report.nonfinite.any()
    assert all(np.isfinite(p).all() for p in params.values())


@pytest.mark.parametrize("path", SHAPES)
def test_new_arrays_are_refused_at_once_since_nobody_needs_to_get_them(path):
    params, state = started()
    spoil(params[path])
    before = everything(params, state)
    for _ in range(2):
        with pytest.raises(FloatingPointError, match=rf"^params {path}: 1 NaN"):
            adafactor.update(params, tree(2), state)
        assert everything(params, state) == before


def test_the_class_refuses_them_too():
    params = list(tree(0).values())
    optimizer = adafactor.Adafactor()
    optimizer.build(params)
    params, variables = optimizer.stateless_apply(optimizer.variables, list(tree(1).values()), params)
    spoil(params[1])
    with pytest.raises(FloatingPointError, match=r"^params 1: 1 NaN"):
        optimizer.stateless_apply(variables, list(tree(2).values()), params)


def test_skip_skips_such_calls_and_propagate_lets_them_through():
    params, state = started(on_nonfinite="skip")
    spoil(params["matrix"])
    assert adafactor.step(params, tree(2), state).updated
    before = everything(params, state)
    report = adafactor.step(params, tree(3), state)
    assert report.skipped
    assert report.nonfinite.tolist() == [False, True, False]
    assert everything(params, state) == before

    params, state = started(on_nonfinite="propagate")
    spoil(params["matrix"])
    report = adafactor.step(params, tree(2), state)
    assert np.isnan(report.param_rms).tolist() == [False, True, False]
    assert np.isnan(params["matrix"]).all()


@pytest.mark.parametrize(("path", "kind"), [("vector", "full"), ("matrix", "row"), ("slices", "col")])
def test_a_moment_that_somebody_has_spoilt_is_found_too(path, kind):
    params, state = started()
    spoil(state.arrays()[path, kind])
    report = adafactor.step(params, tree(2), state)
    assert report.nonfinite.tolist() == [name == path for name in SHAPES]
    assert np.isfinite(params[path]).all()
    with pytest.raises(FloatingPointError, match=f"^params {path}: finite, but .* or a moment in the state"):
        adafactor.step(params, tree(3), state)


@pytest.mark.parametrize("clip_threshold", [None, 1.0])
def test_without_the_scale_of_the_parameter_a_nan_stays_where_it_is(clip_threshold):
    params, state = started(scale_parameter=False, clip_threshold=clip_threshold)
    spoil(params["matrix"])
    for seed in (2, 3):
        report = adafactor.step(params, tree(seed), state)
        assert report.updated
        assert not report.nonfinite.any()
        assert np.count_nonzero(~np.isfinite(params["matrix"])) == 1
    unmeasured = clip_threshold is None
    assert np.isnan(report.param_rms).tolist() == [unmeasured, True, unmeasured]


def test_a_window_of_accumulation_ends_with_such_a_leaf_left_alone():
    params, state = started(gradient_accumulation_steps=2)
    adafactor.step(params, tree(2), state)
    spoil(params["slices"])
    assert not adafactor.step(params, tree(3), state).nonfinite.any()
    report = adafactor.step(params, tree(4), state)
    assert report.updated
    assert report.nonfinite.tolist() == [False, False, True]
    assert not adafactor.step(params, tree(5), state).skipped
    with pytest.raises(FloatingPointError, match=r"^params slices: 1 NaN"):
        adafactor.step(params, tree(6), state)


def test_a_window_that_such_a_leaf_was_left_out_of_is_forgotten():
    (params, state), (twins, twin) = (started(gradient_accumulation_steps=2) for _ in range(2))
    for each, of_each in ((params, state), (twins, twin)):
        adafactor.step(each, tree(2), of_each)
        adafactor.step(each, tree(3), of_each)
    good = params["slices"].copy()
    spoil(params["slices"])
    adafactor.step(params, tree(4), state)
    assert not state.arrays()["slices", "accumulator"].any()
    params["slices"][...] = good
    reports = [adafactor.step(params, tree(seed), state) for seed in (5, 6)]
    expected = (tree(5)["slices"] + tree(6)["slices"]) / 2
    assert reports[1].grad_norm[2] == pytest.approx(np.linalg.norm(expected.ravel()), rel=1e-5)


@pytest.mark.parametrize("path", SHAPES)
def test_the_average_of_such_a_leaf_begins_again_with_what_it_is_mended_to(path):
    """On accumulating calls, too, an average moves, before anybody looks at the parameter."""
    params, state = started(
        use_ema=True, ema_on="call", ema_overwrite_frequency=4, gradient_accumulation_steps=2
    )
    adafactor.step(params, tree(2), state)
    good = params[path].copy()
    spoil(params[path])
    adafactor.step(params, tree(3), state)
    assert adafactor.step(params, tree(4), state).nonfinite.any()
    params[path][...] = good
    for seed in range(5, 11):
        assert not adafactor.step(params, tree(seed), state).nonfinite.any()
    assert state.iterations == 5
    assert all(np.isfinite(p).all() for p in params.values())
    assert np.isfinite(state.arrays()[path, "average"]).all()


def test_a_pickled_state_remembers_that_it_has_left_a_leaf_alone():
    params, state = started()
    spoil(params["matrix"])
    adafactor.step(params, tree(2), state)
    for other in (pickle.loads(pickle.dumps(state)), copy.deepcopy({"state": state})["state"], state.copy()):
        with pytest.raises(FloatingPointError, match=r"^params matrix: 1 NaN"):
            adafactor.step(params, tree(3), other)


@pytest.mark.parametrize("on_nonfinite", ["raise", "skip"])
def test_a_loss_scale_does_not_fall_for_a_parameter(on_nonfinite):
    params = tree(0)
    spoil(params["vector"])
    state, loss_scale = adafactor.init(params, on_nonfinite=on_nonfinite), adafactor.DynamicLossScale()
    if on_nonfinite == "raise":
        with pytest.raises(FloatingPointError, match=r"^params vector: 1 NaN"):
            loss_scale.step(params, tree(1), state)
    else:
        assert loss_scale.step(params, tree(1), state).skipped
    assert loss_scale.get_state() == {"scale": 2.0**15, "counter": 0}


def test_float16_that_overflows_in_a_step_is_met_by_the_next_one():
    params = {"w": np.full((4, 8), 6e4, np.float16)}
    state = adafactor.init(params, learning_rate=0.9, relative_step=False)
    grads = {"w": np.full((4, 8), -1.0, np.float16)}
    with np.errstate(over="ignore"):
        adafactor.step(params, grads, state)
    assert np.isinf(params["w"]).all()
    assert adafactor.step(params, grads, state).nonfinite.all()
    with pytest.raises(FloatingPointError, match=r"^params w: 0 NaN and 32 Inf of 32 values"):
        adafactor.step(params, grads, state)


def test_calls_that_are_all_skipped_say_so():
    params = {"w": np.ones(3, np.float32)}
    state = adafactor.init(params, on_nonfinite="skip")
    bad = {"w": np.full(3, np.nan, np.float32)}
    for _ in range(9):
        adafactor.step(params, bad, state)
    with pytest.warns(
        UserWarning, match="^grads w: not finite, and so 10 calls in a row were skipped"
    ) as seen:
        adafactor.step(params, bad, state)
    assert seen[0].filename == __file__
    adafactor.step(params, {"w": np.ones(3, np.float32)}, state)
    for _ in range(9):
        params, state, _ = adafactor.update(params, bad, state)
    with pytest.warns(UserWarning, match="10 calls in a row") as seen:
        adafactor.update(params, bad, state)
    assert seen[0].filename == __file__


def test_the_warning_of_a_window_names_the_line_that_completes_it():
    params = {"w": np.ones(3, np.float32)}
    bad = {"w": np.full(3, 1e30, np.float32)}
    state = adafactor.init(params, on_nonfinite="skip", gradient_accumulation_steps=4)
    adafactor.step(params, {"w": np.ones(3, np.float32)}, state)
    for _ in range(9):
        adafactor.step(params, bad, state)
    params["w"][1] = np.nan
    with pytest.warns(UserWarning, match=r"^params w: not finite, and so 10 calls in a row") as seen:
        state.complete_window(params)
    assert seen[0].filename == __file__
