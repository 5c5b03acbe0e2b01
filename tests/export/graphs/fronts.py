"""Fronts of graphs that normalise pixels, in all the ways in which people write that."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper
from tests.export.zoo.graphs import (
    CLASSES,
    FLOAT,
    HEIGHT,
    IMAGENET_MEAN,
    IMAGENET_STD,
    WIDTH,
    GraphBuilder,
    InputForm,
    ZooFile,
    classes_info,
    image_info,
)

import ortcam
from ortcam.bundle import Bundle

MEAN, STD = 255 * np.array(IMAGENET_MEAN), 255 * np.array(IMAGENET_STD)
PIXELS: dict[str, Any] = {"mean": (0.0,) * 3, "std": (1.0,) * 3, "scale": 255.0, "channel_order": "rgb"}
# What docs/explanation/exactness.md promises of a map.
SAME_MAP = 1e-4
# A mean and a std are read off in float32, and written with the fewest digits that say the same.
SAME_NUMBER = 1e-6

Front = Callable[[GraphBuilder, str], str]

# A front, NCHW pixels of [0,255] -> normalised RGB, and the order of the channels of the pixels.
FRONTS: dict[str, tuple[Front, str, str]] = {}


def front(order: str = "rgb", layout: str = "nchw") -> Callable[[Front], Front]:
    """Enter a front, which takes its channels in this order and layout."""

    def enter(writing: Front) -> Front:
        FRONTS[writing.__name__] = writing, order, layout
        return writing

    return enter


def column(values: Any) -> NDArray[np.float64]:
    """A value per channel, for NCHW."""
    return np.reshape(np.asarray(values, np.float64), (1, 3, 1, 1))


def sub_div(g: GraphBuilder, x: str, shape: tuple[int, ...] = (1, 3, 1, 1)) -> str:
    """As the plainest exporter writes it."""
    return g.op("Div", g.op("Sub", x, g.constant(MEAN.reshape(shape))), g.constant(STD.reshape(shape)))


@front("bgr")
def channels_exchanged_by_gather(g: GraphBuilder, x: str) -> str:
    return sub_div(g, g.op("Gather", x, g.constant([2, 1, 0]), axis=1))


@front("bgr")
def channels_exchanged_by_slice(g: GraphBuilder, x: str) -> str:
    bounds = (g.constant(np.array([value], np.int64)) for value in (-1, -(2**31), 1, -1))
    return sub_div(g, g.op("Slice", x, *bounds))


@front("bgr")
def channels_exchanged_by_split_and_concat(g: GraphBuilder, x: str) -> str:
    g.nodes.append(helper.make_node("Split", [x], ["blue", "green", "red"], axis=1))
    return sub_div(g, g.op("Concat", "red", "green", "blue", axis=1))


@front("bgr")
def channels_exchanged_by_a_convolution(g: GraphBuilder, x: str) -> str:
    return sub_div(g, g.op("Conv", x, g.constant(np.eye(3)[::-1].reshape(3, 3, 1, 1).copy())))


@front("bgr")
def channels_exchanged_behind_the_normalisation(g: GraphBuilder, x: str) -> str:
    x = g.op("Div", g.op("Sub", x, g.constant(column(MEAN[::-1]))), g.constant(column(STD[::-1])))
    return g.op("Gather", x, g.constant([2, 1, 0]), axis=1)


@front("bgr")
def a_convolution_that_does_all(g: GraphBuilder, x: str) -> str:
    weights = (np.diag(1 / STD)[:, ::-1]).reshape(3, 3, 1, 1)
    return g.op("Conv", x, g.constant(weights.copy()), g.constant(-MEAN / STD))


@front()
def mean_image(g: GraphBuilder, x: str) -> str:
    x = g.op("Sub", x, g.constant(np.broadcast_to(column(MEAN), (1, 3, HEIGHT, WIDTH)).copy()))
    return g.op("Div", x, g.constant(column(STD)))


@front()
def batch_normalisation(g: GraphBuilder, x: str) -> str:
    constants = (g.constant(values) for values in (np.ones(3), np.zeros(3), MEAN, STD**2))
    return g.op("BatchNormalization", x, *constants, epsilon=0.0)


@front()
def depthwise_convolution(g: GraphBuilder, x: str) -> str:
    return g.op("Conv", x, g.constant((1 / STD).reshape(3, 1, 1, 1)), g.constant(-MEAN / STD), group=3)


@front()
def a_shape_beside_it(g: GraphBuilder, x: str) -> str:
    shape = g.op("Shape", x)
    return g.op("Reshape", sub_div(g, x), shape)


@front()
def the_shape_of_what_is_half_normalised(g: GraphBuilder, x: str) -> str:
    half = g.op("Sub", x, g.constant(column(MEAN)))
    return g.op("Reshape", g.op("Div", half, g.constant(column(STD))), g.op("Shape", half))


@front()
def means_expanded_to_the_shape_of_the_image(g: GraphBuilder, x: str) -> str:
    shape = g.op("Shape", x)
    x = g.op("Sub", x, g.op("Expand", g.constant(column(MEAN)), shape))
    return g.op("Div", x, g.op("Expand", g.constant(column(STD)), shape))


@front()
def constants_on_the_left(g: GraphBuilder, x: str) -> str:
    x = g.op("Neg", g.op("Sub", g.constant(column(MEAN)), x))
    return g.op("Mul", g.constant(column(1 / STD)), x)


@front()
def scaled_to_one_then_normalised(g: GraphBuilder, x: str) -> str:
    x = g.op("Sub", g.op("Mul", x, g.constant(1 / 255)), g.constant(column(IMAGENET_MEAN)))
    return g.op("Mul", x, g.constant(column(1 / np.array(IMAGENET_STD))))


@front()
def a_channel_at_a_time(g: GraphBuilder, x: str) -> str:
    """As torchvision's GoogLeNet with `transform_input`."""
    channels = []
    for index in range(3):
        one = g.axes("Unsqueeze", g.op("Gather", x, g.constant(np.int64(index)), axis=1), [1])
        one = g.op("Mul", one, g.constant(1 / STD[index]))
        channels.append(g.op("Add", one, g.constant(-MEAN[index] / STD[index])))
    return g.op("Concat", *channels, axis=1)


