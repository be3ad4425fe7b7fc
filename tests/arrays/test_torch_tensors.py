"""Tensors of torch: views, lazy negation, autograd's counter of writes, a torch without functions for C."""

import subprocess
import sys
import warnings

import pytest

import adafactor
from array_libraries import drawn, torch


@pytest.mark.parametrize(
    "view",
    [
        lambda t: t[::2, 1::3],
        lambda t: t.t()[2:5],
        lambda t: t[:, :7],
        lambda t: torch.as_strided(t, (4, 3), (1, 20), 5),
        lambda t: t.reshape(2, 6, 2, 5).permute(3, 0, 2, 1)[1:4, :, 1],
    ],
)
def test_what_lies_between_the_elements_of_a_tensor_stays(view):
    room = torch.from_numpy(drawn((12, 10)))
    copy = room.clone()
    p, expected = view(room), view(copy).contiguous()
    g = torch.from_numpy(drawn(tuple(p.shape), seed=2))
    adafactor.step(p, g, adafactor.init(p, learning_rate=0.5))
    adafactor.step(expected, g, adafactor.init(expected, learning_rate=0.5))
    view(copy).copy_(expected)
    assert torch.equal(room, copy)


def test_a_torch_without_functions_for_c_goes_through_capsules():
    """As torch was before 2.10: a parameter that requires a gradient exports nothing itself."""
    script = """
import numpy as np, torch
import adafactor
del torch.Tensor.__dlpack_c_exchange_api__
p = torch.nn.Parameter(torch.ones(5, 4))
expected = np.ones((5, 4), np.float32)
g = torch.arange(20.0).reshape(5, 4)
for each, gradient in ((p, g), (expected, g.numpy())):
    state = adafactor.init(each, learning_rate=0.5)
    for _ in range(3):
        adafactor.step(each, gradient, state)
assert p.detach().numpy().tobytes() == expected.tobytes()
assert p._version == 3
for odd in (torch.ones(5, 4, dtype=torch.complex64).conj().imag, torch.ones(5, 4).to_sparse()):
    try:
        adafactor.step(p, odd, state)
    except (BufferError, TypeError) as error:
        assert str(error).startswith("grads: "), error
    else:
        raise AssertionError(odd)
assert p.detach().numpy().tobytes() == expected.tobytes()
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_a_tensor_without_elements_is_a_gradient_all_the_same():
    """torch has it at a null pointer."""
    params = {"x": torch.zeros(0, 4), "w": torch.ones(3)}
    state = adafactor.init(params, count_updates="leaf")
    report = adafactor.step(params, {"x": torch.zeros(0, 4), "w": torch.ones(3)}, state)
    assert report.as_dict()["x"]["grad_norm"] == 0
    assert state.leaf_updates == [1, 1]


def test_a_tensor_that_is_negated_lazily_is_refused_whatever_its_strides():
    imaginary = torch.ones(4, dtype=torch.complex64).conj().imag
    for tensor in (imaginary, imaginary.as_strided((4,), (1,))):
        assert tensor.is_neg()
        with pytest.raises(TypeError, match=r"negated lazily, expected .*; resolve_neg\(\) makes a copy: "):
            adafactor.init(tensor)
        assert adafactor.init(tensor.resolve_neg()).nbytes == 16


def versions(steps, **knobs):
    """How often autograd was told of writes to two tensors of which one gets no gradient in the last step."""
    p = {"with": torch.ones(3), "without": torch.ones(3)}
    state = adafactor.init(p, **knobs)
    for index in range(steps):
        last = index == steps - 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a gradient is None
            adafactor.step(p, {"with": torch.ones(3), "without": None if last else torch.ones(3)}, state)
    return [tensor._version for tensor in p.values()]


def test_autograd_is_told_of_what_a_step_has_written_and_of_nothing_else():
    assert versions(1) == [1, 0]
    assert versions(2) == [2, 1]
    # Earlier calls of the window update the tensor, and an average overwrites it.
    assert versions(2, gradient_accumulation_steps=2) == [1, 1]
    assert versions(2, use_ema=True, ema_overwrite_frequency=2) == [2, 2]
    p = torch.ones(3)
    state = adafactor.init(p, on_nonfinite="skip")
    assert adafactor.step(p, torch.full((3,), torch.nan), state).skipped
    adafactor.update(p, torch.ones(3), state)
    assert p._version == 0
    inference = torch.inference_mode()(lambda: torch.ones(3))()
    adafactor.step(
        {"p": p, "i": inference},
        {"p": torch.ones(3), "i": torch.ones(3)},
        adafactor.init({"p": p, "i": inference}),
    )
    assert p._version >= 1


def test_a_backward_through_what_was_saved_before_a_step_raises():
    p = torch.nn.Parameter(torch.ones(3))
    loss = (p * p).sum()
    adafactor.step(p, torch.ones(3), adafactor.init(p))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
