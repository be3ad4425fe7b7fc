"""Leaves without axes, with axes of length one, and with many: the first step, and what the state holds."""

import numpy as np
import pytest

import adafactor


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "shape",
    [(), (1,), (1, 1), (1, 5), (5, 1), (1, 1, 5), (2,) * 9, (1,) * 64],
    ids=lambda shape: str(shape[:10]),
)
def test_the_first_step_is_the_rate_times_the_sign(shape, dtype):
    """The first step of an equal gradient is the learning rate times its sign, whatever the shape."""
    params = np.ones(shape, dtype)
    state = adafactor.init(params, learning_rate=0.25)
    report = adafactor.step(params, np.full(shape, -0.5, dtype), state)
    assert params.ravel() == pytest.approx(np.full(params.size, 1.25), rel=2e-7)
    assert report.update_rms == pytest.approx(1, rel=1e-6)
    kinds = {kind: array.shape for (_, kind), array in state.tensors().items()}
    if len(shape) < 2:
        assert kinds == {"full": shape}
    else:
        assert kinds == {"row": shape[:-1], "col": shape[:-2] + shape[-1:]}
