"""Answers of a real server are those that the OpenAPI document describes: status, type of content and schema."""

import asyncio
import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx import Response
from jsonschema import Draft202012Validator

from ortcam.bundle.shipped import bundle_path, sample_images
from ortcam.serve import Settings, create_app
from ortcam.serve.openapi.document import document

SETTINGS = Settings.of([bundle_path()], limits={"body_bytes": 200_000})
DOCUMENT = document(SETTINGS)
PHOTOGRAPH = Path(sample_images()[0]).read_bytes()
TEXT = base64.b64encode(PHOTOGRAPH).decode()
INSTANCES = {"instances": [{"image": {"b64": TEXT}}]}
TENSOR = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [TEXT]}
EXPLAIN = "/v1/models/shapes:explain"
INFER = "/v2/models/shapes-explain/infer"


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(create_app(SETTINGS), raise_server_exceptions=False) as client:
        assert client.portal is not None
        client.portal.call(asyncio.wait_for, client.app.state.service.opened.wait(), 300)
        yield client


def _validate(value: Any, schema: dict[str, Any]) -> None:
    validator = Draft202012Validator({**schema, "components": DOCUMENT["components"]})
    assert [error.message for error in validator.iter_errors(value)] == []


def _described(verb: str, path: str, response: Response) -> dict[str, Any]:
    """The description of an answer; fails where there is none."""
    path = path.partition("?")[0]
    for template, item in DOCUMENT["paths"].items():
        pattern = re.sub(r"\\\{[^}]*\\\}", r"[^/:]+", re.escape(template))
        if verb in item and re.fullmatch(pattern, path):
            found = item[verb]["responses"][str(response.status_code)]
            if "$ref" in found:
                found = DOCUMENT["components"]["responses"][found["$ref"].rpartition("/")[2]]
            return dict(found)
    pytest.fail(f"{verb} {path} is not in the document")


def _check(verb: str, path: str, response: Response) -> Response:
    described = _described(verb, path, response)
    for header in described.get("headers", {}):
        assert header in response.headers or header == "Inference-Header-Content-Length"
    if not response.content:
        assert "content" not in described
        return response
    kind = response.headers["content-type"].partition(";")[0]
    content = described["content"]
    assert kind in content or "*/*" in content
    if kind == "application/json" and kind in content:
        _validate(response.json(), content[kind]["schema"])
    return response


def _get(client: TestClient, path: str, **headers: str) -> Response:
    return _check("get", path, client.get(path, headers=headers))


