"""The journal of an evaluation: one line per measurement, so that a killed run can go on where it was."""

import base64
import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from io import FileIO
from pathlib import Path
from typing import Any, Final

import numpy as np

from ortcam.errors import OutputError
from ortcam.evaluation.folder import JOURNAL, check_folder
from ortcam.evaluation.measuring import THUMBNAIL, Measurement
from ortcam.evaluation.sanity.shuffling import Similarity
from ortcam.support.files import make_folder, write_whole
from ortcam.support.locks import Lock, lock, lock_descriptor
from ortcam.support.strict_json import encode_json
from ortcam.support.unfinished import clear

__all__ = ["Failure", "Journal", "read_measurements"]

_DIGITS: Final = 6  # decimals of the confidences in curves


@dataclasses.dataclass(frozen=True)
class Failure:
    """An image, or one method on it, that could not be measured.

    Attributes:
        image: name of the example.
        variant: name of the variant; None where the image cannot be read.
        error: what was wrong.
    """

    image: str
    variant: str | None
    error: str


class Journal:
    """A JSON-lines file in the output folder: the settings first, then one measurement or failure per line.

    Each line is on the disk before the next measurement begins. A kill may leave half a line. It is cut off when the
    journal is opened again.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], *, resume: bool) -> None:
        """Begin a journal, or go on with one.

        Args:
            folder: created if it does not exist.
            settings: what the results depend on, as JSON.
            resume: go on with the journal in the folder, if there is one.

        Raises:
            OutputError: the folder has a journal and `resume` is False, the journal was begun with other settings,
                files of something else would be overwritten, or the folder cannot be written to.
        """
        self.path = folder / JOURNAL
        given = json.loads(json.dumps(settings))
        self._held: Lock | None = None
        try:
            check_folder(folder, resume=resume)
            make_folder(folder)
            clear(folder)
            if not self.path.exists():
                write_whole(self.path, _line({"settings": given}), durable=True)
            self._check_settings(given)
            self._file: FileIO = self.path.open("ab", buffering=0)
            self._lock()
            self._cut_half_line()
        except OSError as error:
            raise OutputError(f"{folder}: cannot be written to: {error.strerror or error}") from error

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        if self._held is not None:
            self._held.release()
        self._file.close()

    def add(self, item: Measurement | Similarity | Failure) -> None:
        """Write a line, and wait until it is on the disk.

        Raises:
            OutputError: the disk is full, or gone.
            NotFiniteError: one of its numbers is not finite; nothing was written.
        """
        entry = dataclasses.asdict(item)
        if isinstance(item, Measurement):
            entry["curves"] = {name: [round(value, _DIGITS) for value in curve] for name, curve in item.curves.items()}
            entry["thumbnail"] = base64.b64encode(item.thumbnail.tobytes()).decode()
        try:
            self._append(entry)
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written: {error.strerror or error}") from error

    def measurements(self) -> Iterator[Measurement]:
        """The measurements, in the order in which they were made; one at a time in memory."""
        return read_measurements(self.path.parent)

    def failures(self) -> list[Failure]:
        """The failures; without those that a later run measured after all."""
        found: dict[tuple[str, str | None], Failure] = {}
        for entry in self._entries():
            key = entry.get("image", ""), entry.get("variant")
            if "error" in entry:
                found[key] = Failure(**entry)
            elif "scores" in entry:
                found.pop(key, None)
                found.pop((key[0], None), None)
        return list(found.values())

    def measured(self) -> Iterator[tuple[str, str]]:
        """Image and variant of each measurement, in the order in which they were made."""
        return ((entry["image"], entry["variant"]) for entry in self._entries() if "scores" in entry)

    def similarities(self) -> list[Similarity]:
        """The results of the randomised-weights check."""
        return [Similarity(**entry) for entry in self._entries() if "spearman" in entry]

    def _entries(self) -> Iterator[dict[str, Any]]:
        return _read(self.path)

    def _append(self, entry: Mapping[str, Any]) -> None:
        rest = memoryview(_line(entry))
        while rest:
            rest = rest[self._file.write(rest) :]
        os.fsync(self._file.fileno())

    def _check_settings(self, given: Mapping[str, Any]) -> None:
        """Refuse a file that is no journal, and a journal that was begun with other settings."""
        with self.path.open("rb") as file:
            first = file.readline()
        try:
            settings = json.loads(first)["settings"]
        except (ValueError, KeyError, TypeError):
            raise OutputError(f"{self.path}: is no journal of `ortcam evaluate`; name another folder with -o") from None
        changed = sorted(key for key in {*settings, *given} if settings.get(key) != given.get(key))
        if changed:
            was = ", ".join(f"{key} {_short(settings.get(key))}, now {_short(given.get(key))}" for key in changed)
            raise OutputError(f"{self.path.parent}: was begun with other settings: {was}; name another folder with -o")

    def _lock(self) -> None:
        """Lock the journal against other processes, where the system has such locks."""
        try:
            # The file rather than the folder, which on a network file system keeps off those of this machine alone.
            if not lock_descriptor(self._file.fileno()):
                self._held = lock(self.path.parent)
        except BlockingIOError:
            self._file.close()
            raise OutputError(f"{self.path.parent}: another `ortcam evaluate` is writing to it") from None

    def _cut_half_line(self) -> None:
        """Cut off the half line that a kill may have left."""
        with self.path.open("rb+") as file:
            whole = sum(len(line) for line in file if line.endswith(b"\n"))
            file.truncate(whole)


def read_measurements(folder: Path) -> Iterator[Measurement]:
    """Read the measurements in the folder of an evaluation, in their order; one at a time in memory."""
    for entry in _read(folder / JOURNAL):
        if "scores" in entry:
            pixels = np.frombuffer(base64.b64decode(entry["thumbnail"]), np.uint8)
            yield Measurement(**entry | {"thumbnail": pixels.reshape(THUMBNAIL, THUMBNAIL)})


def _read(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        file.readline()  # the settings
        for line in file:
            yield json.loads(line)


def _line(entry: Mapping[str, Any]) -> bytes:
    return encode_json(entry, indent=None, ascii_only=True).encode() + b"\n"


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else text[:117] + "..."
