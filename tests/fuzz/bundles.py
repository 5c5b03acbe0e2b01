"""A small bundle made by code, of which one file is replaced; what is then loaded, explained with and verified."""

import dataclasses
import functools
import hashlib
import json
import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Final

import numpy as np
import onnx

import ortcam
from ortcam.bundle import MANIFEST_NAME, FileRecord, read_bundle
from ortcam.errors import OrtcamError
from ortcam.parity import verify, verify_gradient, verify_variants
from ortcam_export import export
from tests.fuzz.limits import BreachError, budget

__all__ = ["FOLDER", "check_accepted", "files", "put", "read_input", "remove_folder", "try_with", "use", "write_input"]

FOLDER: Final = "ORTCAM_FUZZ_BUNDLE"
_LABELS: Final = ("ant", "bee", "cat", "dog")
_SIDE: Final = 16
_CHANNELS: Final = 6
# A minute of an infinite loop is noticed as well as an hour of it. The limit of memory is that of the process.
_SECONDS: Final = 10.0
_MEMORY: Final = 1 << 30


def write_input(name: str, content: bytes) -> bytes:
    """An input of the fuzzer: the name of the file that is replaced, a line's end, and what it holds then."""
    return name.encode() + b"\n" + content


def read_input(data: bytes) -> tuple[str, bytes]:
    """The file that an input replaces and by what; the name of any other file stands for the manifest."""
    name, _, content = data.partition(b"\n")
    given = name.decode(errors="replace")
    return (given if given in files() else MANIFEST_NAME), content


@functools.cache
def files() -> dict[str, bytes]:
    """The files of the bundle, by name; those in the folder that the environment names were made before."""
    if made := os.environ.get(FOLDER):
        return {path.name: path.read_bytes() for path in sorted(Path(made).iterdir())}
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, "model.onnx")
        model.write_bytes(_model().SerializeToString())
        bundle = Path(folder, "small.ortcam")
        export(model, bundle, labels=_LABELS, channel_order="rgb", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
        return {path.name: path.read_bytes() for path in sorted(bundle.iterdir())}


def _model() -> onnx.ModelProto:
    """A classifier of two convolutions: image [N,3,16,16] -> maps [N,6,8,8] -> logits [N,4]."""
    random = np.random.default_rng(0)

    def weights(name: str, *shape: int) -> onnx.TensorProto:
        return onnx.numpy_helper.from_array(random.normal(0, 0.5, shape).astype(np.float32), name)

    made = onnx.helper.make_node
    nodes = [
        made("Conv", ["image", "w1"], ["a"], pads=[1, 1, 1, 1], strides=[2, 2]),
        made("Relu", ["a"], ["b"]),
        made("Conv", ["b", "w2", "b2"], ["c"], pads=[1, 1, 1, 1]),
        made("Relu", ["c"], ["d"]),
        made("GlobalAveragePool", ["d"], ["e"]),
        made("Flatten", ["e"], ["f"]),
        made("Gemm", ["f", "w3", "b3"], ["logits"], transB=1),
    ]
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "small",
        [value("image", onnx.TensorProto.FLOAT, ["N", 3, _SIDE, _SIDE])],
        [value("logits", onnx.TensorProto.FLOAT, ["N", len(_LABELS)])],
        [
            weights("w1", 5, 3, 3, 3),
            weights("w2", _CHANNELS, 5, 3, 3),
            weights("b2", _CHANNELS),
            weights("w3", len(_LABELS), _CHANNELS),
            weights("b3", len(_LABELS)),
        ],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)


@functools.cache
def _folder() -> Path:
    """A folder with the bundle, removed when the process ends; a file that no manifest lists lies there, too."""
    holder = tempfile.TemporaryDirectory(prefix="ortcam-fuzz-")
    _holders.append(holder)
    folder = Path(holder.name, "small.ortcam")
    folder.mkdir()
    for name, content in files().items():
        (folder / name).write_bytes(content)
    (folder / "unlisted.bin").write_bytes(bytes(4096))
    return folder


_holders: list[tempfile.TemporaryDirectory[str]] = []
_replaced: list[str] = []


def try_with(data: bytes, *, verified: bool = False) -> None:
    """Replace a file, with its hash in bundle.json made right, and use the bundle.

    Args:
        data: what `write_input` gives.
        verified: measure parity on the probe, too.

    Raises:
        BreachError: it took too much, or an untrue thing came of it.
    """
    name, content = read_input(data)
    folder = put(data)
    with budget(seconds=_SECONDS, memory=_MEMORY), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            use(folder, verified=verified)
        except OrtcamError:
            return
    if name.endswith(".onnx"):
        check_accepted(content)


def put(data: bytes) -> Path:
    """A folder with the bundle in which a file is replaced, as `try_with` uses it; the next call puts it back."""
    name, content = read_input(data)
    folder = _folder()
    for earlier in (*_replaced, MANIFEST_NAME):
        (folder / earlier).write_bytes(files()[earlier])
    _replaced[:] = [name]
    (folder / name).write_bytes(content)
    if name != MANIFEST_NAME:
        manifest = json.loads(files()[MANIFEST_NAME])
        manifest["files"][name] = dataclasses.asdict(FileRecord(len(content), hashlib.sha256(content).hexdigest()))
        (folder / MANIFEST_NAME).write_text(json.dumps(manifest))
    return folder


def use(folder: Path, *, verified: bool) -> None:
    """Predict and explain with a bundle, and measure its parity first where `verified`."""
    picture = (np.arange(24 * 20 * 3).reshape(24, 20, 3) % 251).astype(np.uint8)
    if verified:
        bundle = read_bundle(folder)
        verify(bundle)
        verify_gradient(bundle)
        verify_variants(bundle)
    with ortcam.load(folder, providers=["CPUExecutionProvider"], threads=1) as explainer:
        probabilities = explainer.predict(picture)
        if probabilities.shape != (len(explainer.labels),):
            raise BreachError(f"{len(explainer.labels)} labels, and probabilities of shape {probabilities.shape}")
        explanation = explainer.explain(picture, method="scorecam++", budget=2, batch_size=2)
        explanations = [explanation]
        if explainer.bundle.manifest.gradient is not None:
            explanations.append(explainer.explain(picture, method="grad-cam"))
        if not all(np.isfinite(each.maps).all() for each in explanations):
            raise BreachError("a map is not finite")


def check_accepted(content: bytes) -> None:
    """Of a graph that was accepted: its weights lie in listed files, and it has nothing that may run for ever."""
    model = onnx.load_model_from_string(content)
    if model.functions:
        raise BreachError("a graph with functions was accepted")
    for tensor in _tensors(model):
        places = [entry.value for entry in tensor.external_data if entry.key == "location"]
        if tensor.data_location == onnx.TensorProto.EXTERNAL and not set(places) <= {*files()} - {MANIFEST_NAME}:
            raise BreachError(f"external data at {places} were accepted")
    if kinds := {node.op_type for node in model.graph.node} & {"Loop", "If", "Scan"}:
        raise BreachError(f"a graph with {kinds} was accepted")


def _tensors(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    found = [*model.graph.initializer]
    for sparse in model.graph.sparse_initializer:
        found += [sparse.values, sparse.indices]
    for node in model.graph.node:
        for attribute in node.attribute:
            found += [attribute.t, *attribute.tensors]
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                found += [sparse.values, sparse.indices]
    return found


def remove_folder() -> None:
    """Remove the folder, which is made again when it is needed."""
    _folder.cache_clear()
    _replaced.clear()
    while _holders:
        holder = _holders.pop()
        shutil.rmtree(holder.name, ignore_errors=True)
        holder.cleanup()
