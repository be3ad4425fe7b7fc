"""Interrupted training goes on as if nothing had been: 5 calls, saved and loaded, 5 calls are 10 calls."""

import copy
import json
import pickle
import warnings

import numpy as np
import pytest

import adafactor
import snapshots

SHAPES = {"kernel": (7, 37), "bias": (37,), "filter": (3, 2, 21), "gain": ()}
FEATURES = {
    "defaults": {},
    "numbers": {"learning_rate": 0.1, "weight_decay": 0.01, "clipnorm": 0.5, "clip_threshold": 0.7},
    "averages": {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 4},
    "inside a window": {"gradient_accumulation_steps": 3, "use_ema": True, "loss_scale_factor": 2.0},
    "momentum": {"beta_1": 0.9},
    "momentum in 16 bits": {"beta_1": 0.9, "momentum_dtype": "bfloat16", "momentum_on": "update"},
    "a schedule": {"learning_rate": adafactor.schedules.CosineDecay(0.1, 10)},
    "a count a leaf": {"count_updates": "leaf"},
    "a count a leaf, inside a window": {"count_updates": "leaf", "gradient_accumulation_steps": 3},
    "excluded": {"weight_decay": 0.3, "exclude_from_weight_decay": ("bias",)},
}


def numbers(shape, seed):
    return np.asarray(np.random.default_rng(seed).standard_normal(shape), np.float32)


def tree(seed):
    return {name: numbers(shape, [seed, i]) for i, (name, shape) in enumerate(SHAPES.items())}


def train(optimizer, calls, params=None):
    """Some of the ten calls. On the second and the seventh a leaf has no gradient."""
    for call in calls:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "grads: no gradient for filter", UserWarning)
            optimizer.apply(tree(100 + call) | ({"filter": None} if call in (1, 6) else {}), params)


def new_one(optimizer, params):
    """A new optimizer from the config as text, built with the same parameters."""
    made = adafactor.Adafactor.from_config(json.loads(json.dumps(optimizer.get_config())))
    made.build(params)
    return made


def saved(optimizer, params):
    store = {}
    optimizer.save_own_variables(store)
    made = new_one(optimizer, params)
    made.load_own_variables(store)
    return made


def in_a_file(optimizer, params, path):
    store = {}
    optimizer.save_own_variables(store)
    np.savez(path, **store)
    made = new_one(optimizer, params)
    with np.load(path) as file:
        made.load_own_variables(file)
    return made


def by_weights(optimizer, params):
    made = new_one(optimizer, params)
    made.set_weights([np.array(v) for v in optimizer.variables])
    return made


def bound(make):
    def made(optimizer, params):
        copied = make(optimizer)
        copied.build(params)
        return copied

    return made


