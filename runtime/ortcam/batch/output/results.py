"""`open`: the results of a batch, read back as explanations that draw themselves, or as a table."""

import dataclasses
import itertools
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
from numpy.typing import NDArray

from ortcam.batch.items import place_of
from ortcam.batch.output.gallery import FOLDER, draw_sample, page_of, write_page
from ortcam.batch.output.index import Index
from ortcam.batch.output.parts import Output
from ortcam.batch.output.rows import FORMAT, schema, shape_of
from ortcam.batch.output.stored import Reading, StoredExplanation
from ortcam.batch.sources.fetching import Fetcher
from ortcam.batch.storage import absolute, joined
from ortcam.errors import ImageError, OptionError, OutputError
from ortcam.images.limits import DEFAULT_MAX_PIXELS
from ortcam.support.ranges import GALLERY, GALLERY_IMAGES, shown
from ortcam.support.terminal import printable

__all__ = ["Failure", "Results", "open"]


@dataclasses.dataclass(frozen=True)
class Failure:
    """An image that could not be explained.

    Attributes:
        id: of the image.
        path: where it lies.
        error: why, in one sentence.
    """

    id: str
    path: str
    error: str


def open(  # noqa: A001 - as files are opened
    output: str | os.PathLike[str], *, storage_options: Mapping[str, Any] | None = None
) -> "Results":
    """Open the output of a batch.

    Args:
        output: a folder, or an address such as `s3://bucket/maps`.
        storage_options: what fsspec passes on to the file systems of the output and of the images.

    Raises:
        OutputError: there is no output of a batch, or it cannot be read.

    Example:
        >>> for explanation in ortcam.batch.open("maps/"):  # doctest: +SKIP
        ...     explanation.save(f"drawn/{explanation.id}")
    """
    return Results(output, storage_options=storage_options)


