"""The zoo: real `.onnx` classifiers of every kind that people have, small, with random but seeded weights.

`ZOO` maps a name to a builder that writes the file into a folder and says how to call it.
"""

import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime as ort
from onnx import AttributeProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from tests.export import onnx_torch
from tests.export.onnx_graphs import (
    CLASSES,
    DOUBLE,
    FLOAT,
    FLOAT16,
    HEIGHT,
    IMAGENET_MEAN,
    IMAGENET_STD,
    INT64,
    LABELS,
    RAW_PIXELS,
    WIDTH,
    Ending,
    GraphBuilder,
    InputForm,
    Layout,
    ZooFile,
    classes_info,
    image_info,
    pictures,
    tensor_info,
)

__all__ = ["PRIVATE_PATH", "ZOO"]

Builder = Callable[[Path], ZooFile]

# Stands for what a file may know of the machine that made it.
PRIVATE_PATH: Final = "/home/somebody/secret-project"

ZOO: dict[str, Builder] = dict(onnx_torch.FILES)


def zoo(builder: Builder) -> Builder:
    """Enter a builder under its own name."""
    ZOO[builder.__name__] = builder
    return builder


def plain(
    folder: Path,
    *,
    opset: int = 17,
    image: str = "image",
    logits: str = "logits",
    batch: int | str = "N",
    name: str = "net.onnx",
    **saving: Any,
) -> Path:
    """The plainest classifier: three convolutions, pooling, one linear layer."""
    g = GraphBuilder(opset=opset)
    g.head(g.features(image), out=logits)
    return g.save(folder / name, [image_info(image, batch=batch)], [classes_info(logits, batch=batch)], **saving)


# Names, batches, opsets ----------------------------------------------------------------------------------------------


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


# Layouts -------------------------------------------------------------------------------------------------------------


@zoo
def nhwc_with_a_transpose_in_front(folder: Path) -> ZooFile:
    g = GraphBuilder()
    g.head(g.features(g.op("Transpose", "image", perm=[0, 3, 1, 2])), out="logits")
    path = g.save(folder / "net.onnx", [image_info(layout="nhwc")], [classes_info("logits")])
    return ZooFile(path, InputForm("nhwc"))


@zoo
def nhwc_that_its_shape_does_not_tell(folder: Path) -> ZooFile:
    g = GraphBuilder()
    x = g.op("Transpose", "image", perm=[0, 3, 1, 2])
    x = g.op("Relu", g.conv(g.op("Relu", g.conv(x, 3, 8)), 8, 16))
    g.head(x, out="logits")
    path = g.save(folder / "net.onnx", [image_info(layout="nhwc", size=(3, 3))], [classes_info("logits")])
    return ZooFile(path, InputForm("nhwc"), size=(3, 3), said={"input_layout": "nhwc"})


@zoo
def nhwc_with_every_dimension_open(folder: Path) -> ZooFile:
    g = GraphBuilder()
    x = g.op("Add", g.op("Mul", "image", g.constant([0.9, 1.0, 1.1])), g.constant([0.1, 0.0, -0.1]))
    g.head(g.features(g.op("Transpose", x, perm=[0, 3, 1, 2])), out="logits")
    path = g.save(folder / "net.onnx", [tensor_info("image", ("a", "b", "c", "d"))], [classes_info("logits")])
    return ZooFile(path, InputForm("nhwc"), said={"input_layout": "nhwc", "input_size": (HEIGHT, WIDTH)})


@zoo
def open_image_size(folder: Path) -> ZooFile:
    g = GraphBuilder()
    g.head(g.features("image"), out="logits")
    path = g.save(folder / "net.onnx", [image_info(size=("height", "width"))], [classes_info("logits")])
    return ZooFile(path, said={"input_size": (HEIGHT, WIDTH)})


@zoo
def open_image_size_that_the_graph_measures(folder: Path) -> ZooFile:
    """The size of the image goes through Shape into a Resize, as U-shaped parts do."""
    g = GraphBuilder(opset=13)
    x = g.op("Relu", g.conv("image", 3, 8, stride=2))
    small = g.op("Relu", g.conv(g.op("Relu", g.conv(x, 8, 12, stride=2)), 12, 16))
    size = g.op("Slice", g.op("Shape", x), g.constant([2]), g.constant([4]))
    sizes = g.op("Concat", g.op("Slice", g.op("Shape", small), g.constant([0]), g.constant([2])), size, axis=0)
    x = g.op("Resize", small, "", "", sizes, mode="linear", coordinate_transformation_mode="pytorch_half_pixel")
    g.head(g.op("Relu", g.conv(x, 16, 16)), out="logits")
    path = g.save(
        folder / "net.onnx", [image_info(batch=1, size=("height", "width"))], [classes_info("logits", batch=1)]
    )
    return ZooFile(path, said={"input_size": (HEIGHT, WIDTH)})


