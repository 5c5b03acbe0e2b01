"""Scorers: the classifier behind a masking front, so that a run takes channel indices and gives scores.

The front picks channels of the maps, upsamples them as two matrix products, gates them, and multiplies the image.

==================  ==================  =======================================================================
input               shape               meaning
==================  ==================  =======================================================================
``image``           float32 [1,C,H,W]   preprocessed image X
``maps``            float32 [1,C,h,w]   features, already min-maxed unless the scorer gates
``channels``        int64 [B]           which channels k to mask with
``targets``         int64 [K]           classes c
``scale``           float32 [B]         factor on the mask (not with a gate)
``noise, sigma``    [1,C,H,W], [B]      added to the masked image: sigma_b * noise (scorer "noise")
``keep``            float32 [B]         1, or 0 for padding (with a gate)
``baseline``        float32 [K]         subtracted from the probabilities in the partial sum (with a gate)
``logit_softmax``   bool []             weigh the partial sum by the softmax over the chunk of the logits (with a gate)
``score``           float32 [S,U]       weights of S scores over the terms u of the outputs (`ortcam.engine.score`)
==================  ==================  =======================================================================

Outputs: ``probabilities`` [B,K], ``logits`` [B,K] and, with a gate, ``partial_maps`` [K,H,W], the weighted sum of the
chunk's gated maps.

With D outputs of the classifier, ``targets`` are these columns of both outputs:

==================  ===================  ============================================
target              ``probabilities``    ``logits``
==================  ===================  ============================================
c < D               probability of c     logit of c
D + s               score s              score s
D + S + c           logit of c           logit of c (softmax and sigmoid)
2 D + S + c         probability of c     probability of c (softmax and sigmoid)
==================  ===================  ============================================
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import onnx_ir as ir

from ortcam.bundle import GATES, Activation, Cut
from ortcam.engine.score import LEAST_LENGTH, score_terms, term_sizes
from ortcam_export.graphs.builder import Builder
from ortcam_export.graphs.names import rename, taken_names
from ortcam_export.graphs.surgery import extract
from ortcam_export.graphs.weights import Interpolation

__all__ = ["SCORER_KINDS", "build_scorer", "direction_of", "write_scorers"]

SCORER_KINDS: Final = ("linear", "noise", *GATES)


def write_scorers(
    model: ir.Model,
    cut: Cut,
    folder: Path,
    interpolation: Interpolation,
    activation: Activation,
    suffix: str = "",
    *,
    terms: Sequence[str] | None = None,
) -> dict[str, str]:
    """Write a scorer of every kind; returns the names of the files by kind.

    Args:
        model: image -> logits, weights in a file of `folder`.
        cut: where the maps come from.
        folder: of the bundle.
        interpolation: the matrices that all scorers share.
        activation: from logits to probabilities.
        suffix: of the names, say "-int8".
        terms: as `build_scorer` takes them.
    """
    names = {kind: f"scorer-{kind}{suffix}.onnx" for kind in SCORER_KINDS}
    for kind, name in names.items():
        scorer = build_scorer(model, cut, kind, interpolation=interpolation, activation=activation, terms=terms)
        ir.save(scorer, folder / name)
    return names


def build_scorer(
    model: ir.Model,
    cut: Cut,
    kind: str,
    *,
    interpolation: Interpolation,
    activation: Activation = "softmax",
    terms: Sequence[str] | None = None,
) -> ir.Model:
    """The classifier with a masking front: see the table at the top of this module.

    Args:
        model: image -> logits, weights in the bundle's file.
        cut: where the maps come from; only their shape counts.
        kind: one of `SCORER_KINDS`.
        interpolation: the matrices that all scorers share; they tell the size of the image, too.
        activation: from logits to probabilities.
        terms: of the input `score`, as `Graphs.score_terms` has them; None: all that the activation allows.
    """
    scorer = extract(model, ["image"], ["logits"])
    graph = scorer.graph
    graph.name = f"scorer-{kind}"
    for node in graph:
        node.metadata_props.clear()
    model_input, all_logits = graph.inputs[0], graph.outputs[0]
    build = Builder(taken_names(graph))
    front = _build_front(build, cut, kind, interpolation, model_input)
    model_input.replace_all_uses_with(front.masked)
    rename(all_logits, "all_logits", graph)
    front_nodes = build.take_nodes()
    terms = score_terms(activation) if terms is None else terms
    readings = _read_outputs(build, all_logits, activation, terms)
    probabilities, logits = (
        build.output("Gather", [table, front.targets], name, 2)
        for table, name in ((readings.probabilities, "probabilities"), (readings.logits, "logits"))
    )
    inputs, outputs = [*front.inputs, readings.score], [probabilities, logits]
    if kind in GATES:
        weights, partial_maps = _partial_maps(build, probabilities, logits, front.mask, *interpolation.size)
        inputs += weights
        outputs.append(partial_maps)
    graph.insert_before(next(iter(graph)), front_nodes)
    graph.extend(build.take_nodes())
    for value in build.initializers:
        graph.register_initializer(value)
    graph.inputs[:] = inputs
    graph.outputs[:] = outputs
    return scorer


@dataclasses.dataclass(frozen=True)
class _Front:
    """The masking front of a scorer.

    Attributes:
        inputs: of the graph, so far.
        targets: the one of them that says which classes are scored, int64 [K].
        mask: float32 [B,1,H,W].
        masked: the masked images, float32 [B,C,H,W].
    """

    inputs: tuple[ir.Value, ...]
    targets: ir.Value
    mask: ir.Value
    masked: ir.Value


def _build_front(build: Builder, cut: Cut, kind: str, interpolation: Interpolation, model_input: ir.Value) -> _Front:
    """From image, maps and channels to masked images, which take the place of the model's input."""
    height, width = interpolation.size
    assert model_input.shape is not None
    colours = model_input.shape[1]
    assert isinstance(colours, int)
    # The symbol of a dimension is the same text in every graph: B masked images, K targets.
    image = _input("image", ir.DataType.FLOAT, (1, colours, height, width))
    maps = _input("maps", ir.DataType.FLOAT, (1, cut.channels, cut.height, cut.width))
    channels = _input("channels", ir.DataType.INT64, ("B",))
    targets = _input("targets", ir.DataType.INT64, ("K",))
    inputs = [image, maps, channels, targets]
    rows = build.initializer(interpolation.rows)
    columns = build.initializer(interpolation.columns)
    picked = build.op("Gather", [maps, channels], {"axis": 1})
    if kind not in GATES:
        scale = _input("scale", ir.DataType.FLOAT, ("B",))
        inputs.append(scale)
        picked = build.op("Mul", [picked, build.reshape(scale, 1, -1, 1, 1)])
    upsampled = build.op("MatMul", [rows, build.op("MatMul", [picked, columns])])
    mask = build.reshape(upsampled, -1, 1, height, width)
    if kind in GATES:
        mask = build.gate(kind, mask)
    masked = build.op("Mul", [mask, image])
    if kind == "noise":
        noise = _input("noise", ir.DataType.FLOAT, (1, colours, height, width))
        sigma = _input("sigma", ir.DataType.FLOAT, ("B",))
        inputs += [noise, sigma]
        masked = build.op("Add", [masked, build.op("Mul", [build.reshape(sigma, -1, 1, 1, 1), noise])])
    return _Front(tuple(inputs), targets, mask, masked)


