"""Fronts that mix the channels, and what is no normalisation."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto
from tests.export.graphs.fronts import MEAN, SAME_NUMBER, STD, Front, column, sub_div, written
from tests.export.zoo.graphs import (
    FLOAT,
    GraphBuilder,
    classes_info,
    image_info,
)

import ortcam
from ortcam_export import export
from ortcam_export.graphs.dataflow import data_nodes
from ortcam_export.graphs.normalisation.operators import until_first_layer

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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_grey_image_without_a_mean_hides_to_black_and_says_so(tmp_path: Path) -> None:
    def scaled(g: GraphBuilder, x: str) -> str:
        return three_times(g, g.op("Conv", x, g.constant(LUMA.reshape(1, 3, 1, 1) / 255)))

    file = written(tmp_path / "grey", scaled, "rgb")
    said: list[str] = []
    bundle = export(file.path, tmp_path / "b.ortcam", **file.arguments, report=said.append)
    assert bundle.manifest.preprocessing.mean == (0, 0, 0)
    assert any("masks hide to black" in line for line in said)


@pytest.mark.slow
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
    values = list(until_first_layer(model.graph.inputs[0], data_nodes(model.graph), 3))
    assert [value.producer().op_type if value.producer() else None for value in values] == [None, "Sub", "Div"]


def gamma(g: GraphBuilder, x: str) -> str:
    return g.op("Pow", g.op("Div", x, g.constant(255.0)), g.constant(2.2))


def standardised(g: GraphBuilder, x: str) -> str:
    centred = g.op("Sub", x, g.op("ReduceMean", x, axes=[2, 3]))
    return g.op("Div", centred, g.op("Sqrt", g.op("ReduceMean", g.op("Mul", centred, centred), axes=[2, 3])))


def mixed(g: GraphBuilder, x: str) -> str:
    """A convolution from three channels to three that was learned."""
    return g.op("Relu", g.conv(g.op("Div", x, g.constant(255.0)), 3, 3))


@pytest.mark.slow
@pytest.mark.parametrize("writing", [gamma, standardised, mixed])
def test_what_is_not_affine_in_a_pixel_stays_in_the_graph_and_black_is_said(writing: Front, tmp_path: Path) -> None:
    file = written(tmp_path / "net", writing, "rgb")
    said: list[str] = []
    bundle = export(file.path, tmp_path / "b.ortcam", **file.arguments, report=said.append)
    assert bundle.manifest.preprocessing.mean == (0, 0, 0)
    assert any("masks hide to black" in line for line in said)
    predicted = ortcam.load(bundle.path).predict(file.pictures(1)[0])
    np.testing.assert_allclose(predicted, file.probabilities(file.pictures(1))[0], atol=1e-4)


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_normalisation_twice_is_said(tmp_path: Path) -> None:
    file = written(tmp_path / "net", sub_div, "rgb")
    said: list[str] = []
    twice = {"mean": tuple(MEAN), "std": tuple(STD)}
    bundle = export(file.path, tmp_path / "b.ortcam", **file.arguments | twice, report=said.append)
    np.testing.assert_allclose(bundle.manifest.preprocessing.mean, MEAN + STD * MEAN, rtol=1e-5)
    assert any("is normalised already: together" in line for line in said)
