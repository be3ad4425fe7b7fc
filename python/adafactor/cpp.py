"""Where the C++ headers of this package lie, and the CMake package that finds them."""

from pathlib import Path

from adafactor import _core

__all__ = ["get_cmake_dir", "get_include"]

# Beside the compiled module, which an editable installation puts into another folder than the Python files.
_FOLDER = Path(_core.__file__).parent


def get_include() -> str:
    """The folder to give to a C++20 compiler, so that it finds `adafactor/adafactor.hpp`.

    Returns:
        An absolute path, for `-I`. Nothing has to be linked; a step uses more than one thread where
        `-fopenmp` is on.

    >>> import adafactor, pathlib
    >>> (pathlib.Path(adafactor.get_include()) / "adafactor" / "adafactor.hpp").is_file()
    True
    """
    return str(_FOLDER / "include")


def get_cmake_dir() -> str:
    """The folder of the CMake package, for `cmake -Dadafactor_DIR=...`.

    There `find_package(adafactor CONFIG)` gives the target `adafactor::adafactor`. A build with
    scikit-build-core that requires adafactor finds it unasked, by the entry point `cmake.prefix`.

    Returns:
        An absolute path.

    >>> import adafactor, pathlib
    >>> (pathlib.Path(adafactor.get_cmake_dir()) / "adafactorConfig.cmake").is_file()
    True
    """
    return str(_FOLDER / "share" / "cmake" / "adafactor")
