"""Operators in float64 that onnx's reference evaluator has in float32, with errors, or as loops in Python."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx.reference.op_run import OpRun

__all__ = ["OPERATORS", "Floats"]

Floats = NDArray[np.float64]


class Conv(OpRun):
    """Convolution, as a product of matrices per group."""

    op_domain = ""

    def _run(self, x: Floats, w: Floats, bias: Floats | None = None, **attributes: Any) -> tuple[Floats]:
        group = attributes.get("group") or 1
        patches, steps = _patches(x, w.shape[2:], attributes, fill=0.0)
        batch, channels = x.shape[:2]
        patches = patches.reshape(batch, group, channels // group * int(np.prod(w.shape[2:])), -1)
        result = w.reshape(group, len(w) // group, -1) @ patches
        result = result.reshape(batch, len(w), *steps)
        return (result if bias is None else result + bias.reshape(-1, *[1] * len(steps)),)


class ConvTranspose(OpRun):
    """Each element puts a kernel down, and what lies on each other is summed."""

    op_domain = ""

    def _run(self, x: Floats, w: Floats, bias: Floats | None = None, **attributes: Any) -> tuple[Floats]:
        rank = x.ndim - 2
        group = attributes.get("group") or 1
        strides = list(attributes.get("strides") or [1] * rank)
        dilations = list(attributes.get("dilations") or [1] * rank)
        more = list(attributes.get("output_padding") or [0] * rank)
        pads = list(attributes.get("pads") or [0] * 2 * rank)
        sides, kernel = x.shape[2:], w.shape[2:]
        whole = [
            (side - 1) * stride + (width - 1) * step + 1 + extra
            for side, stride, width, step, extra in zip(sides, strides, kernel, dilations, more, strict=True)
        ]
        automatic, wanted = attributes.get("auto_pad") or "NOTSET", attributes.get("output_shape")
        if wanted is None and automatic.startswith("SAME"):
            wanted = [side * stride for side, stride in zip(sides, strides, strict=True)]
        if wanted is not None:
            totals = [a - b for a, b in zip(whole, wanted, strict=True)]
            less = [total // 2 for total in totals]
            rest = [total - begin for total, begin in zip(totals, less, strict=True)]
            pads = [*less, *rest] if automatic == "SAME_UPPER" else [*rest, *less]
        inputs, outputs = len(w) // group, w.shape[1]
        result = np.zeros((len(x), group * outputs, *whole))
        for number in range(group):
            taken = slice(number * inputs, (number + 1) * inputs)
            for place in np.ndindex(*kernel):
                part = np.einsum("ni...,io->no...", x[:, taken], w[(taken, slice(None), *place)])
                where = tuple(
                    slice(at * step, at * step + (side - 1) * stride + 1, stride)
                    for at, step, side, stride in zip(place, dilations, sides, strides, strict=True)
                )
                result[(slice(None), slice(number * outputs, (number + 1) * outputs), *where)] += part
        cut = tuple(slice(pads[axis], whole[axis] - pads[axis + rank]) for axis in range(rank))
        result = result[(slice(None), slice(None), *cut)]
        return (result if bias is None else result + bias.reshape(-1, *[1] * rank),)


class MaxPool(OpRun):
    """The greatest of each window and, if it is asked for, its place in the whole tensor: the first of equal ones."""

    op_domain = ""

    def _run(self, x: Floats, **attributes: Any) -> tuple[NDArray[Any], ...]:
        kernel, size = tuple(attributes["kernel_shape"]), math.prod(x.shape[2:])
        patches, steps = _patches(x, kernel, attributes, fill=-np.inf)
        patches = patches.reshape(*x.shape[:2], math.prod(kernel), *steps)
        if len(self.onnx_node.output) < 2:
            return (patches.max(axis=2),)
        numbers, _ = _patches(
            np.arange(size, dtype=np.float64).reshape(1, 1, *x.shape[2:]), kernel, attributes, fill=-1
        )
        numbers = np.broadcast_to(numbers.reshape(1, 1, *patches.shape[2:]), patches.shape)
        chosen = patches.argmax(axis=2, keepdims=True)
        inside = np.take_along_axis(numbers, chosen, axis=2)[:, :, 0]
        starts = size * np.arange(math.prod(x.shape[:2])).reshape(*x.shape[:2], *[1] * len(steps))
        return np.take_along_axis(patches, chosen, axis=2)[:, :, 0], (inside + starts).astype(np.int64)


class AveragePool(OpRun):
    """The mean of each window."""

    op_domain = ""

    def _run(self, x: Floats, **attributes: Any) -> tuple[Floats]:
        kernel = tuple(attributes["kernel_shape"])
        patches, steps = _patches(x, kernel, attributes, fill=0.0)
        included = attributes.get("count_include_pad") or 0
        ones, _ = _patches(np.ones((1, 1, *x.shape[2:])), kernel, attributes, fill=float(included), beyond=0.0)
        shape = -1, int(np.prod(kernel)), *steps
        sums = patches.reshape(*x.shape[:2], *shape[1:]).sum(axis=2)
        return (sums / ones.reshape(1, *shape).sum(axis=2),)


class LRN(OpRun):
    """Divided by the power of a sum over neighbouring channels; that of the evaluator leaves channels out."""

    op_domain = ""

    def _run(
        self,
        x: Floats,
        alpha: float | None = None,
        beta: float | None = None,
        bias: float | None = None,
        size: int | None = None,
    ) -> tuple[Floats]:
        assert size is not None
        before, after = (size - 1) // 2, size // 2
        rest = [(0, 0)] * (x.ndim - 2)
        squares = np.pad(x * x, [(0, 0), (before, after), *rest])
        sums = np.lib.stride_tricks.sliding_window_view(squares, size, axis=1).sum(axis=-1)
        share = (1e-4 if alpha is None else alpha) / size
        return (x / ((1.0 if bias is None else bias) + share * sums) ** (0.75 if beta is None else beta),)


class Pad(OpRun):
    """Padding; that of the evaluator has no negative ones, which cut off."""

    op_domain = ""

    def _run(
        self,
        x: Floats,
        pads: NDArray[np.int64],
        constant: Floats | None = None,
        axes: NDArray[np.int64] | None = None,
        mode: str | None = None,
    ) -> tuple[Floats]:
        chosen = [*range(x.ndim)] if axes is None else [int(axis) % x.ndim for axis in axes]
        widths = [(0, 0)] * x.ndim
        for index, axis in enumerate(chosen):
            widths[axis] = int(pads[index]), int(pads[index + len(chosen)])
        x = x[tuple(slice(max(-a, 0), side - max(-b, 0)) for (a, b), side in zip(widths, x.shape, strict=True))]
        grown = [(max(a, 0), max(b, 0)) for a, b in widths]
        if mode in (None, "constant"):
            filling = 0 if constant is None else float(np.asarray(constant).reshape(-1)[0])
            return (np.pad(x, grown, constant_values=filling),)
        return (np.pad(x, grown, mode=mode),)  # type: ignore[call-overload]


class Erf(OpRun):
    """The error function; that of the evaluator is in float32."""

    op_domain = ""

    def _run(self, x: Floats) -> tuple[Floats]:
        return (_erf(x),)


class Gelu(OpRun):
    """x times the normal distribution function."""

    op_domain = ""

    def _run(self, x: Floats, approximate: str | None = None) -> tuple[Floats]:
        if approximate == "tanh":
            return (x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),)
        return (x / 2 * (1 + _erf(x / np.sqrt(2))),)


# ONNX Runtime's optimiser writes it in this domain.
_OwnGelu = type("Gelu", (Gelu,), {"op_domain": "com.microsoft"})


class BiasGelu(OpRun):
    """Gelu of a sum; ONNX Runtime's."""

    op_domain = "com.microsoft"

    def _run(self, x: Floats, bias: Floats) -> tuple[Floats]:
        return ((x + bias) / 2 * (1 + _erf((x + bias) / np.sqrt(2))),)


