"""A run from the images to the files: right numbers, nothing lost or made twice, bad input refused before it begins."""

import dataclasses
import json
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.common.engines import recorded
from tests.runtime.evaluation.conftest import COUNT, read_rows

import ortcam
from ortcam.bundle.shipped import sample_images
from ortcam.cli import main
from ortcam.errors import NotFiniteError, OrtcamError
from ortcam.evaluation import evaluate
from ortcam.evaluation.dataset import Example
from ortcam.evaluation.entries import Baseline, Entry, parse_entries
from ortcam.evaluation.measuring import Clean, Measurement, Measuring
from ortcam.evaluation.metrics import METRICS, adcc
from ortcam.evaluation.protocols import resolve_protocol
from ortcam.evaluation.run import Evaluation
from ortcam.scoring.upsampling import upsample
from ortcam.support.extras import install

BASELINES = ("random-weights", "mean-activation", "centred-gaussian")


@pytest.mark.slow
def test_every_image_method_and_metric_has_a_row(tiny_bundle: Path, images: Path, tmp_path: Path) -> None:
    report = evaluate(tiny_bundle, images, tmp_path / "out", methods=["scorecam", "scorecam++:gate=sigmoid"])
    rows = read_rows(tmp_path / "out")
    seen = {(row["image"], row["method"], row["metric"]) for row in rows}
    assert len(seen) == len(rows)
    methods = ["scorecam", "scorecam++:gate=sigmoid", *BASELINES]
    pointing = {"energy-pointing", "pointing", "box-area"}
    for metric in METRICS:
        measured = {(image, method) for image, method, name in seen if name == metric.name}
        expected = methods[:2] if metric.name == "win" else methods
        if metric.name in pointing:  # only where the class explained is that of the boxes
            recognised = {row["image"] for row in rows if row["label"] == row["target"]}
            assert recognised
            assert measured == {(image, method) for image in recognised for method in methods}
        else:
            assert measured == {(f"{seed}.png", method) for seed in range(COUNT) for method in expected}
    table = pq.read_table(tmp_path / "out" / "results.parquet").to_pylist()
    assert [row["value"] for row in table] == [float(row["value"]) for row in rows]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    drops = [float(row["value"]) for row in rows if (row["method"], row["metric"]) == ("scorecam", "average-drop")]
    assert summary["table"]["scorecam"]["average-drop"]["mean"] == pytest.approx(np.mean(drops))
    assert summary["images"]["measured"] == COUNT
    assert not report.failures


@pytest.mark.slow
def test_wins_of_an_image_add_up_to_a_hundred(tiny_bundle: Path, images: Path, tmp_path: Path) -> None:
    # The same method under two names ties on every image.
    names = ["scorecam", "scorecam:maps=raw", "eigen-cam"]
    report = evaluate(tiny_bundle, images, tmp_path / "out", methods=names, metrics=["win"])
    won = np.stack([report.results.values[name]["win"] for name in names])
    np.testing.assert_allclose(won.sum(axis=0), 100)
    np.testing.assert_array_equal(won[0], won[1])
    assert set(won[0]) <= {0.0, 50.0}


@pytest.mark.slow
def test_adcc_in_the_table_is_that_of_the_means(tiny_bundle: Path, images: Path, tmp_path: Path) -> None:
    report = evaluate(tiny_bundle, images, tmp_path / "out", methods=["eigen-cam"], metrics=["adcc"])
    for row in report.summary.table.values():
        parts = (row[name].mean for name in ("coherency", "complexity", "average-drop"))
        assert row["adcc"].mean == pytest.approx(adcc(*parts))


@pytest.mark.slow
def test_the_budget_and_the_options_of_a_method_reach_it(tiny_bundle: Path, images: Path, tmp_path: Path) -> None:
    report = evaluate(
        tiny_bundle, images, tmp_path / "out", methods=["scorecam:budget=2", "scorecam"], metrics=["complexity"]
    )
    assert set(report.results.passes["scorecam:budget=2"]) == {2.0}
    assert (report.results.passes["scorecam"] > 2).all()


