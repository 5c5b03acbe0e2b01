"""Where a result is written: checked before the work, made in a hidden folder beside it, then moved into place."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from ortcam.bundle import MANIFEST_NAME
from ortcam.support.files import alone_in, move_folder
from ortcam.support.unfinished import temporary_folder, workspace
from ortcam_export.errors import ExportError

__all__ = ["check_destination", "move_into_place", "reported", "staging", "temporary"]


def check_destination(destination: Path, *, force: bool) -> None:
    """See that a bundle can be written.

    Raises:
        ExportError: something else is there, or a bundle and `force` is not set, or there is no folder to write to.
    """
    if not destination.exists() and not destination.is_symlink():
        if not destination.parent.is_dir():
            raise ExportError(f"{destination}: the folder {destination.parent} does not exist")
        if not os.access(destination.parent, os.W_OK):
            raise ExportError(f"{destination}: the folder {destination.parent} cannot be written to")
        return
    if not (destination / MANIFEST_NAME).is_file() or destination.is_symlink():
        raise ExportError(f"{destination}: exists and is not a bundle; it is left alone, name another")
    if not force:
        raise ExportError(f"{destination}: a bundle is there already; --force replaces it")


@contextlib.contextmanager
def staging(destination: Path) -> Iterator[Path]:
    """An empty folder in a workspace beside the destination, gone afterwards whatever happens.

    Raises:
        ExportError: it cannot be written to.
    """
    with reported(destination), workspace(destination.parent) as own:
        folder = own / "made"
        folder.mkdir()
        yield folder


@contextlib.contextmanager
def temporary() -> Iterator[Path]:
    """A folder for temporary files, gone afterwards whatever happens.

    Raises:
        ExportError: it cannot be written to.
    """
    try:
        with temporary_folder() as folder:
            yield folder
    except OSError as error:
        where = error.filename or "the folder for temporary files"
        raise ExportError(f"{where}: cannot be written: {error.strerror or error}") from error


@contextlib.contextmanager
def reported(destination: Path) -> Iterator[None]:
    """Say of what the system refuses which result it keeps from being written.

    Raises:
        ExportError: the system refused something.
    """
    try:
        yield
    except OSError as error:
        raise ExportError(f"{destination}: cannot be written: {error.strerror or error}") from error


def move_into_place(folder: Path, destination: Path, *, force: bool) -> None:
    """Give a folder of `staging` its name; a bundle that is there is exchanged for it and removed.

    Raises:
        ExportError: something has been put there meanwhile that must not be replaced.
        OSError: it cannot be moved; what was there is left as it is.
    """
    with alone_in(destination.parent):
        check_destination(destination, force=force)
        move_folder(folder, destination, folder.parent)
