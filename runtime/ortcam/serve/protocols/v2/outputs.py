"""The outputs of a model of the Open Inference Protocol: which are sent, and the tensors of a prediction or a map."""

import dataclasses
import json
import reprlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import numpy as np

from ortcam.bundle import Manifest
from ortcam.errors import OptionError
from ortcam.request import most_probable
from ortcam.results.explanation import Explanation, Stats
from ortcam.results.low_resolution import low_resolution
from ortcam.serve.http.refusals import Refusal
from ortcam.serve.protocols.answers import explanation_record, overlay_image
from ortcam.serve.protocols.asked import Asked, read_deadline
from ortcam.serve.protocols.v2.envelope import AskedOutput, Inference
from ortcam.serve.protocols.v2.metadata import OutputRecord, outputs_of
from ortcam.serve.protocols.v2.tensors import OutputTensor
from ortcam.serve.service import Predicted
from ortcam.support.ranges import shown

__all__ = [
    "explained",
    "explanation_outputs",
    "parameters_of",
    "predicted",
    "prediction_deadline",
    "prediction_outputs",
]

# Of these the highest values may be asked for in place of the tensor.
_PER_CLASS: Final = ("logits", "probabilities", "values")


def prediction_outputs(inference: Inference, manifest: Manifest) -> tuple[AskedOutput, ...]:
    """The outputs to send of a prediction.

    Raises:
        Refusal: 400, an output that the model does not have.
    """
    known = outputs_of(manifest, explains=False)
    return _selected(inference, known, [name for name, record in known.items() if record.usual], manifest)


def prediction_deadline(inference: Inference) -> float | None:
    """The deadline of a prediction, milliseconds from the arrival of the request, or None.

    Raises:
        OptionError: another parameter, or a value that is not accepted.
    """
    for name in inference.parameters:
        if name != "deadline_ms":
            raise OptionError(
                f"the parameter {shown(name)}: a prediction takes deadline_ms alone; "
                "the model whose name ends in -explain explains"
            )
    value = inference.parameters.get("deadline_ms")
    return None if value is None else read_deadline("deadline_ms", value)


def explanation_outputs(inference: Inference, asked: Asked, manifest: Manifest) -> tuple[AskedOutput, ...]:
    """The outputs to send of an explanation: those that the client names, or the small ones and what it asks for.

    Where what is explained is no probability `value` is sent in the place of `probability`.

    Raises:
        Refusal: 400, an output that the model does not have, or `probability` of what has none.
    """
    known = outputs_of(manifest, explains=True)
    if not asked.has_probabilities(manifest):
        known = {name: record for name, record in known.items() if name != "probability"}
        known["value"] = dataclasses.replace(known["value"], usual=True)
    usual = [
        name for name, record in known.items() if record.usual and (name != "low_resolution" or asked.map == "low")
    ]
    if asked.map == "full":
        usual.append("saliency")
    if asked.overlay != "none":
        usual.append("overlay")
    return _selected(inference, known, usual, manifest)


def _selected(
    inference: Inference, known: dict[str, OutputRecord], usual: Iterable[str], manifest: Manifest
) -> tuple[AskedOutput, ...]:
    asked = inference.outputs
    if asked is None:
        return tuple(AskedOutput(name, inference.binary, None) for name in usual)
    for output in asked:
        if output.name not in known:
            raise Refusal(400, f"there is no output {reprlib.repr(output.name)}; accepted: {', '.join(known)}")
        if output.classes is not None and not (output.name in _PER_CLASS and manifest.has_classes):
            accepted = " and ".join(name for name in _PER_CLASS if name in known and manifest.has_classes)
            raise Refusal(
                400, f"classification of the output {output.name!r}: goes with {accepted or 'models that have classes'}"
            )
    return asked


def predicted(found: Predicted, outputs: Sequence[AskedOutput]) -> list[OutputTensor]:
    """The tensors of the prediction of one image, for a batch of 1.

    Args:
        found: the prediction.
        outputs: of `prediction_outputs`.

    Raises:
        NotFiniteError: a value is infinite or not a number.
    """
    return [_per_class(output, found) for output in outputs]


