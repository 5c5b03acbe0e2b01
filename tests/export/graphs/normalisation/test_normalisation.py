"""However a classifier writes its normalisation, its bundle has one preprocessing, and masks hide to one colour."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto
from tests.export.graphs.fronts import FRONTS, MEAN, SAME_MAP, SAME_NUMBER, STD, Front, column, maps, sub_div, written
from tests.export.zoo.graphs import (
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

import ortcam
from ortcam.bundle import Bundle
from ortcam_export import export, inspect_model


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The classifier whose normalisation is the preprocessing's."""
    folder = tmp_path_factory.mktemp("outside")
    return export(plain(folder), folder / "b.ortcam", **InputForm().arguments(), labels=list(LABELS))


@pytest.mark.slow
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


@pytest.mark.slow
def test_an_order_and_a_normalisation_that_are_taken_leave_nothing_in_the_graph(tmp_path: Path) -> None:
    import onnx

    for name in ("channels_exchanged_by_gather", "a_channel_at_a_time", "as_keras_prepares_for_caffe", "mean_image"):
        file = written(tmp_path / name, *FRONTS[name])
        bundle = export(file.path, tmp_path / f"{name}.ortcam", **file.arguments)
        assert bundle.manifest.preprocessing.channel_order == "rgb"
        assert tuple(bundle.manifest.preprocessing.mean) == pytest.approx(tuple(MEAN), rel=SAME_NUMBER)
        first = onnx.load(bundle.file("features.onnx"), load_external_data=False).graph.node[0]
        assert (first.op_type, first.input[0]) == ("Conv", "image"), name


def resized(g: GraphBuilder, x: str) -> str:
    sizes = g.constant(np.array([1.0, 1.0, 0.5, 0.5]), np.float32)
    return g.op("Resize", x, "", sizes, mode="linear", coordinate_transformation_mode="half_pixel")


def cropped(g: GraphBuilder, x: str) -> str:
    bounds = (g.constant(np.array(values, np.int64)) for values in ((4, 4), (HEIGHT - 4, WIDTH - 4), (2, 3)))
    return g.op("Slice", x, *bounds)


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_black_frame_stays_black_in_front_of_the_normalisation(tmp_path: Path) -> None:
    def framed(g: GraphBuilder, x: str) -> str:
        return sub_div(g, g.op("Pad", x, g.constant(np.array([0, 0, 4, 4, 0, 0, 4, 4]))))

    file = written(tmp_path / "framed", framed, "rgb")
    bundle = export(file.path, tmp_path / "b.ortcam", **file.arguments)
    np.testing.assert_allclose(bundle.manifest.preprocessing.mean, MEAN, rtol=SAME_NUMBER)
    predicted = ortcam.load(bundle.path).predict(file.pictures(1)[0])
    np.testing.assert_allclose(predicted, file.probabilities(file.pictures(1))[0], atol=1e-4)


@pytest.mark.slow
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


@pytest.mark.slow
def test_an_image_that_is_turned_negative_hides_to_its_mean_colour(tmp_path: Path) -> None:
    def negative(g: GraphBuilder, x: str) -> str:
        return sub_div(g, g.op("Sub", g.constant(255.0), x))

    file = written(tmp_path / "negative", negative, "rgb")
    bundle = export(file.path, tmp_path / "b.ortcam", **file.arguments)
    np.testing.assert_allclose(bundle.manifest.preprocessing.mean, 255 - MEAN, rtol=SAME_NUMBER)
    np.testing.assert_allclose(bundle.manifest.preprocessing.std, STD, rtol=SAME_NUMBER)
    predicted = ortcam.load(bundle.path).predict(file.pictures(1)[0])
    np.testing.assert_allclose(predicted, file.probabilities(file.pictures(1))[0], atol=1e-4)


@pytest.mark.slow
def test_channels_in_an_order_that_no_preprocessing_has_are_normalised_all_the_same(tmp_path: Path) -> None:
    def turned(g: GraphBuilder, x: str) -> str:
        return sub_div(g, g.op("Gather", x, g.constant([1, 2, 0]), axis=1))

    file = written(tmp_path / "turned", turned, "rgb")
    bundle = export(file.path, tmp_path / "b.ortcam", **file.arguments)
    np.testing.assert_allclose(bundle.manifest.preprocessing.mean, MEAN[[2, 0, 1]], rtol=SAME_NUMBER)
    predicted = ortcam.load(bundle.path).predict(file.pictures(1)[0])
    np.testing.assert_allclose(predicted, file.probabilities(file.pictures(1))[0], atol=1e-4)


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_an_exchange_of_channels_that_is_taken_is_said(tmp_path: Path) -> None:
    file = written(tmp_path / "net", *FRONTS["channels_exchanged_by_gather"])
    said: list[str] = []
    export(file.path, tmp_path / "b.ortcam", **file.arguments, report=said.append)
    assert any("exchange of the channels" in line and line.endswith("take rgb") for line in said)


@pytest.mark.slow
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
