"""The export itself: convert, choose the cut, split, build the scorers, measure parity, move the bundle into place."""

import contextlib
import dataclasses
import importlib.metadata
import os
import platform
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from ortcam._version import __version__
from ortcam.bundle import (
    MANIFEST_NAME,
    SCHEMA_VERSION,
    Bundle,
    Cut,
    FileRecord,
    Graphs,
    Manifest,
    Parity,
    file_sha256,
    read_bundle,
)
from ortcam.classifier import as_maps, classify
from ortcam.preprocessing import Preprocessing
from ortcam.upsampling import upsample
from ortcam_export.conversion import (
    DEFAULT_OPSET,
    fix_input_size,
    from_onnx,
    from_torch,
    input_size_of,
    probe_images,
)
from ortcam_export.errors import ExportError
from ortcam_export.graphs import (
    SCORER_KINDS,
    Interpolation,
    WeightsFile,
    build_features,
    build_head,
    build_scorer,
)
from ortcam_export.layers import Layer, choose_layer, find_layers
from ortcam_export.sources import DEFAULT_WEIGHTS, InputSpec, InterpolationName, Source, open_source

if TYPE_CHECKING:
    import torch

__all__ = ["Inspection", "StageReport", "export", "inspect_model"]

# Called with a sentence when a stage of the export begins.
StageReport = Callable[[str], None]

PARITY_TOLERANCE: Final = 1e-4
_PROBES: Final = 4
_MASKED: Final = 3


