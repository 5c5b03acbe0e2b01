"""Errors: each that a user can cause is an `OrtcamError`, whose message has the value given and what is accepted."""

__all__ = [
    "BundleError",
    "ClosedError",
    "DatasetError",
    "ImageError",
    "ImageWarning",
    "MemoryLimitError",
    "NotFiniteError",
    "OptionError",
    "OrtcamError",
    "OutOfMemoryError",
    "OutputError",
    "ProviderError",
    "TargetError",
]


class OrtcamError(Exception):
    """Base of all errors raised for bad input; the command line prints its message and exits with code 2."""


class BundleError(OrtcamError):
    """A bundle is missing, incomplete, altered, of a newer schema, or unsafe."""


class ClosedError(OrtcamError):
    """An explainer is used after it was closed."""


class DatasetError(OrtcamError):
    """The images of an evaluation, their classes or boxes cannot be found or read."""


class ImageError(OrtcamError):
    """An image is missing, not an image, truncated, or too large."""


class ImageWarning(UserWarning):
    """An image was read, but it is damaged, or its samples of 16 bits seem to be of fewer."""


class NotFiniteError(OrtcamError):
    """A feature, logit, score or map is infinite or not a number: beyond the precision, or the model is damaged."""


class OptionError(OrtcamError):
    """An unknown method or option, or a value that an option does not take."""


class MemoryLimitError(OptionError):
    """A model does not fit under `memory_limit`, or the process has passed it."""


class TargetError(OrtcamError):
    """A target class that the model does not have, or a label that names none or several."""


class ProviderError(OrtcamError):
    """An execution provider that this ONNX Runtime does not have, or that cannot run a graph."""


class OutputError(OrtcamError):
    """A place that results cannot be written to."""


class OutOfMemoryError(ProviderError):
    """A run of a graph did not fit into the memory of its device."""