@pytest.mark.slow
def test_images_of_twelve_bits_are_measured_as_those_of_eight(tiny_bundle: Path, images: Path, tmp_path: Path) -> None:
    deep = tmp_path / "deep" / "images"
    deep.mkdir(parents=True)
    for file in (tmp_path / "images").glob("*.png"):
        samples = np.rint(cv2.imread(str(file)) * (4095 / 255)).astype(np.uint16)
        assert cv2.imwrite(str(deep / file.name), samples)
    (tmp_path / "deep" / "images.csv").write_text(images.read_text())
    arguments = {"methods": ["scorecam"], "metrics": ["complexity"], "batch_size": 4}
    eight = evaluate(tiny_bundle, images, tmp_path / "eight", **arguments)
    twelve = evaluate(tiny_bundle, tmp_path / "deep" / "images.csv", tmp_path / "twelve", white=4095, **arguments)
    found, expected = (report.results.values["scorecam"]["complexity"] for report in (twelve, eight))
    np.testing.assert_allclose(found, expected, rtol=1e-5)  # the same inputs; float32 sums over a map of 1,536 pixels
    summary = json.loads((tmp_path / "twelve" / "summary.json").read_text())
    assert summary["settings"]["white"] == 4095


@pytest.mark.slow
def test_a_strict_evaluation_skips_what_is_damaged(tiny_bundle: Path, images: Path, tmp_path: Path) -> None:
    file = min((tmp_path / "images").glob("*.png"))
    whole = cv2.imencode(".jpg", cv2.imread(str(file)))[1].tobytes()
    start = whole.index(b"\xff\xda")
    file.write_bytes(whole[: start + 2 + int.from_bytes(whole[start + 2 : start + 4])] + b"\xff\xd9")
    arguments = {"methods": ["scorecam"], "metrics": ["complexity"], "batch_size": 4}
    with pytest.warns(ortcam.ImageWarning, match="its scan 1 holds no data"):
        assert not evaluate(tiny_bundle, images, tmp_path / "lenient", **arguments).failures
    report = evaluate(tiny_bundle, images, tmp_path / "strict", strict=True, **arguments)
    (failure,) = report.failures
    assert "its scan 1 holds no data), and strict refuses it" in failure.error
    assert json.loads((tmp_path / "strict" / "summary.json").read_text())["settings"]["strict"] is True


