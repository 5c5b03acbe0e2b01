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
from typing import TYPE_CHECKING, Final, get_args

import numpy as np
import onnx_ir as ir

from ortcam._version import __version__
from ortcam.bundle import (
    MANIFEST_NAME,
    SCHEMA_VERSION,
    Activation,
    Bundle,
    Cut,
    FileRecord,
    Graphs,
    Manifest,
    Precision,
    Probe,
    file_sha256,
    read_bundle,
)
from ortcam.errors import OrtcamError
from ortcam.preprocessing import Preprocessing
from ortcam.verification import measure_parity, parity_failure, probe_input
from ortcam_export.calibration import check_folder, read_calibration
from ortcam_export.conversion import DEFAULT_OPSET, HIDES_TO_BLACK, Converted, convert
from ortcam_export.errors import ExportError, NoDefaultLayerError, first_line
from ortcam_export.graphs import (
    SCORER_KINDS,
    Interpolation,
    WeightsFile,
    build_features,
    build_head,
    build_scorer,
    extract,
)
from ortcam_export.layers import Layer, choose_layer, count_macs, cut_open, find_layers
from ortcam_export.library_preprocessing import read_declared
from ortcam_export.sources import (
    DEFAULT_WEIGHTS,
    ChannelOrder,
    InputLayout,
    InputSpec,
    InterpolationName,
    Source,
    open_source,
)
from ortcam_export.variants import choose_precisions, write_variants

if TYPE_CHECKING:
    import torch

__all__ = ["Inspection", "StageReport", "export", "inspect_model", "move_into_place", "staging"]

# Called with a sentence when a stage of the export begins.
StageReport = Callable[[str], None]

_PROBE: Final = Probe("probe.npy", "probe-logits.npy")
_SMALLEST_SPAN: Final = 0.05


