"""A whole explanation as one ONNX graph: picture in, saliency out, around the scorers of a bundle.

The graph does what `ortcam.explainer` does with no limit, or with a budget and `completion="none"`, with standard
operators only: features and logits of the image, targets, masks and their order, then a `Loop` over chunks of channels
whose body is the bundle's scorer, then the weighted sum. Weights are sums over few numbers; they and the map are
computed in float64, as the runtime does. For methods with several samples a channel, a `Loop` over the samples is
around it.

=======================  =======================  =================================================================
input                    shape                    meaning
=======================  =======================  =================================================================
``image``                float32 [1,3,H,W]        preprocessed, or uint8 [h,w,3]: an RGB picture of any size
``classes``              int64 [K]                what to explain, where that is chosen at run time
=======================  =======================  =================================================================

=======================  =======================  =================================================================
output                   shape                    meaning
=======================  =======================  =================================================================
``logits``               float32 [1,classes]      of the image
``targets``              int64 [K]                classes explained
``saliency``             float32 [K,H,W]          maps in [0,1], ReLU and min-max
``low_resolution``       float32 [K,h,w]          sum over channels at the resolution of the features, before ReLU;
                                                  where gated maps are summed that of gate(A), not of gate(U(A))
``flat``                 bool [K]                 nothing speaks for the class, or all alike: the map is zero
``clamped``              bool [K]                 where ``classes`` is an input: it was none, the nearest was taken
=======================  =======================  =================================================================

There is at least one class (K >= 1). Nothing is raised inside a graph: an image or a score that is not finite, which
the runtime refuses, gives a map that means nothing. The weights that both the model and the loop need are in a function
without inputs (`sharing`). For a picture the weights of the resize take about 10 KB for each pixel of its
longer side.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common_passes
from numpy.typing import NDArray

from ortcam.bundle import Bundle
from ortcam.methods import Noise, Plan
from ortcam.scoring.maps import LEAST_RANGE
from ortcam.scoring.masks import ZERO_AT_ZERO
from ortcam.scoring.noise import FACTORS, SHIFTS, UNIFORM_BITS, noise_key
from ortcam.scoring.upsampling import bilinear_matrix, extreme_rows
from ortcam_export.fused.preprocessing_graph import build_preprocessing
from ortcam_export.graphs.builder import Builder

__all__ = ["Recipe", "build_explainer"]

_FLOAT, _DOUBLE, _INT64, _BOOL = ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.INT64, ir.DataType.BOOL
_LEAST_LOGIT: Final = -1e300  # of an empty sum of exponentials
_WORD: Final = 0xFFFFFFFF


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What an explainer is to do.

    Attributes:
        plan: of the method.
        budget: channels to score: a share in (0,1] of those that are not flat, or a number of them; None: all.
        precision: of the scorer.
        top_k: how many of the most probable classes are explained; None where the classes are an input.
        uint8_input: whether the input is a picture as it was decoded.
        batch_size: masked images a chunk.
        baseline: float32 [classes], probabilities of the empty image, where the plan subtracts them; else None.
    """

    plan: Plan
    budget: float | int | None
    precision: str
    top_k: int | None
    uint8_input: bool
    batch_size: int
    baseline: NDArray[np.float32] | None


def build_explainer(bundle: Bundle, recipe: Recipe) -> ir.Model:
    """The graph of the table above; its weights still lie in the bundle's files.

    Args:
        bundle: whose graphs it is made of.
        recipe: what it does.
    """
    return _Explainer(bundle, recipe).build()


