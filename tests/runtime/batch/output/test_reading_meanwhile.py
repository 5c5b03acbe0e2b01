"""Readers that read all the time while parts are written and replaced: they see whole parts, old ones or new ones."""

import contextlib
import queue
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest
from tests.runtime.batch.output.test_parts import RECORD, part, rows_of

import ortcam.batch
from ortcam.batch.output.parts import Output

Seen = list[tuple[str, str | None]]  # id and error of each row

GUARD = 120  # seconds, for a test that hangs
READS = 6
AT_A_TIME = 5  # parts written per read

# Writes parts with an image that failed, and then replaces them, until somebody says that it is enough.
WRITER = """
import sys
from ortcam.batch.output.parts import Output
from tests.runtime.batch.output.test_reading_meanwhile import write_and_replace
output = Output(sys.argv[1])
output.begin({"fingerprint": {}}, resume=False)
write_and_replace(output, iter(sys.stdin.readline, ""))
"""


def write_and_replace(output: Output, words: Iterator[str]) -> None:
    """Per word write a part whose second image failed, then retry that image, in a part under the same name."""
    print("ready", flush=True)
    for number, _ in enumerate(words):
        kept = rows_of(f"{number}/a", 1, 0.5)
        name = output.write_part(part(kept, rows_of(f"{number}/b", error="x")))
        output.replace_part(name, part(kept, rows_of(f"{number}/b", 0.25, 0.125)))


def check(seen: Seen) -> None:
    """Each image has its two rows or, if it failed, one; never both."""
    rows = Counter(id_ for id_, _ in seen)
    failed = {id_ for id_, error in seen if error is not None}
    assert all(count == (1 if id_ in failed else 2) for id_, count in rows.items())
    assert all(id_.endswith("/b") for id_ in failed)
    numbers = {id_.partition("/")[0] for id_ in rows}
    assert rows.keys() == {f"{number}/{letter}" for number in numbers for letter in "ab"}


def by_pyarrow(place: Path) -> Seen:
    import pyarrow.dataset

    table = pyarrow.dataset.dataset(place, format="parquet").to_table(columns=["id", "error"])
    return list(zip(table["id"].to_pylist(), table["error"].to_pylist(), strict=True))


def by_pandas(place: Path) -> Seen:
    pd = pytest.importorskip("pandas")

    frame = pd.read_parquet(place, columns=["id", "error"])
    return [(row.id, None if pd.isna(row.error) else row.error) for row in frame.itertuples()]


def by_polars(place: Path) -> Seen:
    """Polars opens a file by its name more than once, and says so if it was replaced in between."""
    pl = pytest.importorskip("polars")

    for _ in range(READS):
        with contextlib.suppress(pl.exceptions.ComputeError):
            return pl.read_parquet(place / "part-*.parquet", columns=["id", "error"]).rows()
    return pl.read_parquet(place / "part-*.parquet", columns=["id", "error"]).rows()


def by_duckdb(place: Path) -> Seen:
    duckdb = pytest.importorskip("duckdb")

    with duckdb.connect() as connection:
        found: Seen = connection.execute(
            "select id, error from read_parquet(?)", [f"{place}/part-*.parquet"]
        ).fetchall()
    return found


def by_ortcam(place: Path | str) -> Seen:
    table = ortcam.batch.open(place).table(["id", "error"])
    return list(zip(table["id"].to_pylist(), table["error"].to_pylist(), strict=True))


@pytest.mark.long
@pytest.mark.parametrize("read", [by_pyarrow, by_pandas, by_polars, by_duckdb, by_ortcam])
def test_a_reader_of_a_folder_sees_whole_parts(read: Callable[[Path], Seen], tmp_path: Path) -> None:
    place = tmp_path / "out"
    command = [sys.executable, "-c", WRITER, str(place)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        try:
            for _ in range(READS):
                writer.stdin.write("one more\n" * AT_A_TIME)
                writer.stdin.flush()
                while not Output(place).parts():  # the readers of folders want one part
                    assert writer.poll() is None
                check(read(place))
        finally:
            writer.stdin.close()
        assert writer.wait(GUARD) == 0
    seen = read(place)
    check(seen)
    assert len(seen) == READS * AT_A_TIME * 4


def read_meanwhile(output: Output, read: Callable[[], Seen]) -> None:
    """Read an output of objects again and again while another thread writes there."""
    words: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(write_and_replace, output, iter(words.get, None))
        try:
            for _ in range(READS):
                for _ in range(AT_A_TIME):
                    words.put("one more")
                check(read())
        finally:
            words.put(None)
        writer.result(GUARD)
    seen = read()
    check(seen)
    assert len(seen) == READS * AT_A_TIME * 4


def test_a_reader_of_objects_sees_whole_parts() -> None:
    place = f"memory://{uuid.uuid4().hex}"
    output = Output(place)
    output.begin(RECORD, resume=False)
    output.write_part(part())  # a batch without parts has no columns in this record
    read_meanwhile(output, lambda: by_ortcam(place))
    output.close()
    fsspec.filesystem("memory").rm(place.removeprefix("memory:/"), recursive=True)
