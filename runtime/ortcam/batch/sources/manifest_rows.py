"""What the rows of manifests of every kind share: where relative paths begin, and targets."""

import os
from typing import Any

from ortcam.batch.sources.listing import BATCH_RECORD
from ortcam.batch.storage import absolute, is_url, joined, without_query

__all__ = ["Folder", "targets_of"]


class Folder:
    """Where the relative paths of a manifest begin: beside it, or in the folder of its name.

    Args:
        manifest: its absolute path or URL.
    """

    def __init__(self, manifest: str) -> None:
        self._is_local = not is_url(manifest)
        manifest = without_query(manifest)
        cut = manifest.rfind("/") + 1
        self._beside = manifest[:cut]
        own = os.path.splitext(manifest)[0]  # noqa: PTH122 - a name that is no text
        has_own = self._is_local and os.path.isdir(own) and not os.path.exists(os.path.join(own, BATCH_RECORD))  # noqa: PTH110, PTH112, PTH118
        self._own = f"{own}/" if has_own else None

    def url(self, path: str) -> str:
        """The place of an image: what is a URL or begins at the root stays as it is."""
        if is_url(path):
            return path
        if path.startswith(("/", "file://", "local://")):
            return absolute(path)
        if self._own and os.path.lexists(self._own + path):
            return self._own + path
        if self._is_local:
            return joined(self._beside, path.removeprefix("./")) if self._beside else absolute(path)
        return _resolved(self._beside, path)


def _resolved(folder: str, path: str) -> str:
    """A path relative to the URL of a folder; stores know no `..`."""
    parts = path.split("/")
    while parts[0] in (".", ".."):
        if parts.pop(0) == "..":
            above = folder.rstrip("/").rpartition("/")[0] + "/"
            folder = folder if above.endswith(("://", ":///")) else above
    return joined(folder, "/".join(parts)) if parts else folder


def targets_of(value: Any) -> tuple[int | str, ...] | None:
    """The targets of a row: a class index, a label, or several; None for those that the run explains.

    Args:
        value: a number, a text (with a semicolon between several), a list of these, or None.
    """
    if value is None:
        return None
    if isinstance(value, float):  # what pandas makes of whole numbers, some of which are missing
        return None if value != value else (int(value) if value.is_integer() else str(value),)  # noqa: PLR0124
    if isinstance(value, str):
        given = tuple(part for text in value.split(";") if (part := text.strip()))
        return given or None
    if isinstance(value, list | tuple):
        several = tuple(one for item in value for one in targets_of(item) or ())
        return several or None
    return (value,) if isinstance(value, int) else (str(value),)
