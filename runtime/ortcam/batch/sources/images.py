"""A source of image files: a folder, a glob, or a list of them."""

import functools
from collections.abc import Iterator
from typing import Any

from ortcam.batch.items import FilePlace, Item, address
from ortcam.batch.sources.listing import Listing, lost
from ortcam.images.inputs import is_image_name

__all__ = ["ImageFiles"]


class ImageFiles:
    """Image files, by the end of their names. The id of one is its name in the listing."""

    count: int | None = None

    def __init__(self, name: str, listing: Listing, *, arrays: bool = False) -> None:
        """Take a listing.

        Args:
            name: of the source.
            listing: of its files.
            arrays: whether arrays (.npy, .npz) are images, too.
        """
        self._is_image = functools.partial(is_image_name, arrays=arrays)
        self.name = name
        self.record: dict[str, Any] = {"input": name, "kind": "images"}
        self._listing = listing

    def items(self) -> Iterator[Item]:
        """As of `Source`."""
        for name in self._listing.names(self._is_image):
            place = FilePlace(self._listing.url(name))
            yield Item(self._listing.id(name), address(place), place)
        yield from lost(self._listing)

    def counted(self) -> int:
        """As of `Source`."""
        return sum(1 for _ in self._listing.names(self._is_image))
