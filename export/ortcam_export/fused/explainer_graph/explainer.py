"""A whole explanation as one ONNX graph: image in, saliency out, around the graphs of a bundle.

The graph does what `ortcam.explainer` does without limits, or with a budget and `completion="none"`. It has standard
operators only. Features, logits and targets come first. A method that masks the image goes on with masks and their
order, a `Loop` over chunks of channels whose body is the bundle's scorer, and the weighted sum; methods with several
samples per channel have a `Loop` over the samples around it. A gradient method goes on with the bundle's gradient graph
and a formula, without a loop. Weights and map are computed in float64, as in the runtime.

=======================  =======================  =================================================================
input                    shape                    meaning
=======================  =======================  =================================================================
``image``                float32 [1,C,H,W]        preprocessed; or an image of any size: uint8 [h,w,3], RGB, or of a
                                                  model with a value range its samples, float32 [h,w,C]
``classes``              int64 [K]                what to explain, where that is chosen at run time
=======================  =======================  =================================================================

=======================  =======================  =================================================================
output                   shape                    meaning
=======================  =======================  =================================================================
``logits``               float32 [1,outputs]      of the image
``targets``              int64 [K]                classes explained
``saliency``             float32 [K,H,W]          maps in [0,1], ReLU and min-max
``low_resolution``       float32 [K,h,w]          sum over channels at the resolution of the features, before ReLU;
                                                  where gated maps are summed that of gate(A), not of gate(U(A));
                                                  of several layers their fused map, at the size of the finest
``flat``                 bool [K]                 nothing speaks for the class, or all alike: the map is zero
``clamped``              bool [K]                 where ``classes`` is an input: it was none, the nearest was taken
``score``                float32 [K]              where a score is explained in place of classes: its value, K = 1, and
                                                  ``targets`` is -1
=======================  =======================  =================================================================

There is at least one class (K >= 1). A graph cannot raise errors: an image or a score that is not finite, which the
runtime refuses, gives a map without meaning. Weights that both the model and the loop need are in a function without
inputs (`sharing`). If the input is a decoded image, the weights of the resize take about 10 KB per pixel of its longer
side.
"""

from typing import Final

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common_passes
from onnxscript.optimizer import fold_constants

from ortcam.bundle import Bundle, Manifest
from ortcam_export.fused.explainer_graph.bundle_graphs import BundleGraphs
from ortcam_export.fused.explainer_graph.gradients import GradientMaps
from ortcam_export.fused.explainer_graph.loops import tensor
from ortcam_export.fused.explainer_graph.masked import masked_maps
from ortcam_export.fused.explainer_graph.preprocessing import build_preprocessing
from ortcam_export.fused.explainer_graph.seeds import score_value
from ortcam_export.fused.explainer_graph.spec import ExplainerSpec, Gradients, Masking, explained_layers, finest
from ortcam_export.graphs.builder import Builder

__all__ = ["build_explainer"]

# Elements of the largest tensor that is computed when the file is made: of shapes, and none that lies in a file.
_FOLD_ELEMENTS: Final = 64
_FLOAT, _INT64, _BOOL = ir.DataType.FLOAT, ir.DataType.INT64, ir.DataType.BOOL


def build_explainer(bundle: Bundle, spec: ExplainerSpec) -> ir.Model:
    """Build the graph described above. Its weights still lie in the bundle's files.

    Args:
        bundle: whose graphs it is made of.
        spec: what it does.
    """
    build, graphs, manifest = Builder(), BundleGraphs(bundle), bundle.manifest
    inputs, image = _take_image(build, manifest, spec)
    features, logits = graphs.classify(build, image)
    outputs = [_output(logits, "logits", _FLOAT, 1, manifest.outputs)]
    targets, clamped = _take_targets(build, manifest, spec, logits, inputs)
    if isinstance(spec.how, Masking):
        low_resolution, saliency, flat = masked_maps(build, graphs, spec.how, image, features["features"], targets)
    else:
        gradients = GradientMaps(build, graphs, spec.how, image, features, logits, targets, spec.top_k, spec.score)
        low_resolution, saliency, flat = gradients.run()
    explained = targets if spec.score is None else build.integers(-1)
    classes, resolution = spec.top_k or "K", finest(explained_layers(manifest, spec.how).values())
    outputs += [
        _output(build.op("Identity", [explained]), "targets", _INT64, classes),
        _output(saliency, "saliency", _FLOAT, classes, manifest.preprocessing.height, manifest.preprocessing.width),
        _output(low_resolution, "low_resolution", _FLOAT, classes, resolution.height, resolution.width),
        _output(flat, "flat", _BOOL, classes),
    ]
    if spec.score is not None:
        outputs.append(_output(score_value(build, logits, spec.score), "score", _FLOAT, 1))
    if clamped is not None:
        outputs.append(_output(clamped, "clamped", _BOOL, classes))
    graph = ir.Graph(
        inputs,
        outputs,
        nodes=build.take_nodes(),
        initializers=[value for value in (*build.initializers, *build.weights) if value.uses()],
        opset_imports=graphs.opsets,
        name="explainer",
    )
    model = ir.Model(graph, ir_version=10, producer_name="ortcam")
    if isinstance(spec.how, Gradients):
        _settle(model)
    common_passes.RemoveUnusedNodesPass()(model)
    return model


def _settle(model: ir.Model) -> None:
    """Leave nothing to be found out when the model is loaded: compute once what is there twice, and fix all shapes.

    The gradient graph runs the head, and so does the classifier in front of it.
    """
    common_passes.CommonSubexpressionEliminationPass()(model)
    common_passes.ShapeInferencePass()(model)
    fold_constants(model, input_size_limit=_FOLD_ELEMENTS, output_size_limit=_FOLD_ELEMENTS)
    common_passes.ShapeInferencePass()(model)


def _take_image(build: Builder, manifest: Manifest, spec: ExplainerSpec) -> tuple[list[ir.Value], ir.Value]:
    """The inputs of the graph, and the image as the model takes it."""
    preprocessing = manifest.preprocessing
    if spec.uint8_input:
        samples = preprocessing.needs_samples
        kind, bands = (_FLOAT, preprocessing.channels) if samples else (ir.DataType.UINT8, 3)
        decoded = tensor("image", kind, "h", "w", bands)
        return [decoded], build_preprocessing(build, decoded, preprocessing)
    image = tensor("image", _FLOAT, 1, preprocessing.channels, preprocessing.height, preprocessing.width)
    return [image], image


def _take_targets(
    build: Builder, manifest: Manifest, spec: ExplainerSpec, logits: ir.Value, inputs: list[ir.Value]
) -> tuple[ir.Value, ir.Value | None]:
    """Classes int64 [K] and, if they are an input, bool [K]: which of them had to be clamped. Of an expression 0."""
    if spec.score is not None:
        return build.integers(0), None
    if spec.top_k is None:
        targets = tensor("classes", _INT64, "K")
        inputs.append(targets)
        last = build.constant(np.int64(manifest.outputs - 1))
        inside = build.op("Clip", [targets, build.constant(np.int64(0)), last])
        return inside, build.op("Not", [build.op("Equal", [inside, targets])])
    _, indices = build.ops("TopK", [logits, build.integers(spec.top_k)], {"axis": -1}, outputs=2)
    return build.reshape(indices, -1), None


def _output(value: ir.Value, name: str, dtype: ir.DataType, *shape: int | str) -> ir.Value:
    """A value as an output of the graph."""
    value.name, value.shape, value.type = name, ir.Shape(shape), ir.TensorType(dtype)
    return value
