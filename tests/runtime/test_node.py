"""The example in Node: a fused explainer gives there the map that Python gives."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from filelock import FileLock
from tests.conftest import REPOSITORY

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


@pytest.mark.sample("scorecam++")
@pytest.mark.parametrize(
    "settings",
    [
        {"method": "scorecam", "budget": 32},
        {"method": "scorecam++", "budget": 32, "top_k": 2},
        {"method": "sscam", "budget": 8, "num_samples": 2},
        {"method": "iscam", "budget": 8, "num_samples": 2},
    ],
    ids=lambda settings: settings["method"],
)
def test_its_maps_are_pythons(explain: Explain, tmp_path: Path, settings: dict[str, object]) -> None:
    fused = fuse(SHAPES, tmp_path / "e.onnx", uint8_input=True, verify=False, **settings)
    picture = SAMPLES / "mug-umbrella.png"
    done = explain(fused.path, picture, tmp_path / "map.png", tmp_path / "map.f32")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    expected = ortcam.load(SHAPES).explain(picture, completion="none", **settings)
    assert tuple(found["targets"]) == expected.targets
    saliency = np.fromfile(tmp_path / "map.f32", "<f4").reshape(found["shape"])
    np.testing.assert_allclose(saliency, expected.maps, atol=1e-4)
    assert (tmp_path / "map.png").stat().st_size > 500


def test_what_lies_behind_alpha_counts_as_in_python(explain: Explain, tmp_path: Path) -> None:
    fused = fuse(SHAPES, tmp_path / "e.onnx", uint8_input=True, verify=False, budget=8)
    picture = cv2.cvtColor(cv2.imread(str(SAMPLES / "fish.png")), cv2.COLOR_BGR2BGRA)
    picture[:, : picture.shape[1] // 2, 3] = 0
    cv2.imwrite(str(tmp_path / "glass.png"), picture)
    done = explain(fused.path, tmp_path / "glass.png", tmp_path / "map.png", tmp_path / "map.f32")
    expected = ortcam.load(SHAPES).explain(tmp_path / "glass.png", budget=8, completion="none")
    saliency = np.fromfile(tmp_path / "map.f32", "<f4").reshape(json.loads(done.stdout)["shape"])
    np.testing.assert_allclose(saliency, expected.maps, atol=1e-4)


def test_what_is_no_picture_is_said_in_one_line(explain: Explain, tmp_path: Path) -> None:
    fused = fuse(SHAPES, tmp_path / "e.onnx", uint8_input=True, verify=False, budget=1)
    (tmp_path / "text.jpg").write_text("not a picture")
    done = explain(fused.path, tmp_path / "text.jpg", tmp_path / "map.png")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "map.png").exists()
