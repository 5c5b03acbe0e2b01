"""However a classifier writes its normalisation, its bundle has one preprocessing, and masks hide to one colour."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from tests.common.tiny import TinyNet
from tests.conftest import TINY_INPUT
from tests.export.zoo.graphs import (
    CLASSES,
    FLOAT,
    HEIGHT,
    IMAGENET_MEAN,
    IMAGENET_STD,
    LABELS,
    WIDTH,
    GraphBuilder,
    InputForm,
    ZooFile,
    classes_info,
    image_info,
    tensor_info,
)
from tests.export.zoo.plain import plain
from torch import nn

import ortcam
from ortcam.bundle import Bundle, read_bundle
from ortcam.images.preprocessing import Preprocessing
from ortcam_export import export, inspect_model
from ortcam_export.graphs.dataflow import data_nodes
from ortcam_export.graphs.normalisation.operators import until_first_layer

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


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The classifier whose normalisation is the preprocessing's."""
    folder = tmp_path_factory.mktemp("outside")
    return export(plain(folder), folder / "b.ortcam", **InputForm().arguments(), labels=list(LABELS))


def maps(bundle: Bundle, picture: NDArray[np.uint8], **options: Any) -> NDArray[np.float32]:
    explanation = ortcam.load(bundle.path).explain(picture, method="scorecam", target=list(range(CLASSES)), **options)
    assert not explanation.flat.any()
    return explanation.maps


@pytest.mark.sample(every=5)
@pytest.mark.parametrize("name", FRONTS)
def test_one_classifier_has_one_preprocessing_and_one_map_however_it_is_written(
    name: str, outside: Bundle, tmp_path: Path
) -> None:
    file = written(tmp_path / "inside", *FRONTS[name])
    bundle = export(file.path, tmp_path / "b.ortcam", **file.arguments)
    preprocessing = bundle.manifest.preprocessing
    assert preprocessing.channel_order in ("rgb", file.form.channel_order)
    in_order = slice(None, None, 1 if preprocessing.channel_order == "rgb" else -1)
    np.testing.assert_allclose(preprocessing.mean[in_order], MEAN, rtol=SAME_NUMBER)
    np.testing.assert_allclose(preprocessing.std[in_order], STD, rtol=SAME_NUMBER)
    assert "own normalisation" in bundle.manifest.preprocessing_source
    picture = file.pictures(1)[0]
    np.testing.assert_allclose(maps(bundle, picture), maps(outside, picture), atol=SAME_MAP)


def test_an_order_and_a_normalisation_that_are_taken_leave_nothing_in_the_graph(tmp_path: Path) -> None:
    import onnx

    for name in ("channels_exchanged_by_gather", "a_channel_at_a_time", "as_keras_prepares_for_caffe", "mean_image"):
        file = written(tmp_path / name, *FRONTS[name])
        bundle = export(file.path, tmp_path / f"{name}.ortcam", **file.arguments)
        assert bundle.manifest.preprocessing.channel_order == "rgb"
        assert tuple(bundle.manifest.preprocessing.mean) == pytest.approx(tuple(MEAN), rel=SAME_NUMBER)
        first = onnx.load(bundle.file("features.onnx"), load_external_data=False).graph.node[0]
        assert (first.op_type, first.input[0]) == ("Conv", "image"), name


# Fronts that are not done pixel for pixel ----------------------------------------------------------------------------


def resized(g: GraphBuilder, x: str) -> str:
    sizes = g.constant(np.array([1.0, 1.0, 0.5, 0.5]), np.float32)
    return g.op("Resize", x, "", sizes, mode="linear", coordinate_transformation_mode="half_pixel")


def cropped(g: GraphBuilder, x: str) -> str:
    bounds = (g.constant(np.array(values, np.int64)) for values in ((4, 4), (HEIGHT - 4, WIDTH - 4), (2, 3)))
    return g.op("Slice", x, *bounds)


