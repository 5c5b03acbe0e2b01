"""Errors of the export side; members of the runtime's one exception family."""

from typing import Final

from ortcam.errors import OrtcamError

__all__ = ["ExportError", "NoDefaultLayerError", "first_line"]

_LONGEST: Final = 300  # characters that another library may say


class ExportError(OrtcamError):
    """A model that cannot be exported: unknown, not loadable, not to be cut, or not reproduced by its graphs."""


class NoDefaultLayerError(ExportError):
    """A model whose layers can be cut, but none of which is a good choice by default."""


def first_line(error: BaseException) -> str:
    """What another library's error says, short enough for a line of ours; of a chain, what its first error says."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return lines[0] if len(lines[0]) <= _LONGEST else f"{lines[0][:_LONGEST]} ..."
