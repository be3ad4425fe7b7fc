"""The class Adafactor: what Keras tests of its base optimizer, the numbers held against live Keras."""

import inspect
import warnings

import numpy as np
import pytest

import adafactor

SHAPES = {"kernel": (6, 5), "bias": (5,), "filter": (3, 4, 2), "gain": ()}


def numbers(shape, seed):
    return np.asarray(np.random.default_rng(seed).standard_normal(shape), np.float32)


def tree(seed):
    return {name: numbers(shape, [seed, i]) for i, (name, shape) in enumerate(SHAPES.items())}


class Twins:
    """Our optimizer and Keras' with the same arguments, for equal variables."""

    # Two float32 computations in different orders, at most ten calls long. Measured: 4e-7 at most.
    TOLERANCE = 3e-6

    def __init__(self, keras, prepare=None, **arguments):
        self.params = tree(0)
        self.peers = {name: keras.Variable(p, name=name) for name, p in self.params.items()}
        self.ours, self.theirs = adafactor.Adafactor(**arguments), keras.optimizers.Adafactor(**arguments)
        if prepare:
            prepare(self.ours, list(self.params.values()))
            prepare(self.theirs, list(self.peers.values()))
        self.ours.build(self.params)
        self.theirs.build(list(self.peers.values()))

    def apply(self, seed, scale=1.0):
        grads = {name: np.asarray(g * np.float32(scale)) for name, g in tree(100 + seed).items()}
        assert self.ours.apply(grads) == seed + 1
        self.theirs.apply(list(grads.values()))

    def check(self):
        """Variables, counters, rates and weights are the same."""
        assert self.ours.iterations == int(self.theirs.iterations)
        assert self.ours.learning_rate == pytest.approx(float(self.theirs.learning_rate), rel=1e-7)
        pairs = [(p, np.asarray(self.peers[name].value)) for name, p in self.params.items()]
        # Keras has a velocity of each variable, which is needed of an unfactored one alone, and placeholders
        # of the row and column moments of that.
        dropped = {f"{name}_velocity" if p.ndim > 1 else name for name, p in self.params.items()}
        theirs = [np.asarray(v.value) for v in self.theirs.variables if v.name not in dropped]
        pairs += list(zip(self.ours.variables, theirs, strict=True))
        for ours, expected in pairs:
            assert ours.shape == expected.shape
            largest = np.abs(expected).max(initial=0)
            assert np.abs(ours - expected).max() <= self.TOLERANCE * max(largest, 1e-3), (ours, expected)

    def train(self, calls, scale=1.0):
        for call in range(calls):
            self.apply(call, scale)
            self.check()
        return self


def test_arguments_are_those_of_keras_in_its_order_and_with_its_defaults(keras):
    theirs = inspect.signature(keras.optimizers.Adafactor).parameters
    ours = inspect.signature(adafactor.Adafactor).parameters
    assert list(ours)[:-1] == list(theirs)[:-1]
    for name, parameter in theirs.items():
        if name not in ("name", "kwargs"):
            assert ours[name].default == parameter.default, name
    assert adafactor.Adafactor().name == adafactor.Adafactor(name=None).name == "adafactor"
    assert adafactor.Adafactor(name="another").name == "another"


def test_an_unknown_argument_is_refused_with_the_nearest_name():
    with pytest.raises(TypeError, match=r"^unknown argument 'clip_norm'; did you mean 'clipnorm'\?$"):
        adafactor.Adafactor(clip_norm=1.0)


def test_methods_and_properties_have_the_names_of_keras(keras):
    for name in ("build", "apply", "apply_gradients", "stateless_apply", "scale_loss", "get_config"):
        ours, theirs = (getattr(c.Adafactor, name) for c in (adafactor, keras.optimizers))
        if name != "build":  # which calls its argument var_list in Adafactor and variables in its base class
            assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters)
    for name in ("set_weights", "exclude_from_weight_decay", "finalize_variable_values", "from_config"):
        ours, theirs = (getattr(c.Adafactor, name) for c in (adafactor, keras.optimizers))
        assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters)
    for name in ("save_own_variables", "load_own_variables"):
        assert list(inspect.signature(getattr(adafactor.Adafactor, name)).parameters) == ["self", "store"]


