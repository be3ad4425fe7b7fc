"""The state of each dialect takes no more memory than that of the library, as trajectories.json has it."""

import numpy as np
import pytest

import adafactor
from golden import DATA
from peers import require

SIZES = {
    (library, shape): size
    for shape, sizes in DATA["state_bytes"].items()
    if shape.endswith(" float32")
    for library, size in sizes.items()
}
ARGUMENTS = {"optax": {"learning_rate": 0.01}}
OF_COUNTS = 8  # bytes: ours are not among the arrays


def shape_of(text):
    return tuple(map(int, text.removesuffix(" float32").strip("()").split(",")))


@pytest.mark.parametrize(("library", "shape"), SIZES)
def test_a_state_is_as_small_as_that_of_the_library(library, shape):
    config = getattr(adafactor.presets, library)(**ARGUMENTS.get(library, {}))
    parameter = np.broadcast_to(np.float32(0), shape_of(shape))
    size = adafactor.state_nbytes(parameter, config)
    if library == "keras":  # it allocates full-size arrays, too, and leaves them alone
        assert size + parameter.size * 4 <= SIZES[library, shape]
    else:
        assert size <= SIZES[library, shape] <= size + OF_COUNTS


@pytest.mark.parametrize("shape", [shape for library, shape in SIZES if library == "torch"])
def test_the_tensors_of_torchs_optimizer_take_what_torchs_take(shape):
    torch = require("torch")
    import adafactor.torch

    parameter = torch.nn.Parameter(torch.zeros(shape_of(shape)))
    parameter.grad = torch.zeros_like(parameter)
    optimizer = adafactor.torch.Adafactor([parameter])
    optimizer.step()
    assert sum(each.nbytes for each in optimizer.state[parameter].values()) == SIZES["torch", shape]