@zoo
def channels_last_where_the_shape_does_not_tell(folder: Path) -> ZooFile:
    """16 x 16 positions with 16 channels each: that the last axis is the channels shows in the product alone."""
    g = GraphBuilder()
    x = g.op("Relu", g.conv(g.op("Transpose", "image", perm=[0, 3, 1, 2]), 3, 16))
    x = g.op("MatMul", g.op("Transpose", x, perm=[0, 2, 3, 1]), g.random(16, 16, scale=0.4))
    x = g.op("Relu", g.op("Add", x, g.random(16, scale=0.3)), out="cells")
    g.dense(g.op("ReduceMean", x, axes=[1, 2], keepdims=0), out="logits")
    path = g.save(folder / "net.onnx", [image_info(layout="nhwc", size=(16, 16))], [classes_info("logits")])
    return ZooFile(path, InputForm("nhwc"), size=(16, 16))


@zoo
def maps_in_rows_that_could_be_tokens(folder: Path) -> ZooFile:
    """[N,192,12 * 16]: both of the sides are a number of patches."""
    g = GraphBuilder()
    x = g.op("Relu", g.conv(g.features("image"), 16, 192))
    x = g.op("Softplus", g.op("Reshape", x, g.constant([0, 192, -1])), out="rows")
    g.dense(g.op("ReduceMean", x, axes=[2], keepdims=0), 192, out="logits")
    return ZooFile(g.save(folder / "net.onnx", [image_info()], [classes_info("logits")]))


@zoo
def tokens_before_images(folder: Path) -> ZooFile:
    """A transformer [T,N,C] throughout, as CLIP's and torch's default are."""
    g = GraphBuilder()
    patches = g.op("Conv", "image", g.random(16, 3, 8, 8, scale=0.1), g.random(16), strides=[8, 8])
    x = g.op("Transpose", g.op("Reshape", patches, g.constant([0, 16, -1])), perm=[2, 0, 1])
    for block in range(2):
        keys, values = g.op("Transpose", x, perm=[1, 2, 0]), g.op("Transpose", x, perm=[1, 0, 2])
        attention = g.op("Softmax", g.op("MatMul", values, keys), axis=-1)
        x = g.op("Add", x, g.op("Transpose", g.op("MatMul", attention, values), perm=[1, 0, 2]))
        x = g.op("Relu", g.op("MatMul", x, g.random(16, 16, scale=0.3)), out=f"block_{block}")
    g.dense(g.op("ReduceMean", x, axes=[0], keepdims=0), out="logits")
    return ZooFile(g.save(folder / "net.onnx", [image_info()], [classes_info("logits")]))


# tf2onnx -------------------------------------------------------------------------------------------------------------
# Written after files that tf2onnx 1.17 made of Keras models: names with slashes and ":0", the batch as "unk__653", an
# input NHWC, scalars of Clip shared, batch normalisation as Mul and Add, `ai.onnx.ml` imported but not used.


class TensorFlowGraph(GraphBuilder):
    """A graph with the names and habits of tf2onnx."""

    def __init__(self) -> None:
        super().__init__(opset=15, name="functional_1/{}_{}:0".format)
        self.zero = self.constant(0.0, name="functional_1/re_lu_1/Relu6_min__29")
        self.six = self.constant(6.0, name="functional_1/block_15_depthwise_relu_1/Relu6_max__309")

    def relu6(self, x: str) -> str:
        return self.op("Clip", x, self.zero, self.six)

    def to_nchw(self, x: str) -> str:
        return self.op("Transpose", x, perm=[0, 3, 1, 2])

    def to_nhwc(self, x: str) -> str:
        return self.op("Transpose", x, perm=[0, 2, 3, 1])

    def same_conv(self, x: str, inputs: int, outputs: int) -> str:
        """Stride 2 with TensorFlow's "same" padding, which is below and on the right."""
        weights = self.random(outputs, inputs, 3, 3, scale=float(np.sqrt(2 / (9 * inputs))))
        return self.op(
            "Conv",
            x,
            weights,
            self.random(outputs, scale=0.2),
            kernel_shape=[3, 3],
            strides=[2, 2],
            pads=[0, 0, 1, 1],
            dilations=[1, 1],
            group=1,
        )

    def body(self, x: str) -> str:
        """NCHW image -> maps [N,16,h,w]: a depthwise-separable stack."""
        x = self.relu6(self.same_conv(x, 3, 8))
        x = self.conv(x, 8, 8, group=8, bias=False)
        x = self.op("Mul", x, self.random(1, 8, 1, 1, scale=0.2, offset=1))
        x = self.relu6(self.op("Add", x, self.random(1, 8, 1, 1, scale=0.3)))
        x = self.op("LeakyRelu", self.same_conv(x, 8, 12), alpha=0.3)
        x = self.conv(x, 12, 16)
        return self.op("Mul", x, self.op("Sigmoid", x))

    def mean(self, x: str) -> str:
        """NCHW -> [N,C]."""
        return self.op("Squeeze", self.op("GlobalAveragePool", x), self.constant([2, 3], name="const_axes__651"))

    def product(self, x: str, inputs: int = 16) -> str:
        """A dense layer without a bias, as a plain MatMul."""
        return self.op("MatMul", x, self.random(inputs, CLASSES, scale=float(4 / np.sqrt(inputs))))

    def finish(
        self, path: Path, *, batch: int | str = "unk__653", layout: Layout = "nhwc", more: Sequence[Any] = ()
    ) -> Path:
        return self.save(
            path,
            [image_info("input_1", layout=layout, batch=batch), *more],
            [classes_info("Identity:0", batch=batch if isinstance(batch, int) else "unk__654")],
            domains={"ai.onnx.ml": 2},
        )


