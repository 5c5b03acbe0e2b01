"""The export itself, step by step: load, convert, cut, write the graphs, measure parity, move the bundle into place.

Not `export.py`: a module of that name would take the place of the function `ortcam_export.export` once it is imported.
"""

import dataclasses
import importlib.metadata
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ortcam._version import __version__
from ortcam.bundle import (
    MANIFEST_NAME,
    SCHEMA_VERSION,
    Bundle,
    Cut,
    FileRecord,
    Gradient,
    Graphs,
    Manifest,
    ModelRecord,
    Parity,
    Precision,
    Probe,
    Variant,
    file_sha256,
    read_bundle,
)
from ortcam.engine.score import score_terms
from ortcam.errors import BundleError, OrtcamError
from ortcam.images.preprocessing import Preprocessing
from ortcam.parity import measure_parity, parity_failure, probe_input, sample_gradient
from ortcam_export.errors import ExportError, first_line
from ortcam_export.gradients import Opened, autograd_of, write_gradient
from ortcam_export.graphs.batch_axis.fixing import fix_graphs
from ortcam_export.graphs.layers import Layer, choose_layers, count_macs, cut_open, find_layers
from ortcam_export.graphs.scorer import write_scorers
from ortcam_export.graphs.surgery import build_features, build_head, extract
from ortcam_export.graphs.weights import Interpolation, WeightsFile
from ortcam_export.precision.calibration import read_calibration
from ortcam_export.precision.variants import write_variants
from ortcam_export.request import ExportRequest, StageReport
from ortcam_export.sources.conversion import convert
from ortcam_export.sources.converted import HIDES_TO_BLACK, Converted
from ortcam_export.sources.labels import by_index
from ortcam_export.sources.opening import open_source
from ortcam_export.sources.source import Source
from ortcam_export.staging import move_into_place, staging

__all__ = ["write_bundle"]

_PROBE: Final = Probe("probe.npy", "probe-logits.npy")
_GRADIENT_PROBE: Final = "probe-gradient.npy"
_SMALLEST_SPAN: Final = 0.05
# A default layer with more of the multiply-adds behind it is worth a word.
_MUCH: Final = 0.6


@dataclasses.dataclass(frozen=True)
class _Split:
    """A classifier cut in two, its graphs written.

    Attributes:
        model: the whole graph.
        opened: the same with floating tensors at its cuts.
        graphs: the names of the files.
        cut: where it was cut; the deepest of several.
        layers: further cuts.
        interpolation: the weights that bring maps to the input's size.
        weights: the file of weights.
    """

    model: ir.Model
    opened: ir.Model
    graphs: Graphs
    cut: Cut
    layers: tuple[Cut, ...]
    interpolation: Interpolation
    weights: WeightsFile


def write_bundle(request: ExportRequest) -> Bundle:
    """Export a classifier as a bundle; see `ortcam_export.export`.

    Returns:
        The bundle, verified.

    Raises:
        ExportError: see the message; nothing is left behind.
    """
    say, destination = request.report, request.destination
    source, converted = _load_and_convert(request)
    inputs = probe_input(converted.images, converted.preprocessing)
    labels = _labels(source, converted, say)
    for sentence in (*source.assumed, *_assumed_of_outputs(source, converted)):
        say(f"assumed: {sentence}")
    with staging(destination) as folder:
        say("choosing the layer")
        split = _split(request, converted, folder, inputs)
        say("measuring parity")
        parity = _measure_parity(converted, split, folder, inputs)
        gradient, no_gradient = _differentiate(source, converted, split, folder, inputs, say)
        variants = _write_variants(request, converted, split, folder, inputs)
        if request.static_batch is not None:
            say("fixing shapes, and measuring parity again")
            split = _fix_shapes(split, gradient, variants, folder, request.static_batch)
            parity = _measure_parity(converted, split, folder, inputs)
        manifest = Manifest(
            schema=SCHEMA_VERSION,
            model=_record(source),
            labels=labels,
            activation=converted.activation,
            output_shape=converted.output_shape or converted.logits.shape[1:],
            preprocessing=converted.preprocessing,
            preprocessing_source="; ".join(
                (source.preprocessing_source, *(note for note in converted.notes if note != HIDES_TO_BLACK))
            ),
            inputs=dict(source.inputs),
            cut=split.cut,
            layers=split.layers,
            graphs=split.graphs,
            gradient=gradient,
            no_gradient=no_gradient,
            precision="int8" if converted.integers else "float32",
            variants=variants,
            opset=converted.model.graph.opset_imports[""],
            parity=parity,
            probe=_PROBE if gradient is None else dataclasses.replace(_PROBE, gradient=_GRADIENT_PROBE),
            files={path.name: FileRecord(path.stat().st_size, file_sha256(path)) for path in sorted(folder.iterdir())},
            versions=_versions(source),
            output_parts=converted.parts,
        )
        _write_manifest(manifest, folder)
        say("writing the bundle")
        move_into_place(folder, destination, force=request.force)
    return read_bundle(destination)


