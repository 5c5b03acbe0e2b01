"""Names, batches, opsets, and the operators of old ones."""

from pathlib import Path

import onnx
from onnx import helper
from tests.export.zoo.graphs import (
    CLASSES,
    HEIGHT,
    IMAGENET_MEAN,
    IMAGENET_STD,
    WIDTH,
    GraphBuilder,
    InputForm,
    ZooFile,
    classes_info,
    image_info,
    tensor_info,
)
from tests.export.zoo.plain import Builder, enter, plain

FILES: dict[str, Builder] = {}
zoo = enter(FILES)


@zoo
def plain_batch_1(folder: Path) -> ZooFile:
    return ZooFile(plain(folder, batch=1))


@zoo
def opset_18(folder: Path) -> ZooFile:
    return ZooFile(plain(folder, opset=18))


@zoo
def opset_21_ir_10(folder: Path) -> ZooFile:
    return ZooFile(plain(folder, opset=21, ir_version=10))


@zoo
def name_input_1(folder: Path) -> ZooFile:
    return ZooFile(plain(folder, image="input.1", logits="495", opset=11))


@zoo
def name_image_0(folder: Path) -> ZooFile:
    return ZooFile(plain(folder, image="image:0", logits="scores/BiasAdd:0", opset=13))


@zoo
def names_that_the_bundle_uses_itself(folder: Path) -> ZooFile:
    """Its tensors have the names of the bundle's own inputs, outputs and constants."""
    g = GraphBuilder()
    x = g.op("Relu", g.conv("features", 3, 16, stride=4))
    for name in ("maps", "probabilities", "partial_maps", "channels", "targets", "all_logits", "ortcam_gather"):
        x = g.op("Mul", x, g.constant(1.1), out=name)
    for name in ("scale", "noise", "sigma", "keep", "baseline", "logit_softmax", "upsample_rows", "upsample_columns"):
        x = g.op("Add", x, g.random(16, 1, 1, scale=0.1))
        g.initializers[-1].name = g.nodes[-1].input[1] = name
    x = g.op("Relu", g.conv(x, 16, 16), out="logits")
    g.head(x, out="image")
    return ZooFile(g.save(folder / "net.onnx", [image_info("features")], [classes_info("image")]))


@zoo
def unnamed_batch_dimension(folder: Path) -> ZooFile:
    def forget(model: onnx.ModelProto) -> None:
        for value in (model.graph.input[0], model.graph.output[0]):
            value.type.tensor_type.shape.dim[0].Clear()

    return ZooFile(plain(folder, edit=forget))


@zoo
def output_without_a_shape(folder: Path) -> ZooFile:
    def forget(model: onnx.ModelProto) -> None:
        model.graph.output[0].type.tensor_type.ClearField("shape")

    return ZooFile(plain(folder, edit=forget))


@zoo
def open_sides_written_as_minus_1(folder: Path) -> ZooFile:
    def edit(model: onnx.ModelProto) -> None:
        for axis in (0, 2, 3):
            model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = -1

    return ZooFile(plain(folder, edit=edit), said={"input_size": (HEIGHT, WIDTH)})


@zoo
def open_channels(folder: Path) -> ZooFile:
    """Its last side is no 3, so that the open one is the channels."""
    g = GraphBuilder()
    g.head(g.features("image"), out="logits")
    image = tensor_info("image", ("N", "C", HEIGHT, WIDTH))
    return ZooFile(g.save(folder / "net.onnx", [image], [classes_info("logits")]))


@zoo
def names_that_the_export_gives_itself(folder: Path) -> ZooFile:
    g = GraphBuilder()
    x = g.conv("image", 3, 16, stride=4)
    for name in ("logits", "logits_inner", "features", "features_inner", "image_nhwc", "image_file"):
        x = g.op("Relu", g.op("Mul", x, g.constant(1.1)), out=name)
    rows = g.constant([-1, CLASSES], name="rows_of_classes")
    g.op("Unsqueeze", g.op("Reshape", g.head(x), rows, out="ortcam/reshape_logits"), g.constant([2]), out="scores")
    return ZooFile(g.save(folder / "net.onnx", [image_info()], [tensor_info("scores", ("N", CLASSES, 1))]))


def list_weights(model: onnx.ModelProto) -> None:
    """Name the initializers among the inputs, as IR version 3 has it."""
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))


def classic(folder: Path, opset: int, *, ir_version: int, listed: bool) -> ZooFile:
    """Operators with the attributes of their old versions: Dropout, Upsample, Clip, Squeeze, Softmax."""
    g = GraphBuilder(opset=opset)
    x = g.op("Relu", g.batch_norm(g.conv("data", 3, 8, stride=2, bias=False), 8))
    x = g.op("Clip", g.conv(x, 8, 12, stride=4), min=0.0, max=6.0)
    x = (
        g.op("Upsample", x, mode="nearest", scales=[1.0, 1.0, 2.0, 2.0])
        if opset < 9
        else g.op("Upsample", x, g.constant([1.0, 1.0, 2.0, 2.0]), mode="nearest")
    )
    x = g.op("Relu", g.conv(x, 12, 16))
    x = g.op("Dropout", x, ratio=0.5)
    x = g.op("Squeeze", g.op("GlobalAveragePool", x), axes=[2, 3])
    g.op("Softmax", g.dense(x), out="prob", axis=1)

    path = g.save(
        folder / "net.onnx",
        [image_info("data", batch=1)],
        [classes_info("prob", batch=1)],
        ir_version=ir_version,
        edit=list_weights if listed else None,
    )
    return ZooFile(path, ending="softmax")


@zoo
def opset_7_with_weights_among_the_inputs(folder: Path) -> ZooFile:
    return classic(folder, 7, ir_version=3, listed=True)


@zoo
def opset_9_with_upsample(folder: Path) -> ZooFile:
    return classic(folder, 9, ir_version=4, listed=False)


@zoo
def caffe_bgr(folder: Path) -> ZooFile:
    """As Caffe's converters write: BGR in 0..255 less its mean, Scale as Mul and Add, LRN, dense on the maps."""
    form = InputForm(channel_order="bgr", scale=255.0, mean=(104.0, 117.0, 123.0), std=(1.0, 1.0, 1.0))
    g = GraphBuilder(opset=9)
    x = g.op("Mul", "data", g.constant(1 / 64))  # keeps the random net's activations near 1
    x = g.op("LRN", g.op("Relu", g.conv(x, 3, 8, stride=4)), size=5, alpha=1e-4, beta=0.75)
    x = g.op("Mul", g.op("Relu", g.conv(x, 8, 12)), g.random(1, 12, 1, 1, scale=0.2, offset=1))
    x = g.op("Add", x, g.random(1, 12, 1, 1, scale=0.2))
    x = g.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1])
    x = g.op("Dropout", g.op("Relu", g.dense(g.op("Flatten", x), 12 * 6 * 8, 16)), ratio=0.5)
    g.op("Softmax", g.dense(x), out="prob", axis=1)
    path = g.save(
        folder / "net.onnx",
        [image_info("data", batch=1)],
        [classes_info("prob", batch=1)],
        ir_version=3,
        edit=list_weights,
    )
    return ZooFile(path, form, ending="softmax")


@zoo
def bgr_with_imagenet_statistics(folder: Path) -> ZooFile:
    return ZooFile(plain(folder), InputForm(channel_order="bgr", mean=IMAGENET_MEAN[::-1], std=IMAGENET_STD[::-1]))
