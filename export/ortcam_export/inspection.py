"""What a model is and where it can be cut, without writing a bundle: what `ortcam inspect MODEL` shows."""

import dataclasses
from typing import TYPE_CHECKING, Any

from ortcam.bundle import OutputPart
from ortcam.parity import probe_input
from ortcam_export.errors import ExportError, NoDefaultLayerError
from ortcam_export.graphs.layers import Layer, choose_layer, count_macs, find_branch_layers, find_layers
from ortcam_export.graphs.weights import WeightsFile
from ortcam_export.sources.conversion import convert
from ortcam_export.sources.converted import Converted
from ortcam_export.sources.onnx_files.file import OnnxFile
from ortcam_export.sources.opening import open_source
from ortcam_export.sources.source import Source
from ortcam_export.sources.types import InputSpec
from ortcam_export.staging import temporary

if TYPE_CHECKING:
    from ortcam_export.sources.types import Model

__all__ = ["Inspection", "inspect_source"]


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
        classes: their number, or that of the values.
        output_shape: of one image's output: (classes,), or the shape of a tensor.
        output_parts: the outputs, where several are taken.
        labels: their names; None where nothing names them.
        ending: the activation at the end: "softmax" or "sigmoid"; "probabilities": another that gives them;
            "identity", where the user said so; None.
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
    output_shape: tuple[int, ...]
    output_parts: tuple[OutputPart, ...]
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
            "output_shape": list(self.output_shape),
            "output_parts": [dataclasses.asdict(part) for part in self.output_parts],
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
        return self.source.knows_preprocessing


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
    converted, unclear = _converted(source, spec, opset)
    layers, default, branches = _layers_of(converted)
    classes = converted.logits.shape[1]
    inputs, outputs, version, producer = _graph_in_words(source, converted)
    labels = source.labels_of(classes)
    assumed = unclear or converted.assumed_activation or spec.activation
    return Inspection(
        source,
        layers,
        default,
        branches,
        len(converted.model.graph),
        count_macs(converted.model.graph),
        (*converted.notes, *unclear),
        inputs,
        outputs,
        classes,
        converted.output_shape or (classes,),
        converted.parts,
        labels,
        _ending(converted, assumed=bool(assumed)),
        version,
        producer,
    )


def _ending(converted: Converted, *, assumed: bool) -> str | None:
    if converted.activation == "identity":
        return "identity"
    return converted.ending.activation or (None if assumed else "probabilities")


def _converted(source: Source, spec: InputSpec, opset: int) -> tuple[Converted, tuple[str, ...]]:
    """The graph, and what an export would ask about its outputs, a sentence each."""
    try:
        return convert(source, opset=opset, activation=spec.activation), ()
    except ExportError as error:  # of outputs that could mean several things; what cannot be read at all fails again
        if spec.activation is not None:
            raise
        return convert(source, opset=opset, activation="softmax"), (f"an export asks: {error}",)


def _layers_of(converted: Converted) -> tuple[tuple[Layer, ...], Layer | None, tuple[Layer, ...]]:
    """The layers, the one that an export takes by default (None where it would ask), and those inside branches."""
    graph = converted.model
    with temporary() as folder:
        WeightsFile(folder).store(graph)
        probe = probe_input(converted.images, converted.preprocessing)
        layers = find_layers(graph, folder, probe)
        try:
            default = choose_layer(layers, None, model=graph, folder=folder, probe=probe)
        except NoDefaultLayerError:
            default = None
        return tuple(layers), default, tuple(find_branch_layers(graph, folder, probe))


def _graph_in_words(
    source: Source, converted: Converted
) -> tuple[tuple[str, ...], tuple[str, ...], int | None, str | None]:
    """(inputs, outputs, opset, producer) of the original; the last two of an `.onnx` file alone."""
    file = source.classifier
    if isinstance(file, OnnxFile):
        producer = " ".join(filter(None, (file.model.producer_name, file.model.producer_version))) or None
        return file.all_inputs, file.all_outputs, file.model.opset_imports.get(""), producer
    prepared = converted.preprocessing
    inputs = (f"image float32 [N,{prepared.channels},{prepared.height},{prepared.width}]",)
    if converted.parts:
        return inputs, tuple(f"{part.name} float32 {_of_batch(part.shape)}" for part in converted.parts), None, None
    name = "logits" if converted.activation != "identity" else "values"
    return inputs, (f"{name} float32 {_of_batch(converted.output_shape or converted.logits.shape[1:])}",), None, None


def _of_batch(shape: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, ('N', *shape)))}]"
