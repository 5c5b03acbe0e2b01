"""Where a result is written: checked before the work, made in a hidden folder beside it, then moved into place."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from ortcam.bundle import MANIFEST_NAME
from ortcam_export.errors import ExportError

__all__ = ["check_destination", "move_into_place", "staging"]


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
    """A hidden folder beside the destination, gone afterwards whatever happens."""
    folder = destination.with_name(f".{destination.name}.{secrets.token_hex(4)}")
    try:
        folder.mkdir()
        yield folder
    except OSError as error:
        raise ExportError(f"{destination}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def move_into_place(folder: Path, destination: Path) -> None:
    """Give a folder its name; one that is there is removed once it has been replaced."""
    old = destination.with_name(f".{destination.name}.{secrets.token_hex(4)}.old")
    replaced = destination.exists()
    try:
        if replaced:
            destination.rename(old)
        folder.rename(destination)
    except BaseException:  # an interrupt, too
        if old.exists():
            old.rename(destination)
        raise
    if replaced:
        shutil.rmtree(old, ignore_errors=True)