UNIT_INTERVAL = InputForm("nhwc", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
BYTES = InputForm("nhwc", scale=255.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


@zoo
def tf_mobilenet_v2(folder: Path) -> ZooFile:
    g = TensorFlowGraph()
    g.op("Softmax", g.product(g.mean(g.body(g.to_nchw("input_1")))), out="Identity:0")
    return ZooFile(g.finish(folder / "net.onnx"), UNIT_INTERVAL, ending="softmax")


@zoo
def tf_inputs_as_nchw(folder: Path) -> ZooFile:
    g = TensorFlowGraph()
    g.op("Softmax", g.product(g.mean(g.body("input_1"))), out="Identity:0")
    form = InputForm("nchw", mean=UNIT_INTERVAL.mean, std=UNIT_INTERVAL.std)
    return ZooFile(g.finish(folder / "net.onnx", layout="nchw"), form, ending="softmax")


@zoo
def tf_linear_of_batch_1(folder: Path) -> ZooFile:
    g = TensorFlowGraph()
    x = g.mean(g.body(g.to_nchw("input_1")))
    g.op("MatMul", x, g.random(16, CLASSES), out="Identity:0")
    return ZooFile(g.finish(folder / "net.onnx", batch=1), UNIT_INTERVAL)


@zoo
def tf_sigmoid(folder: Path) -> ZooFile:
    g = TensorFlowGraph()
    g.op("Sigmoid", g.product(g.mean(g.body(g.to_nchw("input_1")))), out="Identity:0")
    return ZooFile(g.finish(folder / "net.onnx"), UNIT_INTERVAL, ending="sigmoid")


@zoo
def tf_rescaling_and_flatten(folder: Path) -> ZooFile:
    """Rescaling in front of the Transpose; Flatten as shape arithmetic in int32."""
    g = TensorFlowGraph()
    x = g.op("Add", g.op("Mul", "input_1", g.constant(1 / 127.5)), g.constant(-1.0))
    x = g.op("MaxPool", g.body(g.to_nchw(x)), kernel_shape=[2, 2], strides=[2, 2])
    channels_last = g.to_nhwc(x)
    shape = g.op("Gather", g.op("Shape", x), g.constant([0, 2, 3, 1]))
    shape = g.op("Cast", shape, to=onnx.TensorProto.INT32)
    zero, one = g.constant([0]), g.constant([1])
    batch = g.op("Slice", shape, zero, one, zero)
    features = 16 * (HEIGHT // 8) * (WIDTH // 8)
    shape = g.op("Concat", batch, g.constant([features], np.int32), axis=0)
    x = g.op("Reshape", channels_last, g.op("Cast", shape, to=INT64))
    g.op("Softmax", g.product(x, features), out="Identity:0")
    return ZooFile(g.finish(folder / "net.onnx"), BYTES, ending="softmax")


@zoo
def tf_mobilenet_v1_with_a_convolution_as_head(folder: Path) -> ZooFile:
    g = TensorFlowGraph()
    x = g.op("GlobalAveragePool", g.body(g.to_nchw("input_1")))
    x = g.op("Reshape", x, g.constant([-1, 16, 1, 1], name="new_shape__2342"))
    x = g.op("Conv", x, g.random(CLASSES, 16, 1, 1), kernel_shape=[1, 1])
    x = g.op("Reshape", x, g.constant([-1, CLASSES], name="functional_1/reshape_2_1/Reshape_shape__2384"))
    g.op("Softmax", x, out="Identity:0")
    return ZooFile(g.finish(folder / "net.onnx"), UNIT_INTERVAL, ending="softmax")


@zoo
def tf_mobilenet_v3_with_channels_last_inside(folder: Path) -> ZooFile:
    """Hard-swish keeps tf2onnx from moving its Transposes: every convolution stands between two of them."""
    g = TensorFlowGraph()

    def hard_sigmoid(x: str) -> str:
        return g.op("Mul", g.relu6(g.op("Add", x, g.constant(3.0))), g.constant(1 / 6))

    def biased(x: str, channels: int) -> str:
        return g.op("Add", g.to_nhwc(x), g.random(channels, scale=0.3))

    x = g.op("Add", g.op("Mul", "input_1", g.constant(1 / 127.5)), g.constant(-1.0))
    x = biased(g.same_conv(g.to_nchw(x), 3, 8), 8)
    x = g.op("Mul", x, hard_sigmoid(x))
    x = g.op("Pad", x, g.constant([0, 0, 0, 0, 0, 1, 1, 0], name="pad_const__2422"))
    x = g.op("Conv", g.to_nchw(x), g.random(8, 1, 3, 3, scale=0.5), group=8, kernel_shape=[3, 3], strides=[2, 2])
    x = g.op("Relu", g.op("Add", g.op("Mul", g.to_nhwc(x), g.random(8, scale=0.2, offset=1)), g.random(8, scale=0.3)))
    squeezed = g.op("ReduceMean", x, axes=[1, 2], keepdims=1)
    squeezed = g.op("Relu", g.to_nhwc(g.conv(g.to_nchw(squeezed), 8, 4, kernel=1)))
    excited = g.to_nhwc(g.conv(g.to_nchw(squeezed), 4, 8, kernel=1))
    x = g.op("Mul", x, hard_sigmoid(excited))
    x = biased(g.conv(g.to_nchw(x), 8, 16, kernel=1), 16)
    x = g.op("Mul", x, hard_sigmoid(x))
    x = g.op("ReduceMean", x, axes=[1, 2], keepdims=1)
    x = biased(g.conv(g.to_nchw(x), 16, 24, kernel=1), 24)
    x = g.op("Mul", x, hard_sigmoid(x))
    x = g.to_nhwc(g.op("Conv", g.to_nchw(x), g.random(CLASSES, 24, 1, 1, scale=0.5), kernel_shape=[1, 1]))
    x = g.op("Reshape", x, g.constant([-1, CLASSES], name="functional_1/flatten_1/Reshape_shape__2748"))
    g.op("Softmax", x, out="Identity:0")
    return ZooFile(g.finish(folder / "net.onnx"), BYTES, ending="softmax")


@zoo
def tf_efficientnet_with_inputs_that_nothing_uses(folder: Path) -> ZooFile:
    """tf2onnx left two constants of Keras's Normalization among the inputs, [1,1,1,3] and used by no node."""
    g = TensorFlowGraph()
    x = g.op("Mul", "input_1", g.constant(1 / 255))
    x = g.op("Add", x, g.constant(-np.reshape(IMAGENET_MEAN, (1, 1, 1, 3))))
    x = g.op("Mul", x, g.constant(1 / np.reshape(IMAGENET_STD, (1, 1, 1, 3))))
    g.op("Softmax", g.product(g.mean(g.body(g.to_nchw(x)))), out="Identity:0")
    more = [tensor_info(f"efficientnetb0_1/normalization_1/{name}:0", (1, 1, 1, 3)) for name in ("Sub/y", "Sqrt/x")]
    return ZooFile(g.finish(folder / "net.onnx", more=more), BYTES, ending="softmax")


# Endings -------------------------------------------------------------------------------------------------------------


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


# Several outputs -----------------------------------------------------------------------------------------------------


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


# Precision -----------------------------------------------------------------------------------------------------------

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


class Calibration(CalibrationDataReader):
    """Eight pictures, one at a time."""

    def __init__(self) -> None:
        tensors = InputForm().tensor(pictures(8, HEIGHT, WIDTH, seed=1))
        self._rows: Iterator[dict[str, np.ndarray]] = iter([{"image": row[None]} for row in tensors])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._rows, None)


# A step or two of an 8-bit activation, relative to its range.
INT8_TOLERANCE: Final = 2e-2


def quantized(folder: Path, form: QuantFormat, activation: QuantType, *, opset: int = 17, **options: Any) -> ZooFile:
    """The plain net through ONNX Runtime's static quantization."""
    raw, prepared, path = (folder / name for name in ("float.onnx", "prepared.onnx", "net.onnx"))
    plain(folder, name=raw.name, opset=opset)
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        quant_pre_process(raw, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            path,
            Calibration(),
            quant_format=form,
            activation_type=activation,
            weight_type=QuantType.QInt8,
            **options,
        )
    finally:
        logging.disable(previous)
    raw.unlink()
    prepared.unlink()
    return ZooFile(path, precision="int8", tolerance=INT8_TOLERANCE)


@zoo
def int8_qdq_per_channel(folder: Path) -> ZooFile:
    return quantized(folder, QuantFormat.QDQ, QuantType.QUInt8, per_channel=True)


@zoo
def int8_qdq_signed(folder: Path) -> ZooFile:
    return quantized(folder, QuantFormat.QDQ, QuantType.QInt8, extra_options={"ActivationSymmetric": True})


@zoo
def int8_qoperator_per_channel(folder: Path) -> ZooFile:
    return quantized(folder, QuantFormat.QOperator, QuantType.QUInt8, per_channel=True)


@zoo
def int8_qoperator_signed(folder: Path) -> ZooFile:
    return quantized(folder, QuantFormat.QOperator, QuantType.QInt8)


@zoo
def int8_qoperator_of_opset_11(folder: Path) -> ZooFile:
    return quantized(folder, QuantFormat.QOperator, QuantType.QUInt8, opset=11)


# A step or two of a 16-bit activation, relative to its range, and what the layers behind make of it.
INT16_TOLERANCE: Final = 1e-3


@zoo
def int16_qdq(folder: Path) -> ZooFile:
    """16-bit activations and 8-bit weights, as Qualcomm's QNN takes them; their Q and DQ are com.microsoft's."""
    file = quantized(folder, QuantFormat.QDQ, QuantType.QUInt16)
    return ZooFile(file.path, tolerance=INT16_TOLERANCE)


@zoo
def int16_qdq_signed_of_opset_21(folder: Path) -> ZooFile:
    file = quantized(folder, QuantFormat.QDQ, QuantType.QInt16, opset=21, per_channel=True)
    return ZooFile(file.path, tolerance=INT16_TOLERANCE)


@zoo
def int4_weights(folder: Path) -> ZooFile:
    """DequantizeLinear of 4-bit weights: per channel, and in blocks."""
    g = GraphBuilder(opset=21)
    generator = np.random.default_rng(0)
    x = g.features("image")
    kernel = helper.make_tensor("kernel", onnx.TensorProto.INT4, [16, 16, 3, 3], generator.integers(-8, 8, 2304))
    matrix = helper.make_tensor("matrix", onnx.TensorProto.UINT4, [16, 16], generator.integers(0, 16, 256))
    middle = helper.make_tensor("middle", onnx.TensorProto.UINT4, [2, 16], generator.integers(6, 9, 32))
    g.initializers += [kernel, matrix, middle]
    kernel = g.op("DequantizeLinear", "kernel", g.constant(generator.uniform(0.01, 0.04, 16)), axis=0)
    x = g.op("Relu", g.op("Conv", x, kernel, pads=[1, 1, 1, 1]))
    scales = g.constant(generator.uniform(0.05, 0.1, (2, 16)))
    matrix = g.op("DequantizeLinear", "matrix", scales, "middle", axis=0, block_size=8)
    g.dense(g.op("MatMul", g.pooled(x), matrix), out="logits")
    path = g.save(folder / "net.onnx", [image_info()], [classes_info("logits")], ir_version=10)
    return ZooFile(path, tolerance=INT16_TOLERANCE)


@zoo
def weights_of_4_bits_packed(folder: Path) -> ZooFile:
    """MatMulNBits with zero points, 40 inputs in blocks of 16."""
    g = GraphBuilder(opset=17)
    generator = np.random.default_rng(0)
    x = g.op("Relu", g.dense(g.pooled(g.features("image")), 16, 40))
    packed = g.constant(generator.integers(0, 256, (CLASSES, 3, 8)), np.uint8)
    scales = g.constant(generator.uniform(0.05, 0.2, CLASSES * 3))
    zeros = g.constant(generator.integers(0, 256, CLASSES * 2), np.uint8)
    sizes = {"K": 40, "N": CLASSES, "bits": 4, "block_size": 16}
    g.op("MatMulNBits", x, packed, scales, zeros, domain="com.microsoft", out="logits", **sizes)
    path = g.save(folder / "net.onnx", [image_info()], [classes_info("logits")], domains={"com.microsoft": 1})
    return ZooFile(path)


@zoo
def int8_dynamic_after_the_optimiser(folder: Path) -> ZooFile:
    """Level EXTENDED: DynamicQuantizeMatMul, and MatMulIntegerToFloat where two products share an input."""
    raw, plainly, path = folder / "float.onnx", folder / "plain.onnx", folder / "net.onnx"
    g = GraphBuilder()
    x = g.op("Relu", g.op("MatMul", g.pooled(g.features("image")), g.random(16, 16, scale=0.35)))
    two = [g.op("Add", g.op("MatMul", x, g.random(16, CLASSES, scale=0.5)), g.random(CLASSES)) for _ in range(2)]
    g.op("Add", *two, out="logits")
    g.save(raw, [image_info()], [classes_info("logits")])
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        quantize_dynamic(raw, plainly, weight_type=QuantType.QUInt8, op_types_to_quantize=["MatMul"])
    finally:
        logging.disable(previous)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 4
    ort.InferenceSession(plainly, options, providers=["CPUExecutionProvider"])
    operators = {node.op_type for node in onnx.load(path).graph.node}
    assert {"DynamicQuantizeMatMul", "MatMulIntegerToFloat"} <= operators, operators
    raw.unlink()
    plainly.unlink()
    return ZooFile(path, tolerance=INT8_TOLERANCE)


@zoo
def int8_dynamic(folder: Path) -> ZooFile:
    """ConvInteger, MatMulInteger, DynamicQuantizeLinear.

    Its scales come from all the images of a run together, so a bundle computes in float32 to treat each on its own.
    """
    raw, path = folder / "float.onnx", folder / "net.onnx"
    g = GraphBuilder()
    hidden = g.op("Relu", g.op("MatMul", g.pooled(g.features("image")), g.random(16, 16, scale=0.35)))
    g.op("MatMul", hidden, g.random(16, CLASSES, scale=0.5), out="logits")
    g.save(raw, [image_info()], [classes_info("logits")])
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        quantize_dynamic(raw, path, weight_type=QuantType.QUInt8, op_types_to_quantize=["Conv", "MatMul"])
    finally:
        logging.disable(previous)
    raw.unlink()
    return ZooFile(path, tolerance=INT8_TOLERANCE)


# Weights beside the graph --------------------------------------------------------------------------------------------


def external(folder: Path, location: str) -> ZooFile:
    path = plain(folder)
    model = onnx.load(path)
    (folder / location).parent.mkdir(exist_ok=True)
    onnx.save(model, path, save_as_external_data=True, location=location, size_threshold=0)
    return ZooFile(path)


@zoo
def external_data(folder: Path) -> ZooFile:
    return external(folder, "net.onnx.data")


@zoo
def external_data_in_a_name_with_spaces(folder: Path) -> ZooFile:
    return external(folder, "the weights/of the net, 2.bin")


@zoo
def external_data_of_one_file_a_tensor(folder: Path) -> ZooFile:
    path = plain(folder)
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, all_tensors_to_one_file=False, size_threshold=64)
    return ZooFile(path)


# Preprocessing inside ------------------------------------------------------------------------------------------------


def inside(
    folder: Path,
    front: Callable[[GraphBuilder, str], str],
    form: InputForm,
    *,
    batch: int | str = "N",
) -> ZooFile:
    """The plain net behind a front that preprocesses."""
    g = GraphBuilder()
    g.head(g.features(front(g, "image")), out="logits")
    image = image_info(layout=form.layout, batch=batch, dtype=form.dtype)
    return ZooFile(g.save(folder / "net.onnx", [image], [classes_info("logits", batch=batch)]), form)


UINT8_PIXELS: Final = InputForm("nchw", np.uint8, scale=255.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
UINT8: Final = onnx.TensorProto.UINT8


@zoo
def uint8_channels_last_normalised_inside(folder: Path) -> ZooFile:
    def front(g: GraphBuilder, x: str) -> str:
        x = g.op("Sub", g.op("Cast", x, to=FLOAT), g.constant(255 * np.array(IMAGENET_MEAN)))
        return g.op("Transpose", g.op("Div", x, g.constant(255 * np.array(IMAGENET_STD))), perm=[0, 3, 1, 2])

    return inside(folder, front, InputForm("nhwc", np.uint8, scale=255.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)))


@zoo
def uint8_of_batch_1_normalised_inside(folder: Path) -> ZooFile:
    def front(g: GraphBuilder, x: str) -> str:
        x = g.op("Div", g.op("Cast", x, to=FLOAT), g.constant(255.0))
        x = g.op("Sub", x, g.constant(np.reshape(IMAGENET_MEAN, (1, 3, 1, 1))))
        return g.op("Div", x, g.constant(np.reshape(IMAGENET_STD, (1, 3, 1, 1))))

    form = InputForm("nchw", np.uint8, scale=255.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    return inside(folder, front, form, batch=1)


@zoo
def bytes_as_float_normalised_inside(folder: Path) -> ZooFile:
    def front(g: GraphBuilder, x: str) -> str:
        return g.op("Add", g.op("Mul", x, g.constant(1 / 64)), g.constant(np.reshape([-2.0, -1.8, -1.6], (3, 1, 1))))

    return inside(folder, front, RAW_PIXELS)


@zoo
def channels_last_normalised_inside(folder: Path) -> ZooFile:
    def front(g: GraphBuilder, x: str) -> str:
        x = g.op("Mul", g.op("Sub", x, g.constant([0.4, 0.5, 0.6])), g.constant(np.full((1, 1, 1, 3), 4.0)))
        return g.op("Transpose", x, perm=[0, 3, 1, 2])

    return inside(folder, front, InputForm("nhwc", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)))


@zoo
def colours_exchanged_inside(folder: Path) -> ZooFile:
    """Takes RGB and hands BGR to its first convolution, by Gather."""
    return inside(folder, lambda g, x: g.op("Gather", x, g.constant([2, 1, 0]), axis=1), InputForm())


@zoo
def uint8_whose_shape_is_read(folder: Path) -> ZooFile:
    """The logits are reshaped by the batch size of the bytes, as torch's `view(x.shape[0], -1)` does."""
    g = GraphBuilder(opset=13)
    batch = g.op("Slice", g.op("Shape", "image"), g.constant([0]), g.constant([1]))
    x = g.op("Div", g.op("Cast", "image", to=FLOAT), g.constant(255.0))
    logits = g.head(g.features(x))
    g.op("Reshape", logits, g.op("Concat", batch, g.constant([-1]), axis=0), out="logits")
    path = g.save(folder / "net.onnx", [image_info(dtype=np.uint8)], [classes_info("logits")])
    return ZooFile(path, UINT8_PIXELS)


@zoo
def uint8_resized_as_bytes(folder: Path) -> ZooFile:
    """The resize rounds to whole grey levels."""

    def front(g: GraphBuilder, x: str) -> str:
        scales = g.constant(np.array([1, 1, 0.75, 0.75]), np.float32)
        x = g.op("Cast", g.op("Resize", x, "", scales, mode="linear"), to=FLOAT)
        return g.op("Sub", g.op("Div", x, g.constant(127.5)), g.constant(1.0))

    return inside(folder, front, UINT8_PIXELS)


@zoo
def uint8_channels_last_resized_to_sizes(folder: Path) -> ZooFile:
    """As TensorFlow's preprocessing is converted: the sizes name the batch of 1, and a Transpose comes behind."""

    def front(g: GraphBuilder, x: str) -> str:
        sizes = g.constant(np.array([1, HEIGHT + 8, WIDTH + 8, 3], np.int64))
        x = g.op("Resize", g.op("Cast", x, to=FLOAT), "", "", sizes, mode="linear")
        x = g.op("Sub", g.op("Div", x, g.constant(127.5)), g.constant(1.0))
        return g.op("Transpose", x, perm=[0, 3, 1, 2])

    return inside(folder, front, dataclasses.replace(UINT8_PIXELS, layout="nhwc"))


@zoo
def uint8_quantized_at_once(folder: Path) -> ZooFile:
    """The bytes are the integers of the first quantized operator, as in models with quantized inputs."""

    def front(g: GraphBuilder, x: str) -> str:
        scale, zero = g.constant(1 / 58, np.float32), g.constant(116, np.uint8)
        weights = g.constant(np.random.default_rng(0).integers(-90, 90, (3, 3, 3, 3)), np.int8)
        rest = (g.constant(0.01, np.float32), g.constant(0, np.int8), g.constant(0.02, np.float32))
        x = g.op("QLinearConv", x, scale, zero, weights, *rest, zero, pads=[1, 1, 1, 1])
        return g.op("DequantizeLinear", x, rest[2], zero)

    file = inside(folder, front, UINT8_PIXELS)
    return ZooFile(file.path, file.form, precision="int8", tolerance=INT8_TOLERANCE)


@zoo
def uint8_through_integer_arithmetic(folder: Path) -> ZooFile:
    def front(g: GraphBuilder, x: str) -> str:
        x = g.op("Sub", g.op("Cast", x, to=onnx.TensorProto.INT32), g.constant(128, np.int32))
        return g.op("Div", g.op("Cast", x, to=FLOAT), g.constant(64.0))

    return inside(folder, front, UINT8_PIXELS)


@zoo
def int32_pixels(folder: Path) -> ZooFile:
    def front(g: GraphBuilder, x: str) -> str:
        return g.op("Transpose", g.op("Div", g.op("Cast", x, to=FLOAT), g.constant(255.0)), perm=[0, 3, 1, 2])

    return inside(folder, front, dataclasses.replace(UINT8_PIXELS, layout="nhwc", dtype=np.int32))


@zoo
def int64_pixels(folder: Path) -> ZooFile:
    def front(g: GraphBuilder, x: str) -> str:
        return g.op("Sub", g.op("Div", g.op("Cast", x, to=FLOAT), g.constant(127.5)), g.constant(1.0))

    return inside(folder, front, dataclasses.replace(UINT8_PIXELS, dtype=np.int64))


@zoo
def int8_pixels_of_tflite(folder: Path) -> ZooFile:
    """Pixels less 128, which is what a quantized input with a zero point of 0 makes of [-1,1]."""

    def front(g: GraphBuilder, x: str) -> str:
        x = g.op("DequantizeLinear", x, g.constant(1 / 127.5, np.float32), g.constant(0, np.int8))
        return g.op("Transpose", x, perm=[0, 3, 1, 2])

    form = dataclasses.replace(UINT8_PIXELS, layout="nhwc", dtype=np.int8, mean=(128.0, 128.0, 128.0))
    return inside(folder, front, form)


def without_a_batch(folder: Path, front: Callable[[GraphBuilder, str], str], form: InputForm) -> ZooFile:
    """The plain net behind a front that takes one image, [3,H,W] or [H,W,3], and makes it [1,3,H,W]."""
    g = GraphBuilder()
    g.head(g.features(front(g, "image")), out="logits")
    shape = (3, HEIGHT, WIDTH) if form.layout == "nchw" else (HEIGHT, WIDTH, 3)
    image = tensor_info("image", shape, form.dtype)
    return ZooFile(g.save(folder / "net.onnx", [image], [classes_info("logits", batch=1)]), form)


@zoo
def uint8_channels_last_without_a_batch(folder: Path) -> ZooFile:
    def front(g: GraphBuilder, x: str) -> str:
        x = g.op("Transpose", g.op("Cast", x, to=FLOAT), perm=[2, 0, 1])
        x = g.op("Sub", g.op("Div", x, g.constant(127.5)), g.constant(1.0))
        return g.axes("Unsqueeze", x, [0])

    return without_a_batch(folder, front, dataclasses.replace(UINT8_PIXELS, layout="nhwc"))


@zoo
def uint8_channels_first_without_a_batch(folder: Path) -> ZooFile:
    def front(g: GraphBuilder, x: str) -> str:
        shape = g.op("Concat", g.constant([1]), g.op("Shape", x), axis=0)
        return g.op("Div", g.op("Cast", g.op("Reshape", x, shape), to=FLOAT), g.constant(255.0))

    return without_a_batch(folder, front, UINT8_PIXELS)


@zoo
def float_without_a_batch(folder: Path) -> ZooFile:
    return without_a_batch(folder, lambda g, x: g.axes("Unsqueeze", x, [0]), InputForm())


@zoo
def uint8_resized_as_torchvision_does_without_a_batch(folder: Path) -> ZooFile:
    """[3,H,W] resized by way of a batch of 1 and rounded to bytes again, as `torchvision.transforms.v2` exports."""

    def front(g: GraphBuilder, x: str) -> str:
        x = g.op("Cast", g.axes("Unsqueeze", x, [0]), to=FLOAT)
        x = g.op("Round", g.op("Resize", x, "", g.constant(np.array([1, 1, 0.75, 0.75]), np.float32), mode="linear"))
        x = g.op("Cast", g.axes("Squeeze", g.op("Clip", x, g.constant(0.0), g.constant(255.0)), [0]), to=UINT8)
        x = g.op("Div", g.op("Cast", x, to=FLOAT), g.constant(255.0))
        x = g.op("Sub", x, g.constant(np.reshape(IMAGENET_MEAN, (3, 1, 1))))
        return g.axes("Unsqueeze", g.op("Div", x, g.constant(np.reshape(IMAGENET_STD, (3, 1, 1)))), [0])

    return without_a_batch(folder, front, UINT8_PIXELS)


@zoo
def open_size_without_a_batch(folder: Path) -> ZooFile:
    """[H,W,3] of bytes, whose shape is read to put the batch in front."""
    g = GraphBuilder(opset=13)
    x = g.op("Reshape", "image", g.op("Concat", g.constant([1]), g.op("Shape", "image"), axis=0))
    x = g.op("Sub", g.op("Div", g.op("Cast", x, to=FLOAT), g.constant(127.5)), g.constant(1.0))
    g.head(g.features(g.op("Transpose", x, perm=[0, 3, 1, 2])), out="logits")
    image = tensor_info("image", ("height", "width", 3), np.uint8)
    path = g.save(folder / "net.onnx", [image], [classes_info("logits", batch=1)])
    form = dataclasses.replace(UINT8_PIXELS, layout="nhwc")
    return ZooFile(path, form, said={"input_size": (HEIGHT, WIDTH)})


@zoo
def scores_without_a_batch(folder: Path) -> ZooFile:
    """One image in, one row of scores out: [3,H,W] -> [classes]."""
    g = GraphBuilder()
    g.axes("Squeeze", g.head(g.features(g.axes("Unsqueeze", "image", [0]))), [0], out="logits")
    image = tensor_info("image", (3, HEIGHT, WIDTH))
    return ZooFile(g.save(folder / "net.onnx", [image], [tensor_info("logits", (CLASSES,))]))


@zoo
def int8_weights_alone(folder: Path) -> ZooFile:
    """DequantizeLinear of weights, and no quantizer: the arithmetic is floating."""
    g = GraphBuilder(opset=13)
    weights = g.constant(np.random.default_rng(0).integers(-127, 128, (CLASSES, 16)), np.int8)
    weights = g.op(
        "DequantizeLinear", weights, g.constant(np.full(CLASSES, 0.01)), g.constant(np.zeros(CLASSES), np.int8), axis=0
    )
    g.op("Gemm", g.pooled(g.features("image")), weights, transB=1, out="logits")
    return ZooFile(g.save(folder / "net.onnx", [image_info()], [classes_info("logits")]))


# What ONNX Runtime reads besides ------------------------------------------------------------------------------------


@zoo
def sparse_weights(folder: Path) -> ZooFile:
    """Of one layer as an initializer with indices of one number, of another as a Constant with indices of two."""

    def sparsen(model: onnx.ModelProto) -> None:
        graph = model.graph
        (linear,) = [tensor for tensor in graph.initializer if list(tensor.dims) == [CLASSES, 16]]
        weights = numpy_helper.to_array(linear).copy()
        weights[np.abs(weights) < 0.3] = 0
        graph.initializer.remove(linear)
        places = np.flatnonzero(weights).astype(np.int64)
        values = numpy_helper.from_array(weights.reshape(-1)[places], linear.name)
        indices = numpy_helper.from_array(places, f"{linear.name}_places")
        graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [CLASSES, 16]))

    g = GraphBuilder(opset=13)
    matrix = np.diag(np.linspace(0.5, 2, 16)).astype(np.float32)
    places = np.argwhere(matrix).astype(np.int64)
    values = numpy_helper.from_array(matrix[tuple(places.T)], "diagonal")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(places, "places"), [16, 16])
    x = g.pooled(g.features("image"))
    x = g.op("MatMul", x, g.op("Constant", sparse_value=sparse))
    g.dense(x, out="logits")
    return ZooFile(g.save(folder / "net.onnx", [image_info()], [classes_info("logits")], edit=sparsen))


