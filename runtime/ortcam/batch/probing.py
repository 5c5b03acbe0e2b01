"""The batch size of a batch: found once, with a drawn image, and then the same for all images."""

import dataclasses
from typing import Final

from ortcam.batch.explaining import RowMaker
from ortcam.batch.items import FilePlace, Item
from ortcam.batch.settings import BatchSettings
from ortcam.errors import ImageError, NotFiniteError

__all__ = ["find_batch_size"]

_UNKNOWN: Final = 8  # where the model has no finite answer for the drawn image, or `max_pixels` refuses it


def find_batch_size(settings: BatchSettings, *, threads: int | None) -> int:
    """The masked images per run that `batch_size="auto"` finds.

    The search goes by time, so two runs of it may find different sizes, and maps then differ in their last bits. So a
    batch searches once. It takes a drawn image, since time does not depend on what an image shows. An image of the
    batch might take for ever to fetch, or end the process that decodes it, and this process is the driver's.

    Args:
        settings: of the batch; the batch size in it does not count.
        threads: of the processes that score.

    Raises:
        OrtcamError: what is wrong with all images, as `Explainer.explain`.
    """
    maker = RowMaker(dataclasses.replace(settings, batch_size="auto"), threads=threads)
    try:
        return maker.explain(Item("drawn", "drawn", FilePlace("")), maker.drawn()).stats.batch_size
    except (ImageError, NotFiniteError):
        return _UNKNOWN
    finally:
        maker.close()
