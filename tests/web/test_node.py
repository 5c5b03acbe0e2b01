"""The example in Node: a fused explainer gives there the map, the overlay and the class that Python gives."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from filelock import FileLock
from tests.common.channels import drawn_samples
from tests.conftest import BANDS_BUNDLE, REPOSITORY

import ortcam
from ortcam_export import fuse

EXAMPLE = REPOSITORY / "runtime" / "node"
SHAPES = REPOSITORY / "models" / "shapes.ortcam"
SAMPLES = REPOSITORY / "models" / "shapes" / "samples"

Explain = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def explain(shared: Path) -> Explain:
    """Run `node explain.js` with some arguments, its dependencies installed where they are not."""
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool}")
    with FileLock(shared / "example.lock"):
        if not (EXAMPLE / "node_modules").is_dir():
            done = subprocess.run(
                ["npm", "install", "--no-audit", "--no-fund"], cwd=EXAMPLE, capture_output=True, text=True, check=False
            )
            if done.returncode != 0:
                pytest.skip(f"the example's dependencies cannot be installed: {done.stderr.strip()[-500:]}")

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = ["node", "explain.js", *map(str, arguments)]
        return subprocess.run(command, cwd=EXAMPLE, capture_output=True, text=True, check=False)

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"method": "scorecam", "budget": 32},
        {"method": "scorecam++", "budget": 32, "top_k": 2},
        {"method": "sscam", "budget": 8, "num_samples": 2},
        {"method": "iscam", "budget": 8, "num_samples": 2},
        {"method": "grad-cam", "top_k": 2},
        {"method": "grad-cam++"},
        {"method": "layer-cam"},
        {"method": "finer-cam"},
    ],
    ids=lambda settings: settings["method"],
)
def test_its_maps_are_pythons(explain: Explain, tmp_path: Path, settings: dict[str, object]) -> None:
    fused = fuse(SHAPES, tmp_path / "e.onnx", uint8_input=True, verify=False, **settings)
    picture = SAMPLES / "mug-umbrella.png"
    done = explain(fused.path, picture, tmp_path / "overlay.png", tmp_path / "maps.f32")
    assert done.returncode == 0, done.stderr
    limits = {"completion": "none"} if "budget" in settings else {}
    expected = ortcam.load(SHAPES).explain(picture, **limits, **settings)
    told = re.findall(r"^(\w+) \(class (\d)\): ([\d.]+) %$", done.stdout, re.MULTILINE)
    assert [(label, int(target)) for label, target, _ in told] == list(
        zip(expected.labels, expected.targets, strict=True)
    )
    # Printed with one decimal.
    np.testing.assert_allclose([float(share) for *_, share in told], 100 * np.array(expected.probabilities), atol=0.06)
    assert done.stdout.splitlines()[-1] == f"Open {tmp_path / 'overlay.png'}"
    saliency = np.fromfile(tmp_path / "maps.f32", "<f4").reshape(expected.maps.shape)
    np.testing.assert_allclose(saliency, expected.maps, atol=1e-4)
    # A value of the map between two colours may go either way, and neighbours in turbo are up to 5 apart.
    np.testing.assert_allclose(_read(tmp_path / "overlay.png"), expected.overlay(), atol=6)


def _read(path: Path) -> np.ndarray:
    """RGB, with room for differences."""
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB).astype(np.int64)


@pytest.mark.slow
def test_samples_and_a_score_are_explained_as_in_python(explain: Explain, tmp_path: Path) -> None:
    fused = fuse(
        BANDS_BUNDLE, tmp_path / "e.onnx", method="grad-cam", score="forest - water", uint8_input=True, verify=False
    )
    explainer = ortcam.load(BANDS_BUNDLE)
    samples = drawn_samples(explainer.bundle.manifest.preprocessing)
    np.save(tmp_path / "scene.npy", samples)
    done = explain(fused.path, tmp_path / "scene.npy", tmp_path / "overlay.png", tmp_path / "maps.f32")
    assert done.returncode == 0, done.stderr
    expected = explainer.explain(samples, method="grad-cam", score="forest - water")
    told = re.match(r"forest - water: (-?[\d.e+-]+)$", done.stdout, re.MULTILINE)
    assert told is not None
    assert float(told[1]) == pytest.approx(expected.probabilities[0], rel=1e-3)  # printed in four digits
    saliency = np.fromfile(tmp_path / "maps.f32", "<f4").reshape(expected.maps.shape)
    np.testing.assert_allclose(saliency, expected.maps, atol=1e-4)
    np.testing.assert_allclose(_read(tmp_path / "overlay.png"), expected.overlay(), atol=7)


@pytest.mark.slow
def test_what_the_model_does_not_see_is_dimmed_and_framed_as_in_python(explain: Explain, tmp_path: Path) -> None:
    fused = fuse(SHAPES, tmp_path / "e.onnx", uint8_input=True, verify=False, budget=8)
    tall = cv2.resize(cv2.imread(str(SAMPLES / "fish.png")), (301, 1003))
    cv2.imwrite(str(tmp_path / "tall.png"), tall)
    assert explain(fused.path, tmp_path / "tall.png", tmp_path / "overlay.png").returncode == 0
    expected = ortcam.load(SHAPES).explain(tmp_path / "tall.png", budget=8, completion="none").overlay()
    np.testing.assert_allclose(_read(tmp_path / "overlay.png"), expected, atol=6)


@pytest.mark.slow
def test_what_lies_behind_alpha_counts_as_in_python(explain: Explain, tmp_path: Path) -> None:
    fused = fuse(SHAPES, tmp_path / "e.onnx", uint8_input=True, verify=False, budget=8)
    picture = cv2.cvtColor(cv2.imread(str(SAMPLES / "fish.png")), cv2.COLOR_BGR2BGRA)
    picture[:, : picture.shape[1] // 2, 3] = 0
    cv2.imwrite(str(tmp_path / "glass.png"), picture)
    done = explain(fused.path, tmp_path / "glass.png", tmp_path / "overlay.png", tmp_path / "maps.f32")
    assert done.returncode == 0, done.stderr
    expected = ortcam.load(SHAPES).explain(tmp_path / "glass.png", budget=8, completion="none")
    saliency = np.fromfile(tmp_path / "maps.f32", "<f4").reshape(expected.maps.shape)
    np.testing.assert_allclose(saliency, expected.maps, atol=1e-4)


@pytest.mark.slow
def test_an_explainer_that_takes_no_photographs_and_files_of_others_are_refused(
    explain: Explain, tmp_path: Path
) -> None:
    fused = fuse(SHAPES, tmp_path / "float.onnx", verify=False, budget=1)
    for model, words in ((fused.path, "--uint8-input"), (SAMPLES / "fish.png", "no ONNX file"), ("gone.onnx", "gone")):
        done = explain(model, SAMPLES / "fish.png", tmp_path / "overlay.png")
        assert done.returncode == 2
        assert words in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
        assert not (tmp_path / "overlay.png").exists()


def test_what_is_no_picture_is_said_in_one_line(explain: Explain, tmp_path: Path) -> None:
    fused = fuse(SHAPES, tmp_path / "e.onnx", uint8_input=True, verify=False, budget=1)
    (tmp_path / "text.jpg").write_text("not a picture")
    done = explain(fused.path, tmp_path / "text.jpg", tmp_path / "overlay.png")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "overlay.png").exists()
