"""What a state will take is said of whatever has shapes and dtypes, before anything is allocated."""

import numpy as np
import pytest

import adafactor
import peers


def test_sizes_are_those_of_whatever_has_a_shape_and_a_dtype():
    jax, torch = peers.require("jax"), peers.require("torch")
    expected = adafactor.state_nbytes(np.zeros((64, 32), np.float32))
    foretold = adafactor.scratch_nbytes(np.zeros((64, 32), np.float32))
    for params in (
        torch.empty(64, 32, device="meta"),
        torch.empty(64, 32, device="meta", dtype=torch.bfloat16),
        jax.eval_shape(lambda: {"w": jax.numpy.zeros((64, 32))}),
        {"w": jax.ShapeDtypeStruct((64, 32), "bfloat16")},
        np.broadcast_to(np.float16(1), (64, 32)),
    ):
        assert adafactor.state_nbytes(params) == expected
        assert adafactor.scratch_nbytes(params) == foretold
    with pytest.raises(
        TypeError, match=r"^params w: dtype int32, expected float32, float64, bfloat16 or float16$"
    ):
        adafactor.state_nbytes({"w": jax.ShapeDtypeStruct((64, 32), "int32")})
    with pytest.raises(TypeError, match=r"^params w: object, expected something with a shape and a dtype$"):
        adafactor.state_nbytes({"w": object()})
