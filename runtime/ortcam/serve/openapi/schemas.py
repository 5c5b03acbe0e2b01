"""JSON schemas of what is sent and answered, except for the parameters of requests."""

from typing import Any, Final

from ortcam.serve.jobs.job import STATES
from ortcam.serve.openapi.parameters import Schema, parameter_schemas, predict_parameters
from ortcam.serve.protocols.v2.images import DATATYPES, INPUT_NAMES
from ortcam.serve.protocols.v2.metadata import EXPLAIN, PREDICT, VALUES

__all__ = ["component_schemas", "ref"]

_TEXT: Final[Schema] = {"type": "string"}
_NUMBER: Final[Schema] = {"type": "number"}
_WHOLE: Final[Schema] = {"type": "integer", "minimum": 0}
_INDEX: Final[Schema] = {"type": "integer", "minimum": -1, "description": "Of the class; -1: of a score."}
_VALUE: Final[Schema] = _NUMBER | {"description": "In the place of `probability` where it is none."}
_SHARE: Final[Schema] = {"type": "number", "minimum": 0, "maximum": 1}
_FLAG: Final[Schema] = {"type": "boolean"}
_BASE64: Final[Schema] = {"type": "string", "contentEncoding": "base64"}
_SINGLE: Final[Schema] = {"type": ["string", "number", "boolean"]}
_SIZE: Final[Schema] = {"type": "array", "items": _WHOLE, "minItems": 2, "maxItems": 2, "description": "height, width"}