def export(
    model: "str | Path | torch.nn.Module",
    output: str | os.PathLike[str],
    *,
    weights: str = DEFAULT_WEIGHTS,
    checkpoint: str | Path | None = None,
    layer: str | None = None,
    opset: int = DEFAULT_OPSET,
    force: bool = False,
    input_size: tuple[int, int] | None = None,
    resize: int | None = None,
    mean: tuple[float, float, float] | None = None,
    std: tuple[float, float, float] | None = None,
    interpolation: InterpolationName | None = None,
    labels: str | Path | Sequence[str] | None = None,
    report: StageReport | None = None,
) -> Bundle:
    """Export a classifier as a bundle.

    Args:
        model: torchvision name, `package.module:callable` that returns a module, path of an `.onnx` file, or a module.
        output: folder to write; it appears only when the bundle is complete and has passed its parity check.
        weights: torchvision weights by name, "DEFAULT", or "none" for random ones.
        checkpoint: file with a state dict, plain or xz-compressed.
        layer: module path, tensor name, or index in `inspect_model`'s list; None takes the default layer.
        opset: version of the ONNX operator set, for models that come from PyTorch.
        force: replace a bundle that is there.
        input_size: (height, width) of the model's input.
        resize: length of the short side before the crop; None resizes straight to `input_size`, unless torchvision's
            metadata say otherwise.
        mean: RGB mean of pixels in [0,1].
        std: RGB standard deviation of pixels in [0,1].
        interpolation: "bilinear" or "bicubic".
        labels: a file (a JSON list, or one label a line), or the labels.
        report: told the stages.

    Returns:
        The bundle, verified.

    Raises:
        ExportError: see the message; nothing is left behind.
    """
    say = report or (lambda _: None)
    destination = Path(output)
    _check_destination(destination, force=force)
    spec = InputSpec(input_size, resize, mean, std, interpolation, labels)
    say("loading the model")
    source = open_source(model, weights=weights, checkpoint=checkpoint, spec=spec)
    say("converting to ONNX")
    graph, source = _convert(source, spec, opset)
    preprocessing = _preprocessing(source)
    with _staging(destination) as folder:
        say("choosing the layer")
        weights_file = WeightsFile(folder)
        weights_file.store(graph)
        size = preprocessing.height, preprocessing.width
        probe = probe_images(_PROBES, *size, mean=preprocessing.mean, std=preprocessing.std)
        layers = find_layers(graph, folder, probe)
        chosen = choose_layer(layers, layer, model=graph, folder=folder, probe=probe)
        say(f"splitting at {_describe(chosen)}")
        graphs = _write_graphs(graph, chosen.cut, folder, weights_file, size)
        say("measuring parity")
        reference, name = _reference(source, probe)
        labels_of_model = _labels(source, reference.shape[1])
        parity = _measure_parity(folder, graphs, chosen.cut, probe, reference, name)
        manifest = Manifest(
            schema=SCHEMA_VERSION,
            model=source.record,
            labels=labels_of_model,
            activation="softmax",
            preprocessing=preprocessing,
            preprocessing_source=source.preprocessing_source,
            cut=chosen.cut,
            graphs=graphs,
            precision="float32",
            opset=graph.graph.opset_imports[""],
            parity=parity,
            probe=None,
            files={path.name: FileRecord(path.stat().st_size, file_sha256(path)) for path in sorted(folder.iterdir())},
            versions=_versions(source),
        )
        (folder / MANIFEST_NAME).write_text(manifest.to_json(), "utf-8")
        say("writing the bundle")
        _move_into_place(folder, destination)
    return read_bundle(destination)


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What `ortcam inspect MODEL` shows.

    Attributes:
        source: the model, its preprocessing and labels.
        layers: where it can be cut, in the order of the graph.
        default: the layer an export takes by default.
        nodes: number of nodes of the converted graph.
    """

    source: Source
    layers: tuple[Layer, ...]
    default: Layer
    nodes: int


def inspect_model(
    model: "str | Path | torch.nn.Module",
    *,
    weights: str = "none",
    input_size: tuple[int, int] | None = None,
    opset: int = DEFAULT_OPSET,
) -> Inspection:
    """The layers a model can be cut at, with their shapes; weights do not matter and are random by default.

    Raises:
        ExportError: the model cannot be loaded or converted.
    """
    # Only the size of the input counts here; the rest is filled in so that nothing has to be asked for.
    known = isinstance(model, str) and ":" not in model and not model.endswith(".onnx")
    filler = None if known else (0.0, 0.0, 0.0)
    spec = InputSpec(input_size, mean=filler, std=filler and (1.0, 1.0, 1.0), labels=None if known else ["?"])
    source = open_source(model, weights=weights, spec=spec)
    graph, source = _convert(source, spec, opset)
    preprocessing = _preprocessing(source)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        WeightsFile(folder).store(graph)
        size = preprocessing.height, preprocessing.width
        probe = probe_images(2, *size, mean=preprocessing.mean, std=preprocessing.std)
        layers = find_layers(graph, folder, probe)
        default = choose_layer(layers, None, model=graph, folder=folder, probe=probe)
    return Inspection(source, tuple(layers), default, len(graph.graph))


def _convert(source: Source, spec: InputSpec, opset: int) -> tuple[ir.Model, Source]:
    if isinstance(source.classifier, Path):
        graph = from_onnx(source.classifier)
        fixed = input_size_of(graph)
        size = fixed or spec.input_size
        if size is None:
            raise ExportError(
                f"{source.classifier}: the graph leaves the image size open; fix it with --input-size H W"
            )
        if spec.input_size not in (None, size):
            raise ExportError(f"--input-size {spec.input_size}: the graph takes {size}")
        fix_input_size(graph, *size)
        return graph, dataclasses.replace(source, preprocessing=spec.preprocessing(*size))
    preprocessing = _preprocessing(source)
    return from_torch(source.classifier, height=preprocessing.height, width=preprocessing.width, opset=opset), source


def _preprocessing(source: Source) -> Preprocessing:
    assert source.preprocessing is not None
    return source.preprocessing


def _write_graphs(model: ir.Model, cut: Cut, folder: Path, weights: WeightsFile, size: tuple[int, int]) -> Graphs:
    height, width = size
    interpolation = Interpolation.store(weights, cut, height=height, width=width)
    ir.save(build_features(model, cut.tensor), folder / "features.onnx")
    ir.save(build_head(model, cut.tensor), folder / "head.onnx")
    scorers = {}
    for kind in SCORER_KINDS:
        scorers[kind] = f"scorer-{kind}.onnx"
        ir.save(
            build_scorer(model, cut, kind, height=height, width=width, weights=interpolation), folder / scorers[kind]
        )
    return Graphs("features.onnx", "head.onnx", None, scorers)


def _reference(source: Source, probe: NDArray[np.float32]) -> tuple[NDArray[np.float32], str]:
    """The model's own logits, float32 [N,classes], and what computed them."""
    if isinstance(source.classifier, Path):
        session = _session(source.classifier)
        return session.run(None, {session.get_inputs()[0].name: probe})[0], f"onnxruntime {ort.__version__}"
    import torch  # noqa: PLC0415

    with torch.inference_mode():
        logits: NDArray[np.float32] = source.classifier(torch.from_numpy(probe)).numpy()
    return logits, f"torch {torch.__version__}"