@pytest.mark.parametrize("change", [resized, cropped])
def test_a_normalisation_behind_a_resize_or_a_crop_hides_to_the_mean_colour(change: Front, tmp_path: Path) -> None:
    """Both keep what is affine in the pixels: the same is to normalise first."""
    behind = written(tmp_path / "behind", lambda g, x: sub_div(g, change(g, x)), "rgb")
    before = written(tmp_path / "before", lambda g, x: change(g, sub_div(g, x)), "rgb")
    bundles = [export(file.path, file.path.with_suffix(".ortcam"), **file.arguments) for file in (behind, before)]
    for bundle in bundles:
        np.testing.assert_allclose(bundle.manifest.preprocessing.mean, MEAN, rtol=SAME_NUMBER)
        np.testing.assert_allclose(bundle.manifest.preprocessing.std, STD, rtol=SAME_NUMBER)
    picture = behind.pictures(1)[0]
    np.testing.assert_allclose(maps(bundles[0], picture), maps(bundles[1], picture), atol=SAME_MAP)


def test_a_black_frame_stays_black_in_front_of_the_normalisation(tmp_path: Path) -> None:
    def framed(g: GraphBuilder, x: str) -> str:
        return sub_div(g, g.op("Pad", x, g.constant(np.array([0, 0, 4, 4, 0, 0, 4, 4]))))

    file = written(tmp_path / "framed", framed, "rgb")
    bundle = export(file.path, tmp_path / "b.ortcam", **file.arguments)
    np.testing.assert_allclose(bundle.manifest.preprocessing.mean, MEAN, rtol=SAME_NUMBER)
    predicted = ortcam.load(bundle.path).predict(file.pictures(1)[0])
    np.testing.assert_allclose(predicted, file.probabilities(file.pictures(1))[0], atol=1e-4)


def test_a_mean_image_hides_to_the_mean_of_its_pixels(tmp_path: Path) -> None:
    image = column(MEAN) + 12 * np.random.default_rng(0).standard_normal((1, 3, HEIGHT, WIDTH))
    image = image.astype(np.float32).astype(np.float64)

    def centred(g: GraphBuilder, x: str) -> str:
        return g.op("Div", g.op("Sub", x, g.constant(image)), g.constant(column(STD)))

    file = written(tmp_path / "image", centred, "rgb")
    bundle = export(file.path, tmp_path / "b.ortcam", **file.arguments)
    np.testing.assert_allclose(bundle.manifest.preprocessing.mean, image.mean(axis=(0, 2, 3)), rtol=SAME_NUMBER)
    predicted = ortcam.load(bundle.path).predict(file.pictures(1)[0])
    np.testing.assert_allclose(predicted, file.probabilities(file.pictures(1))[0], atol=1e-4)


def test_an_image_that_is_turned_negative_hides_to_its_mean_colour(tmp_path: Path) -> None:
    def negative(g: GraphBuilder, x: str) -> str:
        return sub_div(g, g.op("Sub", g.constant(255.0), x))

    file = written(tmp_path / "negative", negative, "rgb")
    bundle = export(file.path, tmp_path / "b.ortcam", **file.arguments)
    np.testing.assert_allclose(bundle.manifest.preprocessing.mean, 255 - MEAN, rtol=SAME_NUMBER)
    np.testing.assert_allclose(bundle.manifest.preprocessing.std, STD, rtol=SAME_NUMBER)
    predicted = ortcam.load(bundle.path).predict(file.pictures(1)[0])
    np.testing.assert_allclose(predicted, file.probabilities(file.pictures(1))[0], atol=1e-4)


def test_channels_in_an_order_that_no_preprocessing_has_are_normalised_all_the_same(tmp_path: Path) -> None:
    def turned(g: GraphBuilder, x: str) -> str:
        return sub_div(g, g.op("Gather", x, g.constant([1, 2, 0]), axis=1))

    file = written(tmp_path / "turned", turned, "rgb")
    bundle = export(file.path, tmp_path / "b.ortcam", **file.arguments)
    np.testing.assert_allclose(bundle.manifest.preprocessing.mean, MEAN[[2, 0, 1]], rtol=SAME_NUMBER)
    predicted = ortcam.load(bundle.path).predict(file.pictures(1)[0])
    np.testing.assert_allclose(predicted, file.probabilities(file.pictures(1))[0], atol=1e-4)


