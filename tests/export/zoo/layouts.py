"""Channels first and last, open sizes, tokens."""

from pathlib import Path

from tests.export.zoo.graphs import (
    HEIGHT,
    WIDTH,
    GraphBuilder,
    InputForm,
    ZooFile,
    classes_info,
    image_info,
    tensor_info,
)
from tests.export.zoo.plain import Builder, enter

FILES: dict[str, Builder] = {}
zoo = enter(FILES)


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
