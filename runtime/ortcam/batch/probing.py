"""Batch size and precision of a batch: found once, the size with a drawn image, and then the same for all images."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

from ortcam.batch.explaining import RowMaker, memory_limit
from ortcam.batch.items import FilePlace, Item
from ortcam.batch.settings import BatchSettings
from ortcam.bundle import Bundle
from ortcam.errors import ImageError, NotFiniteError

__all__ = ["find_batch_size", "find_precision"]

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


def find_precision(bundle: Bundle, wanted: str | None, megabytes: int | None, before: Mapping[str, Any] | None) -> str:
    """The precision of the masked passes: the one asked for, that of the run before, or the first that fits.

    Args:
        bundle: of the model.
        wanted: what was asked for; None: what fits, or else the bundle's own.
        megabytes: of each process that scores; None: as many as there are.
        before: the record of the run that is gone on with.

    Raises:
        OptionError: no precision of this name, or none that fits under the limit of memory.
        BundleError: the bundle has no scorers in it.
    """
    found = memory_limit(megabytes, searching=True)
    if found is None:
        return bundle.check_precision(wanted)
    if before is not None:
        return bundle.check_precision(wanted or before["fingerprint"].get("precision"))
    return found.plan(bundle, wanted).precision
