"""What comes behind the logits: softmax in all its spellings, sigmoid, axes of size 1; several outputs."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from tests.export.zoo.graphs import (
    CLASSES,
    DOUBLE,
    FLOAT,
    HEIGHT,
    LABELS,
    WIDTH,
    Ending,
    GraphBuilder,
    ZooFile,
    classes_info,
    image_info,
    tensor_info,
)
from tests.export.zoo.plain import Builder, enter

FILES: dict[str, Builder] = {}
zoo = enter(FILES)


def ending(
    folder: Path,
    kind: Ending,
    tail: Callable[[GraphBuilder, str], object],
    *,
    opset: int = 17,
    pooled: bool = False,
    outputs: int = CLASSES,
    shape: Sequence[int | str] | None = None,
    dtype: Any = np.float32,
    **fields: Any,
) -> ZooFile:
    """The plain net with another end: `tail` gets logits [N,outputs], or with `pooled` [N,outputs,1,1]."""
    g = GraphBuilder(opset=opset)
    maps = g.features("image")
    if pooled:
        weights = g.random(outputs, 16, 1, 1, scale=0.5), g.random(outputs, scale=0.5)
        logits = g.op("Conv", g.op("GlobalAveragePool", maps), *weights, kernel_shape=[1, 1])
    else:
        logits = g.head(maps, outputs)
    tail(g, logits)
    output = tensor_info("scores", shape or ("N", outputs), dtype)
    return ZooFile(g.save(folder / "net.onnx", [image_info()], [output]), ending=kind, **fields)


@zoo
def ends_in_softmax(folder: Path) -> ZooFile:
    return ending(folder, "softmax", lambda g, x: g.op("Softmax", x, axis=-1, out="scores"))


@zoo
def ends_in_log_softmax(folder: Path) -> ZooFile:
    return ending(folder, "log_softmax", lambda g, x: g.op("LogSoftmax", x, axis=1, out="scores"))


@zoo
def ends_in_sigmoid_for_many_labels(folder: Path) -> ZooFile:
    return ending(folder, "sigmoid", lambda g, x: g.op("Sigmoid", x, out="scores"))


@zoo
def ends_in_sigmoid_for_one_label(folder: Path) -> ZooFile:
    tail: Callable[[GraphBuilder, str], object] = lambda g, x: g.op("Sigmoid", x, out="scores")  # noqa: E731
    return ending(folder, "sigmoid", tail, outputs=1, labels=("defect",))


@zoo
def ends_in_one_logit_without_an_axis(folder: Path) -> ZooFile:
    """[N], as `model(x).squeeze(1)` of a binary classifier gives."""
    return ending(
        folder,
        "logits",
        lambda g, x: g.op("Squeeze", x, g.constant([1]), out="scores"),
        outputs=1,
        shape=("N",),
        labels=("defect",),
        said={"activation": "sigmoid"},
    )


@zoo
def ends_in_logits_that_the_user_calls_sigmoid(folder: Path) -> ZooFile:
    return ending(folder, "logits", lambda g, x: g.op("Identity", x, out="scores"), said={"activation": "sigmoid"})


@zoo
def ends_in_softmax_of_pooled_maps_then_flatten(folder: Path) -> ZooFile:
    def tail(g: GraphBuilder, x: str) -> None:
        g.op("Flatten", g.op("Softmax", x, axis=1), axis=1, out="scores")

    return ending(folder, "softmax", tail, pooled=True)


@zoo
def ends_in_the_softmax_of_opset_11(folder: Path) -> ZooFile:
    """Its default axis is 1 and takes in all axes behind; from opset 13 on it would be the last axis, of size 1."""

    def tail(g: GraphBuilder, x: str) -> None:
        g.op("Reshape", g.op("Softmax", x), g.constant([-1, CLASSES]), out="scores")

    return ending(folder, "softmax", tail, pooled=True, opset=11)


@zoo
def ends_in_logits_with_two_axes_of_size_1(folder: Path) -> ZooFile:
    return ending(
        folder, "logits", lambda g, x: g.op("Identity", x, out="scores"), pooled=True, shape=("N", CLASSES, 1, 1)
    )


@zoo
def ends_in_softmax_with_two_axes_of_size_1(folder: Path) -> ZooFile:
    return ending(
        folder,
        "softmax",
        lambda g, x: g.op("Softmax", x, axis=1, out="scores"),
        pooled=True,
        shape=("N", CLASSES, 1, 1),
    )


@zoo
def ends_in_softmax_spelled_out(folder: Path) -> ZooFile:
    def tail(g: GraphBuilder, x: str) -> None:
        powers = g.op("Exp", x)
        g.op("Div", powers, g.op("ReduceSum", powers, g.constant([1]), keepdims=1), out="scores")

    return ending(folder, "softmax", tail)


@zoo
def ends_in_softmax_spelled_out_with_its_maximum(folder: Path) -> ZooFile:
    def tail(g: GraphBuilder, x: str) -> None:
        powers = g.op("Exp", g.op("Sub", x, g.op("ReduceMax", x, axes=[-1], keepdims=1)))
        g.op("Div", powers, g.op("ReduceSum", powers, axes=[-1], keepdims=1), out="scores")

    return ending(folder, "softmax", tail, opset=11)


@zoo
def ends_in_softmax_then_identity_and_cast(folder: Path) -> ZooFile:
    def tail(g: GraphBuilder, x: str) -> None:
        g.op("Identity", g.op("Cast", g.op("Identity", g.op("Softmax", x, axis=1)), to=DOUBLE), out="scores")

    return ending(folder, "softmax", tail, dtype=np.float64)


@zoo
def ends_in_softmax_of_scaled_logits(folder: Path) -> ZooFile:
    """A temperature in front of the softmax: the logits are those that it leaves."""
    return ending(
        folder, "softmax", lambda g, x: g.op("Softmax", g.op("Div", x, g.constant(2.0)), axis=1, out="scores")
    )


@zoo
def ends_in_sigmoid_clipped_away_from_0_and_1(folder: Path) -> ZooFile:
    def tail(g: GraphBuilder, x: str) -> None:
        g.op("Clip", g.op("Sigmoid", x), g.constant(1e-6), g.constant(1 - 1e-6), out="scores")

    return ending(folder, "sigmoid", tail)


@zoo
def several_outputs(folder: Path) -> ZooFile:
    g = GraphBuilder()
    maps = g.op("Identity", g.features("image"), out="maps")
    embedding = g.op("Identity", g.pooled(maps), out="embedding")
    g.dense(embedding, out="logits")
    outputs = [
        tensor_info("maps", ("N", 16, HEIGHT // 4, WIDTH // 4)),
        tensor_info("embedding", ("N", 16)),
        classes_info("logits"),
    ]
    path = g.save(folder / "net.onnx", [image_info()], outputs)
    return ZooFile(path, output="logits", said={"output": "logits"})


@zoo
def label_and_probabilities(folder: Path) -> ZooFile:
    g = GraphBuilder()
    probabilities = g.op("Softmax", g.head(g.features("image")), axis=1, out="probabilities")
    g.op("ArgMax", probabilities, axis=1, keepdims=0, out="label")
    outputs = [tensor_info("label", ("N",), np.int64), classes_info("probabilities")]
    path = g.save(folder / "net.onnx", [image_info()], outputs)
    return ZooFile(path, ending="softmax", output="probabilities", said={"output": "probabilities"})


@zoo
def probabilities_twice(folder: Path) -> ZooFile:
    """The activation at the end is an output of its own, too."""
    g = GraphBuilder()
    g.op("Identity", g.op("Softmax", g.head(g.features("image")), axis=1, out="scores"), out="last")
    path = g.save(folder / "net.onnx", [image_info()], [classes_info("scores"), classes_info("last")])
    return ZooFile(path, ending="softmax", output="last", said={"output": "last"})


@zoo
def zip_map(folder: Path) -> ZooFile:
    """As skl2onnx and Azure's Custom Vision write: the probabilities as a sequence of maps from label to float."""
    g = GraphBuilder()
    probabilities = g.op("Softmax", g.head(g.features("image")), axis=1)
    g.op("ZipMap", probabilities, domain="ai.onnx.ml", out="output_probability", classlabels_strings=list(LABELS))
    best = g.op("ArgMax", probabilities, axis=1, keepdims=0)
    names = numpy_helper.from_array(np.array(LABELS, object), "names")
    g.initializers.append(names)
    g.op("Gather", "names", best, out="output_label")
    maps = helper.make_sequence_type_proto(
        helper.make_map_type_proto(onnx.TensorProto.STRING, helper.make_tensor_type_proto(FLOAT, None))
    )
    outputs = [
        helper.make_tensor_value_info("output_label", onnx.TensorProto.STRING, ("N",)),
        helper.make_value_info("output_probability", maps),
    ]
    path = g.save(folder / "net.onnx", [image_info()], outputs, domains={"ai.onnx.ml": 2})
    return ZooFile(path, ending="softmax", output="output_probability", said={"output": "output_probability"})
