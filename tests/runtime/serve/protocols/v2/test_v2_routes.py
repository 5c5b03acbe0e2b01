"""The Open Inference Protocol: every way to send images and to get tensors gives what the library gives."""

import asyncio
import base64
import contextlib
import gzip
import json
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray

import ortcam
from ortcam.bundle.manifest import MANIFEST_NAME
from ortcam.explainer import Explainer
from ortcam.images.encoding import encode_png
from ortcam.images.reading import read_image
from ortcam.results.low_resolution import low_resolution
from ortcam.serve import Settings, create_app
from ortcam.serve.service import Service

LENGTH = "Inference-Header-Content-Length"
PREDICT, EXPLAIN = "/v2/models/tiny/infer", "/v2/models/tiny-explain/infer"
PHOTOGRAPHS = np.random.default_rng(0).integers(0, 256, (3, 60, 90, 3), np.uint8)
FILES = [encode_png(pixels) for pixels in PHOTOGRAPHS]
TYPES = {"FP32": "<f4", "INT64": "<i8", "BOOL": "|b1"}


@contextlib.contextmanager
def serving(bundle: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings.of([str(bundle)]))) as opened:
        opened.portal.call(asyncio.wait_for, service_of(opened).opened.wait(), 300)  # type: ignore[union-attr]
        yield opened


def service_of(client: TestClient) -> Service:
    found: Service = client.app.state.service  # type: ignore[attr-defined]
    return found


@pytest.fixture(scope="module")
def client(tiny_bundle: Path) -> Iterator[TestClient]:
    with serving(tiny_bundle) as opened:
        yield opened


@pytest.fixture(scope="module")
def explainer(client: TestClient) -> Explainer:
    """The server's own, so that numbers can be compared bit for bit."""
    return service_of(client).models.get("tiny").explainer


def images(content: list[bytes]) -> dict[str, Any]:
    data = [base64.b64encode(item).decode() for item in content]
    return {"name": "image", "shape": [len(content)], "datatype": "BYTES", "data": data}