def test_the_counters_count_updates_and_calls():
    optimizer, b = adafactor.Adafactor(gradient_accumulation_steps=3), np.zeros(3)
    assert (optimizer.iterations, optimizer.built) == (0, False)
    seen = [(optimizer.apply_gradients([(np.ones(3), b)]), optimizer.iterations) for _ in range(4)]
    assert seen == [(1, 0), (2, 0), (3, 1), (4, 1)]
    assert (optimizer.apply([np.ones(3)]), optimizer.built) == (5, True)
    with pytest.raises(AttributeError):
        optimizer.iterations = 0


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"learning_rate": 0.5, "relative_step": False},
        {"learning_rate": 0.5, "beta_2_decay": -0.65, "epsilon_1": 1e-15, "epsilon_2": 1e-4},
        {"learning_rate": 0.5, "clip_threshold": 0.9},
        {"learning_rate": 0.5, "weight_decay": 0.004},
    ],
    ids=lambda arguments: "-".join(arguments) or "defaults",
)
def test_trains_as_keras(arguments, keras):
    Twins(keras, **arguments).train(5)


@pytest.mark.parametrize("clip", [{"clipnorm": 0.5}, {"clipvalue": 0.1}, {"global_clipnorm": 0.5}])
def test_clips_as_keras(clip, keras):
    """Gradients far above the bounds: what is clipped shows in the moments."""
    twins = Twins(keras, **clip).train(3, scale=100.0)
    unclipped = Twins(keras).train(3, scale=100.0)
    assert np.abs(twins.ours.variables[2]).max() < 0.01 * np.abs(unclipped.ours.variables[2]).max()
    for name, value in clip.items():
        assert getattr(twins.ours, name) == value


@pytest.mark.parametrize("clip", ["clipnorm", "clipvalue", "global_clipnorm"])
@pytest.mark.parametrize("bound", [0, -1.0])
def test_a_clip_of_zero_and_below_is_off_as_in_keras(clip, bound, keras):
    Twins(keras, **{clip: bound}).train(2, scale=100.0)


def test_at_most_one_clip():
    for second in ("clipvalue", "global_clipnorm"):
        with pytest.raises(ValueError, match=second):
            adafactor.Adafactor(clipnorm=0.1, **{second: 0.1})


def test_averages_move_and_overwrite_as_in_keras(keras):
    arguments = {"learning_rate": 0.1, "use_ema": True, "ema_momentum": 0.9, "ema_overwrite_frequency": 3}
    twins = Twins(keras, **arguments).train(7)
    averages = twins.ours.variables[2 : 2 + len(SHAPES)]
    assert not np.array_equal(averages[0], twins.params["kernel"])  # the seventh call is none that overwrites


def test_averages_move_on_every_call_under_accumulation_as_in_keras(keras):
    arguments = {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 2}
    Twins(keras, learning_rate=0.1, gradient_accumulation_steps=2, **arguments).train(9)


def test_final_values_are_the_averages_as_in_keras(keras):
    twins = Twins(keras, learning_rate=0.1, use_ema=True, ema_momentum=0.9).train(4)
    before = twins.params["kernel"].copy()
    twins.ours.finalize_variable_values(list(twins.params.values())[::-1])
    twins.theirs.finalize_variable_values(list(twins.peers.values()))
    twins.check()
    assert not np.array_equal(before, twins.params["kernel"])