def test_branches_that_each_normalise_the_image_hide_to_the_mean_colour(tmp_path: Path) -> None:
    def two(folder: Path, inside: bool) -> ZooFile:
        folder.mkdir()
        g = GraphBuilder()
        towers = [g.features(sub_div(g, "image") if inside else "image") for _ in range(2)]
        g.head(g.op("Add", *towers), out="logits")
        form = InputForm(scale=255.0, mean=(0.0,) * 3, std=(1.0,) * 3) if inside else InputForm()
        return ZooFile(g.save(folder / "net.onnx", [image_info()], [classes_info("logits")]), form)

    files = [two(tmp_path / "inside", True), two(tmp_path / "outside", False)]
    bundles = [export(file.path, file.path.with_suffix(".ortcam"), **file.arguments) for file in files]
    np.testing.assert_allclose(bundles[0].manifest.preprocessing.mean, MEAN, rtol=SAME_NUMBER)
    picture = files[0].pictures(1)[0]
    np.testing.assert_allclose(maps(bundles[0], picture), maps(bundles[1], picture), atol=SAME_MAP)


def test_branches_with_two_means_hide_to_the_first_and_say_so(tmp_path: Path) -> None:
    g = GraphBuilder()
    other = g.op("Sub", g.op("Div", "image", g.constant(127.5)), g.constant(1.0))
    g.head(g.op("Add", g.features(sub_div(g, "image")), g.features(other)), out="logits")
    form = InputForm(scale=255.0, mean=(0.0,) * 3, std=(1.0,) * 3)
    file = ZooFile(g.save(tmp_path / "net.onnx", [image_info()], [classes_info("logits")]), form)
    bundle = export(file.path, tmp_path / "b.ortcam", **file.arguments)
    assert "branches normalise differently" in bundle.manifest.preprocessing_source
    mean = np.array(bundle.manifest.preprocessing.mean)
    assert min(np.abs(mean - MEAN).max(), np.abs(mean - 127.5).max()) < 1e-3
    predicted = ortcam.load(bundle.path).predict(file.pictures(1)[0])
    np.testing.assert_allclose(predicted, file.probabilities(file.pictures(1))[0], atol=1e-4)


def as_bytes(g: GraphBuilder, x: str) -> str:
    return sub_div(g, g.op("Cast", x, to=FLOAT))


def by_integers(g: GraphBuilder, x: str) -> str:
    """Grey levels are rounded on their way; they are whole ones before."""
    x = g.op("Sub", g.op("Cast", x, to=TensorProto.INT32), g.constant(np.zeros(()), np.int32))
    return sub_div(g, g.op("Cast", x, to=FLOAT))


def by_a_dequantizer(g: GraphBuilder, x: str) -> str:
    zeros = g.constant(np.zeros(3), np.uint8)
    x = g.op("DequantizeLinear", x, g.constant(1 / STD), zeros, axis=1)
    return g.op("Sub", x, g.constant(column(MEAN / STD)))


def one_image(g: GraphBuilder, x: str) -> str:
    """[H,W,3], exchanged, resized to what it was by way of a batch of 1, and normalised without one."""
    x = g.op("Cast", g.op("Transpose", g.op("Gather", x, g.constant([2, 1, 0]), axis=2), perm=[2, 0, 1]), to=FLOAT)
    x = sub_div(g, x, (3, 1, 1))
    return g.axes("Unsqueeze", g.axes("Squeeze", g.axes("Unsqueeze", x, [0]), [0]), [0])