@front("bgr", "nhwc")
def as_keras_prepares_for_caffe(g: GraphBuilder, x: str) -> str:
    bounds = (g.constant(np.array([value], np.int64)) for value in (-1, -(2**31), 3, -1))
    x = sub_div(g, g.op("Slice", x, *bounds), (3,))
    return g.op("Transpose", x, perm=[0, 3, 1, 2])


@front(layout="nhwc")
def channels_last_by_batch_normalisation(g: GraphBuilder, x: str) -> str:
    shape = g.op("Shape", x)
    return batch_normalisation(g, g.op("Transpose", g.op("Reshape", x, shape), perm=[0, 3, 1, 2]))


@front()
def in_rows(g: GraphBuilder, x: str) -> str:
    x = g.op("Reshape", x, g.constant([-1, 3, HEIGHT * WIDTH]))
    return g.op("Reshape", sub_div(g, x, (3, 1)), g.constant([-1, 3, HEIGHT, WIDTH]))


@front()
def clipped_first(g: GraphBuilder, x: str) -> str:
    return sub_div(g, g.op("Clip", x, g.constant(0.0), g.constant(255.0)))


@front()
def clipped_in_the_middle_of_two_branches(g: GraphBuilder, x: str) -> str:
    half = g.op("Mul", sub_div(g, g.op("Clip", x, g.constant(0.0), g.constant(255.0))), g.constant(0.5))
    return g.op("Add", half, half)


@front()
def a_conditional_that_is_decided(g: GraphBuilder, x: str) -> str:
    then = helper.make_graph(
        [helper.make_node("Sub", [x, g.constant(column(MEAN))], ["centred"])],
        "then",
        [],
        [helper.make_tensor_value_info("centred", FLOAT, None)],
    )
    other = helper.make_graph(
        [helper.make_node("Identity", [x], ["same"])], "else", [], [helper.make_tensor_value_info("same", FLOAT, None)]
    )
    x = g.op("If", g.constant(True), then_branch=then, else_branch=other)
    return g.op("Div", x, g.constant(column(STD)))


def written(folder: Path, writing: Front, order: str, layout: str = "nchw") -> ZooFile:
    folder.mkdir()
    g = GraphBuilder()
    g.head(g.features(writing(g, "image")), out="logits")
    form = InputForm(layout, channel_order=order, scale=255.0, mean=(0.0,) * 3, std=(1.0,) * 3)  # type: ignore[arg-type]
    return ZooFile(g.save(folder / "net.onnx", [image_info(layout=form.layout)], [classes_info("logits")]), form)


def maps(bundle: Bundle, picture: NDArray[np.uint8], **options: Any) -> NDArray[np.float32]:
    explanation = ortcam.load(bundle.path).explain(picture, method="scorecam", target=list(range(CLASSES)), **options)
    assert not explanation.flat.any()
    return explanation.maps
