"""Opening INPUT: what it names decides which source reads it."""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from ortcam.batch.sources.images import ImageFiles
from ortcam.batch.sources.listing import BATCH_RECORD, Listing, NamedFiles, below
from ortcam.batch.sources.lists import ListFiles, is_csv_name, is_text_name
from ortcam.batch.sources.patterns import Pattern, expanded, has_braces, is_glob
from ortcam.batch.sources.shards import Shards, is_shard_name
from ortcam.batch.sources.source import Source, checked_ids, reading
from ortcam.batch.sources.tables import ParquetFiles, is_parquet_name
from ortcam.batch.storage import (
    absolute,
    filesystem,
    is_url,
    joined,
    local_path,
    protocol_of,
    without_query,
    without_secrets,
)
from ortcam.errors import DatasetError
from ortcam.images.inputs import ARRAY_SUFFIXES, SUFFIXES, is_image_name
from ortcam.support.terminal import as_text, printable

__all__ = ["Source", "open_source"]

_ACCEPTED: Final = (
    "accepted are a folder, a glob, a manifest (.txt, .csv, .tsv, .parquet with a column 'path'), Parquet files with "
    "images, and tar shards; or one image"
)
_PACKED: Final = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".zip", ".gz")


def open_source(
    input: str | os.PathLike[str] | Sequence[str],  # noqa: A002 - as the command line calls it
    *,
    storage_options: Mapping[str, Any] | None = None,
    check: bool = True,
    arrays: bool = False,
) -> Source:
    """Find out what INPUT is.

    Args:
        input: one of these, as a local path or as a URL that fsspec knows (s3://, gs://, memory://, ...):

            - a folder: the images in it and in its subfolders; or its Parquet files or tar shards, if it has no images,
            - a glob, such as `photos/**/*.jpg`, or names in braces, such as `train-{000..099}.tar`,
            - a manifest: a text file with one path per line, or CSV or Parquet with a column `path`; these may have
              `id` and `target`,
            - Parquet files with a column of images: bytes, or structs with `bytes` and `path`,
            - WebDataset shards: tar archives that are not compressed,
            - one image, or a list of images, Parquet files or shards.
        storage_options: what fsspec takes for URLs.
        check: whether to read all ids of a manifest first, to refuse those that come twice.
        arrays: whether arrays (.npy, .npz) are images, too: the model takes samples.

    Raises:
        DatasetError: INPUT is missing, cannot be read, or is none of these; or an id comes twice.
        OptionError: a protocol whose package is not installed, or a storage option that it does not take.

    Example:
        >>> from ortcam.bundle.shipped import demo_image
        >>> [item.id for item in open_source(demo_image()).items()]
        ['mug-umbrella.png']
    """
    how = _How(storage_options, check, arrays)
    if not isinstance(input, str | os.PathLike):
        return _of_names("the list of images", "", [os.fsdecode(name) for name in input], how)
    given = os.fsdecode(input)
    if not given or "\0" in given:
        raise DatasetError(f"{printable(given)!r}: {_ACCEPTED}")
    name = as_text(without_secrets(given))
    place = absolute(given)
    kind = _kind(place, name, storage_options)
    if kind == "file":
        cut = without_query(place).rfind("/") + 1
        return _of_names(name, place[:cut], [place[cut:]], how)
    if kind == "folder":
        return _of_listing(name, place, below(place, None, storage_options), how)
    # What is above the first wildcard is a folder, whatever is in its name.
    text = given if is_url(given) else local_path(given).replace(os.sep, "/")
    if has_braces(text) and not is_glob(text):
        cut = text.rfind("/", 0, text.index("{")) + 1
        return _of_names(name, absolute(text[:cut]), expanded(text[cut:]), how)
    if is_glob(text) and not text.startswith(("http://", "https://")):
        pattern = Pattern(text)
        listing = below(absolute(pattern.base), pattern, storage_options)
        return _of_listing(name, place, listing, how)
    raise DatasetError(f"{printable(name)}: does not exist; {_ACCEPTED}")