def _load_and_convert(request: ExportRequest) -> tuple[Source, Converted]:
    """The classifier as it was loaded, and as a graph; its notes are told."""
    say, spec = request.report, request.spec
    say("loading the model")
    source = open_source(request.model, weights=request.weights, checkpoint=request.checkpoint, spec=spec)
    if source.classes is not None:
        source.labels_of(source.classes)  # too few of the user's are an error before a conversion that takes long
    say("converting to ONNX")
    converted = convert(source, opset=request.opset, activation=spec.activation)
    for note in converted.notes:
        say(note)
    _check_floating(converted, request.precisions)
    _check_span(converted.preprocessing)
    return source, converted


def _split(request: ExportRequest, converted: Converted, folder: Path, inputs: NDArray[np.float32]) -> _Split:
    """Choose the layer, and write the weights and the graphs on both sides of it."""
    model, prepared = converted.model, converted.preprocessing
    weights_file = WeightsFile(folder)
    weights_file.store(model)
    layers = find_layers(model, folder, inputs)
    *further, layer = choose_layers(layers, request.layers, model=model, folder=folder, probe=inputs)
    _say_choice(request.report, layer, further, model, named=bool(request.layers))
    interpolation = Interpolation.store(weights_file, layer.cut, height=prepared.height, width=prepared.width)
    opened, cut = cut_open(model, layer)
    cuts = []
    for other in further:
        opened, found = cut_open(opened, other)
        cuts.append(found)
    graphs = _write_graphs(converted, opened, [cut, *cuts], folder, interpolation, layer)
    return _Split(model, opened, graphs, cut, tuple(cuts), interpolation, weights_file)


def _measure_parity(converted: Converted, split: _Split, folder: Path, inputs: NDArray[np.float32]) -> Parity:
    """Write the probe, and measure the graphs on it against the original.

    Raises:
        ExportError: ONNX Runtime does not run them, or they differ by more than they may.
    """
    np.save(folder / _PROBE.images, converted.images)
    np.save(folder / _PROBE.logits, converted.logits)
    try:
        parity = measure_parity(
            folder.joinpath,
            split.graphs,
            split.cut,
            converted.activation,
            images=inputs,
            logits=converted.logits,
            reference=converted.reference,
            tolerance=converted.tolerance,
            scorer_tolerance=converted.scorer_tolerance,
        )
    except (OrtcamError, MemoryError):
        raise
    except Exception as error:  # ONNX Runtime raises its own types
        raise ExportError(f"ONNX Runtime does not run the graphs: {first_line(error)}") from error
    if failure := parity_failure(parity, split.graphs):
        raise ExportError(f"{failure}. Nothing was written")
    return parity


def _differentiate(
    source: Source,
    converted: Converted,
    split: _Split,
    folder: Path,
    inputs: NDArray[np.float32],
    say: StageReport,
) -> tuple[Gradient | None, str | None]:
    """Write the gradient graph and its probe; or say why there is none."""
    say("differentiating the head")
    cuts = {"features": split.cut} | {f"features_{i}": cut for i, cut in enumerate(split.layers, 1)}
    opened = Opened(split.opened, split.graphs.features, cuts, converted.integers)
    gradient, why = write_gradient(opened, split.weights, folder, inputs, autograd_of(source, converted))
    if gradient is None:
        say(f"no gradient: {why}; gradient methods need one, and everything else works")
        return None, why
    sample = sample_gradient(folder.joinpath, split.graphs, gradient, cuts, images=inputs, logits=converted.logits)
    np.save(folder / _GRADIENT_PROBE, sample)
    return gradient, None


def _write_variants(
    request: ExportRequest, converted: Converted, split: _Split, folder: Path, inputs: NDArray[np.float32]
) -> dict[str, Variant]:
    """Write the scorers in other precisions, calibrated and compared with those in float32."""
    if not request.precisions:
        return {}
    calibration = read_calibration(
        request.calibration,
        converted.preprocessing,
        request.report,
        integers=not {"int8", "qnn"}.isdisjoint(request.precisions),
    )
    return write_variants(
        request.precisions,
        split.model,
        folder,
        graphs=split.graphs,
        cut=split.cut,
        activation=converted.activation,
        interpolation=split.interpolation,
        probe=inputs,
        calibration=calibration,
        say=request.report,
    )


def _fix_shapes(
    split: _Split, gradient: Gradient | None, variants: dict[str, Variant], folder: Path, batch: int
) -> _Split:
    """Fix every dimension of the graphs, after all has been measured on graphs that take any batch."""
    fix_graphs(folder, split.graphs, gradient, variants, batch=batch)
    return dataclasses.replace(split, graphs=dataclasses.replace(split.graphs, static_batch=batch))


