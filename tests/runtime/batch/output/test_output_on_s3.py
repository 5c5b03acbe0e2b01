"""An output on a server that speaks S3: written whole, resumed, retried, read back, and read meanwhile."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from tests.common.batches import same
from tests.common.object_stores import ObjectStore, object_store
from tests.runtime.batch.output.test_parts import FINGERPRINT, RECORD, SCHEMA, part, rows_of
from tests.runtime.batch.output.test_reading_meanwhile import Seen, read_meanwhile

import ortcam.batch
from ortcam.batch.output.parts import RECORD_NAME, Output, PartWriter
from ortcam.errors import OutputError

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectStore]:
    with object_store({}) as running:
        yield running


@pytest.fixture
def options(server: ObjectStore) -> dict[str, Any]:
    return {"key": server.files.key, "secret": server.files.secret, "endpoint_url": server.url}


@pytest.fixture
def place() -> str:
    return f"s3://archive/{uuid.uuid4().hex}/out put/"


def test_an_output_is_begun_resumed_retried_and_read_back(
    server: ObjectStore, options: dict[str, Any], place: str
) -> None:
    output = Output(place, storage_options=options)
    assert (output.record(), output.parts()) == (None, [])
    output.begin(RECORD, resume=False)
    first = output.write_part(part(rows_of("a", 1, 0.5), rows_of("b", error="x")))
    output.close()

    with pytest.raises(OutputError, match="exists; --resume"):
        Output(place, storage_options=options).begin(RECORD, resume=False)
    with pytest.raises(OutputError, match='method was "cam", now "other"'):
        Output(place, storage_options=options).begin({"fingerprint": {**FINGERPRINT, "method": "other"}}, resume=True)
    again = Output(place, storage_options=options)
    again.begin(RECORD, resume=True)
    second = again.write_part(part(rows_of("c", 0.25)))
    writer = PartWriter(again.staging(), SCHEMA)
    writer.add(rows_of("b", 0.75, 0.125))
    writer.flush()
    assert again.merge_staged() == 1
    assert again.parts() == sorted([first, second])
    assert same(again.read_part(first), part(rows_of("a", 1, 0.5), rows_of("b", 0.75, 0.125)))
    assert sorted(id_ for ids in again.ids() for id_ in ids.to_pylist()) == ["a", "b", "c"]

    folder = place.removeprefix("s3://").rstrip("/")
    server.files.invalidate_cache()
    assert {name.removeprefix(f"{folder}/") for name in server.files.find(folder)} == {RECORD_NAME, first, second}
    with server.files.open(f"{folder}/{RECORD_NAME}") as opened:
        assert json.load(opened)["fingerprint"] == FINGERPRINT
    results = ortcam.batch.open(place, storage_options=options)
    assert results.table().num_rows == 5
    assert len(results) == 3


def test_a_bucket_that_is_not_there_is_named(options: dict[str, Any]) -> None:
    with pytest.raises(OutputError, match="s3://nosuch/out: cannot"):
        Output("s3://nosuch/out", storage_options=options).begin(RECORD, resume=False)


def test_a_server_that_is_not_there_is_an_error_in_words(options: dict[str, Any]) -> None:
    nobody = {**options, "endpoint_url": "http://127.0.0.1:9", "config_kwargs": {"retries": {"max_attempts": 0}}}
    with pytest.raises(OutputError, match=r"s3://archive/out/_batch\.json: cannot read: .*127\.0\.0\.1:9"):
        Output("s3://archive/out", storage_options=nobody).begin(RECORD, resume=False)


def test_a_reader_sees_whole_parts_while_they_are_written_and_replaced(options: dict[str, Any], place: str) -> None:
    output = Output(place, storage_options=options)
    output.begin(RECORD, resume=False)
    output.write_part(part())

    def read() -> Seen:
        table = ortcam.batch.open(place, storage_options=options).table(["id", "error"])
        return list(zip(table["id"].to_pylist(), table["error"].to_pylist(), strict=True))

    read_meanwhile(output, read)
