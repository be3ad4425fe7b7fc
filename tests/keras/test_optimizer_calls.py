"""The class Adafactor, call by call: which variables it takes, what it refuses, and that it is the step."""

import warnings

import numpy as np
import pytest

import adafactor
import snapshots
from keras_cases import FIXED_SEED, Rate, drawn_cases
from peers import require

RUNS = 60  # of the drawn ones


def numbers(shape, seed):
    return np.asarray(np.random.default_rng(seed).standard_normal(shape), np.float32)


def tree(seed):
    return {"encoder": {"w": numbers((4, 3), seed), "b": numbers(3, seed + 1)}, "gain": numbers((), seed + 2)}


def leaves(params):
    return [params["encoder"]["w"], params["encoder"]["b"], params["gain"]]


@pytest.mark.filterwarnings("ignore:exclude_from_weight_decay. .* finds no leaf:UserWarning")
def test_is_the_step_bit_for_bit_in_every_shape_of_a_call():
    """On the drawn runs: `apply`, `apply_gradients` with shuffled pairs, and `stateless_apply` are `step`."""
    for number, case in enumerate(drawn_cases(FIXED_SEED)[:RUNS]):
        arguments = dict(case.arguments)
        if isinstance(arguments.get("learning_rate"), Rate):
            arguments["learning_rate"] = arguments["learning_rate"].build(adafactor.schedules)
        config = adafactor.presets.keras(**arguments).replace(exclude_from_weight_decay=case.exclude)
        copies = [{name: p.copy() for name, p in case.leaves.items()} for _ in range(4)]
        state = adafactor.init(copies[0], config)
        optimizers = [adafactor.Adafactor(**arguments) for _ in range(3)]
        for optimizer, params in zip(optimizers, copies[1:], strict=True):
            optimizer.exclude_from_weight_decay(var_names=case.exclude)
            optimizer.build(params)
        names, values = list(case.leaves), optimizers[2].variables
        for gradients in case.gradients:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "grads: no gradient for", UserWarning)
                adafactor.step(copies[0], gradients, state)
                assert optimizers[0].apply(gradients) == state.calls
                names = names[1:] + names[:1]
                optimizers[1].apply_gradients((gradients[name], copies[2][name]) for name in names)
                copies[3], values = optimizers[2].stateless_apply(values, gradients, copies[3])
            expected = [p.tobytes() for p in copies[0].values()]
            for params in copies[1:]:
                assert [p.tobytes() for p in params.values()] == expected, (number, case)
        assert (optimizers[0].iterations, optimizers[2].iterations) == (state.iterations, 0)
        weights = [w.tobytes() for w in optimizers[0].variables]
        assert [w.tobytes() for w in optimizers[1].variables] == weights
        assert [w.tobytes() for w in values] == weights


def test_the_first_call_builds_the_optimizer():
    for call in (
        lambda optimizer, grads, params: optimizer.apply(grads, params),
        lambda optimizer, grads, params: optimizer.apply(leaves(grads), leaves(params)),
        lambda optimizer, grads, params: optimizer.apply(tuple(leaves(grads)), tuple(leaves(params))),
        lambda optimizer, grads, params: optimizer.apply_gradients(
            zip(leaves(grads), leaves(params), strict=True)
        ),
    ):
        optimizer, params = adafactor.Adafactor(), tree(0)
        assert call(optimizer, tree(10), params) == 1
        assert optimizer.built
        expected = tree(0)
        adafactor.step(expected, tree(10), adafactor.init(expected, adafactor.presets.keras()))
        assert snapshots.same_bits(leaves(params), leaves(expected))


def test_a_variable_s_name_is_its_path():
    with pytest.raises(ValueError, match=r"^grads encoder/b: shape \(2,\), expected \(3,\)$"):
        adafactor.Adafactor().apply(
            {"encoder": {"w": numbers((4, 3), 0), "b": numbers(2, 0)}, "gain": numbers((), 0)}, tree(0)
        )
    with pytest.raises(ValueError, match=r"^grads 1: shape \(2,\), expected \(3,\)$"):
        adafactor.Adafactor().apply([numbers((4, 3), 0), numbers(2, 0)], leaves(tree(0))[:2])


