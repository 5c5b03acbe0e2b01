"""Batches of arrays, values and scores: rows are what `explain` gives, and another score is another output."""

import dataclasses
import io
import json
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from tests.common.batches import draw_images, in_process, table_of
from tests.conftest import BANDS_BUNDLE, TENSOR_BUNDLE, VALUES_BUNDLE

import ortcam
from ortcam.batch.job import Job
from ortcam.batch.output.results import Results
from ortcam.errors import DatasetError, OutputError
from ortcam.request import Score
from ortcam.results.low_resolution import low_resolution

FIELDS = [np.random.default_rng(seed).integers(0, 9000, (40, 60, 4), np.uint16) for seed in range(3)]
DIRECTION = np.array([0.5, -0.25, 1.0])


@pytest.fixture(autouse=True)
def _without_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ortcam.batch.local.driver.run_local", in_process)


def npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.fixture
def fields(tmp_path: Path) -> Path:
    """A folder of three arrays."""
    folder = tmp_path / "fields"
    folder.mkdir()
    for number, array in enumerate(FIELDS):
        (folder / f"{number}.npy").write_bytes(npy(array))
    return folder


def run(bundle: Path, source: Path, output: Path, **options: Any) -> Results:
    report = ortcam.batch.run(bundle, source, output, **{"method": "grad-cam", "batch_size": 4} | options)
    assert report.failures == 0
    return ortcam.batch.open(output)


def test_folders_shards_and_tables_of_arrays_give_the_same_rows(fields: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "fields.tar", "w") as shard:
        for path in sorted(fields.iterdir()):
            shard.add(path, path.name)
    table = pa.table({"id": [f"{n}.npy" for n in range(3)], "image": [npy(array) for array in FIELDS]})
    pq.write_table(table, tmp_path / "fields.parquet")
    expected = run(BANDS_BUNDLE, fields, tmp_path / "folder").table(["id", "target", "probability", "map"])
    assert expected.num_rows == 3
    for name in ("fields.tar", "fields.parquet"):
        found = run(BANDS_BUNDLE, tmp_path / name, tmp_path / f"of-{name}")
        ids = [id_.rpartition("/")[2] for id_ in found.table(["id"])["id"].to_pylist()]
        assert ids == expected["id"].to_pylist()
        for column in ("target", "probability", "map"):
            assert found.table([column])[column].to_pylist() == expected[column].to_pylist()
    with ortcam.load(BANDS_BUNDLE) as explainer:
        explanation = explainer.explain(FIELDS[0], method="grad-cam")
    low = low_resolution(explanation)[0].astype(np.float16).ravel()
    np.testing.assert_array_equal(np.array(expected["map"][0].as_py(), np.float16), low)


def test_arrays_of_a_folder_are_no_images_of_other_models(fields: Path, tmp_path: Path, tiny_bundle: Path) -> None:
    with pytest.raises(DatasetError, match="no images in it"):
        ortcam.batch.run(tiny_bundle, fields, tmp_path / "out")


def test_a_score_has_a_value_and_no_probability(fields: Path, tmp_path: Path) -> None:
    results = run(BANDS_BUNDLE, fields, tmp_path / "out", score="water - field", overlays="jpeg")
    rows = results.table().to_pylist()
    with ortcam.load(BANDS_BUNDLE) as explainer:
        logits, _ = explainer.classify(FIELDS[0])
        drawn = explainer.explain(FIELDS[0], method="grad-cam", score="water - field")
    assert [row["target"] for row in rows] == [-1] * 3
    assert {row["label"] for row in rows} == {"water - field"}
    assert {row["probability"] for row in rows} == {None}
    # One subtraction of float32.
    assert rows[0]["value"] == pytest.approx(float(logits[0]) - float(logits[2]), rel=2**-23, abs=2**-23)
    stored = results["0.npy"]
    assert (stored.score, stored.are_probabilities) == ("water - field", False)
    assert stored.probabilities[0] == np.float32(rows[0]["value"])
    assert "water - field" in repr(stored)
    assert "%" not in repr(stored)
    np.testing.assert_array_equal(stored.image, drawn.image)
    assert Path(results.gallery(2)).is_file()
    stored.save(tmp_path / "saved")
    assert (tmp_path / "saved" / "score.npy").is_file()


def test_outputs_that_are_values_have_values(tmp_path: Path) -> None:
    paths = draw_images(tmp_path / "in", 2)
    rows = run(VALUES_BUNDLE, tmp_path / "in", tmp_path / "out", top_k=2).table().to_pylist()
    with ortcam.load(VALUES_BUNDLE) as explainer:
        values, _ = explainer.classify(paths[0])
    assert {row["label"]: row["value"] for row in rows[:2]} == {"age": values[0], "weight": values[1]}
    assert {row["probability"] for row in rows} == {None}


def test_a_tensor_is_explained_by_a_score_with_a_mask(tmp_path: Path) -> None:
    draw_images(tmp_path / "in", 1)
    mask = np.zeros((4, 6))
    mask[1:3, 2:4] = 1
    score = Score("output[1, :, :]@part", arrays={"part": mask})
    (row,) = run(TENSOR_BUNDLE, tmp_path / "in", tmp_path / "out", score=score).table().to_pylist()
    with ortcam.load(TENSOR_BUNDLE) as explainer:
        tensor, _ = explainer.classify(tmp_path / "in" / "0000.png")
    inside = tensor.reshape(2, 4, 6)[1, 1:3, 2:4].astype(np.float64).mean()
    # Four products and sums of float32.
    assert row["value"] == pytest.approx(inside, rel=8 * 2**-24, abs=8 * 2**-24)


def test_files_of_a_score_are_read_once_and_travel_as_arrays(
    fields: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "query.npy"
    np.save(file, DIRECTION)

    def elsewhere(job: Job, *others: Any) -> None:
        file.unlink()  # as on another machine
        in_process(dataclasses.replace(job, settings=pickle.loads(pickle.dumps(job.settings))), *others)

    monkeypatch.setattr("ortcam.batch.local.driver.run_local", elsewhere)
    results = run(BANDS_BUNDLE, fields, tmp_path / "out", score=f"cosine:{file}", limit=1)
    assert results.table().num_rows == 1


def test_another_score_or_array_is_another_output(fields: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    score = Score("cosine:query", arrays={"query": DIRECTION})
    run(BANDS_BUNDLE, fields, out, score=score, limit=1)
    fingerprint = json.loads((out / "_batch.json").read_text())["fingerprint"]
    assert (fingerprint["score"], set(fingerprint["score_arrays"])) == ("cosine:query", {"query"})
    turned = Score("cosine:query", arrays={"query": DIRECTION[::-1]})
    for other, words in ((turned, "score_arrays.query was"), ("entropy", "score was"), (None, "score was")):
        with pytest.raises(OutputError, match=words):
            run(BANDS_BUNDLE, fields, out, score=other, resume=True)
    run(BANDS_BUNDLE, fields, out, score=score, resume=True)
    assert table_of(out).num_rows == 3


def test_rows_of_classes_have_the_columns_that_they_had(tmp_path: Path, tiny_bundle: Path) -> None:
    draw_images(tmp_path / "in", 1)
    names = run(tiny_bundle, tmp_path / "in", tmp_path / "out", score="probability").table().column_names
    assert names == [
        "id",
        "path",
        "target",
        "label",
        "probability",
        "map",
        "estimated_error",
        "passes",
        "seconds",
        "error",
    ]
    fingerprint = json.loads((tmp_path / "out" / "_batch.json").read_text())["fingerprint"]
    assert "are_probabilities" not in fingerprint
