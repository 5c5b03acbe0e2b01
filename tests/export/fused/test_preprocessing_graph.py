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


def session_of(preprocessing: Preprocessing) -> ort.InferenceSession:
    build = Builder()
    picture = ir.Value(name="picture", shape=ir.Shape(("h", "w", 3)), type=ir.TensorType(ir.DataType.UINT8))
    out = build_preprocessing(build, picture, preprocessing)
    out.type, out.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape((1, 3, preprocessing.height, preprocessing.width))
    graph = ir.Graph(
        [picture], [out], nodes=build.take_nodes(), initializers=build.initializers, opset_imports={"": 18}
    )
    return ort.InferenceSession(ir.to_proto(ir.Model(graph, ir_version=10)).SerializeToString())


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