class Results:
    """The results of a batch. Iterate over it, or take an explanation by the id of its image.

    Only what is needed is read: the ids at `len` and at the first look-up, one part at a time, and a photograph when
    its explanation is drawn. Parts that a running batch adds are found by opening the output again.

    Example:
        >>> results = ortcam.batch.open("maps/")  # doctest: +SKIP
        >>> len(results), results["cats/1.jpg"]  # doctest: +SKIP
        >>> results["cats/1.jpg"].overlay()  # doctest: +SKIP
    """

    def __init__(self, output: str | os.PathLike[str], *, storage_options: Mapping[str, Any] | None = None) -> None:
        """Read `_batch.json` and list the parts.

        Args:
            output: as `open` takes it.
            storage_options: as `open` takes them.

        Raises:
            OutputError: there is no output of a batch, or it cannot be read.
        """
        self._output = Output(output, storage_options=storage_options)
        record = self._output.record()
        if record is None:
            raise OutputError(f"{self._output.name}: there is no output of `ortcam batch`")
        if record["format"] != FORMAT:
            raise OutputError(
                f"{self._output.name}: has rows of format {record['format']}, and this ortcam reads format {FORMAT}; "
                "read it with the ortcam that wrote it"
            )
        self._record = record
        self._parts = self._output.parts()
        self._options = dict(storage_options or {})
        self._last: tuple[str, pa.Table] | None = None

    def __repr__(self) -> str:
        method = self.metadata["fingerprint"].get("method")
        return f"<Results of {method} in {self._output.name}: {len(self._parts)} part{'s'[: len(self._parts) != 1]}>"

    @property
    def metadata(self) -> dict[str, Any]:
        """What `_batch.json` says: the fingerprint of bundle and options, the input, versions."""
        return self._record

    def __len__(self) -> int:
        """How many images were explained; those that failed do not count."""
        return len(self._index)

    def __contains__(self, id_: object) -> bool:
        return isinstance(id_, str) and self._found(id_) is not None

    def __getitem__(self, id_: str) -> StoredExplanation:
        """The explanation of an image, by its id.

        Raises:
            OptionError: there is no such image.
            ImageError: the image failed; the message says why.
            OutputError: a part cannot be read.
        """
        found = self._found(id_) if isinstance(id_, str) else None
        if found is not None:
            return self._explanation(found)
        for failure in self.failures():
            if failure.id == id_:
                raise ImageError(failure.error)
        raise OptionError(f"id {shown(id_)}: is not in {self._output.name}")

    def __iter__(self) -> Iterator[StoredExplanation]:
        """All explanations, part by part. Images that failed are left out; `failures` has them.

        Raises:
            OutputError: a part cannot be read.
        """
        for name in self._parts:
            table = self._output.read_part(name)
            table = table.filter(pc.is_null(table["error"]))
            for first, last in _runs(table["id"]):
                yield self._explanation(table.slice(first, last - first))

    def ids(self) -> Iterator[str]:
        """The ids of the images that were explained, in the order of the explanations."""
        for name in self._parts:
            yield from self._output.ids_of(name, failed=False).to_pylist()

    def failures(self) -> Iterator[Failure]:
        """The images that failed.

        Raises:
            OutputError: a part cannot be read.
        """
        for name in self._parts:
            table = self._output.read_part(name, ["id", "path", "error"])
            for row in table.filter(pc.is_valid(table["error"])).to_pylist():
                yield Failure(**row)

    def dataset(self) -> pads.Dataset:
        """All rows as a dataset of pyarrow, which reads what is needed of them.

        Raises:
            OutputError: a part cannot be read.

        Example:
            >>> results.dataset().to_table(filter=pc.field("probability") < 0.5)  # doctest: +SKIP
        """
        if not self._parts:
            return pads.dataset(self._schema().empty_table())
        file_system, paths = self._output.files(self._parts)
        return pads.dataset(paths, filesystem=file_system, format="parquet", schema=self._schema())

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows, in memory. For many millions use `dataset`.

        Args:
            columns: by name; None: all.

        Raises:
            OptionError: a column that is not there.
            OutputError: a part cannot be read.
        """
        kinds = self._schema()
        if columns is not None:
            if unknown := [name for name in columns if name not in kinds.names]:
                raise OptionError(f"column {shown(unknown[0])}: accepted is one of {', '.join(kinds.names)}")
            kinds = pa.schema([kinds.field(name) for name in columns], metadata=kinds.metadata)
        tables = [self._output.read_part(name, columns).select(kinds.names) for name in self._parts]
        return pa.concat_tables([kinds.empty_table(), *tables])

    def gallery(self, count: int = GALLERY_IMAGES, *, to: str | os.PathLike[str] | None = None) -> str:
        """Write a page to leaf through images with their maps: one file of HTML, which any browser opens.

        Args:
            count: how many images, drawn by chance from those that were explained; a larger count adds to those of a
                smaller one. Their photographs are fetched again.
            to: folder or address for the page `index.html`; None: `_gallery` in the output.

        Returns:
            The place of the page.

        Raises:
            OptionError: a count that is not accepted.
            OutputError: nothing was explained yet, or the page cannot be written.

        Example:
            >>> ortcam.batch.open("maps/").gallery()  # doctest: +SKIP
            'maps/_gallery/index.html'
        """
        count = GALLERY.check(count)
        sample = draw_sample(self._parts, lambda name: self._output.ids_of(name, failed=False).to_pylist(), count)
        if not sample.ids:
            raise OutputError(f"{self._output.name}: no image was explained yet, so there is nothing to show")
        title = printable(os.path.basename(absolute(self._output.name).rstrip("/")))  # noqa: PTH119 - of an address, too
        explanations = (found for name, ids in sample.ids.items() for found in self._those(name, ids))
        text = page_of(explanations, sample, f"{title}: explanations")
        return write_page(text, joined(self._output.url, FOLDER) if to is None else os.fspath(to), self._options)

    def _those(self, name: str, ids: Sequence[str]) -> Iterator[StoredExplanation]:
        """Explanations of some images of a part, without full maps and overlays."""
        columns = [column for column in self._schema().names if column not in ("full_map", "overlay")]
        table = self._output.read_part(name, columns)
        table = table.filter(pc.field("id").isin(ids) & pc.field("error").is_null())
        for first, last in _runs(table["id"]):
            yield self._explanation(table.slice(first, last - first))

    @cached_property
    def _index(self) -> Index:
        return Index(self._output.ids_of(name, failed=False) for name in self._parts)

    @cached_property
    def _reading(self) -> Reading:
        most = self._record["fingerprint"].get("max_pixels", DEFAULT_MAX_PIXELS)
        return Reading(self._record, _Photographs(self._options, most), self._output.name)

    def _schema(self) -> pa.Schema:
        """That of the parts, also where there are none yet."""
        if self._parts:
            return self._output.schema_of(self._parts[0])
        fingerprint, reading = self._record["fingerprint"], self._reading
        size = reading.preprocessing.height, reading.preprocessing.width
        return schema(
            fingerprint,
            tuple(fingerprint["map_shape"]),
            size if fingerprint["maps"] == "full" else None,
            overlays=fingerprint["overlays"] != "none",
            values=not reading.are_probabilities,
        )

    def _found(self, id_: str) -> pa.Table | None:
        """The rows of an image that was explained; None if there is none."""
        for place in self._index.places(id_):
            name = self._parts[place]
            if self._last is None or self._last[0] != name:
                self._last = name, self._output.read_part(name)
            rows = self._last[1].filter((pc.field("id") == id_) & pc.field("error").is_null())
            if rows.num_rows:
                return rows
        return None

    def _explanation(self, rows: pa.Table) -> StoredExplanation:
        maps = {name: _maps(rows, name) for name in ("map", "full_map") if name in rows.column_names}
        low = maps.pop("map")
        found = rows.drop_columns(["map", *maps]).to_pylist()
        full = maps.get("full_map")
        return StoredExplanation(found, low, self._reading, full)


class _Photographs:
    """Fetches images by their paths. Explanations have it, so it can be pickled, and be called in any thread."""

    def __init__(self, storage_options: Mapping[str, Any], max_pixels: int) -> None:
        self._arguments = storage_options, max_pixels
        self._fetcher = Fetcher(storage_options, max_pixels=max_pixels)
        self._lock = threading.Lock()  # a fetcher works in one thread at a time

    def __call__(self, path: str) -> bytes:
        with self._lock:
            return self._fetcher.fetch(place_of(path))

    def __reduce__(self) -> tuple[Any, ...]:
        return _Photographs, self._arguments


def _maps(rows: pa.Table, name: str) -> NDArray[np.float32]:
    """A column of maps: float32 [K,h,w]."""
    values: NDArray[np.float16] = rows[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return values.astype(np.float32).reshape(rows.num_rows, *shape_of(rows.schema.field(name)))


def _runs(ids: pa.ChunkedArray) -> Iterator[tuple[int, int]]:
    """The first row and the row behind the last of each run of equal ids."""
    if not len(ids):
        return
    changes = pc.not_equal(ids.slice(1), ids.slice(0, len(ids) - 1)).to_numpy()
    bounds = [0, *(np.flatnonzero(changes) + 1).tolist(), len(ids)]
    yield from itertools.pairwise(bounds)
