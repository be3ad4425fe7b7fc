"""Parameters and gradients in every kind of container, and in any order: the same step."""

import collections
import dataclasses

import numpy as np
import pytest

import adafactor
import snapshots
from registry.case import Model


@dataclasses.dataclass(frozen=True)
class Layer:
    w: np.ndarray
    b: np.ndarray


Pair = collections.namedtuple("Pair", "w b")


@pytest.mark.parametrize("order", ["params' order", "another order"])
@pytest.mark.parametrize(
    "make",
    [
        dict,
        collections.OrderedDict,
        lambda leaves: Layer(**leaves),
        lambda leaves: Pair(**leaves),
        lambda leaves: [leaves["w"], leaves["b"]],
        lambda leaves: (leaves["w"], leaves["b"]),
        lambda leaves: {("a", 1): {"/": [leaves["w"]], "~": (leaves["b"],)}},
    ],
    ids=["dict", "OrderedDict", "dataclass", "namedtuple", "list", "tuple", "odd keys"],
)
def test_the_container_does_not_matter(make, order):
    """Nor does the order of keys; `update` gives back what `params` was made of."""
    model, twin = Model(), Model()
    params, grads = make(model.params), make(model.grads)
    if order == "another order" and isinstance(grads, dict):
        grads = type(grads)(reversed(grads.items()))
    state = adafactor.init(params)
    adafactor.step(params, grads, state)
    after, _, _ = adafactor.update(params, grads, state)
    assert type(after) is type(params)
    plain = adafactor.init(twin.params)
    for _ in range(2):
        adafactor.step(twin.params, twin.grads, plain)
    leaves = adafactor.trees.tree.Tree.of(after)[1]
    assert snapshots.same_bits(leaves, twin.params.values())