def test_some_of_the_variables_in_any_order_as_in_keras():
    """The others stay, without a warning; all share the count of updates."""
    keras = require("keras")
    params = tree(0)
    peers = [keras.Variable(p) for p in leaves(params)]
    ours, theirs = adafactor.Adafactor(learning_rate=0.1), keras.optimizers.Adafactor(learning_rate=0.1)
    ours.build(params)
    theirs.build(peers)
    for seed, order in enumerate([(2, 0), (1,), (0, 1, 2), (1, 0)]):
        grads = [leaves(tree(10 + seed))[i] for i in order]
        ours.apply_gradients(zip(grads, [leaves(params)[i] for i in order], strict=True))
        theirs.apply_gradients(zip(grads, [peers[i] for i in order], strict=True))
    for p, peer in zip(leaves(params), peers, strict=True):
        assert p == pytest.approx(np.asarray(peer.value), rel=1e-6)  # four steps in float32
    assert ours.iterations == int(theirs.iterations) == 4


def test_a_view_of_the_same_elements_is_the_variable():
    params = tree(0)
    optimizer = adafactor.Adafactor(learning_rate=0.1)
    optimizer.build(params)
    before = params["encoder"]["b"].copy()
    optimizer.apply_gradients([(numbers(3, 9), params["encoder"]["b"][:])])
    assert not np.array_equal(params["encoder"]["b"], before)
    for other in (params["encoder"]["b"][::-1], params["encoder"]["w"].T, before):
        with pytest.raises(ValueError, match=r"^trainable_variables 0: unknown to the optimizer, which was"):
            optimizer.apply_gradients([(numbers(other.shape, 9), other)])
    assert optimizer.iterations == 1


def test_a_missing_gradient_leaves_its_variable_alone_with_one_warning():
    params = tree(0)
    optimizer = adafactor.Adafactor()
    optimizer.build(params)
    gain, grads = params["gain"].copy(), tree(10) | {"gain": None}
    pairs = list(zip(leaves(grads), leaves(params), strict=True))
    for call in (
        lambda: optimizer.apply(grads),
        lambda: optimizer.apply_gradients(pairs),
        lambda: optimizer.apply_gradients(pairs[1:]),
        lambda: optimizer.stateless_apply(optimizer.variables, grads, params),
    ):
        with pytest.warns(UserWarning, match=r"^grads: no gradient for gain; left alone$") as caught:
            call()
        assert [warning.filename for warning in caught] == [__file__]
    assert params["gain"] == gain
    assert optimizer.iterations == 3
    for nothing in ([None, None, None], [None]):
        with pytest.raises(ValueError, match=r"^grads: every gradient is None, expected at least one array$"):
            optimizer.apply_gradients(zip(nothing, leaves(params)[: len(nothing)], strict=True))


def test_without_gradients_nothing_happens():
    optimizer, params = adafactor.Adafactor(), tree(0)
    assert [optimizer.apply([]), optimizer.apply_gradients([]), optimizer.apply((), params)] == [0, 0, 0]
    assert not optimizer.built
    optimizer.apply(tree(10), params)
    assert [optimizer.apply([]), optimizer.apply_gradients([])] == [1, 1]