@zoo
def operators_of_winml(folder: Path) -> ZooFile:
    """Those that ONNX Runtime has kept from before ONNX 1.0."""
    g = GraphBuilder(opset=9)
    x = g.op("ImageScaler", "image", scale=1 / 58, bias=[-2.1, -2.0, -1.8])
    x = g.op("Crop", x, border=[2, 1, 2, 3])
    x = g.op("ScaledTanh", g.features(x), alpha=1.7, beta=0.6)
    x = g.op("ParametricSoftplus", x, alpha=1.2, beta=0.8)
    x = g.op("ThresholdedRelu", g.op("Affine", g.op("Scale", x, scale=1.5), alpha=1.1, beta=-0.4), alpha=0.1)
    g.head(x, out="logits")
    return ZooFile(g.save(folder / "net.onnx", [image_info()], [classes_info("logits")], ir_version=4), RAW_PIXELS)


@zoo
def mean_variance_normalization_of_opset_8(folder: Path) -> ZooFile:
    g = GraphBuilder(opset=8)
    x = g.op("MeanVarianceNormalization", g.features("image"), across_channels=1, normalize_variance=1)
    g.head(g.op("Relu", x), out="logits")
    image, classes = image_info(batch=1), classes_info("logits", batch=1)
    return ZooFile(g.save(folder / "net.onnx", [image], [classes], ir_version=4))


@zoo
def normalised_by_its_mean_square(folder: Path) -> ZooFile:
    """SimplifiedLayerNormalization, which ONNX Runtime's optimiser puts in ONNX's own domain."""
    g = GraphBuilder()
    x = g.op("Transpose", g.features("image"), perm=[0, 2, 3, 1])
    x = g.op("SimplifiedLayerNormalization", x, g.random(16, offset=1, scale=0.1), axis=-1, epsilon=1e-5)
    g.head(g.op("Transpose", x, perm=[0, 3, 1, 2]), out="logits")
    return ZooFile(g.save(folder / "net.onnx", [image_info()], [classes_info("logits")]))


# What else a file may hold -------------------------------------------------------------------------------------------


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
