"""Knobs and learning rates that differ from leaf to leaf, and those that a call is given."""

import copy
import pickle

import numpy as np
import pytest

import adafactor
import snapshots
from adafactor.engine.rows import WHOLE_CALL

SHAPES = {"encoder/kernel": (7, 37), "encoder/bias": (37,), "head/kernel": (37, 3), "head/bias": (3,)}


def tree(seed):
    generator = np.random.default_rng(seed)
    return {path: generator.standard_normal(shape, np.float32) for path, shape in SHAPES.items()}


def nested(flat):
    """The same leaves in two dicts, so that their paths have a slash."""
    made = {}
    for path, leaf in flat.items():
        outer, inner = path.split("/")
        made.setdefault(outer, {})[inner] = leaf
    return made


def run(steps=2, knobs_of=None, overrides=(), step_arguments=None, **knobs):
    """The parameters after some steps: of one state, or of a state for each leaf with knobs of its own."""
    params = tree(0)
    arguments = step_arguments or {}
    if knobs_of is None:
        state = adafactor.init(nested(params), overrides=overrides, **knobs)
        for k in range(steps):
            adafactor.step(nested(params), nested(tree(10 + k)), state, **arguments)
        return params
    for path, leaf in params.items():
        state = adafactor.init(leaf, **{**knobs, **knobs_of(path)})
        for k in range(steps):
            adafactor.step(leaf, tree(10 + k)[path], state, **arguments)
    return params


def assert_same(found, expected):
    for path in SHAPES:
        assert snapshots.same_bits([found[path]], [expected[path]]), path


OVERRIDES = {
    "learning_rate": 0.5,
    "relative_step": False,
    "beta_2_decay": -0.5,
    "beta_2_cap": 0.25,
    "step_offset": 1,
    "count_updates": "leaf",
    "epsilon_1": 0.1,
    "epsilon_1_mode": "clamp",
    "epsilon_2": 2.0,
    "scale_parameter": False,
    "max_parameter_scale": 0.1,
    "clip_threshold": 0.1,
    "beta_1": 0.5,
    "factored": False,
    "min_dim_size_to_factor": 30,
    "maximize": True,
    "weight_decay": 0.1,
    "clipnorm": 0.1,
    "clipvalue": 0.1,
}
INERT = {"epsilon_1_mode", "count_updates"}  # they change no number of these few steps


@pytest.mark.parametrize("knob", OVERRIDES)
def test_an_override_is_the_knob_of_its_leaves(knob):
    overrides = [("^head/kernel$|encoder/b", {knob: OVERRIDES[knob]})]
    chosen = ("head/kernel", "encoder/bias")
    found = run(overrides=overrides, learning_rate=0.9)
    expected = run(knobs_of=lambda path: dict(overrides[0][1]) if path in chosen else {}, learning_rate=0.9)
    assert_same(found, expected)
    plain = run(learning_rate=0.9)
    differs = {path for path in SHAPES if not snapshots.same_bits([found[path]], [plain[path]])}
    assert differs <= set(chosen)
    assert knob in INERT or "head/kernel" in differs


def test_the_first_match_wins():
    overrides = [
        ("head", {"learning_rate": 0.5}),
        ("bias$", {"learning_rate": 0.25}),
        ("", {"weight_decay": 0.5}),
    ]

    def knobs_of(path):
        if path.startswith("head"):
            return {"learning_rate": 0.5}
        return {"learning_rate": 0.25} if path.endswith("bias") else {"weight_decay": 0.5}

    assert_same(run(overrides=overrides), run(knobs_of=knobs_of))


@pytest.mark.parametrize("knob", sorted(WHOLE_CALL))
def test_what_concerns_the_whole_call_cannot_be_overridden(knob):
    value = {"ema_on": "call", "on_nonfinite": "skip", "use_ema": True, "ema_momentum": 0.5}.get(knob, 4)
    with pytest.raises(
        ValueError, match=rf"^overrides\[1\]: {knob} concerns the whole call and cannot be overridden$"
    ):
        adafactor.init(tree(0), overrides=[("x", {"learning_rate": 1}), ("bias", {knob: value})])


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        ("bias", TypeError, r"^overrides: \w+, expected a sequence of"),
        ({"bias": {}}, TypeError, r"^overrides: \w+, expected a sequence of"),
        (None, TypeError, r"^overrides: \w+, expected a sequence of"),
        (
            [("bias",)],
            TypeError,
            r"^overrides\[0\]: \('bias',\), expected \(regular expression, dict of knobs\)",
        ),
        (["ab"], TypeError, r"^overrides\[0\]: 'ab', expected"),
        ([("a", {}), ("bias", 3)], TypeError, r"^overrides\[1\]: int, expected a dict of knobs"),
        ([(3, {})], TypeError, r"^overrides\[0\]: 3, expected a regular expression"),
        ([("(", {})], ValueError, r"^overrides\[0\]: '\(' is not a regular expression"),
        ([("a", {"clipnorm": -1})], ValueError, r"^overrides\[0\] 'a': clipnorm: -1, expected "),
        ([("a", {"clipnorm": "1"})], TypeError, r"^overrides\[0\] 'a': clipnorm: '1', expected a number"),
        ([("a", {"clipvalue": 1})], ValueError, r"^overrides\[0\] 'a': clipnorm: contradicts clipvalue"),
        (
            [("a", {"clipnrm": 1})],
            TypeError,
            r"^overrides\[0\] 'a': unknown knob 'clipnrm'; did you mean 'clipnorm'",
        ),
    ],
)
def test_a_bad_override_is_refused_by_its_number(overrides, error, message):
    with pytest.raises(error, match=message):
        adafactor.init(tree(0), clipnorm=1.0, overrides=overrides)