@pytest.mark.sample(every=4)
@pytest.mark.parametrize(
    ("writing", "shape", "order"),
    [
        (as_bytes, ("N", 3, HEIGHT, WIDTH), "rgb"),
        (by_integers, ("N", 3, HEIGHT, WIDTH), "rgb"),
        (by_a_dequantizer, ("N", 3, HEIGHT, WIDTH), "rgb"),
        (one_image, (HEIGHT, WIDTH, 3), "bgr"),
    ],
)
def test_integer_pixels_are_normalised_as_floating_ones(
    writing: Front, shape: tuple[Any, ...], order: str, outside: Bundle, tmp_path: Path
) -> None:
    g = GraphBuilder()
    g.head(g.features(writing(g, "image")), out="logits")
    image = tensor_info("image", shape, np.uint8)
    path = g.save(tmp_path / "net.onnx", [image], [classes_info("logits", batch="N" if len(shape) == 4 else 1)])
    bundle = export(path, tmp_path / "b.ortcam", channel_order=order, labels=list(LABELS))
    preprocessing = bundle.manifest.preprocessing
    np.testing.assert_allclose(preprocessing.mean, MEAN, rtol=SAME_NUMBER)
    np.testing.assert_allclose(preprocessing.std, STD, rtol=SAME_NUMBER)
    picture = ZooFile(path).pictures(1)[0]
    limit = SAME_MAP
    if writing is by_integers:  # masked pixels are rounded to grey levels there: half a level of a mask's 255 or so
        limit = 2e-2
    np.testing.assert_allclose(maps(bundle, picture), maps(outside, picture), atol=limit)


def test_a_normalisation_in_quantized_arithmetic_hides_to_the_mean_colour(tmp_path: Path) -> None:
    """Quantizers in between, of one grey level a step: the mean may be off by the half steps of three of them."""
    g = GraphBuilder()

    def stepped(x: str, scale: float, zero: int) -> str:
        constants = g.constant(scale), g.constant(zero, np.uint8)
        return g.op("DequantizeLinear", g.op("QuantizeLinear", x, *constants), *constants)

    x = g.op("Sub", stepped("image", 1.0, 0), g.constant(column(MEAN)))
    x = g.op("Div", stepped(x, 1.0, 124), g.constant(column(STD)))
    g.head(g.features(stepped(x, 1 / STD.max(), 124)), out="logits")
    form = InputForm(scale=255.0, mean=(0.0,) * 3, std=(1.0,) * 3)
    path = g.save(tmp_path / "net.onnx", [image_info()], [classes_info("logits")])
    bundle = export(path, tmp_path / "b.ortcam", **form.arguments(), labels=list(LABELS))
    np.testing.assert_allclose(bundle.manifest.preprocessing.mean, MEAN, atol=1.5)


def test_inspect_tells_what_a_graph_normalises_and_what_it_does_not(tmp_path: Path) -> None:
    inside = inspect_model(written(tmp_path / "inside", sub_div, "rgb").path)
    assert any("own normalisation (Sub, Div)" in note for note in inside.notes)
    (tmp_path / "outside").mkdir()
    outside = inspect_model(plain(tmp_path / "outside"))
    assert any("masks will hide to the colour that --mean says" in note for note in outside.notes)


def test_an_exchange_of_channels_that_is_taken_is_said(tmp_path: Path) -> None:
    file = written(tmp_path / "net", *FRONTS["channels_exchanged_by_gather"])
    said: list[str] = []
    export(file.path, tmp_path / "b.ortcam", **file.arguments, report=said.append)
    assert any("exchange of the channels" in line and line.endswith("take rgb") for line in said)


def test_a_second_way_of_the_image_that_only_scales_it_changes_nothing(tmp_path: Path) -> None:
    g = GraphBuilder()
    small = g.conv(g.op("Mul", "image", g.constant(0.5)), 3, 16, stride=4)
    g.head(g.op("Relu", g.op("Add", g.features("image"), small)), out="logits")
    path = g.save(tmp_path / "net.onnx", [image_info()], [classes_info("logits")])
    file = ZooFile(path)
    bundle = export(path, tmp_path / "b.ortcam", **file.arguments)
    assert (bundle.manifest.preprocessing.mean, bundle.manifest.preprocessing.std) == (IMAGENET_MEAN, IMAGENET_STD)
    predicted = ortcam.load(bundle.path).predict(file.pictures(1)[0])
    np.testing.assert_allclose(predicted, file.probabilities(file.pictures(1))[0], atol=1e-4)


