"""Maps by masked passes inside a graph: masks, the loop over them, weights, and the weighted sum."""

import numpy as np
import onnx_ir as ir

from ortcam_export.fused.explainer_graph.bundle_graphs import BundleGraphs
from ortcam_export.fused.explainer_graph.maps import finish, weigh, weighted_sum
from ortcam_export.fused.explainer_graph.masks import choose_channels, prepare_masks
from ortcam_export.fused.explainer_graph.passes import Passes
from ortcam_export.fused.explainer_graph.spec import Masking
from ortcam_export.graphs.builder import Builder

__all__ = ["masked_maps"]


def masked_maps(
    build: Builder, graphs: BundleGraphs, spec: Masking, image: ir.Value, features: ir.Value, targets: ir.Value
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Explain classes by masked passes.

    Args:
        build: of the graph.
        graphs: of the bundle.
        spec: of the method.
        image: float32 [1,C,H,W], preprocessed.
        features: of it, in the layout of the cut.
        targets: int64 [K], classes; of an expression any one number.

    Returns:
        The maps before ReLU float32 [K,h,w], the saliency float32 [K,H,W], and bool [K]: which maps are flat.
    """
    manifest = graphs.manifest
    cut, size = manifest.cut, (manifest.preprocessing.height, manifest.preprocessing.width)
    maps = graphs.maps(build, features)
    masks = prepare_masks(build, spec.plan, cut, size, maps)
    chunk = min(spec.batch_size, cut.channels)
    chosen = choose_channels(build, cut, spec.budget, chunk, masks)
    if spec.column:
        targets = build.op("Add", [targets, build.integers(spec.column)])
    scores, gated = Passes(build, graphs, spec, chunk, image, masks, chosen, targets).run()
    weights = weigh(build, spec, scores, chosen, targets)
    if gated is not None and spec.signed:
        gated = _where_weighed(build, gated, weights)
    low_resolution = weighted_sum(build, spec, cut, weights, maps, masks, chosen)
    raw = low_resolution if gated is None else gated
    saliency, flat = finish(build, cut, size, raw, at_image_size=gated is not None)
    return build.cast(low_resolution, ir.DataType.FLOAT), saliency, flat


def _where_weighed(build: Builder, gated: ir.Value, weights: ir.Value) -> ir.Value:
    """The gated sums float64 [K,H,W], and zero where no channel has a weight, float64 [n,K]."""
    sizes = build.op("ReduceSum", [build.op("Abs", [weights]), build.integers(0)], {"keepdims": 0})
    some = build.op("Greater", [sizes, build.constant(np.float64(0))])
    return build.op("Where", [build.reshape(some, -1, 1, 1), gated, build.constant(np.float64(0))])
