"""From a decoded picture to the model's input inside an ONNX graph: what `ortcam.preprocessing` does, bit for bit.

Pillow's fixed-point weights are computed from the picture's size as a matrix of the model's input by the picture, and the
two convolutions are products of integers: the weights of 22 bits in three digits of base 256, since MatMulInteger takes
bytes and sums them exactly. What lies outside the picture has weight zero, which is the padding.
"""

from typing import Final

import numpy as np
import onnx_ir as ir

from ortcam.preprocessing import PLANES, PRECISION, SUPPORT, Preprocessing
from ortcam_export.building import Builder

__all__ = ["build_preprocessing"]

_DOUBLE, _FLOAT, _INT64, _UINT8 = ir.DataType.DOUBLE, ir.DataType.FLOAT, ir.DataType.INT64, ir.DataType.UINT8
_MARGIN: Final = 2  # taps beyond the edge that torch's bicubic without antialiasing has


def build_preprocessing(build: Builder, picture: ir.Value, preprocessing: Preprocessing) -> ir.Value:
    """Resize, crop and normalise a picture uint8 [h,w,3], RGB: float32 [1,3,H,W]."""
    return _Preprocessing(build, preprocessing).build(picture)
