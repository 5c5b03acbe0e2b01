"""What a source is: INPUT as a stream of items, always in the same order."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol

import numpy as np

from ortcam.batch.items import Item
from ortcam.errors import DatasetError, OrtcamError
from ortcam.support.terminal import one_line, printable, shortened

__all__ = ["FILE_COLUMNS", "Source", "checked_ids", "first_line_of", "listed", "reading"]

FILE_COLUMNS: Final = ("path", "file", "filename", "file_name", "image")  # what manifests call the path of an image


class Source(Protocol):
    """The images of INPUT.

    Attributes:
        name: INPUT as messages have it, without secrets.
        count: how many items there are, if that is known without listing them; else None.
        record: what INPUT is, as JSON.
    """

    name: str
    count: int | None
    record: dict[str, Any]

    def items(self) -> Iterator[Item]:
        """Every item, in the same order each time. Only what is at hand is in memory.

        Raises:
            DatasetError: INPUT cannot be read any more.
        """

    def counted(self) -> int:
        """How many items there are, listed if need be.

        Raises:
            DatasetError: as `items`.
        """


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn what a file system or a file raises into one sentence.

    Args:
        name: of what is read.

    Raises:
        DatasetError: in place of any error that is not ortcam's own.
    """
    try:
        yield
    except (OrtcamError, GeneratorExit):
        raise
    except FileNotFoundError:
        raise DatasetError(f"{printable(name)}: does not exist") from None
    except PermissionError:
        raise DatasetError(f"{printable(name)}: cannot be read: access is denied") from None
    except Exception as error:  # noqa: BLE001 - each store raises what it likes
        raise DatasetError(f"{printable(name)}: cannot be read: {first_line_of(error)}") from None


def first_line_of(error: BaseException) -> str:
    """What went wrong, on one line."""
    return printable(getattr(error, "strerror", None) or one_line(error))


def listed(columns: Sequence[str]) -> str:
    """The names of columns, for a message: the first of them, and each not in full length."""
    most = 12
    names = ", ".join(shortened(printable(column), 40) for column in columns[:most])
    return names + (", ..." if len(columns) > most else "")


def checked_ids(name: str, batches: Callable[[], Iterator[Sequence[str]]]) -> int:
    """Count ids, and refuse one that comes twice. Needs 8 bytes of memory per id.

    Args:
        name: of INPUT, for the message.
        batches: called once or twice; gives all ids, some at a time.

    Raises:
        DatasetError: an id comes twice.
    """
    parts = [np.fromiter(map(hash, batch), np.int64, len(batch)) for batch in batches()]
    hashes = np.concatenate(parts) if parts else np.empty(0, np.int64)
    del parts
    hashes.sort()
    suspects = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
    if suspects:  # two ids may have the same hash: look at those once more
        seen: set[str] = set()
        for batch in batches():
            for id_ in batch:
                if hash(id_) in suspects:
                    if id_ in seen:
                        raise DatasetError(
                            f"{printable(name)}: the id {printable(id_)!r} comes twice; each image needs its own (a "
                            "column 'id' gives it one)"
                        )
                    seen.add(id_)
    return len(hashes)