def wrong_calls(optimizer, params):
    """What is wrong: the call, the exception and the start of its message. The optimizer has params."""
    fresh, grads = adafactor.Adafactor(), tree(10)
    flat, variables = leaves(grads), optimizer.variables
    bad = tree(10) | {"gain": np.asarray(np.nan, np.float32)}
    return {
        "not built": (
            lambda: fresh.apply(grads),
            ValueError,
            "apply: the optimizer is not built yet; call build",
        ),
        "stateless, not built": (
            lambda: fresh.stateless_apply([], grads, params),
            ValueError,
            "stateless_apply: the optimizer is not built yet",
        ),
        "a list for a tree": (lambda: optimizer.apply(flat), ValueError, "grads: list, expected dict"),
        "too few gradients": (
            lambda: optimizer.apply(flat[:2], leaves(params)),
            ValueError,
            "grads: 2 items, expected 3",
        ),
        "a variable twice": (
            lambda: optimizer.apply(flat[:1] * 2, [params["encoder"]["w"]] * 2),
            ValueError,
            "trainable_variables 1: the same variable as trainable_variables 0",
        ),
        "unknown variables": (
            lambda: optimizer.apply(grads, tree(0)),
            ValueError,
            "trainable_variables encoder/w: unknown to the optimizer, which was built with other arrays",
        ),
        "no pair": (
            lambda: optimizer.apply_gradients([flat[0]]),
            TypeError,
            r"grads_and_vars\[0\]: ndarray, expected \(gradient, variable\)",
        ),
        "a number for an array": (
            lambda: optimizer.apply(grads | {"gain": 1.0}),
            TypeError,
            "grads gain: float, expected an array",
        ),
        "NaN": (lambda: optimizer.apply(bad), FloatingPointError, "grads gain: 1 NaN and 0 Inf of 1 values"),
        "NaN, stateless": (
            lambda: optimizer.stateless_apply(variables, bad, params),
            FloatingPointError,
            "grads gain: 1 NaN",
        ),
        "too few weights": (
            lambda: optimizer.stateless_apply(variables[:-1], grads, params),
            ValueError,
            "optimizer_variables: 5 weights, expected 6: iteration, learning_rate, encoder/w row, ",
        ),
        "a list for a tree, stateless": (
            lambda: optimizer.stateless_apply(variables, grads, leaves(params)),
            ValueError,
            "trainable_variables: list, expected dict",
        ),
        "another structure at build": (
            lambda: optimizer.build(leaves(params)),
            ValueError,
            "variables: list, expected dict",
        ),
        "another shape at build": (
            lambda: optimizer.build(tree(0) | {"gain": np.ones(1, np.float32)}),
            ValueError,
            r"params gain: shape \(1,\), expected \(\)",
        ),
    }


@pytest.mark.parametrize("what", wrong_calls(adafactor.Adafactor(), tree(0)))
def test_a_wrong_call_names_what_is_wrong_and_changes_nothing(what):
    optimizer, params = adafactor.Adafactor(), tree(0)
    optimizer.apply(tree(5), params)
    call, error, message = wrong_calls(optimizer, params)[what]
    before = snapshots.memory(leaves(params)), snapshots.memory(optimizer.variables), optimizer.iterations
    with pytest.raises(error, match=f"^{message}"):
        call()
    after = snapshots.memory(leaves(params)), snapshots.memory(optimizer.variables), optimizer.iterations
    assert after == before
    assert optimizer.apply(tree(6)) == 2


def test_variables_that_share_memory_are_refused_by_the_first_call():
    w = np.ones((2, 3), np.float32)
    with pytest.raises(
        ValueError, match=r"^params 0: shares memory with params 1, expected memory of its own$"
    ):
        adafactor.Adafactor().apply([numbers((2, 3), 0), numbers(3, 1)], [w, w[0]])


def test_built_again_it_goes_on_with_other_arrays():
    params, others, expected = tree(0), tree(0), tree(0)
    optimizer = adafactor.Adafactor(learning_rate=0.1)
    optimizer.build(params)
    optimizer.build(params)
    optimizer.apply(tree(10))
    for mine, theirs in zip(leaves(others), leaves(params), strict=True):
        mine[...] = theirs
    kept = snapshots.memory(leaves(params))
    optimizer.build(others)
    assert optimizer.apply(tree(11)) == 2
    state = adafactor.init(expected, adafactor.presets.keras(learning_rate=0.1))
    for seed in (10, 11):
        adafactor.step(expected, tree(seed), state)
    assert snapshots.same_bits(leaves(others), leaves(expected))
    assert snapshots.memory(leaves(params)) == kept


def test_stateless_takes_read_only_arrays_and_gives_a_tree_like_theirs():
    params, grads = tree(0), tree(10)
    for p in leaves(params):
        p.flags.writeable = False
    optimizer = adafactor.Adafactor()
    optimizer.build(params)
    values = [np.array(v) for v in optimizer.variables]
    before = snapshots.memory([*leaves(params), *leaves(grads), *values])
    after, new_values = optimizer.stateless_apply(values, grads, params)
    assert snapshots.memory([*leaves(params), *leaves(grads), *values]) == before
    assert after.keys() == params.keys()
    assert [v.shape for v in new_values] == [v.shape for v in values]
    assert (optimizer.iterations, int(new_values[0])) == (0, 1)
    listed, _ = optimizer.__class__(), None
    listed.build(leaves(params))
    assert isinstance(listed.stateless_apply(listed.variables, leaves(grads), leaves(params))[0], list)


