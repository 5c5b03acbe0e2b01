"""Cells of results.csv: no spreadsheet takes one for a formula, and a reader has the texts back."""

import csv
import doctest
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ortcam.evaluation import results as module
from ortcam.evaluation.entries import Entry
from ortcam.evaluation.metrics import METRICS
from ortcam.evaluation.results import Results, as_cell, write_tables

NAMES = [
    "=cmd|' /C calc'!A0.png",
    "+1.png",
    "-2+3.png",
    "@SUM(1).png",
    "\t=1.png",
    "\r=1.png",
    "\n=1.png",
    "\uff1d1.png",
    "'=1.png",
    "''.png",
    'a"=1,=2.png',
    "a;=1.png",
    "plain.png",
    "-0.5",
]


def test_the_examples_in_docstrings_hold() -> None:
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("text", NAMES)
def test_a_cell_is_no_formula_and_one_apostrophe_less_is_the_text(text: str) -> None:
    cell = as_cell(text)
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d"))
    assert (cell.removeprefix("'")) == text


def test_tables_hold_texts_and_numbers_exactly(tmp_path: Path) -> None:
    count = len(NAMES)
    entry, metric = Entry("scorecam", "Score-CAM"), METRICS[0]
    values = np.linspace(-1.5, 1.5, count)
    table = Results(
        images=NAMES,
        variants=[entry],
        metrics=[metric],
        values={"scorecam": {metric.name: values}},
        label=np.full(count, -1, np.int64),
        target=np.zeros(count, np.int64),
        probability=np.zeros(count),
        masked={"scorecam": np.zeros(count)},
        seconds={"scorecam": np.zeros(count)},
        passes={"scorecam": np.zeros(count)},
        flat={"scorecam": np.zeros(count, np.bool_)},
        bands={},
    )
    write_tables(table, tmp_path)
    with (tmp_path / "results.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [as_cell(name) for name in NAMES]
    assert [float(row["value"]) for row in rows] == values.tolist()
    assert rows[0]["value"] == "-1.5", "a number stays one"
    assert pq.read_table(tmp_path / "results.parquet")["image"].to_pylist() == NAMES
