"""Arrays of each library with the same numbers, and where they lie, for the tests of arrays."""

import ml_dtypes
import numpy as np

from adafactor.arrays import as_numpy
from peers import require

torch = require("torch")
jax = require("jax")

DTYPES = ["float32", "float64", "float16", "bfloat16"]


def to_torch(values):
    """A tensor of its own with the strides of an array."""
    if values.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(np.array(values).view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(np.array(values))


class Exported:
    """An array that can be had through `__dlpack__` alone, in a capsule that grants writes."""

    def __init__(self, values):
        self.tensor = to_torch(values)

    def __dlpack_device__(self):
        return self.tensor.__dlpack_device__()

    def __dlpack__(self, *, max_version=None):
        return self.tensor.__dlpack__(max_version=max_version)


MUTABLE = {"numpy": np.array, "torch": to_torch, "dlpack": Exported}
ALL = MUTABLE | {"jax": jax.numpy.asarray}


def drawn(shape, dtype="float32", seed=1):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.dtype(dtype))


def address(values):
    return as_numpy(values).__array_interface__["data"][0]


def bits(values):
    return as_numpy(values).tobytes()