# Fronts that mix the channels ----------------------------------------------------------------------------------------

LUMA = np.array([0.299, 0.587, 0.114])
TO_YUV = np.array([LUMA, [-0.147, -0.289, 0.436], [0.615, -0.515, -0.1]])
GREY = 114.0


def three_times(g: GraphBuilder, x: str) -> str:
    return g.op("Concat", x, x, x, axis=1)


def grey_by_a_mean(g: GraphBuilder, x: str) -> str:
    x = g.op("Sub", g.op("ReduceMean", x, axes=[1]), g.constant(GREY))
    return three_times(g, g.op("Div", x, g.constant(57.0)))


def grey_by_a_convolution(g: GraphBuilder, x: str) -> str:
    x = g.op("Sub", g.op("Conv", x, g.constant(LUMA.reshape(1, 3, 1, 1))), g.constant(GREY))
    return three_times(g, g.op("Div", x, g.constant(57.0)))


def grey_by_a_product(g: GraphBuilder, x: str) -> str:
    x = g.op("MatMul", g.op("Transpose", x, perm=[0, 2, 3, 1]), g.constant(LUMA.reshape(3, 1)))
    x = g.op("Div", g.op("Sub", x, g.constant(GREY)), g.constant(57.0))
    return three_times(g, g.op("Transpose", x, perm=[0, 3, 1, 2]))


def luminance_and_colour(g: GraphBuilder, x: str) -> str:
    x = g.op("Conv", x, g.constant(TO_YUV.reshape(3, 3, 1, 1)))
    return g.op("Div", g.op("Sub", x, g.constant(column(TO_YUV @ MEAN))), g.constant(50.0))


@pytest.mark.sample(every=4)
@pytest.mark.parametrize(
    ("writing", "mean"),
    [
        (grey_by_a_mean, (GREY,) * 3),
        (grey_by_a_convolution, (GREY,) * 3),
        (grey_by_a_product, (GREY,) * 3),
        (luminance_and_colour, tuple(MEAN)),
    ],
)
def test_an_image_whose_channels_are_mixed_hides_to_what_becomes_zero(
    writing: Front, mean: tuple[float, ...], tmp_path: Path
) -> None:
    file = written(tmp_path / "mixed", writing, "rgb")
    bundle = export(file.path, tmp_path / "b.ortcam", **file.arguments)
    # A colour is solved for in float32's numbers.
    np.testing.assert_allclose(bundle.manifest.preprocessing.mean, mean, rtol=1e-4)
    predicted = ortcam.load(bundle.path).predict(file.pictures(1)[0])
    np.testing.assert_allclose(predicted, file.probabilities(file.pictures(1))[0], atol=1e-4)


def test_a_grey_image_without_a_mean_hides_to_black_and_says_so(tmp_path: Path) -> None:
    def scaled(g: GraphBuilder, x: str) -> str:
        return three_times(g, g.op("Conv", x, g.constant(LUMA.reshape(1, 3, 1, 1) / 255)))

    file = written(tmp_path / "grey", scaled, "rgb")
    said: list[str] = []
    bundle = export(file.path, tmp_path / "b.ortcam", **file.arguments, report=said.append)
    assert bundle.manifest.preprocessing.mean == (0, 0, 0)
    assert any("masks hide to black" in line for line in said)