WAYS = {
    "save_own_variables": saved,
    "a file": None,
    "set_weights": by_weights,
    "pickle": bound(lambda optimizer: pickle.loads(pickle.dumps(optimizer))),
    "pickle, protocol 2": bound(lambda optimizer: pickle.loads(pickle.dumps(optimizer, 2))),
    "deepcopy": bound(copy.deepcopy),
    "copy": bound(copy.copy),
    # A copy that is not built again goes on with the variables that it is handed first.
    "pickle, handed": lambda optimizer, params: pickle.loads(pickle.dumps(optimizer)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("feature", FEATURES)
def test_five_and_five_calls_are_ten(feature, way, tmp_path):
    whole, params = adafactor.Adafactor(**FEATURES[feature]), tree(0)
    whole.build(params)
    train(whole, range(10))

    first, halfway = adafactor.Adafactor(**FEATURES[feature]), tree(0)
    first.build(halfway)
    train(first, range(5))
    weights = snapshots.memory(first.variables)
    kept, others = snapshots.memory(halfway.values()), {name: p.copy() for name, p in halfway.items()}
    if way == "a file":
        second = in_a_file(first, others, tmp_path / "weights.npz")
    else:
        second = WAYS[way](first, others)
    train(second, range(5, 10), others)

    assert snapshots.same_bits(others.values(), params.values())
    assert snapshots.same_bits(second.variables, whole.variables)
    assert second.iterations == whole.iterations
    assert second.get_config() == whole.get_config()
    # The one that was saved is still where it was.
    assert (snapshots.memory(first.variables), snapshots.memory(halfway.values())) == (weights, kept)


@pytest.mark.parametrize("feature", FEATURES)
def test_five_and_five_calls_without_a_state_are_ten(feature):
    whole, params = adafactor.Adafactor(**FEATURES[feature]), tree(0)
    whole.build(params)
    train(whole, range(10))

    first, halfway = adafactor.Adafactor(**FEATURES[feature]), tree(0)
    first.build(halfway)
    train(first, range(5))
    second = new_one(first, tree(0))
    values, current = first.variables, halfway
    for call in range(5, 10):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "grads: no gradient for filter", UserWarning)
            gradients = tree(100 + call) | ({"filter": None} if call == 6 else {})
            current, values = second.stateless_apply(values, gradients, current)
    assert snapshots.same_bits(current.values(), params.values())
    assert snapshots.same_bits(values, whole.variables)
    assert second.iterations == 0


def test_variables_excluded_by_list_are_in_the_config_once_built():
    params = tree(0)
    whole = adafactor.Adafactor(learning_rate=0.5, weight_decay=0.3)
    whole.exclude_from_weight_decay(var_list=[params["bias"]], var_names=["filter"])
    train(whole, range(5), params)
    others = {name: p.copy() for name, p in params.items()}
    second = saved(whole, others)
    train(whole, range(5, 10))
    train(second, range(5, 10))
    assert snapshots.same_bits(others.values(), params.values())


@pytest.mark.parametrize(
    "make", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))], ids=["deepcopy", "pickle"]
)
def test_a_copy_with_its_variables_stays_with_them(make):
    """As part of something larger: the copied optimizer trains the copied arrays."""
    optimizer, params = adafactor.Adafactor(learning_rate=0.1), tree(0)
    train(optimizer, range(5), params)
    other, others = make((optimizer, params))
    before = snapshots.memory(params.values())
    train(other, range(5, 10))
    assert snapshots.memory(params.values()) == before
    train(optimizer, range(5, 10))
    assert snapshots.same_bits(others.values(), params.values())


def test_a_shallow_copy_has_a_state_of_its_own_for_the_same_arrays():
    optimizer, params = adafactor.Adafactor(learning_rate=0.1), tree(0)
    optimizer.build(params)
    other = copy.copy(optimizer)
    train(other, range(2))
    assert (optimizer.iterations, other.iterations) == (0, 2)
    assert not np.array_equal(params["bias"], tree(0)["bias"])


