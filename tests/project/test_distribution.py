"""The wheel: both packages and the shipped bundle inside, working where it is installed, without PyTorch."""

import os
import subprocess
import sys
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.conftest import REPOSITORY

FORBIDDEN = {"torch", "torchvision", "onnx", "onnx-ir", "onnxscript"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_holds_both_packages_the_bundle_and_the_licence(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for name in (
        "ortcam/py.typed",
        "ortcam/bundle/bundle.schema.json",
        "ortcam_export/py.typed",
        "ortcam/bundle/shipped/shapes.ortcam/bundle.json",
        "ortcam/bundle/shipped/shapes.ortcam/weights.bin",
        "ortcam/web/page/index.html",
        "ortcam/web/page/licences/onnxruntime/LICENSE.txt",
    ):
        assert name in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert any(name.startswith("ortcam/bundle/shipped/shapes/samples/") for name in names)
    assert any(name.startswith("ortcam/web/page/assets/ort-wasm") and name.endswith(".wasm.gz") for name in names)
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "models"))]


@pytest.mark.slow
def test_the_installed_wheel_explains_its_own_picture(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    script = (
        "import sys, ortcam, ortcam.bundle.shipped, ortcam_export\n"
        "assert ortcam.__file__.startswith(sys.argv[1]) and ortcam_export.__file__.startswith(sys.argv[1])\n"
        "picture = ortcam.bundle.shipped.demo_image()\n"
        "e = ortcam.load(ortcam.bundle.shipped.bundle_path()).explain(picture)\n"
        "assert str(ortcam.bundle.shipped.bundle_path()).startswith(sys.argv[1])\n"
        "print(e.labels[0])"
    )
    environment = {**os.environ, "PYTHONPATH": str(site)}
    result = subprocess.run(
        [sys.executable, "-c", script, str(site)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_the_serving_extra_asks_for_nothing_of_the_export() -> None:
    requirements = [Requirement(text) for text in distribution("ortcam").requires or []]
    for extra, runtime in (("cpu", "onnxruntime"), ("gpu", "onnxruntime-gpu")):
        names = {r.name for r in requirements if r.marker is None or r.marker.evaluate({"extra": extra})}
        assert names == {"numpy", "opencv-python-headless", "tqdm", runtime}
    assert {
        r.name for r in requirements if r.marker is not None and r.marker.evaluate({"extra": "export"})
    } >= FORBIDDEN


@pytest.mark.long
def test_a_fresh_environment_with_the_serving_extra_has_no_torch_and_explains(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "env"
    install = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", str(environment)]
    subprocess.run([sys.executable, "-m", "uv", "venv", "--quiet", str(environment)], check=True, capture_output=True)
    constraints = ["--constraint", str(REPOSITORY / "constraints.txt")]
    result = subprocess.run([*install, *constraints, f"{wheel}[cpu]"], capture_output=True, text=True, check=False)
    if result.returncode != 0 and any(
        word in result.stderr for word in ("connect", "resolve host", "dns error", "network")
    ):
        pytest.skip(f"no package registry: {result.stderr.strip().splitlines()[-1]}")
    assert result.returncode == 0, result.stderr
    listed = subprocess.run(
        [sys.executable, "-m", "uv", "pip", "list", "--python", str(environment), "--format", "freeze"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    installed = {line.partition("==")[0] for line in listed.splitlines()}
    assert {"ortcam", "numpy", "onnxruntime"} <= installed
    assert not installed & FORBIDDEN
    shipped = REPOSITORY / "models"
    picture = shipped / "shapes" / "samples" / "mug-umbrella.png"
    command = [
        str(environment / "bin" / "ortcam"),
        "explain",
        str(shipped / "shapes.ortcam"),
        str(picture),
        "-o",
        "out",
    ]
    explained = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert explained.returncode == 0, explained.stderr
    assert len(list((tmp_path / "out" / "mug-umbrella").glob("*/manifest.json"))) == 1


@pytest.mark.parametrize("name", ["runtime/web/package-lock.json", "constraints.txt"])
def test_pinned_versions_name_no_address(name: str) -> None:
    text = (REPOSITORY / name).read_text("utf-8")
    assert "://" not in text, f"{name} names an address; `npm run lock` in runtime/web writes it without"
