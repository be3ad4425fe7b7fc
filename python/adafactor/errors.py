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


_TO_BE_WRITTEN = "an array that can be written"  # in the core's words


def phrase(
    error: _core.Error, paths: Sequence[str] = (), context: str = "", twin: str = "adafactor.update"
) -> Exception:
    """The exception that a user gets for an error of the core.

    Args:
        error: what the core raised.
        paths: the paths of the leaves, in the core's order.
        context: words to put in front, such as the place of an override.
        twin: what does the same as the call and returns new arrays, for somebody who has none to be written.

    Returns:
        An exception of the kind that the error asks for, ready to be raised.
    """
    where = " ".join(part for part in (context, _array(error.role, error.leaf, paths), error.knob) if part)
    other = _array(error.other_role, error.other_leaf, paths)
    found = f"{error.found} {other}".strip()
    expected = f"expected {error.expected}" if error.expected else ""
    if error.expected == _TO_BE_WRITTEN:
        expected += f" ({twin} returns new ones)"
    problem = ", ".join(part for part in (found, expected) if part)
    return _EXCEPTIONS[error.kind](f"{where}: {problem}" if where else problem)


def _array(role: str, leaf: int, paths: Sequence[str]) -> str:
    """An array in words: `grads encoder/w`; a tree that is one array has a leaf without a path."""
    return f"{role} {paths[leaf]}".strip() if leaf >= 0 else role
