"""KServe's protocol v1: models, predict and explain; and the same with the bytes of an image in place of JSON.

Source: the KServe documentation, "V1 inference protocol" (concepts/architecture/data-plane/v1-protocol).
"""

import asyncio
import dataclasses
import functools
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response

from ortcam.bundle import Manifest
from ortcam.errors import OptionError
from ortcam.results.explanation import Explanation
from ortcam.serve.http.body import watched
from ortcam.serve.http.refusals import Refusal
from ortcam.serve.jobs.asking import Show, answered
from ortcam.serve.protocols.answers import explanation_record, overlay_image, prediction_record
from ortcam.serve.protocols.asked import Asked, read_deadline, read_flag, read_top_k
from ortcam.serve.protocols.inputs import Inputs, off_loop, read_inputs
from ortcam.serve.scheduling.calls import Call
from ortcam.serve.service import Predicted, Service, call_of, service_of
from ortcam.support.ranges import shown

__all__ = ["PREDICT_PARAMETERS", "overlay_wanted", "router"]

router = APIRouter()

_TOP_K: Final = 5
_TEXT: Final = 5  # bytes of a number in JSON, by byte of its float32
_VERBS: Final = (":predict", ":explain")
# What `:predict` takes, and what each parameter does.
PREDICT_PARAMETERS: Final[dict[str, str]] = {
    "top_k": f"how many of the most probable classes are named, {_TOP_K} by default",
    "probabilities": "true: the probability of every class, too, in the order of the labels",
    "values": "true: all values, too, row by row, of a model whose outputs are values",
    "deadline_ms": "milliseconds from arrival; a prediction that waits longer is refused",
}


@router.get("/v1/models")
async def models(request: Request) -> dict[str, list[str]]:
    """List the models."""
    return {"models": list(service_of(request).models.names)}


@router.get("/v1/models/{name}")
async def model(request: Request, name: str) -> dict[str, str | bool]:
    """Say whether a model is ready: 200 where it is, 503 where it is still being opened."""
    service = service_of(request)
    if name.endswith(_VERBS):
        raise Refusal(405, "GET: send an image to this path, with POST")
    found = service.models.get(name)
    if not (found.ready and service.ready):
        raise Refusal(503, f"model {name!r} is not ready", retry_after=2)
    return {"name": found.name, "ready": True}


@router.post("/v1/models/{name}:predict")
async def predict(request: Request, name: str) -> Response:
    """Predict images: the most probable classes of each."""
    service, call = service_of(request), call_of(request)
    manifest = service.models.get(name).manifest
    inputs = await read_inputs(request, service.settings.limits, samples=manifest.preprocessing.needs_samples)
    top_k, complete, deadline = _predict_parameters(inputs.parameters, manifest)
    call.expect(deadline)
    predictions: list[bytes] = []
    size = 0
    async with watched(request, call), service.models.lease(name) as leased:
        for source in inputs.sources:
            found = await service.predict(leased, source, call)
            write = functools.partial(_predicted, found, top_k=top_k, complete=complete)
            record = await off_loop(found.logits.nbytes * _TEXT if complete else 0, write)
            size = service.grown(call, size, len(record))
            predictions.append(record)
    return Response(b'{"predictions":[%b]}' % b",".join(predictions), media_type="application/json")


@router.post("/v1/models/{name}:explain")
async def explain(request: Request, name: str) -> Response:
    """Explain images: a map of each, at once, as a job (`Prefer: respond-async`), or as a stream of better ones."""
    service, call = service_of(request), call_of(request)
    found = service.models.get(name)
    needs_samples = found.manifest.preprocessing.needs_samples
    inputs = await read_inputs(request, service.settings.limits, samples=needs_samples)
    asked = await Asked.beside(inputs.parameters, service.settings.limits, found.manifest)
    picture = overlay_wanted(request.headers.getlist("accept"))
    if picture is not None:
        _check_one(inputs, asked)
    explaining = _Explaining(service, name, inputs, found.manifest, asked, picture, call)
    return await answered(request, name, call, explaining.answer)


def overlay_wanted(accept: Sequence[str]) -> Literal["png", "jpeg"] | None:
    """Whether the header `Accept` asks for an image rather than for JSON, and for which.

    JSON wins a tie, and where nothing that it names can be answered.

    Args:
        accept: the header, which may be there several times.

    Example:
        >>> overlay_wanted(["image/jpeg"]), overlay_wanted(["image/*, application/json;q=0.5"]), overlay_wanted(["*/*"])
        ('jpeg', 'png', None)
    """
    found: dict[str, float] = {}
    for item in ",".join(accept).split(","):
        kind, *parameters = (part.strip().lower() for part in item.split(";"))
        quality = next((part[2:] for part in parameters if part.startswith("q=")), "1")
        try:
            found[kind] = min(max(float(quality), 0.0), 1.0)
        except ValueError:
            continue

    def liked(media_type: str) -> float:
        ranges = (media_type, f"{media_type.partition('/')[0]}/*", "*/*")
        return next((found[item] for item in ranges if item in found), 0.0)

    best = max(("application/json", "image/png", "image/jpeg"), key=liked)
    if best == "application/json" or liked(best) == 0:
        return None
    return "png" if best == "image/png" else "jpeg"