def test_whole_numbers_that_a_graph_cuts_off_stay_whole(tmp_path: Path) -> None:
    """The image is floating, and a Cast to uint8 makes 122 of 122.99999."""

    def cut_off(g: GraphBuilder, x: str) -> str:
        scales = g.constant(np.array([1.0, 1.0, 0.5, 0.5]), np.float32)
        x = g.op("Resize", g.op("Cast", x, to=TensorProto.UINT8), "", scales, mode="nearest")
        return sub_div(g, g.op("Cast", x, to=FLOAT))

    file = written(tmp_path / "cut", cut_off, "rgb")
    bundle = export(file.path, tmp_path / "b.ortcam", **file.arguments, precision="fp16")
    np.testing.assert_allclose(bundle.manifest.preprocessing.mean, MEAN, rtol=SAME_NUMBER)
    assert list(bundle.manifest.variants) == ["float16"]


def test_the_front_ends_at_the_first_layer(tmp_path: Path) -> None:
    """Its tensors are all held at once: those of a whole VGG would take gigabytes."""
    g = GraphBuilder()
    x = sub_div(g, "image")
    for inputs in (3, 16, 16, 16):
        x = g.op("Relu", g.conv(x, inputs, 16))
    g.head(g.op("Relu", g.conv(x, 16, 64)), out="logits")
    model = ir.load(g.save(tmp_path / "net.onnx", [image_info()], [classes_info("logits")]))
    values = list(until_first_layer(model.graph.inputs[0], data_nodes(model.graph)))
    assert [value.producer().op_type if value.producer() else None for value in values] == [None, "Sub", "Div"]


# What is no normalisation --------------------------------------------------------------------------------------------


def gamma(g: GraphBuilder, x: str) -> str:
    return g.op("Pow", g.op("Div", x, g.constant(255.0)), g.constant(2.2))


def standardised(g: GraphBuilder, x: str) -> str:
    centred = g.op("Sub", x, g.op("ReduceMean", x, axes=[2, 3]))
    return g.op("Div", centred, g.op("Sqrt", g.op("ReduceMean", g.op("Mul", centred, centred), axes=[2, 3])))


def mixed(g: GraphBuilder, x: str) -> str:
    """A convolution from three channels to three that was learned."""
    return g.op("Relu", g.conv(g.op("Div", x, g.constant(255.0)), 3, 3))


@pytest.mark.parametrize("writing", [gamma, standardised, mixed])
def test_what_is_not_affine_in_a_pixel_stays_in_the_graph_and_black_is_said(writing: Front, tmp_path: Path) -> None:
    file = written(tmp_path / "net", writing, "rgb")
    said: list[str] = []
    bundle = export(file.path, tmp_path / "b.ortcam", **file.arguments, report=said.append)
    assert bundle.manifest.preprocessing.mean == (0, 0, 0)
    assert any("masks hide to black" in line for line in said)
    predicted = ortcam.load(bundle.path).predict(file.pictures(1)[0])
    np.testing.assert_allclose(predicted, file.probabilities(file.pictures(1))[0], atol=1e-4)


def test_a_learned_scale_whose_zero_no_pixel_has_is_no_normalisation(tmp_path: Path) -> None:
    def learned(g: GraphBuilder, x: str) -> str:
        x = g.op("Div", x, g.constant(255.0))
        return g.op("Conv", x, g.constant(np.full((3, 1, 1, 1), 0.7)), g.constant([0.4, 0.5, 0.6]), group=3)

    file = written(tmp_path / "learned", learned, "rgb")
    bundle = export(file.path, tmp_path / "b.ortcam", **file.arguments)
    assert bundle.manifest.preprocessing.mean == (0, 0, 0)
    predicted = ortcam.load(bundle.path).predict(file.pictures(1)[0])
    np.testing.assert_allclose(predicted, file.probabilities(file.pictures(1))[0], atol=1e-4)


def test_bytes_that_the_graph_normalises_and_the_user_calls_one_are_refused(tmp_path: Path) -> None:
    file = written(tmp_path / "net", sub_div, "rgb")
    with pytest.raises(ortcam.OrtcamError, match=r"black and white.*--scale 255"):
        export(file.path, tmp_path / "b.ortcam", **file.arguments | {"scale": None})


