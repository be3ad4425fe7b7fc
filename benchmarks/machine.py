"""What a result was measured on. Nothing in it names the machine itself."""

import datetime
import importlib.metadata
import os
import platform
from pathlib import Path

import adafactor

PEERS = ("torch", "transformers", "pytorch_optimizer", "jax", "optax", "keras")


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _caches() -> dict[str, str]:
    """Sizes as the first core sees them, such as {"L1 Data": "32K"}; empty where Linux does not tell."""
    found = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
        found[f"L{level} {kind}"] = size
    return found


def cache_bytes() -> int:
    """The largest cache's size; 32 MB where Linux does not tell."""
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    sizes = [int(size[:-1]) * units[size[-1]] for size in _caches().values() if size[-1] in units]
    return max(sizes, default=32 << 20)


def memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe() -> dict[str, object]:
    """CPU, cores, caches, memory, the build of adafactor, versions and the date, ready for JSON."""
    packages = ("adafactor", "numpy", *PEERS)
    return {
        "cpu": _cpu_model(),
        "architecture": platform.machine(),
        "system": platform.system(),
        "cores": cores(),
        "caches": _caches(),
        "memory_bytes": memory_bytes(),
        "build": adafactor.build_info(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in packages},
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
