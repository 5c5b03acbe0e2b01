"""The export itself: convert, choose the cut, split, build the scorers, measure parity, move the bundle into place."""

import dataclasses
import importlib.metadata
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

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
from ortcam.errors import BundleError, OrtcamError
from ortcam.images.preprocessing import Preprocessing
from ortcam.parity import measure_parity, parity_failure, probe_input
from ortcam_export.errors import ExportError, NoDefaultLayerError, first_line
from ortcam_export.graphs.layers import Layer, choose_layer, count_macs, cut_open, find_branch_layers, find_layers
from ortcam_export.graphs.scorer import write_scorers
from ortcam_export.graphs.surgery import build_features, build_head, extract
from ortcam_export.graphs.weights import Interpolation, WeightsFile
from ortcam_export.precision.calibration import read_calibration
from ortcam_export.precision.variants import write_variants
from ortcam_export.request import ExportRequest, StageReport
from ortcam_export.sources.conversion import HIDES_TO_BLACK, Converted, convert
from ortcam_export.sources.labels import by_index
from ortcam_export.sources.onnx_files.reading import OnnxFile
from ortcam_export.sources.opening import InputSpec, Source, open_source
from ortcam_export.staging import move_into_place, staging, temporary

if TYPE_CHECKING:
    from ortcam_export.sources.opening import Model

__all__ = ["Inspection", "inspect_source", "write_bundle"]

_PROBE: Final = Probe("probe.npy", "probe-logits.npy")
_SMALLEST_SPAN: Final = 0.05
# A default layer with more of the multiply-adds behind it is worth a word.
_MUCH: Final = 0.6


