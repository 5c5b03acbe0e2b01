"""A photograph as the explainer works on it: decoded, preprocessed, its source recorded; read ahead for many."""

import collections
import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from ortcam.image import read_image
from ortcam.preprocessing import Preprocessing

__all__ = ["Image", "Photograph", "read_ahead", "read_photograph"]

_AHEAD: Final = 2

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclasses.dataclass(frozen=True, eq=False)
class Photograph:
    """What `Explainer.read` returns, so that several explanations of an image decode it once.

    Attributes:
        pixels: uint8 [H0,W0,3], upright RGB.
        model_input: float32 [1,3,H,W], preprocessed.
        record: path and hash of the source, for the manifest.
    """

    pixels: NDArray[np.uint8]
    model_input: NDArray[np.float32]
    record: dict[str, Any]


Image = str | os.PathLike[str] | bytes | NDArray[np.uint8] | Photograph


def read_photograph(image: Image, preprocessing: Preprocessing, *, max_pixels: int) -> Photograph:
    """Decode and preprocess an image.

    Raises:
        ImageError: missing, not an image, truncated or too large.
    """
    if isinstance(image, Photograph):
        return image
    pixels = read_image(image, max_pixels=max_pixels)
    return Photograph(pixels, preprocessing(pixels), _record(image))


def read_ahead(
    items: Iterable[_Item], read: Callable[[_Item], _Result]
) -> Iterator[tuple[_Item, Callable[[], _Result]]]:
    """Read items in a thread of their own while earlier ones are worked on, at most two ahead.

    Yields:
        An item, and a function that returns what was read of it or raises what went wrong.
    """
    with ThreadPoolExecutor(1, "ortcam-read") as thread:
        waiting: collections.deque[tuple[_Item, Future[_Result]]] = collections.deque()
        try:
            for item in items:
                waiting.append((item, thread.submit(read, item)))
                if len(waiting) > _AHEAD:
                    first, future = waiting.popleft()
                    yield first, future.result
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result
        finally:
            for _, future in waiting:
                future.cancel()


def _record(image: str | os.PathLike[str] | bytes | NDArray[np.uint8]) -> dict[str, Any]:
    if isinstance(image, np.ndarray):
        return {"path": None, "sha256": None, "pixels_sha256": hashlib.sha256(image.tobytes()).hexdigest()}
    if isinstance(image, (str, os.PathLike)):
        with open(image, "rb") as file:  # noqa: PTH123 - any path-like
            return {"path": os.fspath(image), "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    return {"path": None, "sha256": hashlib.sha256(image).hexdigest()}
