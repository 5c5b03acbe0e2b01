"""Fixtures for all tests: the real data where it is, a tiny classifier and its bundle, a photograph."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from ortcam.bundle import MANIFEST_NAME, FileRecord, file_sha256
from ortcam.images.encoding import write_png
from tests.sharing import export_once

REPOSITORY = Path(__file__).parents[1]
TINY_LABELS = ("cat", "dog", "sea snake", "crane", "crane", "white, striped")


class TinyNet(nn.Module):
    """Three convolutions and a linear head: image [N,3,32,48] -> maps [N,channels,8,12] -> logits [N,6]."""

    def __init__(self, channels: int = 10) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(8, 12, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(12, channels, 1),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(channels, len(TINY_LABELS))
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.normal_(0, 0.6, generator=generator)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(image).mean((2, 3)))


TINY_INPUT = {"input_size": (32, 48), "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25), "labels": TINY_LABELS}


@pytest.fixture(autouse=True, scope="session")
def _no_batch_sizes_from_elsewhere() -> None:
    """What other runs found on this machine stays out of the tests, and theirs out of the user's cache."""
    os.environ["ORTCAM_CACHE"] = "off"


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real weights and photographs; tests that ask for it skip where it is absent."""
    folder = Path(os.environ.get("ORTCAM_TEST_DATA", "../shared/data"))
    folder = folder if folder.is_absolute() else REPOSITORY / folder
    if not (folder / "weights").is_dir():
        pytest.skip(f"no real weights and photographs: {folder} (ORTCAM_TEST_DATA) is absent")
    return folder


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium; tests that ask for it skip where there is none."""
    candidates = (os.environ.get("ORTCAM_CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    browser = next((found for name in candidates if name and (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no Chromium: apt-get install chromium, or name one in ORTCAM_CHROMIUM")
    return browser


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this run for what all its workers read: see `export_once`."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def tiny_bundle(shared: Path) -> Path:
    return export_once(TinyNet().eval(), shared / "tiny.ortcam", **TINY_INPUT)


@pytest.fixture(scope="session")
def dead_bundle(shared: Path) -> Path:
    """A classifier whose maps are zero whatever the image."""
    module = TinyNet()
    with torch.no_grad():
        module.features[4].weight.zero_()
        module.features[4].bias.fill_(-1)
    return export_once(module.eval(), shared / "dead.ortcam", layer="features", **TINY_INPUT)


@pytest.fixture
def bundle_copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "copy.ortcam"))


@pytest.fixture(scope="session")
def branch_bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny classifier with one graph from image to logits in place of the head, as a cut in a branch has it."""
    path = Path(shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("bundles") / "branch.ortcam"))
    features, head = (onnx.load(path / f"{name}.onnx") for name in ("features", "head"))
    classifier = onnx.compose.merge_models(features, head, io_map=[("features", "features")])
    (path / "classifier.onnx").write_bytes(classifier.SerializeToString())
    (path / "head.onnx").unlink()
    manifest = json.loads((path / MANIFEST_NAME).read_text("utf-8"))
    graphs = manifest["graphs"] | {"head": None, "classifier": "classifier.onnx"}
    (path / MANIFEST_NAME).write_text(json.dumps(manifest | {"graphs": graphs}))
    reseal(path)
    return path


def reseal(bundle: Path) -> None:
    """Write the sizes and hashes of the files that are there into bundle.json, as whoever altered them could."""
    manifest = json.loads((bundle / MANIFEST_NAME).read_text("utf-8"))
    manifest["files"] = {
        path.name: dataclasses.asdict(FileRecord(path.stat().st_size, file_sha256(path)))
        for path in sorted(bundle.iterdir())
        if path.name != MANIFEST_NAME
    }
    (bundle / MANIFEST_NAME).write_text(json.dumps(manifest))


@pytest.fixture(scope="session")
def picture() -> np.ndarray:
    """uint8 RGB [90,120,3]: smooth colours with a bright square."""
    rows, columns = np.mgrid[:90, :120]
    image = np.stack([rows * 2, columns * 2, 255 - rows - columns], axis=-1).astype(np.uint8)
    image[20:50, 60:100] = (250, 220, 30)
    return image


@pytest.fixture(scope="session")
def photograph(picture: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "photo.png"
    write_png(path, picture)
    return path