def test_excluded_leaves_do_not_decay():
    knobs = {"weight_decay": 0.5, "learning_rate": 0.5}
    found = run(exclude_from_weight_decay=["bias$"], **knobs)
    expected = run(knobs_of=lambda path: {"weight_decay": None} if path.endswith("bias") else {}, **knobs)
    assert_same(found, expected)
    assert_same(run(overrides=[("bias$", {"weight_decay": None})], **knobs), expected)
    assert not snapshots.same_bits(found.values(), run(**knobs).values())


def test_a_leaf_can_be_excluded_by_its_override():
    knobs = {"weight_decay": 0.5, "learning_rate": 0.5}
    found = run(overrides=[("head", {"exclude_from_weight_decay": ["bias"]})], **knobs)
    expected = run(knobs_of=lambda path: {"weight_decay": None} if path == "head/bias" else {}, **knobs)
    assert_same(found, expected)


def test_the_learning_rate_of_the_call_is_not_capped():
    """It counts as a schedule's value, though the configured rate is a number."""
    found = run(learning_rate=0.001, step_arguments={"learning_rate": 0.9})
    assert_same(found, run(learning_rate=0.9, relative_step=False))
    assert_same(found, run(learning_rate=lambda: 0.9))
    assert not snapshots.same_bits(found.values(), run(learning_rate=0.9).values())


def test_the_learning_rate_of_the_call_is_capped_with_always():
    found = run(learning_rate=0.001, relative_step="always", step_arguments={"learning_rate": 0.9})
    assert_same(found, run(learning_rate=0.9))


def test_the_learning_rate_of_the_call_wins_over_the_warm_up_and_over_a_schedule():
    plain = run(learning_rate=0.9, relative_step=False)
    assert_same(run(warmup_init=True, step_arguments={"learning_rate": 0.9}), plain)
    assert_same(
        run(learning_rate=lambda: pytest.fail("evaluated"), step_arguments={"learning_rate": 0.9}), plain
    )


@pytest.mark.parametrize("kind", [list, tuple, np.array])
def test_the_call_may_give_a_rate_for_the_config_and_each_override(kind):
    overrides = [("kernel", {"learning_rate": 0.125}), ("bias", {"weight_decay": 0.5})]
    found = run(overrides=overrides, step_arguments={"learning_rate": kind([9.0, 0.75, 0.5])})
    expected = run(
        knobs_of=lambda path: (
            {"learning_rate": 0.75} if "kernel" in path else {"learning_rate": 0.5, "weight_decay": 0.5}
        ),
        relative_step=False,
    )
    assert_same(found, expected)
    with pytest.raises(ValueError, match=r"^learning_rate: 2 rates, expected one or 3$"):
        run(overrides=overrides, step_arguments={"learning_rate": kind([0.5, 0.5])})


def given(way, rate, steps=2, **knobs):
    """The parameters after some steps with a rate that is given in one of the ways."""
    params = tree(0)
    state = adafactor.init(nested(params), **knobs)
    for k in range(steps):
        if way == "set_learning_rate":
            state.set_learning_rate(rate)
        if way == "copied and pickled":
            state.set_learning_rate(rate)
            state = pickle.loads(pickle.dumps(copy.deepcopy(state.copy())))
        arguments = {"learning_rate": rate} if way == "step" else {}
        adafactor.step(nested(params), nested(tree(10 + k)), state, **arguments)
    return params


GIVEN = ["step", "set_learning_rate", "copied and pickled"]


@pytest.mark.parametrize("way", GIVEN)
def test_one_rate_keeps_the_ratios_of_rows_with_rates_of_their_own(way):
    overrides = [
        ("encoder/kernel", {"learning_rate": 0.0}),
        ("encoder/bias", {"learning_rate": 0.03}),
        ("head/bias", {"weight_decay": 0.5}),
    ]
    knobs = {"learning_rate": 0.1, "overrides": overrides, "relative_step": False}
    found = given(way, 0.5, **knobs)
    assert_same(found, given(way, [0.5, 0.0, 0.5 * (0.03 / 0.1), 0.5], **knobs))
    assert snapshots.same_bits([found["encoder/kernel"]], [tree(0)["encoder/kernel"]])
    # The config's rate is its own again, to the bit.
    assert_same(given(way, 0.1, **knobs), run(**knobs))


