"""`Output`: a folder of Parquet parts, the only truth about what is finished; and `PartWriter`, which fills it."""

import contextlib
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ortcam.batch.output.fingerprints import as_json, differences
from ortcam.batch.output.rows import FORMAT, Row, described, encode, table
from ortcam.batch.output.staging import Staged, merged
from ortcam.batch.output.stores import Store, open_store
from ortcam.batch.storage import joined
from ortcam.errors import OutputError
from ortcam.support.strict_json import encode_json, parse_json

__all__ = [
    "LEAST_SECONDS",
    "MOST_BYTES",
    "MOST_IMAGES",
    "MOST_SECONDS",
    "RECORD_NAME",
    "SHARE_OF_TIME",
    "Output",
    "PartWriter",
]

RECORD_NAME: Final = "_batch.json"
_STAGING: Final = "_staging"

# A part is closed after so many images, bytes, or seconds, of which the limit grows with the time since the start.
MOST_IMAGES = 10_000
MOST_BYTES = 64 << 20
LEAST_SECONDS = 20.0
MOST_SECONDS = 600.0
SHARE_OF_TIME = 0.01

_NAME: Final = re.compile(r"[^._].*\.parquet")
_Result = TypeVar("_Result")


class Output:
    """The parts of a batch, in a folder or an object store.

    1. What is in a part is finished. A part is written in one step, so a reader sees all of it or nothing.
    2. `_batch.json` is written before the first part. It says what the rows depend on (`fingerprint`).
    3. All other files that are no parts begin with `_` or `.`, so that readers of Parquet folders leave them out.
    4. One process at a time writes to an output on a local disk. Object stores have no locks.

    Attributes:
        url: the place as it was given.
        name: the same for messages, without passwords.
        run: 8 hexadecimal digits in the names of the parts that this object writes.
    """

    def __init__(
        self,
        url: str | os.PathLike[str],
        *,
        storage_options: Mapping[str, Any] | None = None,
        run: str | None = None,
    ) -> None:
        """Find the place, without writing there.

        Args:
            url: a path, or an address that fsspec knows, such as `s3://bucket/folder`.
            storage_options: what fsspec passes on to the file system of the address.
            run: of another `Output` that writes to the same place, on another machine for example; None: a new one.

        Raises:
            OptionError: no file system for the address, or options that it does not take.
        """
        self._options = dict(storage_options or {})
        self._store: Store = open_store(url, self._options)
        self.name = self._store.name
        self.url = os.fspath(url)
        self.run = secrets.token_hex(4) if run is None else run
        self._written = 0
        self._is_new = False  # whether `begin` has made it
        self._fingerprint: dict[str, Any] | None = None  # once begun

    def record(self) -> dict[str, Any] | None:
        """What `_batch.json` says; None if nothing is there yet.

        Raises:
            OutputError: there is something else, or it cannot be read.
        """
        content = self._store.read(RECORD_NAME)
        if content is None:
            if self._store.exists():
                raise OutputError(
                    f"{self.name}: is not empty, and has no {RECORD_NAME}, so it is no output of `ortcam batch`; "
                    "choose another one"
                )
            return None
        with contextlib.suppress(KeyError, TypeError, ValueError):
            record = parse_json(content)
            if isinstance(record["format"], int) and isinstance(record["fingerprint"], dict):
                return dict(record)
        raise OutputError(f"{self.name}/{RECORD_NAME}: was not written by `ortcam batch`; choose another output")

    def before(self, *, resume: bool) -> dict[str, Any] | None:
        """The record of the runs before, whose rows are there; None if there are none. Nothing is written.

        A run that ended before its first part leaves a record alone: the next one begins, with whatever settings.

        Args:
            resume: whether an output that exists is gone on with.

        Raises:
            OutputError: as `record`; or there is an output and `resume` is false.
        """
        record = self.record()
        if record is None or not (self.parts() or self._staged().parts()):
            return None
        if not resume:
            raise OutputError(f"{self.name}: exists; --resume (resume=True) goes on with it, or choose another output")
        return record

    def begin(self, record: Mapping[str, Any], *, resume: bool) -> dict[str, Any]:
        """Get ready to write: keep other processes out, and check that new rows go with those that are there.

        Args:
            record: JSON types. `fingerprint` says what the rows depend on, by name; the rest is only noted.
            resume: whether an output that exists is gone on with.

        Returns:
            The record of the output: the one that was there, or the new one.

        Raises:
            OutputError: the output exists and `resume` is false; it was made with other settings, or is none; it
                cannot be written to; another process is writing to it.
            NotFiniteError: a number of the record is infinite or not a number.
        """
        new = {**record, "format": FORMAT}
        content = encode_json(new).encode() + b"\n"
        self.before(resume=resume)  # before anything is made
        self._store.begin()
        try:
            old = self.before(resume=resume)
            if old is None:
                self._store.write(RECORD_NAME, content)
                self._is_new = True
            else:
                self._check_same(old, record)
        except BaseException:
            self._store.close()
            raise
        self._fingerprint = as_json(record["fingerprint"])
        return new if old is None else old

    def parts(self) -> list[str]:
        """The names of all parts, in a fixed order."""
        return [name for name in self._store.names() if _NAME.fullmatch(name)]

    def next_name(self) -> str:
        """A name that no part has, for the next part of this run."""
        self._written += 1
        return f"part-{self.run}-{self._written:06}.parquet"

    def write_part(self, rows: pa.Table, name: str | None = None) -> str:
        """Write a part in one step.

        Args:
            rows: whole images, by `rows.table`.
            name: of the part; None: the next one of this run.

        Returns:
            The name.

        Raises:
            OutputError: it cannot be written; there is no such part then.
        """
        name = self.next_name() if name is None else name
        self._store.write(name, encode(rows))
        return name

    def replace_part(self, name: str, rows: pa.Table) -> None:
        """Replace a part under its own name in one step: a reader sees the old rows or the new ones.

        Raises:
            OutputError: there is no such part, or it cannot be written; the old one stays.
        """
        if not self._store.has(name):
            raise OutputError(f"{self.name}/{name}: is gone, and cannot be replaced")
        self._store.write(name, encode(rows))

    def read_part(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of a part, all columns or some.

        Raises:
            OutputError: it is gone, damaged, or no part of a batch.
        """
        return self._read(name, lambda found: found.read(columns=columns))

    def schema_of(self, name: str) -> pa.Schema:
        """The schema of a part.

        Raises:
            OutputError: as `read_part`.
        """
        return self._read(name, lambda found: found.schema_arrow)

    def files(self, names: Sequence[str]) -> tuple[Any, list[str]]:
        """Some parts as pyarrow takes them: a file system, None being that of this machine, and their paths on it."""
        return self._store.files(names)

    def ids(self, *, failed: bool | None = None) -> Iterator[pa.Array]:
        """The ids of the images in each part, one array of strings per part, each id once.

        Args:
            failed: true: those that failed; false: those that did not; None: all.

        Raises:
            OutputError: a part is damaged, or none of a batch.
        """
        for name in self.parts():
            yield self.ids_of(name, failed=failed)

    def ids_of(self, name: str, *, failed: bool | None = None) -> pa.Array:
        """As `ids`, of one part."""
        if failed is None:
            column = self.read_part(name, ["id"])["id"]
        else:
            found = self.read_part(name, ["id", "error"])
            has_error = pc.is_valid(found["error"])
            column = found["id"].filter(has_error if failed else pc.invert(has_error))
        return pc.unique(column.combine_chunks())

    def staging(self) -> "Output":
        """Where new rows of images that failed are written, until `merge_staged` puts them in place.

        Raises:
            OutputError: it cannot be made.
        """
        staged = self._staged()
        staged._store.make()
        return staged

    def merge_staged(self) -> int:
        """Put staged rows in the place of the rows of the same images that failed, each part in one step.

        A run that is killed meanwhile loses nothing: the next one goes on with it.

        Returns:
            How many images were replaced.

        Raises:
            OutputError: a part cannot be read or written.
        """
        staging = self._staged()
        names = staging.parts()
        if not names:
            return 0
        staged, replaced = Staged(names, staging.read_part), 0
        for name in self.parts():
            new = staged.rows(self.ids_of(name, failed=True).to_pylist())
            if new is not None:
                self.replace_part(name, merged(self.read_part(name), new))
                replaced += len(pc.unique(new["id"]))
        for name in names:
            staging._store.remove(name)
        staging._store.remove_folder()
        return replaced

    def withdraw(self) -> bool:
        """Remove the record that `begin` has made, if there is no part, so that a corrected command can begin.

        Returns:
            Whether it was removed.

        Raises:
            OutputError: it cannot be removed.
        """
        if not self._is_new or self.parts():
            return False
        self._store.remove(RECORD_NAME)
        return True

    def close(self) -> None:
        """Let other processes write to the output."""
        self._store.close()

    def _staged(self) -> "Output":
        return Output(joined(self.url, _STAGING), storage_options=self._options, run=self.run)

    def _read(self, name: str, use: Callable[[pq.ParquetFile], _Result]) -> _Result:
        """What `use` makes of a part. One that was replaced while it was read in pieces is read again in one."""
        place = f"{self.name}/{name}"
        for at_once in (False, True):
            try:
                with self._store.open(name, at_once=at_once) as opened, pq.ParquetFile(opened) as found:
                    record = described(found.schema_arrow, place)
                    result = use(found)
            except (pa.ArrowException, OSError, EOFError) as error:
                if at_once:
                    raise OutputError(
                        f"{place}: cannot be read as Parquet ({str(error).strip()}); remove it, and --resume "
                        "(resume=True) computes its images again"
                    ) from None
            else:
                if self._fingerprint is not None and differences(self._fingerprint, record["fingerprint"]):
                    raise OutputError(f"{place}: was made with other settings than the other parts; move it away")
                return result
        raise AssertionError("unreachable")  # pragma: no cover

    def _check_same(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
        if old["format"] != FORMAT:
            raise OutputError(
                f"{self.name}: has rows of format {old['format']}, and this ortcam writes format {FORMAT}; choose "
                "another output"
            )
        if found := differences(old["fingerprint"], new["fingerprint"]):
            raise OutputError(
                f"{self.name}: was made with other settings: {'; '.join(found)}. Rows of one output go together: use "
                "the same settings, or another output"
            )


class PartWriter:
    """Collects rows and writes them as parts, so that a kill loses little.

    A part is closed after 10,000 images, 64 MB, or 1 % of the time since the start, but at least 20 s and at most
    10 minutes.
    """

    def __init__(
        self,
        output: Output,
        schema: pa.Schema,
        *,
        clock: Callable[[], float] = time.monotonic,
        written: Callable[[str, int], None] | None = None,
    ) -> None:
        """Begin without rows; the time counts from now.

        Args:
            output: that was begun.
            schema: of the parts.
            clock: the time in seconds.
            written: called with the name of each part and its number of images, once it is in the output.
        """
        self._output = output
        self._schema = schema
        self._clock = clock
        self._told = written
        self._start = self._opened = clock()
        self._rows: list[Row] = []
        self._images = 0
        self._bytes = 0

    @property
    def waiting(self) -> int:
        """How many images are not in a part yet."""
        return self._images

    def add(self, rows: Sequence[Row]) -> None:
        """Add the rows of one image, and write a part if it is time.

        Raises:
            OutputError: the part cannot be written.
        """
        if not self._rows:
            self._opened = self._clock()
        self._rows.extend(rows)
        self._images += 1
        self._bytes += sum(row.nbytes for row in rows)
        self.tick()

    def tick(self) -> None:
        """Write a part if it is time. Call it now and then while no image is ready.

        Raises:
            OutputError: the part cannot be written.
        """
        if not self._rows:
            return
        now = self._clock()
        longest = min(max(LEAST_SECONDS, SHARE_OF_TIME * (now - self._start)), MOST_SECONDS)
        if self._images >= MOST_IMAGES or self._bytes >= MOST_BYTES or now - self._opened >= longest:
            self.flush()

    def flush(self) -> None:
        """Write what there is as a part.

        Raises:
            OutputError: the part cannot be written; its rows are kept.
        """
        if not self._rows:
            return
        name = self._output.write_part(table(self._rows, self._schema))
        images, self._rows, self._images, self._bytes = self._images, [], 0, 0
        if self._told is not None:
            self._told(name, images)
