"""Files below a folder, one after the other: in a fixed order, through links, and never round in circles."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

__all__ = ["files_below"]


def files_below(
    folder: str | os.PathLike[str],
    accepts: Callable[[str], bool],
    *,
    enters: Callable[[str], bool] = lambda _: True,
    unless: str | None = None,
    tell: Callable[[str, OSError], None] = lambda *_: None,
) -> Iterator[str]:
    """Give the files of a folder and of its subfolders. The names of one folder at a time are in memory.

    Rules:

    1. Subfolders whose names begin with a dot are left out. So are those that cannot be read.
    2. Links are followed. A folder that several links lead to is visited once.
    3. The files of a folder come first, then its subfolders, each in the order of their names.

    Args:
        folder: where to begin.
        accepts: tells by its name whether a file is wanted.
        enters: tells by its path, relative to `folder` and with slashes, whether a subfolder is visited.
        unless: a folder that holds a file of this name is left out, with all that is below it.
        tell: called with the path of a subfolder that cannot be read, and with the error.

    Yields:
        Paths relative to `folder`, with slashes. A name that is no text has Python's surrogates.

    Raises:
        OSError: `folder` itself cannot be read.
    """
    visited: set[tuple[int, int]] = set()
    waiting = [""]
    while waiting:
        below = waiting.pop()
        place = Path(folder, below) if below else Path(folder)
        try:
            state = place.stat()
            if (state.st_dev, state.st_ino) in visited:
                continue
            visited.add((state.st_dev, state.st_ino))
            files, folders = _names(place, accepts, unless)
        except OSError as error:
            if not below:
                raise
            tell(below, error)
            continue
        start = f"{below}/" if below else ""
        for name in files:
            yield start + name
        waiting += [path for name in reversed(folders) if enters(path := start + name)]


def _names(place: Path, accepts: Callable[[str], bool], unless: str | None) -> tuple[list[str], list[str]]:
    """The wanted files and the subfolders of one folder, in order."""
    files, folders = [], []
    with os.scandir(place) as entries:
        for entry in entries:
            name = entry.name
            is_folder = False
            with suppress(OSError):
                is_folder = entry.is_dir()
            if is_folder:
                if not name.startswith("."):
                    folders.append(name)
            elif name == unless:
                return [], []
            elif accepts(name):
                files.append(name)
    files.sort()
    folders.sort()
    return files, folders
