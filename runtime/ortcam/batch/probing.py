"""Batch size and precision of a batch: found once, the size with a drawn image, and then the same for all images."""

import dataclasses
from typing import Final

from ortcam.batch.explaining import RowMaker, memory_limit
from ortcam.batch.items import FilePlace, Item
from ortcam.batch.settings import BatchSettings
from ortcam.bundle import read_bundle
from ortcam.errors import ImageError, NotFiniteError

__all__ = ["find_batch_size", "find_what_fits"]

_UNKNOWN: Final = 8  # where the model has no finite answer for the drawn image, or `max_pixels` refuses it


def find_batch_size(settings: BatchSettings, *, threads: int | None) -> int:
    """The masked images per run that `batch_size="auto"` finds, or that fit under the limit of memory.

    The search goes by time, so two runs of it may find different sizes, and maps then differ in their last bits. So a
    batch searches once. It takes a drawn image, since time does not depend on what an image shows. An image of the
    batch might take for ever to fetch, or end the process that decodes it, and this process is the driver's.

    Args:
        settings: of the batch. Its batch size counts with a limit of memory alone: it is the most, then.
        threads: of the processes that score.

    Raises:
        OrtcamError: what is wrong with all images, as `Explainer.explain`.
    """
    limited = settings.memory_limit is not None
    wanted = settings if limited else dataclasses.replace(settings, batch_size="auto")
    maker = RowMaker(wanted, threads=threads, searching=limited)
    try:
        return maker.explain(Item("drawn", "drawn", FilePlace("")), maker.drawn()).stats.batch_size
    except (ImageError, NotFiniteError):
        return _UNKNOWN
    finally:
        maker.close()


def find_what_fits(settings: BatchSettings, *, threads: int | None) -> tuple[str, int]:
    """The precision and the batch size with which a process stays below the limit of its memory: this process.

    Args:
        settings: of the batch, with a limit. Its batch size is the most; a precision that it has is taken.
        threads: of the processes that score.

    Raises:
        MemoryLimitError: nothing fits.
        OrtcamError: as `find_batch_size`.
    """
    limit = memory_limit(settings.memory_limit, searching=True)
    assert limit is not None  # by what calls this
    precision = limit.plan(read_bundle(settings.bundle), settings.precision).precision
    return precision, find_batch_size(dataclasses.replace(settings, precision=precision), threads=threads)
