"""KServe's protocol v1: every way to send an image gives what the library gives, and no request stops the server."""

import base64
import gzip
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray

from ortcam.explainer import Explainer, load
from ortcam.images.encoding import encode_jpeg, encode_png
from ortcam.images.reading import read_image
from ortcam.results.explanation import Explanation
from ortcam.results.low_resolution import low_resolution
from ortcam.serve import Settings, create_app
from ortcam.serve.protocols.answers import overlay_image
from ortcam.serve.protocols.v1 import overlay_wanted

EXPLAIN, PREDICT = "/v1/models/tiny:explain", "/v1/models/tiny:predict"
PHOTOGRAPH = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
PNG = encode_png(PHOTOGRAPH)
B64 = base64.b64encode(PNG).decode()
# Half a unit of the fourth decimal, and the rounding of float32.
ROUNDED = 0.5e-4 + 1e-7


@pytest.fixture(scope="module")
def client(tiny_bundle: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings.of([str(tiny_bundle)]))) as opened:
        wait_for(opened, "tiny")
        yield opened


def wait_for(client: TestClient, name: str) -> None:
    """Until a model is ready, or for a very long time."""
    for _ in range(3000):
        if client.get(f"/v1/models/{name}").status_code == 200:
            return
        time.sleep(0.02)


@pytest.fixture(scope="module")
def explainer(client: TestClient) -> Explainer:
    """The server's own, so that numbers can be compared bit for bit."""
    found: Explainer = client.app.state.service.models.get("tiny").explainer  # type: ignore[attr-defined]
    return found


def explained(response: Any, count: int = 1) -> list[dict[str, Any]]:
    """The explanations of an answer, whose predictions name the same classes."""
    assert response.status_code == 200, response.text
    answer = response.json()
    assert len(answer["explanations"]) == len(answer["predictions"]) == count
    for prediction, record in zip(answer["predictions"], answer["explanations"], strict=True):
        same = [{name: target[name] for name in ("index", "label", "probability")} for target in record["targets"]]
        assert prediction == {"classes": same}
    return list(answer["explanations"])


def full_map(target: dict[str, Any]) -> NDArray[np.float32]:
    content = np.frombuffer(base64.b64decode(target["map"]["b64"]), "<f4")
    return content.reshape(target["map"]["shape"])


def assert_is(record: dict[str, Any], wanted: Explanation) -> None:
    """An explanation with `map=full` is that of the library, bit for bit: with the same batch size where it has one."""
    assert record["method"] == wanted.method
    assert [target["index"] for target in record["targets"]] == list(wanted.targets)
    assert [target["probability"] for target in record["targets"]] == wanted.probabilities.tolist()
    errors = wanted.stats.estimated_error or [None] * len(wanted.targets)
    assert [target["estimated_error"] for target in record["targets"]] == list(errors)
    for target, saliency in zip(record["targets"], wanted.maps, strict=True):
        np.testing.assert_array_equal(full_map(target), saliency)


@pytest.mark.slow
def test_models_are_listed_and_say_that_they_are_ready(client: TestClient) -> None:
    assert client.get("/v1/models").json() == {"models": ["tiny"]}
    assert client.get("/v1/models/tiny").json() == {"name": "tiny", "ready": True}
    for response in (client.get("/v1/models/other"), client.post("/v1/models/other:explain", content=PNG)):
        assert response.status_code == 404
        assert "other" in response.json()["error"]
    assert client.get(EXPLAIN).status_code == client.get(PREDICT).status_code == 405
    assert client.post("/v1/models/tiny").status_code == 405


