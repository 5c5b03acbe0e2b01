"""Several outputs, and outputs that are no tensors."""

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from tests.export.zoo.graphs import (
    FLOAT,
    HEIGHT,
    LABELS,
    WIDTH,
    GraphBuilder,
    ZooFile,
    classes_info,
    image_info,
    tensor_info,
)
from tests.export.zoo.plain import Builder, enter

FILES: dict[str, Builder] = {}
zoo = enter(FILES)


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
