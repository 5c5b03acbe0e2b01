"""An image as the explainer works on it: decoded, preprocessed, its source recorded; many are read ahead."""

import atexit
import dataclasses
import functools
import hashlib
import os
import queue
import threading
import weakref
from collections.abc import Callable, Generator, Iterable
from typing import Any, Final, Generic, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from ortcam.errors import ImageError, OrtcamError
from ortcam.images.arrays.pixels import as_array, described, is_array
from ortcam.images.encoded import encoded_of
from ortcam.images.preprocessing import Preprocessing
from ortcam.images.reading import ImageSource
from ortcam.images.samples import read_samples
from ortcam.support.terminal import as_text, printable

__all__ = ["Image", "Photograph", "of_levels", "read_ahead", "read_photograph", "read_preprocessed"]

_AHEAD: Final = 2
_PAUSE: Final = 0.5  # seconds until it is looked whether the thread that reads is still there
# Seconds at the end of the process: for an image to be read, and for the iterable to notice.
_LONGEST_READ: Final = 30.0
_LONGEST_WAIT: Final = 1.0

_NO_SAMPLES: Final[NDArray[Any]] = np.zeros(0, np.uint8)  # stands for the pixels

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Photograph:
    """An image that was read once: what `Explainer.read` returns and all methods take, so that it is decoded once.

    Attributes:
        pixels: uint8 [H0,W0,3], upright RGB: what maps are drawn over (`Preprocessing.render`). If the input came
            preprocessed, the pixels that it stands for.
        model_input: float32 [1,C,H,W], preprocessed.
        record: path and hash of the source, for the manifest. A path that is not UTF-8 is escaped.
        preprocessing: how the pixels become the input.
        is_preprocessed: whether the input came preprocessed. There is no photograph then: `pixels` has the input's
            size.
        samples: what the preprocessing takes (`read_samples`): for 8-bit RGB the same array as `pixels`, for grey the
            RGB that is weighed; [H0,W0,C] at the depth of the file for a model with a `value_range`.
    """

    pixels: NDArray[np.uint8]
    model_input: NDArray[np.float32]
    record: dict[str, Any]
    preprocessing: Preprocessing
    is_preprocessed: bool = False
    samples: NDArray[Any] = dataclasses.field(default_factory=lambda: _NO_SAMPLES)

    def __post_init__(self) -> None:
        if self.samples is _NO_SAMPLES:
            object.__setattr__(self, "samples", self.pixels)

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        own = 0 if self.samples is self.pixels else self.samples.nbytes
        return self.pixels.nbytes + self.model_input.nbytes + own

    def __repr__(self) -> str:
        path = self.record.get("path")
        source = "preprocessed input" if self.is_preprocessed else os.path.basename(path) if path else "image"  # noqa: PTH119
        height, width = self.pixels.shape[:2]
        return (
            f"<Photograph {printable(source)}, {width} x {height} pixels, model input {list(self.model_input.shape)}>"
        )


Image = ImageSource | Photograph


def read_photograph(
    image: Image,
    preprocessing: Preprocessing,
    *,
    max_pixels: int,
    white: int | None = None,
    strict: bool = False,
) -> Photograph:
    """Decode and preprocess an image. One that was read for another model is preprocessed again.

    Args:
        image: as `read_image` takes it, or a `Photograph`.
        preprocessing: of the model.
        max_pixels: as of `read_image`.
        white: as of `read_image`.
        strict: as of `read_image`.

    Raises:
        ImageError: missing, not an image, truncated or too large, or preprocessed for another model.
    """
    if isinstance(image, Photograph):
        return _for_model(image, preprocessing)
    record: dict[str, Any] = {"path": None, "sha256": None}
    encoded = encoded_of(image, max_pixels)
    if encoded is not None:
        if isinstance(image, str | os.PathLike):
            record["path"] = as_text(os.fsdecode(image))
        record["sha256"] = hashlib.sha256(encoded.data).hexdigest()
    samples = read_samples(encoded or image, preprocessing, max_pixels=max_pixels, white=white, strict=strict)
    if encoded is None:
        if samples is image or not samples.flags.owndata:
            samples = samples.copy()  # a camera's buffer may hold the next frame while this one is explained
        record["pixels_sha256"] = hashlib.sha256(samples.data).hexdigest()
    if white is not None:
        record["white"] = white
    return _prepared(samples, record, preprocessing)


