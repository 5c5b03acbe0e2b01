"""Seeds of gradients inside a graph: how much each logit counts in the score that is differentiated."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from ortcam_export.graphs.builder import Builder

__all__ = ["finer_seeds", "one_hot"]

_FLOAT, _DOUBLE = ir.DataType.FLOAT, ir.DataType.DOUBLE


def one_hot(build: Builder, targets: ir.Value, classes: int) -> ir.Value:
    """The seeds of classes int64 [K] as they are: float32 [K,classes], 1 at the class and 0 elsewhere."""
    return build.cast(_hits(build, targets, classes), _FLOAT)


def finer_seeds(
    build: Builder, logits: ir.Value, targets: ir.Value, classes: int, options: Mapping[str, Any]
) -> ir.Value:
    """The seeds of Finer-CAM, as `ortcam.methods.gradient_formulas.finer_seeds`: float32 [K,classes].

    Args:
        build: of the graph.
        logits: float32 [1,classes].
        targets: int64 [K].
        classes: their number.
        options: of the method.
    """
    references = min(int(options["references"]), classes - 1)
    if not references:
        return one_hot(build, targets, classes)
    strength = float(options["strength"])
    logits = build.cast(logits, _DOUBLE)
    own = build.op("Gather", [build.reshape(logits, -1), targets])
    score = build.op("Unsqueeze", [own, build.integers(1)])
    distances = build.op("Abs", [build.op("Sub", [logits, score])])
    others = build.op("Where", [_hits(build, targets, classes), build.constant(np.finfo(np.float64).max), distances])
    nearest = {"axis": 1, "largest": 0, "sorted": 1}
    _, similar = build.ops("TopK", [others, build.integers(references)], nearest, outputs=2)  # int64 [K,references]
    if options["weighting"] == "mean":
        factors = build.constant(np.full((1, references, 1), -strength / references))
    else:
        factors = _by_probability(build, logits, score, similar, strength)
    hits = build.cast(_hits(build, similar, classes), _DOUBLE)  # [K,references,classes]
    taken = build.op("ReduceSum", [build.op("Mul", [hits, factors]), build.integers(1)], {"keepdims": 0})
    seeds = build.op("Add", [build.cast(_hits(build, targets, classes), _DOUBLE), taken])
    return build.cast(seeds, _FLOAT)


def _by_probability(build: Builder, logits: ir.Value, score: ir.Value, similar: ir.Value, strength: float) -> ir.Value:
    """What the logits of similar classes count: float64 [K,references,1], with their weights differentiated, too."""
    found = build.op("Gather", [build.reshape(logits, -1), similar])
    share = build.op("Softmax", [found], {"axis": 1})
    factor = build.constant(np.float64(strength))
    apart = build.op("Sub", [score, build.op("Mul", [found, factor])])
    mean = build.op("ReduceSum", [build.op("Mul", [share, apart]), build.integers(1)], {"keepdims": 1})
    rest = build.op("Sub", [build.op("Sub", [apart, mean]), factor])
    return build.op("Unsqueeze", [build.op("Mul", [share, rest]), build.integers(2)])


def _hits(build: Builder, indices: ir.Value, classes: int) -> ir.Value:
    """Whether an index int64 [...] is that of a class: bool [...,classes]."""
    every = build.constant(np.arange(classes, dtype=np.int64))
    return build.op("Equal", [build.op("Unsqueeze", [indices, build.integers(-1)]), every])
