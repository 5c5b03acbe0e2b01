"""`create_app`: the ASGI application. Any ASGI server runs it, if it runs its lifespan, too."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from ortcam._version import __version__
from ortcam.errors import OrtcamError
from ortcam.serve.http.access import Access
from ortcam.serve.http.logs import log
from ortcam.serve.http.refusals import Refusal, refusal_of
from ortcam.serve.http.security import OPEN_PATHS, Headers, Origins, Token, error_body
from ortcam.serve.jobs.routes import router as jobs
from ortcam.serve.monitoring import router as monitoring
from ortcam.serve.openapi import add_documentation
from ortcam.serve.page import DATA_PATHS, PAGE_PATHS, add_page
from ortcam.serve.protocols.v1 import router as v1
from ortcam.serve.protocols.v2.routes import router as v2
from ortcam.serve.scheduling.calls import Abandoned
from ortcam.serve.service import Service
from ortcam.serve.settings import Settings

__all__ = ["create_app"]


def create_app(settings: Settings) -> FastAPI:
    """Make the application. It opens its models in its lifespan, and drains when the lifespan ends.

    Args:
        settings: of `Settings.of`.

    Example:
        ```python
        from ortcam.serve import Settings, create_app

        app = create_app(Settings.of(["resnet18.ortcam"]))
        ```
    """
    app = FastAPI(
        title="ortcam serve",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        lifespan=_lifespan,
        middleware=_middleware(settings),
    )
    app.state.settings = settings
    for router in (v1, v2, jobs, monitoring):
        app.include_router(router)
    app.add_api_route("/", _root, methods=["GET", "HEAD"], include_in_schema=False)
    add_documentation(app)
    if settings.ui:
        add_page(app, settings)
    for kind, answer in _ANSWERS.items():
        app.add_exception_handler(kind, answer)
    return app


async def _root(request: Request) -> Response:
    """Where everything is: the page for a browser, else JSON."""
    settings: Settings = request.app.state.settings
    if settings.ui and "text/html" in request.headers.get("accept", ""):
        return RedirectResponse("ui/", 303)
    places = {"v1": "/v1/models", "v2": "/v2", "metrics": "/metrics", "docs": "/docs", "openapi": "/openapi.json"}
    return JSONResponse({"name": "ortcam", "version": __version__, **places, **({"ui": "/ui/"} if settings.ui else {})})


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service = Service(app.state.settings)
    app.state.service = service
    service.start()
    try:
        yield
    finally:
        await service.close()
        app.state.service = None


def _middleware(settings: Settings) -> list[Middleware]:
    """What every request goes through, from the outside in."""
    found = [Middleware(Headers, cors=bool(settings.cors))]
    if settings.cors:
        found.append(
            Middleware(
                CORSMiddleware,
                allow_origins=list(settings.cors),
                allow_methods=["GET", "POST", "DELETE"],
                allow_headers=["*"],
                expose_headers=["X-Request-Id", "Location", "Retry-After", "Inference-Header-Content-Length"],
            )
        )
    # Inside CORS, so that a page can read every refusal; the questions of browsers beforehand are not logged.
    found.append(Middleware(Access))
    found.append(Middleware(Origins, origins=settings.cors))
    if settings.token is not None:
        # The page itself holds no secret; it asks for the token, and sends it with what it asks.
        open_paths = OPEN_PATHS | PAGE_PATHS if settings.ui else OPEN_PATHS
        found.append(Middleware(Token, token=settings.token, open_paths=open_paths, closed_paths=DATA_PATHS))
    return found


def _refuse(request: Request, error: Any) -> Response:
    refusal: Refusal = error
    request.state.log = {"refused": refusal.message}
    return Response(error_body(refusal.message), refusal.status, headers=refusal.headers, media_type="application/json")


async def _of_refusal(request: Request, error: Any) -> Response:
    return _refuse(request, error)


async def _of_library(request: Request, error: Any) -> Response:
    refusal = refusal_of(error)
    if refusal.status >= 500:  # the sentence of the error stays on this machine
        log("failed", request=request.state.request_id, error=error)
    return _refuse(request, refusal)


async def _of_http(request: Request, error: Any) -> Response:
    messages = {404: f"{request.url.path[:200]}: there is no such path", 405: f"{request.method}: not for this path"}
    refusal = Refusal(error.status_code, messages.get(error.status_code, str(error.detail)))
    response = _refuse(request, refusal)
    response.headers.update(error.headers or {})
    return response


async def _of_parameters(request: Request, error: Any) -> Response:
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    return _refuse(request, Refusal(422, f"{place}: {first['msg']}"))


async def _of_abandoned(request: Request, _: Any) -> Response:
    return _refuse(request, Refusal(499, "the client has gone"))  # nobody reads it, but the log


_ANSWERS: dict[type[Exception], Any] = {
    Refusal: _of_refusal,
    Abandoned: _of_abandoned,
    OrtcamError: _of_library,
    HTTPException: _of_http,
    RequestValidationError: _of_parameters,
}