class FastGelu(OpRun):
    """Gelu by a hyperbolic tangent, of a sum if there is a bias; ONNX Runtime's."""

    op_domain = "com.microsoft"

    def _run(self, x: Floats, bias: Floats | None = None) -> tuple[Floats]:
        x = x if bias is None else x + bias
        return (x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),)


class QuickGelu(OpRun):
    """Gelu by a sigmoid; ONNX Runtime's."""

    op_domain = "com.microsoft"

    def _run(self, x: Floats, alpha: float | None = None) -> tuple[Floats]:
        return (x / (1 + np.exp(-(1.702 if alpha is None else alpha) * x)),)


class GatherElements(OpRun):
    """Elements along an axis; that of the evaluator takes at most 64."""

    op_domain = ""

    def _run(self, x: NDArray[Any], indices: NDArray[np.integer[Any]], axis: int | None = None) -> tuple[NDArray[Any]]:
        along = (axis or 0) % x.ndim
        kept = tuple(slice(None) if index == along else slice(side) for index, side in enumerate(indices.shape))
        return (np.take_along_axis(x[kept], indices, axis=along),)


class SimplifiedLayerNormalization(OpRun):
    """Divided by the root mean square; ONNX Runtime has it in ONNX's domain."""

    op_domain = ""

    def _run(
        self, x: Floats, scale: Floats, axis: int | None = None, epsilon: float | None = None, **_: Any
    ) -> tuple[Floats]:
        first = (-1 if axis is None else axis) % x.ndim
        square = (x * x).mean(axis=tuple(range(first, x.ndim)), keepdims=True)
        return (x / np.sqrt(square + (1e-5 if epsilon is None else epsilon)) * scale,)


