"""The OpenAPI document: every path of the server, what it takes, what it answers, and how it refuses."""

from typing import Any, Final

from ortcam._version import __version__
from ortcam.serve.openapi.examples import EXAMPLES
from ortcam.serve.openapi.parameters import Schema
from ortcam.serve.openapi.schemas import component_schemas, ref
from ortcam.serve.protocols.v2.envelope import JSON_LENGTH
from ortcam.serve.settings import RequestLimits, Settings

__all__ = ["document"]

_IMAGES: Final = ("image/jpeg", "image/png", "image/webp", "image/*", "application/x-npy", "application/octet-stream")
_BYTES: Final[Schema] = {"type": "string", "contentMediaType": "application/octet-stream"}
_REFUSALS: Final[dict[int, str]] = {
    400: "The body is not JSON, or not what the protocol says.",
    401: "The token is missing or wrong.",
    403: "A page of another site asked, which `--cors` does not allow.",
    404: "There is no such model, version or job.",
    408: "The body comes too slowly.",
    410: "The job was cancelled.",
    413: "The body or an image is larger than the server accepts.",
    415: "The content type or encoding is not accepted.",
    422: "The image, a parameter or a class is not accepted.",
    429: "The queue is full, or the deadline cannot be met.",
    500: "The server failed; its log has the request id.",
    503: "Models are being opened, or the server is about to end.",
}
_RETRIED: Final = (429, 503)
_TAGS: Final[dict[str, str]] = {
    "KServe v1": "The protocol of TensorFlow Serving and KServe, with explanations.",
    "Open Inference Protocol": "KServe's v2 over REST. A model NAME predicts, and NAME-explain explains.",
    "Jobs": "Explanations that a request does not wait for.",
    "Operations": "Health, metrics and this document.",
}


