"""Parts of an output: written whole, replaced whole, and never mixed with what does not belong to them."""

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pytest
from tests.common.batches import same

from ortcam.batch.output import parts
from ortcam.batch.output.parts import RECORD_NAME, Output, PartWriter
from ortcam.batch.output.rows import Row, schema, table
from ortcam.batch.output.staging import merged
from ortcam.errors import NotFiniteError, OrtcamError, OutputError

FINGERPRINT: dict[str, Any] = {"bundle": "ab", "method": "cam", "budget": None}
RECORD = {"fingerprint": FINGERPRINT, "version": "1"}
SCHEMA = schema(FINGERPRINT, (1, 2))


def rows_of(id_: str, *values: float, error: str | None = None) -> list[Row]:
    """The rows of an image: one per value, or one with an error."""
    if error is not None:
        return [Row(id_, id_, error=error)]
    return [
        Row(id_, id_, target, str(target), value, np.full((1, 2), value, np.float16), passes=1, seconds=0.5)
        for target, value in enumerate(values)
    ]


def part(*images: list[Row]) -> pa.Table:
    return table([row for image in images for row in image], SCHEMA)


@pytest.fixture(params=["folder", "memory", pytest.param("file", marks=pytest.mark.slow)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A place that is not there yet."""
    if request.param == "memory":
        name = f"/{uuid.uuid4().hex}"
        yield f"memory:/{name}/out"
        memory = fsspec.filesystem("memory")
        if memory.exists(name):
            memory.rm(name, recursive=True)
    else:
        folder = tmp_path / "ein Ordner" / "öut"
        yield str(folder) if request.param == "folder" else f"file://{folder}"


@pytest.fixture
def output(place: str) -> Iterator[Output]:
    """An output that was begun."""
    begun = Output(place)
    begun.begin(RECORD, resume=False)
    yield begun
    begun.close()


def test_parts_are_found_again_with_their_rows_and_ids(output: Output) -> None:
    first = part(rows_of("b", 0.5, 0.25), rows_of("a", error="no image"))
    names = [output.write_part(first), output.write_part(part(rows_of("c", 1)))]
    again = Output(output.name)
    assert again.parts() == names
    assert same(again.read_part(names[0]), first)
    assert [array.to_pylist() for array in again.ids()] == [["b", "a"], ["c"]]
    assert [array.to_pylist() for array in again.ids(failed=True)] == [["a"], []]
    assert [array.to_pylist() for array in again.ids(failed=False)] == [["b"], ["c"]]


def test_nothing_is_there_before_an_output_begins(place: str) -> None:
    output = Output(place)
    assert output.record() is None
    assert output.parts() == []
    assert list(output.ids()) == []


def test_resuming_begins_where_there_is_nothing(place: str) -> None:
    output = Output(place)
    assert output.begin(RECORD, resume=True)["version"] == "1"
    output.close()
    assert Output(place).record() == {"format": 1, **RECORD}


def test_an_output_that_exists_is_refused_and_resumed_on_request(output: Output) -> None:
    name = output.write_part(part(rows_of("a", 1)))
    output.close()
    again = Output(output.name)
    with pytest.raises(OutputError, match="exists; --resume"):
        again.begin(RECORD, resume=False)
    assert again.begin({**RECORD, "version": "2"}, resume=True)["version"] == "1"
    assert again.write_part(part(rows_of("b", 1))) != name
    assert len(again.parts()) == 2
    again.close()


@pytest.mark.parametrize("resume", [False, True])
def test_a_record_without_parts_is_no_output_yet(resume: bool, output: Output) -> None:
    output.close()
    again, other = Output(output.name), {"fingerprint": {**FINGERPRINT, "method": "other"}}
    assert again.before(resume=resume) is None
    again.begin(other, resume=resume)
    again.close()
    assert again.record() == {**other, "format": 1}


def test_staged_rows_are_an_output_too(output: Output) -> None:
    output.staging().write_part(part(rows_of("a", 1)))
    output.close()
    with pytest.raises(OutputError, match="exists; --resume"):
        Output(output.name).before(resume=False)


def test_another_fingerprint_is_refused_naming_each_difference(output: Output) -> None:
    output.write_part(part(rows_of("a", 1)))
    output.close()
    with pytest.raises(OutputError) as caught:
        Output(output.name).begin(
            {"fingerprint": {"bundle": "ab", "method": "grad-cam", "budget": 0.5, "white": 4095}}, resume=True
        )
    assert 'method was "cam", now "grad-cam"; budget was none, now 0.5; white was none, now 4095.' in str(caught.value)
    Output(output.name).begin(RECORD, resume=True)  # and nothing is locked


def test_each_entry_within_an_entry_is_compared(place: str) -> None:
    limits = {"budget": None, "tolerance": 0.1}
    first = Output(place)
    first.begin({"fingerprint": {"limits": limits, "method": "cam"}}, resume=False)
    first.write_part(part(rows_of("a", 1)))
    first.close()
    with pytest.raises(OutputError, match=r"settings: limits\.budget was none, now 0\.5\. Rows"):
        Output(place).begin({"fingerprint": {"limits": {**limits, "budget": 0.5}, "method": "cam"}}, resume=True)


def test_a_part_of_another_output_is_refused(output: Output, tmp_path: Path) -> None:
    output.write_part(part(rows_of("a", 1)))
    other = schema({**FINGERPRINT, "method": "other"}, (1, 2))
    name = output.write_part(table(rows_of("b", 1), other))
    with pytest.raises(OutputError, match=rf"{name}: was made with other settings"):
        list(output.ids())


def test_tuples_are_the_lists_that_json_makes_of_them(place: str) -> None:
    first = Output(place)
    first.begin({"fingerprint": {"target": ("dog", 3)}}, resume=False)
    first.write_part(part(rows_of("a", 1)))
    first.close()
    second = Output(place)
    second.begin({"fingerprint": {"target": ("dog", 3)}}, resume=True)
    second.close()


def test_a_record_that_is_no_json_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(NotFiniteError):
        Output(tmp_path / "out").begin({"fingerprint": {"budget": float("nan")}}, resume=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_with_something_else_is_refused_and_left_as_it_is(resume: bool, tmp_path: Path) -> None:
    (tmp_path / "cat.jpg").write_bytes(b"")
    with pytest.raises(OutputError, match="is not empty"):
        Output(tmp_path).begin(RECORD, resume=resume)
    assert [path.name for path in tmp_path.iterdir()] == ["cat.jpg"]


def test_an_empty_folder_and_hidden_files_are_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / ".DS_Store").write_bytes(b"")
    output = Output(tmp_path)
    output.begin(RECORD, resume=False)
    output.close()
    assert (tmp_path / RECORD_NAME).is_file()


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b'{"format": 1}', b'{"format": "1", "fingerprint": {}}'])
def test_a_record_of_somebody_else_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / RECORD_NAME).write_bytes(content)
    with pytest.raises(OutputError, match=r"_batch\.json: was not written by"):
        Output(tmp_path).begin(RECORD, resume=True)


def test_rows_of_another_format_are_refused(tmp_path: Path) -> None:
    (tmp_path / RECORD_NAME).write_text(json.dumps({**RECORD, "format": 2}))
    (tmp_path / "part-00000000-000001.parquet").write_bytes(b"")
    with pytest.raises(OutputError, match="rows of format 2"):
        Output(tmp_path).begin(RECORD, resume=True)


def test_a_file_is_no_output(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(OutputError, match="is a file"):
        Output(tmp_path / "a.jpg").begin(RECORD, resume=False)
    with pytest.raises(OutputError, match=r"a\.jpg/out: cannot write"):
        Output(tmp_path / "a.jpg" / "out").begin(RECORD, resume=False)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "accepted is a folder"),
        ("nosuch://a/b", r"nosuch://a/b.: accepted are local paths and URLs"),
        ("memory://a::nosuch://b", "cannot be opened"),
    ],
)
def test_an_address_that_nobody_knows_is_refused(url: str, message: str) -> None:
    with pytest.raises(OrtcamError, match=message):
        Output(url)


def test_one_process_at_a_time_writes_to_a_folder(tmp_path: Path) -> None:
    first = Output(tmp_path / "out")
    first.begin(RECORD, resume=False)
    with pytest.raises(OutputError, match="another process is writing there"):
        Output(tmp_path / "out").begin(RECORD, resume=True)
    first.close()
    second = Output(tmp_path / "out")
    second.begin(RECORD, resume=True)
    second.close()


def test_a_damaged_part_is_named_with_what_helps(output: Output) -> None:
    content = parts.encode(part(rows_of("a", 1)))
    store = fsspec.core.url_to_fs(output.name)
    for number, damaged in enumerate((b"", b"PAR1", content[: len(content) // 2], b"PAR1" + bytes(100) + b"PAR1")):
        store[0].pipe_file(f"{store[1]}/part-00000000-{number}.parquet", damaged)
        with pytest.raises(OutputError, match=rf"part-00000000-{number}\.parquet: cannot be read as Parquet .* remove"):
            output.read_part(f"part-00000000-{number}.parquet")


def test_a_replaced_part_keeps_its_name_and_its_other_rows(output: Output) -> None:
    name = output.write_part(part(rows_of("a", 1), rows_of("b", error="no image"), rows_of("c", 0.5, 0.25)))
    new = part(rows_of("b", 0.125, 0.75))
    output.replace_part(name, merged(output.read_part(name), new))
    assert output.parts() == [name]
    assert same(output.read_part(name), part(rows_of("a", 1), rows_of("b", 0.125, 0.75), rows_of("c", 0.5, 0.25)))
    assert next(output.ids(failed=True)).to_pylist() == []
    with pytest.raises(OutputError, match="is gone"):
        output.replace_part("part-00000000-000001.parquet", new)


class Clock:
    """A time that stands still until it is moved."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_parts_are_closed_by_images_bytes_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output, clock = Output(tmp_path / "out"), Clock()
    output.begin(RECORD, resume=False)
    told: list[int] = []
    writer = PartWriter(output, SCHEMA, clock=clock, written=lambda _, images: told.append(images))
    monkeypatch.setattr(parts, "MOST_IMAGES", 3)
    for number in range(7):
        writer.add(rows_of(str(number), 1, 0.5))
    assert (told, writer.waiting) == ([3, 3], 1)
    clock.now = parts.LEAST_SECONDS
    writer.tick()
    assert (told, writer.waiting) == ([3, 3, 1], 0)
    writer.tick()
    writer.flush()
    assert told == [3, 3, 1]  # nothing to write
    clock.now = 100 * 60.0  # from here on 1 % is a minute
    writer.add(rows_of("7", 1))
    clock.now += 59
    writer.tick()
    assert writer.waiting == 1
    clock.now += 2
    writer.tick()
    assert told == [3, 3, 1, 1]
    clock.now = 1e9
    writer.add(rows_of("8", 1))
    clock.now += parts.MOST_SECONDS
    writer.tick()
    assert told == [3, 3, 1, 1, 1]
    monkeypatch.setattr(parts, "MOST_BYTES", 1000)
    writer.add(rows_of("9", 1))
    assert writer.waiting == 1
    writer.add(rows_of("10", error="x" * 1000))
    assert told == [3, 3, 1, 1, 1, 2]
    assert [id_ for array in output.ids() for id_ in array.to_pylist()] == [str(number) for number in range(11)]
    output.close()


WRITE_UNTIL_KILLED = """
import sys
from ortcam.batch.output.parts import Output
from tests.runtime.batch.output.test_parts import RECORD, part, rows_of
output = Output(sys.argv[1])
output.begin(RECORD, resume=True)
print("begun", flush=True)
for number in range(1_000_000):
    output.write_part(part(*(rows_of(f"{output.run}-{number}-{k}", 1) for k in range(50))))
"""


@pytest.mark.long
@pytest.mark.skipif(os.name != "posix", reason="kills with SIGKILL")
def test_a_writer_that_is_killed_leaves_whole_parts_and_no_lock(tmp_path: Path) -> None:
    place = tmp_path / "out"
    for _ in range(3):
        before = len(Output(place).parts())
        command = [sys.executable, "-c", WRITE_UNTIL_KILLED, str(place)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "begun\n"
            while len(Output(place).parts()) < before + 10:
                assert writer.poll() is None
            writer.send_signal(signal.SIGKILL)
        found = pyarrow.dataset.dataset(place, format="parquet").to_table(columns=["id"])
        assert found.num_rows % 50 == 0
        assert len(set(found["id"].to_pylist())) == found.num_rows
    output = Output(place)
    output.begin(RECORD, resume=True)
    left = {path.name for path in place.iterdir()} - set(output.parts())
    assert left == {RECORD_NAME, "_lock"}
    output.close()