def explained(
    explanation: Explanation,
    asked: Asked,
    found: Predicted | None,
    notes: Sequence[str],
    outputs: Sequence[AskedOutput],
) -> list[OutputTensor]:
    """The tensors of the explanation of one image, for a batch of 1. They keep nothing of the photograph.

    Args:
        explanation: of K classes.
        asked: what was asked of it.
        found: the prediction, where `logits` are asked for.
        notes: what is to be said of the image.
        outputs: of `explanation_outputs`.

    Raises:
        NotFiniteError: a value is infinite or not a number.
    """

    def tensor_of(output: AskedOutput) -> OutputTensor:
        if output.name == "logits" and found is not None:
            return _per_class(output, found)
        if output.name == "explanation":
            record = explanation_record(explanation, asked) | {"notes": list(notes)}
            return OutputTensor(output.name, "BYTES", (1,), (json.dumps(record, allow_nan=False).encode(),))
        return _MAKERS[output.name](output.name, explanation, asked)

    return [tensor_of(output) for output in outputs]


def parameters_of(done: Sequence[Stats], method: str, chosen: str | None, notes: Sequence[str]) -> dict[str, Any]:
    """What was done, as the `parameters` of an answer: single values, added up over the images.

    Args:
        done: per image, at least one.
        method: of all.
        chosen: why this method, where the request left that open.
        notes: what is to be said of the images.
    """
    simplified = dict.fromkeys(sentence for item in done for sentence in item.simplified)
    known = {
        "method": method,
        "chosen": chosen,
        "precision": done[0].precision,
        "passes": sum(item.passes for item in done),
        "head_passes": sum(item.head_passes for item in done),
        "gradient_passes": sum(item.gradient_passes for item in done),
        "seconds": sum(item.seconds for item in done),
        "seconds_late": max(item.seconds_late for item in done) or None,
        "simplified": "; ".join(simplified) or None,
        "notes": "; ".join(notes) or None,
    }
    return {name: value for name, value in known.items() if value is not None}


def _per_class(output: AskedOutput, found: Predicted) -> OutputTensor:
    values = found.logits if output.name == "logits" else found.probabilities
    if output.classes is None:
        shaped = values.reshape(found.shape) if output.name == "values" else values
        return OutputTensor.of_array(output.name, "FP32", shaped[None])
    best = most_probable(values, min(output.classes, len(found.labels)))
    return OutputTensor.of_texts(output.name, [f"{values[index]:.9g}:{index}:{found.labels[index]}" for index in best])


_Maker = Callable[[str, Explanation, Asked], OutputTensor]


def _of(datatype: str, values: Callable[[Explanation], Any]) -> _Maker:
    def make(name: str, explanation: Explanation, _: Asked) -> OutputTensor:
        return OutputTensor.of_array(name, datatype, np.array(values(explanation))[None])

    return make


def _estimated_error(name: str, explanation: Explanation, asked: Asked) -> OutputTensor:
    """0 where the method masks no image: its map is computed, not estimated. 1, unknown, where there is no estimate."""
    errors = explanation.stats.estimated_error
    if errors is None:
        errors = (1.0 if asked.masks_image else 0.0,) * len(explanation.targets)
    return OutputTensor.of_array(name, "FP32", np.array([errors]))


def _labels(name: str, explanation: Explanation, _: Asked) -> OutputTensor:
    return OutputTensor.of_texts(name, explanation.labels)


def _overlays(name: str, explanation: Explanation, asked: Asked) -> OutputTensor:
    kind = "png" if asked.overlay == "none" else asked.overlay
    images = tuple(overlay_image(explanation, kind, place)[0] for place in range(len(explanation.targets)))
    return OutputTensor(name, "BYTES", (1, len(images)), images, is_text=False)


_MAKERS: Final[dict[str, _Maker]] = {
    "targets": _of("INT64", lambda item: item.targets),
    "labels": _labels,
    "probability": _of("FP32", lambda item: item.probabilities),
    "value": _of("FP32", lambda item: item.probabilities),
    "estimated_error": _estimated_error,
    "flat": _of("BOOL", lambda item: item.flat),
    "low_resolution": _of("FP32", low_resolution),
    "saliency": _of("FP32", lambda item: item.maps),
    "overlay": _overlays,
}
