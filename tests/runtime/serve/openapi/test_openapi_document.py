"""The OpenAPI document: it has every path that the server has, and its schemas are those of JSON Schema."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from jsonschema import Draft202012Validator
from starlette.testclient import TestClient

from ortcam.bundle.shipped import bundle_path
from ortcam.methods import METHODS
from ortcam.serve import Settings, create_app
from ortcam.serve.openapi.document import document
from ortcam.serve.openapi.examples import EXAMPLES
from ortcam.serve.openapi.reference import POLICY, page, with_address

SETTINGS = Settings.of([bundle_path()])
NAME = SETTINGS.bundles[0].name
DOCUMENT = document(SETTINGS)
VERBS = ("get", "post", "delete")


def _routes(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Path and verb of every route of an application, whatever router it came with."""
    for route in app.router.routes:
        yield from _of_route(route)


def _of_route(route: Any) -> Iterator[tuple[str, str]]:
    if isinstance(route, APIRoute):
        path = re.sub(r"\{[^}]*\}", "{}", route.path)
        yield from ((path, verb.lower()) for verb in route.methods if verb != "HEAD")
    included = getattr(route, "original_router", None)  # FastAPI keeps the routers that it was given
    for inner in () if included is None else included.routes:
        yield from _of_route(inner)


def _operations() -> Iterator[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    for path, item in DOCUMENT["paths"].items():
        for verb in VERBS:
            if verb in item:
                yield path, verb, item[verb], item


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


def test_every_path_of_the_server_is_documented_and_no_other() -> None:
    routes = {route for route in _routes(create_app(SETTINGS)) if not route[0].startswith("/ui")}
    written = {(re.sub(r"\{[^}]*\}", "{}", path), verb) for path, verb, _, _ in _operations()}
    assert written - {("/ui/", "get")} == routes


@pytest.mark.slow
def test_every_schema_is_one_and_every_reference_leads_somewhere() -> None:
    for schema in DOCUMENT["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    references = set(_references(DOCUMENT))
    assert references
    for reference in references:
        found = DOCUMENT
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
    used = {reference.rpartition("/")[2] for reference in references}
    assert set(DOCUMENT["components"]["schemas"]) | set(DOCUMENT["components"]["responses"]) == used | {"401"}


def test_operations_have_a_name_of_their_own_and_the_parameters_of_their_path() -> None:
    names = [operation["operationId"] for _, _, operation, _ in _operations()]
    assert len(names) == len(set(names))
    assert set(EXAMPLES) <= set(names)
    for path, _, operation, item in _operations():
        given = [*item.get("parameters", ()), *operation.get("parameters", ())]
        assert re.findall(r"\{([^}]*)\}", path) == [one["name"] for one in given if one["in"] == "path"], path


def test_component_names_are_those_that_openapi_allows() -> None:
    names = [name for group in DOCUMENT["components"].values() for name in group]
    assert [name for name in names if not re.fullmatch(r"[A-Za-z0-9._-]+", name)] == []


def test_a_token_is_asked_for_where_the_server_has_one() -> None:
    with_token = document(Settings.of([bundle_path()], token="secret-token-of-the-test"))
    assert "secret" not in json.dumps(with_token)
    assert with_token["security"] == [{"token": []}]
    assert "401" in with_token["paths"]["/v1/models"]["get"]["responses"]
    assert with_token["paths"]["/v2/health/live"]["get"]["security"] == []
    assert "security" not in DOCUMENT


class _Page(HTMLParser):
    """What a page links to, and what it has of its own."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.places: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.add(tag)
        self.links += [value for name in ("href", "src") if (value := found.get(name)) is not None]
        self.places += [value for name in ("id",) if (value := found.get(name)) is not None]


@pytest.fixture(scope="module")
def shown() -> str:
    return with_address(page(DOCUMENT), "http://127.0.0.1:8080")


@pytest.mark.slow
def test_the_page_needs_no_other_site_and_no_script(shown: str) -> None:
    found = _Page(shown)
    assert found.tags & {"script", "img", "iframe", "link", "form"} == set()
    assert {link for link in found.links if not link.startswith("#")} == {"openapi.json"}
    assert {link[1:] for link in found.links if link.startswith("#")} <= set(found.places)
    assert len(found.places) == len(set(found.places))


def test_the_policy_allows_the_style_of_the_page(shown: str) -> None:
    style = re.search(r"<style>(.*?)</style>", shown, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in POLICY
    assert " style=" not in shown


def test_the_page_has_every_path_and_every_method(shown: str) -> None:
    for path, *_ in _operations():
        assert f"<code>{path}</code>" in shown
    for method in METHODS:
        assert f"<summary><code>{method.name}</code>" in shown
    assert "http://127.0.0.1:8080/v1/models/shapes:explain" in shown


def test_an_address_from_a_request_is_no_html() -> None:
    assert "<script>" not in with_address(page(DOCUMENT), "http://<script>")


def test_the_document_is_answered_and_the_page_knows_its_address() -> None:
    app = create_app(SETTINGS)
    client = TestClient(app, root_path="/below")  # without its lifespan: nothing is opened
    assert client.get("/below/openapi.json").json() == json.loads(json.dumps(DOCUMENT))
    answer = client.get("/below/docs")
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["content-type"].startswith("text/html")
    assert "http://testserver/below/v1/models" in answer.text
