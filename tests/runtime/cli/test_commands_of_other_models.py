"""The commands for bands, values and scores: what they write, and what they refuse in one sentence."""

import json
from pathlib import Path

import numpy as np
import pytest
from tests.common.batches import draw_images, in_process
from tests.conftest import BANDS_BUNDLE, TENSOR_BUNDLE, VALUES_BUNDLE

import ortcam
from ortcam.benchmarking import benchmark
from ortcam.cli import main


def test_batch_takes_a_score_whose_file_it_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ortcam.batch.local.driver.run_local", in_process)
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "field.npy", np.random.default_rng(0).integers(0, 9000, (40, 60, 4), np.uint16))
    np.save(tmp_path / "query.npy", np.array([1.0, 0.5, -1.0]))
    score = f"cosine:{tmp_path / 'query.npy'}"
    command = ["batch", str(BANDS_BUNDLE), str(tmp_path / "in"), "-m", "grad-cam", "--quiet"]
    assert main([*command, "-o", str(tmp_path / "out"), "--score", score]) == 0
    (row,) = ortcam.batch.open(tmp_path / "out").table().to_pylist()
    assert (row["target"], row["label"], row["error"]) == (-1, score, None)
    assert -1 <= row["value"] <= 1
    assert main([*command, "-o", str(tmp_path / "no"), "--score", "cosine:absent.npy"]) == 2
    assert "absent.npy" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


@pytest.mark.slow
def test_evaluate_says_what_it_leaves_out_of_a_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw_images(tmp_path / "in", 2)
    command = ["evaluate", str(VALUES_BUNDLE), str(tmp_path / "in"), "-m", "grad-cam", "--step", "500"]
    assert main([*command, "-o", str(tmp_path / "out"), "--score", "age - weight", "--metrics", "insertion"]) == 0
    printed = capsys.readouterr()
    assert "In the unit of the score" in printed.out
    assert main([*command, "-o", str(tmp_path / "no"), "--metrics", "adcc"]) == 2
    sentence = capsys.readouterr().err
    assert "adcc" in sentence
    assert "(0, 1]" in sentence
    assert not (tmp_path / "no").exists()


