"""The commands for bands, values and scores: what they write, and what they refuse in one sentence."""

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


def test_benchmark_draws_an_image_where_no_photograph_fits_and_explains_a_tensor() -> None:
    timings = benchmark(BANDS_BUNDLE, methods=["grad-cam"], runs=1, seconds=1)
    assert timings.image == "noise"
    assert timings.rows[0].gradient_passes == 1
    timings = benchmark(TENSOR_BUNDLE, methods=["grad-cam"], runs=1, seconds=1)
    assert "output[0, 0, 0]" in timings.notes[0]
    assert timings.rows[0].gradient_passes == 1