@dataclasses.dataclass(frozen=True)
class _Explaining:
    """The work for one request, which may be made after the request was answered."""

    service: Service
    name: str
    inputs: Inputs
    manifest: Manifest
    asked: Asked
    picture: Literal["png", "jpeg"] | None
    call: Call

    async def answer(self, show: Show | None) -> Response:
        """Explain the images one after the other."""
        predictions: list[dict[str, Any]] = []
        records: list[bytes] = []
        size = 0
        async with self.service.models.lease(self.name) as leased:
            asked = self.asked
            if leased.manifest is not self.manifest:  # the model was loaded anew meanwhile
                asked = await Asked.beside(self.inputs.parameters, self.service.settings.limits, leased.manifest)
            for place, source in enumerate(self.inputs.sources):

                def preview(explanation: Explanation, place: int = place) -> None:
                    if show is not None:
                        show(place, lambda: explanation_record(explanation, asked))

                passed = 1000 * (time.monotonic() - self.call.arrived)
                own, before = asked.share(passed, len(self.inputs.sources) - place), len(self.call.notes)
                explanation = await self.service.explain(
                    leased, source, own, self.call, None if show is None else preview
                )
                with self.call.timing("encode"):
                    if self.picture is not None:
                        content, media_type = await asyncio.to_thread(overlay_image, explanation, self.picture)
                        return Response(content, media_type=media_type)
                    notes = self.call.notes[before:]
                    written = functools.partial(_written, explanation, asked, notes)
                    prediction, record = await off_loop(_weight(explanation, asked), written)
                    del explanation, written  # and its photograph
                size = self.service.grown(self.call, size, len(record))
                predictions.append(prediction)
                records.append(record)
        content = b'{"predictions":%b,"explanations":[%b]}' % (_json(predictions), b",".join(records))
        return Response(content, media_type="application/json")


def _weight(explanation: Explanation, asked: Asked) -> int:
    """About how many bytes are drawn or encoded for an answer."""
    drawn = 0 if asked.overlay == "none" else explanation.image.nbytes
    return drawn + (explanation.maps.nbytes if asked.map == "full" else 0)


def _written(explanation: Explanation, asked: Asked, notes: Sequence[str]) -> tuple[dict[str, Any], bytes]:
    """What protocol v1 answers to `:explain` for one image: the classes that are explained, and JSON of all about them.

    An answer is written image by image, since other threads wait while JSON is encoded.
    """
    record = explanation_record(explanation, asked) | {"notes": list(notes)}
    named = ("index", "label", "probability", "value")
    classes = [{name: target[name] for name in named if name in target} for target in record["targets"]]
    return {"classes": classes}, _json(record)


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _check_one(inputs: Inputs, asked: Asked) -> None:
    """Refuse several overlays where the answer is an image.

    Raises:
        OptionError: several images or classes.
    """
    target = asked.request.target
    classes = asked.request.top_k if target is None else len(target)
    if len(inputs.sources) > 1 or classes > 1:
        raise OptionError(
            f"Accept asks for an image, and this request for {len(inputs.sources)} images with {classes} classes each: "
            "one image and one class give one overlay; overlay=png gives several in JSON"
        )


def _predicted(found: Predicted, *, top_k: int, complete: bool) -> bytes:
    """JSON of the prediction of one image."""
    return _json(
        prediction_record(
            found.logits,
            found.probabilities,
            found.labels,
            top_k=top_k,
            complete=complete,
            are_probabilities=found.are_probabilities,
            shape=found.shape,
            parts=found.parts,
        )
    )


def _predict_parameters(parameters: Mapping[str, object], manifest: Manifest) -> tuple[int, bool, float | None]:
    """How many classes are named, whether all probabilities or values are answered, and the deadline.

    Raises:
        OptionError: another parameter, or a value that is not accepted.
    """
    given = {name: value for name, value in parameters.items() if value is not None}
    for name in given:
        if name not in PREDICT_PARAMETERS:
            raise OptionError(f"unknown parameter {shown(name)} of predict; accepted: {', '.join(PREDICT_PARAMETERS)}")
    top_k = read_top_k("top_k", given.get("top_k", _TOP_K))
    deadline = read_deadline("deadline_ms", given["deadline_ms"]) if "deadline_ms" in given else None
    own, other = ("probabilities", "values") if manifest.activation != "identity" else ("values", "probabilities")
    if other in given and read_flag(other, given[other]):
        raise OptionError(f"{other}: the outputs of this model are {own}; accepted is {own}=true")
    return top_k, read_flag(own, given.get(own, False)), deadline