class GroupNormalization(OpRun):
    """Each group of channels by its own mean and deviation; the evaluator mixes float32 into it."""

    op_domain = ""

    def _run(
        self,
        x: Floats,
        scale: Floats,
        bias: Floats,
        epsilon: float | None = None,
        num_groups: int | None = None,
        **_: Any,
    ) -> tuple[Floats]:
        assert num_groups is not None
        groups = x.reshape(len(x), num_groups, -1)
        groups = groups - groups.mean(axis=2, keepdims=True)
        variance = (groups * groups).mean(axis=2, keepdims=True)
        normal = (groups / np.sqrt(variance + (1e-5 if epsilon is None else epsilon))).reshape(x.shape)
        times = x.shape[1] // len(scale)  # before opset 21 one per group
        scale, bias = (np.repeat(item, times).reshape(-1, *[1] * (x.ndim - 2)) for item in (scale, bias))
        return (normal * scale + bias,)


class LpNormalization(OpRun):
    """Divided by its norm; that of the evaluator sums signed numbers."""

    op_domain = ""

    def _run(self, x: Floats, axis: int | None = None, p: int | None = None) -> tuple[Floats]:
        order = 2 if p is None else p
        return (x / (np.abs(x) ** order).sum(axis=-1 if axis is None else axis, keepdims=True) ** (1 / order),)


_erf = np.vectorize(math.erf, otypes=[np.float64])

OPERATORS: Final[tuple[type[OpRun], ...]] = (
    *(Conv, ConvTranspose, MaxPool, AveragePool, LRN, Pad),
    *(Erf, Gelu, _OwnGelu, BiasGelu, FastGelu, QuickGelu, GatherElements),
    *(SimplifiedLayerNormalization, GroupNormalization, LpNormalization),
)


def _patches(
    x: Floats, kernel: Sequence[int], attributes: Mapping[str, Any], *, fill: float, beyond: float | None = None
) -> tuple[Floats, tuple[int, ...]]:
    """What lies under a window at each of its places: [N, C, *kernel, *steps], and the number of steps.

    Args:
        x: [N,C,...].
        kernel: sides of the window.
        attributes: strides, dilations, pads, auto_pad and ceil_mode of the operator.
        fill: what the padding holds.
        beyond: what lies beyond the padding, where a last window sticks out; the same unless given.
    """
    rank = len(kernel)
    strides = list(attributes.get("strides") or [1] * rank)
    dilations = list(attributes.get("dilations") or [1] * rank)
    pads = list(attributes.get("pads") or [0] * 2 * rank)
    automatic, ceil = attributes.get("auto_pad") or "NOTSET", attributes.get("ceil_mode") or 0
    steps, further = [], []
    for axis, side in enumerate(x.shape[2:]):
        span = (kernel[axis] - 1) * dilations[axis] + 1
        if automatic.startswith("SAME"):
            count = -(-side // strides[axis])
            total = max((count - 1) * strides[axis] + span - side, 0)
            less, more = total // 2, total - total // 2
            pads[axis], pads[axis + rank] = (less, more) if automatic == "SAME_UPPER" else (more, less)
        elif automatic == "VALID":
            pads[axis] = pads[axis + rank] = 0
        padded = side + pads[axis] + pads[axis + rank]
        count = (padded - span) // strides[axis] + 1
        if ceil and (padded - span) % strides[axis] and count * strides[axis] < side + pads[axis]:
            count += 1  # a last window that begins within the input
        steps.append(count)
        further.append(max((count - 1) * strides[axis] + span - padded, 0))
    widths = [(0, 0), (0, 0), *((pads[axis], pads[axis + rank]) for axis in range(rank))]
    x = np.pad(x, widths, constant_values=fill)
    x = np.pad(
        x, [(0, 0), (0, 0), *((0, more) for more in further)], constant_values=fill if beyond is None else beyond
    )
    spans = [(side - 1) * step + 1 for side, step in zip(kernel, dilations, strict=True)]
    views = np.lib.stride_tricks.sliding_window_view(x, spans, axis=tuple(range(2, 2 + rank)))
    chosen = (
        *(slice(0, (count - 1) * stride + 1, stride) for count, stride in zip(steps, strides, strict=True)),
        *(slice(None, None, step) for step in dilations),
    )
    views = views[(slice(None), slice(None), *chosen)]
    order = [0, 1, *range(2 + rank, 2 + 2 * rank), *range(2, 2 + rank)]
    return np.ascontiguousarray(views.transpose(order)), tuple(steps)