def test_final_values_need_averages_and_all_variables():
    params = tree(0)
    plain = adafactor.Adafactor()
    plain.apply(tree(1), params)
    before = {name: p.copy() for name, p in params.items()}
    plain.finalize_variable_values(params)
    optimizer = adafactor.Adafactor(use_ema=True)
    with pytest.raises(ValueError, match=r"^finalize_variable_values: the optimizer is not built yet"):
        optimizer.finalize_variable_values(params)
    optimizer.build(params)
    with pytest.raises(ValueError, match=r"^finalize: the averages are empty before the first update$"):
        optimizer.finalize_variable_values(params)
    optimizer.apply(tree(1))
    before = {name: p.copy() for name, p in params.items()}
    with pytest.raises(ValueError, match=r"^var_list: 1 variables, expected all 4$"):
        optimizer.finalize_variable_values([params["bias"]])
    with pytest.raises(ValueError, match=r"^var_list kernel: unknown to the optimizer"):
        optimizer.finalize_variable_values(tree(0))
    assert all(np.array_equal(params[name], before[name]) for name in params)


def test_gradients_are_divided_by_the_loss_scale(keras):
    twins = Twins(keras, loss_scale_factor=1024.0).train(3, scale=1024.0)
    assert twins.ours.scale_loss(1.5) == twins.theirs.scale_loss(1.5) == 1536.0
    assert adafactor.Adafactor().scale_loss(1.5) == 1.5


def test_accumulates_as_keras(keras):
    Twins(keras, learning_rate=0.1, gradient_accumulation_steps=3).train(7)


def test_accumulated_gradients_are_their_mean_also_with_weight_decay():
    single = adafactor.Adafactor(learning_rate=0.1, weight_decay=0.05)
    threefold = adafactor.Adafactor(learning_rate=0.1, weight_decay=0.05, gradient_accumulation_steps=3)
    first, second = np.array([[0.9], [0.5]]), np.array([[0.9], [0.5]])
    rng = np.random.default_rng(0)
    for _ in range(8):
        grads = rng.random([3, 2, 1])
        single.apply_gradients([(grads.mean(axis=0), first)])
        for grad in grads:
            threefold.apply_gradients([(grad, second)])
    assert second == pytest.approx(first, rel=1e-12)  # float64; only the order of a sum of three differs


def test_a_callable_learning_rate_is_evaluated_once_a_call(keras):
    Twins(keras, learning_rate=lambda: 0.01).train(2)
    seen = []
    optimizer = adafactor.Adafactor(learning_rate=lambda: seen.append(1) or 0.01)
    params = tree(0)
    optimizer.apply(tree(1), params)
    optimizer.apply(tree(2))
    assert len(seen) == 2
    assert optimizer.learning_rate == 0.01


@pytest.mark.parametrize("accumulation", [None, 2])
def test_a_schedule_is_evaluated_at_the_number_of_calls(accumulation, keras):
    schedules = {
        kind.__name__: kind.ExponentialDecay(0.1, 2, 0.5)
        for kind in (adafactor.schedules, keras.optimizers.schedules)
    }
    ours, theirs = schedules.values()
    twins = Twins(keras, gradient_accumulation_steps=accumulation)
    twins.ours.learning_rate, twins.theirs.learning_rate = ours, theirs
    twins.train(5)


def test_the_learning_rate_can_be_set_while_it_is_a_number(keras):
    twins = Twins(keras, learning_rate=0.1).train(2)
    for optimizer in (twins.ours, twins.theirs):
        optimizer.learning_rate = 0.02
    for call in range(2, 5):
        twins.apply(call)
        twins.check()
    twins.ours.learning_rate = 1
    assert isinstance(twins.ours.learning_rate, float)
    for wrong, error in ((-0.1, ValueError), (np.nan, ValueError), ("0.1", TypeError), (None, TypeError)):
        with pytest.raises(error, match=r"^learning_rate: "):
            twins.ours.learning_rate = wrong
        assert twins.ours.learning_rate == 1
    unbuilt = adafactor.Adafactor(0.1)
    unbuilt.learning_rate = 0.2
    assert (unbuilt.learning_rate, float(unbuilt.variables[1])) == (0.2, 0.2)


