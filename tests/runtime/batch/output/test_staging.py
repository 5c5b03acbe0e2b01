"""Failed images that are retried: their new rows take the place of the old ones, however often a run is killed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.common.batches import same
from tests.runtime.batch.output.test_parts import RECORD, SCHEMA, part, rows_of

from ortcam.batch.output.parts import RECORD_NAME, Output, PartWriter
from ortcam.batch.output.staging import Staged, merged

FAILED = {"a": [0.5], "c": [0.25, 0.125], "e": [1.0]}


@pytest.fixture
def output(tmp_path: Path) -> Output:
    """Three parts with three images that failed, of which all are staged; one of them failed again."""
    made = Output(tmp_path / "out")
    made.begin(RECORD, resume=False)
    made.write_part(part(rows_of("a", error="x"), rows_of("b", 1, 0.5), rows_of("c", error="x")))
    made.write_part(part(rows_of("d", 1)))
    made.write_part(part(rows_of("e", error="x")))
    writer = PartWriter(made.staging(), SCHEMA)
    for rows in (rows_of("e", error="y"), rows_of("c", *FAILED["c"]), rows_of("a", *FAILED["a"])):
        writer.add(rows)
        writer.flush()
    return made


DONE = [
    part(rows_of("a", 0.5), rows_of("b", 1, 0.5), rows_of("c", 0.25, 0.125)),
    part(rows_of("d", 1)),
    part(rows_of("e", error="y")),
]


def _tables(output: Output) -> list[pa.Table]:
    return [output.read_part(name) for name in output.parts()]


def test_staged_rows_take_the_place_of_failed_ones(output: Output) -> None:
    names = output.parts()
    assert output.merge_staged() == 3
    assert output.parts() == names
    assert all(same(found, wanted) for found, wanted in zip(_tables(output), DONE, strict=True))
    assert output.merge_staged() == 0
    assert {path.name for path in Path(output.name).iterdir()} == {*names, RECORD_NAME, "_lock"}
    assert [ids.to_pylist() for ids in output.ids(failed=True)] == [[], [], ["e"]]


class KilledError(BaseException):
    """In the place of a kill."""


@pytest.mark.sample("2")
@pytest.mark.parametrize("steps", range(5))
def test_a_merge_that_ends_early_is_gone_on_with(steps: int, output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two parts are replaced and three staged ones removed; wherever that ends, the next run completes it."""
    done = 0

    def counted(step: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Path, *arguments: Any, **options: Any) -> Any:
            nonlocal done
            if path.suffix == ".parquet":
                if done == steps:
                    raise KilledError
                done += 1
            return step(path, *arguments, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", counted(Path.replace))
        patch.setattr(Path, "unlink", counted(Path.unlink))
        with pytest.raises(KilledError):
            output.merge_staged()
    again = Output(output.name)
    again.merge_staged()
    assert all(same(found, wanted) for found, wanted in zip(_tables(again), DONE, strict=True))
    assert again.staging().parts() == []


def test_merged_rows_stand_where_the_old_ones_did() -> None:
    old = part(rows_of("a", error="x"), rows_of("b", 1, 0.5), rows_of("c", error="x"))
    new = part(rows_of("c", 0.5), rows_of("a", 0.25, 0.125))
    assert same(merged(old, new), part(rows_of("a", 0.25, 0.125), rows_of("b", 1, 0.5), rows_of("c", 0.5)))
    assert same(merged(old, new.slice(0, 0)), old)
    with pytest.raises(ValueError, match="'d' is not in the part"):
        merged(old, part(rows_of("d", 1)))
    with pytest.raises(ValueError, match="'b' are not together"):
        merged(old, part(rows_of("b", 1), rows_of("a", 1), rows_of("b", 1)))


def test_few_staged_parts_are_in_memory_and_each_is_read_once_in_order() -> None:
    tables = {f"part-{number}": part(*(rows_of(f"{number}-{k}", 1, 0.5) for k in range(3))) for number in range(4)}
    whole: list[str] = []

    def read(name: str, columns: Sequence[str] | None) -> pa.Table:
        if columns is not None:
            return tables[name].select(columns)
        whole.append(name)
        return tables[name]

    staged = Staged(tables, read)
    for number in range(4):
        found = staged.rows([f"{number}-{k}" for k in (2, 0)] + ["other"])
        assert found is not None
        assert found["id"].to_pylist() == [f"{number}-0", f"{number}-0", f"{number}-2", f"{number}-2"]
    assert staged.rows(["other"]) is None
    assert whole == list(tables)


def test_of_an_image_that_was_staged_twice_the_newest_rows_count() -> None:
    tables = {"old": part(rows_of("a", 1), rows_of("b", 1)), "new": part(rows_of("a", 0.5, 0.25), rows_of("c", 1))}
    staged = Staged(tables, lambda name, columns: tables[name].select(columns or tables[name].column_names))
    found = staged.rows(["a", "b"])
    assert found is not None
    assert same(found, part(rows_of("b", 1), rows_of("a", 0.5, 0.25)))