def test_stateless_takes_the_learning_rate_from_its_weights():
    params, grads = tree(0), tree(10)
    optimizer, other = adafactor.Adafactor(learning_rate=0.1), adafactor.Adafactor(learning_rate=0.02)
    optimizer.build(params)
    other.build(params)
    values = optimizer.variables
    values[1] = np.array(0.02)
    after, _ = optimizer.stateless_apply(values, grads, params)
    expected, _ = other.stateless_apply(other.variables, grads, params)
    assert snapshots.same_bits(leaves(after), leaves(expected))
    assert optimizer.learning_rate == 0.1


def test_weights_are_the_state_itself():
    params = tree(0)
    optimizer = adafactor.Adafactor(beta_1=0.9, use_ema=True, gradient_accumulation_steps=2)
    assert [v.shape for v in optimizer.variables] == [(), ()]
    optimizer.build(params)
    # Counter and rate; averages; accumulators; then moments and momentum of w, b and gain.
    w, b, gain = (4, 3), (3,), ()
    shapes = [(), (), w, b, gain, w, b, gain, (4,), (3,), w, b, b, gain, gain]
    assert [v.shape for v in optimizer.variables] == shapes
    optimizer.apply(tree(10))
    accumulator = optimizer.variables[5]
    assert np.array_equal(accumulator, tree(10)["encoder"]["w"])
    accumulator[...] = 0
    assert not optimizer.variables[5].any()


def test_set_weights_checks_all_before_it_writes():
    params = tree(0)
    source, optimizer = adafactor.Adafactor(learning_rate=0.1), adafactor.Adafactor()
    source.apply(tree(10), tree(0))
    weights = source.variables
    with pytest.raises(ValueError, match=r"^set_weights: the optimizer is not built yet"):
        optimizer.set_weights(weights)
    optimizer.build(params)
    for index, wrong, error, message in (
        (0, -1, ValueError, r"^calls: -1, expected a whole number >= 0$"),
        (0, 1.5, TypeError, r"^weights\[0\] \(iteration\): .*1.5.*, expected a whole number$"),
        (0, np.zeros(2), TypeError, r"^weights\[0\] \(iteration\): array\(\[0., 0.\]\), expected a whole"),
        (1, np.array(np.nan), ValueError, r"^weights\[1\] \(learning_rate\): .*nan.*, expected a finite"),
        (1, "x", ValueError, r"^weights\[1\] \(learning_rate\): .*'x'.*, expected a finite number >= 0$"),
        (2, weights[3], ValueError, r"^tensors encoder/w row: shape \(3,\), expected \(4,\)$"),
        (5, weights[5] + 1j, TypeError, r"^tensors gain full: dtype complex64, expected float32$"),
        (slice(5, 6), [], ValueError, r"^weights: 5 weights, expected 6: iteration, learning_rate, enc"),
        (slice(0, 0), [0], ValueError, r"^weights: 7 weights, expected 6: "),
    ):
        changed = list(weights)
        changed[index] = wrong
        before = snapshots.memory(optimizer.variables)
        with pytest.raises(error, match=message):
            optimizer.set_weights(changed)
        assert snapshots.memory(optimizer.variables) == before
    optimizer.set_weights([v.tolist() for v in weights])
    assert snapshots.memory(optimizer.variables) == snapshots.memory(weights)
    assert (optimizer.iterations, optimizer.learning_rate) == (1, 0.1)


def test_a_store_with_other_keys_is_refused():
    optimizer = adafactor.Adafactor()
    with pytest.raises(ValueError, match=r"^load_own_variables: the optimizer is not built yet"):
        optimizer.load_own_variables({})
    optimizer.build(tree(0))
    store = {}
    optimizer.save_own_variables(store)
    for wrong, message in (
        ({"0": store["0"]}, r"^store: 1 weights, expected 6: "),
        (
            {**store, "x": 0},
            r"^store: keys \['0', '1', '2', '3', '4', '5', 'paths', 'x'\], expected '0', '1' and so on$",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            optimizer.load_own_variables(wrong)
    optimizer.load_own_variables(store)


def test_what_was_saved_does_not_move():
    optimizer, params, store = adafactor.Adafactor(), tree(0), {}
    optimizer.apply(tree(10), params)
    optimizer.save_own_variables(store)
    before = snapshots.memory(store.values())
    optimizer.apply(tree(11))
    assert snapshots.memory(store.values()) == before
