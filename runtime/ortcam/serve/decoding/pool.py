"""Decoders: they read the images of requests. Encoded bytes go to processes of their own, pixels to a thread."""

import asyncio
import contextlib
import hashlib
import itertools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol

from ortcam.bundle import Manifest
from ortcam.errors import ImageError, OrtcamError
from ortcam.images.photograph import Photograph, read_photograph, read_preprocessed
from ortcam.images.preprocessing import Preprocessing
from ortcam.serve.decoding.process import DecodingProcess
from ortcam.serve.decoding.sources import Encoded, Pixels, Preprocessed, Source
from ortcam.serve.http.refusals import Refusal
from ortcam.serve.settings import RequestLimits

__all__ = ["Decoders", "HasManifest"]

_HELPERS: Final = 2  # threads for images that need no process
_RECENT: Final = 0.2  # how much the last image counts in the mean time of one
_FIRST_GUESS: Final = 0.1  # seconds per image, until one was read


class HasManifest(Protocol):
    """A model as far as its images are concerned."""

    @property
    def manifest(self) -> Manifest:
        """Of its bundle."""


class Decoders:
    """Reads what requests give as images. All of it belongs to one event loop.

    Encoded bytes come from strangers, and decoders are native code. So they are decoded in processes that have limits
    of time and memory. A process that crashes, or is killed, costs the image that it worked on; another one takes its
    place. Images wait for a process in the order in which they came.

    Attributes:
        waiting: images that are being read or wait for it.
    """

    def __init__(
        self, limits: RequestLimits, processes: int = 1, *, ended: Callable[[str], None] = lambda _: None
    ) -> None:
        """Start nothing yet.

        Args:
            limits: of an image, and of how many wait (`quick_queue`).
            processes: how many images are decoded at the same time.
            ended: called, from any thread, with "time" where a process took too long, and with "died" where it ended
                otherwise, before another one takes its place.
        """
        self.waiting = 0
        self._limits = limits
        self._processes = [DecodingProcess(limits, ended=ended) for _ in range(processes)]
        self._threads = ThreadPoolExecutor(processes + _HELPERS, thread_name_prefix="ortcam-decode")
        self._idle: asyncio.Queue[DecodingProcess] = asyncio.Queue()
        self._recovering: set[asyncio.Task[None]] = set()
        self._seconds = _FIRST_GUESS
        self._closed = False

    @property
    def pids(self) -> tuple[int, ...]:
        """The numbers of the processes that run."""
        return tuple(process.pid for process in self._processes if process.running and process.pid is not None)

    async def start(self) -> None:
        """Start the processes, and wait until they can decode.

        Raises:
            OrtcamError: one does not start.
        """
        loop = asyncio.get_running_loop()
        started = [loop.run_in_executor(self._threads, process.start) for process in self._processes]
        outcomes = await asyncio.gather(*started, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                await self.close()
                raise outcome
        for process in self._processes:
            self._idle.put_nowait(process)

    async def close(self) -> None:
        """End the processes. Images that are being decoded are refused with 503."""
        self._closed = True
        for process in self._processes:
            await asyncio.get_running_loop().run_in_executor(None, process.close)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def read(
        self,
        source: Source,
        model: HasManifest,
        *,
        tell: Callable[[str], None] | None = None,
        always: bool = False,
        check: Callable[[], None] = lambda: None,
    ) -> Photograph:
        """Read an image for a model: what `Explainer.read` gives for the same bytes or pixels.

        Args:
            source: encoded bytes, pixels, or a model input.
            model: whose preprocessing is used.
            tell: called with one sentence per thing that is wrong with an image that was read all the same: it is
                damaged, or of 16 bits and very dark.
            always: take it however many images wait: the next image of a request of several.
            check: called when it is its turn; what it raises is raised here, and nothing is decoded.

        Raises:
            ImageError: it is no image, truncated, damaged, or not the model's input.
            Refusal: 413, too many pixels. 422, it takes too long or too much memory to decode, or crashes the decoder.
                429, too many images wait. 503, decoding was interrupted, or the server is closing.
        """
        self._check_open()
        if self.waiting >= self._limits.quick_queue and not always:
            seconds = self._seconds * self.waiting / len(self._processes)
            message = f"{self.waiting} images wait to be decoded, and this server lets no more wait: try again later"
            raise Refusal(429, message, retry_after=seconds)
        preprocessing = model.manifest.preprocessing
        self.waiting += 1
        try:
            if isinstance(source, Encoded):
                return await self._decode(source, preprocessing, tell, check)
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, _take, source, preprocessing, self._limits.pixels)
        finally:
            self.waiting -= 1

    async def _decode(
        self,
        source: Encoded,
        preprocessing: Preprocessing,
        tell: Callable[[str], None] | None,
        check: Callable[[], None],
    ) -> Photograph:
        process = await self._idle.get()
        try:
            self._check_open()
            check()
        except BaseException:
            self._idle.put_nowait(process)  # it is the turn of the next one in the queue, which is told, too
            raise
        begun = time.monotonic()
        future = asyncio.get_running_loop().run_in_executor(self._threads, _decoded, process, source, preprocessing)

        def over(done: asyncio.Future[tuple[Photograph, tuple[str, ...]]]) -> None:
            done.exception()  # is taken, so that nobody complains where the request was given up
            self._seconds += _RECENT * (time.monotonic() - begun - self._seconds)
            self._put_back(process)

        future.add_done_callback(over)
        # Where a request is given up its image is decoded all the same: ending a process costs more than an image.
        photograph, warnings = await asyncio.shield(future)
        if tell is not None:
            for warning in warnings:
                tell(warning)
        return photograph

    def _check_open(self) -> None:
        if self._closed:
            raise Refusal(503, "the server is shutting down", retry_after=5)

    def _put_back(self, process: DecodingProcess) -> None:
        """Let the next image have a process; one that has ended is started first."""
        if process.running or self._closed:
            self._idle.put_nowait(process)
            return
        task = asyncio.get_running_loop().create_task(self._recover(process))
        self._recovering.add(task)
        task.add_done_callback(self._recovering.discard)

    async def _recover(self, process: DecodingProcess) -> None:
        # Where it does not start the next image tries again.
        with contextlib.suppress(OrtcamError):
            await asyncio.get_running_loop().run_in_executor(self._threads, process.start)
        self._idle.put_nowait(process)


