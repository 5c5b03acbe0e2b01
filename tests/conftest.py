"""Fixtures for all tests: the real data where it is, the bundle of a tiny classifier, a photograph.

Nothing here needs PyTorch, so that the runtime's tests run where it is not installed.
"""

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from ortcam.bundle import MANIFEST_NAME, FileRecord, file_sha256
from ortcam.images.encoding import write_png

REPOSITORY = Path(__file__).parents[1]
# Of `TinyNet` in tests/common/tiny.py, which says how it was made.
TINY_BUNDLE = REPOSITORY / "tests" / "data" / "tiny.ortcam"
# Of tests/export/other_models.py: four bands at their depth, outputs that are values, an output that is a tensor.
BANDS_BUNDLE, VALUES_BUNDLE, TENSOR_BUNDLE = (
    REPOSITORY / "tests" / "data" / f"{name}.ortcam" for name in ("bands", "values", "tensor")
)
TINY_LABELS = ("cat", "dog", "sea snake", "crane", "crane", "white, striped")
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
def torchvision_names() -> None:
    """What is no bundle may be the name of a model of torchvision; tests that ask for it skip where that is absent."""
    pytest.importorskip("torchvision")


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
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of the tiny classifier: image [N,3,32,48] -> maps [N,10,8,12] -> logits [N,6]."""
    return Path(shutil.copytree(TINY_BUNDLE, tmp_path_factory.mktemp("tiny") / "tiny.ortcam"))


@pytest.fixture
def bundle_copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "copy.ortcam"))


@pytest.fixture(scope="session")
def classifier(tiny_bundle: Path) -> bytes:
    """The tiny classifier as one graph from image to logits, with its weights inside."""
    features, head = (onnx.load(tiny_bundle / f"{name}.onnx") for name in ("features", "head"))
    merged = onnx.compose.merge_models(features, head, io_map=[("features", "features")])
    return bytes(merged.SerializeToString())


@pytest.fixture(scope="session")
def branch_bundle(classifier: bytes, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny classifier with one graph from image to logits in place of the head, as a cut in a branch has it."""
    path = Path(shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("bundles") / "branch.ortcam"))
    (path / "classifier.onnx").write_bytes(classifier)
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


@pytest.fixture(scope="session")
def playwright() -> Iterator[Any]:
    """What drives browsers: one per process, since a second one does not start beside it."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser: pip install playwright")
    with api.sync_playwright() as running:
        yield running