@dataclasses.dataclass(frozen=True)
class _How:
    """How a source is read: options of fsspec, whether ids are checked first, and whether arrays are images."""

    options: Mapping[str, Any] | None
    check: bool
    arrays: bool


def _kind(place: str, name: str, options: Mapping[str, Any] | None) -> str:
    """Whether a place is a file, a folder or neither."""
    if not is_url(place):
        return "folder" if os.path.isdir(place) else "file" if os.path.lexists(place) else ""  # noqa: PTH112
    with reading(printable(name)):
        system, path = filesystem(place, options)
        if protocol_of(place) in ("http", "https"):
            return "folder" if place.endswith("/") else "" if has_braces(place) else "file"
        try:
            kind = system.info(path)["type"]
        except FileNotFoundError:
            return ""
    return "folder" if kind == "directory" else "file"


def _of_names(name: str, base: str, names: Sequence[str], how: _How) -> Source:
    """The source of files that are named one by one, all of one kind."""
    if not names:
        raise DatasetError(f"{name}: is empty; {_ACCEPTED}")
    listing = NamedFiles(base, names)
    if how.check:
        checked_ids(name, lambda: iter([[listing.id(file) for file in names]]))
    found = {_reader(listing.last(file), arrays=how.arrays) for file in names}
    if len(found) > 1:
        raise DatasetError(f"{printable(name)}: has files of several kinds; accepted are those of one")
    reader = found.pop()
    if reader is None:
        file = listing.last(names[0])
        if file.lower().endswith(_PACKED):
            raise DatasetError(f"{printable(name)}: is compressed; unpack it, or give a .tar that is not compressed")
        raise DatasetError(f"{printable(name)}: {_ACCEPTED}")
    if base and not is_url(base) and len(names) == 1 and not os.path.isfile(joined(base, names[0])):  # noqa: PTH113
        raise DatasetError(f"{printable(name)}: is no regular file; {_ACCEPTED}")
    return reader(name, listing, how)


def _of_listing(name: str, place: str, listing: Listing, how: _How) -> Source:
    """The source of a folder or a glob: of images, if there is one, or of other files."""
    others: dict[str, str] = {}
    for file in listing.names(lambda last: _reader(last, arrays=how.arrays) is not None):
        last = file.rpartition("/")[2]
        if is_image_name(last, arrays=how.arrays):
            return _images(name, listing, how)
        others.setdefault("table" if is_parquet_name(last) else "shard" if is_shard_name(last) else "list", last)
    if "table" in others:
        return _parquet(name, listing, how)
    if "shard" in others:
        return _shards(name, listing, how)
    if not is_url(place) and os.path.lexists(os.path.join(place, BATCH_RECORD)):  # noqa: PTH118
        raise DatasetError(f"{printable(name)}: is an OUTPUT of ortcam batch; {_ACCEPTED}")
    if has_braces(place) and is_glob(place):
        raise DatasetError(f"{printable(name)}: no images in it; accepted are braces or wildcards, not both at once")
    suffixes = ", ".join((*SUFFIXES, *(ARRAY_SUFFIXES if how.arrays else ()), ".parquet"))
    raise DatasetError(f"{printable(name)}: no images in it; accepted are files that end in {suffixes} or .tar")


_Reader = Callable[[str, Listing, _How], Source]


def _images(name: str, listing: Listing, how: _How) -> Source:
    return ImageFiles(name, listing, arrays=how.arrays)


def _parquet(name: str, listing: Listing, how: _How) -> Source:
    return ParquetFiles(name, listing, how.options, check=how.check)


def _shards(name: str, listing: Listing, how: _How) -> Source:
    return Shards(name, listing, how.options, arrays=how.arrays)


def _list(name: str, listing: Listing, how: _How) -> Source:
    return ListFiles(name, listing, how.options, check=how.check)


def _reader(last: str, *, arrays: bool) -> _Reader | None:
    """What reads a file, by its name."""
    if is_image_name(last, arrays=arrays):
        return _images
    if is_parquet_name(last):
        return _parquet
    if is_shard_name(last):
        return _shards
    return _list if is_text_name(last) or is_csv_name(last) else None
