"""From the core's errors, which know indices, to exceptions whose messages name paths and knobs."""

from __future__ import annotations

from collections.abc import Sequence

from adafactor import _core

_EXCEPTIONS: dict[str, type[Exception]] = {
    "value": ValueError,
    "type": TypeError,
    "buffer": BufferError,
    "nonfinite": FloatingPointError,
    "busy": RuntimeError,
}


def phrase(error: _core.Error, paths: Sequence[str] = (), context: str = "") -> Exception:
    """The exception that a user gets for an error of the core.

    Args:
        error: what the core raised.
        paths: the paths of the leaves, in the core's order.
        context: words to put in front, such as the place of an override.

    Returns:
        An exception of the kind that the error asks for, ready to be raised.
    """
    where = error.role
    if error.leaf >= 0:
        where = f"{where} {paths[error.leaf] or 'array'}".strip()
    where = " ".join(part for part in (context, where, error.knob) if part)
    expected = f"expected {error.expected}" if error.expected else ""
    problem = ", ".join(part for part in (error.found, expected) if part)
    return _EXCEPTIONS[error.kind](f"{where}: {problem}" if where else problem)
