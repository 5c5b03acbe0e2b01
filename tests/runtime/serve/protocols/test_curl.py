"""curl as people type it, against `ortcam serve` in a process of its own."""

import base64
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.runtime.serve.faults.server import PATIENCE, Server, serving

from ortcam.bundle.shipped import bundle_path, sample_images
from ortcam.explainer import Explainer, load
from ortcam.images.reading import read_image
from ortcam.results.low_resolution import low_resolution

pytestmark = pytest.mark.long

# Half a unit of the fourth decimal, and the rounding of float32. Another process may use other threads.
ROUNDED = 0.5e-4 + 1e-5


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("curl"), bundle_path()) as running:
        yield running


@pytest.fixture(scope="module")
def explainer() -> Iterator[Explainer]:
    with load(bundle_path()) as opened:
        yield opened


@pytest.fixture
def cat(tmp_path: Path) -> Path:
    """A photograph of more than the megabyte above which curl asks first (`Expect: 100-continue`)."""
    path = tmp_path / "cat.jpg"
    path.write_bytes(sample_images()[0].read_bytes() + bytes(1_100_000))
    return path


def curl(server: Server, path: str, *arguments: str, folder: Path) -> bytes:
    if shutil.which("curl") is None:
        pytest.skip("no curl")
    command = ["curl", "--silent", "--show-error", f"http://127.0.0.1:{server.port}{path}", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_explained(answer: bytes, explainer: Explainer, cat: Path, **parameters: Any) -> None:
    record, wanted = json.loads(answer)["explanations"][0], explainer.explain(cat, **parameters)
    assert record["method"] == wanted.method
    assert record["targets"][0]["label"] == wanted.labels[0]
    small = low_resolution(wanted)[0]
    np.testing.assert_allclose(record["targets"][0]["map"]["data"], small, rtol=0, atol=ROUNDED)
    assert len(answer) < 10_000


@pytest.mark.parametrize(
    "arguments",
    [
        ["--data-binary", "@cat.jpg"],
        ["--data-binary", "@cat.jpg", "-H", "Content-Type: image/jpeg"],
        ["--data-binary", "@cat.jpg", "-H", "Content-Type:"],
        ["--data-binary", "@cat.jpg", "-H", "Transfer-Encoding: chunked"],
        ["-X", "POST", "-T", "cat.jpg"],
        ["-F", "image=@cat.jpg"],
    ],
    ids=" ".join,
)
def test_one_line_explains_an_image(arguments: list[str], server: Server, explainer: Explainer, cat: Path) -> None:
    assert_explained(curl(server, "/v1/models/shapes:explain", *arguments, folder=cat.parent), explainer, cat)


def test_parameters_stand_in_the_address_or_the_form(server: Server, explainer: Explainer, cat: Path) -> None:
    query = "/v1/models/shapes:explain?method=scorecam++&budget=5%25&target=flower&batch_size=8"
    found = curl(server, query, "--data-binary", "@cat.jpg", folder=cat.parent)
    assert_explained(found, explainer, cat, method="scorecam++", budget=0.05, target="flower", batch_size=8)
    form = ["-F", "image=@cat.jpg", "-F", "method=recipro-cam", "-F", "target=house"]
    found = curl(server, "/v1/models/shapes:explain", *form, folder=cat.parent)
    assert_explained(found, explainer, cat, method="recipro-cam", target="house")


def test_json_needs_no_header(server: Server, explainer: Explainer, cat: Path) -> None:
    body = {"instances": [{"image": {"b64": base64.b64encode(cat.read_bytes()).decode()}}]}
    (cat.parent / "body.json").write_text(json.dumps(body, indent=1))
    for flag in ("-d", "--data-binary"):
        answer = curl(server, "/v1/models/shapes:explain", flag, "@body.json", folder=cat.parent)
        assert_explained(answer, explainer, cat)


def test_an_overlay_becomes_a_file(server: Server, explainer: Explainer, cat: Path) -> None:
    arguments = ["--data-binary", "@cat.jpg", "-H", "Accept: image/png", "-o", "overlay.png"]
    curl(server, "/v1/models/shapes:explain", *arguments, folder=cat.parent)
    drawn = read_image(cat.parent / "overlay.png").astype(int)
    wanted = explainer.explain(cat).overlay().astype(int)
    assert np.abs(drawn - wanted).max() <= 1  # a map that rounds otherwise may change a colour by one level


def test_an_image_that_lost_its_line_ends_is_told_so(server: Server, cat: Path) -> None:
    answer = curl(server, "/v1/models/shapes:explain", "-d", "@cat.jpg", folder=cat.parent)
    assert "--data-binary" in json.loads(answer)["error"]
