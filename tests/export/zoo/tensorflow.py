"""Files as tf2onnx 1.17 makes of Keras models.

Names have slashes and ":0", the batch is "unk__653", an input is NHWC, scalars of Clip are shared, batch normalisation
is Mul and Add, `ai.onnx.ml` is imported but not used.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from tests.export.zoo.graphs import (
    CLASSES,
    HEIGHT,
    IMAGENET_MEAN,
    IMAGENET_STD,
    INT64,
    WIDTH,
    GraphBuilder,
    InputForm,
    Layout,
    ZooFile,
    classes_info,
    image_info,
    tensor_info,
)
from tests.export.zoo.plain import Builder, enter

FILES: dict[str, Builder] = {}
zoo = enter(FILES)


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