def sent_binary(client: TestClient, path: str, tensor: dict[str, Any], raw: bytes, **entries: Any) -> Any:
    named = tensor | {"parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [named], "parameters": {"binary_data_output": True}} | entries).encode()
    return client.post(path, content=head + raw, headers={LENGTH: str(len(head))})


def tensors(response: Any) -> dict[str, Any]:
    """The outputs of an answer, in either form."""
    assert response.status_code == 200, response.text
    length = response.headers.get(LENGTH)
    head = json.loads(response.content if length is None else response.content[: int(length)])
    rest, found = (b"" if length is None else response.content[int(length) :]), {}
    for output in head["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if output["datatype"] == "BYTES":
            values: Any = output.get("data")
            if size is not None:
                part, values = rest[:size], []
                while part:
                    (own,) = struct.unpack_from("<I", part)
                    values.append(part[4 : 4 + own])
                    part = part[4 + own :]
            assert len(values) == np.prod(output["shape"])
            found[output["name"]] = values
        else:
            kind = np.dtype(TYPES[output["datatype"]])
            flat = np.frombuffer(rest[:size], kind) if size is not None else np.array(output["data"], kind)
            found[output["name"]] = flat.reshape(output["shape"])
        rest = rest[size or 0 :]
    assert rest == b""
    return found


def error(response: Any, status: int) -> str:
    assert response.status_code == status, response.text
    assert list(response.json()) == ["error"]
    message: str = response.json()["error"]
    assert tempfile.gettempdir() not in message
    assert "Traceback" not in message
    return message


def every_form(explainer: Explainer) -> dict[str, tuple[dict[str, Any], bytes, NDArray[Any] | bytes]]:
    """The first photograph as each input: its tensor, its bytes, and what the library takes."""
    pixels, inputs = PHOTOGRAPHS[0], explainer.preprocess(PHOTOGRAPHS[0])
    encoded = struct.pack("<I", len(FILES[0])) + FILES[0]
    own = {"name": "preprocessed", "datatype": "FP32"}
    return {
        "image": ({"name": "image", "shape": [1], "datatype": "BYTES"}, encoded, FILES[0]),
        "pixels": ({"name": "pixels", "shape": [60, 90, 3], "datatype": "UINT8"}, pixels.tobytes(), pixels),
        "batch": ({"name": "pixels", "shape": [1, 60, 90, 3], "datatype": "UINT8"}, pixels.tobytes(), pixels),
        "any name": ({"name": "image", "shape": [60, 90, 3], "datatype": "UINT8"}, pixels.tobytes(), pixels),
        "preprocessed": (own | {"shape": [1, 3, 32, 48]}, inputs.tobytes(), inputs),
        "without batch": (own | {"shape": [3, 32, 48]}, inputs.tobytes(), inputs),
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("form", ["image", "pixels", "batch", "any name", "preprocessed", "without batch"])
def test_every_form_of_image_in_json_and_as_bytes(client: TestClient, explainer: Explainer, form: str) -> None:
    tensor, raw, image = every_form(explainer)[form]
    is_input = tensor["datatype"] == "FP32"
    taken: dict[str, Any] = {"preprocessed": image} if is_input else {"image": image}
    wanted, map_ = explainer.predict(**taken), explainer.explain(**taken)
    data = [base64.b64encode(FILES[0]).decode()] if form == "image" else np.asarray(image).ravel().tolist()
    for path in (PREDICT, EXPLAIN):
        as_json = client.post(path, json={"inputs": [tensor | {"data": data}]})
        for answer in (as_json, sent_binary(client, path, tensor, raw)):
            found = tensors(answer)
            if path == PREDICT:
                np.testing.assert_array_equal(found["probabilities"], [wanted])
                assert found["logits"].shape == (1, 6)
            else:
                np.testing.assert_array_equal(found["low_resolution"], [low_resolution(map_)])
                np.testing.assert_array_equal(found["targets"], [map_.targets])


@pytest.mark.slow
def test_all_outputs_are_those_of_the_library(client: TestClient, explainer: Explainer) -> None:
    parameters = {"method": "scorecam", "top_k": 2, "batch_size": 4, "budget": 0.8, "overlay": "png"}
    names = [output["name"] for output in client.get("/v2/models/tiny-explain").json()["outputs"]]
    wanted = [explainer.explain(file, method="scorecam", top_k=2, batch_size=4, budget=0.8) for file in FILES]
    asked = {"inputs": [images(FILES)], "parameters": parameters, "id": "mine"}
    for binary in (False, True):
        outputs = [{"name": name, "parameters": {"binary_data": binary}} for name in names]
        found = tensors(client.post(EXPLAIN, json=asked | {"outputs": outputs}))
        assert list(found) == names
        np.testing.assert_array_equal(found["saliency"], [item.maps for item in wanted])
        np.testing.assert_array_equal(found["low_resolution"], [low_resolution(item) for item in wanted])
        np.testing.assert_array_equal(found["targets"], [item.targets for item in wanted])
        np.testing.assert_array_equal(found["probability"], [item.probabilities for item in wanted])
        np.testing.assert_array_equal(found["flat"], [item.flat for item in wanted])
        errors = np.array([item.stats.estimated_error for item in wanted], np.float32)
        np.testing.assert_array_equal(found["estimated_error"], errors)
        probabilities = np.exp(found["logits"]) / np.exp(found["logits"]).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(probabilities, [explainer.predict(file) for file in FILES], rtol=1e-5)
        labels = [label for item in wanted for label in item.labels]
        assert [text.decode() if binary else text for text in found["labels"]] == labels
        overlays = [item if binary else base64.b64decode(item) for item in found["overlay"]]
        assert len(overlays) == 6
        np.testing.assert_array_equal(read_image(overlays[1]), wanted[0].overlay(1))
        records = [json.loads(text) for text in found["explanation"]]
        assert [record["method"] for record in records] == ["scorecam"] * 3


@pytest.mark.slow
def test_the_usual_answer_is_small_and_says_what_was_done(client: TestClient) -> None:
    response = client.post(EXPLAIN, json={"inputs": [images(FILES[:1])], "id": "42"})
    answer = response.json()
    assert len(response.content) < 10_000
    assert (answer["model_name"], answer["id"]) == ("tiny-explain", "42")
    usual = ["targets", "labels", "probability", "estimated_error", "flat", "low_resolution"]
    assert [output["name"] for output in answer["outputs"]] == usual
    assert answer["parameters"]["method"] == "grad-cam"
    assert "chosen" in answer["parameters"]
    assert all(isinstance(value, str | int | float) for value in answer["parameters"].values())


@pytest.mark.slow
def test_parameters_say_what_is_sent(client: TestClient) -> None:
    def names(**parameters: str) -> set[str]:
        return set(tensors(client.post(EXPLAIN, json={"inputs": [images(FILES[:1])], "parameters": parameters})))

    usual = names()
    assert names(map="full") == usual - {"low_resolution"} | {"saliency"}
    assert names(map="none") == usual - {"low_resolution"}
    assert names(overlay="jpeg") == usual | {"overlay"}


@pytest.mark.slow
def test_classification_gives_the_highest_values_with_their_labels(client: TestClient, explainer: Explainer) -> None:
    outputs = [{"name": "probabilities", "parameters": {"classification": 2}}]
    found = tensors(client.post(PREDICT, json={"inputs": [images(FILES[:2])], "outputs": outputs}))
    rows = np.array([text.split(":") for text in found["probabilities"]]).reshape(2, 2, 3)
    for row, file in zip(rows, FILES, strict=False):
        best = explainer.top(file, top_k=2)
        assert [(int(index), label) for _, index, label in row] == [(item.index, item.label) for item in best]
        np.testing.assert_array_equal(
            row[:, 0].astype(np.float32), np.array([item.probability for item in best], np.float32)
        )


def test_a_prediction_with_a_deadline(client: TestClient) -> None:
    asked = {"inputs": [images(FILES[:1])]}
    in_time = client.post(PREDICT, json=asked | {"parameters": {"deadline_ms": 300_000}})
    np.testing.assert_array_equal(tensors(in_time)["logits"], tensors(client.post(PREDICT, json=asked))["logits"])


def test_a_body_that_is_one_image(client: TestClient) -> None:
    as_json = client.post(PREDICT, json={"inputs": [images(FILES[:1])]})
    alone = client.post(PREDICT, content=FILES[0], headers={LENGTH: "0"})
    np.testing.assert_array_equal(tensors(alone)["logits"], tensors(as_json)["logits"])


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_body_that_is_compressed(client: TestClient, encoding: str) -> None:
    packers: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}
    pack = packers[encoding]
    content = json.dumps({"inputs": [images(FILES[:1])]}).encode()
    found = client.post(PREDICT, content=pack(content), headers={"Content-Encoding": encoding})
    np.testing.assert_array_equal(tensors(found)["logits"], tensors(client.post(PREDICT, content=content))["logits"])
    error(client.post(PREDICT, content=content, headers={"Content-Encoding": encoding}), 400)
    error(client.post(PREDICT, content=content, headers={"Content-Encoding": "br"}), 415)


def test_a_job_gives_the_answer_that_the_request_gives(client: TestClient) -> None:
    outputs = [{"name": "saliency", "parameters": {"binary_data": True}}]
    asked = {"inputs": [images(FILES[:2])], "outputs": outputs}
    accepted = client.post(EXPLAIN, json=asked, headers={"Prefer": "respond-async, wait=60"})
    now = client.post(EXPLAIN, json=asked)
    np.testing.assert_array_equal(tensors(accepted)["saliency"], tensors(now)["saliency"])
    error(client.post(EXPLAIN, json=asked | {"parameters": {"method": "x"}}, headers={"Prefer": "respond-async"}), 422)


def test_metadata_health_and_versions(client: TestClient, explainer: Explainer) -> None:
    version = explainer.bundle.sha256[:12]
    assert client.get("/v2").json()["version"] == ortcam.__version__
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.head("/v2/health/ready").status_code == 200
    assert client.get("/v2/models").json() == {"models": ["tiny", "tiny-explain"]}
    for name in ("tiny", "tiny-explain"):
        record = client.get(f"/v2/models/{name}").json()
        assert (record["name"], record["versions"], record["platform"]) == (name, [version], "onnx_onnxv1")
        assert {item["name"]: item["shape"] for item in record["inputs"]} == {
            "image": [-1],
            "pixels": [-1, -1, -1, 3],
            "preprocessed": [-1, 3, 32, 48],
        }
        usual = tensors(
            client.post(f"/v2/models/{name}/versions/{version}/infer", json={"inputs": [images(FILES[:2])]})
        )
        for output in record["outputs"]:
            if isinstance(value := usual.get(output["name"]), np.ndarray):
                assert len(value.shape) == len(output["shape"])
                assert all(size in {-1, own} for size, own in zip(output["shape"], value.shape, strict=True))
        assert client.get(f"/v2/models/{name}/versions/{version}").json() == record
        assert client.get(f"/v2/models/{name}/ready").json() == {"name": name, "ready": True}
        assert client.get(f"/v2/models/{name}/versions/{version}/ready").json() == {"name": name, "ready": True}
        assert version in error(client.post(f"/v2/models/{name}/versions/1/infer", json={}), 404)
        error(client.get(f"/v2/models/{name}/versions/1/ready"), 404)


@pytest.mark.long
def test_a_version_is_gone_once_its_bundle_is_replaced(bundle_copy: Path) -> None:
    asked = {"inputs": [ONE]}
    with serving(bundle_copy) as client:
        (old,) = client.get("/v2/models/copy").json()["versions"]
        assert tensors(client.post(f"/v2/models/copy/versions/{old}/infer", json=asked))
        manifest = json.loads((bundle_copy / MANIFEST_NAME).read_text("utf-8"))
        labels = [f"new {label}" for label in manifest["labels"]]
        (bundle_copy / MANIFEST_NAME).write_text(json.dumps(manifest | {"labels": labels}))
        client.portal.call(service_of(client).models.reload)  # type: ignore[union-attr]
        (new,) = client.get("/v2/models/copy-explain").json()["versions"]
        assert new != old
        assert new in error(client.post(f"/v2/models/copy-explain/versions/{old}/infer", json=asked), 404)
        found = tensors(client.post(f"/v2/models/copy-explain/versions/{new}/infer", json=asked))
        assert found["labels"] == [labels[found["targets"].item()]]


@pytest.mark.parametrize(
    "path", ["/v2/models/x", "/v2/models/x/ready", "/v2/models/-explain", "/v2/models/tiny-explain-explain"]
)
def test_a_model_that_is_not_there(client: TestClient, path: str) -> None:
    assert "accepted: tiny, tiny-explain" in error(client.get(path), 404)


ONE = images(FILES[:1])
PIXELS = {"name": "pixels", "datatype": "UINT8", "data": [0]}
FLAT = {"name": "flat", "parameters": {"classification": 1}}
NOT_FINITE = {"name": "preprocessed", "shape": [1, 3, 32, 48], "datatype": "FP32", "data": [1e39] * 4608}


@pytest.mark.sample(every=2)
@pytest.mark.whole
@pytest.mark.parametrize(
    ("path", "asked", "status", "said"),
    [
        (PREDICT, {}, 400, "inputs is missing"),
        (PREDICT, {"inputs": [ONE] * 2}, 400, "2 inputs; accepted: one of 'image' of BYTES"),
        (PREDICT, {"inputs": [images([b"x"]) | {"name": "y"}]}, 400, "'y' of 'BYTES'; accepted"),
        (PREDICT, {"inputs": [images([b"x"]) | {"datatype": "FP64"}]}, 400, "'FP64'; accepted"),
        (PREDICT, {"inputs": [images([b"x"]) | {"shape": [1, 2]}]}, 400, "the shape [1, 2]; accepted: [n] or [n, 1]"),
        (PREDICT, {"inputs": [images([b"x"] * 17)]}, 422, "17 images; accepted: 1 to 16"),
        (PREDICT, {"inputs": [images([])]}, 422, "0 images"),
        (PREDICT, {"inputs": [images([FILES[0], b"rubbish"])]}, 422, "image[1]"),
        (PREDICT, {"inputs": [images([b"https://example.org/cat.jpg"])]}, 422, "not an image"),
        (PREDICT, {"inputs": [NOT_FINITE]}, 422, "infinite"),
        (PREDICT, {"inputs": [NOT_FINITE | {"shape": [1, 3, 4, 4]}]}, 400, "accepted: [n, 3, 32, 48] or [3, 32, 48]"),
        (PREDICT, {"inputs": [PIXELS | {"shape": [9999, 9999, 3]}]}, 413, "pixels"),
        (PREDICT, {"inputs": [PIXELS | {"shape": [4, 4]}]}, 400, "[h, w, 3]"),
        (PREDICT, {"inputs": [ONE], "parameters": {"top_k": 2}}, 422, "'top_k': a prediction takes deadline_ms alone"),
        (PREDICT, {"inputs": [ONE], "parameters": {"deadline_ms": -1}}, 422, "deadline_ms=-1"),
        (PREDICT, {"inputs": [ONE], "outputs": [{"name": "saliency"}]}, 400, "accepted: logits, probabilities"),
        (EXPLAIN, {"inputs": [ONE], "outputs": [{"name": "map"}]}, 400, "no output 'map'; accepted: targets"),
        (EXPLAIN, {"inputs": [ONE], "outputs": [FLAT]}, 400, "goes with logits"),
        (EXPLAIN, {"inputs": [ONE], "parameters": {"method": "x"}}, 422, "'x'"),
        (EXPLAIN, {"inputs": [ONE], "parameters": {"timeout": 5}}, 422, "timeout"),
        (EXPLAIN, {"inputs": [ONE], "parameters": {"target": {"a": 1}}}, 422, "target"),
        (EXPLAIN, {"inputs": [ONE], "parameters": {"target": 99}}, 422, "99"),
    ],
)  # fmt: skip
def test_what_is_refused(client: TestClient, path: str, asked: dict[str, Any], status: int, said: str) -> None:
    assert said in error(client.post(path, json=asked), status)