@dataclasses.dataclass(frozen=True)
class _Readings:
    """What is read of the classifier's outputs.

    Attributes:
        score: the graph's input, float32 [S,U].
        probabilities: the table of the output `probabilities`, float32 [B,...].
        logits: the same of `logits`.
    """

    score: ir.Value
    probabilities: ir.Value
    logits: ir.Value


def _read_outputs(build: Builder, logits: ir.Value, activation: Activation, terms: Sequence[str]) -> _Readings:
    """The tables that targets are columns of: see the top of this module."""
    outputs = logits.shape[1] if logits.shape is not None else None
    assert isinstance(outputs, int)  # fixed at export
    activated = build.activation(activation, logits)
    score = _input("score", ir.DataType.FLOAT, ("S", sum(term_sizes(terms, outputs))))
    made = [_term(build, term, logits, activated, activation) for term in terms]
    # No MatMul: a GPU would round its factors to TF32, and with one score for many outputs a CPU takes longer for it.
    terms_of_image = build.op("Unsqueeze", [build.op("Concat", made, {"axis": 1}), build.integers(1)])
    product = build.op("Mul", [terms_of_image, build.op("Unsqueeze", [score, build.integers(0)])])
    extra = build.op("ReduceSum", [product, build.integers(2)], {"keepdims": 0})
    if activation == "identity":
        table = build.op("Concat", [logits, extra], {"axis": 1})
        return _Readings(score, table, table)
    rest = [extra, logits, activated]
    return _Readings(
        score,
        build.op("Concat", [activated, *rest], {"axis": 1}),
        build.op("Concat", [logits, *rest], {"axis": 1}),
    )