def test_a_normalisation_twice_is_said(tmp_path: Path) -> None:
    file = written(tmp_path / "net", sub_div, "rgb")
    said: list[str] = []
    twice = {"mean": tuple(MEAN), "std": tuple(STD)}
    bundle = export(file.path, tmp_path / "b.ortcam", **file.arguments | twice, report=said.append)
    np.testing.assert_allclose(bundle.manifest.preprocessing.mean, MEAN + STD * MEAN, rtol=1e-5)
    assert any("is normalised already: together" in line for line in said)


# Modules -------------------------------------------------------------------------------------------------------------


class Normalising(nn.Module):
    """A classifier behind a normalisation of its own."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.net = TinyNet()
        self.how = how
        mean, std = (torch.tensor(TINY_INPUT[key]) for key in ("mean", "std"))
        self.register_buffer("mean", mean.reshape(1, 3, 1, 1))
        self.register_buffer("std", std.reshape(1, 3, 1, 1))
        self.norm = nn.BatchNorm2d(3, affine=False, eps=0.0)
        self.norm.running_mean, self.norm.running_var = mean, std**2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.how == "division":
            x = (x - self.mean) / self.std
        elif self.how == "batch norm":
            x = self.norm(x)
        elif self.how == "exchanged":
            x = (x.flip(1) - self.mean) / self.std
        elif self.how == "channel by channel":  # GoogLeNet's transform_input
            parts = [
                torch.unsqueeze(x[:, index], 1) * (1 / self.std[0, index, 0, 0])
                + (-self.mean / self.std)[0, index, 0, 0]
                for index in range(3)
            ]
            x = torch.cat(parts, 1)
        elif self.how == "resized":
            x = nn.functional.interpolate(x, scale_factor=2.0, mode="bilinear")
            x = (x - self.mean) / self.std
        elif self.how == "clamped":
            x = (x.clamp(0, 1) - self.mean) / self.std
        logits: torch.Tensor = self.net(x)
        return logits


@pytest.mark.slow
@pytest.mark.parametrize("how", ["division", "batch norm", "exchanged", "channel by channel", "clamped"])
def test_a_module_that_normalises_is_as_one_that_does_not(how: str, tiny_bundle: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Normalising(how).eval()
    order = "bgr" if how == "exchanged" else "rgb"
    raw = TINY_INPUT | {"mean": (0.0,) * 3, "std": (1.0,) * 3, "channel_order": order}
    inside = export(module, tmp_path / "inside.ortcam", **raw)
    outside = read_bundle(tiny_bundle)
    assert inside.manifest.preprocessing == outside.manifest.preprocessing
    picture = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    results = [
        ortcam.load(bundle.path).explain(picture, method="scorecam", target=[0, 1]).maps for bundle in (inside, outside)
    ]
    np.testing.assert_allclose(results[0], results[1], atol=SAME_MAP)


@pytest.mark.slow
def test_a_module_that_resizes_before_it_normalises_hides_to_the_mean_colour(tmp_path: Path) -> None:
    torch.manual_seed(0)
    raw = TINY_INPUT | {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    prepared = export(Normalising("resized").eval(), tmp_path / "b.ortcam", **raw).manifest.preprocessing
    np.testing.assert_allclose(prepared.mean, TINY_INPUT["mean"], rtol=SAME_NUMBER)
    np.testing.assert_allclose(prepared.std, TINY_INPUT["std"], rtol=SAME_NUMBER)


@pytest.mark.slow
def test_googlenet_with_weights_explains_from_the_input_its_network_was_trained_on(tmp_path: Path) -> None:
    """`transform_input` turns ImageNet's mean and std into pixels of [-1,1]: those are the network's own."""
    from torchvision.models import googlenet

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = googlenet(weights=None, init_weights=False, aux_logits=False, transform_input=True).eval()
    labels = [str(index) for index in range(1000)]
    said = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "input_size": (64, 64), "labels": labels}
    prepared = export(module, tmp_path / "b.ortcam", **said).manifest.preprocessing
    assert isinstance(prepared, Preprocessing)
    np.testing.assert_allclose((prepared.mean, prepared.std), 0.5, rtol=SAME_NUMBER)
