"""What the tests of `adafactor.torch` share: parameters of nine shapes, and gradients for them."""

import numpy as np
import pytest

import peers

SHAPES = [(), (5,), (7, 3), (3, 4, 5), (20, 33), (40, 20), (18, 17, 3, 3), (24, 24), (4, 20, 30)]


@pytest.fixture(scope="session")
def torch():
    return peers.require("torch")


@pytest.fixture(scope="session")
def optimizers(torch):
    """`adafactor.torch`, which imports torch."""
    import adafactor.torch

    return adafactor.torch


@pytest.fixture
def one_rank():
    """`torch.distributed` with a process group of this process alone."""
    distributed = peers.require("torch.distributed")
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield distributed
    distributed.destroy_process_group()


class Problem:
    """Parameters, one of them tiny, and gradients whose scales differ by three orders, for any step."""

    def __init__(self, torch, dtype, seed):
        self._random, self._torch, self._dtype = np.random.default_rng(seed), torch, dtype
        self._values = [0.3 * self._random.standard_normal(shape) for shape in SHAPES]
        self._values[2] *= 1e-5
        self._scales = np.geomspace(1e-2, 10, len(SHAPES))

    def params(self):
        return [self._torch.nn.Parameter(self._tensor(value)) for value in self._values]

    def gradients(self, gaps=False):
        """Of one more step; `gaps`: a third of them are missing."""
        drawn = [
            self._tensor(scale * self._random.standard_normal(shape))
            for shape, scale in zip(SHAPES, self._scales, strict=True)
        ]
        return [None if gaps and self._random.random() < 1 / 3 else gradient for gradient in drawn]

    def _tensor(self, value):
        return self._torch.tensor(np.asarray(value), dtype=self._dtype)


@pytest.fixture
def problem(torch):
    """Makes problems: `problem(dtype=torch.float32, seed=0)`."""
    return lambda dtype=torch.float32, seed=0: Problem(torch, dtype, seed)


@pytest.fixture
def step():
    """Gives parameters their gradients, which nobody else has, and has an optimizer step."""

    def step(optimizer, params, gradients):
        for parameter, gradient in zip(params, gradients, strict=True):
            parameter.grad = None if gradient is None else gradient.clone()
        optimizer.step()

    return step
