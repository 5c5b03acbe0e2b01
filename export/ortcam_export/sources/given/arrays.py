"""Arrays of numbers that a user hands over: in memory, or in a `.npy` or `.npz` file, which is read without pickles."""

import zipfile
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ortcam_export.errors import ExportError, first_line

__all__ = ["ARRAY_SUFFIXES", "as_numbers", "read_array"]

ARRAY_SUFFIXES: Final = (".npy", ".npz")
_MOST_BYTES: Final = 2**32  # of an array in a file; text embeddings of a million classes take less


def read_array(path: Path, name: str, what: str) -> NDArray[Any]:
    """The array of a file.

    Args:
        path: of the `.npy` or `.npz` file.
        name: which array of a `.npz` file is taken where it has several.
        what: it is, for errors: "--classes text.npy".

    Raises:
        ExportError: no such file, not one of these, pickled objects, or several arrays without one of that name.
    """
    if not path.is_file():
        raise ExportError(f"{what}: no such file")
    try:
        if path.suffix.lower() != ".npz":
            loaded = np.load(path, mmap_mode="r", allow_pickle=False)
            _check_size(loaded.nbytes, what)
            return as_numbers(np.array(loaded), what)
        with zipfile.ZipFile(path) as archive:
            _check_size(max((entry.file_size for entry in archive.infolist()), default=0), what)
        with np.load(path, allow_pickle=False) as arrays:
            return as_numbers(arrays[_name_among(list(arrays.files), name, what)], what)
    except ExportError:
        raise
    except Exception as error:  # numpy and zipfile raise many types for files that are broken
        raise ExportError(f"{what}: cannot be read as an array of numbers: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """What is wrong with a file, without numpy's advice to unpickle what is no array."""
    text = first_line(error)
    if "allow_pickle" in text:
        return "it holds Python objects, or is no .npy or .npz file"
    return "it holds Python objects" if "Python objects" in text else text


def as_numbers(value: object, what: str) -> NDArray[Any]:
    """An array of booleans, integers or floating numbers, all of them finite.

    Args:
        value: an array, a number, or a nested list of numbers.
        what: it is, for errors.

    Raises:
        ExportError: anything else.
    """
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, OverflowError):  # rows of different lengths
        array = np.empty(0, object)
    if array.dtype.kind not in "biuf":
        raise ExportError(f"{what}: accepted is a number, a list of numbers with rows of one length, or an array")
    if not np.isfinite(array).all():
        raise ExportError(f"{what}: holds values that are infinite or not a number; accepted are finite ones")
    return array


def _name_among(names: list[str], name: str, what: str) -> str:
    if len(names) != 1 and name not in names:
        raise ExportError(f"{what}: has the arrays {', '.join(names) or 'none'}; accepted is one, or {name!r}")
    return name if name in names else names[0]


def _check_size(size: int, what: str) -> None:
    if size > _MOST_BYTES:
        raise ExportError(f"{what}: holds an array of {size} bytes; accepted are up to {_MOST_BYTES}")
