"""The application: what is the same for every route, and what becomes of requests while it opens and ends."""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from ortcam.serve import Settings, create_app
from ortcam.serve.http.refusals import Refusal

TOKEN = {"Authorization": "Bearer secret"}
ORIGIN = "https://page.example"


@contextlib.contextmanager
def opened(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, raise_server_exceptions=False) as client:
        end = time.monotonic() + 60
        while client.get("/v2/health/ready").status_code != 200:
            assert time.monotonic() < end, app.state.service.failure
            time.sleep(0.005)
        yield client


@pytest.fixture(scope="module")
def app(tiny_bundle: Path) -> FastAPI:
    app = create_app(Settings.of([tiny_bundle], token="secret", cors=[ORIGIN]))

    async def breaks() -> None:
        raise ZeroDivisionError("/srv/secret/place")

    async def refuses() -> None:
        raise Refusal(429, "later", retry_after=1.5)

    app.add_api_route("/breaks", breaks)
    app.add_api_route("/refuses", refuses)
    return app


@pytest.fixture(scope="module")
def client(app: FastAPI) -> Iterator[TestClient]:
    with opened(app) as client:
        yield client


@pytest.mark.slow
def test_probes_need_no_token_and_all_else_does(client: TestClient) -> None:
    assert client.get("/v2/health/live").status_code == 200
    assert client.get("/v2/health/ready").status_code == 200
    for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic secret"}):
        for path in ("/v1/models", "/metrics", "/ui/site.json", "/nowhere", "//v2/health/live"):
            refused = client.get(path, headers=given)
            assert refused.status_code == 401, path
            assert refused.headers["www-authenticate"] == "Bearer"
            assert set(refused.json()) == {"error"}
    assert client.get("/v1/models", headers=TOKEN).json() == {"models": ["tiny"]}


@pytest.mark.slow
def test_a_page_without_the_token_asks_for_it(client: TestClient) -> None:
    assert client.get("/ui/").status_code == 200


def test_every_answer_bears_an_id_and_the_security_headers(client: TestClient) -> None:
    for path in ("/v1/models", "/nowhere", "/breaks", "/ui/"):
        answer = client.get(path, headers=TOKEN | {"X-Request-Id": "mine-1"})
        assert answer.headers["x-request-id"] == "mine-1"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "content-security-policy" in answer.headers
    odd = client.get("/v1/models", headers=TOKEN | {"X-Request-Id": 'a"b'}).headers["x-request-id"]
    assert odd.isalnum()


@pytest.mark.parametrize(
    ("method", "path", "status", "told"),
    [
        ("GET", "/nowhere", 404, "there is no such path"),
        ("PUT", "/v1/models", 405, "PUT"),
        ("GET", "/refuses", 429, "later"),
        ("GET", "/breaks", 500, "internal error, request id mine-2"),
    ],
)
def test_every_error_is_one_sentence_of_json(
    method: str, path: str, status: int, told: str, client: TestClient
) -> None:
    answer = client.request(method, path, headers=TOKEN | {"X-Request-Id": "mine-2"})
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert told in answer.json()["error"]
    assert "/srv" not in answer.text
    assert answer.headers.get("retry-after") == ("2" if status == 429 else None)


def test_pages_of_a_named_origin_may_ask_and_no_others(client: TestClient) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    allowed = client.options("/v1/models/tiny:explain", headers=asked | {"Origin": ORIGIN})
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, ORIGIN)
    refused = client.options("/v1/models/tiny:explain", headers=asked | {"Origin": "https://other.example"})
    assert refused.status_code == 400
    assert "access-control-allow-origin" not in refused.headers
    without = client.get("/v1/models", headers={"Origin": ORIGIN})  # 401, which the page can read
    assert without.headers["access-control-allow-origin"] == ORIGIN
    broken = client.get("/breaks", headers=TOKEN | {"Origin": ORIGIN})
    assert (broken.status_code, broken.headers["access-control-allow-origin"]) == (500, ORIGIN)


def test_pages_of_other_sites_start_no_work(client: TestClient) -> None:
    from_a_page = TOKEN | {"Sec-Fetch-Site": "cross-site"}
    refused = client.post(
        "/v1/models/tiny:predict", content=b"x", headers=from_a_page | {"Origin": "https://evil.example"}
    )
    assert refused.status_code == 403
    assert "--cors" in refused.json()["error"]
    allowed = client.post("/v1/models/tiny:predict", content=b"x", headers=from_a_page | {"Origin": ORIGIN})
    assert allowed.status_code == 422  # "x" is no image
    own = client.post("/v1/models/tiny:predict", content=b"x", headers=TOKEN | {"Sec-Fetch-Site": "same-origin"})
    assert own.status_code == 422


def test_the_root_leads_a_browser_to_the_page_and_a_program_to_the_protocols(client: TestClient) -> None:
    page = client.get("/", headers=TOKEN | {"Accept": "text/html"}, follow_redirects=False)
    assert (page.status_code, page.headers["location"]) == (303, "ui/")
    assert client.get("/", headers=TOKEN).json()["v1"] == "/v1/models"


def test_a_request_is_counted_by_its_kind(client: TestClient) -> None:
    client.get("/v1/models/tiny", headers=TOKEN)
    text = client.get("/metrics", headers=TOKEN).text
    assert 'ortcam_requests_total{kind="metadata",model="tiny",status="200"}' in text


def test_a_refusal_is_counted_once(client: TestClient) -> None:
    def refused() -> dict[str, float]:
        lines = client.get("/metrics", headers=TOKEN).text.splitlines()
        found = (line.rpartition(" ") for line in lines if line.startswith("ortcam_requests_refused_total{"))
        return {name.split('"')[1]: float(count) for name, _, count in found}

    before = refused()
    assert client.post("/v1/models/tiny:predict", content=b"{", headers=TOKEN).status_code == 400
    too_large = TOKEN | {"Content-Length": str(1 << 30)}
    assert client.post("/v1/models/tiny:predict", content=b"", headers=too_large).status_code == 413
    assert client.get("/v1/models").status_code == 401
    after = refused()
    more = {reason: count - before.get(reason, 0) for reason, count in after.items() if count != before.get(reason, 0)}
    assert more == {"input": 1, "size": 1, "token": 1}


def test_a_bundle_that_cannot_be_opened_leaves_the_server_alive_and_not_ready(bundle_copy: Path) -> None:
    (bundle_copy / "bundle.json").write_text("{}")
    with TestClient(create_app(Settings.of([bundle_copy]))) as client:
        service: Any = client.app.state.service  # type: ignore[attr-defined]
        client.portal.call(asyncio.wait_for, service.opened.wait(), 60)  # type: ignore[union-attr]
        assert "bundle.json" in str(service.failure)
        assert client.get("/v2/health/live").status_code == 200
        refused = client.get("/v2/health/ready")
        assert refused.status_code == 503
        assert str(bundle_copy) not in refused.text


@pytest.mark.slow
def test_a_server_that_drains_is_not_ready_and_takes_no_work(tiny_bundle: Path) -> None:
    with opened(create_app(Settings.of([tiny_bundle], drain_seconds=30))) as client:
        service: Any = client.app.state.service  # type: ignore[attr-defined]
        client.portal.call(service.drain)  # type: ignore[union-attr]
        assert client.get("/v2/health/live").status_code == 200
        assert client.get("/v2/health/ready").status_code == 503
        refused = client.post("/v1/models/tiny:explain", content=b"x")
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) > 0
        assert refused.headers["connection"] == "close"
        assert client.get("/v1/models").status_code == 200
