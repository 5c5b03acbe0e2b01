"""Tar shards, as WebDataset writes them: where each image lies in an archive that is not compressed."""

import tarfile
from collections.abc import Iterator, Mapping
from typing import Any, Final

from ortcam.batch.items import Item, MemberPlace, NoPlace, address
from ortcam.batch.sources.listing import Listing, lost
from ortcam.batch.sources.source import reading
from ortcam.batch.storage import is_url, open_file, without_secrets
from ortcam.errors import DatasetError
from ortcam.images.inputs import is_image_name
from ortcam.support.terminal import as_text, printable

__all__ = ["Shards", "is_shard_name", "members"]

_BLOCK: Final = tarfile.BLOCKSIZE
_LONGEST_NAME: Final = 1 << 20  # bytes of what says a long name
_READ_AHEAD: Final = 8 << 20  # bytes of a remote archive; members are small, so most of it is read
_COMPRESSED: Final = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"PK\x03\x04")


def is_shard_name(name: str) -> bool:
    """Tell whether a file is a tar archive that counts in a folder."""
    return name.lower().endswith(".tar") and not name.startswith((".", "_"))


class Shards:
    """The images in tar archives. The id of one is `SHARD/MEMBER`; other members, such as labels, are left out.

    Args:
        name: of INPUT.
        listing: of the archives.
        storage_options: of fsspec.
        arrays: whether arrays (.npy, .npz) are images, too.

    Raises:
        DatasetError: there is no archive, or the first one is none.
    """

    count: int | None = None

    def __init__(
        self, name: str, listing: Listing, storage_options: Mapping[str, Any] | None = None, *, arrays: bool = False
    ) -> None:
        self.name = name
        self.record: dict[str, Any] = {"input": name, "kind": "tar shards"}
        self._listing = listing
        self._options = storage_options
        self._arrays = arrays
        first = next(listing.names(is_shard_name), None)
        if first is None:
            raise DatasetError(f"{printable(name)}: no tar archives in it")
        next(self._members(first), None)

    def items(self) -> Iterator[Item]:
        """As of `Source`. An archive that is damaged is an item, too, behind those that it gave."""
        for name in self._listing.names(is_shard_name):
            url, shard = self._listing.url(name), self._listing.id(name)
            seen: set[str] = set()
            try:
                for member, offset, size in self._members(name):
                    id_ = again = as_text(f"{shard}/{member}")
                    number = 1
                    while id_ in seen:
                        number += 1
                        id_ = f"{again}#{number}"
                    seen.add(id_)
                    place = MemberPlace(url, offset, size)
                    yield Item(id_, address(place), place)
            except DatasetError as error:
                yield Item(shard, as_text(url), NoPlace(str(error)))
        yield from lost(self._listing)

    def counted(self) -> int:
        """As of `Source`."""
        return sum(1 for _ in self.items())

    def _members(self, name: str) -> Iterator[tuple[str, int, int]]:
        url = self._listing.url(name)
        shown = printable(without_secrets(url))
        with reading(shown):
            how: dict[str, Any] = {"block_size": _READ_AHEAD, "cache_type": "readahead"} if is_url(url) else {}
            with open_file(url, self._options, **how) as file:
                for member, offset, size in members(file, shown):
                    *folders, last = member.split("/")
                    if is_image_name(last, arrays=self._arrays) and not any(
                        folder.startswith(".") for folder in folders
                    ):
                        yield member, offset, size


def members(file: Any, name: str) -> Iterator[tuple[str, int, int]]:
    """Walk the headers of a tar archive: name, offset and size of each regular file. No content is read.

    Python's own reader takes a damaged header for the end of the archive; here it is an error.

    Args:
        file: binary and seekable.
        name: of the archive, for messages.

    Raises:
        DatasetError: no tar archive, compressed, damaged, or shorter than its headers say.
    """
    end = file.seek(0, 2)
    end = file.tell() if end is None else end
    at = 0
    said: dict[str, str] = {}  # what a header says about the next one
    while at < end:
        file.seek(at)
        head = file.read(_BLOCK)
        try:
            info = tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            if len(head) == _BLOCK and not any(head):
                return
            if at == 0:
                packed = head.startswith(_COMPRESSED)
                why = "is compressed; accepted are tar archives that are not" if packed else "is no tar archive"
                raise DatasetError(f"{name}: {why}") from None
            raise DatasetError(f"{name}: is damaged at byte {at}: {error}") from None
        size = int(said.get("size", info.size))
        at += _BLOCK
        has_content = info.isreg() or info.type not in tarfile.SUPPORTED_TYPES or info.type in _ABOUT_THE_NEXT
        if size < 0 or (has_content and at + size > end):
            raise DatasetError(f"{name}: ends too early, within {printable(as_text(said.get('path', info.name)))!r}")
        if info.type in _ABOUT_THE_NEXT:
            if size > _LONGEST_NAME:
                raise DatasetError(f"{name}: is damaged at byte {at}: {size} bytes are no header")
            said |= _said(info.type, file.read(size))
        else:
            if info.isreg() and info.type != tarfile.GNUTYPE_SPARSE and not any("sparse" in key for key in said):
                yield said.get("path", info.name).removeprefix("./"), at, size
            said = {}
        at += -(-size // _BLOCK) * _BLOCK if has_content else 0
    if at > end:
        raise DatasetError(f"{name}: ends too early, behind {end} bytes")


_ABOUT_THE_NEXT: Final = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.XGLTYPE,
)


def _said(kind: bytes, content: bytes) -> dict[str, str]:
    """What a header says about the member behind it: its `path`, its `size`, whether it is sparse."""
    if kind == tarfile.GNUTYPE_LONGNAME:
        return {"path": content.partition(b"\0")[0].decode("utf-8", "surrogateescape")}
    if kind not in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
        return {}
    said = {}
    while content:
        length, _, rest = content.partition(b" ")
        if not (length.isdigit() and len(length) + 1 < int(length) <= len(content)):
            break
        key, _, value = rest[: int(length) - len(length) - 2].partition(b"=")
        said[key.decode("utf-8", "surrogateescape").lower()] = value.decode("utf-8", "surrogateescape")
        content = content[int(length) :]
    if not said.get("size", "0").isdecimal() or len(said.get("size", "")) > 18:
        del said["size"]
    return said
