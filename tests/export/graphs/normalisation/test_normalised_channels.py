"""Graphs of any number of channels: a normalisation at their start is taken, and masks hide to what was said."""

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from tests.conftest import TINY_BUNDLE

from ortcam.images.preprocessing import Preprocessing
from ortcam_export.graphs.dataflow import TO_NHWC
from ortcam_export.graphs.normalisation import take_normalisation
from ortcam_export.graphs.running import quiet_session
from ortcam_export.sources.converted import probe_images

SIDE = 8
# Float32 sums of a few hundred terms of the size of the largest.
ROUNDING = 1e-5


def given(channels: int) -> Preprocessing:
    order: Any = {1: "grey", 3: "rgb"}.get(channels, "bands")
    return Preprocessing(SIDE, SIDE, None, (0.0,) * channels, (1.0,) * channels, channel_order=order)


def mean_and_std(channels: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return np.linspace(0.3, 0.6, channels, dtype=np.float32), np.linspace(0.2, 0.4, channels, dtype=np.float32)


def normalising(channels: int, layout: str) -> ir.Model:
    """An image less its mean, over its std; a convolution with five outputs, and its average."""
    graph: list[ir.Node] = []
    constants: list[ir.Value] = []

    def constant(array: NDArray[Any]) -> ir.Value:
        value = ir.Value(name=f"c{len(constants)}", const_value=ir.tensor(array), shape=ir.Shape(array.shape))
        value.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
        constants.append(value)
        return value

    def op(kind: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        node = ir.node(kind, list(inputs), attributes, name=f"n{len(graph)}")
        node.outputs[0].name = f"v{len(graph)}"
        graph.append(node)
        return node.outputs[0]

    sides = (channels, SIDE, SIDE) if layout == "nchw" else (SIDE, SIDE, channels)
    image = ir.Value(name="x", shape=ir.Shape(("N", *sides)), type=ir.TensorType(ir.DataType.FLOAT))
    across = (1, -1, 1, 1) if layout == "nchw" else (1, 1, 1, -1)
    mean, std = (values.reshape(across) for values in mean_and_std(channels))
    x = op("Div", op("Sub", image, constant(mean)), constant(std))
    if layout == "nhwc":
        x = op("Transpose", x, perm=[0, 3, 1, 2])
    weights = np.random.default_rng(0).normal(size=(5, channels, 3, 3)).astype(np.float32)
    x = op("Flatten", op("GlobalAveragePool", op("Relu", op("Conv", x, constant(weights)))))
    x.name, x.type, x.shape = "logits", ir.TensorType(ir.DataType.FLOAT), ir.Shape(("N", 5))
    made = ir.Graph([image], [x], nodes=graph, initializers=constants, opset_imports={"": 18}, name="net")
    return ir.Model(made, ir_version=9)


def logits(model: ir.Model, images: NDArray[np.float32], layout: str = "nchw") -> NDArray[np.float32]:
    fed = images if layout == "nchw" else np.ascontiguousarray(images.transpose(TO_NHWC))
    found: NDArray[np.float32] = quiet_session(model).run(None, {model.graph.inputs[0].name: fed})[0]
    return found


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("channels", [1, 2, 4, 13])
def test_the_normalisation_of_any_number_of_channels_becomes_preprocessing(channels: int, layout: Any) -> None:
    before, model = given(channels), normalising(channels, layout)
    levels = probe_images(SIDE, SIDE, channels)
    assert levels.shape == (2, SIDE, SIDE, channels)
    original = np.concatenate([before.of_levels(picture) for picture in levels])
    expected = logits(model, original, layout)
    taken = take_normalisation(model, layout, before)
    mean, std = mean_and_std(channels)
    np.testing.assert_allclose(taken.preprocessing.mean, mean, atol=2**-22)
    np.testing.assert_allclose(taken.preprocessing.std, std, rtol=2**-20)
    assert (taken.operators, taken.dropped) == ("Sub, Div", True)
    assert list(model.graph.inputs[0].shape or ()) == ["N", channels, SIDE, SIDE]
    images = np.concatenate([taken.preprocessing.of_levels(picture) for picture in levels])
    np.testing.assert_allclose(logits(model, images), expected, atol=ROUNDING * np.abs(expected).max())


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("baseline", ["zero", 0.25, "each"])
def test_masks_hide_to_the_value_that_is_said(channels: int, baseline: Any) -> None:
    """An input of 0 is an image of this value, and all other images give what they gave."""
    values = {"zero": [0.0] * channels, "each": list(np.linspace(0.1, 0.9, channels))}.get(baseline, [0.25] * channels)
    before, model = given(channels), normalising(channels, "nchw")
    levels = probe_images(SIDE, SIDE, channels)
    expected = logits(model, np.concatenate([before.of_levels(picture) for picture in levels]))
    hidden = logits(model, np.tile(np.float32(values)[None, :, None, None], (1, 1, SIDE, SIDE)))
    said = baseline if baseline == "zero" else values
    taken = take_normalisation(model, "nchw", before, said)
    assert taken.preprocessing.mean == tuple(values)
    assert taken.normalised is not None
    assert taken.normalised.std == taken.preprocessing.std
    room = ROUNDING * np.abs(expected).max()
    images = np.concatenate([taken.preprocessing.of_levels(picture) for picture in levels])
    np.testing.assert_allclose(logits(model, images), expected, atol=room)
    nothing = np.zeros((1, channels, SIDE, SIDE), np.float32)
    np.testing.assert_allclose(logits(model, nothing), hidden, atol=room)


def test_the_mean_is_what_masks_hide_to_where_nothing_else_is_said() -> None:
    first, second = (take_normalisation(normalising(2, "nchw"), "nchw", given(2), said) for said in (None, "mean"))
    assert first == second
    assert first.normalised is None


def test_of_many_channels_the_graph_stays_whole() -> None:
    """Beyond 16 channels the front is not run: the image is the input, and masks hide to what was given."""
    model, before = normalising(17, "nchw"), given(17)
    taken = take_normalisation(model, "nchw", before)
    assert taken.preprocessing == before
    assert [node.op_type for node in model.graph][:2] == ["Sub", "Div"]


def test_probes_of_three_channels_are_what_they_were() -> None:
    """They are in bundles that exist."""
    np.testing.assert_array_equal(probe_images(32, 48), np.load(TINY_BUNDLE / "probe.npy"))