class _Explainer:
    """The graph in the making."""

    def __init__(self, bundle: Bundle, recipe: Recipe) -> None:
        self._bundle = bundle
        self._manifest = bundle.manifest
        self._recipe = recipe
        self._plan = recipe.plan
        self._build = Builder()
        self._opsets = {"": self._manifest.opset}

    @property
    def _chunk(self) -> int:
        return min(self._recipe.batch_size, self._manifest.cut.channels)

    @property
    def _size(self) -> tuple[int, int]:
        preprocessing = self._manifest.preprocessing
        return preprocessing.height, preprocessing.width

    def build(self) -> ir.Model:
        build, recipe = self._build, self._recipe
        inputs, image = self._input()
        features, logits = self._classify(image)
        outputs = [_output(logits, "logits", _FLOAT, 1, len(self._manifest.labels))]
        targets, clamped = self._targets(logits, inputs)
        maps = self._maps(features)
        masks = self._masks(maps)
        chosen = self._chosen(masks)
        scores, gated = self._passes(image, masks, chosen, targets)
        low_resolution = self._weighted(self._alpha(scores, chosen, targets), maps, masks, chosen)
        saliency, flat = self._finish(low_resolution if gated is None else gated, at_image_size=gated is not None)
        classes = recipe.top_k or "K"
        height, width = self._size
        cut = self._manifest.cut
        outputs += [
            _output(build.op("Identity", [targets]), "targets", _INT64, classes),
            _output(saliency, "saliency", _FLOAT, classes, height, width),
            _output(build.cast(low_resolution, _FLOAT), "low_resolution", _FLOAT, classes, cut.height, cut.width),
            _output(flat, "flat", _BOOL, classes),
        ]
        if clamped is not None:
            outputs.append(_output(clamped, "clamped", _BOOL, classes))
        graph = ir.Graph(
            inputs,
            outputs,
            nodes=build.take_nodes(),
            initializers=[value for value in (*build.initializers, *build.weights) if value.uses()],
            opset_imports=self._opsets,
            name="explainer",
        )
        model = ir.Model(graph, ir_version=10, producer_name="ortcam")
        common_passes.RemoveUnusedNodesPass()(model)
        return model

    def _input(self) -> tuple[list[ir.Value], ir.Value]:
        """The inputs of the graph, and the image as the model takes it."""
        height, width = self._size
        if self._recipe.uint8_input:
            picture = _value("image", ir.DataType.UINT8, "h", "w", 3)
            return [picture], build_preprocessing(self._build, picture, self._manifest.preprocessing)
        image = _value("image", _FLOAT, 1, 3, height, width)
        return [image], image

    def _classify(self, image: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Features in the layout of the cut, and logits [1,classes]."""
        graphs = self._manifest.graphs
        features = self._adopt(self._load(graphs.features), {"image": image}, self._build)["features"]
        if graphs.head is not None:
            return features, self._adopt(self._load(graphs.head), {"features": features}, self._build)["logits"]
        assert graphs.classifier is not None
        return features, self._adopt(self._load(graphs.classifier), {"image": image}, self._build)["logits"]

    def _load(self, name: str) -> ir.Model:
        model = ir.load(self._bundle.file(name))
        self._opsets |= model.opset_imports  # an 8-bit model may have operators of ONNX Runtime's own
        return model

    def _adopt(self, model: ir.Model, inputs: Mapping[str, ir.Value], build: Builder) -> dict[str, ir.Value]:
        """Take a graph of the bundle in, with its inputs bound; returns its outputs by their names.

        Tensors get other names, since the same ones come again in the next graph.
        """
        graph = model.graph
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

    def _targets(self, logits: ir.Value, inputs: list[ir.Value]) -> tuple[ir.Value, ir.Value | None]:
        """Classes int64 [K] and, where they are an input, bool [K], whether they had to be clamped."""
        build = self._build
        if self._recipe.top_k is None:
            targets = _value("classes", _INT64, "K")
            inputs.append(targets)
            last = build.constant(np.int64(len(self._manifest.labels) - 1))
            inside = build.op("Clip", [targets, build.constant(np.int64(0)), last])
            return inside, build.op("Not", [build.op("Equal", [inside, targets])])
        _, indices = build.ops("TopK", [logits, build.integers(self._recipe.top_k)], {"axis": -1}, outputs=2)
        return build.reshape(indices, -1), None

    def _maps(self, features: ir.Value) -> ir.Value:
        """A, float32 [C,h,w]."""
        build, cut = self._build, self._manifest.cut
        if self._manifest.precision == "int8":
            # ONNX Runtime (seen in 1.31) carries the dequantization in front of it on and crashes at what a loop takes
            # from the graph around it; it does not carry it over a maximum, even of one.
            features = build.op("Max", [features])
        if cut.layout == "nhwc":
            features = build.op("Transpose", [features], {"perm": [0, 3, 1, 2]})
        elif cut.layout == "tokens":
            end = cut.prefix_tokens + cut.height * cut.width
            features = build.slice(features, build.integers(cut.prefix_tokens), build.integers(end), 1)
            features = build.op("Transpose", [features], {"perm": [0, 2, 1]})
        return build.reshape(features, cut.channels, cut.height, cut.width)

    def _masks(self, maps: ir.Value) -> "_Masks":
        """As `ortcam.scoring.masks.prepare_masks`."""
        build, plan = self._build, self._plan
        low, high = self._range(maps)
        if plan.normalize is None:
            live = None
            if plan.gate == "relu":
                live = build.op("Greater", [self._upsampled_range(maps)[1], build.constant(np.float32(0))])
            elif plan.gate in ZERO_AT_ZERO:
                zero = build.constant(np.float32(0))
                flat = build.op("And", [build.op("Equal", [low, zero]), build.op("Equal", [high, zero])])
                live = build.op("Not", [flat])
            masks = maps
        else:
            live = build.op("Greater", [high, low])
            if plan.normalize == "after-upsampling":
                low, high = self._upsampled_range(maps)
                live = build.op("And", [live, build.op("Greater", [high, low])])
            span = build.op("Where", [live, build.op("Sub", [high, low]), build.constant(np.float32(1))])
            scaled = build.op("Div", [build.op("Sub", [maps, low]), span])
            masks = build.op("Where", [live, scaled, build.constant(np.float32(0))])
        energy = build.op(
            "ReduceSum",
            [build.cast(build.op("Relu", [maps]), _DOUBLE), build.integers(1, 2)],
            {"keepdims": 0},
        )
        channels = build.integers(self._manifest.cut.channels)
        _, order = build.ops("TopK", [energy, channels], {"axis": 0}, outputs=2)
        if live is not None:
            order = build.op("Compress", [order, build.op("Gather", [build.reshape(live, -1), order])], {"axis": 0})
        return _Masks(masks, order)

    def _range(self, maps: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Least and largest value of every map, float32 [C,1,1]."""
        axes = self._build.integers(1, 2)
        low, high = (self._build.op(kind, [maps, axes], {"keepdims": 1}) for kind in ("ReduceMin", "ReduceMax"))
        return low, high

    def _upsampled_range(self, maps: ir.Value) -> tuple[ir.Value, ir.Value]:
        """The same of U(A_k), by way of its corners."""
        build, cut = self._build, self._manifest.cut
        height, width = self._size
        rows = build.constant(extreme_rows(cut.height, height))
        columns = build.constant(np.ascontiguousarray(extreme_rows(cut.width, width).T))
        return self._range(build.op("MatMul", [rows, build.op("MatMul", [maps, columns])]))

    def _chosen(self, masks: "_Masks") -> "_Chosen":
        """The channels to score, the first of those that are not flat, and how many chunks they make."""
        build, budget = self._build, self._recipe.budget
        channels = masks.order
        if budget is not None:
            live = build.op("Shape", [channels])
            if isinstance(budget, int):
                count = build.integers(min(budget, self._manifest.cut.channels))
            else:
                share = build.op("Mul", [build.cast(live, _DOUBLE), build.constant(np.float64(budget))])
                count = build.cast(build.op("Ceil", [share]), _INT64)
            channels = build.slice(channels, build.integers(0), build.op("Min", [count, live]), 0)
        count = build.op("Shape", [channels])
        size = self._chunk
        chunks = build.op("Div", [build.op("Add", [count, build.integers(size - 1)]), build.integers(size)])
        return _Chosen(channels, count, build.reshape(chunks))

    def _passes(
        self, image: ir.Value, masks: "_Masks", chosen: "_Chosen", targets: ir.Value
    ) -> tuple[ir.Value, ir.Value | None]:
        """All masked passes: scores float32 [samples x n,K], sample by sample, and the gated sum float64 [K,H,W]."""
        build, plan = self._build, self._plan
        soft = plan.weighting == "logit-softmax"
        classes = build.op("Shape", [targets])
        nothing = build.op("Concat", [build.integers(0), classes], {"axis": 0})
        carried = [_Carried(_filled(build, nothing, np.float32(0)), _FLOAT, 2)]
        if plan.gate_sum:
            size = build.op("Concat", [classes, build.integers(*self._size)], {"axis": 0})
            carried.append(_Carried(_filled(build, size, np.float64(0)), _DOUBLE, 3))
            if soft:
                carried.append(_Carried(_filled(build, classes, np.float64(_LEAST_LOGIT)), _DOUBLE, 1))
        fixed = {
            "image": image,
            "maps": build.op("Unsqueeze", [masks.maps, build.integers(0)]),
            "targets": targets,
            "scale": build.constant(np.ones(1, np.float32)),
            "keep": build.constant(np.ones(1, np.float32)),
            "baseline": self._baseline(targets),
        }
        spread = None
        if plan.noise is not None and plan.noise.std == "authors":
            spread = self._spread(image, masks, chosen)
        elif plan.noise is not None:
            fixed["sigma"] = build.constant(np.full(1, plan.noise.std, np.float32))
        if plan.samples == 1 and plan.noise is None:
            fixed["scale"] = build.constant(np.array(plan.coefficients, np.float32))
            scores, *sums = self._over_chunks(build, fixed, chosen, spread, carried)
        else:
            scores, *sums = self._over_samples(fixed, chosen, spread, carried)
        return scores, sums[0] if sums else None

    def _over_samples(
        self, fixed: Mapping[str, ir.Value], chosen: "_Chosen", spread: ir.Value | None, carried: list["_Carried"]
    ) -> list[ir.Value]:
        """A loop over the samples of the method, each a loop over the chunks."""
        build, plan = self._build, self._plan
        hashes = None if plan.noise is None else self._hashed_counters(plan.noise)

        def body(inner: Builder, sample: ir.Value, state: list[ir.Value]) -> list[ir.Value]:
            which = inner.reshape(sample, 1)
            inputs = dict(fixed)
            if plan.noise is None:
                coefficients = inner.constant(np.array(plan.coefficients, np.float32))
                inputs["scale"] = inner.op("Gather", [coefficients, which])
            else:
                assert hashes is not None
                inputs["noise"] = self._noise(inner, plan.noise, which, hashes, fixed["image"])
            going = [dataclasses.replace(item, value=value) for item, value in zip(carried, state, strict=True)]
            return self._over_chunks(inner, inputs, chosen, spread, going)

        return _loop(build, build.constant(np.int64(plan.samples)), carried, body)

    def _over_chunks(
        self,
        build: Builder,
        fixed: Mapping[str, ir.Value],
        chosen: "_Chosen",
        spread: ir.Value | None,
        carried: list["_Carried"],
    ) -> list[ir.Value]:
        """The scoring loop, whose body is the scorer of the bundle."""
        plan = self._plan
        soft = plan.weighting == "logit-softmax"

        def body(inner: Builder, chunk: ir.Value, state: list[ir.Value]) -> list[ir.Value]:
            start, end = self._rows(inner, chunk)
            inputs = dict(fixed)
            inputs["channels"] = inner.slice(chosen.channels, start, end, 0)
            if spread is not None:
                inputs["sigma"] = inner.slice(spread, start, end, 0)
            scorer = self._load(self._bundle.scorer(plan.scorer, self._recipe.precision).name)
            _decide(scorer.graph, soft=soft)
            made = self._adopt(scorer, inputs, inner)
            rows = inner.op("Concat", [state[0], made["logits" if soft else "probabilities"]], {"axis": 0})
            if not plan.gate_sum:
                return [rows]
            partial = inner.cast(made["partial_maps"], _DOUBLE)
            if not soft:
                return [rows, inner.op("Add", [state[1], partial])]
            # The scorer weighs by the softmax over its own chunk: both sums are brought to that of all chunks so far.
            logits = inner.cast(made["logits"], _DOUBLE)
            own = inner.op("ReduceLogSumExp", [logits, inner.integers(0)], {"keepdims": 0})
            so_far, top = state[2], inner.op("Max", [state[2], own])
            before, now = (inner.op("Exp", [inner.op("Sub", [value, top])]) for value in (so_far, own))
            both = inner.op("Add", [before, now])
            total, partial = (
                inner.op(
                    "Mul", [value, inner.op("Reshape", [inner.op("Div", [share, both]), inner.integers(-1, 1, 1)])]
                )
                for value, share in ((state[1], before), (partial, now))
            )
            return [rows, inner.op("Add", [total, partial]), inner.op("Add", [top, inner.op("Log", [both])])]

        return _loop(build, chosen.chunks, carried, body)

    def _rows(self, build: Builder, chunk: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Where a chunk begins and ends among the channels to score, int64 [1] each; a slice stops at the last."""
        size = build.integers(self._chunk)
        start = build.op("Mul", [build.reshape(chunk, 1), size])
        return start, build.op("Add", [start, size])

    def _spread(self, image: ir.Value, masks: "_Masks", chosen: "_Chosen") -> ir.Value:
        """(2 / (max M_k - min M_k))^2 of the masked images M_k of the chosen channels, float32 [n].

        A mask is nowhere negative, so the largest value of M_k is that of the mask times the largest channel of X.
        """
        build, cut = self._build, self._manifest.cut
        height, width = self._size
        rows = build.constant(bilinear_matrix(cut.height, height))
        columns = build.constant(np.ascontiguousarray(bilinear_matrix(cut.width, width).T))
        over_colours = build.integers(1)
        low, high = (build.op(kind, [image, over_colours], {"keepdims": 0}) for kind in ("ReduceMin", "ReduceMax"))

        def body(inner: Builder, chunk: ir.Value, state: list[ir.Value]) -> list[ir.Value]:
            start, end = self._rows(inner, chunk)
            maps = inner.op("Gather", [masks.maps, inner.slice(chosen.channels, start, end, 0)])
            mask = inner.op("MatMul", [rows, inner.op("MatMul", [maps, columns])])
            least, most = (
                inner.op(kind, [inner.op("Mul", [mask, side]), inner.integers(1, 2)], {"keepdims": 0})
                for kind, side in (("ReduceMin", low), ("ReduceMax", high))
            )
            span = inner.op("Sub", [most, least])
            zero = inner.constant(np.float32(0))
            positive = inner.op("Greater", [span, zero])
            ratio = inner.op(
                "Div",
                [inner.constant(np.float32(2)), inner.op("Where", [positive, span, inner.constant(np.float32(1))])],
            )
            spread = inner.op("Where", [positive, inner.op("Mul", [ratio, ratio]), zero])
            return [inner.op("Concat", [state[0], spread], {"axis": 0})]

        nothing = _filled(build, build.integers(0), np.float32(0))
        (spread,) = _loop(build, chosen.chunks, [_Carried(nothing, _FLOAT, 1)], body)
        return spread

    def _hashed_counters(self, noise: Noise) -> ir.Value:
        """mix(2i) and mix(2i + 1) of `ortcam.scoring.noise`, int64 [values,2]."""
        build = self._build
        height, width = self._size
        values = height * width * (1 if noise.on == "activation" else 3)
        ends = (build.constant(np.int64(number)) for number in (0, 2 * values, 1))
        return build.reshape(_mix(build, build.op("Range", [*ends])), values, 2)

    def _noise(self, build: Builder, noise: Noise, sample: ir.Value, hashes: ir.Value, image: ir.Value) -> ir.Value:
        """What is added to the masked images of a sample, before sigma: as `ortcam.scoring.noise.draw_noise`."""
        height, width = self._size
        keys = build.constant(np.array([noise_key(noise.seed, sample) for sample in range(noise.samples)], np.int64))
        words = _mix(build, build.op("BitwiseXor", [hashes, build.op("Gather", [keys, sample])]))
        parts = build.op("Div", [words, build.constant(np.int64(1 << (32 - UNIFORM_BITS)))])
        middles = build.op("Add", [build.cast(parts, _FLOAT), build.constant(np.float32(0.5))])
        uniform = build.op("Mul", [middles, build.constant(np.float32(2.0**-UNIFORM_BITS))])
        first, second = build.ops("Split", [uniform], {"axis": 1, "num_outputs": 2}, outputs=2)
        radius = build.op("Sqrt", [build.op("Mul", [build.op("Log", [first]), build.constant(np.float32(-2))])])
        angle = build.op("Cos", [build.op("Mul", [second, build.constant(np.float32(2 * np.pi))])])
        drawn = build.op("Mul", [radius, angle])
        if noise.on == "activation":
            return build.op("Mul", [build.reshape(drawn, 1, 1, height, width), image])
        return build.reshape(drawn, 1, 3, height, width)

    def _baseline(self, targets: ir.Value) -> ir.Value:
        """p(0)[c], float32 [K], where it is subtracted; else zero, float32 [1]."""
        if self._recipe.baseline is None:
            return self._build.constant(np.zeros(1, np.float32))
        return self._build.op("Gather", [self._build.constant(self._recipe.baseline), targets])

    def _alpha(self, scores: ir.Value, chosen: "_Chosen", targets: ir.Value) -> ir.Value:
        """The weights of the chosen channels, float64 [n,K]."""
        build, plan = self._build, self._plan
        scores = build.cast(scores, _DOUBLE)
        if plan.samples > 1:
            shape = [build.integers(plan.samples), chosen.count, build.op("Shape", [targets])]
            by_sample = build.op("Reshape", [scores, build.op("Concat", shape, {"axis": 0})], {"allowzero": 1})
            scores = build.op("ReduceMean", [by_sample, build.integers(0)], {"keepdims": 0})
        if plan.weighting == "logit-softmax":
            return build.op("Softmax", [scores], {"axis": 0})
        return build.op("Sub", [scores, build.cast(self._baseline(targets), _DOUBLE)])

    def _weighted(self, weights: ir.Value, maps: ir.Value, masks: "_Masks", chosen: "_Chosen") -> ir.Value:
        """Sum alpha_k A_k over the chosen channels, or what takes the place of A_k: float64 [K,h,w]."""
        build, plan, cut = self._build, self._plan, self._manifest.cut
        summed = masks.maps if plan.maps == "normalized" else maps
        if plan.gate_sum and plan.gate is not None:
            summed = build.gate(plan.gate, masks.maps)
        rows = build.op("Gather", [build.reshape(summed, cut.channels, -1), chosen.channels])
        # Not Transpose and MatMul, of which ONNX Runtime 1.24 makes a FusedMatMul that it lacks in float64.
        product = build.op("Gemm", [weights, build.cast(rows, _DOUBLE)], {"transA": 1})
        return build.reshape(product, -1, cut.height, cut.width)

    def _finish(self, raw: ir.Value, *, at_image_size: bool) -> tuple[ir.Value, ir.Value]:
        """ReLU at image size and min-max, as `ortcam.scoring.maps.finish`: float32 [K,H,W] and bool [K]."""
        build, cut = self._build, self._manifest.cut
        height, width = self._size
        if not at_image_size:
            rows = build.constant(bilinear_matrix(cut.height, height).astype(np.float64))
            columns = build.constant(np.ascontiguousarray(bilinear_matrix(cut.width, width).T).astype(np.float64))
            raw = build.op("MatMul", [rows, build.op("MatMul", [raw, columns])])
        positive = build.op("Relu", [raw])
        low, high = self._range(positive)
        span = build.op("Sub", [high, low])
        _, scale = self._range(build.op("Abs", [raw]))
        flat = build.op("LessOrEqual", [span, build.op("Mul", [scale, build.constant(np.float64(LEAST_RANGE))])])
        divisor = build.op("Where", [flat, build.constant(np.float64(1)), span])
        scaled = build.op("Div", [build.op("Sub", [positive, low]), divisor])
        saliency = build.op("Where", [flat, build.constant(np.float32(0)), build.cast(scaled, _FLOAT)])
        return saliency, build.reshape(flat, -1)


@dataclasses.dataclass(frozen=True)
class _Masks:
    """The maps as the scorer takes them, float32 [C,h,w], and the channels that are not flat by energy, int64 [L]."""

    maps: ir.Value
    order: ir.Value


@dataclasses.dataclass(frozen=True)
class _Chosen:
    """The channels to score, int64 [n], their number, int64 [1], and that of their chunks, int64 []."""

    channels: ir.Value
    count: ir.Value
    chunks: ir.Value


@dataclasses.dataclass(frozen=True)
class _Carried:
    """What a loop carries from one turn to the next."""

    value: ir.Value
    dtype: ir.DataType
    rank: int


def _loop(
    build: Builder,
    turns: ir.Value,
    carried: list[_Carried],
    make_body: Callable[[Builder, ir.Value, list[ir.Value]], list[ir.Value]],
) -> list[ir.Value]:
    """A Loop of so many turns, int64 []; the body is made by a function of its builder, the turn and the state."""
    inner = build.inner()
    turn = ir.Value(name=build.name("turn"), shape=ir.Shape(()), type=ir.TensorType(_INT64))
    going = ir.Value(name=build.name("going"), shape=ir.Shape(()), type=ir.TensorType(_BOOL))
    state = [
        ir.Value(name=build.name("state"), shape=ir.Shape([None] * item.rank), type=ir.TensorType(item.dtype))
        for item in carried
    ]
    results = make_body(inner, turn, state)
    outputs = [inner.op("Identity", [going]), *results]
    for output, like in zip(outputs, (going, *state), strict=True):
        output.shape, output.type = like.shape, like.type
    body = ir.Graph(
        [turn, going, *state],
        outputs,
        nodes=inner.take_nodes(),
        initializers=[value for value in inner.weights if value.uses()],
        name=build.name("body"),
    )
    given = [turns, build.constant(np.bool_(True)), *(item.value for item in carried)]
    return [*build.ops("Loop", given, {"body": body}, outputs=len(carried))]


def _decide(graph: ir.Graph, *, soft: bool) -> None:
    """Take the branch of a scorer that its input `logit_softmax` would choose at run time, and the input away."""
    for formal in list(graph.inputs):
        if formal.name != "logit_softmax":
            continue
        for user in list(formal.consumers()):
            chosen = user.inputs[1 if soft else 2]
            assert chosen is not None
            user.outputs[0].replace_all_uses_with(chosen)
            graph.remove(user, safe=True)
        graph.inputs.remove(formal)


def _filled(build: Builder, shape: ir.Value, value: np.generic) -> ir.Value:
    return build.op("ConstantOfShape", [shape], {"value": ir.tensor(np.array([value]))})


def _mix(build: Builder, words: ir.Value) -> ir.Value:
    """The hash of `scoring.noise` in int64: factors from 2^31 on are taken less 2^32, so that no product overflows."""
    for shift, factor in zip(SHIFTS, (*FACTORS, None), strict=True):
        shifted = build.op("Div", [words, build.constant(np.int64(1 << shift))])
        words = build.op("BitwiseXor", [words, shifted])
        if factor is not None:
            signed = factor if factor < 1 << 31 else factor - (1 << 32)
            product = build.op("Mul", [words, build.constant(np.int64(signed))])
            words = build.op("BitwiseAnd", [product, build.constant(np.int64(_WORD))])
    return words


def _value(name: str, dtype: ir.DataType, *shape: int | str) -> ir.Value:
    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))


def _output(value: ir.Value, name: str, dtype: ir.DataType, *shape: int | str) -> ir.Value:
    """A value as an output of the graph."""
    value.name, value.shape, value.type = name, ir.Shape(shape), ir.TensorType(dtype)
    return value
