"""Preprocessing inside the graph: normalisation, resizing, integer pixels, one image without a batch."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from tests.export.zoo.graphs import (
    CLASSES,
    FLOAT,
    HEIGHT,
    IMAGENET_MEAN,
    IMAGENET_STD,
    RAW_PIXELS,
    WIDTH,
    GraphBuilder,
    InputForm,
    ZooFile,
    classes_info,
    image_info,
    tensor_info,
)
from tests.export.zoo.integers import INT8_TOLERANCE
from tests.export.zoo.plain import Builder, enter

FILES: dict[str, Builder] = {}
zoo = enter(FILES)


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
