"""Result folders: where `ortcam explain` saves. Each image has a folder of its own below the output folder."""

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ortcam.bundle import file_sha256
from ortcam.errors import OutputError
from ortcam.results.saved import MANIFEST, OccupiedError, image_sha256, read_manifest

__all__ = ["ResultFolders", "check_output", "file_digest", "folder_name"]

_LONGEST: Final = 240  # bytes; a number comes behind, and file systems take 255
_NAMELESS: Final = "image"
_UNFIT: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff/\\:*?\"<>|]")
_RESERVED: Final = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


class ResultFolders:
    """The folders of the images of one command.

    A folder has the name of the image without its suffix. It belongs to the image whose explanations are in it, or to
    which this command has given it. If the folder belongs to another image, the next number is tried: `cat`, `cat-2`.
    An image that was explained before finds its folder again, by its hash.
    """

    def __init__(self, output: Path) -> None:
        self._output = output
        self._given: set[Path] = set()

    def give(self, image: str, digest: Callable[[], str | None]) -> Path:
        """The folder of an image, which no other image of this command gets.

        Args:
            image: path, of which the name counts.
            digest: the hash of the image, or None; it is asked for only where it decides.

        Raises:
            OutputError: what is there cannot be looked at.
        """
        name = folder_name(image)
        number = 1
        while True:
            folder = self._output / (name if number == 1 else f"{name}-{number}")
            if folder not in self._given and self.is_free(folder, digest):
                self._given.add(folder)
                return folder
            number += 1

    def is_free(self, folder: Path, digest: Callable[[], str | None]) -> bool:
        """Whether nobody's explanations are in a folder, or those of this image.

        Args:
            folder: below the output.
            digest: the hash of the image, or None; it is asked for only where it decides.

        Raises:
            OutputError: what is there cannot be looked at.
        """
        try:
            if not folder.exists() and not folder.is_symlink():
                return True
            if not folder.is_dir() or not folder.resolve().is_relative_to(self._output.resolve()):
                return False
            owners = _owners(folder)
        except (OSError, RuntimeError) as error:  # RuntimeError: links that go round in circles, up to Python 3.12
            raise OutputError(f"{folder}: cannot be looked at: {getattr(error, 'strerror', None) or error}") from None
        return not owners or digest() in owners


def folder_name(image: str) -> str:
    """The name of an image's folder: its stem, changed where that is no name of a folder on every system.

    Example:
        >>> folder_name("a/cat.jpg"), folder_name("...jpg"), folder_name("con.png")
        ('cat', 'image', 'con_')
    """
    name = os.path.basename(os.path.normpath(image)) if image.strip() else ""  # noqa: PTH119 - no file is meant
    stem, dot, suffix = name.rpartition(".")
    name = stem if dot and suffix and stem.strip(". ") else name if not dot else stem
    name = _UNFIT.sub("_", name)
    while len(name.encode()) > _LONGEST:
        name = name[:-1]
    kept = name.rstrip(". ")
    name = kept + "_" * (len(name) - len(kept)) if kept else _NAMELESS
    return f"{name}_" if _RESERVED.fullmatch(name) else name


def file_digest(path: str) -> str | None:
    """The SHA-256 of a regular file; None of anything else, since a pipe can be read only once."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116
            return None
        return file_sha256(Path(path))
    except (OSError, ValueError):
        return None  # the error comes when the image is read


def check_output(output: str | os.PathLike[str]) -> Path:
    """Find out before the work, not after it, that its results cannot be written.

    Raises:
        OutputError: the nearest folder that exists is a file, or cannot be written to.
    """
    if not os.fspath(output):
        raise OutputError("-o '': accepted is a folder to write to")
    path = Path(output)
    if "\0" in str(path):
        raise OutputError(f"{str(path)!r}: accepted is a folder to write to, and no name has a null character")
    try:
        existing = path.absolute()
        while not existing.exists() and not existing.is_symlink():
            existing = existing.parent
        if not existing.is_dir():
            what = "a link that leads nowhere" if existing.is_symlink() and not existing.exists() else "a file"
            raise OutputError(f"{path}: {existing} is {what}; accepted is a folder to write to")
    except OSError as error:  # a name that is too long, a folder that may not be looked into
        raise OutputError(f"{path}: cannot be looked at: {error.strerror or error}") from None
    if not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(f"{path}: the folder {existing} cannot be written to")
    return path


def _owners(folder: Path) -> set[str | None]:
    """The hashes of the images whose explanations are in a folder; None for what cannot be told."""
    owners: set[str | None] = set()
    for below in folder.iterdir():
        if not (below / MANIFEST).is_file():
            continue
        try:
            manifest = read_manifest(below)
        except OccupiedError:
            continue  # somebody's own file
        if manifest is not None:
            owners.add(image_sha256(manifest["image"]))
    return owners
