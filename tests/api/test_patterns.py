"""Regular expressions that choose leaves: what they are tried on, and that one without effect is reported."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import adafactor
from adafactor.knobs.patterns import Choice, nearest, pattern_of_path
from adafactor.trees.paths import joined_plainly

SLASHES = {"Dense_0/kernel": np.ones((2, 2)), "Dense_0/bias": np.ones(2), "a~b": {"c": np.ones(3)}}
FROZEN = {"learning_rate": 0.0}


def ones_like(tree):
    return {key: ones_like(x) if isinstance(x, dict) else np.ones_like(x) for key, x in tree.items()}


def moved(params, **knobs):
    """The paths of the leaves that a step moves, of such a tree of ones."""
    params = ones_like(params)
    state = adafactor.init(params, learning_rate=0.5, **knobs)
    adafactor.step(params, ones_like(params), state)
    leaves = dict(zip(state.paths, state._engine.tree.leaves(params, "params"), strict=True))
    return {path for path, leaf in leaves.items() if (leaf != 1).any()}


@pytest.mark.parametrize(
    "pattern", ["Dense_0/bias", "^Dense_0/bias$", "Dense_0~1bias", pattern_of_path("Dense_0/bias"), "0.bias"]
)
def test_a_pattern_finds_the_keys_as_they_are_and_as_the_path_has_them(pattern):
    all_paths = {"Dense_0~1kernel", "Dense_0~1bias", "a~0b/c"}
    assert moved(SLASHES, overrides=[(pattern, FROZEN)]) == all_paths - {"Dense_0~1bias"}
    excluded = {"weight_decay": 0.5, "exclude_from_weight_decay": pattern}
    params, zeros = ones_like(SLASHES), {"Dense_0/kernel": np.zeros((2, 2)), "Dense_0/bias": np.zeros(2)}
    params, zeros = params | {}, zeros | {"a~b": {"c": np.zeros(3)}}
    adafactor.step(params, zeros, adafactor.init(params, learning_rate=1.0, **excluded))
    assert params["Dense_0/bias"].tolist() == [1, 1]
    assert (params["Dense_0/kernel"] == 0.5).all()


def test_a_path_finds_the_leaf_that_is_written_so_before_one_that_reads_so():
    params = {"a/b": np.ones(2), "a": {"b": np.ones(2)}}
    assert moved(params, overrides=[(pattern_of_path("a/b"), FROZEN)]) == {"a~1b"}
    assert moved(params, overrides=[(pattern_of_path("a~1b"), FROZEN)]) == {"a/b"}
    optimizer = adafactor.Adafactor(weight_decay=0.5, learning_rate=1.0)
    optimizer.exclude_from_weight_decay(var_list=[params["a"]["b"]])
    optimizer.apply({"a/b": np.zeros(2), "a": {"b": np.zeros(2)}}, params)
    assert (params["a/b"].tolist(), params["a"]["b"].tolist()) == ([0.5, 0.5], [1, 1])


NAMES = st.text("ab/~.*", max_size=3)
PATTERNS = st.one_of(
    st.sampled_from(["a", "b$", "^a", "/", "~1", "a/b", "", "z", r"\Aa\Z"]), NAMES.map(pattern_of_path)
)


@given(st.lists(PATTERNS, max_size=6), st.lists(NAMES, max_size=6, unique=True))
def test_the_choice_is_what_a_search_for_each_pattern_finds(patterns, keys):
    paths = [key.replace("~", "~0").replace("/", "~1") for key in keys] + ["a/b"]
    found = [[finds(pattern, path, paths) for pattern in patterns] for path in paths]
    choice = Choice(patterns, paths)
    assert choice.first == [row.index(True) if True in row else None for row in found]
    columns = [[row[i] for row in found] for i in range(len(patterns))]
    assert choice.idle == [i for i, column in enumerate(columns) if not any(column)]
    late = [i for i, column in enumerate(columns) if any(column) and i not in choice.first]
    assert choice.behind == late


def finds(pattern, path, paths):
    if pattern.startswith(r"\A") and re.search(pattern, path):
        return True
    reads_so = re.search(pattern, joined_plainly(path)) is not None
    if not pattern.startswith(r"\A"):
        return reads_so or re.search(pattern, path) is not None
    return reads_so and not any(re.search(pattern, other) for other in paths)


LAYERS = {"layer_norm": {"scale": np.ones(2), "bias": np.ones(2)}, "dense": {"kernel": np.ones((2, 2))}}
WITHOUT_EFFECT = {
    "a typo": (
        {"overrides": [("LayerNorm", FROZEN)]},
        "overrides[0]: 'LayerNorm' finds no leaf; leaves are layer_norm/scale, layer_norm/bias, ...",
    ),
    "a typo in an exclusion": (
        {"exclude_from_weight_decay": ["bias", "kernels"]},
        "exclude_from_weight_decay: 'kernels' finds no leaf; leaves are dense/kernel, ...",
    ),
    "nothing near": (
        {"overrides": [("bias", FROZEN), ("^xyz$", FROZEN)]},
        "overrides[1]: '^xyz$' finds no leaf; leaves are layer_norm/scale, layer_norm/bias, dense/kernel",
    ),
    "an exclusion of an override": (
        {"overrides": [("dense", {"exclude_from_weight_decay": "bias"})]},
        "overrides[0] exclude_from_weight_decay: 'bias' finds no leaf; leaves are layer_norm/bias, ...",
    ),
    "behind another": (
        {"overrides": [("layer", FROZEN), ("bias", FROZEN)]},
        "overrides[1]: 'bias' finds only leaves that an earlier override has",
    ),
}


@pytest.mark.parametrize("case", WITHOUT_EFFECT)
def test_a_pattern_without_effect_is_a_warning_at_the_users_line(case):
    knobs, words = WITHOUT_EFFECT[case]
    with pytest.warns(UserWarning, match=rf"^{re.escape(words)}$") as caught:
        adafactor.init(LAYERS, **knobs)
    assert [each.filename for each in caught] == [__file__]


def test_the_class_warns_at_the_users_line_when_it_is_built():
    for build in (
        lambda optimizer: optimizer.build(LAYERS),
        lambda optimizer: optimizer.apply(ones_like(LAYERS), ones_like(LAYERS)),
    ):
        optimizer = adafactor.Adafactor(weight_decay=0.1)
        optimizer.exclude_from_weight_decay(var_names=["kernel", "LayerNorm"])
        with pytest.warns(
            UserWarning, match=r"^exclude_from_weight_decay: 'LayerNorm' finds no leaf"
        ) as caught:
            build(optimizer)
        assert [each.filename for each in caught] == [__file__]
        optimizer.build(LAYERS)  # a second time it says nothing


def test_a_filter_that_makes_the_warning_an_error_leaves_the_class_as_it_was():
    optimizer = adafactor.Adafactor(exclude_from_weight_decay="x")
    with pytest.raises(UserWarning, match=r"finds no leaf"):
        optimizer.build(LAYERS)
    assert not optimizer.built


def test_many_patterns_without_effect_are_not_as_many_warnings():
    overrides = [(f"x{i}", FROZEN) for i in range(30)]
    with pytest.warns(UserWarning, match=r"finds no leaf") as caught:
        adafactor.init(LAYERS, overrides=overrides)
    assert len(caught) == 11
    assert (
        str(caught[-1].message) == "overrides[10]: 'x10' finds no leaf, and 19 more patterns have no effect"
    )


def test_what_goes_on_from_a_state_says_nothing_again():
    with pytest.warns(UserWarning, match=r"finds no leaf"):
        state = adafactor.init(LAYERS, overrides=[("x", {"weight_decay": 0.5})])
    state.copy().set_learning_rate(0.5)
    adafactor.update(LAYERS, ones_like(LAYERS), state, learning_rate=0.1)


def test_a_tree_without_leaves_is_no_typo():
    adafactor.init({}, overrides=[("x", FROZEN)], exclude_from_weight_decay="y")


def test_the_nearest_paths():
    paths = ["encoder/LayerNorm_0/scale", "encoder/attention/query", "decoder/attention/query", "head/bias"]
    assert nearest("layer_norm_0", paths) == ["encoder/LayerNorm_0/scale"]
    assert nearest(r"attentoin\Z", paths) == ["encoder/attention/query", "decoder/attention/query"]
    assert nearest("^head/bais$", paths) == ["head/bias"]
    assert nearest("...", paths) == []


class CountedPattern:
    """Counts what is compiled and searched."""

    def __init__(self, monkeypatch):
        self.compiled = self.searched = 0
        compile_ = re.compile

        def counted(pattern, flags=0):
            self.compiled += 1
            compiled, count = compile_(pattern, flags), self

            class Pattern:
                def search(self, text):
                    count.searched += 1
                    return compiled.search(text)

            return Pattern()

        monkeypatch.setattr("adafactor.knobs.patterns.re.compile", counted)


def test_patterns_are_tried_once_for_each_leaf_and_never_again(monkeypatch):
    """Neither for another rate, nor for a copy, nor for a call; and those made of paths are not searched."""
    params = {f"layer{i}": np.ones(2) for i in range(50)}
    general = [f"layer{i}$" for i in range(40)]
    exact = [pattern_of_path(f"layer{i}") for i in range(45)]
    count = CountedPattern(monkeypatch)
    state = adafactor.init(params, weight_decay=0.1, exclude_from_weight_decay=general + exact)
    assert count.compiled == 2 * len(general)  # checked, and made ready
    assert count.searched <= len(general) * len(params)
    before = count.compiled, count.searched
    state.set_learning_rate(0.1)
    adafactor.update(params, params, state.copy(), learning_rate=0.2)
    assert (count.compiled, count.searched) == before