def export(
    model: "str | Path | torch.nn.Module",
    bundle: str | os.PathLike[str],
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
    channel_order: ChannelOrder | None = None,
    scale: float | None = None,
    activation: Activation | None = None,
    output: str | None = None,
    input_layout: InputLayout | None = None,
    preprocessing: object | None = None,
    precision: str | Sequence[str] = "fp32",
    calibration: str | os.PathLike[str] | None = None,
) -> Bundle:
    """Export a classifier as a bundle.

    Args:
        model: torchvision name, path of an `.onnx` file, a module, or `package.module:callable` that returns one, alone
            or in a pair with a `preprocessing`.
        bundle: folder to write; it appears only when the bundle is complete and has passed its parity check.
        weights: torchvision weights by name, "DEFAULT", or "none" for random ones.
        checkpoint: file with a state dict: `.pth`, plain or xz-compressed, or `.safetensors`.
        layer: module path, tensor name, or index in `inspect_model`'s list; None takes the default layer.
        opset: version of the ONNX operator set, for models that come from PyTorch.
        force: replace a bundle that is there.
        input_size: (height, width) of the model's input.
        resize: length of the short side before the crop; None resizes straight to `input_size`, unless torchvision's
            metadata say otherwise.
        mean: of the three channels in `channel_order`, of pixels in [0, scale].
        std: standard deviation of the three channels in `channel_order`, of pixels in [0, scale].
        interpolation: "bilinear" or "bicubic".
        labels: a file (a JSON list, or one label a line), or the labels.
        report: told the stages.
        channel_order: "rgb" (where nothing else is known) or "bgr": the order of the channels in the model's input.
        scale: what white becomes before mean and std; 1 where nothing else is known, 255 for models that take bytes.
        activation: how logits become probabilities: "softmax", or "sigmoid" for classes that do not exclude each other
            and for one logit; None takes what the graph ends in, else softmax. Of a graph that ends in Sigmoid,
            "softmax" is that of the logits in front of it; one that ends in a softmax has no "sigmoid".
        output: the model's output to explain, where it has several.
        input_layout: "nchw" or "nhwc", for an `.onnx` file whose input does not tell.
        preprocessing: a timm data config, a transformers image processor, or an `ortcam.preprocessing.Preprocessing`;
            None takes what the model says of itself, as torchvision's and timm's do. `input_size`, `resize`, `mean`,
            `std`, `interpolation`, `channel_order` and `scale` override parts of it.
        precision: what the masked passes can compute in, beside float32, which is always there: "fp16" and "int8".
            Features, head and the logits of the clean image are float32 in all of them.
        calibration: for int8, a folder with pictures of the kind that will be explained; the first 64 by name are read.
            None takes the few that ortcam ships. On some of them each precision's maps are compared with float32's.

    Returns:
        The bundle, verified.

    Raises:
        ExportError: see the message; nothing is left behind.
    """
    say = report or (lambda _: None)
    destination = Path(bundle)
    _check_destination(destination, force=force)
    variants = choose_precisions(precision)[1:]
    pictures = None if calibration is None else _check_calibration(Path(calibration), variants)
    _check_choice("activation", activation, get_args(Activation))
    _check_choice("input_layout", input_layout, get_args(InputLayout))
    spec = InputSpec(
        input_size=input_size,
        resize=resize,
        mean=mean,
        std=std,
        interpolation=interpolation,
        labels=labels,
        channel_order=channel_order,
        scale=scale,
        activation=activation,
        output=output,
        input_layout=input_layout,
        declared=None if preprocessing is None else read_declared(preprocessing, input_size),
    )
    say("loading the model")
    source = open_source(model, weights=weights, checkpoint=checkpoint, spec=spec)
    say("converting to ONNX")
    converted = convert(source, opset=opset, activation=activation)
    for note in converted.notes:
        say(note)
    _check_floating(converted, variants)
    graph, prepared = converted.model, converted.preprocessing
    _check_span(prepared)
    size = prepared.height, prepared.width
    images = probe_input(converted.pictures, prepared)
    labels_of_model = _labels(source, converted.logits.shape[1], converted.activation)
    with staging(destination) as folder:
        say("choosing the layer")
        weights_file = WeightsFile(folder)
        weights_file.store(graph)
        layers = find_layers(graph, folder, images)
        chosen = choose_layer(layers, layer, model=graph, folder=folder, probe=images)
        say(f"splitting at {_describe(chosen)}")
        if chosen.inside_branch:
            say("this layer lies inside a branch: no head of its own; the methods need the maps and the whole model")
        matrices = Interpolation.store(weights_file, chosen.cut, height=size[0], width=size[1])
        graphs, cut = _write_graphs(graph, chosen, folder, matrices, size, converted.activation)
        say("measuring parity")
        np.save(folder / _PROBE.images, converted.pictures)
        np.save(folder / _PROBE.logits, converted.logits)
        try:
            parity = measure_parity(
                folder,
                graphs,
                cut,
                converted.activation,
                images=images,
                logits=converted.logits,
                reference=converted.reference,
                tolerance=converted.tolerance,
                scorer_tolerance=converted.scorer_tolerance,
            )
        except (OrtcamError, MemoryError):
            raise
        except Exception as error:  # ONNX Runtime raises its own types
            raise ExportError(f"ONNX Runtime does not run the graphs: {first_line(error)}") from error
        if failure := parity_failure(parity, graphs):
            raise ExportError(f"{failure}. Nothing was written")
        made = {}
        if variants:
            made = write_variants(
                variants,
                graph,
                folder,
                graphs=graphs,
                cut=cut,
                activation=converted.activation,
                interpolation=matrices,
                probe=images,
                calibration=read_calibration(pictures, prepared, say, integers="int8" in variants),
                say=say,
            )
        manifest = Manifest(
            schema=SCHEMA_VERSION,
            model=source.record,
            labels=labels_of_model,
            activation=converted.activation,
            preprocessing=prepared,
            preprocessing_source="; ".join(
                (source.preprocessing_source, *(note for note in converted.notes if note != HIDES_TO_BLACK))
            ),
            cut=cut,
            graphs=graphs,
            precision="int8" if converted.integers else "float32",
            variants=made,
            opset=graph.graph.opset_imports[""],
            parity=parity,
            probe=_PROBE,
            files={path.name: FileRecord(path.stat().st_size, file_sha256(path)) for path in sorted(folder.iterdir())},
            versions=_versions(source),
        )
        (folder / MANIFEST_NAME).write_text(manifest.to_json(), "utf-8")
        say("writing the bundle")
        move_into_place(folder, destination)
    return read_bundle(destination)


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What `ortcam inspect MODEL` shows.

    Attributes:
        source: the model, its preprocessing and labels.
        layers: where it can be cut, in the order of the graph.
        default: the layer an export takes by default; None where it would ask for one.
        nodes: number of nodes of the converted graph.
        macs: multiply-adds for one image; None where not all shapes are known.
        notes: what was done to the graph, a sentence each.
    """

    source: Source
    layers: tuple[Layer, ...]
    default: Layer | None
    nodes: int
    macs: int | None
    notes: tuple[str, ...]


def inspect_model(
    model: "str | Path | torch.nn.Module",
    *,
    weights: str = "none",
    input_size: tuple[int, int] | None = None,
    output: str | None = None,
    input_layout: InputLayout | None = None,
    opset: int = DEFAULT_OPSET,
) -> Inspection:
    """The layers a model can be cut at, with their shapes; weights do not matter and are random by default.

    Raises:
        ExportError: the model cannot be loaded or converted.
    """
    spec = InputSpec(input_size, output=output, input_layout=input_layout, partial=True)
    source = open_source(model, weights=weights, spec=spec)
    converted = convert(source, opset=opset, activation="softmax")
    graph = converted.model
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        WeightsFile(folder).store(graph)
        probe = probe_input(converted.pictures, converted.preprocessing)
        layers = find_layers(graph, folder, probe)
        try:
            default = choose_layer(layers, None, model=graph, folder=folder, probe=probe)
        except NoDefaultLayerError:
            default = None
    return Inspection(source, tuple(layers), default, len(graph.graph), count_macs(graph.graph), converted.notes)


def _write_graphs(
    model: ir.Model,
    layer: Layer,
    folder: Path,
    interpolation: Interpolation,
    size: tuple[int, int],
    activation: Activation,
) -> tuple[Graphs, Cut]:
    """Write the graphs of a model cut at a layer; returns their names and the cut as it came to be."""
    height, width = size
    split, cut = cut_open(model, layer)
    ir.save(build_features(split, cut.tensor), folder / "features.onnx")
    if layer.inside_branch:
        ir.save(extract(model, ["image"], ["logits"]), folder / "classifier.onnx")
    else:
        ir.save(build_head(split, cut.tensor), folder / "head.onnx")
    scorers = {}
    for kind in SCORER_KINDS:
        scorers[kind] = f"scorer-{kind}.onnx"
        scorer = build_scorer(
            model, cut, kind, height=height, width=width, weights=interpolation, activation=activation
        )
        ir.save(scorer, folder / scorers[kind])
    head, classifier = (None, "classifier.onnx") if layer.inside_branch else ("head.onnx", None)
    return Graphs("features.onnx", head, classifier, scorers), cut


def _check_span(preprocessing: Preprocessing) -> None:
    """Refuse an input in which black and white are nearly the same, as bytes' mean and std make of a scale of 1."""
    span = preprocessing.scale / max(preprocessing.std)
    if span < _SMALLEST_SPAN:
        raise ExportError(
            f"black and white would be {span:.2g} apart in the model's input (scale {preprocessing.scale:g}, std "
            f"{preprocessing.std[0]:g}): where mean and std are of bytes, or the graph takes bytes, say --scale 255"
        )


