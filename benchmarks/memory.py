"""The most memory that a call takes for a while, over what the process holds before it."""

import ctypes
import gc
import sys
from collections.abc import Callable
from pathlib import Path

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def _kilobytes(field: str) -> int:
    lines = STATUS.read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))


def peak_extra_bytes(call: Callable[[], object]) -> int | None:
    """Growth to the kernel's own peak, so that a temporary of a millisecond counts; None off Linux.

    The call should have been made before. What the allocator kept of earlier calls is given back first:
    otherwise a temporary would fit into it unseen.
    """
    if not sys.platform.startswith("linux"):
        return None
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)
    before = _kilobytes("VmRSS")
    try:
        RESET.write_text("5", encoding="ascii")  # the peak is now what is resident
    except OSError:
        return None
    call()
    return 1024 * max(0, _kilobytes("VmHWM") - before)