def ref(name: str) -> Schema:
    """A reference to a schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def component_schemas() -> dict[str, Schema]:
    """All schemas of the document, by name."""
    return {
        "Error": _object({"error": _TEXT | {"description": "One sentence: the value, and what is accepted."}}),
        **_of_v1(),
        **_of_explanations(),
        **_of_v2(),
        **_of_jobs(),
        **parameter_schemas(),
    }


def _object(required: dict[str, Schema], optional: dict[str, Schema] | None = None, **more: Any) -> Schema:
    return {
        "type": "object",
        "properties": required | (optional or {}),
        "required": list(required),
        "additionalProperties": False,
        **more,
    }


def _list(items: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": items, **more}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _of_v1() -> dict[str, Schema]:
    files = "An image file: JPEG, PNG, WebP, GIF, BMP, TIFF and others; for a model of bands an array (.npy), too."
    encoded = _BASE64 | {"description": files}
    pixels = _list(
        {},
        minItems=1,
        description="Nested lists: whole numbers from 0 to 255, or others from 0 to 1; samples for a model of bands.",
    )
    value = {"anyOf": [encoded, _object({"b64": encoded}), pixels]}
    images = ref("Instance")
    return {
        "Instance": {
            "description": "One image, in one of these forms.",
            "anyOf": [
                _object({"image": value}),
                _object({"b64": encoded}),
                _object({"data": value}),
                _object({"preprocessed": _list({}, description="The model's input, [C][H][W].")}),
                encoded,
                pixels,
            ],
        },
        "PredictRequest": {
            **_object({}, {"parameters": ref("PredictParameters"), "signature_name": {}, **_either(images)}),
            "anyOf": [{"required": ["instances"]}, {"required": ["inputs"]}],
        },
        "ExplainRequest": {
            **_object({}, {"parameters": ref("Parameters"), "signature_name": {}, **_either(images)}),
            "anyOf": [{"required": ["instances"]}, {"required": ["inputs"]}],
        },
        "PredictParameters": predict_parameters(),
        "Models": _object({"models": _list(_TEXT)}),
        "Model": _object({"name": _TEXT, "ready": _FLAG}),
        "Prediction": _object(
            {},
            {
                "classes": _list(
                    ref("Class"), description="The most probable classes; none where a tensor is answered."
                ),
                "probabilities": _list(_SHARE, description="Of every class, in the order of the labels."),
                "values": _list(_NUMBER, description="All values, row by row, of a model whose outputs are values."),
                "shape": _list(_WHOLE, description="Of a tensor."),
                "lowest": _NUMBER,
                "highest": _NUMBER,
                "outputs": _by_name(
                    _object({"shape": _list(_WHOLE), "lowest": _NUMBER, "highest": _NUMBER}),
                    "Of a model with several outputs, by name.",
                ),
            },
        ),
        "Predictions": _object({"predictions": _list(ref("Prediction"))}),
        "Class": _object({"index": _INDEX, "label": _TEXT}, {"probability": _SHARE, "value": _VALUE}),
    }


def _by_name(entry: Schema, description: str) -> Schema:
    return {"type": "object", "additionalProperties": entry, "description": description}


def _either(images: Schema) -> dict[str, Schema]:
    return {
        "instances": _list(images, minItems=1),
        "inputs": _list(images, minItems=1, description="Another name of `instances`."),
    }


def _of_explanations() -> dict[str, Schema]:
    return {
        "Explanations": _object(
            {
                "predictions": _list(ref("Prediction"), description="One per instance."),
                "explanations": _list(ref("Explanation"), description="One per instance."),
            }
        ),
        "Explanation": {
            **_object(
                {
                    "method": _TEXT,
                    "chosen": _or_null(_TEXT) | {"description": "For `auto`: the method taken, and why."},
                    "options": {"type": "object", "description": "Every option of the method."},
                    "limits": _or_null({"type": "object"}) | {"description": "When scoring might stop early."},
                    "targets": _list(ref("Target"), minItems=1, description="One per class that was explained."),
                    "map_size": _SIZE,
                    "photograph": _object(
                        {
                            "size": _SIZE,
                            "seen": _list(
                                _WHOLE,
                                minItems=4,
                                maxItems=4,
                                description="What the map covers: top, left, bottom, right.",
                            ),
                        }
                    ),
                    "stats": ref("Stats"),
                    "bundle": {"type": "object", "description": "Name and SHA-256 of the bundle."},
                    "notes": _list(_TEXT, description="What is to be said of the image: dark, damaged, cut off."),
                },
            ),
            "additionalProperties": True,
        },
        **_of_targets(),
    }


def _of_targets() -> dict[str, Schema]:
    return {
        "Target": _object(
            {
                "index": _INDEX,
                "label": _TEXT,
                "estimated_error": _or_null(_SHARE)
                | {"description": "How wrong a value of the map may be. 0: exact. 1: not known. null: no estimate."},
                "flat": _FLAG | {"description": "Whether the map is zero everywhere."},
            },
            {
                "probability": _SHARE,
                "value": _VALUE,
                "map": {"anyOf": [ref("LowMap"), ref("FullMap")]},
                "overlay": ref("Overlay"),
            },
        ),
        "LowMap": _object(
            {"shape": _SIZE, "data": _list(_list(_SHARE))},
            description="The map at the resolution of the layer (`map=low`), in rows.",
        ),
        "FullMap": _object(
            {"shape": _SIZE, "datatype": {"const": "FP32"}, "b64": _BASE64},
            description="The map at the size of the model's input (`map=full`): float32, little-endian, in rows.",
        ),
        "Overlay": _object({"media_type": {"enum": ["image/png", "image/jpeg"]}, "b64": _BASE64}),
        "Stats": {
            "type": "object",
            "description": "What was done: passes, channels, seconds, execution providers.",
            "properties": {
                "passes": _WHOLE,
                "seconds": _NUMBER,
                "providers": _list(_TEXT),
                "precision": _TEXT,
                "simplified": _list(_TEXT, description="What was simplified to be ready in time."),
            },
            "required": ["passes", "seconds", "providers", "precision", "simplified"],
        },
    }


def _tensors() -> tuple[Schema, Schema, Schema, Schema]:
    """Of the metadata, sent, answered, and asked for."""
    shape = _list({"type": "integer"})
    kinds = [*DATATYPES, "INT64", "BOOL"]
    named = {"name": _TEXT, "datatype": {"enum": kinds}, "shape": shape}
    sent = _object(
        {"name": {"enum": list(INPUT_NAMES.values())}, "datatype": {"enum": list(DATATYPES)}, "shape": _list(_WHOLE)},
        {
            "data": _list({}, description="Numbers, or texts in base64; none where the data follow as bytes."),
            "parameters": _object(
                {},
                {"binary_data_size": _WHOLE, "content_type": {"const": "base64", "description": "Of BYTES in JSON."}},
            ),
        },
    )
    answered = _object(
        {
            "name": {"enum": list({**PREDICT, **VALUES, **EXPLAIN})},
            **{key: named[key] for key in ("datatype", "shape")},
        },
        {"data": _list({}), "parameters": {"type": "object", "additionalProperties": _SINGLE}},
    )
    asked = _object(
        {"name": {"enum": list({**PREDICT, **VALUES, **EXPLAIN})}},
        {
            "parameters": _object(
                {},
                {
                    "binary_data": _FLAG,
                    "classification": _WHOLE
                    | {"description": "Send so many of the highest values, as value:index:label."},
                    "content_type": _TEXT,
                },
            )
        },
    )
    return _object(named), sent, answered, asked


def _of_v2() -> dict[str, Schema]:
    named, sent, answered, asked = _tensors()
    places = ("v1", "v2", "metrics", "docs", "openapi")
    return {
        "Root": _object(dict.fromkeys(("name", "version", *places), _TEXT), {"ui": _TEXT}),
        "Server": _object({"name": _TEXT, "version": _TEXT, "extensions": _list(_TEXT)}),
        "Live": _object({"live": _FLAG}),
        "Ready": _object({"ready": _FLAG}),
        "ModelReady": _object({"name": _TEXT, "ready": _FLAG}),
        "Metadata": _object(
            {
                "name": _TEXT,
                "versions": _list(_TEXT),
                "platform": _TEXT,
                "inputs": _list(named, description="A request has one of these."),
                "outputs": _list(named),
                "parameters": _object(
                    {
                        "channels": _WHOLE,
                        "channel_order": _TEXT,
                        "output_shape": _list(_WHOLE, description="Of one image."),
                        "activation": _TEXT | {"description": "identity: the outputs are values, no probabilities."},
                    },
                    {
                        "value_range": _list(_NUMBER, description="Low and high of samples; none: 8-bit levels."),
                        "output_parts": _by_name(_list(_WHOLE), "Shapes of several outputs, in their order."),
                    },
                ),
            }
        ),
        "InferRequest": _object(
            {"inputs": _list(sent, minItems=1, maxItems=1)},
            {
                "id": _TEXT,
                "parameters": {
                    "type": "object",
                    "description": "Of NAME-explain: those of `Parameters`; `binary_data_output` besides.",
                },
                "outputs": _list(asked, description="Those to be sent; none: the usual ones."),
                "model_name": _TEXT,
                "model_version": _TEXT,
            },
        ),
        "InferResponse": _object(
            {"model_name": _TEXT, "model_version": _TEXT, "outputs": _list(answered)},
            {"id": _TEXT, "parameters": {"type": "object", "additionalProperties": _SINGLE}},
        ),
    }


def _of_jobs() -> dict[str, Schema]:
    state = {"enum": list(STATES)}
    return {
        "Accepted": _object({"id": _TEXT, "state": state, "model": _TEXT, "url": _TEXT}),
        "Job": _object(
            {
                "id": _TEXT,
                "state": state,
                "model": _TEXT,
                "seconds": _NUMBER | {"description": "Since the request, or to its end."},
                "passes": _WHOLE | {"description": "Forward passes so far."},
                "maps": _WHOLE | {"description": "Maps on the way so far."},
            },
            {
                "status": {"type": "integer", "description": "Of HTTP, of the answer."},
                "result_url": _TEXT | {"description": "Where the answer is as the request would have got it."},
                "result": {"type": "object", "description": "The answer, if it is JSON."},
                "error": _TEXT,
            },
        ),
    }
