"""Wheels of the package for tests: those of continuous integration, else made of what is installed here."""

import base64
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import sys
import zipfile
from pathlib import Path

import peers
import sources
from cpp_build import required, run, search_path

# What an installer adds to the files of a wheel.
INSTALLED_ONLY = {"INSTALLER", "REQUESTED", "RECORD", "direct_url.json"}


def wheel_of(name, folder):
    """The wheel that an installed distribution came from, written again from its files."""
    distribution = importlib.metadata.distribution(name)
    described = dict(re.findall(r"^(Tag): (.*)$", distribution.read_text("WHEEL"), re.MULTILINE))
    stem = f"{distribution.name}-{distribution.version}"
    path = folder / f"{stem}-{described['Tag']}.whl"
    rows = []
    with zipfile.ZipFile(path, "w") as wheel:
        for file in distribution.files:
            if file.parts[0] == ".." or file.suffix == ".pyc" or file.name in INSTALLED_ONLY:
                continue
            data = file.locate().read_bytes()
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            wheel.writestr(file.as_posix(), data)
            rows.append(f"{file.as_posix()},sha256={digest},{len(data)}\n")
        record = f"{stem}.dist-info/RECORD"
        wheel.writestr(record, "".join(rows) + f"{record},,\n")
    return path


def built_from_sources(folder, source=sources.ROOT, **definitions):
    """The wheel of the project's sources with these definitions of CMake's, and what was said on the way.

    Out of a fresh environment, as pip builds it, unless what it builds with is here. What was built in the
    folder before is not built again.
    """
    tools = map(importlib.util.find_spec, ("scikit_build_core", "pybind11"))
    isolation = ("--no-build-isolation",) if all(tools) else ()
    options = [f"--config-settings=cmake.define.{name}={value}" for name, value in definitions.items()]
    pip = (sys.executable, "-m", "pip", "wheel", "--verbose", "--no-deps", *isolation, "--wheel-dir", folder)
    made = run(*pip, f"--config-settings=build-dir={folder / 'build'}", *options, source)
    assert made.returncode == 0, made.stdout
    (wheel,) = folder.glob("adafactor-*.whl")
    return wheel, made.stdout


def unpacked(wheel, folder):
    """Puts a wheel into a folder, where PYTHONPATH finds it."""
    pip = (sys.executable, "-m", "pip", "--isolated", "install", "--quiet", "--no-deps", "--no-index")
    made = run(*pip, "--no-compile", "--target", folder, wheel)
    assert made.returncode == 0, made.stdout
    return folder


def named_by_continuous_integration():
    """The folder with the wheel that it has made, as it is published, and what that requires; or None."""
    folder = os.environ.get("ADAFACTOR_WHEELS")
    return Path(folder) if folder else None


def published(folder):
    """The wheel as it is published for Linux; where continuous integration has none, made here."""
    named = named_by_continuous_integration()
    if named is None:
        peers.require("auditwheel")
        required("patchelf")
        built = wheel_of("adafactor", folder)
        named = folder / "published"
        made = run(sources.ROOT / ".ci/wheel", named, built, env={**os.environ, "PATH": search_path()})
        assert made.returncode == 0, made.stdout
    (wheel,) = named.glob("adafactor-*.whl")
    return wheel


def empty_environment(wheels, folder):
    """The Python of a fresh environment with the package and what it requires, out of a folder of wheels."""
    made = run(sys.executable, "-m", "venv", "--without-pip", folder)
    assert made.returncode == 0, made.stdout
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    pip = (sys.executable, "-m", "pip", "--isolated", "--python", python, "install")
    # A package that PYTHONPATH names would be thought to be there already.
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = (*pip, "--no-index", "--find-links", wheels, "--no-compile", "adafactor")
    installed = run(*command, env=variables)
    assert installed.returncode == 0, installed.stdout
    return python
