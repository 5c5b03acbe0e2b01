"""Arrays in NumPy's .npy format. The header is compared with what NumPy writes, and never evaluated."""

import math
import re
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ortcam.errors import ImageError

__all__ = ["LONGEST_HEADER", "MAGIC", "NpyHeader", "npy_header", "values_of"]

MAGIC: Final = b"\x93NUMPY"
LONGEST_HEADER: Final = 10_000  # bytes, as numpy.load has it
_LENGTHS: Final = {1: 2, 2: 4, 3: 4}  # bytes that the length of the header has, by version
_MOST_AXES: Final = 32
_FIELD: Final = re.compile(
    rb"""\s*(['"])(?P<key>descr|fortran_order|shape)\1\s*:\s*"""
    rb"""(?:(['"])(?P<descr>[^'"\\]{0,40})\3|(?P<order>True|False)|\((?P<shape>[\s\d,L]{0,800})\)|(?P<list>\[))\s*,?"""
)
_TYPE: Final = re.compile(rb"([<>|=]?)([a-zA-Z])(\d{0,4})")
_SIZES: Final = {"b": {1}, "u": {1, 2, 4, 8}, "i": {1, 2, 4, 8}, "f": {2, 4, 8}}
_OTHERS: Final = {
    "O": "Python objects, which are never loaded",
    "c": "complex numbers",
    "U": "texts",
    "S": "bytes",
    "V": "records or numbers that NumPy does not know, such as bfloat16",
    "M": "dates",
    "m": "time differences",
}
_ACCEPTED: Final = "accepted: whole numbers and floats of up to 64 bits, such as np.save of array.astype(np.float32)"


@dataclass(frozen=True)
class NpyHeader:
    """What a .npy file says of its array.

    Attributes:
        dtype: of its values, with their byte order.
        shape: of the array.
        columns_first: whether values lie in Fortran's order.
        start: offset of the first value.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    columns_first: bool
    start: int

    @property
    def size(self) -> int:
        """Bytes of all values."""
        return math.prod(self.shape) * self.dtype.itemsize


def npy_header(head: bytes, name: str) -> NpyHeader:
    """Read the header of a .npy file.

    Args:
        head: of the file, with LONGEST_HEADER bytes, or all that it has.
        name: of the file, for messages.

    Raises:
        ImageError: it is none, of another version, or of an array of no real numbers.
    """
    width = _LENGTHS.get(head[6]) if len(head) > 6 and head.startswith(MAGIC) else None
    if width is None or len(head) < 8 + width:
        raise ImageError(f"{name} cannot be read as a .npy file: its first bytes are no header of NumPy's")
    length = int.from_bytes(head[8 : 8 + width], "little")
    start = 8 + width + length
    if start > LONGEST_HEADER:
        raise ImageError(f"{name} has a header of {length} bytes; accepted is a .npy file with a usual one")
    if start > len(head):
        raise ImageError(f"{name} is truncated: the file ends after {len(head)} bytes, before its header does")
    fields = _fields(head[8 + width : start].strip())
    if fields is None:
        raise ImageError(f"{name} cannot be read as a .npy file: its header is none that NumPy writes; {_ACCEPTED}")
    if fields["descr"] is None:
        raise ImageError(f"{name} holds records of several fields; {_ACCEPTED}")
    shape = tuple(int(side) for side in re.findall(rb"\d+", fields["shape"] or b""))
    if len(shape) > _MOST_AXES or max(shape, default=0) >= 1 << 62:
        raise ImageError(f"{name} has the shape of no image: {len(shape)} axes")
    return NpyHeader(_dtype(fields["descr"], name), shape, fields["fortran_order"] == b"True", start)


def _fields(text: bytes) -> dict[str, bytes | None] | None:
    """The three values of a header: a text, True or False, the inside of a tuple. None where it is none of NumPy's."""
    if not text.startswith(b"{"):
        return None
    found: dict[str, bytes | None] = {}
    position = 1
    for _ in range(3):
        match = _FIELD.match(text, position)
        if match is None:
            return None
        key = match["key"].decode()
        value = {"descr": match["descr"], "fortran_order": match["order"], "shape": match["shape"]}[key]
        if match["list"] and key == "descr":  # of a record type
            return {"descr": None}
        if value is None or key in found:
            return None
        found[key] = value
        position = match.end()
    return found if text[position:].strip() == b"}" else None


def _dtype(text: bytes, name: str) -> np.dtype[Any]:
    match = _TYPE.fullmatch(text)
    if match is None:
        raise ImageError(f"{name} has values of an unknown type; {_ACCEPTED}")
    order, kind, size = match[1].decode(), match[2].decode(), int(match[3] or b"0")
    if size not in _SIZES.get(kind, set()):
        what = _OTHERS.get(kind, f"numbers of type {text.decode(errors='replace')!r}")
        raise ImageError(f"{name} holds {what}; {_ACCEPTED}")
    return np.dtype(f"{order if size > 1 and order in '<>' else '|'}{kind}{size}")


def values_of(data: bytes, header: NpyHeader, name: str) -> NDArray[Any]:
    """The array of a file whose header has been read: a view of its bytes.

    Raises:
        ImageError: it has fewer or more bytes than its shape needs.
    """
    found = len(data) - header.start
    if found < header.size:
        raise ImageError(f"{name} is truncated: of {header.size} bytes of numbers the file has {found}")
    if found > header.size:
        raise ImageError(f"{name} is damaged: {found - header.size} bytes follow its {header.size} bytes of numbers")
    values = np.frombuffer(data, header.dtype, offset=header.start)
    return values.reshape(header.shape, order="F" if header.columns_first else "C")
