"""Errors of the export side; members of the runtime's one exception family."""

import contextlib
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ortcam.errors import OrtcamError
from ortcam.support import terminal

__all__ = ["ExportError", "NoDefaultLayerError", "as_export_errors", "conversion_reason", "first_line"]

_LONGEST: Final = 300  # characters that another library may say
_LONGEST_CODE: Final = 80  # and of a line of the user's code


class ExportError(OrtcamError):
    """A model that cannot be exported: unknown, not loadable, not to be cut, or not reproduced by its graphs."""


class NoDefaultLayerError(ExportError):
    """A model whose layers can be cut, but none of which is a good choice by default."""


def first_line(error: BaseException) -> str:
    """What another library's error says, short enough for a line of ours; of a chain, what its first error says."""
    while error.__cause__ is not None:
        error = error.__cause__
    return _shortened(terminal.first_line(error).strip(), _LONGEST)


def _shortened(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]} ..."


def conversion_reason(error: BaseException) -> str:
    """What torch's exporter says, in a line; of a branch on the image's values, where it stands."""
    while error.__cause__ is not None:
        error = error.__cause__
    if not re.search(r"data[- ]dependent", str(error), re.IGNORECASE):
        return first_line(error)
    places = re.findall(r'File "([^"]+)", line (\d+), in (\w+)\n\s*([^\n]+)', str(error))
    place = ""
    if places:
        file, line, _, code = places[-1]
        place = f" ({Path(file).name} line {line}: {_shortened(code.strip(), _LONGEST_CODE)})"
    return (
        f"its forward takes a branch, or a size, from values that depend on the image{place}, and a graph has one path "
        "for all images; compute both and choose with torch.where"
    )


@contextlib.contextmanager
def as_export_errors(path: Path) -> Iterator[None]:
    """Turn what onnx, its converters and passes raise for a broken graph into one ExportError; silence their warnings.

    Raises:
        ExportError: names the file.
    """
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ExportError as error:
        if str(path) in str(error):
            raise
        raise ExportError(f"{path}: {error}") from None
    except MemoryError:
        raise
    except Exception as error:
        raise ExportError(f"{path}: its graph cannot be converted: {first_line(error)}") from error
    finally:
        logging.disable(previous)
