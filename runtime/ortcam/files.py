"""Files that are either whole or not there."""

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path

__all__ = ["replacing", "write_whole"]


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A place to write a file to; it is moved over `path` at the end, or removed if anything goes wrong."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file beside its place and move it there, over what is there.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    with replacing(path) as partial:
        partial.write_bytes(content)
