"""What else a file may hold: functions, branches, loops, constants as nodes, rubbish."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import AttributeProto, helper, numpy_helper
from tests.export.zoo.graphs import (
    CLASSES,
    FLOAT,
    HEIGHT,
    INT64,
    WIDTH,
    GraphBuilder,
    ZooFile,
    classes_info,
    image_info,
    tensor_info,
)
from tests.export.zoo.plain import PRIVATE_PATH, Builder, enter, plain

FILES: dict[str, Builder] = {}
zoo = enter(FILES)


@zoo
def model_local_functions(folder: Path) -> ZooFile:
    """A function that calls another, and an attribute handed through."""
    opset = [helper.make_opsetid("", 17), helper.make_opsetid("local.blocks", 1)]
    convolution = helper.make_node("Conv", ["x", "w", "b"], ["y"], pads=[1, 1, 1, 1])
    convolution.attribute.append(AttributeProto(name="strides", ref_attr_name="strides", type=AttributeProto.INTS))
    activated = helper.make_function(
        "local.blocks", "Activated", ["x"], ["y"], [helper.make_node("Relu", ["x"], ["y"])], opset[:1]
    )
    call = helper.make_node("Activated", ["y"], ["z"], domain="local.blocks")
    block = helper.make_function(
        "local.blocks", "Block", ["x", "w", "b"], ["z"], [convolution, call], opset, ["strides"]
    )
    g = GraphBuilder()
    x = "image"
    for inputs, outputs, stride in ((3, 8, 2), (8, 12, 2), (12, 16, 1)):
        weights = g.random(outputs, inputs, 3, 3, scale=float(np.sqrt(2 / (9 * inputs)))), g.random(outputs, scale=0.2)
        x = g.op("Block", x, *weights, domain="local.blocks", strides=[stride, stride])
    g.head(x, out="logits")
    path = g.save(
        folder / "net.onnx",
        [image_info()],
        [classes_info("logits")],
        domains={"local.blocks": 1},
        functions=[activated, block],
    )
    return ZooFile(path)


def branch(name: str, nodes: Sequence[onnx.NodeProto], output: str) -> onnx.GraphProto:
    """A graph of an If."""
    return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(output, FLOAT, None)])


@zoo
def if_with_a_constant_condition(folder: Path) -> ZooFile:
    g = GraphBuilder(opset=13)
    maps = g.features("image")
    then = branch("then", [helper.make_node("Relu", [maps], ["kept"])], "kept")
    other = branch("else", [helper.make_node("Neg", [maps], ["lost"])], "lost")
    x = g.op("If", g.constant(True), then_branch=then, else_branch=other)
    g.head(x, out="logits")
    return ZooFile(g.save(folder / "net.onnx", [image_info()], [classes_info("logits")]))


@zoo
def if_with_a_condition_on_a_shape(folder: Path) -> ZooFile:
    """As torch's old exporter writes `squeeze(2)`: whether the axis is 1 is asked at run time, though shapes tell."""
    g = GraphBuilder(opset=11)
    x = g.op("GlobalAveragePool", g.features("image"))
    for number in (1, 2):
        one = g.op("Equal", g.op("Gather", g.op("Shape", x), g.constant(np.int64(2)), axis=0), g.constant(np.int64(1)))
        squeezed, same = f"squeezed_{number}", f"same_{number}"
        then = branch("then", [helper.make_node("Squeeze", [x], [squeezed], axes=[2])], squeezed)
        other = branch("else", [helper.make_node("Identity", [x], [same])], same)
        x = g.op("If", one, then_branch=then, else_branch=other)
    g.dense(x, out="logits")
    return ZooFile(g.save(folder / "net.onnx", [image_info()], [classes_info("logits")]))


