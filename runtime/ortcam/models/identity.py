"""What an export depends on, as a hash: so that a bundle in the cache is found again, and never a stale one.

What is hashed, as far as it goes with the model:

1. Of a file (`.onnx`, `.pt2`, TorchScript): its name, its content, the content of the files that hold its weights, and
   of those beside it that may name classes or the preprocessing.
2. Of torchvision's: its name, the name of its weights, and torchvision's version, which names the file of the weights.
3. Of `package.module:callable`, and of a module: what it returned, see `ortcam_export.sources.pytorch.identity`.
4. The options; of files and folders among them (`checkpoint`, `labels`, `calibration`) the content.
5. The versions of ortcam and of all packages that take part, and the source of the exporter.
"""

import dataclasses
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import mmap
import os
import platform
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from ortcam._version import __version__
from ortcam.bundle import SCHEMA_VERSION, file_sha256

__all__ = ["BESIDE", "MOST_BESIDE", "ModelKey", "key_of", "plain_form"]

_TOOLS: Final = ("numpy", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "torch", "torchvision")
_LIBRARIES: Final = ("timm", "transformers")
# Beside a model: what may name its classes or its preprocessing.
BESIDE: Final = ("config.json", "preprocessor_config.json", "labels.txt")
MOST_BESIDE: Final = 2**24  # bytes
# The name of a file with weights, as protobuf writes it: the key "location", then a value of up to 16383 bytes.
_LOCATION: Final = re.compile(rb"\n\x08location\x12(?:([\x01-\x7f])|([\x80-\xff][\x01-\x7f]))")
_IMAGES: Final = 256  # of a folder to calibrate on; the first 64 that can be read are taken


@dataclasses.dataclass(frozen=True)
class ModelKey:
    """A model and its options, as a cache names them.

    Attributes:
        key: 32 hexadecimal digits.
        name: for a folder: letters, digits, dots and dashes.
        record: the model and its options in words.
    """

    key: str
    name: str
    record: dict[str, str]


def key_of(model: str, options: Mapping[str, Any], *, returned: str | None = None) -> ModelKey | None:
    """The key of a model with options; None where something of it cannot be hashed.

    Args:
        model: torchvision name, `package.module:callable`, or the path of a file.
        options: those given, of `ortcam_export.export`.
        returned: the hash of what a callable returned.

    Raises:
        OSError: a file cannot be read.
    """
    said: dict[str, Any] = {}
    for name, value in sorted(options.items()):
        plain = plain_form(name, value)
        if plain is None:
            return None
        said[name] = plain
    path = Path(model)
    content: list[list[str]] = []
    if path.is_file():  # files in two folders may have one name
        content = [[file.name, file_sha256(file)] for file in (path, *_weights(path), *_beside(path))]
    what = {
        "schema": SCHEMA_VERSION,
        "ortcam": __version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "exporter": _exporter(),
        "versions": {tool: _version(tool) for tool in (*_TOOLS, *_LIBRARIES)},
        "model": path.name if path.is_file() else model,
        "content": content,
        "returned": returned,
        "options": said,
    }
    digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
    stem = path.stem if path.is_file() else model.rpartition(":")[2] or model
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip(".-")[:80] or "model"
    words = " ".join(f"{name}={_short(value)}" for name, value in sorted(options.items()))
    return ModelKey(digest[:32], name, {"model": str(path.absolute()) if path.is_file() else model, "options": words})


def plain_form(name: str, value: Any) -> Any:
    """An option as JSON has it; None where it has no such form."""
    if name in ("checkpoint", "labels", "classes") and isinstance(value, (str, os.PathLike)):
        path = Path(value)
        return [path.name, file_sha256(path)] if _is_file(path) else str(value)
    if name == "calibration":
        return _folder(Path(value))
    if name == "inputs" and isinstance(value, Mapping):
        parts = [[key, plain_form("classes", item)] for key, item in sorted(value.items())]  # each may be a file
        return None if any(part[1] is None for part in parts) else parts
    if isinstance(value, np.ndarray):
        return [str(value.dtype), list(value.shape), hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()]
    if isinstance(value, (str, int, float, np.generic)):
        return value.item() if isinstance(value, np.generic) else value
    return _of_parts(value)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a value in the form of a text, too long for a name
        return False


def _of_parts(value: Any) -> Any:
    """What holds others as JSON has it; None where something in it has no such form."""
    if isinstance(value, (list, tuple)):
        items = [plain_form("", item) for item in value]
        return None if None in items else items
    if isinstance(value, dict):
        parts = [[str(key), plain_form("", item)] for key, item in sorted(value.items(), key=lambda item: str(item[0]))]
        return None if any(part[1] is None for part in parts) else parts
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [type(value).__qualname__, plain_form("", {key: repr(item) for key, item in vars(value).items()})]
    as_json = getattr(value, "to_json_string", None)  # an image processor of transformers
    return [type(value).__qualname__, as_json()] if callable(as_json) else None


def _folder(folder: Path) -> list[list[str]]:
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file() and path.name[:1] != ".")
    except OSError:
        return [[str(folder)]]  # the export says what is wrong
    return [[path.name, file_sha256(path)] for path in files[:_IMAGES]]


def _weights(path: Path) -> Iterator[Path]:
    """The files beside an `.onnx` file that it names as holding weights; what is none of them is of no harm."""
    if path.suffix.lower() != ".onnx" or not path.stat().st_size:
        return
    names = set()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for match in _LOCATION.finditer(content):
            length = match[1][0] if match[1] else match[2][0] - 128 + 128 * match[2][1]
            names.add(content[match.end() : match.end() + length])
    for name in sorted(names):
        beside = path.parent / os.fsdecode(name)
        if b"\0" not in name and beside.is_file():
            yield beside


def _beside(path: Path) -> Iterator[Path]:
    for name in BESIDE:
        file = path.parent / name
        if file.is_file() and file.stat().st_size <= MOST_BESIDE:
            yield file


@functools.cache
def _exporter() -> str:
    """The hash of the exporter's source: in a checkout it changes without its version."""
    found = importlib.util.find_spec("ortcam_export")
    if found is None or found.origin is None:
        return ""
    digest = hashlib.sha256()
    for file in sorted(Path(found.origin).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _short(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        text = ",".join(map(str, value))
        return text if len(text) <= 40 else f"{text[:37]}..."
    return str(value)
