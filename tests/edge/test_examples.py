"""The examples in C++ and C# give Python's map, class and errors: here, and C++ on emulated 64-bit ARM, too."""

import functools
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import CompletedProcess

import cv2
import numpy as np
import pytest
from filelock import FileLock
from PIL import Image, ImageOps

import ortcam
from ortcam_export import fuse
from tests.conftest import BANDS_BUNDLE
from tests.edge import cpp
from tests.edge.cpp import CLOSE, FOLDER, IMAGE, OWN, SHAPES, map_difference
from tests.edge.csharp import program as csharp

pytestmark = pytest.mark.slow

Run = Callable[..., CompletedProcess[str]]


Runner = Callable[[str], Run]


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """The program of an example, built once, as a function of its arguments."""

    @functools.cache
    def of(example: str) -> Run:
        FOLDER.mkdir(exist_ok=True)
        built = tmp_path_factory.mktemp("build") / "build"
        return _csharp(built) if example == "csharp" else _cpp(example, built)

    return of


def _cpp(architecture: str, built: Path) -> Run:
    if reason := cpp.missing(architecture):
        pytest.skip(reason)
    with FileLock(FOLDER / "cpp.lock"):
        try:
            root = cpp.packages(architecture)
        except RuntimeError as error:
            pytest.skip(f"Debian's packages cannot be fetched: {error}")
    program = cpp.build(architecture, root, built)
    return lambda *arguments: cpp.explain(architecture, root, program, arguments)


def _csharp(built: Path) -> Run:
    if reason := csharp.missing():
        pytest.skip(reason)
    with FileLock(FOLDER / "csharp.lock"):
        try:
            tools = csharp.toolchain()
        except RuntimeError as error:
            pytest.skip(f".NET cannot be fetched: {error}")
    program = csharp.build(tools, built)
    return lambda *arguments: csharp.explain(tools, program, arguments)


@pytest.fixture(scope="module", params=["amd64", "arm64", "csharp"])
def run(request: pytest.FixtureRequest, runner: Runner) -> Run:
    """The program in C++ for each architecture, and that in C#."""
    return runner(request.param)