def test_a_schedule_for_all_keeps_the_ratios_too():
    knobs = {
        "learning_rate": 0.1,
        "overrides": [("encoder", {"learning_rate": 0.05})],
        "relative_step": False,
    }
    schedule = adafactor.schedules.PiecewiseConstantDecay([1], [0.5, 0.25])
    params = tree(0)
    state = adafactor.init(nested(params), **knobs)
    state.set_learning_rate(schedule)
    expected, twin = tree(0), adafactor.init(nested(tree(0)), **knobs)
    for k in range(3):
        adafactor.step(nested(params), nested(tree(10 + k)), state)
        adafactor.step(nested(expected), nested(tree(10 + k)), twin, learning_rate=schedule(k))
    assert_same(params, expected)


CONSTANT = adafactor.schedules.PolynomialDecay(0.5, 10, 0.5)


@pytest.mark.parametrize("way", GIVEN)
@pytest.mark.parametrize(
    ("common", "own", "words"),
    [
        (0.0, 0.5, r"had 0\.5 where the config had 0\.0"),
        (0, 0, r"had 0\.0 where the config had 0\.0"),
        (CONSTANT, 0.5, r"had 0\.5 where the config had PolynomialDecay\(.*\)"),
        (0.5, CONSTANT, r"had PolynomialDecay\(.*\) where the config had 0\.5"),
        (0.5, float, r"had <class 'float'> where the config had 0\.5"),
    ],
)
def test_one_rate_without_a_ratio_is_refused(way, common, own, words):
    knobs = {
        "learning_rate": common,
        "overrides": [("bias", {"weight_decay": 1}), ("head", {"learning_rate": own})],
    }
    message = (
        rf"^learning_rate: one for all, but overrides\[1\] {words}, which is no ratio; "
        r"give one for each, as in learning_rate=\[0\.25, 0\.25, .*\]$"
    )
    with pytest.raises(ValueError, match=message):
        given(way, 0.25, **knobs)
    given(way, [0.25, 0.25, 0.5], **knobs)


def test_a_rate_of_zero_moves_nothing_but_the_moments():
    params = run(step_arguments={"learning_rate": 0})
    assert_same(params, tree(0))


def test_each_schedule_and_callable_is_evaluated_once_a_call():
    class Counting(adafactor.schedules.LearningRateSchedule):
        def __init__(self):
            self.seen = []

        def __call__(self, step):
            self.seen.append(step)
            return 0.1

    schedule, evaluated = Counting(), []
    overrides = [
        ("encoder/bias", {"learning_rate": lambda: evaluated.append(1) or 0.5}),
        ("head/kernel", {"learning_rate": 0.25}),
        ("head/bias", {"weight_decay": 0.5}),  # shares the config's schedule
    ]
    found = run(steps=3, learning_rate=schedule, overrides=overrides, exclude_from_weight_decay="head")
    assert schedule.seen == [0, 1, 2]
    assert len(evaluated) == 3
    rates = {
        "encoder/kernel": lambda: 0.1,
        "encoder/bias": lambda: 0.5,
        "head/kernel": 0.25,
        "head/bias": lambda: 0.1,
    }
    assert_same(found, run(steps=3, knobs_of=lambda path: {"learning_rate": rates[path]}))


def test_a_schedule_counts_calls_that_counted():
    seen = []

    class Counting(adafactor.schedules.LearningRateSchedule):
        def __call__(self, step):
            seen.append(step)
            return 0.1

    params = np.ones(3)
    state = adafactor.init(
        params, learning_rate=Counting(), gradient_accumulation_steps=2, on_nonfinite="skip"
    )
    for gradient in (1.0, np.nan, 1.0, np.inf, 1.0):
        adafactor.step(params, np.full(3, gradient), state)
    assert seen == [0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    "knobs", [{}, {"clipvalue": 0.5}, {"gradient_accumulation_steps": 2}, {"beta_1": 0.9}], ids=str
)
@pytest.mark.parametrize("multiplier", [0.5, -4, 0])
def test_the_gradients_are_multiplied_before_anything_else(knobs, multiplier):
    """Powers of two, so that multiplying is exact."""
    params, expected = tree(0), tree(0)
    state, expected_state = adafactor.init(params, **knobs), adafactor.init(expected, **knobs)
    for k in range(2):
        grads = tree(10 + k)
        multiplied = {path: np.float32(multiplier) * g for path, g in grads.items()}
        adafactor.step(params, grads, state, grad_multiplier=multiplier)
        adafactor.step(expected, multiplied, expected_state)
    assert_same(params, expected)
    assert snapshots.of_state(state) == snapshots.of_state(expected_state)


def test_the_loss_scale_divides_and_maximize_turns_round():
    """1/1024 is a power of two, and a factor of all gradients leaves nothing else to differ."""
    plain = run(epsilon_1=0.5)
    found = run(epsilon_1=0.5, loss_scale_factor=1024, step_arguments={"grad_multiplier": 1024})
    assert_same(found, plain)
    found = run(epsilon_1=0.5, maximize=True, step_arguments={"grad_multiplier": -1})
    assert_same(found, plain)
