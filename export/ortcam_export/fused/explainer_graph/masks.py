"""Masks inside a graph: the maps as the scorer takes them, the order of the channels, and those that are scored."""

import dataclasses

import numpy as np
import onnx_ir as ir

from ortcam.bundle import Cut
from ortcam.methods import Plan
from ortcam.scoring import ZERO_AT_ZERO, bilinear_matrix, extreme_rows
from ortcam_export.graphs.builder import Builder

__all__ = ["Chosen", "Masks", "choose_channels", "prepare_masks", "upsampling", "value_range"]


@dataclasses.dataclass(frozen=True)
class Masks:
    """The maps as the scorer takes them, float32 [C,h,w], and the channels that are not flat by energy, int64 [L]."""

    maps: ir.Value
    order: ir.Value


@dataclasses.dataclass(frozen=True)
class Chosen:
    """The channels to score, int64 [n], their number, int64 [1], and that of their chunks, int64 []."""

    channels: ir.Value
    count: ir.Value
    chunks: ir.Value


def prepare_masks(build: Builder, plan: Plan, cut: Cut, size: tuple[int, int], maps: ir.Value) -> Masks:
    """Build what `ortcam.scoring.prepare_masks` computes."""
    low, high = value_range(build, maps)
    if plan.normalize is None:
        active = None
        if plan.gate == "relu":
            active = build.op("Greater", [_upsampled_range(build, cut, size, maps)[1], build.constant(np.float32(0))])
        elif plan.gate in ZERO_AT_ZERO:
            zero = build.constant(np.float32(0))
            flat = build.op("And", [build.op("Equal", [low, zero]), build.op("Equal", [high, zero])])
            active = build.op("Not", [flat])
        masks = maps
    else:
        active = build.op("Greater", [high, low])
        if plan.normalize == "after-upsampling":
            low, high = _upsampled_range(build, cut, size, maps)
            active = build.op("And", [active, build.op("Greater", [high, low])])
        span = build.op("Where", [active, build.op("Sub", [high, low]), build.constant(np.float32(1))])
        scaled = build.op("Div", [build.op("Sub", [maps, low]), span])
        masks = build.op("Where", [active, scaled, build.constant(np.float32(0))])
    energy = build.op(
        "ReduceSum",
        [build.cast(build.op("Relu", [maps]), ir.DataType.DOUBLE), build.integers(1, 2)],
        {"keepdims": 0},
    )
    channels = build.integers(cut.channels)
    _, order = build.ops("TopK", [energy, channels], {"axis": 0}, outputs=2)
    if active is not None:
        order = build.op("Compress", [order, build.op("Gather", [build.reshape(active, -1), order])], {"axis": 0})
    return Masks(masks, order)


def choose_channels(build: Builder, cut: Cut, budget: float | int | None, chunk: int, masks: Masks) -> Chosen:
    """Choose the channels to score: the first of those that are not flat."""
    channels = masks.order
    if budget is not None:
        active = build.op("Shape", [channels])
        if isinstance(budget, int):
            count = build.integers(min(budget, cut.channels))
        else:
            share = build.op("Mul", [build.cast(active, ir.DataType.DOUBLE), build.constant(np.float64(budget))])
            count = build.cast(build.op("Ceil", [share]), ir.DataType.INT64)
        channels = build.slice(channels, build.integers(0), build.op("Min", [count, active]), 0)
    count = build.op("Shape", [channels])
    chunks = build.op("Div", [build.op("Add", [count, build.integers(chunk - 1)]), build.integers(chunk)])
    return Chosen(channels, count, build.reshape(chunks))


def value_range(build: Builder, maps: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Least and largest value of each map, float32 [C,1,1]."""
    axes = build.integers(1, 2)
    low, high = (build.op(kind, [maps, axes], {"keepdims": 1}) for kind in ("ReduceMin", "ReduceMax"))
    return low, high


def _upsampled_range(build: Builder, cut: Cut, size: tuple[int, int], maps: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Least and largest value of each upsampled map U(A_k), from its corners."""
    height, width = size
    rows = build.constant(extreme_rows(cut.height, height))
    columns = build.constant(np.ascontiguousarray(extreme_rows(cut.width, width).T))
    return value_range(build, build.op("MatMul", [rows, build.op("MatMul", [maps, columns])]))


def upsampling(
    build: Builder, cut: Cut, size: tuple[int, int], dtype: type[np.floating] = np.float32
) -> tuple[ir.Value, ir.Value]:
    """The two matrices of bilinear upsampling, R A C: rows [H,h] and columns [w,W]."""
    rows = build.constant(bilinear_matrix(cut.height, size[0]).astype(dtype))
    columns = build.constant(np.ascontiguousarray(bilinear_matrix(cut.width, size[1]).T).astype(dtype))
    return rows, columns
