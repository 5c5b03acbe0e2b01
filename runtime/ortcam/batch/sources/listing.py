"""Listing: the names of files below a folder, a URL or a glob, or in a list, without holding all of them."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

from ortcam.batch.items import Item, NoPlace
from ortcam.batch.sources.patterns import Pattern
from ortcam.batch.sources.source import first_line_of, reading
from ortcam.batch.storage import absolute, filesystem, is_url, joined, without_query, without_secrets
from ortcam.support.terminal import as_text
from ortcam.support.walking import files_below

__all__ = ["BATCH_RECORD", "Listing", "NamedFiles", "below", "lost"]

BATCH_RECORD: Final = "_batch.json"  # a folder that has it is an OUTPUT of ortcam, and not searched for images


class Listing(Protocol):
    """Files of INPUT, by names that stay the same.

    Attributes:
        unreadable: names of the folders that could not be read when the files were last listed, and why.
    """

    unreadable: list[tuple[str, str]]

    def names(self, accepts: Callable[[str], bool]) -> Iterator[str]:
        """The names of those files that a function accepts by the last part of their name.

        Raises:
            DatasetError: the folder cannot be read.
        """

    def url(self, name: str) -> str:
        """Where the file of a name is: an absolute path or a URL."""

    def id(self, name: str) -> str:
        """The name as text, unique among all of them."""


class NamedFiles:
    """Files that were named one by one."""

    def __init__(self, base: str, names: Sequence[str]) -> None:
        self.unreadable: list[tuple[str, str]] = []
        self._base = base
        self._names = names

    def names(self, accepts: Callable[[str], bool]) -> Iterator[str]:
        """As of `Listing`."""
        return (name for name in self._names if accepts(self.last(name)))

    def last(self, name: str) -> str:
        """The last part of a name, which says what the file is."""
        return self._path(name).rpartition("/")[2]

    def url(self, name: str) -> str:
        """As of `Listing`."""
        return joined(self._base, name) if self._base else absolute(name)

    def id(self, name: str) -> str:
        """As of `Listing`."""
        return as_text(self._path(name))

    def _path(self, name: str) -> str:
        """A name without the query of a URL, which may be a signature."""
        return without_query(self._base + name)[len(self._base) :]


def lost(listing: Listing) -> Iterator[Item]:
    """An item for each folder that could not be read when the files were last listed, so that its row says so."""
    for name, why in listing.unreadable:
        yield Item(f"{listing.id(name)}/", as_text(listing.url(name)), NoPlace(f"the folder cannot be read: {why}"))


def below(place: str, pattern: Pattern | None, storage_options: Mapping[str, Any] | None) -> Listing:
    """The files below a folder or a URL.

    Args:
        place: an absolute path or a URL, of the folder.
        pattern: which of them; None: all.
        storage_options: of fsspec.
    """
    if is_url(place):
        return _Remote(place, pattern, storage_options)
    return _Local(place, pattern)


class _Local:
    def __init__(self, base: str, pattern: Pattern | None) -> None:
        self.unreadable: list[tuple[str, str]] = []
        self._base = base
        self._pattern = pattern

    def names(self, accepts: Callable[[str], bool]) -> Iterator[str]:
        pattern = self._pattern
        enters = pattern.may_hold if pattern else lambda _: True
        with reading(self._base):
            self.unreadable = []
            found = files_below(self._base, accepts, enters=enters, unless=BATCH_RECORD, tell=self._note)
            for name in found:
                if pattern is None or pattern.matches(name):
                    yield name

    def url(self, name: str) -> str:
        return os.path.join(self._base, name)  # noqa: PTH118 - a name that is no text

    def id(self, name: str) -> str:
        text = as_text(name)
        if text != name and os.path.lexists(self.url(text)):  # the name that this one is escaped to is another file's
            text += f" ({os.fsencode(name).hex()})"
        return text

    def _note(self, folder: str, error: OSError) -> None:
        self.unreadable.append((folder, first_line_of(error)))


class _Remote:
    def __init__(self, base: str, pattern: Pattern | None, storage_options: Mapping[str, Any] | None) -> None:
        self.unreadable: list[tuple[str, str]] = []
        self._base = base
        self._pattern = pattern
        self._options = storage_options

    def names(self, accepts: Callable[[str], bool]) -> Iterator[str]:
        pattern = self._pattern
        with reading(without_secrets(self._base)):
            system, root = filesystem(self._base, self._options)
            start = pattern.start if pattern else ""
            keys = _pages(system, root, start) if hasattr(system, "call_s3") else self._walk(system, root)
            ours = None
            for name in keys:
                *folders, last = name.split("/")
                if last == BATCH_RECORD:
                    ours = name[: -len(last)]
                if ours is not None and name.startswith(ours):
                    continue
                hidden = any(folder.startswith(".") for folder in folders)
                if last and not hidden and accepts(last) and (pattern is None or pattern.matches(name)):
                    yield name

    def url(self, name: str) -> str:
        return joined(self._base, name)

    def id(self, name: str) -> str:
        return as_text(name)

    def _walk(self, system: Any, root: str) -> Iterator[str]:
        """Every file, one folder's names in memory at a time."""
        waiting = [""]
        root = root.rstrip("/")
        while waiting:
            folder = waiting.pop()
            entries = system.ls(f"{root}/{folder}".rstrip("/") or root, detail=True)
            system.invalidate_cache()
            found = sorted((str(entry["name"]).rstrip("/").rpartition("/")[2], entry["type"]) for entry in entries)
            names = [name for name, kind in found if kind == "file"]
            if BATCH_RECORD in names:
                continue
            yield from (folder + name for name in names)
            inner = [folder + name for name, kind in reversed(found) if kind == "directory" and name[:1] != "."]
            waiting += [f"{name}/" for name in inner if self._pattern is None or self._pattern.may_hold(name)]


def _pages(system: Any, root: str, start: str) -> Iterator[str]:
    """The keys of a bucket, a page of a thousand at a time: no folder of it is ever in memory as a whole."""
    bucket, key, _ = system.split_path(root)
    prefix = f"{key.rstrip('/')}/" if key else ""
    more: dict[str, str] = {}
    while True:
        page = system.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix + start, **more, **system.req_kw)
        for entry in page.get("Contents", ()):
            yield entry["Key"][len(prefix) :]
        if not page.get("IsTruncated"):
            return
        more = {"ContinuationToken": page["NextContinuationToken"]}