def _prepared(samples: NDArray[Any], record: dict[str, Any], preprocessing: Preprocessing) -> Photograph:
    model_input = preprocessing(samples)
    return Photograph(preprocessing.render(samples), model_input, record, preprocessing, samples=samples)


def read_preprocessed(values: Any, preprocessing: Preprocessing) -> Photograph:
    """Take a model input that a service has made itself.

    Its pixels are the input with mean, std and scale undone. Maps lie on them as they are: nothing is cropped.

    Args:
        values: array or tensor of floats, [1,C,H,W] or [C,H,W], of the model's size. It is copied.
        preprocessing: of the model.

    Raises:
        ImageError: another type or shape, or a value that is infinite or not a number.
    """
    shape = preprocessing.channels, preprocessing.height, preprocessing.width
    accepted = f"accepted: floats as {[1, *shape]} or {[*shape]}, the model's input"
    if not is_array(values):
        raise ImageError(f"preprocessed={type(values).__name__}: {accepted}")
    array = as_array(values)
    name = f"preprocessed={described(array)}"
    if array.dtype.kind != "f":
        raise ImageError(f"{name}: {accepted}; pixels that are not preprocessed are given as the image")
    if array.ndim == 4 and array.shape[1:] == shape and len(array) > 1:
        raise ImageError(f"{name}: {accepted}; explain the images of a batch one by one: preprocessed=batch[0]")
    if array.shape not in {(1, *shape), shape}:
        raise ImageError(f"{name}: {accepted}")
    with np.errstate(over="ignore"):
        model_input = np.array(array, np.float32, order="C").reshape(1, *shape)
    if not np.isfinite(model_input).all():
        raise ImageError(f"{name} has values that are infinite or not a number: {accepted}")
    record = {
        "path": None,
        "sha256": None,
        "preprocessed": True,
        "input_sha256": hashlib.sha256(model_input.data).hexdigest(),
    }
    straight = dataclasses.replace(preprocessing, resize=None)
    samples = straight.to_samples(model_input)
    pixels = straight.render(samples)
    return Photograph(pixels, model_input, record, straight, is_preprocessed=True, samples=samples)


def of_levels(levels: NDArray[np.uint8], preprocessing: Preprocessing) -> Photograph:
    """Take a drawn image at the size of the model's input, such as a blank one or noise.

    Args:
        levels: uint8 [H,W,C], as `Preprocessing.of_levels` takes them.
        preprocessing: of the model.
    """
    return read_preprocessed(preprocessing.of_levels(levels), preprocessing)


def _for_model(image: Photograph, preprocessing: Preprocessing) -> Photograph:
    if not image.is_preprocessed:
        if image.preprocessing == preprocessing:
            return image
        own = image.preprocessing
        if (preprocessing.value_range is None) != (own.value_range is None) or (
            preprocessing.needs_samples
            and (preprocessing.channels, preprocessing.channel_order) != (own.channels, own.channel_order)
        ):
            raise ImageError(
                f"{image!r} was read for another model, which takes other samples of an image: read it again with this "
                f"one, whose channels are {preprocessing.channels} ({preprocessing.channel_order})"
            )
        return _prepared(image.samples, image.record, preprocessing)
    if image.preprocessing != dataclasses.replace(preprocessing, resize=None):
        raise ImageError(
            f"{image!r} was preprocessed for another model: this one takes {preprocessing.height} x "
            f"{preprocessing.width} pixels, mean {preprocessing.mean}, std {preprocessing.std}"
        )
    return image