@pytest.fixture(scope="module")
def jpeg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawing as a JPEG with half its colours, which decoders could interpolate in more than one way."""
    path = tmp_path_factory.mktemp("images") / "photo.jpg"
    cv2.imwrite(str(path), cv2.imread(str(IMAGE)), [cv2.IMWRITE_JPEG_QUALITY, 90])
    return path


@pytest.mark.parametrize("ort", [False, True], ids=["onnx", "ort"])
def test_the_map_of_a_jpeg_is_pythons(run: Run, jpeg: Path, tmp_path: Path, ort: bool) -> None:
    file = tmp_path / ("e.ort" if ort else "e.onnx")
    fuse(SHAPES, file, method="grad-cam", top_k=2, uint8_input=True, ort=ort, verify=False)
    done = run(file, jpeg, tmp_path / "map.png", tmp_path / "maps.f32")
    assert done.returncode == 0, done.stderr
    expected = ortcam.load(SHAPES).explain(jpeg, method="grad-cam", top_k=2)
    told = re.findall(r"^(\w+) \(class (\d)\): ([\d.]+) %$", done.stdout, re.MULTILINE)
    assert [(label, int(target)) for label, target, _ in told] == [*zip(expected.labels, expected.targets, strict=True)]
    # Printed with one decimal.
    np.testing.assert_allclose([float(share) for *_, share in told], 100 * np.array(expected.probabilities), atol=0.06)
    assert map_difference(tmp_path / "maps.f32", expected.maps) <= CLOSE
    drawn = cv2.imread(str(tmp_path / "map.png"), cv2.IMREAD_UNCHANGED)
    assert drawn.shape == expected.maps.shape[1:]
    assert np.abs(drawn - 255 * expected.maps[0]).max() <= 0.5 + 255 * CLOSE


def test_a_loop_over_masked_images(run: Run, tmp_path: Path) -> None:
    file = fuse(SHAPES, tmp_path / "e.onnx", method="scorecam++", budget=16, uint8_input=True, verify=False).path
    assert run(file, IMAGE, tmp_path / "map.png", tmp_path / "maps.f32").returncode == 0
    expected = ortcam.load(SHAPES).explain(IMAGE, method="scorecam++", budget=16, completion="none")
    assert map_difference(tmp_path / "maps.f32", expected.maps) <= CLOSE


@pytest.mark.parametrize("orientation", [*range(1, 9), 0, 9, 200])  # the last three are invalid: upright
@pytest.mark.parametrize("example", [OWN, "csharp"])
def test_a_photograph_is_turned_upright(
    runner: Runner, tmp_path: Path, jpeg: Path, example: str | None, orientation: int
) -> None:
    if example is None:
        pytest.skip("nothing runs here without emulation")
    run = runner(example)
    tag = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0" + bytes([orientation]) + b"\0\0\0\0\0\0\0"
    exif = b"Exif\0\0" + tag
    content = jpeg.read_bytes()
    turned = tmp_path / "turned.jpg"
    turned.write_bytes(content[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + content[2:])
    file = fuse(SHAPES, tmp_path / "e.onnx", method="grad-cam", uint8_input=True, verify=False).path
    assert run(file, turned, tmp_path / "map.png", tmp_path / "maps.f32").returncode == 0
    expected = ortcam.load(SHAPES).explain(turned, method="grad-cam")
    assert map_difference(tmp_path / "maps.f32", expected.maps) <= CLOSE


def test_a_jpeg_of_inks(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "inks.jpg"
    cyan, magenta, yellow = ImageOps.invert(Image.open(IMAGE).convert("RGB")).split()
    Image.merge("CMYK", (cyan, magenta, yellow, cyan)).save(path, quality=90)
    file = fuse(SHAPES, tmp_path / "e.onnx", method="grad-cam", uint8_input=True, verify=False).path
    done = run(file, path, tmp_path / "map.png", tmp_path / "maps.f32")
    assert done.returncode == 0, done.stderr
    expected = ortcam.load(SHAPES).explain(path, method="grad-cam")
    assert map_difference(tmp_path / "maps.f32", expected.maps) <= CLOSE


def test_the_value_of_a_score(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "e.onnx"
    fuse(SHAPES, file, method="grad-cam", score="mug - umbrella", uint8_input=True, verify=False)
    done = run(file, IMAGE, tmp_path / "map.png")
    assert done.returncode == 0, done.stderr
    text, value = done.stdout.strip().rsplit(": ", 1)
    logits = np.log(ortcam.load(SHAPES).predict(IMAGE))  # up to a constant, which the difference lacks
    labels = (SHAPES.parent / "shapes" / "labels.txt").read_text().split()
    assert text == "mug - umbrella"
    assert float(value) == pytest.approx(logits[labels.index("mug")] - logits[labels.index("umbrella")], rel=1e-3)


def test_bad_input_is_one_sentence(run: Run, jpeg: Path, tmp_path: Path) -> None:
    file = fuse(SHAPES, tmp_path / "e.onnx", method="grad-cam", uint8_input=True, verify=False).path
    preprocessed = fuse(SHAPES, tmp_path / "p.onnx", method="grad-cam", verify=False).path
    samples = fuse(BANDS_BUNDLE, tmp_path / "s.onnx", method="grad-cam", uint8_input=True, verify=False).path
    asked = fuse(
        SHAPES, tmp_path / "c.onnx", method="grad-cam", runtime_targets=True, uint8_input=True, verify=False
    ).path
    (tmp_path / "text.jpg").write_text("no image")
    for length in (2, 4, 20):  # before the frame
        (tmp_path / f"{length}.jpg").write_bytes(jpeg.read_bytes()[:length])
    (tmp_path / "cut.jpg").write_bytes(jpeg.read_bytes()[:-1000])
    for arguments, sentence in (
        ([file], "accepted is: explain EXPLAINER.onnx IMAGE MAP.png"),
        ([tmp_path / "none.onnx", IMAGE, tmp_path / "map.png"], "none.onnx"),
        ([preprocessed, IMAGE, tmp_path / "map.png"], "p.onnx: takes no images"),
        ([samples, IMAGE, tmp_path / "map.png"], r"s.onnx: takes float32 samples \[h,w,4\]; .* images of 8 bits"),
        ([asked, IMAGE, tmp_path / "map.png"], "c.onnx: takes classes as an input"),
        ([file, tmp_path / "none.jpg", tmp_path / "map.png"], "none.jpg: cannot be read"),
        ([file, tmp_path, tmp_path / "map.png"], f"{tmp_path}: cannot be read"),
        ([file, tmp_path / "text.jpg", tmp_path / "map.png"], "text.jpg: is no image"),
        ([file, tmp_path / "2.jpg", tmp_path / "map.png"], "2.jpg: (cannot be decoded|is no image)"),
        ([file, tmp_path / "4.jpg", tmp_path / "map.png"], "4.jpg: (cannot be decoded|is no image)"),
        ([file, tmp_path / "20.jpg", tmp_path / "map.png"], "20.jpg: (cannot be decoded|is no image)"),
        ([file, tmp_path / "cut.jpg", tmp_path / "map.png"], "cut.jpg: cannot be decoded"),
        ([file, IMAGE, tmp_path / "no" / "map.png"], "map.png: cannot be written"),
    ):
        _refused(run(*arguments), sentence)
    assert not (tmp_path / "map.png").exists()


def _refused(done: CompletedProcess[str], sentence: str) -> None:
    assert done.returncode == 2
    assert "Non-zero status" not in done.stderr
    told = done.stderr[done.stderr.rindex("explain: ") :]  # after what Debian's ONNX Runtime prints of its own
    assert re.search(sentence, told)
    assert told.count("\n") == 1


def test_the_tools_are_named_where_they_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    found: Sequence[str] = ()
    monkeypatch.setattr(shutil, "which", lambda tool, *_: tool if tool in found else None)
    assert "apt-get install cmake clang lld" in str(cpp.missing("arm64"))
    assert csharp.missing() is not None
