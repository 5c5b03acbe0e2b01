"""Maps from gradients inside a graph: seeds and features into the bundle's gradient graph, and a formula behind it.

The graph has no loop. No dimension depends on the image, and with `top_k` none is open: runtimes for NPUs can take it.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np
import onnx_ir as ir

from ortcam.bundle import Cut
from ortcam.engine.score import ScoreMatrix
from ortcam.methods.attention import RELEVANCE
from ortcam.scoring import FUSED_SLOPE, draw_noise
from ortcam_export.fused.explainer_graph.bundle_graphs import BundleGraphs, as_maps
from ortcam_export.fused.explainer_graph.formulas import FORMULAS, grad_attention, smooth_grad_cam_plus_plus
from ortcam_export.fused.explainer_graph.maps import finish, upsampled
from ortcam_export.fused.explainer_graph.masks import value_range
from ortcam_export.fused.explainer_graph.seeds import finer_seeds, one_hot, probability_seeds, score_seeds
from ortcam_export.fused.explainer_graph.spec import Gradients, explained_layers, finest
from ortcam_export.graphs.builder import Builder

__all__ = ["GradientMaps"]

_SMOOTH: Final = "smooth-grad-cam++"
_ATTENTION: Final = "grad-attention"


@dataclasses.dataclass(frozen=True)
class GradientMaps:
    """The gradients of an explanation, and the maps made of them.

    Attributes:
        build: of the graph.
        graphs: of the bundle, which has a gradient graph.
        spec: of the method.
        image: float32 [1,C,H,W], preprocessed.
        features: of it, by their names in `manifest.cuts`.
        logits: float32 [1,outputs].
        targets: int64 [K].
        classes: K, where it is known.
        score: an expression that is differentiated in place of classes.
    """

    build: Builder
    graphs: BundleGraphs
    spec: Gradients
    image: ir.Value
    features: Mapping[str, ir.Value]
    logits: ir.Value
    targets: ir.Value
    classes: int | None
    score: ScoreMatrix | None = None

    def run(self) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Make the maps.

        Returns:
            The maps before ReLU float32 [K,h,w], where layers are fused at the resolution of the finest; the saliency
            float32 [K,H,W]; and bool [K]: which maps are flat.
        """
        build, preprocessing = self.build, self.graphs.manifest.preprocessing
        size = preprocessing.height, preprocessing.width
        cuts = explained_layers(self.graphs.manifest, self.spec)
        raws = self._raw_maps(cuts)
        if len(raws) == 1:
            (raw,), (cut,) = raws, cuts.values()
            saliency, flat = finish(build, cut, size, raw, at_image_size=False)
        else:
            scaled = [_scaled(build, raw) for raw in raws]
            cut = finest(cuts.values())
            raw = _largest(build, scaled, cuts.values(), (cut.height, cut.width))
            full = _largest(build, scaled, cuts.values(), size)
            saliency, flat = finish(build, cut, size, full, at_image_size=True)
        return build.cast(raw, ir.DataType.FLOAT), saliency, flat

    def _raw_maps(self, cuts: Mapping[str, Cut]) -> list[ir.Value]:
        """The maps of each layer before ReLU, float64 [K,h,w]."""
        build, spec, seeds = self.build, self.spec, self._seeds(self.logits)
        if spec.method == _ATTENTION:
            relevance = self.graphs.gradients(build, seeds, self.image, self.features)[RELEVANCE]
            return [grad_attention(build, relevance, self.graphs.manifest.cut, spec.options)]
        smooth = spec.method == _SMOOTH
        formula = smooth_grad_cam_plus_plus if smooth else FORMULAS[spec.method]
        gradients = self._noisy_gradients(seeds) if smooth else self._gradients(seeds)
        return [
            formula(build, self._maps(self.features[name], cut), gradients[name], spec.options)
            for name, cut in cuts.items()
        ]

    def _gradients(self, seeds: ir.Value) -> dict[str, ir.Value]:
        """The gradients at the image by the names of the layers, float64 [K,C,h,w]."""
        found = self.graphs.gradients(self.build, seeds, self.image, self.features)
        return {name: self._maps(found[name], cut) for name, cut in self.graphs.manifest.cuts.items()}

    def _seeds(self, logits: ir.Value) -> ir.Value:
        """How much each logit counts, float32 [K,outputs], at the logits float32 [1,outputs]."""
        build, classes = self.build, self.graphs.manifest.outputs
        if self.score is not None:
            return score_seeds(build, logits, self.score)
        if self.spec.by_probability:
            return probability_seeds(build, logits, self.targets, classes, self.graphs.manifest.activation)
        if self.spec.method == "finer-cam":
            return finer_seeds(build, logits, self.targets, classes, self.spec.options)
        return one_hot(build, self.targets, classes)

    def _maps(self, features: ir.Value, cut: Cut) -> ir.Value:
        """The maps in features or gradients of a layer, float64 [N,C,h,w]: sums of maps of either sign may cancel."""
        return self.build.cast(as_maps(self.build, features, cut), ir.DataType.DOUBLE)

    def _noisy_gradients(self, seeds: ir.Value) -> dict[str, ir.Value]:
        """The gradients at noisy images, float64 [samples,K,C,h,w], from one run of the graph on all of them.

        The noise is a constant, since it depends on no image.
        """
        build, graphs, options = self.build, self.graphs, self.spec.options
        assert graphs.manifest.gradient is not None  # the request was checked
        affine = not self.spec.by_probability if self.score is None else self.score.is_affine
        if affine and not graphs.manifest.gradient.inputs:  # the same at every image
            first = build.integers(0)
            return {name: build.op("Unsqueeze", [value, first]) for name, value in self._gradients(seeds).items()}
        cuts, preprocessing = graphs.manifest.cuts, graphs.manifest.preprocessing
        samples, shape = (
            int(options["num_samples"]),
            (preprocessing.channels, preprocessing.height, preprocessing.width),
        )
        noise = np.concatenate([draw_noise(options["seed"], sample, (1, *shape)) for sample in range(samples)])
        images = build.op("Add", [self.image, build.constant(np.float32(options["std"]) * noise)])
        of_images = graphs.features(build, images)
        if affine:
            seeds = build.op("Tile", [seeds, build.integers(samples, 1)])
        else:
            logits = graphs.logits(build, images, of_images)
            rows = [build.op("Gather", [logits, build.integers(sample)]) for sample in range(samples)]
            seeds = build.op("Concat", [self._seeds(row) for row in rows], {"axis": 0})
        features = {name: self._each_for_all_classes(value, cuts[name].shape) for name, value in of_images.items()}
        images = self._each_for_all_classes(images, shape)
        found = graphs.gradients(build, seeds, images, features)
        return {
            name: build.reshape(self._maps(found[name], cut), samples, -1, cut.channels, cut.height, cut.width)
            for name, cut in cuts.items()
        }

    def _each_for_all_classes(self, rows: ir.Value, shape: Sequence[int]) -> ir.Value:
        """Rows [samples,*shape], each as often as there are classes: [samples x K,*shape]."""
        if self.classes == 1:
            return rows
        build = self.build
        ones = [1 for _ in shape]
        if self.classes is None:
            parts = [build.integers(1), build.op("Shape", [self.targets]), build.integers(*ones)]
            repeats = build.op("Concat", parts, {"axis": 0})
        else:
            repeats = build.integers(1, self.classes, *ones)
        repeated = build.op("Tile", [build.op("Unsqueeze", [rows, build.integers(1)]), repeats])
        return build.reshape(repeated, -1, *shape)


def _scaled(build: Builder, raw: ir.Value) -> ir.Value:
    """The maps of a layer before they are fused, as in `ortcam.scoring.maps.fuse`: float64 [K,h,w] in [0,1)."""
    positive = build.op("Relu", [raw])
    _, largest = value_range(build, positive)
    some = build.op("Greater", [largest, build.constant(np.float64(0))])
    divisor = build.op("Where", [some, largest, build.constant(np.float64(1))])
    slope = build.op("Mul", [positive, build.constant(np.float64(FUSED_SLOPE))])
    return build.op("Tanh", [build.op("Div", [slope, divisor])])


def _largest(build: Builder, maps: Sequence[ir.Value], cuts: Iterable[Cut], size: tuple[int, int]) -> ir.Value:
    """The largest of the maps of several layers at each position, at a size: float64 [K,*size]."""
    return build.op("Max", [upsampled(build, cut, size, one) for one, cut in zip(maps, cuts, strict=True)])
