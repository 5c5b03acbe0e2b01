"""Take the graphs of a bundle into a larger graph, under unique names."""

from collections.abc import Mapping

import onnx_ir as ir

from ortcam.bundle import Bundle, Cut
from ortcam_export.graphs.builder import Builder

__all__ = ["BundleGraphs", "as_maps"]


class BundleGraphs:
    """Takes graphs of a bundle into a larger graph.

    Args:
        bundle: whose graphs; their weights stay in its files.

    Attributes:
        manifest: of the bundle.
        opsets: domain -> version of the operator sets that the graphs taken in so far need.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self.manifest = bundle.manifest
        self.opsets = {"": bundle.manifest.opset}

    def classify(self, build: Builder, image: ir.Value) -> tuple[dict[str, ir.Value], ir.Value]:
        """Features by their names in `manifest.cuts`, each in the layout of its cut, and logits [1,outputs]."""
        features = self.features(build, image)
        return features, self.logits(build, image, features)

    def logits(self, build: Builder, images: ir.Value, features: Mapping[str, ir.Value]) -> ir.Value:
        """Logits [N,outputs] of images [N,C,H,W] and their features."""
        graphs = self.manifest.graphs
        if graphs.head is not None:
            return self._adopt(build, graphs.head, {"features": features["features"]})["logits"]
        assert graphs.classifier is not None
        return self._adopt(build, graphs.classifier, {"image": images})["logits"]

    def features(self, build: Builder, images: ir.Value) -> dict[str, ir.Value]:
        """Features of images [N,C,H,W] by their names in `manifest.cuts`, each in the layout of its cut."""
        return self._adopt(build, self.manifest.graphs.features, {"image": images})

    def gradients(
        self, build: Builder, seeds: ir.Value, images: ir.Value, features: Mapping[str, ir.Value]
    ) -> dict[str, ir.Value]:
        """Derivatives of sums of logits by the features: float32 [K,*cut.shape] by the names in `manifest.cuts`.

        Where the head has attention, `attention_relevance` is among them, float32 [K,heads,T].

        Args:
            build: of the graph.
            seeds: float32 [K,outputs], what each logit counts.
            images: float32 [N,C,H,W], N = 1 or K.
            features: of these images, by their names.
        """
        gradient = self.manifest.gradient
        assert gradient is not None  # the request was checked
        given = {"image": images, **features}
        made = self._adopt(build, gradient.graph, {"seed": seeds} | {name: given[name] for name in gradient.inputs})
        return {name.replace("gradient", "features"): value for name, value in made.items()}

    def score(
        self, build: Builder, kind: str, precision: str, inputs: Mapping[str, ir.Value], *, soft: bool
    ) -> dict[str, ir.Value]:
        """The outputs of a scorer for a chunk of channels, by their names.

        Args:
            build: of the body of a loop.
            kind: of the scorer.
            precision: of it.
            inputs: by their names, `logit_softmax` left out.
            soft: what `logit_softmax` is.
        """
        return self._adopt(build, self._bundle.scorer(kind, precision).name, inputs, soft=soft)

    def maps(self, build: Builder, features: ir.Value) -> ir.Value:
        """A, float32 [C,h,w], in the features of one image, for use inside a loop."""
        cut = self.manifest.cut
        if self.manifest.precision == "int8":
            # ONNX Runtime (seen in 1.31) carries the dequantization in front of it on and crashes at what a loop takes
            # from the graph around it; it does not carry it over a maximum, even of one.
            features = build.op("Max", [features])
        return build.reshape(as_maps(build, features, cut), cut.channels, cut.height, cut.width)

    def _adopt(
        self, build: Builder, name: str, inputs: Mapping[str, ir.Value], *, soft: bool | None = None
    ) -> dict[str, ir.Value]:
        """Take a graph in and bind its inputs. Returns its outputs by their names.

        Tensors get unique names, since the next graph has the same names again.
        """
        model = ir.load(self._bundle.file(name))
        self.opsets |= model.opset_imports  # an 8-bit model may have operators of ONNX Runtime's own
        graph = model.graph
        if soft is not None:
            _decide(graph, soft=soft)
        outputs = {str(value.name): value for value in graph.outputs}
        for value in graph.initializers.values():
            value.replace_all_uses_with(build.weight(value))
        for formal in graph.inputs:
            formal.replace_all_uses_with(inputs[str(formal.name)])
        for node in ir.traversal.RecursiveGraphIterator(graph):
            node.metadata_props.clear()
            for value in node.outputs:
                if value.name:
                    value.name = build.name(value.name)
                value.shape = value.type = None
            node.name = build.name(node.op_type.lower())
        for inner in graph.subgraphs():
            for value in (*inner.inputs, *inner.initializers.values()):
                value.name = build.name(value.name or "inner")
        graph.outputs.clear()
        nodes = list(graph)
        graph.remove(nodes)
        build.adopt(nodes)
        return outputs


def as_maps(build: Builder, features: ir.Value, cut: Cut) -> ir.Value:
    """The maps float32 [N,C,h,w] in features, or in derivatives by them, of a cut's layout [N,...]."""
    if cut.layout == "nchw":
        return features
    if cut.layout == "nhwc":
        return build.op("Transpose", [features], {"perm": [0, 3, 1, 2]})
    end = cut.prefix_tokens + cut.height * cut.width
    if cut.prefix_tokens:
        features = build.slice(features, build.integers(cut.prefix_tokens), build.integers(end), 1)
    turned = build.op("Transpose", [features], {"perm": [0, 2, 1]})
    return build.reshape(turned, -1, cut.channels, cut.height, cut.width)


def _decide(graph: ir.Graph, *, soft: bool) -> None:
    """Remove the input `logit_softmax` of a scorer, and keep the branch that it would choose at run time."""
    for formal in list(graph.inputs):
        if formal.name != "logit_softmax":
            continue
        for user in list(formal.consumers()):
            chosen = user.inputs[1 if soft else 2]
            assert chosen is not None
            user.outputs[0].replace_all_uses_with(chosen)
            graph.remove(user, safe=True)
        graph.inputs.remove(formal)
