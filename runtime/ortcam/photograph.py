"""A photograph as the explainer works on it: decoded, preprocessed, its source recorded; read ahead for many."""

import dataclasses
import hashlib
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from ortcam.image import decode, read_file, read_image
from ortcam.preprocessing import Preprocessing
from ortcam.terminal import as_text

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
        record: path and hash of the source, for the manifest; a path that is not UTF-8 is escaped.
        preprocessing: how the pixels became the input.
    """

    pixels: NDArray[np.uint8]
    model_input: NDArray[np.float32]
    record: dict[str, Any]
    preprocessing: Preprocessing


Image = str | os.PathLike[str] | bytes | NDArray[np.uint8] | Photograph


def read_photograph(
    image: Image,
    preprocessing: Preprocessing,
    *,
    max_pixels: int,
    white: int | None = None,
    strict: bool = False,
) -> Photograph:
    """Decode and preprocess an image; one that was read for another model is preprocessed again.

    Args:
        image: to read.
        preprocessing: of the model.
        max_pixels: as of `read_image`.
        white: as of `read_image`.
        strict: as of `read_image`.

    Raises:
        ImageError: missing, not an image, truncated or too large.
    """
    if isinstance(image, Photograph):
        if image.preprocessing == preprocessing:
            return image
        return Photograph(image.pixels, preprocessing(image.pixels), image.record, preprocessing)
    record: dict[str, Any] = {"path": None, "sha256": None}
    if isinstance(image, np.ndarray):
        pixels = read_image(image, max_pixels=max_pixels)
        if np.may_share_memory(pixels, image):  # a camera's buffer may hold the next frame while this one is explained
            pixels = pixels.copy()
        record["pixels_sha256"] = hashlib.sha256(pixels.data).hexdigest()
    elif isinstance(image, (str, os.PathLike)):
        encoded = read_file(image, max_pixels)
        record = {"path": as_text(os.fsdecode(image)), "sha256": hashlib.sha256(encoded.data).hexdigest()}
        pixels = decode(encoded, max_pixels, white, strict=strict)
    else:
        pixels = read_image(image, max_pixels=max_pixels, white=white, strict=strict)
        record["sha256"] = hashlib.sha256(image).hexdigest()
    if white is not None:
        record["white"] = white
    return Photograph(pixels, preprocessing(pixels), record, preprocessing)


def read_ahead(
    items: Iterable[_Item], read: Callable[[_Item], _Result]
) -> Iterator[tuple[_Item, Callable[[], _Result]]]:
    """Take and read items in a thread of their own while earlier ones are worked on, at most two ahead.

    In memory are then the one that is worked on, one that was read, and one that is being read or waits.

    Yields:
        An item, and a function that returns what was read of it or raises what went wrong.

    Raises:
        Exception: what the iterable raises, after the items that it gave before.
    """
    ready: queue.SimpleQueue[tuple[_Item, Future[_Result]] | Exception | None] = queue.SimpleQueue()
    places = threading.Semaphore(_AHEAD - 1)
    stop = threading.Event()

    def work() -> None:
        try:
            for item in items:
                if stop.is_set():
                    return
                future: Future[_Result] = Future()
                try:
                    future.set_result(read(item))
                except Exception as error:  # noqa: BLE001 - raised where the item is worked on
                    future.set_exception(error)
                ready.put((item, future))
                places.acquire()
                if stop.is_set():
                    return
            ready.put(None)
        except Exception as error:  # noqa: BLE001
            ready.put(error)

    threading.Thread(target=work, name="ortcam-read", daemon=True).start()
    try:
        while (found := ready.get()) is not None:
            if isinstance(found, Exception):
                raise found
            places.release()
            item, future = found
            yield item, future.result
    finally:
        stop.set()
        places.release()