def write_bundle(request: ExportRequest) -> Bundle:
    """Export a classifier as a bundle; see `ortcam_export.export`.

    Returns:
        The bundle, verified.

    Raises:
        ExportError: see the message; nothing is left behind.
    """
    say, destination, spec = request.report, request.destination, request.spec
    layer, activation, variants, pictures = request.layer, spec.activation, request.precisions, request.calibration
    say("loading the model")
    source = open_source(request.model, weights=request.weights, checkpoint=request.checkpoint, spec=spec)
    if source.classes is not None:
        _check_given_labels(source, source.classes)
    say("converting to ONNX")
    converted = convert(source, opset=request.opset, activation=activation)
    for note in converted.notes:
        say(note)
    _check_floating(converted, variants)
    graph, prepared = converted.model, converted.preprocessing
    _check_span(prepared)
    size = prepared.height, prepared.width
    images = probe_input(converted.pictures, prepared)
    labels_of_model = _labels(source, converted.logits.shape[1], converted.activation, say)
    for sentence in (*source.assumed, *_assumed_of_outputs(source, converted)):
        say(f"assumed: {sentence}")
    with staging(destination) as folder:
        say("choosing the layer")
        weights_file = WeightsFile(folder)
        weights_file.store(graph)
        layers = find_layers(graph, folder, images)
        chosen = choose_layer(layers, layer, model=graph, folder=folder, probe=images)
        _say_choice(say, chosen, graph, named=layer is not None)
        matrices = Interpolation.store(weights_file, chosen.cut, height=size[0], width=size[1])
        graphs, cut = _write_graphs(graph, chosen, folder, matrices, converted.activation)
        say("measuring parity")
        np.save(folder / _PROBE.images, converted.pictures)
        np.save(folder / _PROBE.logits, converted.logits)
        try:
            parity = measure_parity(
                folder.joinpath,
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
        try:
            read_bundle(folder)
        except BundleError as error:
            reason = str(error).replace(f"{folder}/", "").removeprefix(f"{folder}: ")
            raise ExportError(f"no bundle can be made of this model: {reason}. Nothing was written") from None
        say("writing the bundle")
        move_into_place(folder, destination, force=request.force)
    return read_bundle(destination)


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What `ortcam inspect MODEL` shows.

    Attributes:
        source: the model, its preprocessing and labels.
        layers: where it can be cut, in the order of the graph.
        default: the layer an export takes by default; None where it would ask for one.
        branches: layers inside branches, which are taken by their module path or tensor.
        nodes: number of nodes of the converted graph.
        macs: multiply-adds for one image; None where not all shapes are known.
        notes: what was done to the graph, a sentence each.
        inputs: of the original, in words.
        outputs: of the original, in words.
        classes: their number.
        labels: their names; None where nothing names them.
        ending: the activation at the end: "softmax" or "sigmoid"; "probabilities": another that gives them; None.
        opset: version of the operator set, of an `.onnx` file.
        producer: what wrote an `.onnx` file.
    """

    source: Source
    layers: tuple[Layer, ...]
    default: Layer | None
    branches: tuple[Layer, ...]
    nodes: int
    macs: int | None
    notes: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    classes: int
    labels: tuple[str, ...] | None
    ending: str | None
    opset: int | None
    producer: str | None

    def summary(self) -> dict[str, Any]:
        """What `ortcam inspect MODEL --json` prints."""
        record = self.source.record
        return {
            "model": record.name,
            "source": record.source,
            "opset": self.opset,
            "producer": self.producer,
            "inputs": list(self.inputs),
            "outputs": list(self.outputs),
            "classes": self.classes,
            "labels": None if self.labels is None else list(self.labels),
            "labels_source": self.source.labels_source or None,
            "activation": self.ending,
            "metadata": dict(self.source.metadata),
            "preprocessing": dataclasses.asdict(self.source.preprocessing) if self.knows_preprocessing else None,
            "preprocessing_source": self.source.preprocessing_source,
            "assumed": list(self.source.assumed),
            "notes": list(self.notes),
            "nodes": self.nodes,
            "multiply_adds": self.macs,
            "default_layer": None if self.default is None else self.default.cut.module or self.default.cut.tensor,
            "layers": [_layer_summary(layer) for layer in (*self.layers, *self.branches)],
        }

    @property
    def knows_preprocessing(self) -> bool:
        """Whether anything says how an image becomes the model's input."""
        return self.source.preprocessing_source != "not known"


def _layer_summary(layer: Layer) -> dict[str, Any]:
    cut = layer.cut
    return {
        "module": cut.module,
        "tensor": cut.tensor,
        "layout": cut.layout,
        "maps": [cut.channels, cut.height, cut.width],
        "multiply_adds_behind": layer.macs_behind,
        "inside_branch": layer.inside_branch,
    }


def inspect_source(model: "Model", *, weights: str, spec: InputSpec, opset: int) -> Inspection:
    """The layers a model can be cut at; see `ortcam_export.inspect_model`.

    Raises:
        ExportError: the model cannot be loaded or converted.
    """
    source = open_source(model, weights=weights, spec=spec)
    unclear: tuple[str, ...] = ()
    try:
        converted = convert(source, opset=opset, activation=spec.activation)
    except ExportError as error:  # of outputs that could mean several things; what cannot be read at all fails again
        if spec.activation is not None:
            raise
        converted, unclear = convert(source, opset=opset, activation="softmax"), (f"an export asks: {error}",)
    graph = converted.model
    with temporary() as folder:
        WeightsFile(folder).store(graph)
        probe = probe_input(converted.pictures, converted.preprocessing)
        layers = find_layers(graph, folder, probe)
        try:
            default = choose_layer(layers, None, model=graph, folder=folder, probe=probe)
        except NoDefaultLayerError:
            default = None
        branches = find_branch_layers(graph, folder, probe)
    classes, file = converted.logits.shape[1], source.classifier
    size = converted.preprocessing.height, converted.preprocessing.width
    inputs: tuple[str, ...] = (f"image float32 [N,3,{size[0]},{size[1]}]",)
    outputs: tuple[str, ...] = (f"logits float32 [N,{classes}]",)
    version: int | None = None
    producer: str | None = None
    if isinstance(file, OnnxFile):
        inputs, outputs, version = file.all_inputs, file.all_outputs, file.model.opset_imports.get("")
        producer = " ".join(filter(None, (file.model.producer_name, file.model.producer_version))) or None
    _check_given_labels(source, classes)
    labels = source.labels if source.labels is not None and len(source.labels) == classes else None
    taken = converted.ending.activation
    return Inspection(
        source,
        tuple(layers),
        default,
        tuple(branches),
        len(graph.graph),
        count_macs(graph.graph),
        (*converted.notes, *unclear),
        inputs,
        outputs,
        classes,
        labels,
        taken or (None if unclear or converted.assumed_activation or spec.activation else "probabilities"),
        version,
        producer,
    )


def _write_graphs(
    model: ir.Model,
    layer: Layer,
    folder: Path,
    interpolation: Interpolation,
    activation: Activation,
) -> tuple[Graphs, Cut]:
    """Write the graphs of a model cut at a layer; returns their names and the cut as it came to be."""
    split, cut = cut_open(model, layer)
    ir.save(build_features(split, cut.tensor), folder / "features.onnx")
    if layer.inside_branch:
        ir.save(extract(model, ["image"], ["logits"]), folder / "classifier.onnx")
    else:
        ir.save(build_head(split, cut.tensor), folder / "head.onnx")
    scorers = write_scorers(model, cut, folder, interpolation, activation)
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


def _assumed_of_outputs(source: Source, converted: Converted) -> Iterator[str]:
    released = source.record.source == "torchvision" and source.record.weights_sha256 is None
    if converted.assumed_activation and not released:
        yield "the outputs are logits of a softmax, since no activation ends the graph; --activation says otherwise"


def _labels(source: Source, classes: int, activation: Activation, say: StageReport) -> tuple[str, ...]:
    if classes == 1 and activation == "softmax":
        raise ExportError(
            "the model has one logit, whose softmax is 1 for every image; --activation sigmoid makes it the "
            "probability of its one class"
        )
    _check_given_labels(source, classes)
    labels = source.labels
    if labels is not None and len(labels) == classes:
        return labels
    why = "nothing names them"
    if labels is not None:
        why = f"the {len(labels)} labels of {source.labels_source} are not for its {classes} classes"
    say(f"assumed: classes go by their index, as {why}; --labels FILE names them")
    return by_index(classes)


def _check_given_labels(source: Source, classes: int) -> None:
    """See that the labels that the user gave are as many as the classes.

    Raises:
        ExportError: they are not.
    """
    labels = source.labels
    if labels is not None and not source.labels_source and len(labels) != classes:
        raise ExportError(f"{len(labels)} labels for a model of {classes} classes; accepted is one per class, in order")


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


def _say_choice(say: StageReport, layer: Layer, graph: ir.Model, *, named: bool) -> None:
    """Say where the model is split, and what that means where it is not plain."""
    if named:
        say(f"splitting at {_describe(layer)}")
    else:
        say(f"assumed: the layer {_describe(layer)}; --layer NAME takes another (`ortcam inspect MODEL` lists them)")
    if layer.inside_branch:
        say("this layer lies inside a branch: no head of its own; the methods need the maps and the whole model")
    total = count_macs(graph.graph)
    if not named and layer.macs_behind is not None and total and layer.macs_behind > _MUCH * total:
        say(
            f"{layer.macs_behind / total:.0%} of the model's multiply-adds lie behind this layer: nothing later is a "
            "map of the image that every path passes; --layer takes one inside a branch (`ortcam inspect MODEL`)"
        )
