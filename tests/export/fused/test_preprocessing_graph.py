"""Preprocessing inside a graph: the same values as in numpy, bit for bit, for every option and size of picture."""

import dataclasses

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from ortcam.images.preprocessing import Preprocessing
from ortcam_export.fused.explainer_graph import build_preprocessing
from ortcam_export.graphs.builder import Builder

PLAIN = Preprocessing(56, 48, 64, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
OPTIONS = {
    "as torchvision": {},
    "bicubic": {"interpolation": "bicubic"},
    "straight to size": {"resize": None},
    "squashed": {"keep_aspect": False},
    "torch without antialiasing": {"antialias": False},
    "torch without antialiasing, bicubic": {"antialias": False, "interpolation": "bicubic"},
    "bytes, blue first": {
        "channel_order": "bgr",
        "scale": 255.0,
        "mean": (104.0, 117.0, 123.0),
        "std": (1.0, 2.0, 3.0),
    },
    "padded": {"resize": 41},
    "padded by an odd number": {"resize": 51},
    "padded, rounded down": {"resize": 41, "crop_rounding": "down"},
    "cropped at a half": {"resize": 67},
    "cropped at another half": {"resize": 69},
    "cropped, rounded down": {"resize": 67, "crop_rounding": "down"},
    "grey": {"channel_order": "grey", "mean": (0.1307,), "std": (0.3081,)},
    "OpenCV's grey, bicubic": {
        "channel_order": "grey-opencv",
        "mean": (0.1307,),
        "std": (0.3081,),
        "interpolation": "bicubic",
    },
    "grey, torch without antialiasing": {"channel_order": "grey", "mean": (0.5,), "std": (0.2,), "antialias": False},
}
FOUR = {"channel_order": "bands", "mean": (0.1, 0.2, 0.3, 0.4), "std": (0.5, 1.0, 2.0, 3.0)}
SAMPLES = {
    "bands": FOUR | {"value_range": (-1024.0, 3000.0)},
    "bands, bicubic, padded": FOUR | {"value_range": (0.0, 1.0), "interpolation": "bicubic", "resize": 41},
    "bands, torch without antialiasing": FOUR | {"value_range": (0.0, 10000.0), "antialias": False, "resize": None},
    "grey of a depth of its own": {
        "channel_order": "grey",
        "mean": (0.5,),
        "std": (1 / 2048,),
        "value_range": (0.0, 65535.0),
        "scale": 3.0,
    },
    "blue first, at a depth of its own": {"channel_order": "bgr", "value_range": (0.0, 4095.0), "resize": 51},
}
SIZES = (
    (120, 160),
    (300, 225),
    (25, 20),
    (56, 48),
    (501, 76),
    (76, 501),
    (64, 85),
    (5, 9),
    (1, 1),
    (176, 177),
    (40, 300),
)


def model_of(preprocessing: Preprocessing) -> ir.Model:
    build, channels = Builder(), preprocessing.channels
    kind, bands = (ir.DataType.FLOAT, channels) if preprocessing.needs_samples else (ir.DataType.UINT8, 3)
    picture = ir.Value(name="picture", shape=ir.Shape(("h", "w", bands)), type=ir.TensorType(kind))
    out = build_preprocessing(build, picture, preprocessing)
    out.type = ir.TensorType(ir.DataType.FLOAT)
    out.shape = ir.Shape((1, channels, preprocessing.height, preprocessing.width))
    graph = ir.Graph(
        [picture], [out], nodes=build.take_nodes(), initializers=build.initializers, opset_imports={"": 18}
    )
    return ir.Model(graph, ir_version=10)


def session_of(preprocessing: Preprocessing) -> ort.InferenceSession:
    return ort.InferenceSession(ir.to_proto(model_of(preprocessing)).SerializeToString())


@pytest.mark.parametrize("options", [*OPTIONS.values(), *SAMPLES.values()], ids=[*OPTIONS, *SAMPLES])
def test_no_product_is_of_what_was_just_transposed(options: dict[str, object]) -> None:
    """ONNX Runtime 1.24 makes one FusedMatMul of the two, also in float64, for which it has no kernel."""
    graph = model_of(dataclasses.replace(PLAIN, **options)).graph
    producers = [value.producer() for node in graph if node.op_type == "MatMul" for value in node.inputs]
    assert {node.op_type for node in producers if node is not None} & {"Transpose"} == set()


@pytest.mark.slow
@pytest.mark.whole
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_it_is_the_preprocessing_in_numpy_bit_for_bit(options: dict[str, object]) -> None:
    preprocessing = dataclasses.replace(PLAIN, **options)
    session = session_of(preprocessing)
    generator = np.random.default_rng(0)
    for size in SIZES:
        for picture in (
            generator.integers(0, 256, (*size, 3), dtype=np.uint8),
            255 * generator.integers(0, 2, (*size, 3), dtype=np.uint8),  # where bicubic goes beyond white and black
        ):
            (values,) = session.run(None, {"picture": picture})
            np.testing.assert_array_equal(values, preprocessing(picture), err_msg=str(size))


@pytest.mark.sample(every=2)
@pytest.mark.whole
@pytest.mark.parametrize("options", SAMPLES.values(), ids=SAMPLES)
def test_samples_become_what_numpy_makes_of_them(options: dict[str, object]) -> None:
    preprocessing = dataclasses.replace(PLAIN, **options)
    session = session_of(preprocessing)
    generator = np.random.default_rng(0)
    assert preprocessing.value_range is not None
    low, high = preprocessing.value_range
    for size in SIZES:
        shape = (*size, preprocessing.channels)
        samples = generator.uniform(low - 0.1 * (high - low), high, shape).astype(np.float32)
        (values,) = session.run(None, {"picture": samples})
        expected = preprocessing(samples)
        # The sums are float64 and may be made in another order: their last bit may round to the neighbour in float32.
        largest = np.abs(expected).max() + np.abs(np.array(preprocessing.mean) / preprocessing.std).max()
        np.testing.assert_allclose(values, expected, rtol=0, atol=4 * 2**-24 * largest, err_msg=str(size))
