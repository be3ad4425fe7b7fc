"""The digests of all cases on the GPU, with tensors of torch and arrays of CuPy."""

import ml_dtypes
import numpy as np
import pytest
import torch

import adafactor
import digest


def on_gpu(values):
    bits = np.array(values)
    if bits.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16).cuda()
    return torch.from_numpy(bits).cuda()


@pytest.mark.parametrize("name", digest.CASES)
def test_a_gpu_makes_the_bits_of_a_cpu(name):
    case = digest.CASES[name]
    assert digest.run(case, params_as=on_gpu, grads_as=on_gpu)[0] == case.digest


@pytest.mark.parametrize("name", ["tall", "narrow", "slices", "unfactored", "average", "everything"])
def test_new_tensors_have_them_too(name):
    case = digest.CASES[name]
    assert digest.run(case, params_as=on_gpu, grads_as=on_gpu, functional=True)[0] == case.digest


@pytest.mark.parametrize("name", ["tall", "narrow", "slices", "unfactored", "momentum"])
def test_arrays_of_cupy_have_them_too(name):
    cupy = pytest.importorskip("cupy")
    case = digest.CASES[name]
    assert digest.run(case, params_as=cupy.asarray, grads_as=cupy.asarray)[0] == case.digest


def test_the_state_is_lent_as_tensors_of_the_device():
    params = torch.ones(30, 20, device="cuda")
    state = adafactor.init(params)
    adafactor.step(params, params.clone(), state)
    for (_, kind), tensor in state.tensors().items():
        assert tensor.device == params.device
        assert tensor.cpu().numpy().tobytes() == state.arrays()["", kind].tobytes()


def test_a_leaf_of_more_than_two_to_the_31_elements():
    """In bfloat16: 4.3 GB each; what is remembered of its last rows is what a CPU remembers of them alone."""
    rows, cols = (1 << 31) // 4096 + 16, 4096
    params = torch.ones(rows, cols, dtype=torch.bfloat16, device="cuda")
    gradient = torch.full_like(params, 2.0**-7)
    gradient[-16:] = torch.linspace(0.5, 1, 16 * cols, device="cuda").reshape(16, cols)
    knobs = {"learning_rate": 0.5, "clip_threshold": None, "relative_step": False}
    state = adafactor.init(params, **knobs)
    assert adafactor.step(params, gradient, state).updated
    assert torch.isfinite(params).all()
    # The first and the last rows were written, and those between: every element became less.
    for part in (params[:16], params[rows // 2 :][:16], params[-16:]):
        assert (part < 1).all()
    last = torch.ones(16, cols, dtype=torch.bfloat16)
    alone = adafactor.init(last, **knobs)
    adafactor.step(last, gradient[-16:].cpu(), alone)
    found = state.tensors()["", "row"][-16:].cpu().numpy()
    assert found.tobytes() == alone.arrays()["", "row"].tobytes()
