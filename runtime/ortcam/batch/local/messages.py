"""What the driver and its scoring processes say to each other, and how it travels: pickles with their length."""

import pickle
import struct
import threading
from dataclasses import dataclass
from typing import IO, Any, Final

from ortcam import errors
from ortcam.batch.items import Item
from ortcam.batch.output.rows import Row
from ortcam.batch.settings import BatchSettings

__all__ = [
    "Alive",
    "Broken",
    "BrokenStreamError",
    "Done",
    "Finish",
    "Found",
    "Leaving",
    "Ready",
    "Search",
    "Sender",
    "Setup",
    "Task",
    "Tasks",
    "Warned",
    "receive",
]

_LENGTH: Final = struct.Struct("<Q")


class BrokenStreamError(Exception):
    """The other process is gone."""


@dataclass(frozen=True)
class Setup:
    """The first message to a process: what it needs to know before it can take items.

    Attributes:
        settings: of the batch.
        threads: that it scores with; None: as many as it may use.
        device: number of its GPU; None: none in particular.
        decode_ahead: whether images are decoded while others are scored.
        read_seconds: the longest that fetching or decoding one image may take.
    """

    settings: BatchSettings
    threads: int | None
    device: int | None
    decode_ahead: bool
    read_seconds: float


@dataclass(frozen=True)
class Search:
    """The first and only message to a process that is to find what fits under the limit of its memory.

    Attributes:
        settings: of the batch.
        threads: that processes score with; None: as many as they may use.
    """

    settings: BatchSettings
    threads: int | None


@dataclass(frozen=True)
class Found:
    """From a process that was to search: what fits."""

    precision: str
    batch_size: int


@dataclass(frozen=True)
class Task:
    """One image to explain.

    Attributes:
        number: of the task, unique in a run.
        item: the image.
        content: its bytes, where only the driver can fetch them.
    """

    number: int
    item: Item
    content: bytes | None = None


@dataclass(frozen=True)
class Tasks:
    """To a process: what to do next, in this order."""

    tasks: tuple[Task, ...]


@dataclass(frozen=True)
class Finish:
    """To a process: end the image in work, and then yourself."""


@dataclass(frozen=True)
class Ready:
    """From a process: the bundle is open, and items may come."""


@dataclass(frozen=True)
class Alive:
    """From a process: an image takes long, and the work on it goes on."""


@dataclass(frozen=True)
class Done:
    """From a process: rows of some tasks, as (number of the task, its rows)."""

    rows: tuple[tuple[int, tuple[Row, ...]], ...]


@dataclass(frozen=True)
class Leaving:
    """From a process: it ends on purpose, because an image cannot be read and cannot be given up either."""


@dataclass(frozen=True)
class Warned:
    """From a process: a warning for the user.

    Attributes:
        category: name of its class.
        text: one sentence.
    """

    category: str
    text: str


@dataclass(frozen=True)
class Broken:
    """From a process: what is wrong with the whole batch. It ends.

    Attributes:
        kind: name of the class in `ortcam.errors`; "" for an error that is a mistake in ortcam.
        text: its message, or a traceback.
    """

    kind: str
    text: str

    def error(self) -> BaseException:
        """The error, as it can be raised here."""
        found = getattr(errors, self.kind, None) if self.kind else None
        if isinstance(found, type) and issubclass(found, errors.OrtcamError):
            return found(self.text)
        return RuntimeError(f"a process that scores failed:\n{self.text}")


class Sender:
    """Writes messages to a stream that is not buffered. Any thread may use it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def send(self, message: object) -> None:
        """Write a message.

        Raises:
            BrokenStreamError: the other process is gone.
        """
        content = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        rest = memoryview(_LENGTH.pack(len(content)) + content)
        with self._lock:
            try:
                while rest:
                    rest = rest[self._stream.write(rest) :]
            except (OSError, ValueError):
                raise BrokenStreamError from None


def receive(stream: IO[bytes]) -> Any:
    """Read the next message.

    Only processes of one user that trust each other may talk like this: a pickle can do anything.

    Raises:
        BrokenStreamError: the other process is gone.
    """
    (length,) = _LENGTH.unpack(_exactly(stream, _LENGTH.size))
    return pickle.loads(_exactly(stream, length))  # noqa: S301 - of the other end of our own pipe


def _exactly(stream: IO[bytes], size: int) -> bytes:
    pieces = bytearray()
    while len(pieces) < size:
        try:
            piece = stream.read(size - len(pieces))
        except (OSError, ValueError):
            piece = b""
        if not piece:
            raise BrokenStreamError
        pieces += piece
    return bytes(pieces)
