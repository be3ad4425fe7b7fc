"""Other libraries that the tests compare with, imported on demand.

A test that needs one calls `require(name)`. Where the library is missing the test is skipped with a reason;
with ADAFACTOR_REQUIRE_PEERS=1, as continuous integration sets it, the test fails, so that no comparison can
vanish unseen. Keras' NumPy backend imports jax, so where keras runs jax has to be installed too.
"""

import importlib
import importlib.machinery
import importlib.util
import os
import sys
from contextlib import AbstractContextManager
from types import ModuleType

import pytest


def require(name: str) -> ModuleType:
    """Import the peer `name` (keras runs on NumPy alone), or skip or fail the calling test."""
    if name.partition(".")[0] == "keras":
        os.environ["KERAS_BACKEND"] = "numpy"  # read once, when keras is first imported
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        reason = f"{name} cannot be imported: {error}"
        if os.environ.get("ADAFACTOR_REQUIRE_PEERS") == "1":
            pytest.fail(f"{reason} (ADAFACTOR_REQUIRE_PEERS=1)")
        pytest.skip(reason, allow_module_level=True)
    if name == "keras" and module.backend.backend() != "numpy":
        pytest.fail(f"keras runs on {module.backend.backend()}: something imported it before peers.require")
    return module


def require_timm(name: str) -> ModuleType:
    """Import `timm.optim.NAME`, or skip the calling test; with ADAFACTOR_REQUIRE_TIMM=1 fail it.

    timm asks for torchvision, which its optimizers do not need: `pip install --no-deps timm` brings them, and
    empty packages with the paths of the real ones stand in for what would import it.
    """
    found = None if "timm" in sys.modules else importlib.util.find_spec("timm")
    if "timm" not in sys.modules and found is None and os.environ.get("ADAFACTOR_REQUIRE_TIMM") != "1":
        pytest.skip("timm is not installed")
    if found is not None:
        folder = os.path.dirname(found.origin or "")
        for package, path in (("timm", folder), ("timm.optim", os.path.join(folder, "optim"))):
            spec = importlib.machinery.ModuleSpec(package, None, is_package=True)
            spec.submodule_search_locations = [path]
            sys.modules[package] = importlib.util.module_from_spec(spec)
    return importlib.import_module(f"timm.optim.{name}")


def jax_with_float64() -> AbstractContextManager[None]:
    """JAX with float64, which it does not have otherwise; the function moved to its present place in 0.8."""
    jax = require("jax")
    place = jax if hasattr(jax, "enable_x64") else importlib.import_module("jax.experimental")
    return place.enable_x64(True)
