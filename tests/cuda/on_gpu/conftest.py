"""These tests need a GPU of NVIDIA, torch for CUDA, and a package built with ADAFACTOR_CUDA=ON: see `run`."""

import importlib.util

import adafactor


def has_gpu():
    info = adafactor.build_info()["cuda"]
    return bool(info) and info["missing"] is None and importlib.util.find_spec("torch") is not None


collect_ignore_glob = [] if has_gpu() else ["*"]
