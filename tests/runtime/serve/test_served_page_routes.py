"""/ui without a browser: what is answered, to whom, and under which policy."""

import json
import shutil

import pytest
from fastapi.testclient import TestClient
from tests.conftest import REPOSITORY, TINY_BUNDLE

from ortcam.bundle import read_bundle
from ortcam.serve import Settings, create_app
from ortcam.web.site import built_page, page_folder


def client(**settings):
    """A client of a server that has not been started: the page itself needs no model."""
    return TestClient(create_app(Settings.of([TINY_BUNDLE], **settings)))


@pytest.fixture(scope="module")
def guarded():
    return client(token="a-secret")


def test_the_page_comes_without_a_token_and_under_its_policy(guarded):
    moved = guarded.get("/ui", follow_redirects=False)
    assert (moved.status_code, moved.headers["Location"]) == (307, "ui/")  # relative: a proxy may have a prefix
    answer = guarded.get("/ui/")
    assert answer.status_code == 200
    assert answer.content == (page_folder() / "index.html").read_bytes()
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "wasm" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-cache"


def test_every_file_that_the_page_names_is_there_but_nothing_that_computes_in_the_browser(guarded):
    page = built_page()
    for path, resource in page.resources.items():
        answer = guarded.get(f"/ui/{path}")
        assert answer.status_code == (404 if resource.compressed else 200), path
    assert any(resource.compressed for resource in page.resources.values())


@pytest.mark.sample(every=2)
@pytest.mark.whole
@pytest.mark.parametrize(
    "path",
    [
        "/ui/site.json",
        "/ui/%73ite.json",
        "/ui/models/tiny/bundle.json",
        "/ui/models/",
        "/ui/models/other/bundle.json",
    ],
)
def test_what_it_says_of_the_models_needs_the_token(guarded, path):
    refused = guarded.get(path)
    assert refused.status_code == 401
    assert list(refused.json()) == ["error"]
    assert guarded.get(path, headers={"Authorization": "Bearer a-secre"}).status_code == 401
    assert guarded.get(path, headers={"Authorization": "Bearer a-secret"}).status_code in (404, 503)  # not started


@pytest.mark.parametrize(
    "path", ["/ui/../pyproject.toml", "/ui/..%2f..%2fsite.py", "/ui/_headers", "/ui//etc/passwd", "/ui/%00", "/ui/x"]
)
def test_no_other_file_is_named(guarded, path):
    answer = guarded.get(path)
    assert answer.status_code in (401, 404)
    assert list(answer.json()) == ["error"]


def test_behind_a_prefix_the_page_is_as_open_and_its_data_as_closed():
    app = create_app(Settings.of([TINY_BUNDLE], token="a-secret"))
    mounted = TestClient(app, root_path="/cam")
    assert mounted.get("/cam/ui/").status_code == 200
    assert mounted.get("/cam/v2/health/live").status_code == 200
    assert mounted.get("/cam/ui/site.json").status_code == 401
    assert mounted.get("/cam/v1/models").status_code == 401
    assert mounted.get("/camera/ui/").status_code == 401


def test_what_did_not_change_is_not_sent_again(guarded):
    first = guarded.get("/ui/")
    again = guarded.get("/ui/", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    head = guarded.head("/ui/")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Length"] == str(len(first.content))


def test_nothing_but_reading_is_accepted(guarded):
    assert guarded.post("/ui/", headers={"Authorization": "Bearer a-secret"}).status_code == 405


def test_without_the_page_there_is_none():
    without = client(ui=False)
    assert [without.get(path).status_code for path in ("/ui", "/ui/", "/ui/site.json")] == [404, 404, 404]


@pytest.mark.long
def test_the_page_is_told_of_the_models_and_their_limits(tmp_path):
    mine = shutil.copytree(TINY_BUNDLE, tmp_path / "mine.ortcam")
    shapes = REPOSITORY / "models" / "shapes.ortcam"
    settings = Settings.of([shapes, mine], limits={"pixels": 1000, "samples": 7})
    with TestClient(create_app(settings)) as client:
        client.portal.call(client.app.state.service.opened.wait)
        site = client.get("/ui/site.json").json()
        assert site["server"] == {
            "address": "../",
            "limits": {"body_bytes": 2**24, "pixels": 1000, "samples": 7, "passes": 20_000, "seconds": 60},
        }
        assert [item["name"] for item in site["bundles"]] == ["shapes", "mine"]
        for item, path in zip(site["bundles"], (shapes, mine), strict=True):
            answer = client.get(f"/ui/{item['address']}bundle.json")
            bundle = read_bundle(path)
            assert json.loads(bundle.manifest.to_json()) == answer.json()
            assert answer.headers["ETag"] == f'"{bundle.sha256}"'
            for sample in item["samples"]:
                assert client.get(f"/ui/{sample}").headers["Content-Type"].startswith("image/")
        assert client.get("/ui/models/other/bundle.json").status_code == 404
        assert str(tmp_path) not in client.get("/ui/site.json").text
