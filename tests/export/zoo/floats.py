"""Half, double and brain floats, stored and computed."""

from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import helper, numpy_helper
from tests.export.zoo.graphs import (
    DOUBLE,
    FLOAT,
    FLOAT16,
    HEIGHT,
    WIDTH,
    GraphBuilder,
    InputForm,
    ZooFile,
    classes_info,
    image_info,
)
from tests.export.zoo.plain import Builder, enter, plain

FILES: dict[str, Builder] = {}
zoo = enter(FILES)


# Half a dozen roundings of 2^-11, the unit of float16: the file computes in it, the bundle in float32.
HALF_TOLERANCE: Final = 6 * 2.0**-11


@zoo
def float16(folder: Path) -> ZooFile:
    g = GraphBuilder(dtype=np.float16)
    g.head(g.features("image"), out="logits")
    path = g.save(folder / "net.onnx", [image_info(dtype=np.float16)], [classes_info("logits", dtype=np.float16)])
    return ZooFile(path, InputForm(dtype=np.float16), tolerance=HALF_TOLERANCE)


@zoo
def float16_inside(folder: Path) -> ZooFile:
    """As onnxconverter-common writes with keep_io_types: casts at both ends."""
    g = GraphBuilder(dtype=np.float16, opset=13)
    logits = g.head(g.features(g.op("Cast", "image", to=FLOAT16, out="graph_input_cast_0")))
    g.op("Softmax", g.op("Cast", logits, to=FLOAT, out="graph_output_cast_0"), axis=1, out="prob")
    path = g.save(folder / "net.onnx", [image_info()], [classes_info("prob")])
    return ZooFile(path, ending="softmax", tolerance=HALF_TOLERANCE)


@zoo
def float16_constants_as_nodes(folder: Path) -> ZooFile:
    """No initializer tells its precision."""

    def move(model: onnx.ModelProto) -> None:
        graph = model.graph
        nodes = [helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in graph.initializer]
        nodes += [*graph.node]
        graph.ClearField("node")
        graph.ClearField("initializer")
        graph.node.extend(nodes)

    g = GraphBuilder(dtype=np.float16)
    g.op("Cast", g.head(g.features(g.op("Cast", "image", to=FLOAT16))), to=FLOAT, out="logits")
    path = g.save(folder / "net.onnx", [image_info()], [classes_info("logits")], edit=move)
    return ZooFile(path, tolerance=HALF_TOLERANCE)


@zoo
def float16_with_a_block_in_float32(folder: Path) -> ZooFile:
    """Operators that its converter blocks stay in float32, between two casts."""
    g = GraphBuilder(dtype=np.float16)
    maps = g.op("Cast", g.features("image"), to=FLOAT)
    pooled = g.op("Cast", g.op("ReduceMean", maps, axes=[2, 3], keepdims=0), to=FLOAT16)
    g.dense(pooled, out="logits")
    path = g.save(folder / "net.onnx", [image_info(dtype=np.float16)], [classes_info("logits", dtype=np.float16)])
    return ZooFile(path, InputForm(dtype=np.float16), tolerance=HALF_TOLERANCE)


@zoo
def bfloat16_weights(folder: Path) -> ZooFile:
    """Stored as bfloat16, computed in float32: each weight goes through a Cast."""

    def store(model: onnx.ModelProto) -> None:
        graph = model.graph
        casts = []
        for tensor in graph.initializer:
            values = numpy_helper.to_array(tensor)
            if values.dtype != np.float32:
                continue
            short = helper.make_tensor(
                f"{tensor.name}/bf16", onnx.TensorProto.BFLOAT16, values.shape, values.ravel().tolist()
            )
            casts.append(helper.make_node("Cast", [short.name], [tensor.name], to=FLOAT))
            tensor.CopyFrom(short)
        nodes = [*casts, *graph.node]
        graph.ClearField("node")
        graph.node.extend(nodes)

    return ZooFile(plain(folder, edit=store))


@zoo
def float64_input(folder: Path) -> ZooFile:
    """Double at both ends, single inside: ONNX Runtime has no double convolution on the CPU."""
    g = GraphBuilder()
    logits = g.head(g.features(g.op("Cast", "image", to=FLOAT)))
    g.op("Softmax", g.op("Cast", logits, to=DOUBLE), axis=1, out="prob")
    path = g.save(folder / "net.onnx", [image_info(dtype=np.float64)], [classes_info("prob", dtype=np.float64)])
    return ZooFile(path, InputForm(dtype=np.float64), ending="softmax")


@zoo
def float64_patches(folder: Path) -> ZooFile:
    """Double throughout: a mixer of 8 x 8 patches, made of Reshape, Transpose and MatMul."""
    g = GraphBuilder(dtype=np.float64)
    rows, columns = HEIGHT // 8, WIDTH // 8
    x = g.op("Reshape", "image", g.constant([-1, 3, rows, 8, columns, 8]))
    x = g.op("Reshape", g.op("Transpose", x, perm=[0, 2, 4, 1, 3, 5]), g.constant([-1, rows * columns, 192]))
    x = g.op("Relu", g.op("Add", g.op("MatMul", x, g.random(192, 16, scale=0.1)), g.random(16, scale=0.2)))
    mixed = g.op(
        "Transpose", g.op("MatMul", g.op("Transpose", x, perm=[0, 2, 1]), g.random(48, 48, scale=0.1)), perm=[0, 2, 1]
    )
    x = g.op("Relu", g.op("MatMul", g.op("Add", x, mixed), g.random(16, 16, scale=0.3)))
    g.dense(g.op("ReduceMean", x, axes=[1], keepdims=0), out="logits")
    path = g.save(folder / "net.onnx", [image_info(dtype=np.float64)], [classes_info("logits", dtype=np.float64)])
    return ZooFile(path, InputForm(dtype=np.float64))