def document(settings: Settings) -> dict[str, Any]:
    """The document of a server.

    Args:
        settings: of the server: its models, limits and whether it has a token.
    """
    content: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "ortcam serve", "version": __version__, "description": _description(settings.limits)},
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": _Paths(settings).all(),
        "components": {"schemas": component_schemas(), "responses": _refusals()},
    }
    if settings.token is not None:
        content["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        content["security"] = [{"token": []}]
    return content


def _description(limits: RequestLimits) -> str:
    size, pixels = f"{limits.body_bytes / 2**20:.3g} MiB", f"{limits.pixels / 1e6:.3g} million pixels"
    return (
        f"Predictions and explanations of image classifiers. A body has at most {size}, a request {limits.images} "
        f"images, an image {pixels}. An explanation has at most {limits.targets} classes and {limits.passes} forward "
        f"passes, and after {limits.seconds:g} seconds the best map so far is the answer. Every answer has the header "
        'X-Request-Id, and every error the body {"error": "one sentence"}.'
    )


def _refusals() -> dict[str, Any]:
    content = {"application/json": {"schema": ref("Error")}}
    found: dict[str, Any] = {}
    for status, text in _REFUSALS.items():
        found[str(status)] = {"description": text, "content": content}
        if status in _RETRIED:
            retry = {"description": "Seconds to wait before the next try.", "schema": {"type": "integer"}}
            found[str(status)]["headers"] = {"Retry-After": retry}
    return found


def _json(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": ref(schema)}}


def _answers(text: str, content: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"description": text, "content": content, **more}


def _header(name: str, text: str, schema: Schema | None = None) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": text, "schema": schema or {"type": "string"}}


_PREFER: Final = _header(
    "Prefer", "respond-async: answer 202 and a job. wait=SECONDS beside it: wait so long for the answer itself."
)
_WAIT: Final = _header("Prefer", "wait=SECONDS: answer when the job has ended, or after that time.")


class _Paths:
    """The paths of one server."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        names = [bundle.name for bundle in settings.bundles]
        self._name = self._path_parameter("name", "Name of a model.", {"enum": names})
        both = [*names, *(f"{name}-explain" for name in names)]
        self._either = self._path_parameter("name", "NAME predicts, and NAME-explain explains.", {"enum": both})
        self._version = self._path_parameter("version", "Of the model; its metadata name it.")
        self._job = self._path_parameter("id", "Of the job.")

    def all(self) -> dict[str, Any]:
        """Every path with its operations."""
        return {**self._v1(), **self._v2(), **self._jobs(), **self._operations()}

    def _path_parameter(self, name: str, text: str, schema: Schema | None = None) -> dict[str, Any]:
        return {
            "name": name,
            "in": "path",
            "required": True,
            "description": text,
            "schema": schema or {"type": "string"},
        }

    def _example(self, source: str) -> str:
        """A request with the name of a model, and with the token if there is one."""
        token = "" if self._settings.token is None else '-H "Authorization: Bearer $TOKEN" '
        return source.replace("NAME", self._settings.bundles[0].name).replace("curl ", f"curl {token}")

    def _operation(
        self, tag: str, name: str, summary: str, answers: dict[int, Any], refusals: tuple[int, ...] = (), **more: Any
    ) -> dict[str, Any]:
        """One operation; every one of them can be refused for its token or fail."""
        token = () if self._settings.token is None else (401,)
        refused = {str(status): {"$ref": f"#/components/responses/{status}"} for status in (*token, *refusals, 500)}
        responses = {str(status): answer for status, answer in answers.items()} | refused
        samples = [
            {"lang": "Shell", "label": label, "source": self._example(source)}
            for label, source in EXAMPLES.get(name, {}).items()
        ]
        shown = {"x-codeSamples": samples} if samples else {}
        return {"tags": [tag], "operationId": name, "summary": summary, "responses": responses, **more, **shown}

    def _v1(self) -> dict[str, Any]:
        tag, of_model = "KServe v1", {"parameters": [self._name]}
        explained = {**_json("Explanations"), "text/event-stream": {"schema": {"type": "string"}}}
        explained |= {image: {"schema": _BYTES} for image in ("image/png", "image/jpeg")}
        models = self._operation(tag, "models", "Name the models", {200: _answers("Their names.", _json("Models"))})
        model = self._operation(
            tag, "model", "Say whether a model is ready", {200: _answers("It is.", _json("Model"))}, (404, 503)
        )
        predict = self._operation(
            tag,
            "predict",
            "Predict the classes of images",
            {200: _answers("One prediction per image.", _json("Predictions"))},
            _OF_BODIES,
            requestBody=self._images("PredictRequest"),
            parameters=[_query("PredictParameters")],
        )
        explain = self._operation(
            tag,
            "explain",
            "Explain why the model sees these classes in images",
            {
                200: _answers(
                    "One explanation per image. An image where `Accept` asks for one: the overlay of the first class. "
                    "`Accept: text/event-stream` streams maps that get better, and the answer as the last event.",
                    explained,
                ),
                202: _ACCEPTED,
            },
            _OF_BODIES,
            requestBody=self._images("ExplainRequest"),
            parameters=[_query("Parameters"), _PREFER],
        )
        return {
            "/v1/models": {"get": models},
            "/v1/models/{name}": {**of_model, "get": model},
            "/v1/models/{name}:predict": {**of_model, "post": predict},
            "/v1/models/{name}:explain": {**of_model, "post": explain},
        }

    def _images(self, schema: str) -> dict[str, Any]:
        """JSON, an image as it is, or a form with image files."""
        files = {"type": "object", "additionalProperties": {"anyOf": [_BYTES, {"type": "string"}]}}
        content = {**_json(schema), **{kind: {"schema": _BYTES} for kind in _IMAGES}}
        content["multipart/form-data"] = {"schema": files}
        text = "JSON with instances; or an image file as it is, with the parameters in the query; or a form with files."
        return {"required": True, "description": text, "content": content}

    def _v2(self) -> dict[str, Any]:
        tag = "Open Inference Protocol"
        server = self._operation(tag, "server", "Describe the server", {200: _answers("Metadata.", _json("Server"))})
        names = self._operation(
            tag, "inferenceModels", "Name the models", {200: _answers("Their names.", _json("Models"))}
        )
        live = self._operation(
            "Operations", "live", "Say whether the server runs", {200: _answers("It does.", _json("Live"))}
        )
        is_ready = {status: _answers(text, _json("Ready")) for status, text in _READINESS.items()}
        ready = self._operation("Operations", "ready", "Say whether requests are answered", is_ready)
        for probe in (live, ready):
            probe["security"] = []
            probe["responses"].pop("401", None)
        paths: dict[str, Any] = {
            "/v2": {"get": server},
            "/v2/health/live": {"get": live},
            "/v2/health/ready": {"get": ready},
            "/v2/models": {"get": names},
        }
        for version, suffix in (("", ""), ("/versions/{version}", "OfVersion")):
            own = [self._either, *([self._version] if version else [])]
            base = f"/v2/models/{{name}}{version}"
            paths[base] = {"parameters": own, "get": self._metadata(suffix)}
            paths[f"{base}/ready"] = {"parameters": own, "get": self._model_ready(suffix)}
            paths[f"{base}/infer"] = {"parameters": own, "post": self._infer(suffix)}
        return paths

    def _metadata(self, suffix: str) -> dict[str, Any]:
        answer = {200: _answers("Inputs and outputs.", _json("Metadata"))}
        return self._operation("Open Inference Protocol", f"metadata{suffix}", "Describe a model", answer, (404, 503))

    def _model_ready(self, suffix: str) -> dict[str, Any]:
        answers = {status: _answers(text, _json("ModelReady")) for status, text in _READINESS.items()}
        summary = "Say whether a model is ready"
        return self._operation("Open Inference Protocol", f"modelReady{suffix}", summary, answers, (404,))

    def _infer(self, suffix: str) -> dict[str, Any]:
        length = _header(JSON_LENGTH, "Length of the JSON where tensors follow it as bytes.", {"type": "integer"})
        tensors = {"application/octet-stream": {"schema": _BYTES}}
        answer = _answers(
            "Tensors, as JSON or as bytes behind it.",
            {**_json("InferResponse"), **tensors},
            headers={JSON_LENGTH: {"description": length["description"], "schema": length["schema"]}},
        )
        return self._operation(
            "Open Inference Protocol",
            f"infer{suffix}",
            "Predict with NAME, or explain with NAME-explain",
            {200: answer, 202: _ACCEPTED},
            _OF_BODIES,
            requestBody={"required": True, "content": {**_json("InferRequest"), **tensors}},
            parameters=[length, _PREFER],
        )

    def _jobs(self) -> dict[str, Any]:
        tag = "Jobs"
        stream = {"text/event-stream": {"schema": {"type": "string"}}}
        state = self._operation(
            tag,
            "job",
            "Look at a job",
            {
                200: _answers(
                    "Its state, with the answer once there is one; or a stream of maps that get better, with the "
                    "events `state`, `map`, and at last `result` or `error`.",
                    {**_json("Job"), **stream},
                )
            },
            (404,),
            parameters=[_WAIT],
        )
        end = self._operation(
            tag,
            "endJob",
            "Cancel a job, or forget one that has ended",
            {200: _answers("It is cancelled.", _json("Job")), 204: {"description": "It is forgotten."}},
            (403, 404),
        )
        result = self._operation(
            tag,
            "result",
            "Get the answer as the request would have got it",
            {
                200: _answers("The answer, of whatever type was asked for.", {"*/*": {}}),
                202: _answers("It is not there yet.", _json("Job")),
            },
            (404, 410, 413, 422, 429, 503),
            parameters=[_WAIT],
        )
        of_job = {"parameters": [self._job]}
        return {"/jobs/{id}": {**of_job, "get": state, "delete": end}, "/jobs/{id}/result": {**of_job, "get": result}}

    def _operations(self) -> dict[str, Any]:
        tag, text = "Operations", {"schema": {"type": "string"}}
        found = {
            "/": ("root", "Find everything else", {"application/json": {"schema": ref("Root")}}),
            "/metrics": ("metrics", "Count and measure, for Prometheus", {"text/plain": text}),
            "/openapi.json": ("openapi", "Get this document", {"application/json": {"schema": {"type": "object"}}}),
            "/docs": ("docs", "Read this document", {"text/html": text}),
        }
        if self._settings.ui:
            found["/ui/"] = ("page", "Explain in the browser", {"text/html": text})
        return {
            path: {"get": self._operation(tag, name, summary, {200: _answers("It.", content)})}
            for path, (name, summary, content) in found.items()
        }


_OF_BODIES: Final = (400, 403, 404, 408, 413, 415, 422, 429, 503)
_READINESS: Final = {200: "It is.", 503: "Not yet, or no longer."}
_ACCEPTED: Final = _answers(
    "A job, which `Prefer: respond-async` asked for.",
    _json("Accepted"),
    headers={
        "Location": {"description": "Path of the job.", "schema": {"type": "string"}},
        "Retry-After": {"description": "Seconds to wait before looking.", "schema": {"type": "integer"}},
    },
)


def _query(schema: str) -> dict[str, Any]:
    """All parameters of a schema, each one of the query string."""
    return {
        "name": "parameters",
        "in": "query",
        "style": "form",
        "explode": True,
        "description": "With an image as the body: the parameters, each by its own name.",
        "schema": ref(schema),
    }
