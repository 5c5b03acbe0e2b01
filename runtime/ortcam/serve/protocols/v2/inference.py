"""An inference request, from the bytes of its body to the answer: predictions of NAME, explanations of NAME-explain."""

import asyncio
import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any, Final

from ortcam.results.explanation import Explanation, Stats
from ortcam.serve.decoding.sources import Source
from ortcam.serve.models.served import ServedModel
from ortcam.serve.protocols.asked import Asked
from ortcam.serve.protocols.inputs import off_loop
from ortcam.serve.protocols.v2 import outputs
from ortcam.serve.protocols.v2.envelope import AskedOutput, Inference, read_inference
from ortcam.serve.protocols.v2.images import sources_of
from ortcam.serve.protocols.v2.response import Answer, answer_of
from ortcam.serve.protocols.v2.tensors import OutputTensor
from ortcam.serve.scheduling.calls import Call
from ortcam.serve.service import Service
from ortcam.serve.settings import RequestLimits

__all__ = ["Plan", "explain", "parse", "plan_of", "predict", "version_of"]

_VERSION_LENGTH: Final = 12

Show = Callable[[int, Explanation], None]


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """What an inference request asks of one model, checked before any image is read.

    Attributes:
        model: which it was checked for.
        name: that the client gave.
        id: of the client.
        sources: the images.
        asked: of an explanation; None: a prediction.
        outputs: to be sent.
        deadline_ms: of a prediction, milliseconds from the arrival of the request; None: no hurry.
    """

    model: ServedModel
    name: str
    id: str | None
    sources: tuple[Source, ...]
    asked: Asked | None
    outputs: tuple[AskedOutput, ...]
    deadline_ms: float | None = None

    @property
    def head(self) -> dict[str, Any]:
        """What stands at the beginning of the answer."""
        head = {"model_name": self.name, "model_version": version_of(self.model)}
        return head if self.id is None else head | {"id": self.id}


def version_of(model: ServedModel) -> str:
    """The version of a model: the beginning of the SHA-256 of its bundle. It changes where the bundle does."""
    return model.bundle.sha256[:_VERSION_LENGTH]


async def parse(body: bytes, json_length: str | None) -> Inference:
    """Parse the body of a request, beside the event loop if it is long.

    Args:
        body: unpacked.
        json_length: the header `Inference-Header-Content-Length`, or None.

    Raises:
        Refusal: 400, not what the protocol says; 413, more JSON than a server should parse.
    """
    return await off_loop(len(body), lambda: read_inference(body, json_length))


async def plan_of(
    model: ServedModel, name: str, inference: Inference, limits: RequestLimits, *, explains: bool
) -> Plan:
    """Check a request for a model.

    Args:
        model: leased.
        name: that the client gave.
        inference: the request.
        limits: of the server.
        explains: whether it is the model that explains.

    Raises:
        Refusal: 400, an input or output that the model does not have; 413 or 422, more than the server allows.
        OrtcamError: a parameter that is not accepted.
    """
    asked = await Asked.beside(inference.parameters, limits, model.manifest) if explains else None
    deadline = None if explains else outputs.prediction_deadline(inference)
    if asked is None:
        sent = outputs.prediction_outputs(inference, model.manifest)
    else:
        sent = outputs.explanation_outputs(inference, asked, model.manifest)
    sources = await asyncio.to_thread(sources_of, inference, model.manifest.preprocessing, limits)
    return Plan(model, name, inference.id, tuple(sources), asked, sent, deadline)


async def predict(service: Service, plan: Plan, call: Call) -> Answer:
    """Predict all images of a request, one after the other.

    Raises:
        Refusal: as `Service.predict`.
        OrtcamError: as `Service.predict`.
    """
    parts: list[list[OutputTensor]] = []
    size = 0
    for source in plan.sources:
        made = outputs.predicted(await service.predict(plan.model, source, call), plan.outputs)
        taken = zip(made, plan.outputs, strict=True)
        size = service.grown(call, size, sum(tensor.size(binary=output.binary) for tensor, output in taken))
        parts.append(made)
    head = plan.head | ({"parameters": {"notes": "; ".join(call.notes)}} if call.notes else {})
    return await _encoded(head, parts, plan, call)


async def explain(service: Service, plan: Plan, call: Call, show: Show | None = None) -> Answer:
    """Explain all images of a request, one after the other. They share the deadline.

    Of each image only what is answered is kept.

    Args:
        service: that does it.
        plan: with `asked`.
        call: of the request, or of its job.
        show: called with the place of an image and a map on the way.

    Raises:
        Refusal: as `Service.explain`.
        OrtcamError: as `Service.explain`.
    """
    asked = plan.asked
    if asked is None:
        raise TypeError("this plan is one of a prediction")
    with_logits = any(output.name == "logits" for output in plan.outputs)
    parts: list[list[OutputTensor]] = []
    size = 0
    done: list[Stats] = []
    method: tuple[str, str | None] = ("", None)
    for place, source in enumerate(plan.sources):
        before = len(call.notes)
        its = asked.share((time.monotonic() - call.arrived) * 1000, len(plan.sources) - place)
        preview = None if show is None else functools.partial(show, place)
        explanation = await service.explain(plan.model, source, its, call, preview)
        notes = call.notes[before:]
        found = await service.predict(plan.model, source, call) if with_logits else None
        with call.timing("encode"):
            made = await asyncio.to_thread(outputs.explained, explanation, asked, found, notes, plan.outputs)
        taken = zip(made, plan.outputs, strict=True)
        size = service.grown(call, size, sum(tensor.size(binary=output.binary) for tensor, output in taken))
        parts.append(made)
        done.append(explanation.stats)
        method = explanation.method, explanation.chosen
        del explanation  # and its photograph
    head = plan.head | {"parameters": outputs.parameters_of(done, *method, list(dict.fromkeys(call.notes)))}
    return await _encoded(head, parts, plan, call)


async def _encoded(head: dict[str, Any], parts: list[list[OutputTensor]], plan: Plan, call: Call) -> Answer:
    """The answer, of the tensors of each image."""

    def encode() -> Answer:
        return answer_of(head, [OutputTensor.batch(its) for its in zip(*parts, strict=True)], plan.outputs)

    with call.timing("encode"):
        return await asyncio.to_thread(encode)
