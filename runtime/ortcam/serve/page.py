"""The page at /ui: that of `ortcam web`, with this server as its engine.

The page itself holds no secret and needs no token, so that it can ask its reader for one. What it says of the models
needs the token like any other request: `site.json` lists them, `models/NAME/bundle.json` is the manifest of one.
"""

import hashlib
import json
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse, Response

from ortcam._version import __version__
from ortcam.bundle import MANIFEST_NAME
from ortcam.serve.http.refusals import Refusal
from ortcam.serve.service import service_of
from ortcam.serve.settings import RequestLimits, Settings
from ortcam.web.site import SITE, Resource, Site, built_page, samples_of

__all__ = ["DATA_PATHS", "PAGE_PATHS", "add_page"]

_PLACE: Final = "/ui"
# Without a token: the page. Only with it, below the first: its data. A path that ends with a slash is a folder.
PAGE_PATHS: Final = frozenset({_PLACE, f"{_PLACE}/"})
DATA_PATHS: Final = frozenset({f"{_PLACE}/{SITE}", f"{_PLACE}/models/"})

_METHODS: Final = ["GET", "HEAD"]
_POLICY: Final = "Content-Security-Policy"
_WASM: Final = " 'wasm-unsafe-eval'"  # nothing is computed in the browser
_SHOWN_LIMITS: Final = ("body_bytes", "pixels", "samples", "passes", "seconds")  # that the page sees to, or tells of


def add_page(app: FastAPI, settings: Settings) -> None:
    """Add the page to an application.

    Args:
        app: that has the service.
        settings: of the server.

    Raises:
        BundleError: this installation lacks the page.
    """
    page = _served(built_page())

    @app.api_route(_PLACE, methods=_METHODS, include_in_schema=False)
    def to_the_page() -> Response:
        return RedirectResponse("ui/", headers={"Cache-Control": "no-cache"})  # relative: there may be a prefix

    @app.api_route(f"{_PLACE}/{SITE}", methods=_METHODS, include_in_schema=False)
    def site(request: Request) -> Response:
        return _json(request, json.dumps(_site(request, settings.limits, page)).encode())

    @app.api_route(f"{_PLACE}/models/{{name}}/{MANIFEST_NAME}", methods=_METHODS, include_in_schema=False)
    def manifest(request: Request, name: str) -> Response:
        model = service_of(request).models.get(name)
        # Tagged by what explanations say of their bundle, so that the page sees when another one has taken its place.
        return _json(request, model.manifest.to_json().encode(), model.bundle.sha256)

    @app.api_route(f"{_PLACE}/{{path:path}}", methods=_METHODS, include_in_schema=False)
    def of_the_page(request: Request, path: str) -> Response:
        if (resource := page.resources.get(path)) is None:
            raise Refusal(404, "this is no path of the page")
        return _resource(request, resource, page)


def _served(page: Site) -> Site:
    """The page without what computes in the browser."""
    resources = {path: resource for path, resource in page.resources.items() if not resource.compressed}
    policy = page.headers[_POLICY].replace(_WASM, "")
    return Site(resources, {**page.headers, _POLICY: policy})


def _site(request: Request, limits: RequestLimits, page: Site) -> dict[str, Any]:
    """What the page is told before it opens a model.

    Raises:
        Refusal: 503, a model is not open yet.
    """
    models = service_of(request).models
    offered = []
    for name in models.names:
        model = models.get(name)
        offered.append(
            {
                "name": name,
                "address": f"models/{name}/",
                "samples": samples_of(model.bundle, page),
                "runs": f"on this server with {model.explainer_of(None).providers[0]}",
            }
        )
    server = {"address": "../", "limits": {limit: getattr(limits, limit) for limit in _SHOWN_LIMITS}}
    return {"ortcam": __version__, "server": server, "bundles": offered}


def _json(request: Request, content: bytes, tag: str | None = None) -> Response:
    tag = tag or hashlib.sha256(content).hexdigest()
    return _unless_known(request, tag, content, {"Content-Type": "application/json", "Cache-Control": "no-cache"})


def _resource(request: Request, resource: Resource, page: Site) -> Response:
    try:
        file, _, tag = resource.open()
        with file:
            content = file.read()
    except OSError:
        raise Refusal(404, "this file of the page is gone") from None
    headers = {**page.headers, "Content-Type": resource.media_type, "Cache-Control": resource.caching}
    return _unless_known(request, tag, content, headers)


def _unless_known(request: Request, tag: str, content: bytes, headers: dict[str, str]) -> Response:
    """The content, or 304 where the browser has it."""
    headers["ETag"] = f'"{tag}"'
    if request.headers.get("If-None-Match", "").removeprefix("W/") == headers["ETag"]:
        del headers["Content-Type"]
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers)