@pytest.mark.sample(every=3)
@pytest.mark.whole
@pytest.mark.parametrize(
    "sent",
    [
        {"json": {"instances": [{"image": {"b64": B64}}]}},
        {"json": {"inputs": [B64]}},
        {"json": {"instances": [{"data": PHOTOGRAPH.tolist()}]}},
        {"content": PNG, "headers": {"Content-Type": "image/png"}},
        {"content": PNG, "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
        {"files": {"image": ("cat.png", PNG, "image/png")}},
        {"content": gzip.compress(PNG), "headers": {"Content-Type": "image/png", "Content-Encoding": "gzip"}},
    ],
    ids=["b64", "inputs", "pixels", "image", "curl", "form", "compressed"],
)
def test_any_way_to_send_an_image_gives_what_the_library_gives(
    sent: dict[str, Any], client: TestClient, explainer: Explainer
) -> None:
    [record] = explained(client.post(EXPLAIN, **sent))
    wanted = explainer.explain(PNG)
    assert record["method"] == wanted.method
    assert record["chosen"] == wanted.chosen
    assert record["targets"][0]["label"] == wanted.labels[0]
    assert record["targets"][0]["probability"] == float(wanted.probabilities[0])
    np.testing.assert_allclose(record["targets"][0]["map"]["data"], low_resolution(wanted)[0], rtol=0, atol=ROUNDED)


def test_a_preprocessed_input_is_explained(client: TestClient, explainer: Explainer) -> None:
    model_input = explainer.preprocess(PNG)
    instance = {"preprocessed": model_input.tolist()}
    body = {"instances": [instance], "parameters": {"map": "full"}}
    assert_is(explained(client.post(EXPLAIN, json=body))[0], explainer.explain(preprocessed=model_input))


@pytest.mark.parametrize(
    "parameters",
    [
        {"method": "scorecam++", "top_k": 2, "batch_size": 5},
        {"method": "scorecam", "budget": 4, "target": ["dog", 0], "batch_size": 5},
        {"method": "sscam", "num_samples": 2, "seed": 7, "budget": 0.5, "target": 2, "batch_size": 5},
        {"method": "recipro-cam", "target": "sea snake"},
        {"method": "grad-cam", "augment": 2, "augment_flip": True},
        {"tolerance": 0.5, "batch_size": 4},
    ],
    ids=lambda value: value.get("method", "auto"),
)
def test_parameters_mean_the_same_in_json_and_in_a_query_and_in_the_library(
    parameters: dict[str, Any], client: TestClient, explainer: Explainer
) -> None:
    wanted = explainer.explain(PNG, **parameters)
    body = {"instances": [{"b64": B64}], "parameters": parameters | {"map": "full"}}
    assert_is(explained(client.post(EXPLAIN, json=body))[0], wanted)
    assert_is(explained(client.post(EXPLAIN, content=PNG, params=parameters | {"map": "full"}))[0], wanted)


def test_several_images_are_explained_in_their_order(client: TestClient, explainer: Explainer) -> None:
    files = [encode_png(np.roll(PHOTOGRAPH, 20 * turn, axis=1)) for turn in range(3)]
    body = {"instances": [{"b64": base64.b64encode(file).decode()} for file in files], "parameters": {"map": "full"}}
    for record, file in zip(explained(client.post(EXPLAIN, json=body), 3), files, strict=True):
        assert_is(record, explainer.explain(file))


def test_a_deadline_is_shared_by_the_images_of_a_request(client: TestClient) -> None:
    body = {"instances": [{"b64": B64}] * 2, "parameters": {"deadline_ms": 600_000, "method": "scorecam"}}
    first, second = (record["limits"]["deadline"] for record in explained(client.post(EXPLAIN, json=body), 2))
    assert first <= 300_000 < second <= 600_000


def test_predictions_are_those_of_the_library(client: TestClient, explainer: Explainer) -> None:
    wanted = explainer.top(PNG, top_k=5)
    [prediction] = client.post(PREDICT, content=PNG).json()["predictions"]
    assert prediction == {
        "classes": [{"index": p.index, "label": p.label, "probability": p.probability} for p in wanted]
    }
    body = {"instances": [B64, PHOTOGRAPH.tolist()], "parameters": {"top_k": 1, "probabilities": True}}
    for prediction in client.post(PREDICT, json=body).json()["predictions"]:
        assert [item["label"] for item in prediction["classes"]] == [wanted[0].label]
        assert prediction["probabilities"] == explainer.predict(PNG).tolist()


def test_a_prediction_that_cannot_be_in_time_is_refused(client: TestClient) -> None:
    assert client.post(PREDICT, content=PNG, params={"deadline_ms": 1e8}).status_code == 200
    for path in (PREDICT, EXPLAIN):
        late = client.post(path, content=PNG, params={"deadline_ms": 1e-6})
        assert late.status_code == 429
        assert int(late.headers["Retry-After"]) >= 1


@pytest.mark.parametrize(("accept", "kind"), [("image/png", "png"), ("image/jpeg, */*;q=0.5", "jpeg")])
def test_the_overlay_alone_is_answered_where_it_is_all_that_is_wanted(
    accept: str, kind: Any, client: TestClient, explainer: Explainer
) -> None:
    response = client.post(EXPLAIN, content=PNG, headers={"Accept": accept})
    assert (response.content, response.headers["content-type"]) == overlay_image(explainer.explain(PNG), kind)
    several = {"instances": [B64, B64]}
    for sent in ({"json": several}, {"content": PNG, "params": {"top_k": 2}}):
        refused = client.post(EXPLAIN, headers={"Accept": accept}, **sent)
        assert refused.status_code == 422
        assert "one overlay" in refused.json()["error"]


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ([], None),
        (["*/*"], None),
        (["application/json, image/png"], None),
        (["image/png;q=0.5, application/json"], None),
        (["image/png", "application/json;q=0.9"], "png"),
        (["image/*"], "png"),
        (["image/*, image/png;q=0.1"], "jpeg"),
        (["IMAGE/JPEG"], "jpeg"),
        (["image/png;q=0"], None),
        (["image/png;q=x"], None),
        (["text/html, image/webp"], None),
        (["text/event-stream"], None),
    ],
)
def test_the_header_accept_chooses_between_json_and_an_image(accept: list[str], wanted: str | None) -> None:
    assert overlay_wanted(accept) == wanted