def _measure_parity(
    folder: Path, graphs: Graphs, cut: Cut, probe: NDArray[np.float32], reference: NDArray[np.float32], name: str
) -> Parity:
    """head(features(x)) against the model, at batch sizes N and 1, and every scorer against head(features(mask * x)).

    Raises:
        ExportError: a difference beyond the tolerance.
    """

    def run(images: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return classify(graphs, lambda name: _session(folder / name), images)

    tensors, logits = run(probe)
    _, single = run(probe[:1])
    split = max(_relative(logits, reference), _relative(single, reference[:1]))
    maps = as_maps(tensors[:1], cut)
    strongest = np.argsort(-np.abs(maps).sum(axis=(1, 2)), kind="stable")
    picked = strongest[:_MASKED].astype(np.int64)
    scorer = max(
        _relative(*_masked_logits(_session(folder / file), kind, probe[:1], maps, picked, lambda x: run(x)[1]))
        for kind, file in graphs.scorers.items()
    )
    for what, difference in (("head(features(x))", split), ("the scorer", scorer)):
        if not difference <= PARITY_TOLERANCE:
            raise ExportError(
                f"{what} differs from the model by {difference:.1e} relative; accepted is {PARITY_TOLERANCE:.0e}. "
                "Nothing was written"
            )
    return Parity(name, len(probe), split, scorer, PARITY_TOLERANCE)


def _masked_logits(
    scorer: ort.InferenceSession,
    kind: str,
    image: NDArray[np.float32],
    maps: NDArray[np.float32],
    channels: NDArray[np.int64],
    classify: Callable[[NDArray[np.float32]], NDArray[np.float32]],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits from a scorer, and those of the images masked outside it with numpy's gate."""
    upsampled = upsample(maps[channels], *image.shape[2:])[:, None]
    gate: Callable[[NDArray[np.float32]], NDArray[np.float32]] = NUMPY_GATES.get(kind, lambda x: x)
    masked = (gate(upsampled) * image).astype(np.float32)
    if kind == "noise":
        masked = masked + 0.5 * image
    expected = classify(masked)
    classes = expected.shape[1]
    feeds: dict[str, NDArray[np.generic]] = {
        "image": image,
        "maps": maps[None],
        "channels": channels,
        "targets": np.arange(classes),
        "scale": np.ones(len(channels), np.float32),
        "noise": image,
        "sigma": np.full(len(channels), 0.5, np.float32),
        "keep": np.ones(len(channels), np.float32),
        "baseline": np.zeros(classes, np.float32),
        "logit_softmax": np.array(False),
    }
    wanted = {item.name for item in scorer.get_inputs()}
    (logits,) = scorer.run(["logits"], {name: value for name, value in feeds.items() if name in wanted})
    return logits, expected


def _sigmoid(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return (1 / (1 + np.exp(-x))).astype(np.float32)


# The gates once more in numpy, to check the graphs against.
NUMPY_GATES: Final[dict[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]]] = {
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
    "sigmoid-relu": lambda x: _sigmoid(np.maximum(x / 2, 0)),
    "relu": lambda x: np.maximum(x, 0),
    "mish": lambda x: x * np.tanh(np.logaddexp(0, x)),
    "swish": lambda x: x * _sigmoid(x),
    "softsign": lambda x: x / (1 + np.abs(x)),
}


def _relative(value: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Max |value - expected| / max |expected|."""
    if value.shape != expected.shape or not np.isfinite(value).all():
        return float("inf")
    return float(np.abs(value - expected).max() / max(float(np.abs(expected).max()), 1e-12))


def _session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _labels(source: Source, classes: int) -> tuple[str, ...]:
    labels = source.labels
    assert labels is not None
    if len(labels) != classes:
        raise ExportError(f"{len(labels)} labels for a model of {classes} classes; name one a class with --labels FILE")
    return labels


def _versions(source: Source) -> dict[str, str]:
    tools = ["onnx-ir", "onnxruntime", "numpy"]
    if not isinstance(source.classifier, Path):
        tools += ["torch", "torchvision", "onnxscript"]
    return {
        "ortcam": __version__,
        "python": platform.python_version(),
        **{tool: importlib.metadata.version(tool) for tool in sorted(tools)},
    }


def _describe(layer: Layer) -> str:
    cut = layer.cut
    return f"{cut.module or cut.tensor} [{cut.channels},{cut.height},{cut.width}]"


def _check_destination(destination: Path, *, force: bool) -> None:
    if not destination.exists() and not destination.is_symlink():
        if not destination.parent.is_dir():
            raise ExportError(f"{destination}: the folder {destination.parent} does not exist")
        if not os.access(destination.parent, os.W_OK):
            raise ExportError(f"{destination}: the folder {destination.parent} cannot be written to")
        return
    if not (destination / MANIFEST_NAME).is_file() or destination.is_symlink():
        raise ExportError(f"{destination}: exists and is not a bundle; it is left alone, name another")
    if not force:
        raise ExportError(f"{destination}: a bundle is there already; --force replaces it")


@contextlib.contextmanager
def _staging(destination: Path) -> Iterator[Path]:
    """A hidden folder beside the destination, gone afterwards whatever happens."""
    folder = destination.with_name(f".{destination.name}.{secrets.token_hex(4)}")
    try:
        folder.mkdir()
        yield folder
    except OSError as error:
        raise ExportError(f"{destination}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _move_into_place(folder: Path, destination: Path) -> None:
    old = destination.with_name(f".{destination.name}.{secrets.token_hex(4)}.old")
    replaced = destination.exists()
    if replaced:
        destination.rename(old)
    try:
        folder.rename(destination)
    except OSError:
        if replaced:
            old.rename(destination)
        raise
    if replaced:
        shutil.rmtree(old, ignore_errors=True)
