"""The images in README and docs: a photograph explained by MobileNetV2, the demo, and the page of results.

    python -m docs.draw_images

writes `docs/images/`. Needs $ORTCAM_TEST_DATA (the weights of MobileNetV2), scikit-image (its photographs are free: CC0
or in the public domain), and for the page Chromium with Playwright. Run it on a quiet machine: the images say how
long each explanation took.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from benchmarks.common.subjects import SUBJECTS, missing_data
from numpy.typing import NDArray

import ortcam
import ortcam_export
from ortcam import gallery
from ortcam.bundle.shipped import demo_image
from ortcam.cli import main as ortcam_command
from ortcam.images.encoding import encode_jpeg, write_png

_IMAGES: Final = Path(__file__).parent / "images"
_MODEL: Final = "mobilenet_v2"
_METHODS: Final = ("scorecam", "scorecam++", "recipro-cam")
_WIDTH: Final = 1660  # twice what a README gives an image
_PAGE: Final = {"coffee": None, "chelsea": None, "rocket": "missile"}  # photographs of the page, and the class


def main() -> int:
    """Make the images; the exit code is 2 without data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("coffee", "demo", "page"), help="make one of them")
    options = parser.parse_args()
    if (missing := missing_data([_MODEL], real=True)) is not None:
        print(missing, file=sys.stderr)
        return 2
    _IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if options.only in (None, "demo"):
            demo(folder)
        if options.only in (None, "coffee", "page"):
            weights = SUBJECTS[_MODEL].checkpoint
            bundle = ortcam_export.export(_MODEL, folder / "mobilenet_v2.ortcam", checkpoint=weights, labels="imagenet")
            explainer = ortcam.load(bundle.path)
            if options.only != "page":
                photograph(explainer, folder)
            if options.only != "coffee":
                page(explainer, folder)
    return 0


def photograph(explainer: ortcam.Explainer, folder: Path) -> None:
    """A cup of espresso: all that speaks for the class is in the cup, and what is cropped away is dark."""
    path = _free_photograph("coffee", folder)
    explainer.explain(path, method="scorecam", budget=16)  # warm
    explanations = [explainer.explain(path, method=method, target="espresso") for method in _METHODS]
    _write("coffee.jpg", ortcam.sheet(explanations))
    _write("coffee-overlay.jpg", explanations[0].overlay())


def demo(folder: Path) -> None:
    """What `ortcam demo` draws."""
    ortcam_command(["demo", "-o", str(folder / "demo"), "--force"])
    sheet = cv2.imread(str(folder / "demo" / f"{demo_image().stem}.png"))
    assert sheet is not None
    _write("demo.jpg", np.ascontiguousarray(sheet[..., ::-1], np.uint8))


def page(explainer: ortcam.Explainer, folder: Path) -> None:
    """The page of results, as a browser shows it."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        print("the page is left out: it needs Playwright and Chromium", file=sys.stderr)
        return
    out = folder / "explanations"
    for name, label in _PAGE.items():
        path = _free_photograph(name, folder)
        given: dict[str, Any] = {"top_k": 3} if label is None else {"target": label}
        for method in ("scorecam++", "recipro-cam"):
            budget: dict[str, Any] = {"budget": 0.12} if method == "scorecam++" else {}
            explainer.explain(path, method=method, **given, **budget).save(out / name / method)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(args=["--no-sandbox"], executable_path=_chromium())
        tab = browser.new_page(viewport={"width": 1280, "height": 860})
        tab.goto(gallery.write(out).as_uri())
        tab.wait_for_selector("#classes button")
        tab.wait_for_timeout(2000)
        shot = cv2.imdecode(np.frombuffer(tab.screenshot(), np.uint8), cv2.IMREAD_COLOR)
        browser.close()
    assert shot is not None
    _write("gallery.jpg", np.ascontiguousarray(shot[..., ::-1], np.uint8))


def _chromium() -> str | None:
    """The system's Chromium; None: Playwright's own."""
    return next((str(path) for path in (Path("/usr/bin/chromium"),) if path.exists()), None)


def _free_photograph(name: str, folder: Path) -> Path:
    from skimage import data

    path = folder / f"{name}.png"
    write_png(path, getattr(data, name)())
    return path


def _write(name: str, image: NDArray[np.uint8]) -> None:
    """Write an image for README: JPEG, no wider than needed."""
    height, width = image.shape[:2]
    if width > _WIDTH:
        size = _WIDTH, round(height * _WIDTH / width)
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    (_IMAGES / name).write_bytes(encode_jpeg(image, 88))
    print(f"{_IMAGES / name}: {(_IMAGES / name).stat().st_size / 1000:.0f} kB, {image.shape[1]} x {image.shape[0]}")


if __name__ == "__main__":
    sys.exit(main())
