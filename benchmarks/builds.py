"""Where two builds of the package come from: a folder, a wheel, or sources that are built here.

What has to be unpacked or built goes into build/compare, once for each commit and for each wheel; a checkout
may have changed, so it is built each time.
"""

import functools
import hashlib
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / "build" / "compare"


class BuildError(RuntimeError):
    """A build was not found or could not be made; the message is for whoever named it."""


class Build(NamedTuple):
    """What somebody named, and what unpacks or builds it if that is needed: it returns the folder.

    Looking and building are two steps, so that a mistake in one name is told before the other is built.
    """

    said: str
    folder: Callable[[], Path]


def has_package(folder: Path) -> bool:
    return (folder / "adafactor" / "__init__.py").is_file()


def with_package(folder: Path, said: str) -> Path:
    """The folder, if a package in it is compiled for this Python."""
    ending = sysconfig.get_config_var("EXT_SUFFIX")
    if not has_package(folder):
        raise BuildError(f"{said}: there is no package adafactor in it")
    if not (folder / "adafactor" / f"_core{ending}").is_file():
        raise BuildError(
            f"{said}: its package has no compiled module for this Python, adafactor/_core{ending}"
        )
    return folder.resolve()


def keep(made: Path, kept: Path) -> None:
    """Move what was made to where it is found again; never half of it."""
    shutil.rmtree(kept, ignore_errors=True)
    made.rename(kept)


def unpacked(wheel: Path, said: str) -> Path:
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    folder = CACHE / f"wheel-{digest[:12]}"
    if not has_package(folder):
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as work:
            made = Path(work) / "package"
            try:
                with zipfile.ZipFile(wheel) as archive:
                    archive.extractall(made)
            except zipfile.BadZipFile:
                raise BuildError(f"{said}: this is no wheel") from None
            keep(made, folder)
    return with_package(folder, said)


def install(sources: Path, folder: Path, said: str) -> None:
    """Build sources with pip, as `pip install` does it for everybody, into a folder that is replaced."""
    print(f"building {said} with pip into {folder}, which takes minutes", file=sys.stderr, flush=True)
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as work:
        made = Path(work) / "package"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", made, sources]
        # What pip has to say goes to stderr: the table alone is the command's output.
        result = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
        if result.returncode != 0:
            raise BuildError(f"{said}: pip could not build it, exit code {result.returncode}")
        keep(made, folder)


def of_checkout(sources: Path, said: str) -> Path:
    place = hashlib.sha256(str(sources.resolve()).encode()).hexdigest()
    folder = CACHE / f"checkout-{place[:12]}"
    install(sources, folder, said)
    return with_package(folder, said)


def commit(said: str) -> str | None:
    """The full name of a revision; None for what is no revision, or where there is no git."""
    command = ["git", "rev-parse", "--verify", "--quiet", "--end-of-options", f"{said}^{{commit}}"]
    try:
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def of_commit(name: str, said: str) -> Path:
    folder = CACHE / f"commit-{name[:12]}-{sys.implementation.cache_tag}"
    if has_package(folder):
        print(f"{said}: built before, in {folder}", file=sys.stderr)
    else:
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as work:
            packed, sources = Path(work) / "sources.tar", Path(work) / "sources"
            subprocess.run(["git", "archive", "--output", packed, name], cwd=ROOT, check=True)
            with tarfile.open(packed) as archive:
                archive.extractall(sources, filter="data")
            install(sources, folder, said)
    return with_package(folder, said)


def find(said: str) -> Build:
    """A folder with the package, a checkout of its sources, a wheel or a git revision, in this order.

    Raises:
        BuildError: it is none of these.
    """
    path = Path(said)
    if path.is_dir() and has_package(path):
        return Build(said, functools.partial(with_package, path, said))
    if path.is_dir() and (path / "pyproject.toml").is_file():
        return Build(said, functools.partial(of_checkout, path, said))
    if path.is_dir():
        raise BuildError(f"{said}: the folder has no package adafactor, and is no checkout of its sources")
    if path.is_file():
        return Build(said, functools.partial(unpacked, path, said))
    name = commit(said)
    if name is None:
        raise BuildError(f"{said}: there is no such folder, wheel or git revision")
    return Build(said, functools.partial(of_commit, name, said))
