"""The masked passes inside a graph: a loop over chunks of channels around a scorer, and around it one over samples."""

import dataclasses
from collections.abc import Mapping
from typing import Final

import numpy as np
import onnx_ir as ir

from ortcam_export.fused.explainer_graph.bundle_graphs import BundleGraphs
from ortcam_export.fused.explainer_graph.loops import Carried, filled, loop
from ortcam_export.fused.explainer_graph.maps import baseline_of
from ortcam_export.fused.explainer_graph.masks import Chosen, Masks, upsampling
from ortcam_export.fused.explainer_graph.noise import draw_noise, hash_counters
from ortcam_export.fused.explainer_graph.spec import Masking
from ortcam_export.graphs.builder import Builder

__all__ = ["Passes"]

_FLOAT, _DOUBLE = ir.DataType.FLOAT, ir.DataType.DOUBLE
_LEAST_LOGIT: Final = -1e300  # of an empty sum of exponentials


@dataclasses.dataclass(frozen=True)
class Passes:
    """The masked passes of an explanation.

    Attributes:
        build: of the graph around the loops.
        graphs: of the bundle.
        spec: of the masked passes.
        chunk: masked images per run of the scorer.
        image: float32 [1,C,H,W], preprocessed.
        masks: of all channels.
        chosen: the channels that are scored.
        targets: int64 [K], columns of the scorers' outputs.
    """

    build: Builder
    graphs: BundleGraphs
    spec: Masking
    chunk: int
    image: ir.Value
    masks: Masks
    chosen: Chosen
    targets: ir.Value

    @property
    def _size(self) -> tuple[int, int]:
        preprocessing = self.graphs.manifest.preprocessing
        return preprocessing.height, preprocessing.width

    @property
    def _shape(self) -> tuple[int, int, int]:
        return self.graphs.manifest.preprocessing.channels, *self._size

    @property
    def _soft(self) -> bool:
        return self.spec.plan.weighting == "logit-softmax"

    def run(self) -> tuple[ir.Value, ir.Value | None]:
        """Scores float32 [samples x n,K], sample by sample, and the gated sum float64 [K,H,W], if there is one."""
        build, plan = self.build, self.spec.plan
        carried = self._carried()
        fixed = {
            "image": self.image,
            "maps": build.op("Unsqueeze", [self.masks.maps, build.integers(0)]),
            "targets": self.targets,
            "scale": build.constant(np.ones(1, np.float32)),
            "keep": build.constant(np.ones(1, np.float32)),
            "baseline": baseline_of(build, self.spec, self.targets),
        }
        if self.spec.rows is not None:
            fixed["score"] = build.constant(self.spec.rows)
        spread = None
        if plan.noise is not None and plan.noise.std == "authors":
            spread = self._spread()
        elif plan.noise is not None:
            fixed["sigma"] = build.constant(np.full(1, plan.noise.std, np.float32))
        if plan.samples == 1 and plan.noise is None:
            fixed["scale"] = build.constant(np.array(plan.coefficients, np.float32))
            scores, *sums = self._over_chunks(build, fixed, spread, carried)
        else:
            scores, *sums = self._over_samples(fixed, spread, carried)
        return scores, sums[0] if sums else None

    def _carried(self) -> list[Carried]:
        """What the loops carry: scores; where gated maps are summed the sum, and the logarithm of its weight."""
        build = self.build
        classes = build.op("Shape", [self.targets])
        nothing = build.op("Concat", [build.integers(0), classes], {"axis": 0})
        carried = [Carried(filled(build, nothing, np.float32(0)), _FLOAT, 2)]
        if self.spec.plan.gate_sum:
            size = build.op("Concat", [classes, build.integers(*self._size)], {"axis": 0})
            carried.append(Carried(filled(build, size, np.float64(0)), _DOUBLE, 3))
            if self._soft:
                carried.append(Carried(filled(build, classes, np.float64(_LEAST_LOGIT)), _DOUBLE, 1))
        return carried

    def _over_samples(
        self, fixed: Mapping[str, ir.Value], spread: ir.Value | None, carried: list[Carried]
    ) -> list[ir.Value]:
        """A loop over the samples of the method, each a loop over the chunks."""
        build, plan = self.build, self.spec.plan
        hashes = None if plan.noise is None else hash_counters(build, plan.noise, self._shape)

        def body(inner: Builder, sample: ir.Value, state: list[ir.Value]) -> list[ir.Value]:
            which = inner.reshape(sample, 1)
            inputs = dict(fixed)
            if plan.noise is None:
                coefficients = inner.constant(np.array(plan.coefficients, np.float32))
                inputs["scale"] = inner.op("Gather", [coefficients, which])
            else:
                assert hashes is not None
                inputs["noise"] = draw_noise(inner, plan.noise, which, hashes, fixed["image"], self._shape)
            going = [dataclasses.replace(item, value=value) for item, value in zip(carried, state, strict=True)]
            return self._over_chunks(inner, inputs, spread, going)

        return loop(build, build.constant(np.int64(plan.samples)), carried, body)

    def _over_chunks(
        self, build: Builder, fixed: Mapping[str, ir.Value], spread: ir.Value | None, carried: list[Carried]
    ) -> list[ir.Value]:
        """The scoring loop, whose body is the scorer of the bundle."""
        plan, soft = self.spec.plan, self._soft

        def body(inner: Builder, chunk: ir.Value, state: list[ir.Value]) -> list[ir.Value]:
            start, end = self._rows(inner, chunk)
            inputs = dict(fixed)
            inputs["channels"] = inner.slice(self.chosen.channels, start, end, 0)
            if spread is not None:
                inputs["sigma"] = inner.slice(spread, start, end, 0)
            made = self.graphs.score(inner, plan.scorer, self.spec.precision, inputs, soft=soft)
            rows = inner.op("Concat", [state[0], made["logits" if soft else "probabilities"]], {"axis": 0})
            if not plan.gate_sum:
                return [rows]
            partial = inner.cast(made["partial_maps"], _DOUBLE)
            if not soft:
                return [rows, inner.op("Add", [state[1], partial])]
            return [rows, *_add_soft(inner, state[1], state[2], partial, made["logits"])]

        return loop(build, self.chosen.chunks, carried, body)

    def _rows(self, build: Builder, chunk: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Where a chunk begins and ends among the channels to score, int64 [1] each; a slice stops at the last."""
        size = build.integers(self.chunk)
        start = build.op("Mul", [build.reshape(chunk, 1), size])
        return start, build.op("Add", [start, size])

    def _spread(self) -> ir.Value:
        """(2 / (max M_k - min M_k))^2 of the masked images M_k of the chosen channels, float32 [n].

        A mask is nowhere negative, so the largest value of M_k is that of the mask times the largest channel of X.
        """
        build = self.build
        rows, columns = upsampling(build, self.graphs.manifest.cut, self._size)
        over_colours = build.integers(1)
        low, high = (build.op(kind, [self.image, over_colours], {"keepdims": 0}) for kind in ("ReduceMin", "ReduceMax"))

        def body(inner: Builder, chunk: ir.Value, state: list[ir.Value]) -> list[ir.Value]:
            start, end = self._rows(inner, chunk)
            maps = inner.op("Gather", [self.masks.maps, inner.slice(self.chosen.channels, start, end, 0)])
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

        nothing = filled(build, build.integers(0), np.float32(0))
        (spread,) = loop(build, self.chosen.chunks, [Carried(nothing, _FLOAT, 1)], body)
        return spread


def _add_soft(build: Builder, total: ir.Value, so_far: ir.Value, partial: ir.Value, logits: ir.Value) -> list[ir.Value]:
    """Add a chunk's gated sum to the sum so far.

    The scorer weighs by the softmax over its own chunk. Both sums are brought to the softmax over all chunks so far.

    Args:
        build: of the body of the loop.
        total: float64 [K,H,W], the sum so far.
        so_far: float64 [K], the logarithm of the sum of the exponentials of its logits.
        partial: float64 [K,H,W], the chunk's sum.
        logits: float32 [B,K], of the chunk.

    Returns:
        The new sum and its logarithm.
    """
    own = build.op("ReduceLogSumExp", [build.cast(logits, _DOUBLE), build.integers(0)], {"keepdims": 0})
    top = build.op("Max", [so_far, own])
    before, now = (build.op("Exp", [build.op("Sub", [value, top])]) for value in (so_far, own))
    both = build.op("Add", [before, now])
    total, partial = (
        build.op("Mul", [value, build.op("Reshape", [build.op("Div", [share, both]), build.integers(-1, 1, 1)])])
        for value, share in ((total, before), (partial, now))
    )
    return [build.op("Add", [total, partial]), build.op("Add", [top, build.op("Log", [both])])]
