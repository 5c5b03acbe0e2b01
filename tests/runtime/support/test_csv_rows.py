"""Rows of CSVs in the dialects of spreadsheets."""

import csv
from collections.abc import Iterator

import pytest

from ortcam.support.csv_rows import CsvRows


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_header_says_what_separates_cells(delimiter: str) -> None:
    text = ["File |Class\r\n", '"a,;\tb.jpg"|cat\r\n', "c.jpg\r\n", "d.jpg|dog|more\r\n"]
    rows = CsvRows(line.replace("|", delimiter) for line in text)
    assert rows.columns == ["file", "class"]
    assert list(rows) == [
        (2, {"file": "a,;\tb.jpg", "class": "cat"}),
        (3, {"file": "c.jpg", "class": None}),
        (4, {"file": "d.jpg", "class": "dog", None: ["more"]}),
    ]


def test_a_cell_may_go_over_lines() -> None:
    assert list(CsvRows(["a,b\n", '"1\n', '2",3\n'])) == [(3, {"a": "1\n2", "b": "3"})]


def test_nothing_has_no_columns() -> None:
    assert CsvRows([]).columns == []
    assert list(CsvRows([])) == []


def test_a_quote_without_end_is_an_error_and_no_memory_is_taken_for_it() -> None:
    def endless() -> Iterator[str]:
        yield "a,b\n"
        yield '"'
        while True:
            yield "x" * 1000

    with pytest.raises(csv.Error, match="field larger than field limit"):
        list(CsvRows(endless()))