def _write_manifest(manifest: Manifest, folder: Path) -> None:
    """Write `manifest.json`, and read the bundle back as a user would.

    Raises:
        ExportError: it says what no bundle may say.
    """
    (folder / MANIFEST_NAME).write_text(manifest.to_json(), "utf-8")
    try:
        read_bundle(folder)
    except BundleError as error:
        reason = str(error).replace(f"{folder}/", "").removeprefix(f"{folder}: ")
        raise ExportError(f"no bundle can be made of this model: {reason}. Nothing was written") from None


def _write_graphs(
    converted: Converted,
    opened: ir.Model,
    cuts: Sequence[Cut],
    folder: Path,
    interpolation: Interpolation,
    layer: Layer,
) -> Graphs:
    """Write the graphs of a model, and of the same opened at its cuts, of which the first is the layer's."""
    model, activation = converted.model, converted.activation
    ir.save(build_features(opened, *(cut.tensor for cut in cuts)), folder / "features.onnx")
    if layer.inside_branch:
        ir.save(extract(model, ["image"], ["logits"]), folder / "classifier.onnx")
    else:
        ir.save(build_head(opened, cuts[0].tensor), folder / "head.onnx")
    terms = score_terms(activation, vectors=converted.has_classes)
    scorers = write_scorers(model, cuts[0], folder, interpolation, activation, terms=terms)
    head, classifier = (None, "classifier.onnx") if layer.inside_branch else ("head.onnx", None)
    return Graphs("features.onnx", head, classifier, scorers, terms)


def _check_span(preprocessing: Preprocessing) -> None:
    """Refuse an input in which black and white are nearly the same, as bytes' mean and std make of a scale of 1."""
    span = preprocessing.scale / max(preprocessing.std)
    if span >= _SMALLEST_SPAN:
        return
    low, high = preprocessing.value_range or (0.0, 255.0)
    ends = "black and white" if preprocessing.value_range is None else f"{low:g} and {high:g}"
    kind = "bytes" if (low, high) == (0.0, 255.0) else "samples as they are"
    raise ExportError(
        f"{ends} would be {span:.2g} apart in the model's input (scale {preprocessing.scale:g}, std "
        f"{max(preprocessing.std):g}): where mean and std are of {kind}, or the graph takes {kind}, say "
        f"--scale {high - low:g}"
    )


def _check_floating(converted: Converted, variants: Sequence[Precision]) -> None:
    if converted.integers and variants:
        raise ExportError(
            f"precision {', '.join(variants)}: the model computes in 8-bit integers already, and so do its scorers; "
            "leave --precision out, or export the floating model it was made from"
        )
    if variants and not converted.has_classes:
        raise ExportError(
            f"precision {', '.join(variants)}: accepted for one output [N,D] alone; this model has "
            f"{converted.outputs_in_words}, so leave --precision out"
        )


def _assumed_of_outputs(source: Source, converted: Converted) -> Iterator[str]:
    if source.embeddings is not None:
        if converted.assumed_activation:
            yield "the cosines with the classes are logits of a softmax; --activation sigmoid says otherwise"
        return
    released = source.record.source == "torchvision" and source.record.weights_sha256 is None
    if converted.assumed_activation and not released:
        yield "the outputs are logits of a softmax, since no activation ends the graph; --activation says otherwise"


def _record(source: Source) -> ModelRecord:
    """What the bundle says of the model, with the embeddings that its classes were made of."""
    if source.embeddings is None:
        return source.record
    classes = source.embeddings
    return dataclasses.replace(
        source.record, embeddings_sha256=classes.sha256, logit_scale=classes.scale, logit_bias=classes.bias
    )


def _labels(source: Source, converted: Converted, say: StageReport) -> tuple[str, ...]:
    """One per class, or per value of a row; none of values in a tensor."""
    classes = converted.logits.shape[1]
    if not converted.has_classes:
        if source.labels is not None and not source.labels_source:
            raise ExportError(f"{len(source.labels)} labels for {converted.outputs_in_words}; accepted are none")
        return ()
    if classes == 1 and converted.activation == "softmax":
        raise ExportError(
            "the model has one logit, whose softmax is 1 for every image; --activation sigmoid makes it the "
            "probability of its one class"
        )
    if (labels := source.labels_of(classes)) is not None:
        return labels
    if converted.activation == "identity":
        return by_index(classes, "output")
    why = "nothing names them"
    if source.labels is not None:
        why = f"the {len(source.labels)} labels of {source.labels_source} are not for its {classes} classes"
    say(f"assumed: classes go by their index, as {why}; --labels FILE names them")
    return by_index(classes)


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


def _say_choice(say: StageReport, layer: Layer, further: Sequence[Layer], graph: ir.Model, *, named: bool) -> None:
    """Say where the model is split, and what that means where it is not plain."""
    if further:
        say(f"splitting at {_describe(layer)}; further layers: {', '.join(map(_describe, further))}")
    elif named:
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
