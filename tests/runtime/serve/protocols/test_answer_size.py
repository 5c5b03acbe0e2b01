"""Answers are bounded: overlays of many classes and images would fill the memory of the server."""

import base64
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from ortcam.images.encoding import encode_png
from ortcam.serve import Settings, create_app

MOST = 1 << 17
# An overlay of noise has about three bytes per pixel: one fits, three do not.
SIDE = 120
IMAGE = base64.b64encode(encode_png(np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8))).decode()
V1, V2 = "/v1/models/tiny:explain", "/v2/models/tiny-explain/infer"


@pytest.fixture(scope="module")
def client(tiny_bundle: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings.of([tiny_bundle], limits={"answer_bytes": MOST}))) as opened:
        end = time.monotonic() + 60
        while opened.get("/v2/health/ready").status_code != 200:
            assert time.monotonic() < end
            time.sleep(0.005)
        yield opened


def asked(path: str, images: int, **parameters: Any) -> dict[str, Any]:
    parameters = {"method": "grad-cam", **parameters}
    if path == V1:
        return {"instances": [IMAGE] * images, "parameters": parameters}
    tensor = {"name": "image", "shape": [images], "datatype": "BYTES", "data": [IMAGE] * images}
    return {"inputs": [tensor], "parameters": parameters}


@pytest.mark.slow
@pytest.mark.parametrize("path", [V1, V2])
def test_an_answer_that_grows_too_large_is_refused(path: str, client: TestClient) -> None:
    one = client.post(path, json=asked(path, 1, overlay="png"))
    assert one.status_code == 200
    assert MOST / 3 < len(one.content) < MOST
    for images, classes in ((3, 1), (1, 3)):
        refused = client.post(path, json=asked(path, images, overlay="png", top_k=classes))
        assert refused.status_code == 422
        assert f"more than {MOST} bytes" in refused.json()["error"]
    assert client.post(path, json=asked(path, 3, overlay="jpeg")).status_code == 200
    assert client.post(path, json=asked(path, 3)).status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize("path", [V1, V2])
def test_maps_as_numbers_count_too(path: str, client: TestClient) -> None:
    assert client.post(path, json=asked(path, 1, map="full")).status_code == 200
    assert client.post(path, json=asked(path, 16, map="full", top_k=2)).status_code == 422


@pytest.mark.slow
@pytest.mark.parametrize("path", [V1, V2])
def test_a_job_is_told_as_well(path: str, client: TestClient) -> None:
    headers = {"Prefer": "respond-async, wait=60"}
    assert client.post(path, json=asked(path, 3, overlay="png"), headers=headers).status_code == 422


def test_what_was_answered_is_no_longer_held(client: TestClient) -> None:
    client.post(V1, json=asked(V1, 1, overlay="png"))
    service: Any = client.app.state.service  # type: ignore[attr-defined]
    assert service.held.total == 0
