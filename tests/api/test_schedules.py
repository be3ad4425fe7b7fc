"""The schedules at the steps where they jump, as values, and with bad arguments."""

import copy
import decimal
import doctest
import inspect
import json
import math
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import adafactor.schedules
from adafactor.schedules import (
    CosineDecay,
    CosineDecayRestarts,
    ExponentialDecay,
    InverseTimeDecay,
    LearningRateSchedule,
    PiecewiseConstantDecay,
    PolynomialDecay,
    base,
    decays,
    formula,
)

# One object of each class with every argument given, and away from its default where it has one.
EXAMPLES = [
    ExponentialDecay(0.5, 100, 0.9, True, "a"),
    PiecewiseConstantDecay([10, 20.5], [0.5, 0.25, 0.125], "b"),
    PolynomialDecay(0.5, 100, 0.125, 2.0, True, "c"),
    InverseTimeDecay(0.5, 100, 0.9, True, "d"),
    CosineDecay(0.125, 100, 0.25, "e", 0.5, 10),
    CosineDecayRestarts(0.5, 100, 1.5, 0.75, 0.25, "f"),
]
SMALLEST = {
    ExponentialDecay: (0.5, 100, 0.9),
    PiecewiseConstantDecay: ([10], [0.5, 0.25]),
    PolynomialDecay: (0.5, 100),
    InverseTimeDecay: (0.5, 100, 0.9),
    CosineDecay: (0.5, 100),
    CosineDecayRestarts: (0.5, 100),
}


def name_of(value: object) -> str:
    return getattr(value, "__name__", type(value).__name__)


# Formulas at the steps where they jump


def test_stairs_end_exactly_at_multiples_of_decay_steps() -> None:
    exponential = ExponentialDecay(1.0, 3, 0.5, staircase=True)
    assert [exponential(step) for step in range(8)] == [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25, 0.25]
    inverse = InverseTimeDecay(1.0, 3, 1.0, staircase=True)
    assert [inverse(step) for step in (2, 3, 8, 9)] == [1.0, 0.5, float(np.float32(1 / 3)), 0.25]


def test_a_boundary_belongs_to_the_constant_before_it() -> None:
    schedule = PiecewiseConstantDecay((10, 20.5, 30), (1, 2, 3, 4))
    assert [schedule(step) for step in (0, 10, 11, 20, 21, 30, 31, 10**9)] == [1, 1, 2, 2, 3, 3, 4, 4]


def test_without_boundaries_the_rate_is_one_constant() -> None:
    assert PiecewiseConstantDecay([], [0.5])(7) == 0.5


def test_a_cycle_comes_to_its_end_at_each_multiple_and_then_starts_a_longer_one() -> None:
    schedule = PolynomialDecay(1.0, 4, 0.0, cycle=True)
    assert [schedule(step) for step in (0, 2, 4, 5, 8, 9)] == [1.0, 0.5, 0.0, 0.375, 0.0, 0.25]


def test_power_zero_stays_at_the_initial_rate() -> None:
    assert PolynomialDecay(0.5, 10, 0.25, power=0)(1000) == 0.5


def test_the_warmup_ends_at_its_target_and_the_cosine_starts_there() -> None:
    schedule = CosineDecay(0.0, 4, alpha=0.5, warmup_target=1.0, warmup_steps=4)
    assert [schedule(step) for step in (0, 1, 4, 6, 8, 100)] == [0.0, 0.25, 1.0, 0.75, 0.5, 0.5]
    assert CosineDecay(0.25, 4, warmup_target=1.0)(0) == 1.0  # a warm-up of no steps
    assert CosineDecay(1.0, 4, warmup_steps=4)(2) == 0.5  # without a target, as in Keras: no warm-up


