"""Refuses an import in a subinterpreter, where loading the compiled core might never return."""

import ctypes


def _address_of(interpreter: str) -> int | None:
    """The address that a function of Python's C interface without arguments returns."""
    address: int | None = ctypes.PYFUNCTYPE(ctypes.c_void_p)((interpreter, ctypes.pythonapi))()
    return address


if _address_of("PyInterpreterState_Get") != _address_of("PyInterpreterState_Main"):
    raise ImportError("adafactor: imported in a subinterpreter, expected the main interpreter of the process")
