"""Noise inside a graph: the same numbers that `ortcam.scoring.noise` draws, from the same counters and hashes."""

from typing import Final

import numpy as np
import onnx_ir as ir

from ortcam.methods import Noise
from ortcam.scoring import FACTORS, SHIFTS, UNIFORM_BITS, noise_key
from ortcam_export.graphs.builder import Builder

__all__ = ["draw_noise", "hash_counters"]

_WORD: Final = 0xFFFFFFFF


def hash_counters(build: Builder, noise: Noise, shape: tuple[int, int, int]) -> ir.Value:
    """mix(2i) and mix(2i + 1) of `ortcam.scoring.noise`, int64 [values,2]."""
    channels, height, width = shape
    values = height * width * (1 if noise.on == "activation" else channels)
    ends = (build.constant(np.int64(number)) for number in (0, 2 * values, 1))
    return build.reshape(_mix(build, build.op("Range", [*ends])), values, 2)


def draw_noise(
    build: Builder, noise: Noise, sample: ir.Value, hashes: ir.Value, image: ir.Value, shape: tuple[int, int, int]
) -> ir.Value:
    """What is added to the masked images of a sample, before sigma: as `ortcam.scoring.noise.draw_noise`."""
    channels, height, width = shape
    keys = build.constant(np.array([noise_key(noise.seed, sample) for sample in range(noise.samples)], np.int64))
    words = _mix(build, build.op("BitwiseXor", [hashes, build.op("Gather", [keys, sample])]))
    parts = build.op("Div", [words, build.constant(np.int64(1 << (32 - UNIFORM_BITS)))])
    middles = build.op("Add", [build.cast(parts, ir.DataType.FLOAT), build.constant(np.float32(0.5))])
    uniform = build.op("Mul", [middles, build.constant(np.float32(2.0**-UNIFORM_BITS))])
    first, second = build.ops("Split", [uniform], {"axis": 1, "num_outputs": 2}, outputs=2)
    radius = build.op("Sqrt", [build.op("Mul", [build.op("Log", [first]), build.constant(np.float32(-2))])])
    angle = build.op("Cos", [build.op("Mul", [second, build.constant(np.float32(2 * np.pi))])])
    drawn = build.op("Mul", [radius, angle])
    if noise.on == "activation":
        return build.op("Mul", [build.reshape(drawn, 1, 1, height, width), image])
    return build.reshape(drawn, 1, channels, height, width)


def _mix(build: Builder, words: ir.Value) -> ir.Value:
    """The hash of `scoring.noise` in int64. Factors from 2^31 on are taken less 2^32: so no product overflows."""
    for shift, factor in zip(SHIFTS, (*FACTORS, None), strict=True):
        shifted = build.op("Div", [words, build.constant(np.int64(1 << shift))])
        words = build.op("BitwiseXor", [words, shifted])
        if factor is not None:
            signed = factor if factor < 1 << 31 else factor - (1 << 32)
            product = build.op("Mul", [words, build.constant(np.int64(signed))])
            words = build.op("BitwiseAnd", [product, build.constant(np.int64(_WORD))])
    return words
