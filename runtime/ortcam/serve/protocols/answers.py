"""What is answered for one image: small JSON of an explanation or a prediction, and overlays as image files."""

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from ortcam.images.encoding import encode_jpeg, encode_png
from ortcam.request import most_probable
from ortcam.results.explanation import Explanation
from ortcam.results.low_resolution import averaged, low_resolution
from ortcam.serve.protocols.asked import Asked
from ortcam.support.terminal import as_text

__all__ = ["OVERLAY_SIDE", "explanation_record", "overlay_image", "prediction_record"]

# Pixels of the longer side of an overlay; a smaller photograph keeps its size.
OVERLAY_SIDE: Final = 1024

_MOST_CELLS: Final = 32  # along each side of a map in JSON
_DECIMALS: Final = 4  # of a map in JSON
# What a record says of where the map comes from; the rest of it is about this machine.
_PROVENANCE: Final = ("limits", "bundle", "cut", "layers", "versions")
_MEDIA_TYPES: Final = {"png": "image/png", "jpeg": "image/jpeg"}


def explanation_record(explanation: Explanation, asked: Asked) -> dict[str, Any]:
    """An explanation as JSON types. With the defaults of a request it takes less than 10 kB.

    Rules:

    1. `map` of a class is, with `map=low`, the map at the resolution of the layer (`low_resolution`), rounded to four
       decimals: `{"shape": [h, w], "data": [[...], ...]}`. A layer of more than 32 rows or columns is averaged to at
       most 32. With `map=full` it is the exact map: `{"shape": [H, W], "datatype": "FP32", "b64": ...}`, little-endian
       float32, row by row. With `map=none` there is none.
    2. `overlay` is there only where it was asked for: `{"media_type": ..., "b64": ...}`, at most 1024 pixels long.
    3. `photograph` says how large the photograph is and which part of it the map covers: first row, first column, row
       and column behind the last.
    4. Where values are no probabilities, a class has a `value` in the place of `probability`. Of a score the index is
       -1, the label is its text, and `score` has the text and the SHA-256 of its arrays.
    5. No path of the machine is in it.

    Args:
        explanation: to be answered.
        asked: how.
    """
    low = low_resolution(explanation) if asked.map == "low" else None
    errors = explanation.stats.estimated_error
    targets = []
    for place, index in enumerate(explanation.targets):
        target: dict[str, Any] = {
            "index": index,
            "label": explanation.labels[place],
            _named(explanation.are_probabilities): float(explanation.probabilities[place]),
            "estimated_error": None if errors is None else errors[place],
            "flat": bool(explanation.flat[place]),
        }
        if low is not None:
            target["map"] = _small(low[place])
        elif asked.map == "full":
            target["map"] = _exact(explanation.maps[place])
        if asked.overlay != "none":
            content, media_type = overlay_image(explanation, asked.overlay, place)
            target["overlay"] = {"media_type": media_type, "b64": base64.b64encode(content).decode("ascii")}
        targets.append(target)
    height, width = explanation.image.shape[:2]
    seen = explanation.preprocessing.geometry(height, width).seen()
    return as_text(
        {
            "method": explanation.method,
            "chosen": explanation.chosen,
            "options": explanation.options,
            **({} if asked.request.score is None else {"score": asked.request.score.record()}),
            "targets": targets,
            "map_size": list(explanation.maps.shape[1:]),
            "photograph": {"size": [height, width], "seen": list(seen)},
            "stats": _stats(explanation),
            **{name: explanation.provenance[name] for name in _PROVENANCE},
        }
    )


def prediction_record(
    logits: NDArray[np.float32],
    probabilities: NDArray[np.float32],
    labels: Sequence[str],
    *,
    top_k: int,
    complete: bool = False,
    are_probabilities: bool = True,
    shape: Sequence[int] = (),
    parts: Mapping[str, NDArray[np.float32]] | None = None,
) -> dict[str, Any]:
    """A prediction as JSON types: the most probable classes, and on request the probability of every class.

    Where the outputs are values, `value` stands in the place of `probability`, and `values` in that of `probabilities`.
    Of a tensor there are no classes: `shape`, and the `lowest` and `highest` of its values. Of several outputs these
    are in `outputs`, by name.

    Args:
        logits: float32 [D].
        probabilities: float32 [D]; the values where there are no probabilities.
        labels: of all classes; () for a tensor.
        top_k: how many classes are named; all where the model has fewer.
        complete: whether `probabilities` of all classes are in it, in the order of the labels; or `values`, row by row.
        are_probabilities: whether there are probabilities.
        shape: of the output.
        parts: the outputs by name, where there are several.
    """
    record: dict[str, Any]
    if labels:
        name = _named(are_probabilities)
        record = {
            "classes": [
                {"index": int(index), "label": labels[index], name: float(probabilities[index])}
                for index in most_probable(logits, top_k)
            ]
        }
    elif parts:
        record = {"outputs": {name: _span(values, values.shape) for name, values in parts.items()}}
    else:
        record = _span(probabilities, shape)
    record = as_text(record)
    return record | ({"probabilities" if are_probabilities else "values": probabilities.tolist()} if complete else {})


def _span(values: NDArray[np.float32], shape: Sequence[int]) -> dict[str, Any]:
    """The shape of a tensor, and the ends of its values."""
    return {"shape": list(shape), "lowest": float(values.min()), "highest": float(values.max())}


def _named(are_probabilities: bool) -> str:
    return "probability" if are_probabilities else "value"


def overlay_image(explanation: Explanation, kind: Literal["png", "jpeg"], index: int = 0) -> tuple[bytes, str]:
    """The photograph with the map of a class over it, as the bytes of an image file and their media type.

    Args:
        explanation: to be drawn.
        kind: of file.
        index: place of the class among the targets.
    """
    drawn = explanation.overlay(index, longest_side=OVERLAY_SIDE)
    return (encode_png(drawn) if kind == "png" else encode_jpeg(drawn)), _MEDIA_TYPES[kind]


def _small(saliency: NDArray[np.float32]) -> dict[str, Any]:
    height, width = (math.ceil(side / math.ceil(side / _MOST_CELLS)) for side in saliency.shape)
    if (height, width) != saliency.shape:
        saliency = averaged(saliency, height, width)
    return {"shape": [height, width], "data": np.round(saliency.astype(np.float64), _DECIMALS).tolist()}


def _exact(saliency: NDArray[np.float32]) -> dict[str, Any]:
    content = np.ascontiguousarray(saliency, "<f4").tobytes()
    return {"shape": list(saliency.shape), "datatype": "FP32", "b64": base64.b64encode(content).decode("ascii")}


def _stats(explanation: Explanation) -> dict[str, Any]:
    stats = explanation.stats
    return {
        "seconds": stats.seconds,
        "seconds_late": stats.seconds_late,
        "passes": stats.passes,
        "runs": stats.runs,
        "batch_size": stats.batch_size,
        "head_passes": stats.head_passes,
        "gradient_passes": stats.gradient_passes,
        "channels": stats.channels,
        "live_channels": stats.live_channels,
        "scored_channels": stats.scored_channels,
        "energy_covered": stats.energy_covered,
        "standard_error": None if stats.standard_error is None else list(stats.standard_error),
        "precision": stats.precision,
        "providers": list(stats.providers),
        "copies": stats.copies,
        "simplified": list(stats.simplified),
    }
