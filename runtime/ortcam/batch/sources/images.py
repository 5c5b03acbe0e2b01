"""A source of image files: a folder, a glob, or a list of them."""

from collections.abc import Iterator
from typing import Any

from ortcam.batch.items import FilePlace, Item, address
from ortcam.batch.sources.listing import Listing, lost
from ortcam.images.inputs import is_image_name

__all__ = ["ImageFiles"]


class ImageFiles:
    """Image files, by the end of their names. The id of one is its name in the listing."""

    count: int | None = None

    def __init__(self, name: str, listing: Listing) -> None:
        self.name = name
        self.record: dict[str, Any] = {"input": name, "kind": "images"}
        self._listing = listing

    def items(self) -> Iterator[Item]:
        """As of `Source`."""
        for name in self._listing.names(is_image_name):
            place = FilePlace(self._listing.url(name))
            yield Item(self._listing.id(name), address(place), place)
        yield from lost(self._listing)

    def counted(self) -> int:
        """As of `Source`."""
        return sum(1 for _ in self._listing.names(is_image_name))
