"""Batches of tests: drawn images, and an engine without processes, so that a test of what is around it is quick."""

import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from ortcam.batch.explaining import RowMaker
from ortcam.batch.items import Item
from ortcam.batch.job import Job
from ortcam.batch.output.parts import Output, PartWriter
from ortcam.batch.progress import Tally
from ortcam.batch.sources.fetching import Fetcher
from ortcam.images.encoding import write_png
from ortcam.images.photograph import Photograph

__all__ = ["draw_images", "in_process", "same", "table_of"]


def draw_images(folder: Path, count: int, *, first: int = 0, size: tuple[int, int] = (40, 60)) -> list[Path]:
    """Images of noise, each another one, in a folder that is made: 0000.png and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:04}.png" for number in range(first, first + count)]
    for number, path in enumerate(paths, first):
        write_png(path, np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8))
    return paths


def table_of(output: Path) -> pa.Table:
    """All rows of an output, ordered by id; those of one image keep their order."""
    import ortcam

    return ortcam.batch.open(output).table().sort_by("id")


def same(first: pa.Table, second: pa.Table) -> bool:
    """Whether two tables have the same schema, metadata included, and the same values; maps bit for bit, NaN too."""
    if not first.schema.equals(second.schema, check_metadata=True) or first.num_rows != second.num_rows:
        return False
    return all(_bits(first[name]).equals(_bits(second[name])) for name in first.column_names)


def _bits(column: pa.ChunkedArray) -> pa.Array:
    values = column.combine_chunks()
    if pa.types.is_fixed_size_list(values.type):
        values = values.flatten()
    return values.view(pa.uint16()) if pa.types.is_float16(values.type) else values


def in_process(job: Job, items: Iterator[Item], output: Output, tally: Tally) -> None:
    """Do what `run_local` does, in this process and one image after the other."""
    writer = PartWriter(output, job.schema)
    fetcher = Fetcher(job.settings.storage_options, attempts=1, max_pixels=job.settings.max_pixels)
    maker = RowMaker(job.settings, threads=1)

    def read(item: Item) -> Photograph:
        return maker.read(fetcher.fetch(item.place))

    try:
        for item in items:
            if job.stop.is_set():
                break
            rows = maker.rows_or_failure(item, functools.partial(read, item))
            writer.add(rows)
            tally.add(rows)
    finally:
        writer.flush()
        maker.close()
        fetcher.close()
