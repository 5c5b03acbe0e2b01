"""The answer to an inference request: JSON, and behind it the tensors that are sent as bytes."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import Any

from ortcam.serve.protocols.v2.envelope import JSON_LENGTH, AskedOutput
from ortcam.serve.protocols.v2.tensors import OutputTensor

__all__ = ["Answer", "answer_of"]


@dataclasses.dataclass(frozen=True)
class Answer:
    """The body of an answer, and the headers that go with it.

    Attributes:
        content: JSON, and the bytes behind it.
        headers: content type, and the length of the JSON where bytes follow it.
    """

    content: bytes
    headers: dict[str, str]


def answer_of(head: dict[str, Any], tensors: Sequence[OutputTensor], outputs: Sequence[AskedOutput]) -> Answer:
    """Encode an answer. The JSON is ASCII, so that any client can read it.

    Numbers are written in pieces: other threads run in between.

    Args:
        head: what stands before the outputs: model_name, model_version, id, parameters.
        tensors: one per output.
        outputs: as they were asked for.

    Example:
        >>> answer_of({"model_name": "m"}, [], []).content
        b'{"model_name": "m", "outputs": []}'
    """
    binary = [tensor.as_bytes() for tensor, output in zip(tensors, outputs, strict=True) if output.binary]
    sizes = iter([len(part) for part in binary])
    written: list[str] = []
    for tensor, output in zip(tensors, outputs, strict=True):
        pieces = [json.dumps({"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)})[:-1]]
        if output.binary:
            pieces.append(f', "parameters": {{"binary_data_size": {next(sizes)}}}')
        else:
            pieces.extend(_data(tensor))
        written.append("".join([*pieces, "}"]))
    before = json.dumps(head, allow_nan=False)[:-1] + (", " if head else "")
    text = f'{before}"outputs": [{", ".join(written)}]}}'.encode("ascii")
    if not binary:
        return Answer(text, {"Content-Type": "application/json"})
    headers = {"Content-Type": "application/octet-stream", JSON_LENGTH: str(len(text))}
    return Answer(b"".join([text, *binary]), headers)


def _data(tensor: OutputTensor) -> Iterator[str]:
    if tensor.in_base64:
        yield ', "parameters": {"content_type": "base64"}'
    yield ', "data": '
    yield from tensor.as_json()