def _check_floating(converted: Converted, variants: Sequence[Precision]) -> None:
    if converted.integers and variants:
        raise ExportError(
            f"precision {', '.join(variants)}: the model computes in 8-bit integers already, and so do its scorers; "
            "leave --precision out, or export the floating model it was made from"
        )


def _labels(source: Source, classes: int, activation: Activation) -> tuple[str, ...]:
    labels = source.labels
    assert labels is not None
    if len(labels) != classes:
        raise ExportError(f"{len(labels)} labels for a model of {classes} classes; name one a class with --labels FILE")
    if classes == 1 and activation == "softmax":
        raise ExportError(
            "the model has one logit, whose softmax is 1 for every image; --activation sigmoid makes it the "
            "probability of its one class"
        )
    return labels


def _versions(source: Source) -> dict[str, str]:
    tools = ["numpy", "onnx", "onnx-ir", "onnxruntime", "onnxscript"]
    if source.record.source != "onnx":
        tools += ["torch", "torchvision"]
    return {
        "ortcam": __version__,
        "python": platform.python_version(),
        **{tool: importlib.metadata.version(tool) for tool in sorted(tools)},
    }


def _describe(layer: Layer) -> str:
    cut = layer.cut
    return f"{cut.module or cut.tensor} [{cut.channels},{cut.height},{cut.width}]"


def _check_choice(name: str, value: object, accepted: tuple[str, ...]) -> None:
    if value is not None and value not in accepted:
        raise ExportError(f"{name}={value!r}: accepted is {' or '.join(map(repr, accepted))}")


def _check_calibration(folder: Path, variants: Sequence[Precision]) -> Path:
    if not variants:
        raise ExportError(f"calibration {folder}: goes with a precision beside float32, which needs no pictures")
    return check_folder(folder)


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
def staging(destination: Path) -> Iterator[Path]:
    """A hidden folder beside the destination, gone afterwards whatever happens."""
    folder = destination.with_name(f".{destination.name}.{secrets.token_hex(4)}")
    try:
        folder.mkdir()
        yield folder
    except OSError as error:
        raise ExportError(f"{destination}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def move_into_place(folder: Path, destination: Path) -> None:
    """Give a folder its name; one that is there is removed once it has been replaced."""
    old = destination.with_name(f".{destination.name}.{secrets.token_hex(4)}.old")
    replaced = destination.exists()
    try:
        if replaced:
            destination.rename(old)
        folder.rename(destination)
    except BaseException:  # an interrupt, too
        if old.exists():
            old.rename(destination)
        raise
    if replaced:
        shutil.rmtree(old, ignore_errors=True)