def _term(build: Builder, term: str, logits: ir.Value, activated: ir.Value, activation: Activation) -> ir.Value:
    """A term of `ortcam.engine.score`: float32 [B,size]."""
    last, kept = build.integers(-1), {"keepdims": 1}
    if term == "logits":
        return logits
    if term == "probabilities":
        return activated
    if term == "one":
        batch = build.op("Shape", [logits], {"start": 0, "end": 1})
        shape = build.op("Concat", [batch, build.integers(1)], {"axis": 0})
        return build.op("Expand", [build.constant(np.ones((1, 1), np.float32)), shape])
    if term == "direction":
        return direction_of(build, logits)
    if activation == "softmax":
        log = build.op("LogSoftmax", [logits], {"axis": -1})
        return build.op("Neg", [build.op("ReduceSum", [build.op("Mul", [activated, log]), last], kept)])
    # Of each sigmoid ln(1 + e^-|z|) + |z| / (1 + e^|z|): no difference of large numbers.
    away = build.op("Abs", [logits])
    near = build.op("Neg", [away])
    improbable = build.activation("sigmoid", near)
    each = build.op("Add", [build.op("Softplus", [near]), build.op("Mul", [away, improbable])])
    return build.op("ReduceSum", [each, last], kept)


def direction_of(build: Builder, values: ir.Value) -> ir.Value:
    """Z / max(|z|, 1e-12) of rows z of any size: float32 [B,D].

    Where the sum of their squares could be infinite in float32 they are first divided by a power of two: of up to 2^28
    values each below 2^49, or below 2^48 after that, it stays below 2^126.
    """
    last, kept = build.integers(-1), {"keepdims": 1}
    largest = build.op("ReduceMax", [build.op("Abs", [values]), last], kept)
    large = build.op("Greater", [largest, _power_of_two(build, 49)])
    factor = build.op("Where", [large, _power_of_two(build, -80), _power_of_two(build, 0)])
    scaled = build.op("Mul", [values, factor])
    length = build.op("Sqrt", [build.op("ReduceSum", [build.op("Mul", [scaled, scaled]), last], kept)])
    return build.op("Div", [scaled, build.op("Max", [length, build.constant(np.float32(LEAST_LENGTH))])])


def _power_of_two(build: Builder, exponent: int) -> ir.Value:
    return build.constant(np.float32(2.0**exponent))


def _partial_maps(
    build: Builder, probabilities: ir.Value, logits: ir.Value, mask: ir.Value, height: int, width: int
) -> tuple[list[ir.Value], ir.Value]:
    """Sum alpha_bk gate(U(A_b)) over a chunk, and the inputs that define alpha."""
    keep = _input("keep", ir.DataType.FLOAT, ("B",))
    baseline = _input("baseline", ir.DataType.FLOAT, ("K",))
    logit_softmax = _input("logit_softmax", ir.DataType.BOOL, ())
    increase = build.op("Transpose", [build.op("Sub", [probabilities, baseline])], {"perm": [1, 0]})
    softmax = build.op("Softmax", [build.op("Transpose", [logits], {"perm": [1, 0]})], {"axis": 1})
    alpha = build.op("Mul", [build.op("Where", [logit_softmax, softmax, increase]), keep])
    flattened = build.reshape(mask, -1, height * width)
    summed = build.op("MatMul", [alpha, flattened])
    partial = build.output("Reshape", [summed, build.integers(-1, height, width)], "partial_maps", 3)
    partial.shape = ir.Shape(("K", height, width))
    return [keep, baseline, logit_softmax], partial


def _input(name: str, dtype: ir.DataType, shape: tuple[int | str, ...]) -> ir.Value:
    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))