def test_no_number_can_be_set_in_the_place_of_a_schedule(keras):
    """A schedule in the place of a number takes it out of the list of weights, as in Keras."""
    params = tree(0)
    optimizer, peer = adafactor.Adafactor(0.001), keras.optimizers.Adafactor(0.001)
    assert len(optimizer.variables) == len(peer.variables) == 2
    optimizer.build(params)
    optimizer.learning_rate = adafactor.schedules.PolynomialDecay(optimizer.learning_rate, 4)
    peer.learning_rate = keras.optimizers.schedules.PolynomialDecay(0.001, 4)
    assert len(adafactor.Adafactor(optimizer._config.learning_rate).variables) == 2
    assert len(peer.variables) == 1
    assert [v.shape for v in optimizer.variables[:2]] == [(), (6,)]
    for later in (peer, optimizer):
        with pytest.raises(TypeError):
            later.learning_rate = 0.1
    optimizer.learning_rate = lambda: 0.5
    with pytest.raises(TypeError, match=r"^learning_rate: 0.1 cannot be set in the place of a schedule"):
        optimizer.learning_rate = 0.1
    assert optimizer.learning_rate == 0.5


@pytest.mark.parametrize(
    "exclude",
    [
        lambda optimizer, variables: optimizer.exclude_from_weight_decay(var_names=["bias", "^g"]),
        lambda optimizer, variables: optimizer.exclude_from_weight_decay(var_list=variables[1:3]),
        lambda optimizer, variables: optimizer.exclude_from_weight_decay(variables[:1], ["gain"]),
        lambda optimizer, variables: [
            optimizer.exclude_from_weight_decay(variables[:1], ["gain"]),
            optimizer.exclude_from_weight_decay(var_names=["bias"]),
        ],
    ],
    ids=["names", "list", "both", "the last call counts"],
)
def test_excludes_from_weight_decay_as_keras(exclude, keras):
    Twins(keras, exclude, learning_rate=0.5, weight_decay=0.1).train(3)


def test_what_is_excluded_does_not_decay():
    params = {"kernel": np.ones((2, 2)), "kernel2": np.ones((2, 2)), "bias": np.ones(2), "scale": np.ones(2)}
    optimizer = adafactor.Adafactor(learning_rate=0.5, weight_decay=0.5, exclude_from_weight_decay=["scale"])
    # A view of the same elements is the variable; its path is matched whole.
    optimizer.exclude_from_weight_decay(var_list={"any": params["kernel"][:]}, var_names="bias")
    optimizer.apply({name: np.zeros_like(p) for name, p in params.items()}, params)
    assert {name: p.flat[0] for name, p in params.items()} == {
        "kernel": 1.0,
        "kernel2": 0.75,
        "bias": 1.0,
        "scale": 1.0,
    }


def test_exclusions_come_before_build_and_know_their_variables():
    optimizer, params = adafactor.Adafactor(weight_decay=0.1), tree(0)
    optimizer.exclude_from_weight_decay(var_list=[params["bias"].copy()])
    with pytest.raises(
        ValueError, match=r"^exclude_from_weight_decay: var_list has an array of shape \(5,\)"
    ):
        optimizer.build(params)
    assert not optimizer.built
    with pytest.raises(ValueError, match=r"^exclude_from_weight_decay: '\(' is not a regular expression"):
        optimizer.exclude_from_weight_decay(var_names=["("])
    optimizer.exclude_from_weight_decay(var_list=[params["bias"]])
    optimizer.build(params)
    with pytest.raises(
        ValueError, match=r"^exclude_from_weight_decay: the optimizer is built; call it before"
    ):
        optimizer.exclude_from_weight_decay(var_names=["bias"])


def test_repr():
    optimizer = adafactor.Adafactor()
    assert repr(optimizer) == "Adafactor(not built)"
    optimizer.apply_gradients([(np.ones(3), np.zeros(3))])
    assert repr(optimizer) == "Adafactor(1 leaf, 24 bytes, 1 update)"


def test_a_training_loop_raises_no_warning():
    params = tree(0)
    optimizer = adafactor.Adafactor()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(3):
            optimizer.apply_gradients(zip(tree(seed).values(), params.values(), strict=True))
    assert optimizer.iterations == 3
