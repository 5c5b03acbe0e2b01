"""Arrays that say far more than lies in memory, or are no plain arrays; and what comes of reading them."""

import dataclasses
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ortcam.images.reading import read_image

__all__ = ["ARRAYS", "HostileArray", "read_array"]

_MASKED: Final = np.ma.MaskedArray  # which loads a module
_DOT: Final = np.array([[[10, 20, 30]]], np.uint8)
_RAMP: Final = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)


@dataclasses.dataclass(frozen=True)
class HostileArray:
    """An array, and the plain pixels that have to come of it; None where it has to be refused."""

    make: Callable[[], Any]
    pixels: Callable[[], NDArray[np.uint8]] | None = None


def _ramp() -> NDArray[np.uint8]:
    return _RAMP


def _grey() -> NDArray[np.uint8]:
    return np.repeat(_RAMP[..., :1], 3, axis=2)


class _Lying(np.ndarray[Any, np.dtype[np.uint8]]):
    """A subclass whose items are not what lies in memory."""

    def __getitem__(self, key: Any) -> Any:
        return np.full((4, 4, 3), 7, np.uint8)


ARRAYS: Final[dict[str, HostileArray]] = {
    "10**12 pixels of no stride": HostileArray(lambda: np.broadcast_to(_DOT, (10**6, 10**6, 3))),
    "10**12 grey pixels of no stride": HostileArray(lambda: np.broadcast_to(np.uint8(9), (10**6, 10**6))),
    "2**62 pixels of no stride": HostileArray(lambda: np.broadcast_to(np.uint8(9), (2**31, 2**31, 1))),
    "a row above the limit": HostileArray(lambda: np.broadcast_to(_DOT, (5001, 5000, 3))),
    "at the limit, of no stride": HostileArray(
        lambda: np.broadcast_to(_DOT, (5000, 5000, 3)), lambda: np.tile(_DOT, (5000, 5000, 1))
    ),
    "at the limit, grey, of no stride": HostileArray(
        lambda: np.broadcast_to(np.uint8(9), (5000, 5000)), lambda: np.full((5000, 5000, 3), 9, np.uint8)
    ),
    "10**12 bytes of no stride": HostileArray(lambda: memoryview(np.broadcast_to(np.uint8(9), 10**12))),
    "10**12 objects of no stride": HostileArray(lambda: np.broadcast_to(np.array(None, object), (10**6, 10**6, 3))),
    "10**12 numbers of 64 bits, of no stride": HostileArray(lambda: np.broadcast_to(np.float64(1), (10**6, 10**6, 3))),
    "objects": HostileArray(lambda: _RAMP.astype(object)),
    "texts": HostileArray(lambda: _RAMP.astype("U10")),
    "records": HostileArray(lambda: np.zeros((4, 4), [("r", "u1"), ("g", "u1"), ("b", "u1")])),
    "big-endian numbers of 16 bits": HostileArray(lambda: _RAMP.astype(">u2")),
    "truths": HostileArray(lambda: _RAMP > 9),
    "signed bytes": HostileArray(lambda: _RAMP.astype(np.int8)),
    "at the limit, floats with the channels first, of no stride": HostileArray(
        lambda: np.broadcast_to(np.float64(1), (3, 5000, 5000)), lambda: np.full((5000, 5000, 3), 255, np.uint8)
    ),
    "floats that overflow": HostileArray(lambda: np.full((6, 4, 3), 1e300)),
    "channels first or last": HostileArray(lambda: np.zeros((3, 4, 3), np.uint8)),
    "not-a-numbers": HostileArray(lambda: np.full((4, 4, 3), np.nan)),
    "no rows": HostileArray(lambda: np.zeros((0, 4, 3), np.uint8)),
    "no columns of 2**40 rows": HostileArray(lambda: np.zeros((2**40, 0, 3), np.uint8)),
    "no channels": HostileArray(lambda: np.zeros((4, 4, 0), np.uint8)),
    "two channels": HostileArray(lambda: np.zeros((6, 4, 2), np.uint8)),
    "five channels": HostileArray(lambda: np.zeros((6, 4, 5), np.uint8)),
    "no dimension": HostileArray(lambda: np.array(9, np.uint8)),
    "a dimension": HostileArray(lambda: np.zeros(12, np.uint8)),
    "a batch": HostileArray(lambda: np.zeros((1, 4, 4, 3), np.uint8)),
    "64 dimensions": HostileArray(lambda: np.zeros((1,) * 32, np.uint8)),
    "read-only": HostileArray(lambda: np.broadcast_to(_RAMP, _RAMP.shape), _ramp),
    "Fortran's order": HostileArray(lambda: np.asfortranarray(_RAMP), _ramp),
    "backwards": HostileArray(lambda: _RAMP[::-1, ::-1], lambda: np.ascontiguousarray(_RAMP[::-1, ::-1])),
    "every other pixel": HostileArray(lambda: _RAMP[:, ::2], lambda: np.ascontiguousarray(_RAMP[:, ::2])),
    "channels first, turned": HostileArray(
        lambda: np.ascontiguousarray(_RAMP.transpose(2, 0, 1)).transpose(1, 2, 0), _ramp
    ),
    "alpha": HostileArray(lambda: np.dstack([_RAMP, _RAMP[..., :1]]), _ramp),
    "grey of one channel": HostileArray(lambda: _RAMP[..., :1], _grey),
    "grey backwards": HostileArray(lambda: _RAMP[::-1, :, 0], lambda: np.ascontiguousarray(_grey()[::-1])),
    "a masked array": HostileArray(lambda: _MASKED(_RAMP, _RAMP > 9), _ramp),
    "a grey masked array": HostileArray(lambda: _MASKED(_RAMP[..., 0], _RAMP[..., 0] > 9), _grey),
    "a matrix": HostileArray(lambda: np.asmatrix(_RAMP[..., 0]), _grey),
    "a subclass that lies": HostileArray(lambda: _RAMP.view(_Lying), _ramp),
}


def read_array(name: str) -> list[int]:
    """Read one of the arrays, and check its pixels: the shape."""
    pixels = read_image(ARRAYS[name].make(), max_pixels=25_000_000)
    expected = ARRAYS[name].pixels
    if expected is not None:
        # Far less is compared than what is measured, which therefore is of the reading alone.
        same = expected()[:6, :8] if pixels.shape[0] > 8 else expected()
        assert type(pixels) is np.ndarray
        assert pixels.flags.c_contiguous
        np.testing.assert_array_equal(pixels[:6, :8] if pixels.shape[0] > 8 else pixels, same)
    return list(pixels.shape)
