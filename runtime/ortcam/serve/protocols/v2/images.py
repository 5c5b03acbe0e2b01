"""The images of an inference request: one input tensor, whose data type says what they are."""

import math
from typing import Final

import numpy as np

from ortcam.images.preprocessing import Preprocessing
from ortcam.serve.decoding.sources import Encoded, Pixels, Preprocessed, Source
from ortcam.serve.http.refusals import Refusal
from ortcam.serve.protocols.v2.envelope import Inference, InputTensor
from ortcam.serve.protocols.v2.tensors import byte_strings, numbers
from ortcam.serve.settings import RequestLimits

__all__ = ["DATATYPES", "INPUT_NAMES", "datatypes_of", "sources_of"]

# The inputs by name, as the metadata list them, each with its data type. "image" goes with each of these types.
INPUT_NAMES: Final = {"BYTES": "image", "UINT8": "pixels", "FP32": "preprocessed"}
# Of `pixels`, where a model needs samples.
_OF_SAMPLES: Final = ("UINT8", "UINT16", "INT16", "FP32")
_OF_A_PICTURE: Final = {1, 3, 4}  # channels, as arrays may have them
DATATYPES: Final = tuple(dict.fromkeys((*INPUT_NAMES, *_OF_SAMPLES)))


def datatypes_of(preprocessing: Preprocessing) -> dict[str, str]:
    """The data type of each input as the metadata have it: one per input, that which holds all that is accepted."""
    own = {name: datatype for datatype, name in INPUT_NAMES.items()}
    return own | ({"pixels": "FP32"} if preprocessing.needs_samples else {})


def sources_of(inference: Inference, preprocessing: Preprocessing, limits: RequestLimits) -> list[Source]:
    """The images of a request, in order.

    `image` BYTES [n] are encoded images or arrays (.npy), `pixels` UINT8 [n,h,w,3] or [h,w,3] are RGB, and
    `preprocessed` FP32 [n,C,H,W] or [C,H,W] is the model's input. A model that needs samples takes `pixels` of UINT8,
    UINT16, INT16 or FP32, [n,h,w,C] or [h,w,C].

    Args:
        inference: the request.
        preprocessing: of the model.
        limits: how many images a request may have, and how many pixels each.

    Raises:
        Refusal: 400, no tensor that is accepted; 413, too many pixels; 422, too many images.
    """
    tensor = _only_input(inference, preprocessing)
    where = f"the input {tensor.name!r}"
    if tensor.datatype == "BYTES":
        _check_shape(tensor, where, "[n] or [n, 1]", matches=tensor.shape[1:] in {(), (1,)} and bool(tensor.shape))
        _check_count(tensor.shape[0], limits.images)
        contents = byte_strings(tensor, where)
        return [Encoded(content, f"{tensor.name}[{place}]") for place, content in enumerate(contents)]
    if tensor.datatype != "FP32" or (tensor.name == "pixels" and preprocessing.needs_samples):
        return _pixels(tensor, where, preprocessing.channels if preprocessing.needs_samples else 3, limits)
    own = (preprocessing.channels, preprocessing.height, preprocessing.width)
    batched = len(tensor.shape) == 4
    accepted = f"[n, {', '.join(map(str, own))}] or [{', '.join(map(str, own))}], the model's input"
    _check_shape(tensor, where, accepted, matches=(tensor.shape[1:] if batched else tensor.shape) == own)
    _check_count(tensor.shape[0] if batched else 1, limits.images)
    values = numbers(tensor, where)
    return [Preprocessed(np.ascontiguousarray(image[None])) for image in (values if batched else values[None])]


def _pixels(tensor: InputTensor, where: str, channels: int, limits: RequestLimits) -> list[Source]:
    """Pixels or samples, [n,h,w,channels] or [h,w,channels].

    Raises:
        Refusal: as `sources_of`.
    """
    batched = len(tensor.shape) == 4
    size = tensor.shape[1:3] if batched else tensor.shape[:2]
    fits = (batched or len(tensor.shape) == 3) and tensor.shape[-1] == channels and 0 not in size
    _check_shape(tensor, where, f"[n, h, w, {channels}] or [h, w, {channels}]", matches=fits)
    if math.prod(size) > limits.pixels:
        found = f"{size[1]} x {size[0]} pixels"
        raise Refusal(413, f"{where} has {found}; accepted: at most {limits.pixels} pixels per image")
    _check_count(tensor.shape[0] if batched else 1, limits.images)
    pixels = numbers(tensor, where)
    counts = _OF_A_PICTURE if channels in _OF_A_PICTURE else {channels}
    if size[0] in counts and size[1] not in counts:  # rows that could be channels: in front nothing else can be meant
        pixels = np.moveaxis(pixels, -1, -3)
    return [Pixels(np.ascontiguousarray(image)) for image in (pixels if batched else pixels[None])]


def _only_input(inference: Inference, preprocessing: Preprocessing) -> InputTensor:
    """The one input, if it is one of the metadata.

    Raises:
        Refusal: 400, several inputs, or one with another name or data type.
    """
    named = [(name, datatype) for datatype, name in INPUT_NAMES.items()]
    if preprocessing.needs_samples:
        named = [named[0], *(("pixels", datatype) for datatype in _OF_SAMPLES), named[-1]]
    each = ", ".join(f"{name!r} of {datatype}" for name, datatype in named)
    if len(inference.inputs) != 1:
        raise Refusal(400, f"the request has {len(inference.inputs)} inputs; accepted: one of {each}")
    tensor = inference.inputs[0]
    if (tensor.name, tensor.datatype) not in {*named, *(("image", datatype) for datatype in INPUT_NAMES)}:
        raise Refusal(400, f"the input is {tensor.name!r} of {tensor.datatype!r}; accepted: {each}")
    return tensor


def _check_shape(tensor: InputTensor, where: str, accepted: str, *, matches: bool) -> None:
    if not matches:
        raise Refusal(400, f"{where} of {tensor.datatype} has the shape {list(tensor.shape)}; accepted: {accepted}")


def _check_count(count: int, most: int) -> None:
    if not 1 <= count <= most:
        raise Refusal(422, f"the request has {count} images; accepted: 1 to {most}")