@pytest.mark.parametrize("t_mul", [1, 1.1, 1.5, 2, 3, 10])
def test_a_restart_comes_at_its_step(t_mul: float) -> None:
    # A plain floor(log(...) / log(t_mul)) misses some of these by one step: log(3**5) / log(3) is
    # 4.999999999999999. All the periods are whole numbers of calls: 1.1 ** 4 and 1.5 ** 4 have four decimals.
    first = 10_000
    schedule = CosineDecayRestarts(1.0, first, t_mul=t_mul)
    restart = 0
    for period in range(5 if t_mul in (1.1, 1.5) else 6):
        length = round(first * t_mul**period)
        assert schedule(restart) == 1.0
        assert schedule(restart + length // 2) == pytest.approx(0.5, abs=1e-3)
        assert schedule(restart + length - 1) < 1e-6
        restart += length


def test_a_rate_is_a_float_that_float32_represents() -> None:
    for schedule in EXAMPLES:
        for step in (0, 1, np.int64(17), np.uint8(200), np.array(33), 2**40):
            rate = schedule(step)
            assert type(rate) is float
            assert rate == float(np.float32(rate))
    assert ExponentialDecay(0.1, 10, 0.9)(0) == float(np.float32(0.1)) != 0.1


def test_a_rate_beyond_float32_is_infinite_and_one_below_it_zero() -> None:
    assert ExponentialDecay(1.0, 1, 10.0)(100) == math.inf
    assert ExponentialDecay(1.0, 1, 10.0)(1000) == math.inf
    assert ExponentialDecay(1.0, 1, 0.5)(5000) == 0.0


# Schedules as values


@pytest.mark.parametrize("example", EXAMPLES, ids=name_of)
def test_a_schedule_survives_json_pickle_and_copies(example: Any) -> None:
    config = json.loads(json.dumps(example.get_config()))
    for twin in (
        type(example).from_config(config),
        pickle.loads(pickle.dumps(example)),
        copy.copy(example),
        copy.deepcopy(example),
        eval(repr(example)),
    ):
        assert type(twin) is type(example)
        assert twin == example
        assert hash(twin) == hash(example)
        assert repr(twin) == repr(example)
        assert twin(77) == example(77)


@pytest.mark.parametrize("example", EXAMPLES, ids=name_of)
def test_every_argument_counts_in_equality(example: Any) -> None:
    for name, value in example.get_config().items():
        if name == "boundaries":
            other: object = [11, 20.5]
        elif name == "values":
            other = [0.5, 0.25, 0.0625]
        elif isinstance(value, str):
            other = None
        else:
            other = not value if isinstance(value, bool) else value + 1
        changed = type(example).from_config(example.get_config() | {name: other})
        assert changed != example
        assert len({changed, example, copy.copy(example)}) == 2


def test_equality_goes_by_class_and_by_value() -> None:
    assert ExponentialDecay(0.5, 10, 0.25, name=None) != InverseTimeDecay(0.5, 10, 0.25, name=None)
    assert ExponentialDecay(1, 10, 0.5) == ExponentialDecay(
        np.float32(1), np.int64(10), decimal.Decimal("0.5")
    )
    assert ExponentialDecay(1, 10, 0.5) != "ExponentialDecay"
    assert PiecewiseConstantDecay([1], [1, 2]) == PiecewiseConstantDecay(np.array([1]), (1.0, 2.0))


def test_numpy_arguments_become_plain_numbers() -> None:
    schedule = CosineDecay(np.float64(0.5), np.int32(10), alpha=np.array(0.25), warmup_target=np.float16(1))
    kinds = {name: type(value) for name, value in schedule.get_config().items()}
    assert kinds == {
        "initial_learning_rate": float,
        "decay_steps": int,
        "alpha": float,
        "name": str,
        "warmup_target": float,
        "warmup_steps": int,
    }
    assert type(ExponentialDecay(1, 1, 1, staircase=np.True_).staircase) is bool  # type: ignore[arg-type]


@pytest.mark.parametrize("example", EXAMPLES, ids=name_of)
def test_a_schedule_does_not_change(example: Any) -> None:
    config = example.get_config()
    for name, value in config.items():
        with pytest.raises(AttributeError, match=name):
            setattr(example, name, value)
        if isinstance(value, list):
            value.append(1.0)
    assert example.get_config() != config or "boundaries" not in config
    assert example == type(example).from_config(example.get_config())


class Halving(LearningRateSchedule):
    def __init__(self, start: float, every: list[int]) -> None:
        self.start, self.every = start, every

    def __call__(self, step: int) -> float:
        return self.start / 2.0 ** sum(step >= e for e in self.every)

    def get_config(self) -> dict[str, Any]:
        return {"start": self.start, "every": self.every}


class Bare(LearningRateSchedule):
    def __call__(self, step: int) -> float:
        return 0.5


def test_a_subclass_with_a_config_is_a_value() -> None:
    schedule = Halving(1.0, [10, 20])
    assert schedule(15) == 0.5
    assert schedule == Halving.from_config(schedule.get_config()) != Halving(1.0, [10, 21])
    assert hash(schedule) == hash(Halving(1.0, [10, 20]))
    assert repr(schedule) == "Halving(start=1.0, every=[10, 20])"


def test_a_subclass_without_a_config_equals_itself_alone() -> None:
    schedule = Bare()
    assert schedule == schedule != Bare()
    assert len({schedule, Bare()}) == 2
    assert "Bare object at" in repr(schedule)


def test_the_base_class_says_what_a_subclass_lacks() -> None:
    class Empty(LearningRateSchedule):
        pass

    with pytest.raises(NotImplementedError, match=r"Empty does not define __call__"):
        Empty()(0)
    with pytest.raises(NotImplementedError, match=r"Empty does not define get_config"):
        Empty().get_config()


# Bad arguments


def numeric_arguments() -> Iterator[tuple[type[LearningRateSchedule], str, float, bool]]:
    """Every numeric argument with its lower bound and whether the bound itself is excluded."""
    for kind in SMALLEST:
        for name, parameter in inspect.signature(kind).parameters.items():
            if parameter.annotation in (float, float | None):
                yield kind, name, 1.0 if name == "t_mul" else 0.0, name.endswith("decay_steps")


NUMERIC = list(numeric_arguments())


def build(kind: type[LearningRateSchedule], **changes: object) -> LearningRateSchedule:
    names = inspect.signature(kind).parameters
    return kind(**(dict(zip(names, SMALLEST[kind], strict=False)) | changes))


@pytest.mark.parametrize(("kind", "name", "low", "excluded"), NUMERIC, ids=name_of)
def test_a_number_out_of_range_is_refused(
    kind: type[LearningRateSchedule], name: str, low: float, excluded: bool
) -> None:
    bound = f"{'above' if excluded else 'of at least'} {low:g}"
    bad = [math.nan, math.inf, -math.inf, 10**400, -1, low - 1e-9, decimal.Decimal("NaN"), np.float32("inf")]
    for value in [*bad, *([0] if excluded else [])]:
        with pytest.raises(
            ValueError, match=f"^{kind.__name__} {name}: .*, expected a finite number {bound}$"
        ):
            build(kind, **{name: value})
    assert build(kind, **{name: low + 1e-9 if excluded else low}).get_config()[name] >= low


@pytest.mark.parametrize(("kind", "name", "low", "excluded"), NUMERIC, ids=name_of)
def test_what_is_not_a_number_is_refused(
    kind: type[LearningRateSchedule], name: str, low: float, excluded: bool
) -> None:
    optional = name == "warmup_target"
    bad = [True, np.True_, "0.5", b"1", 1j, np.complex64(1), [1.0], np.ones(1), object]
    for value in [*bad, *([] if optional else [None])]:
        with pytest.raises(TypeError, match=rf"(?s)^{kind.__name__} {name}: .* \(\w+\), expected a number$"):
            build(kind, **{name: value})


@pytest.mark.parametrize(
    ("kind", "flag"), [(ExponentialDecay, "staircase"), (PolynomialDecay, "cycle")], ids=name_of
)
def test_a_flag_is_true_or_false(kind: type[LearningRateSchedule], flag: str) -> None:
    for value in (1, "yes", None):
        with pytest.raises(TypeError, match=rf"^{kind.__name__} {flag}: .*, expected True or False$"):
            build(kind, **{flag: value})


@pytest.mark.parametrize("kind", SMALLEST, ids=name_of)
def test_a_name_is_a_string_or_none(kind: type[LearningRateSchedule]) -> None:
    assert build(kind, name=None).get_config()["name"] is None
    with pytest.raises(TypeError, match=rf"^{kind.__name__} name: 3 \(int\), expected a string or None$"):
        build(kind, name=3)


@pytest.mark.parametrize(
    ("boundaries", "values", "error", "message"),
    [
        ([1, 2], [1.0, 2.0], ValueError, "values: 2 numbers, expected one more than the 2 boundaries"),
        ([], [], ValueError, "values: 0 numbers, expected one more than the 0 boundaries"),
        ([2, 1], [1, 2, 3], ValueError, r"boundaries: \(2, 1\), expected an increase"),
        ([1, 1], [1, 2, 3], ValueError, r"boundaries: \(1, 1\), expected an increase"),
        ([1, math.nan], [1, 2, 3], ValueError, r"boundaries\[1\]: nan, expected a finite number"),
        ([1], [1, -2], ValueError, r"values\[1\]: -2, expected a finite number of at least 0"),
        ([1], [1, "2"], TypeError, r"values\[1\]: '2' \(str\), expected a number"),
        (1, [1, 2], TypeError, r"boundaries: 1 \(int\), expected a list of numbers"),
        ([1], "12", TypeError, r"values: '12' \(str\), expected a list of numbers"),
        ([1], {0: 1, 1: 2}, TypeError, r"values: \{0: 1, 1: 2\} \(dict\), expected a list of numbers"),
    ],
)
def test_bad_boundaries_and_values_are_refused(
    boundaries: Any, values: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^PiecewiseConstantDecay {message}$"):
        PiecewiseConstantDecay(boundaries, values)


def test_negative_boundaries_are_allowed() -> None:
    assert PiecewiseConstantDecay([-5, -1], [1, 2, 3])(0) == 3


@pytest.mark.parametrize("example", EXAMPLES, ids=name_of)
def test_a_step_is_a_whole_number_from_zero(example: Any) -> None:
    for step in (1.0, "1", None, True, np.float64(1), 1j, [1]):
        with pytest.raises(TypeError, match=rf"^{type(example).__name__} step: .*, expected an integer$"):
            example(step)
    with pytest.raises(ValueError, match=rf"^{type(example).__name__} step: -1, expected .* of at least 0$"):
        example(-1)


def test_an_unknown_argument_is_refused() -> None:
    with pytest.raises(TypeError, match="decay_step"):
        CosineDecay.from_config({"initial_learning_rate": 0.1, "decay_step": 10})


def test_the_examples_in_the_docstrings_run() -> None:
    results = [doctest.testmod(module) for module in (adafactor.schedules, base, decays, formula)]
    assert sum(result.attempted for result in results) >= 15
    assert not any(result.failed for result in results)