@pytest.mark.slow
def test_a_method_that_fails_everywhere_leaves_the_others_alone(
    tiny_bundle: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = Measuring.measure

    def fail(self: Measuring, clean: Clean, entry: Entry) -> Measurement:
        if entry.name == "cam":
            raise NotFiniteError("not a number")
        return sound(self, clean, entry)

    monkeypatch.setattr(Measuring, "measure", fail)
    report = evaluate(tiny_bundle, images, tmp_path / "out", methods=["scorecam", "eigen-cam", "cam"], metrics=["win"])
    assert len(report.failures) == COUNT
    won = [report.results.values[name]["win"] for name in ("scorecam", "eigen-cam")]
    np.testing.assert_allclose(won[0] + won[1], 100)
    assert report.summary.table["scorecam"]["win"].n == COUNT


@pytest.mark.slow
def test_a_newcomer_names_the_shipped_model_and_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    samples = [str(path) for path in sample_images()]
    assert main(["evaluate", "shapes", *samples, "-m", "eigen-cam", "--metrics", "complexity"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("too few to call anything better. At least 10 are needed.")
    assert lines[-1] == f"Open {Path('evaluation', 'report.html')}"
    verdict = json.loads(Path("evaluation", "summary.json").read_text())["verdict"]
    assert verdict["short"][0] == lines[0]


@pytest.mark.slow
def test_an_explainer_stands_for_its_bundle(tiny_bundle: Path, images: Path, tmp_path: Path) -> None:
    report = evaluate(ortcam.load(tiny_bundle), images, tmp_path / "out", methods=["eigen-cam"], metrics=["complexity"])
    assert len(report.results.images) == COUNT


@pytest.mark.slow
def test_what_could_not_be_measured_is_said(tiny_bundle: Path, images: Path, tmp_path: Path) -> None:
    folder = images.with_suffix("")  # no boxes
    report = evaluate(tiny_bundle, folder, tmp_path / "out", methods=["eigen-cam"], metrics=["pointing", "complexity"])
    assert "Not measured: " in report.in_words()
    report = evaluate(tiny_bundle, images, tmp_path / "two", methods=["eigen-cam"], metrics=["pointing", "complexity"])
    assert "Not measured: " not in report.in_words()


@pytest.mark.slow
def test_a_broken_image_is_reported_and_skipped(
    tiny_bundle: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images.with_suffix("") / "2.png").write_text("not a picture")
    out = tmp_path / "out"
    arguments = ["evaluate", str(tiny_bundle), str(images), "-m", "scorecam", "--metrics", "confidence", "-o", str(out)]
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert "2.png" in printed.err
    assert "Average Drop" in printed.out
    summary = json.loads((out / "summary.json").read_text())
    assert summary["images"]["measured"] == COUNT - 1
    assert [failure["image"] for failure in summary["failures"]] == ["2.png"]
    # Mended, it is measured after all, and no failure is left.
    (images.with_suffix("") / "2.png").write_bytes((images.with_suffix("") / "1.png").read_bytes())
    assert main([*arguments, "--resume"]) == 0
    assert json.loads((out / "summary.json").read_text())["failures"] == []


def test_nothing_measured_is_an_error(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("not a picture")
    with pytest.raises(OrtcamError, match="not a single image"):
        evaluate(tiny_bundle, tmp_path, tmp_path / "out", methods=["scorecam"])


@pytest.mark.sample(every=2)
@pytest.mark.whole
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"methods": ["fullgrad"]}, "fullgrad"),
        ({"methods": ["scorecam:gate=tanh"]}, "gate"),
        ({"methods": ["scorecam:method=sscam"]}, "unknown option 'method'"),
        ({"methods": ["scorecam:target=3"]}, "unknown option 'target'"),
        ({"methods": ["scorecam:maps=raw:maps=raw"]}, "maps is given twice"),
        ({"methods": ["eigen-cam:precision=int8"]}, "precision goes with methods that mask"),
        ({"methods": ["scorecam:budget"]}, "KEY=VALUE"),
        ({"methods": ["scorecam:budget=some"]}, "not a number"),
        ({"methods": ["scorecam:budget=0.0"]}, "budget=0.0"),
        ({"methods": ["scorecam:precision=int8"]}, "int8"),
        ({"methods": ["scorecam", "score-cam"]}, "named twice"),
        ({"metrics": ["fidelity"]}, "'fidelity'.*average-drop.*a group"),
        ({"protocol": "mine"}, "'mine'.*soft-map"),
        ({"protocol": "scorecampp-notebook", "metrics": ["average-gain"]}, "average-gain with protocol"),
        ({"limit": 0}, "limit=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"seed": -1}, "seed=-1"),
        ({"step": 0}, "step=0"),
        ({"step": 32 * 48 + 1}, "up to 1536"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    tiny_bundle: Path, images: Path, tmp_path: Path, arguments: dict[str, object], message: str
) -> None:
    given = {"methods": ["scorecam"], **arguments}
    with pytest.raises(OrtcamError, match=message):
        Evaluation(tiny_bundle, images, tmp_path / "out", **given)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_a_method_that_the_head_does_not_allow_is_refused_before_anything_is_written(
    branch_bundle: Path, images: Path, tmp_path: Path
) -> None:
    with pytest.raises(OrtcamError, match="needs the head"):
        Evaluation(branch_bundle, images, tmp_path / "out", methods=["scorecam", "cam"])
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_classifier_without_a_head_is_evaluated_too(branch_bundle: Path, images: Path, tmp_path: Path) -> None:
    report = evaluate(branch_bundle, images, tmp_path / "out", methods=["scorecam"])
    assert not report.failures
    assert report.summary.table["scorecam"]["insertion-zero"].n == COUNT


def test_the_command_line_says_what_was_wrong(
    tiny_bundle: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["evaluate", str(tiny_bundle), str(images), "-m", "fullgrad", "-o", str(tmp_path / "out")])
    printed = capsys.readouterr()
    assert code == 2
    assert printed.err.startswith("ortcam: ")
    assert "Traceback" not in printed.err


def test_the_command_says_what_it_needs(
    tiny_bundle: Path, images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ortcam.evaluation.run", None)  # as if scipy were not installed
    assert main(["evaluate", str(tiny_bundle), str(images)]) == 2
    assert install("evaluate") in capsys.readouterr().err


def test_random_weights_are_the_same_for_the_masked_image(tiny_bundle: Path) -> None:
    explainer = ortcam.load(tiny_bundle, providers=["cpu"])
    photograph = explainer.read(np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8))
    masked = dataclasses.replace(photograph, model_input=0.5 * photograph.model_input)
    weights = np.random.default_rng((7, zlib.crc32(b"a.png"))).random(10)
    for item in (photograph, masked):
        found, _ = Baseline("random-weights", 7)(explainer, item, "a.png")
        raw = upsample(np.tensordot(weights, explainer.features(item), axes=1)[None].astype(np.float32), 32, 48)[0]
        raw = np.maximum(raw, 0)
        np.testing.assert_allclose(found, (raw - raw.min()) / np.ptp(raw), atol=1e-5)


@pytest.mark.slow
def test_a_seed_gives_the_same_numbers_again(tiny_bundle: Path, images: Path, tmp_path: Path) -> None:
    report = evaluate(tiny_bundle, images, tmp_path / "out", methods=["eigen-cam"], metrics=["coherency"], seed=7)
    again = evaluate(tiny_bundle, images, tmp_path / "again", methods=["eigen-cam"], metrics=["coherency"], seed=7)
    np.testing.assert_array_equal(
        report.results.values["random-weights"]["coherency"], again.results.values["random-weights"]["coherency"]
    )
    assert (report.results.values["centred-gaussian"]["coherency"] == 100).all()


@pytest.mark.slow
def test_an_explanation_of_the_run_is_that_of_the_explainer(tiny_bundle: Path, images: Path, tmp_path: Path) -> None:
    report = evaluate(tiny_bundle, images, tmp_path / "out", methods=["scorecam++"], metrics=["complexity"])
    explainer = ortcam.load(tiny_bundle, providers=["cpu"])
    for index, image in enumerate(report.results.images):
        maps = explainer.explain(images.with_suffix("") / image, method="scorecam++").maps[0]
        assert report.results.values["scorecam++"]["complexity"][index] == pytest.approx(100 * maps.mean(), abs=1e-4)


def test_no_method_profits_from_the_features_that_another_one_has_computed(tiny_bundle: Path) -> None:
    """Or the first one of each image would look slower than the others."""
    explainer, engine = recorded(tiny_bundle)
    measuring = Measuring({None: explainer}, resolve_protocol("soft-map"), ["complexity"], batch_size=7)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    example = Example(name="a.png", path=Path("a.png"))
    clean = measuring.clean(example, explainer.read(pixels))
    passes = []
    for entry in parse_entries(["eigen-cam", "recipro-cam", "eigen-cam:center=true"]):
        before = len(engine.calls)
        measuring.measure(clean, entry)
        passes.append(sum(call.graph == explainer.bundle.manifest.graphs.features for call in engine.calls[before:]))
    assert passes == [1, 1, 1]
