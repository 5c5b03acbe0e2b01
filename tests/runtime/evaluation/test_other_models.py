"""Evaluations of bands, values, tensors and scores: curves of the value, and no metric that needs a probability."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.conftest import BANDS_BUNDLE, TENSOR_BUNDLE, VALUES_BUNDLE
from tests.runtime.evaluation.conftest import read_rows
from tests.runtime.evaluation.pages import Page

from ortcam.errors import DatasetError, OptionError, OutputError, TargetError
from ortcam.evaluation import evaluate
from ortcam.evaluation.metrics import METRICS, blurred
from ortcam.evaluation.run import Evaluation
from ortcam.explainer import load
from ortcam.images.encoding import write_png
from ortcam.request import Score

LEFT_OUT = {"average-drop", "increase", "average-gain", "win", "adcc"}
BASELINES = 3
FIELDS = [np.random.default_rng(seed).integers(0, 9000, (40, 60, 4), np.uint16) for seed in range(2)]


@pytest.fixture
def fields(tmp_path: Path) -> Path:
    """A CSV of arrays with boxes, and of a class that need not be the one that the model gives."""
    folder = tmp_path / "fields"
    folder.mkdir()
    for number, array in enumerate(FIELDS):
        np.save(folder / f"{number}.npy", array)
    (tmp_path / "fields.csv").write_text("file,class,boxes\n0.npy,water,4 4 30 20\n1.npy,forest,8 6 40 30\n")
    return tmp_path / "fields.csv"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for seed in range(2):
        write_png(folder / f"{seed}.png", np.random.default_rng(seed).integers(0, 256, (40, 60, 3), np.uint8))
    return folder


def measured(folder: Path) -> set[str]:
    return {row["metric"] for row in read_rows(folder)}


@pytest.mark.slow
def test_bands_are_evaluated_as_any_classifier(fields: Path, tmp_path: Path) -> None:
    report = evaluate(BANDS_BUNDLE, fields, tmp_path / "out", methods=["grad-cam"], step=300, randomize=1)
    assert not report.failures
    assert LEFT_OUT - {"win"} <= measured(tmp_path / "out")
    assert report.results.are_probabilities
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["protocol"]["confidence"] == "probability"
    assert set(summary["randomized"]["grad-cam"][0]) >= {"depth", "mean"}
    page = Page(tmp_path / "out" / "report.html")
    assert sorted(page.cards()) == ["0.npy", "1.npy"]


def test_a_folder_of_arrays_is_a_dataset_of_a_model_that_takes_samples(
    fields: Path, tmp_path: Path, tiny_bundle: Path
) -> None:
    folder = fields.with_suffix("")
    assert len(Evaluation(BANDS_BUNDLE, folder, tmp_path / "out", methods=["grad-cam"]).examples) == 2
    with pytest.raises(DatasetError, match="no images in it"):
        Evaluation(tiny_bundle, folder, tmp_path / "out")


def test_blurring_is_done_band_by_band() -> None:
    image = np.random.default_rng(0).standard_normal((5, 20, 30)).astype(np.float32)
    together = blurred(image)
    assert together.shape == image.shape
    for band in range(5):
        np.testing.assert_array_equal(together[band], blurred(image[band : band + 1])[0])


@pytest.mark.slow
def test_curves_of_a_score_are_its_values_and_their_area_is_a_mean(fields: Path, tmp_path: Path) -> None:
    score = "water - 2*field"
    report = evaluate(BANDS_BUNDLE, fields, tmp_path / "out", methods=["grad-cam"], score=score, step=300)
    results = report.results
    assert not report.failures
    assert not results.are_probabilities
    found = measured(tmp_path / "out")
    assert found.isdisjoint(LEFT_OUT)
    assert {"insertion-zero", "deletion-blur", "coherency", "complexity", "energy-pointing", "pointing"} <= found
    with load(BANDS_BUNDLE) as explainer:
        logits = np.stack([explainer.classify(field)[0] for field in FIELDS]).astype(np.float64)
        empty, _ = explainer.classify(preprocessed=np.zeros((4, 32, 48), np.float32))
    values = logits[:, 0] - 2 * logits[:, 2]
    np.testing.assert_array_equal(results.target, [-1, -1])
    # One product and one subtraction of float32 at most.
    np.testing.assert_allclose(results.probability, values, rtol=2**-22, atol=2**-22)
    curve = results.bands["insertion-zero"]["grad-cam"].mean
    bottom = float(empty[0]) - 2 * float(empty[2])
    np.testing.assert_allclose(curve[[0, -1]], [bottom, values.mean()], rtol=1e-5, atol=1e-5)  # six decimals are kept
    counts = np.diff(results.bands["insertion-zero"]["grad-cam"].share)
    area = float(np.mean(results.values["grad-cam"]["insertion-zero"]))
    assert area == pytest.approx(float((curve[1:] + curve[:-1]) / 2 @ counts), abs=1e-5)
    (unit,) = {metric.unit for metric in results.metrics if metric.group in ("insertion", "deletion")}
    assert unit == "value"


@pytest.mark.slow
def test_files_and_page_of_a_score_call_it_so(fields: Path, tmp_path: Path) -> None:
    report = evaluate(BANDS_BUNDLE, fields, tmp_path / "out", methods=["grad-cam"], score="entropy", step=300)
    rows = pq.read_table(tmp_path / "out" / "results.parquet").to_pylist()
    assert {row["probability"] for row in rows} == {None}
    assert {row["score"] for row in rows} == set(report.results.probability)
    assert {row["label"] for row in rows} == {None}
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["settings"]["score"] == "entropy"
    assert any("left out are average-drop" in note for note in summary["notes"])
    text = "".join(Page(tmp_path / "out" / "report.html").text)
    assert "entropy" in text
    assert "probability" not in text.replace("pairs of this metric", "").lower()
    assert "In the unit of the score" in report.in_words().replace("\n  ", " ")


@pytest.mark.slow
def test_a_score_that_is_a_probability_keeps_all_metrics(fields: Path, tmp_path: Path) -> None:
    evaluate(BANDS_BUNDLE, fields, tmp_path / "out", methods=["grad-cam"], score="probability:water", step=300)
    assert measured(tmp_path / "out") >= LEFT_OUT


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bundle", "arguments"), [(VALUES_BUNDLE, {}), (TENSOR_BUNDLE, {"score": "output[0, 1, 2] - output[1, :, :]"})]
)
def test_values_and_tensors_are_evaluated(
    bundle: Path, arguments: dict[str, Any], pictures: Path, tmp_path: Path
) -> None:
    report = evaluate(bundle, pictures, tmp_path / "out", methods=["scorecam", "grad-cam"], step=300, **arguments)
    assert not report.failures
    assert measured(tmp_path / "out").isdisjoint(LEFT_OUT)
    assert len(read_rows(tmp_path / "out")) == 2 * (2 + BASELINES) * len(
        [metric for metric in METRICS if metric.name not in LEFT_OUT and metric.group != "pointing"]
    )


def test_what_cannot_be_measured_is_refused_before_anything_is_written(pictures: Path, tmp_path: Path) -> None:
    def ask(bundle: Path, **arguments: Any) -> Evaluation:
        return Evaluation(bundle, pictures, tmp_path / "out", methods=["grad-cam"], **arguments)

    with pytest.raises(OptionError, match=r"average-drop, increase, average-gain, win: need a confidence in \(0, 1\]"):
        ask(VALUES_BUNDLE, metrics=["confidence"])
    with pytest.raises(OptionError, match="scorecampp-notebook"):
        ask(VALUES_BUNDLE, protocol="scorecampp-notebook")
    with pytest.raises(TargetError, match="output\\[0, :, :\\]"):
        ask(TENSOR_BUNDLE)
    with pytest.raises(OptionError, match="entropy"):
        ask(VALUES_BUNDLE, score="entropy")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_another_score_is_another_evaluation(fields: Path, tmp_path: Path) -> None:
    def run(score: Score | str | None) -> None:
        evaluate(
            BANDS_BUNDLE,
            fields,
            tmp_path / "out",
            methods=["grad-cam"],
            metrics=["complexity"],
            score=score,
            resume=True,
        )

    score = Score("cosine:query", arrays={"query": np.array([1.0, 2.0, 3.0])})
    run(score)
    run(score)
    for other in (Score("cosine:query", arrays={"query": np.array([1.0, 2.0, 4.0])}), "entropy", None):
        with pytest.raises(OutputError, match=r"was begun with other settings: .*score"):
            run(other)
