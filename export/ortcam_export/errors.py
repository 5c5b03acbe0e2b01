"""Errors of the export side; members of the runtime's one exception family."""

from ortcam.errors import OrtcamError

__all__ = ["ExportError"]


class ExportError(OrtcamError):
    """A model that cannot be exported: unknown, not loadable, not to be cut, or not reproduced by its graphs."""
