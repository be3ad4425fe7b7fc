"""Adafactor, the optimizer with sublinear memory, as one fused step over arrays that you own.

>>> import numpy as np, adafactor
>>> params = {"w": np.ones((2, 3), np.float32), "b": np.zeros(3, np.float32)}
>>> state = adafactor.init(params, learning_rate=0.01)
>>> grads = {"w": np.full((2, 3), 0.5, np.float32), "b": np.full(3, -1.0, np.float32)}
>>> adafactor.step(params, grads, state).updated
True
"""

# The first of these comes before whatever loads the compiled core.
from adafactor import main_interpreter, _core, earlier, presets, schedules  # noqa: F401, I001
from adafactor.api import (
    build_info,
    get_num_threads,
    init,
    scratch_nbytes,
    set_num_threads,
    state_nbytes,
    step,
    update,
)
from adafactor.config import Config
from adafactor.cpp import get_cmake_dir, get_include
from adafactor.loss_scale import DynamicLossScale
from adafactor.optimizer import Adafactor
from adafactor.report import StepReport
from adafactor.state import State

__version__ = _core.version

__all__ = [
    "Adafactor",
    "Config",
    "DynamicLossScale",
    "State",
    "StepReport",
    "__version__",
    "build_info",
    "get_cmake_dir",
    "get_include",
    "get_num_threads",
    "init",
    "presets",
    "schedules",
    "scratch_nbytes",
    "set_num_threads",
    "state_nbytes",
    "step",
    "update",
]