def test_an_overlay_comes_inside_json_where_it_is_asked_for(client: TestClient, explainer: Explainer) -> None:
    [record] = explained(client.post(EXPLAIN, content=PNG, params={"overlay": "png", "map": "none", "top_k": 2}))
    wanted = explainer.explain(PNG, top_k=2)
    for place, target in enumerate(record["targets"]):
        overlay = read_image(base64.b64decode(target["overlay"]["b64"]))
        np.testing.assert_array_equal(overlay, wanted.overlay(place))
        assert "map" not in target


def test_what_is_wrong_with_an_image_that_was_read_is_said(client: TestClient) -> None:
    jpeg = encode_jpeg(PHOTOGRAPH)
    [record] = explained(client.post(EXPLAIN, content=jpeg))
    assert record["notes"] == []
    [damaged] = explained(client.post(EXPLAIN, content=jpeg[: len(jpeg) * 3 // 4] + b"\xff\xd9"))
    assert len(damaged["notes"]) == 1


@pytest.mark.sample(every=2)
@pytest.mark.whole
@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"content": b"\x00" * 100}, 422),
        ({"content": b"GIF89a"}, 422),
        ({"content": PNG[:-40]}, 422),
        ({"json": {"instances": [{"b64": "AAAA"}]}}, 422),
        ({"json": {"instances": ["http://127.0.0.1/cat.jpg"]}}, 422),
        ({"json": {"instances": [str(Path(__file__))]}}, 422),
        ({"json": {"instances": [[[0.5, 0.5], [7.5, 0.5]]]}}, 422),
        ({"json": {"instances": [{"preprocessed": [[[0.5]]]}]}}, 422),
        ({"content": PNG, "params": {"method": "magic"}}, 422),
        ({"content": PNG, "params": {"top_k": 0}}, 422),
        ({"content": PNG, "params": {"method": "iscam", "num_samples": 1000}}, 422),
        ({"content": b'{"instances": ' + b"[" * 100_000}, 400),
        ({"content": b'{"instances": [NaN]}'}, 400),
        ({"content": PNG, "headers": {"Content-Type": "video/mp4"}}, 415),
        ({"content": PNG, "headers": {"Content-Encoding": "gzip"}}, 400),
        ({"content": PNG, "headers": {"Content-Encoding": "br"}}, 415),
        ({"content": zlib.compress(bytes(17 << 20)), "headers": {"Content-Encoding": "deflate"}}, 413),
    ],
    ids=lambda value: str(value)[:50],
)
@pytest.mark.parametrize("path", [EXPLAIN, PREDICT])
def test_a_bad_request_is_told_why_in_one_sentence(
    sent: dict[str, Any], status: int, path: str, client: TestClient, tiny_bundle: Path
) -> None:
    response = client.post(path, **sent)
    assert response.status_code == status, response.text
    assert list(response.json()) == ["error"]
    message = response.json()["error"]
    assert 0 < len(message) < 700
    assert "Traceback" not in message
    assert str(tiny_bundle.parent) not in message


@pytest.mark.long
def test_a_request_chooses_the_precision(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from tests.common.tiny import TinyNet
    from tests.conftest import TINY_INPUT

    from ortcam_export import export

    export(TinyNet().eval(), tmp_path / "both.ortcam", precision=["fp16"], **TINY_INPUT)
    with TestClient(create_app(Settings.of([tmp_path / "both.ortcam"]))) as client:
        wait_for(client, "both")
        for given, computed in (("fp16", "float16"), (None, "float32")):
            parameters = {"method": "scorecam", "batch_size": 5, "map": "full", "precision": given}
            body = {"instances": [B64], "parameters": parameters}
            [record] = explained(client.post("/v1/models/both:explain", json=body))
            assert record["stats"]["precision"] == computed
            with load(tmp_path / "both.ortcam", precision=given) as alone:
                wanted = alone.explain(PNG, method="scorecam", batch_size=5)
            # Another explainer may round otherwise, by far less than float16 differs from float32.
            np.testing.assert_allclose(full_map(record["targets"][0]), wanted.maps[0], rtol=0, atol=1e-5)


def test_answers_to_json_and_to_an_image_are_small(client: TestClient) -> None:
    for response in (client.post(EXPLAIN, content=PNG), client.post(PREDICT, content=PNG)):
        assert len(response.content) < 10_000
