"""Seeds of gradients inside a graph: how much each logit counts in the score that is differentiated."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from ortcam.bundle import Activation
from ortcam.engine.score import LEAST_LENGTH, ScoreMatrix
from ortcam_export.graphs.builder import Builder

__all__ = ["finer_seeds", "one_hot", "probability_seeds", "score_seeds", "score_value"]

_FLOAT, _DOUBLE = ir.DataType.FLOAT, ir.DataType.DOUBLE


def one_hot(build: Builder, targets: ir.Value, classes: int) -> ir.Value:
    """The seeds of classes int64 [K] as they are: float32 [K,classes], 1 at the class and 0 elsewhere."""
    return build.cast(_hits(build, targets, classes), _FLOAT)


def probability_seeds(
    build: Builder, logits: ir.Value, targets: ir.Value, classes: int, activation: Activation
) -> ir.Value:
    """The derivatives of the probabilities of classes int64 [K] by the logits, float32 [1,classes]: [K,classes]."""
    rows = build.cast(_hits(build, targets, classes), _DOUBLE)
    return build.cast(_of_probabilities(build, rows, build.cast(logits, _DOUBLE), activation), _FLOAT)


def score_seeds(build: Builder, logits: ir.Value, score: ScoreMatrix) -> ir.Value:
    """The derivative of scores by the logits, as `ScoreMatrix.derivative`, in float64: float32 [K,outputs].

    Args:
        build: of the graph.
        logits: float32 [1,outputs].
        score: K scores.
    """
    exact = build.cast(logits, _DOUBLE)
    parts = [build.constant(np.zeros((score.count, score.outputs)))]
    for term, weights in score.weights.items():
        if term == "one":
            continue
        rows = build.constant(weights)
        if term == "logits":
            parts.append(rows)
        elif term == "probabilities":
            parts.append(_of_probabilities(build, rows, exact, score.activation))
        elif term == "direction":
            parts.append(_of_direction(build, rows, exact))
        else:
            parts.append(build.op("Mul", [rows, _of_entropy(build, exact, score.activation)]))
    total = build.op("Sum", parts) if len(parts) > 1 else parts[0]
    return build.cast(total, _FLOAT)


def score_value(build: Builder, logits: ir.Value, score: ScoreMatrix) -> ir.Value:
    """The values of K scores, as `ScoreMatrix.value`, in float64: float32 [K]; of logits float32 [1,outputs]."""
    exact = build.cast(logits, _DOUBLE)
    parts = []
    for term, weights in score.weights.items():
        rows = build.constant(weights)
        if term == "one":
            parts.append(rows)
            continue
        if term == "logits":
            values = exact
        elif term == "probabilities":
            values = _shares(build, exact, score.activation)
        elif term == "direction":
            values = build.op("Div", [exact, _length(build, exact)])
        else:
            values = _entropy(build, exact, score.activation)
        parts.append(_product(build, rows, values))
    total = build.op("Sum", parts) if len(parts) > 1 else parts[0]
    return build.cast(build.reshape(total, -1), _FLOAT)


def _of_probabilities(build: Builder, rows: ir.Value, logits: ir.Value, activation: Activation) -> ir.Value:
    """Differentiate <w, p> by z: p (w - <w, p>) of a softmax, w p (1 - p) of sigmoids; float64 [K,outputs].

    As in `ScoreMatrix.derivative` without 1 - p, of which nothing is left where p is nearly 1.
    """
    shares = _shares(build, logits, activation)
    if activation == "softmax":
        likeliest = build.reshape(build.op("ArgMax", [logits], {"axis": 1, "keepdims": 0}), -1)
        rows = build.op("Sub", [rows, build.op("Gather", [rows, likeliest], {"axis": 1})])
        return build.op("Mul", [shares, build.op("Sub", [rows, _product(build, rows, shares)])])
    return build.op("Mul", [rows, _slopes(build, logits, shares)])


def _slopes(build: Builder, logits: ir.Value, shares: ir.Value) -> ir.Value:
    """The derivatives p (1 - p) of sigmoids: float64 [1,outputs]."""
    return build.op("Mul", [shares, _shares(build, build.op("Neg", [logits]), "sigmoid")])


def _of_direction(build: Builder, rows: ir.Value, logits: ir.Value) -> ir.Value:
    """Differentiate <w, z/|z|> by z: (w - <w, u> u) / |z| with u = z / |z|; float64 [K,outputs]."""
    length = _length(build, logits)
    unit = build.op("Div", [logits, length])
    along = build.op("Mul", [_product(build, rows, unit), unit])
    return build.op("Div", [build.op("Sub", [rows, along]), length])


def _of_entropy(build: Builder, logits: ir.Value, activation: Activation) -> ir.Value:
    """Differentiate the entropy H by z: -p (ln p + H) of a softmax, -z p (1 - p) of sigmoids; float64 [1,outputs]."""
    shares = _shares(build, logits, activation)
    if activation == "sigmoid":
        return build.op("Neg", [build.op("Mul", [logits, _slopes(build, logits, shares)])])
    logarithms = _logarithms(build, logits)
    entropy = _entropy(build, logits, activation)
    return build.op("Neg", [build.op("Mul", [shares, build.op("Add", [logarithms, entropy])])])


def _entropy(build: Builder, logits: ir.Value, activation: Activation) -> ir.Value:
    """H in nats, float64 [1,1]: of the softmax, or the sum over sigmoids, each softplus(-|z|) + |z| sigmoid(-|z|)."""
    if activation == "softmax":
        return build.op("Neg", [_product(build, _shares(build, logits, activation), _logarithms(build, logits))])
    away = build.op("Abs", [logits])
    one = build.constant(np.float64(1))
    small = build.op("Exp", [build.op("Neg", [away])])
    softplus = build.op("Log", [build.op("Add", [one, small])])
    tail = build.op("Mul", [away, build.op("Div", [small, build.op("Add", [one, small])])])
    return build.op("ReduceSum", [build.op("Add", [softplus, tail]), build.integers(1)], {"keepdims": 1})


def _logarithms(build: Builder, logits: ir.Value) -> ir.Value:
    """Logarithms of the softmax: float64 [1,outputs]."""
    largest = build.op("ReduceMax", [logits, build.integers(1)], {"keepdims": 1})
    shifted = build.op("Sub", [logits, largest])
    total = build.op("ReduceSum", [build.op("Exp", [shifted]), build.integers(1)], {"keepdims": 1})
    return build.op("Sub", [shifted, build.op("Log", [total])])


def _length(build: Builder, logits: ir.Value) -> ir.Value:
    """|z|, float64 [1,1]."""
    square = _product(build, logits, logits)
    return build.op("Max", [build.op("Sqrt", [square]), build.constant(np.float64(LEAST_LENGTH))])


def _shares(build: Builder, logits: ir.Value, activation: Activation) -> ir.Value:
    """Probabilities float64 [1,outputs] of logits float64 [1,outputs]."""
    if activation == "softmax":
        return build.op("Softmax", [logits], {"axis": 1})
    one = build.constant(np.float64(1))
    return build.op("Reciprocal", [build.op("Add", [build.op("Exp", [build.op("Neg", [logits])]), one])])


def _product(build: Builder, rows: ir.Value, others: ir.Value) -> ir.Value:
    """The products of rows: float64 [K,1]."""
    return build.op("ReduceSum", [build.op("Mul", [rows, others]), build.integers(1)], {"keepdims": 1})


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