def test_what_is_wrong_with_a_score_is_said_once_for_all_methods(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, array in (("small", np.ones((3, 3))), ("black", np.zeros((8, 8)))):
        np.save(tmp_path / f"{name}.npy", array)
        score = f"output[0, :, :]@{name}.npy"
        command = ["explain", str(TENSOR_BUNDLE), "no.png", "-m", "grad-cam,layer-cam", "--score", score]
        assert main([*command, "-o", "out"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert name in line
    assert not Path("out").exists()


def test_what_methods_cannot_do_is_one_sentence_that_names_them(
    photograph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = VALUES_BUNDLE.with_name("tiny-schema-4.ortcam")
    command = ["explain", str(old), str(photograph), "-o", str(tmp_path / "out"), "--score", "2*index:0 - index:1"]
    assert main([*command, "-m", "scorecam,scorecam++,sscam"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "with scorecam, scorecam++, sscam: the graphs of this bundle were made before there were scores" in line


@pytest.mark.parametrize("score", ["probability", "probability:0", "entropy", "index:0 - probability:1"])
def test_probabilities_of_values_are_refused_in_one_way(
    score: str, photograph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["explain", str(VALUES_BUNDLE), str(photograph), "-o", str(tmp_path / "out"), "--score", score]
    assert main([*command, "-m", "grad-cam,scorecam"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    term = "" if " - " not in score else " 'probability:1':"
    assert f"score={score!r}:{term} this model's outputs are values, not probabilities; accepted is logit," in line


def test_benchmark_draws_an_image_where_no_photograph_fits_and_explains_a_tensor() -> None:
    timings = benchmark(BANDS_BUNDLE, methods=["grad-cam"], runs=1, seconds=1)
    assert timings.image == "noise"
    assert timings.rows[0].gradient_passes == 1
    timings = benchmark(TENSOR_BUNDLE, methods=["grad-cam"], runs=1, seconds=1)
    assert "output[0, 0, 0]" in timings.notes[0]
    assert timings.rows[0].gradient_passes == 1


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    draw_images(tmp_path / "in", 1)
    return next((tmp_path / "in").iterdir())


def test_predict_prints_values(
    photograph: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    with ortcam.load(VALUES_BUNDLE, threads=1) as explainer:
        values = explainer.predict(photograph)
    order = np.argsort(-values)
    command = ["predict", str(VALUES_BUNDLE), str(photograph)]
    assert main(command) == 0
    head, _, *lines = capsys.readouterr().out.splitlines()
    assert head.endswith("2 outputs, identity (values, the largest first)")
    assert [line.split() for line in lines] == [[str(i), ("age", "weight")[i], f"{values[i]:.4g}"] for i in order]
    assert max(map(len, lines)) <= 60
    assert main([*command, "--csv"]) == 0
    head, first, _ = capsys.readouterr().out.splitlines()
    assert head == "image,rank,index,label,value"
    assert float(first.rsplit(",", 1)[1]) == pytest.approx(values[order[0]], rel=1e-8)
    assert main([*command, "--json", "--top-k", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["classes"], found["activation"]) == (2, "identity")
    (one,) = found["predictions"][0]["classes"]
    assert one.keys() == {"index", "label", "value"}


def test_predict_prints_the_range_of_a_tensor(photograph: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ortcam.load(TENSOR_BUNDLE, threads=1) as explainer:
        values = explainer.predict(photograph)
    assert values.shape == (2, 4, 6)
    command = ["predict", str(TENSOR_BUNDLE), str(photograph)]
    assert main(command) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert head.endswith("a tensor [2, 4, 6] per image")
    assert line.endswith(f"least {values.min():.4g}  mean {values.mean(dtype=float):.4g}  largest {values.max():.4g}")
    assert main([*command, "--csv"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "image,least,mean,largest"
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["shape"] == [2, 4, 6]
    assert found["predictions"][0]["largest"] == pytest.approx(float(values.max()))


@pytest.mark.slow
def test_explain_of_values_and_tensors(photograph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["explain", str(VALUES_BUNDLE), str(photograph), "-m", "scorecam,grad-cam", "-o", str(tmp_path / "out")]
    assert main([*command, "-t", "weight"]) == 0
    printed = capsys.readouterr().out
    assert "weight" in printed
    assert "%" not in printed
    command = ["explain", str(TENSOR_BUNDLE), str(photograph), "-m", "grad-cam", "-o", str(tmp_path / "tensor")]
    for more in ([], ["-t", "0"], ["--top-k", "2"]):
        assert main([*command, *more]) == 2
        assert "--score 'output[0, :, :]'" in capsys.readouterr().err
    batch = [
        "batch",
        str(TENSOR_BUNDLE),
        str(photograph.parent),
        "-m",
        "grad-cam",
        "-o",
        str(tmp_path / "no"),
        "-t",
        "0",
    ]
    assert main(batch) == 2
    assert "target '0': what this model gives for an image has no classes" in capsys.readouterr().err
    assert main([*command, "--score", "output[0, :, :]"]) == 0
    assert "output[0, :, :]" in capsys.readouterr().out
    manifests = [json.loads(path.read_text("utf-8")) for path in (tmp_path / "tensor").rglob("manifest.json")]
    assert [(m["score"], m["targets"][0]["index"], m["are_probabilities"]) for m in manifests] == [
        ("output[0, :, :]", -1, False)
    ]


@pytest.mark.parametrize("command", ["explain", "batch", "benchmark"])
def test_a_bad_score_is_said_before_a_model_is_opened(
    command: str, photograph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def opened(*_: object, **__: object) -> None:
        raise AssertionError("a model was opened")

    for name in ("explain.open_explainer", "batch.open_bundle", "benchmark.open_bundle"):
        monkeypatch.setattr(f"ortcam.cli.commands.{name}", opened)
    where = ["-o", str(tmp_path / "out")] if command != "benchmark" else ["-m", "grad-cam"]
    images = ["--image", str(photograph)] if command == "benchmark" else [str(photograph.parent)]
    assert main([command, str(VALUES_BUNDLE), *images, *where, "--score", "output[a]"]) == 2
    assert "accepted is output[I, J, ...]" in capsys.readouterr().err