def _decoded(
    process: DecodingProcess, source: Encoded, preprocessing: Preprocessing
) -> tuple[Photograph, tuple[str, ...]]:
    """A photograph of encoded bytes, with the record that the library would give it; and warnings."""
    decoded = process.decode(source, preprocessing)
    record: dict[str, Any] = {"path": None, "sha256": hashlib.sha256(source.content).hexdigest()}
    photograph = Photograph(decoded.pixels, decoded.model_input, record, preprocessing, samples=decoded.samples)
    return photograph, decoded.warnings


def _take(source: Pixels | Preprocessed, preprocessing: Preprocessing, most: int) -> Photograph:
    """A photograph of pixels or of a model input."""
    if isinstance(source, Preprocessed):
        return read_preprocessed(source.array, preprocessing)
    shape = source.array.shape
    # Channels may come first, so that the largest product of two sides that follow each other is looked at.
    if max((a * b for a, b in itertools.pairwise(shape)), default=0) > most:
        size = f"an image of {' x '.join(map(str, shape))} values"
        if len(shape) == 3 and not preprocessing.needs_samples:
            size = f"an image of {shape[1]} x {shape[0]} pixels"
        raise Refusal(
            413, f"{size} is more than this server accepts, which is at most {most} pixels: give a smaller image"
        )
    try:
        return read_photograph(source.array, preprocessing, max_pixels=most)
    except ImageError as error:
        if source.name is None:
            raise
        raise ImageError(f"{source.name}: {error}") from None