def read_ahead(
    items: Iterable[_Item], read: Callable[[_Item], _Result]
) -> Generator[tuple[_Item, Callable[[], _Result]], None, None]:
    """Take and read items in a thread of their own while earlier ones are worked on, at most two ahead.

    In memory are then the one that is worked on, one that was read, and one that is being read or waits.

    The thread ends when the generator is closed or dropped, as soon as what it is at has ended. Where no thread can be
    started items are read one after the other.

    Yields:
        An item, and a function that returns what was read of it or raises what went wrong.

    Raises:
        BaseException: what the iterable raises, after the items that it gave before.
        OrtcamError: the thread is gone, as it is in a process that was forked.
    """
    reading = _Reading(items, read)
    try:
        reading.start()
    except RuntimeError:  # no thread is to be had: a limit, or the interpreter is about to end
        for item in items:
            yield item, _attempt(functools.partial(read, item))
        return
    try:
        while (found := reading.next()) is not None:
            yield found
            del found  # not to be kept while the next one is waited for
    finally:
        reading.stop()


# Those whose thread runs; the thread itself keeps them.
_under_way: "weakref.WeakSet[_Reading[Any, Any]]" = weakref.WeakSet()


class _Reading(Generic[_Item, _Result]):
    """The thread that reads ahead, and what it has ready."""

    def __init__(self, items: Iterable[_Item], read: Callable[[_Item], _Result]) -> None:
        self._items = items
        self._read = read
        self._ready: queue.SimpleQueue[tuple[_Item, Callable[[], _Result]] | BaseException | None] = queue.SimpleQueue()
        self._places = threading.Semaphore(_AHEAD - 1)
        self._stopped = threading.Event()
        self._turn = threading.Lock()  # held while an item is read
        self._thread = threading.Thread(target=self._work, name="ortcam-read", daemon=True)

    def start(self) -> None:
        """Begin.

        Raises:
            RuntimeError: no thread can be started.
        """
        self._thread.start()
        _under_way.add(self)

    def next(self) -> tuple[_Item, Callable[[], _Result]] | None:
        """What is ready, as soon as it is; None after the last."""
        while True:
            alive = self._thread.is_alive()
            try:
                found = self._ready.get(timeout=_PAUSE if alive else 0)
            except queue.Empty:
                if not alive:
                    raise OrtcamError(
                        "the thread that reads images ahead is gone, as in a process that was forked; call again there"
                    ) from None
                continue
            self._places.release()
            if isinstance(found, BaseException):
                try:
                    raise found
                finally:
                    del found  # or it would keep this frame, which keeps it
            return found

    def stop(self) -> None:
        """Have the thread end."""
        self._stopped.set()
        self._places.release()

    def stop_before_exit(self) -> None:
        """Have the thread end, and wait for it: one that comes out of a decoder after the interpreter aborts.

        What the iterable waits for may never come, so that is not waited for long.
        """
        self.stop()
        if self._thread.is_alive() and self._turn.acquire(timeout=_LONGEST_READ):
            self._turn.release()
            self._thread.join(_LONGEST_WAIT)

    def _work(self) -> None:
        try:
            for item in self._items:
                with self._turn:
                    if self._stopped.is_set():
                        return
                    outcome = _attempt(functools.partial(self._read, item))
                self._ready.put((item, outcome))
                del item, outcome
                self._places.acquire()
                if self._stopped.is_set():
                    return
            self._ready.put(None)
        except BaseException as error:  # noqa: BLE001 - raised where the items are worked on
            self._ready.put(error)


@atexit.register
def _stop_all() -> None:
    for reading in list(_under_way):
        reading.stop_before_exit()


def _attempt(what: Callable[[], _Result]) -> Callable[[], _Result]:
    """Call a function; what returns its result, or raises what it raised."""
    try:
        result = what()
    except BaseException as error:  # noqa: BLE001 - raised where the result is wanted
        return functools.partial(_raise, error)
    return lambda: result


def _raise(error: BaseException) -> NoReturn:
    try:
        raise error
    finally:
        del error