def _post(client: TestClient, path: str, body: Any, **headers: str) -> Response:
    """Send JSON, which is checked against the document, too, or bytes."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if isinstance(body, bytes):
        return _check("post", path, client.post(path, content=body, headers=named))
    return _check("post", path, client.post(path, json=body, headers=named))


PLACES = [
    "/",
    "/v1/models",
    "/v1/models/shapes",
    "/v2",
    "/v2/health/live",
    "/v2/health/ready",
    "/v2/models",
    "/v2/models/shapes",
    "/v2/models/shapes-explain",
    "/v2/models/shapes/ready",
    "/metrics",
    "/openapi.json",
    "/docs",
]


@pytest.mark.slow
@pytest.mark.whole
@pytest.mark.parametrize("path", PLACES)
def test_a_path_answers_what_the_document_says(path: str, client: TestClient) -> None:
    assert _get(client, path).status_code == 200


REQUESTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "a prediction": ("/v1/models/shapes:predict", INSTANCES, "PredictRequest"),
    "all probabilities": (
        "/v1/models/shapes:predict",
        INSTANCES | {"parameters": {"probabilities": True, "top_k": 1, "deadline_ms": 60_000}},
        "PredictRequest",
    ),
    "an explanation": (EXPLAIN, INSTANCES, "ExplainRequest"),
    "a budget, two classes": (
        EXPLAIN,
        {"inputs": [{"b64": TEXT}], "parameters": {"budget": 0.05, "top_k": 2}},
        "ExplainRequest",
    ),
    "a whole map and an overlay": (
        EXPLAIN,
        INSTANCES | {"parameters": {"method": "recipro-cam", "map": "full", "overlay": "jpeg"}},
        "ExplainRequest",
    ),
    "pixels": (EXPLAIN, {"instances": [[[[9, 200, 30]] * 8] * 8]}, "ExplainRequest"),
    "a tensor": ("/v2/models/shapes/infer", {"inputs": [TENSOR], "id": "one"}, "InferRequest"),
    "outputs": (
        INFER,
        {
            "inputs": [TENSOR],
            "parameters": {"method": "grad-cam"},
            "outputs": [{"name": "saliency"}, {"name": "logits", "parameters": {"classification": 2}}],
        },
        "InferRequest",
    ),
    "binary outputs": (INFER, {"inputs": [TENSOR], "parameters": {"binary_data_output": True}}, "InferRequest"),
}


@pytest.mark.long
@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_of_the_document_gets_an_answer_of_the_document(name: str, client: TestClient) -> None:
    path, body, schema = REQUESTS[name]
    _validate(body, {"$ref": f"#/components/schemas/{schema}"})
    assert _post(client, path, body).status_code == 200


REFUSALS: dict[str, tuple[int, str, Any, dict[str, str]]] = {
    "no JSON": (400, EXPLAIN, b"{", {}),
    "no tensors": (400, INFER, {"inputs": []}, {}),
    "another site": (
        403,
        EXPLAIN,
        INSTANCES,
        {"Sec_Fetch_Site": "cross-site", "Origin": "https://elsewhere.example"},
    ),
    "no model": (404, "/v1/models/none:explain", INSTANCES, {}),
    "no model of v2": (404, "/v2/models/none/infer", {"inputs": [TENSOR]}, {}),
    "too large": (413, EXPLAIN, b" " * 200_001, {}),
    "another type": (415, EXPLAIN, b"x", {"Content_Type": "text/css"}),
    "no image": (422, EXPLAIN, b"GIF89a", {"Content_Type": "image/gif"}),
    "no method": (422, EXPLAIN, INSTANCES | {"parameters": {"method": "none"}}, {}),
    "no class": (422, INFER, {"inputs": [TENSOR], "parameters": {"target": "none"}}, {}),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_is_one_of_the_document(name: str, client: TestClient) -> None:
    status, path, body, headers = REFUSALS[name]
    assert _post(client, path, body, **headers).status_code == status


def test_what_takes_another_verb_is_refused_as_everything_else(client: TestClient) -> None:
    response = client.delete("/v1/models")
    assert response.status_code == 405
    _validate(response.json(), {"$ref": "#/components/schemas/Error"})


def test_a_job_is_accepted_waited_for_fetched_and_forgotten(client: TestClient) -> None:
    accepted = _post(client, f"{EXPLAIN}?method=recipro-cam", PHOTOGRAPH, Prefer="respond-async")
    assert accepted.status_code == 202
    address = accepted.headers["location"]
    record = _get(client, address, Prefer="wait=60").json()
    assert record["state"] == "done"
    direct = client.post(f"{EXPLAIN}?method=recipro-cam", content=PHOTOGRAPH).json()
    result = _get(client, record["result_url"]).json()
    assert result == record["result"]
    assert _without_times(result) == _without_times(direct)
    assert _check("delete", address, client.delete(address)).status_code == 204
    assert _get(client, address).status_code == 404


def test_a_job_that_is_refused_says_so(client: TestClient) -> None:
    accepted = _post(client, EXPLAIN, b"GIF89a", Prefer="respond-async", Content_Type="image/gif")
    record = _get(client, accepted.headers["location"], Prefer="wait=60").json()
    assert (record["state"], record["status"]) == ("failed", 422)
    assert _get(client, record["result_url"]).status_code == 422


def test_an_image_is_answered_where_it_is_asked_for_also_as_a_job(client: TestClient) -> None:
    path = f"{EXPLAIN}?method=recipro-cam"
    direct = _post(client, path, PHOTOGRAPH, Accept="image/png")
    assert direct.headers["content-type"] == "image/png"
    accepted = _post(client, path, PHOTOGRAPH, Accept="image/png", Prefer="respond-async")
    later = _get(client, f"{accepted.headers['location']}/result", Prefer="wait=60")
    assert (later.headers["content-type"], later.content) == ("image/png", direct.content)


@pytest.mark.long
def test_a_stream_has_maps_and_the_answer(client: TestClient) -> None:
    response = _post(client, f"{EXPLAIN}?method=scorecam&budget=0.1", PHOTOGRAPH, Accept="text/event-stream")
    events = [dict(line.split(": ", 1) for line in event.split("\n")) for event in response.text.strip().split("\n\n")]
    events = [event for event in events if "" not in event]  # comments, on a slow machine
    assert [event["event"] for event in events[:1] + events[-1:]] == ["state", "result"]
    for event in events[1:-1]:
        preview = json.loads(event["data"])
        assert preview.pop("instance") == 0
        preview.setdefault("notes", [])
        _validate(preview, {"$ref": "#/components/schemas/Explanation"})
    _validate(json.loads(events[-1]["data"]), {"$ref": "#/components/schemas/Explanations"})


def _without_times(answer: dict[str, Any]) -> dict[str, Any]:
    for explanation in answer["explanations"]:
        explanation["stats"].pop("seconds")
    return answer
