"""The two stages of a batch on Ray: images are fetched and decoded, and then explained by actors."""

import pickle
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pyarrow as pa

from ortcam.batch.explaining import OF_ONE_IMAGE, RowMaker
from ortcam.batch.items import Item, items_of
from ortcam.batch.output.rows import Row
from ortcam.batch.ray.attempts import attempted
from ortcam.batch.ray.cluster import ShippedBundle
from ortcam.batch.ray.manifest import NUMBER
from ortcam.batch.settings import BatchSettings
from ortcam.batch.sources.fetching import Fetcher
from ortcam.errors import ImageError, OrtcamError, OutOfMemoryError
from ortcam.images.photograph import Photograph, read_photograph
from ortcam.images.preprocessing import Preprocessing
from ortcam.support.terminal import as_text

__all__ = ["ROWS", "Explain", "Reading", "read_images", "rows_of"]

ROWS: Final = "rows"  # column: the rows of an image
_PHOTOGRAPH: Final = "photograph"  # column: what was read of it
_ERROR: Final = "error"  # column: what was wrong with it
_OF_ALL: Final = -1  # in place of a number: what is wrong with all images

# Ray itself pickles what its processes send each other; here it is bytes in a table.
_pack, _unpack = pickle.dumps, pickle.loads


@dataclass(frozen=True)
class Reading:
    """How images are fetched and decoded.

    Attributes:
        settings: of the batch.
        preprocessing: of the bundle, which this stage does not need otherwise.
        with_pixels: whether the photograph is needed, and not only what the model takes of it.
        attempts: the actor that counts which images end a process.
        batch_id: of the run: what an earlier one has left open in a process is closed.
    """

    settings: BatchSettings
    preprocessing: Preprocessing
    with_pixels: bool
    attempts: Any
    batch_id: str

    def read(self, item: Item, fetcher: Fetcher) -> bytes:
        """Fetch, decode and preprocess an image.

        Raises:
            OrtcamError: as `Fetcher.fetch` and `read_photograph`.
        """
        settings = self.settings
        photograph = read_photograph(
            fetcher.fetch(item.place),
            self.preprocessing,
            max_pixels=settings.max_pixels,
            white=settings.white,
            strict=settings.strict,
        )
        pixels = photograph.pixels
        return _pack((pixels if self.with_pixels else None, pixels.shape, photograph.model_input, photograph.record), 5)


# What the tasks of one process share: files and connections that the last image left open, for one batch at a time.
_fetchers: dict[str, Fetcher] = {}


def read_images(batch: pa.Table, *, reading: Reading) -> pa.Table:
    """The stage on the CPU: fetch, decode and preprocess images.

    Args:
        batch: rows of the manifest.
        reading: how.

    Returns:
        The rows, and of each image either what was read or what was wrong with it.
    """
    fetcher = _fetcher(reading.batch_id, reading.settings)
    numbers = batch[NUMBER].to_pylist()
    photographs: list[bytes | None] = []
    errors: list[str | None] = []
    with attempted(reading.attempts, "read", numbers) as may_begin:
        for number, item in zip(numbers, items_of(batch), strict=True):
            found, error = None, None
            if not may_begin(number):
                error = "reading it ended the process twice"
            else:
                try:
                    found = reading.read(item, fetcher)
                except OF_ONE_IMAGE as wrong:
                    error = as_text(str(wrong))
                except MemoryError:
                    error = "there is not enough memory for this image"
            photographs.append(found)
            errors.append(error)
    return batch.append_column(_PHOTOGRAPH, pa.array(photographs, pa.large_binary())).append_column(
        _ERROR, pa.array(errors, pa.string())
    )


class Explain:
    """The stage of the actors: each opens the bundle once."""

    def __init__(self, reading: Reading, bundle: ShippedBundle, threads: int) -> None:
        """Keep what is needed; the bundle is opened with the first images.

        So an error in that ends the batch: Ray would start an actor that cannot begin again and again.
        """
        self._reading, self._bundle, self._threads = reading, bundle, threads
        self._maker: RowMaker | None = None

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Explain what was read.

        Returns:
            The number and the rows of each image; or, in one row, what is wrong with all images: of an exception Ray
            Data would keep the text alone.
        """
        try:
            numbers, packed = batch[NUMBER].to_pylist(), self._packed(batch)
        except OrtcamError as error:
            numbers, packed = [_OF_ALL], [_pack(error, 5)]
        return pa.table({NUMBER: pa.array(numbers, pa.int64()), ROWS: pa.array(packed, pa.large_binary())})

    def _packed(self, batch: pa.Table) -> list[bytes]:
        if self._maker is None:
            settings = replace(self._reading.settings, bundle=self._bundle.folder())
            self._maker = RowMaker(settings, threads=self._threads)
        numbers = batch[NUMBER].to_pylist()
        with attempted(self._reading.attempts, "explain", numbers) as may_begin:
            return [
                _pack(self._rows(self._maker, item, photograph.as_py, error.as_py(), may_begin=may_begin(number)), 5)
                for number, item, photograph, error in zip(
                    numbers, items_of(batch), batch[_PHOTOGRAPH], batch[_ERROR], strict=True
                )
            ]

    def _rows(self, maker: RowMaker, item: Item, packed: Any, error: str | None, *, may_begin: bool) -> list[Row]:
        if error is not None:
            return [maker.failed(item, ImageError(error))]
        if not may_begin:
            return [maker.failed(item, OutOfMemoryError("explaining it ended the process twice"))]
        return maker.rows_or_failure(item, lambda: _photograph(packed(), self._reading.preprocessing))


def rows_of(batch: pa.Table) -> Iterable[tuple[int, Sequence[Row]]]:
    """Number and rows of each image, from what `Explain` returns.

    Raises:
        OrtcamError: what is wrong with all images.
    """
    for number, packed in zip(batch[NUMBER].to_pylist(), batch[ROWS], strict=True):
        found = _unpack(packed.as_py())
        if number == _OF_ALL:
            raise found
        yield number, found


def _photograph(packed: bytes, preprocessing: Preprocessing) -> Photograph:
    pixels, shape, model_input, record = _unpack(packed)
    if pixels is None:  # nobody looks at them, but their shape counts
        pixels = np.broadcast_to(np.uint8(0), shape)
    return Photograph(pixels, model_input, record, preprocessing)


def _fetcher(batch_id: str, settings: BatchSettings) -> Fetcher:
    if batch_id not in _fetchers:
        for old in _fetchers.values():
            old.close()
        _fetchers.clear()
        _fetchers[batch_id] = Fetcher(settings.storage_options, max_pixels=settings.max_pixels)
    return _fetchers[batch_id]