@zoo
def if_whose_branches_have_the_same_names(folder: Path) -> ZooFile:
    """Names inside a branch are its own; and here no node has one."""
    g = GraphBuilder(opset=13)
    x = g.features("image")
    for factor in (1.5, 0.5):
        wide = g.op("Gather", g.op("Shape", x), g.constant(np.int64(3)), axis=0)
        same = g.op("Equal", wide, g.constant(np.int64(WIDTH // 4)))
        nodes = [helper.make_node("Mul", [x, "factor"], ["product"]), helper.make_node("Relu", ["product"], ["made"])]
        then = branch("then", nodes, "made")
        then.initializer.append(numpy_helper.from_array(np.float32(factor), "factor"))
        other = branch("else", [helper.make_node("Neg", [x], ["made"])], "made")
        x = g.op("If", same, then_branch=then, else_branch=other)
    for node in g.nodes:
        node.name = ""
    g.head(x, out="logits")
    return ZooFile(g.save(folder / "net.onnx", [image_info()], [classes_info("logits")]))


def looped(folder: Path, *, batch: int | str = "batch", inside: str = "inside") -> Path:
    """The same convolution three times over, in a Loop; `inside` names one of the loop's own tensors."""
    g = GraphBuilder(opset=16)
    maps = g.features("image")
    kernel = g.random(16, 16, 3, 3, scale=0.1)
    nodes = [
        helper.make_node("Identity", ["going"], ["goes_on"]),
        helper.make_node("Conv", ["state", kernel], ["convolved"], pads=[1, 1, 1, 1], doc_string=PRIVATE_PATH),
        helper.make_node("Relu", ["convolved"], [inside]),
    ]
    body = helper.make_graph(
        nodes,
        "body",
        [
            helper.make_tensor_value_info("turn", INT64, ()),
            helper.make_tensor_value_info("going", onnx.TensorProto.BOOL, ()),
            helper.make_tensor_value_info("state", FLOAT, ("n", 16, HEIGHT // 4, WIDTH // 4)),
        ],
        [
            helper.make_tensor_value_info("goes_on", onnx.TensorProto.BOOL, ()),
            helper.make_tensor_value_info(inside, FLOAT, None),
        ],
        doc_string=PRIVATE_PATH,
    )
    x = g.op("Loop", g.constant(np.int64(3)), g.constant(True), maps, body=body)
    g.head(x, out="scores")
    return g.save(folder / "net.onnx", [image_info(batch=batch)], [classes_info("scores", batch=batch)])


@zoo
def constants_as_nodes(folder: Path) -> ZooFile:
    """Weights as Constant nodes, and shapes as its attributes value_ints and value_float."""

    def move(model: onnx.ModelProto) -> None:
        graph = model.graph
        nodes = [helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in graph.initializer]
        nodes.append(helper.make_node("Constant", [], ["shape"], value_ints=[-1, CLASSES]))
        nodes.append(helper.make_node("Constant", [], ["half"], value_float=0.5))
        nodes += [*graph.node]
        nodes.append(helper.make_node("Mul", ["raw", "half"], ["halved"]))
        nodes.append(helper.make_node("Reshape", ["halved", "shape"], ["logits"]))
        graph.ClearField("node")
        graph.ClearField("initializer")
        graph.node.extend(nodes)

    g = GraphBuilder(opset=13)
    g.head(g.features("image"), out="raw")
    return ZooFile(g.save(folder / "net.onnx", [image_info()], [classes_info("logits")], edit=move))


@zoo
def rubbish_and_private_paths(folder: Path) -> ZooFile:
    """Initializers and nodes that nothing uses, unsorted metadata, and doc strings that name the author's machine."""

    def litter(model: onnx.ModelProto) -> None:
        graph = model.graph
        graph.initializer.append(numpy_helper.from_array(np.ones((64, 64), np.float32), "unused"))
        graph.node.append(helper.make_node("ArgMax", ["logits"], ["nobody"], axis=1))
        graph.doc_string = model.doc_string = f"trained in {PRIVATE_PATH}"
        model.producer_name = model.producer_version = PRIVATE_PATH
        model.domain = PRIVATE_PATH
        helper.set_model_props(model, {"source": PRIVATE_PATH})
        for node in graph.node:
            node.doc_string = f'File "{PRIVATE_PATH}/net.py", line 12, in forward'
        for value in (*graph.input, *graph.output):
            value.doc_string = PRIVATE_PATH
        for tensor in graph.initializer:
            tensor.doc_string = PRIVATE_PATH
        graph.value_info.append(tensor_info("Relu_7", None))
        graph.value_info[0].doc_string = PRIVATE_PATH

    return ZooFile(plain(folder, edit=litter))


@zoo
def weights_shared_by_two_layers(folder: Path) -> ZooFile:
    g = GraphBuilder()
    x = g.op("Relu", g.conv(g.op("Relu", g.conv("image", 3, 16, stride=4)), 16, 16))
    *_, last = [node for node in g.nodes if node.op_type == "Conv"]
    x = g.op("Relu", g.op("Conv", x, *last.input[1:], kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
    g.head(x, out="logits")
    return ZooFile(g.save(folder / "net.onnx", [image_info()], [classes_info("logits")]))


@zoo
def batch_norms_behind_convolutions(folder: Path) -> ZooFile:
    """With and without a bias, depthwise, and one whose convolution has a second use."""
    g = GraphBuilder()
    x = g.op("Relu", g.batch_norm(g.conv("image", 3, 8, stride=2, bias=True), 8))
    x = g.op("Relu", g.batch_norm(g.conv(x, 8, 8, stride=2, group=8, bias=False), 8))
    convolved = g.conv(x, 8, 16)
    x = g.op("Relu", g.op("Add", g.batch_norm(convolved, 16), convolved))
    g.head(x, out="logits")
    return ZooFile(g.save(folder / "net.onnx", [image_info()], [classes_info("logits")]))
