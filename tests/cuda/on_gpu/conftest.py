"""These tests need a GPU of NVIDIA, torch for CUDA, and a package built with ADAFACTOR_CUDA=ON: see `run`.

They run beside whatever versions of torch and CuPy the machine has, whose warnings are no failures here.
"""

import importlib.util
import warnings
from pathlib import Path

import pytest

import adafactor

HERE = Path(__file__).parent


def has_gpu():
    info = adafactor.build_info()["cuda"]
    return bool(info) and info["missing"] is None and importlib.util.find_spec("torch") is not None


collect_ignore_glob = [] if has_gpu() else ["*"]
if has_gpu():
    # Before pytest collects the tests, which would make an error of what they warn of.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("torch", "cupy"):
            if importlib.util.find_spec(name) is not None:
                importlib.import_module(name)


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("default"))
