"""The digests of all cases on a GPU, which are those of a CPU; see tests/support/digest.py."""

import numpy as np
import pytest

import digest
import emulated_gpu
from emulated_gpu import capsuled, over


@pytest.mark.parametrize("name", digest.CASES)
def test_a_gpu_makes_the_bits_of_a_cpu(name):
    case = digest.CASES[name]
    assert digest.run(case, params_as=over, grads_as=over)[0] == case.digest


@pytest.mark.parametrize("name", ["tall", "narrow", "slices", "unfactored", "average", "half"])
def test_new_arrays_and_capsules_have_them_too(name):
    case = digest.CASES[name]
    assert digest.run(case, params_as=over, grads_as=over, functional=True)[0] == case.digest
    assert digest.run(case, params_as=capsuled, grads_as=capsuled)[0] == case.digest


def strided(values):
    """The same numbers, two elements apart along the last axis, the first axis backwards."""
    if not values.ndim:
        return over(values)
    wide = np.zeros((*values.shape[:-1], 2 * values.shape[-1]), values.dtype)
    view = wide[::-1, ..., ::2] if values.ndim > 1 else wide[::-2]
    view[...] = values
    return over(view)


@pytest.mark.parametrize("name", ["tall", "narrow", "slices", "unfactored", "average", "half"])
def test_strides_change_no_bit(name):
    case = digest.CASES[name]
    assert digest.run(case, params_as=strided, grads_as=strided)[0] == case.digest


def test_nothing_stays_on_the_device():
    before = emulated_gpu.device().emulated_blocks()
    digest.run(digest.CASES["tall"], params_as=over, grads_as=over)
    assert emulated_gpu.device().emulated_blocks() == before
