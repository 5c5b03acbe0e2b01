"""Routes of the Open Inference Protocol (v2)."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from ortcam.results.explanation import Explanation
from ortcam.serve.http.body import read_body, watched
from ortcam.serve.http.refusals import Refusal
from ortcam.serve.jobs.asking import Show, answered
from ortcam.serve.models.served import ServedModel
from ortcam.serve.protocols.answers import explanation_record
from ortcam.serve.protocols.v2 import inference
from ortcam.serve.protocols.v2.envelope import JSON_LENGTH
from ortcam.serve.protocols.v2.metadata import model_metadata, outputs_of, server_metadata
from ortcam.serve.protocols.v2.response import Answer
from ortcam.serve.service import Service, call_of, service_of

__all__ = ["router"]

_EXPLAIN: Final = "-explain"  # behind the name of a bundle: the model that explains
_SHOWN: Final = 20  # names in a message
_PROBES: Final = ["GET", "HEAD"]

router = APIRouter()


@router.api_route("/v2", methods=_PROBES)
async def server() -> Response:
    """Name, version and protocol extensions of the server."""
    return JSONResponse(server_metadata())


@router.api_route("/v2/health/live", methods=_PROBES)
async def live() -> Response:
    """Whether the process runs."""
    return JSONResponse({"live": True})


@router.api_route("/v2/health/ready", methods=_PROBES)
async def ready(request: Request) -> Response:
    """Whether requests are answered: all models are open and warm, and the server is not about to end."""
    return _readiness({}, is_ready=service_of(request).ready)


@router.get("/v2/models")
async def models(request: Request) -> Response:
    """The names of all models. NAME predicts, NAME-explain explains."""
    names = service_of(request).models.names
    return JSONResponse({"models": [own for name in names for own in (name, name + _EXPLAIN)]})


@router.get("/v2/models/{name}")
@router.get("/v2/models/{name}/versions/{version}")
async def metadata(request: Request, name: str, version: str | None = None) -> Response:
    """Inputs and outputs of a model. A request has one of the inputs."""
    async with _leased(service_of(request), name, version) as (model, explains):
        outputs = outputs_of(model.manifest, explains=explains)
        return JSONResponse(model_metadata(name, inference.version_of(model), model.manifest, outputs))


@router.api_route("/v2/models/{name}/ready", methods=_PROBES)
@router.api_route("/v2/models/{name}/versions/{version}/ready", methods=_PROBES)
async def model_ready(request: Request, name: str, version: str | None = None) -> Response:
    """Whether a model answers requests."""
    service = service_of(request)
    try:
        async with _leased(service, name, version) as (model, _):
            return _readiness({"name": name}, is_ready=model.ready and not service.draining)
    except Refusal as refusal:
        if refusal.status != 503:
            raise
        return _readiness({"name": name}, is_ready=False)


@router.post("/v2/models/{name}/infer")
@router.post("/v2/models/{name}/versions/{version}/infer")
async def infer(request: Request, name: str, version: str | None = None) -> Response:
    """Predict with NAME, or explain with NAME-explain: one image or several.

    `parameters` of the request say how to explain. With `Prefer: respond-async` an explanation is a job.
    """
    service, call = service_of(request), call_of(request)
    limits = service.settings.limits
    async with _leased(service, name, version):
        pass  # an unknown model is told before the body is read
    body = await read_body(request, limits.body_bytes)
    asked = await inference.parse(body, request.headers.get(JSON_LENGTH))
    del body
    async with _leased(service, name, version) as (model, explains):
        plan = await inference.plan_of(model, name, asked, limits, explains=explains)
        if not explains:
            async with watched(request, call):
                return _response(await inference.predict(service, plan, call))

    async def work(show: Show | None) -> Response:
        async with _leased(service, name, version) as (model, _):
            # A bundle that was replaced meanwhile may have other classes.
            own = plan if plan.model is model else await inference.plan_of(model, name, asked, limits, explains=True)
            return _response(await inference.explain(service, own, call, _previews(show, own)))

    return await answered(request, model.name, call, work)


def _previews(show: Show | None, plan: inference.Plan) -> inference.Show | None:
    """What gets maps on the way: their records are made only for those who listen."""
    if show is None or plan.asked is None:
        return None
    listen, asked = show, plan.asked

    def preview(place: int, explanation: Explanation) -> None:
        listen(place, lambda: explanation_record(explanation, asked))

    return preview


def _response(answer: Answer) -> Response:
    return Response(answer.content, headers=answer.headers)


def _readiness(head: dict[str, Any], *, is_ready: bool) -> Response:
    headers = {} if is_ready else {"Retry-After": "2"}
    return JSONResponse(head | {"ready": is_ready}, 200 if is_ready else 503, headers)


def _bundle(service: Service, name: str) -> tuple[str, bool]:
    """The bundle of a model's name, and whether the model explains. A bundle's own name comes first.

    Raises:
        Refusal: 404, there is no such model.
    """
    names = service.models.names
    if name in names:
        return name, False
    if name.removesuffix(_EXPLAIN) in names:
        return name.removesuffix(_EXPLAIN), True
    known = [own for bundle in names for own in (bundle, bundle + _EXPLAIN)]
    more = ", ..." if len(known) > _SHOWN else ""
    raise Refusal(404, f"there is no model {name[:100]!r}; accepted: {', '.join(known[:_SHOWN])}{more}")


@contextlib.asynccontextmanager
async def _leased(service: Service, name: str, version: str | None) -> AsyncIterator[tuple[ServedModel, bool]]:
    """The model of a name, which stays open meanwhile, and whether it explains.

    Raises:
        Refusal: 404, there is no such model or version; 503, it is not open yet.
    """
    bundle, explains = _bundle(service, name)
    async with service.models.lease(bundle) as model:
        own = inference.version_of(model)
        if version not in {None, own}:
            raise Refusal(404, f"there is no version {str(version)[:100]!r} of model {name!r}; accepted: {own}")
        yield model, explains