def test_an_optimizer_that_is_not_built_is_copied_too():
    optimizer = adafactor.Adafactor(learning_rate=0.1, name="mine")
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    for other in (copy.copy(optimizer), copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert (other.built, other.name, other.get_config()) == (False, "mine", optimizer.get_config())
        other.apply(tree(1), tree(0))
        assert not optimizer.built


def test_a_copy_takes_other_variables_once():
    optimizer = adafactor.Adafactor()
    optimizer.apply(tree(1), tree(0))
    other, others = copy.deepcopy(optimizer), tree(0)
    other.apply(tree(2), others)
    with pytest.raises(ValueError, match=r"^trainable_variables kernel: unknown to the optimizer"):
        other.apply(tree(3), tree(0))
    with pytest.raises(ValueError, match=r"^variables gain: missing$"):
        copy.deepcopy(optimizer).apply(
            {name: g for name, g in tree(3).items() if name != "gain"},
            {name: p for name, p in tree(0).items() if name != "gain"},
        )


BY_PATHS = {
    **{way: WAYS[way] for way in ("save_own_variables", "pickle", "deepcopy", "pickle, handed")},
    "a file": None,
}


@pytest.mark.parametrize("order", [sorted, reversed], ids=["sorted", "reversed"])
@pytest.mark.parametrize("way", BY_PATHS)
@pytest.mark.parametrize("feature", FEATURES)
def test_a_state_finds_its_leaves_in_a_dict_in_another_order(feature, way, order, tmp_path):
    """As jax.jit and jax.tree.map hand a dict back; moments of leaves of one shape would change places."""
    shapes = {"wv": (3, 3), "wk": (3, 3), "b": (3,), "wq": (3, 3), "filter": (3,)}

    def leaves(seed):
        return {name: numbers(shape, [seed, i]) for i, (name, shape) in enumerate(shapes.items())}

    def trained(optimizer, params, calls):
        for call in calls:
            optimizer.apply(
                {name: x * 10.0**i for i, (name, x) in enumerate(leaves(50 + call).items())}, params
            )

    features = {key: value for key, value in FEATURES[feature].items() if key != "exclude_from_weight_decay"}
    whole, params = adafactor.Adafactor(**features), leaves(0)
    trained(whole, params, range(4))
    first, halfway = adafactor.Adafactor(**features), leaves(0)
    trained(first, halfway, range(2))
    others = {name: halfway[name].copy() for name in order(list(shapes))}
    second = in_a_file(first, others, tmp_path / "w.npz") if way == "a file" else BY_PATHS[way](first, others)
    trained(second, others, range(2, 4))
    assert list(second.variables[0].shape) == []
    for name in shapes:
        assert snapshots.same_bits([others[name]], [params[name]]), name


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["kernel", "bias", "filter"], r"^store gain: not in the state$"),
        (["kernel", "bias", "filter", "gain", "more"], r"^store more: missing$"),
        (["kernel", "bias", "filter", "gains"], r"^store gain: not in the state$"),
    ],
)
def test_a_store_of_other_names_is_refused_with_the_first(names, message):
    optimizer, store = adafactor.Adafactor(), {}
    optimizer.apply(tree(10), tree(0))
    optimizer.save_own_variables(store)
    shapes = SHAPES | {"gains": SHAPES["gain"], "more": (2,)}
    other = adafactor.Adafactor()
    other.build({name: numbers(shapes[name], 0) for name in names})
    before = snapshots.memory(other.variables)
    with pytest.raises(ValueError, match=message):
        other.load_own_variables(store)
    assert snapshots.memory(other.variables) == before


@pytest.mark.parametrize("paths", [b"", b"[1]", b'{"a": 1}', b"\xff", 7])
def test_a_store_with_other_paths_than_are_written_is_refused(paths):
    optimizer, store = adafactor.Adafactor(), {}
    optimizer.build(tree(0))
    optimizer.save_own_variables(store)
    store["paths"] = np.frombuffer(paths, np.uint8) if isinstance(paths, bytes) else paths
    with pytest.raises(
        ValueError, match=r"^store paths: expected a list of paths in JSON, its bytes as uint8$"
    ):
        optimizer.load_own_variables(store)


def test_a_list_goes_in_by_place_and_a_store_of_keras_too():
    optimizer, store = adafactor.Adafactor(), {}
    optimizer.apply(tree(10), tree(0))
    optimizer.save_own_variables(store)
    del store["paths"]
    in_order = [np.array(value) for value in optimizer.variables]
    for fill in (lambda other: other.load_own_variables(store), lambda other: other.set_weights(in_order)):
        other = adafactor.Adafactor()
        other.build(dict(reversed(tree(0).items())))
        with pytest.raises(ValueError, match=r"^tensors gain full: shape \(7,\), expected \(\)$"):
            fill(other)
        other = adafactor.Adafactor()
        other.build([p.copy() for p in tree(0).values()])
        fill(other)
        assert snapshots.same_bits(other.variables, optimizer.variables)
