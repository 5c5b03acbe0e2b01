"""Rules of convolutions. A weight keeps its layout where the backward pass is a transposed convolution."""

import dataclasses

import onnx_ir as ir

from ortcam_export.graphs.gradient.backward import Backward
from ortcam_export.graphs.gradient.rules.registry import rule

__all__ = ["Window", "window_of"]

Results = list[ir.Value | None]


@dataclasses.dataclass(frozen=True)
class Window:
    """How a window slides: one number per spatial dimension.

    Attributes:
        kernel: its sides.
        strides: steps.
        dilations: steps within it.
        begins: padding in front.
        ends: padding behind, without what `ceil_mode` adds.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]

    @property
    def spans(self) -> tuple[int, ...]:
        """Its sides with the dilation."""
        return tuple((side - 1) * step + 1 for side, step in zip(self.kernel, self.dilations, strict=True))


def window_of(node: ir.Node, kernel: tuple[int, ...], before: tuple[int, ...], after: tuple[int, ...]) -> Window:
    """The window of a convolution or a pool, its automatic padding worked out.

    Args:
        node: with the usual attributes.
        kernel: its sides.
        before: spatial sides of what it slides over.
        after: how many steps it takes.
    """
    rank = len(kernel)
    strides = tuple(int(item) for item in node.attributes.get_ints("strides", [1] * rank))
    dilations = tuple(int(item) for item in node.attributes.get_ints("dilations", [1] * rank))
    pads = [int(item) for item in node.attributes.get_ints("pads", [0] * 2 * rank)]
    automatic = node.attributes.get_string("auto_pad", "NOTSET")
    begins, ends = tuple(pads[:rank]), tuple(pads[rank:])
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        spans = [(side - 1) * step + 1 for side, step in zip(kernel, dilations, strict=True)]
        totals = [
            max((steps - 1) * stride + span - side, 0)
            for steps, stride, span, side in zip(after, strides, spans, before, strict=True)
        ]
        less, more = tuple(total // 2 for total in totals), tuple(total - total // 2 for total in totals)
        begins, ends = (less, more) if automatic == "SAME_UPPER" else (more, less)
    elif automatic == "VALID":
        begins = ends = (0,) * rank
    return Window(kernel, strides, dilations, begins, ends)


@rule("Conv")
def _conv(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    value, weight = node.inputs[0], node.inputs[1]
    _check_weights(b, node)
    group = node.attributes.get_int("group", 1)
    before, after, shape = b.shape(value)[2:], b.shape(node.outputs[0])[2:], b.shape(weight)
    window = window_of(node, shape[2:], before, after)
    if all(stride == 1 for stride in window.strides):  # faster in ONNX Runtime than its transposed convolution
        begins = [span - 1 - pad for span, pad in zip(window.spans, window.begins, strict=True)]
        ends = [
            side - steps + span - 1 - begin
            for side, steps, span, begin in zip(before, after, window.spans, begins, strict=True)
        ]
        if min(begins) >= 0 and min(ends) >= 0:
            kernel = _turned_kernel(b, weight, group)
            return [b.op("Conv", [g, kernel], dilations=[*window.dilations], group=group, pads=[*begins, *ends])]
    rest = [
        side - ((steps - 1) * stride + span - begin - end)
        for side, steps, stride, span, begin, end in zip(
            before, after, window.strides, window.spans, window.begins, window.ends, strict=True
        )
    ]
    ends = [end - max(-extra, 0) for end, extra in zip(window.ends, rest, strict=True)]
    return [
        b.op(
            "ConvTranspose",
            [g, b.primal(weight)],
            strides=[*window.strides],
            dilations=[*window.dilations],
            group=group,
            pads=[*window.begins, *ends],
            output_padding=[max(extra, 0) for extra in rest],
        )
    ]


def _turned_kernel(b: Backward, weight: ir.Value | None, group: int) -> ir.Value:
    """The weight [M,C/g,...] of the convolution that goes back: [C,M/g,...], reversed along its spatial axes."""
    assert weight is not None
    key = ("turned kernel", weight, group)
    found = b.recall(key)
    if found is not None:
        return found
    outputs, inputs, *sides = b.shape(weight)
    reversed_axes = [axis for axis, side in enumerate(sides, 2) if side > 1]
    result = b.primal(weight)
    if reversed_axes:
        back = [b.build.integers(*[number] * len(reversed_axes)) for number in (-1, -(2**31))]
        result = b.op("Slice", [result, *back, b.build.integers(*reversed_axes), back[0]])
    if group == 1:
        return b.remember(key, b.op("Transpose", [result], perm=[1, 0, *range(2, 2 + len(sides))]))
    result = b.build.reshape(result, group, outputs // group, inputs, *sides)
    result = b.op("Transpose", [result], perm=[0, 2, 1, *range(3, 3 + len(sides))])
    return b.remember(key, b.build.reshape(result, group * inputs, outputs // group, *sides))


@rule("ConvTranspose")
def _conv_transpose(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    value, weight = node.inputs[0], node.inputs[1]
    _check_weights(b, node)
    steps, sides, kernel = b.shape(value)[2:], b.shape(node.outputs[0])[2:], b.shape(weight)[2:]
    rank = len(kernel)
    strides = [int(item) for item in node.attributes.get_ints("strides", [1] * rank)]
    dilations = [int(item) for item in node.attributes.get_ints("dilations", [1] * rank)]
    more = [int(item) for item in node.attributes.get_ints("output_padding", [0] * rank)]
    spans = [(side - 1) * step + 1 for side, step in zip(kernel, dilations, strict=True)]
    begins = [int(item) for item in node.attributes.get_ints("pads", [0] * 2 * rank)][:rank]
    automatic = node.attributes.get_string("auto_pad", "NOTSET")
    # What is cut off on both sides of (steps - 1) * stride + span + output_padding.
    totals = [
        (count - 1) * stride + span + extra - side
        for count, stride, span, extra, side in zip(steps, strides, spans, more, sides, strict=True)
    ]
    if automatic == "SAME_UPPER" or ("output_shape" in node.attributes and automatic != "SAME_LOWER"):
        begins = [total // 2 if automatic == "SAME_UPPER" else total - total // 2 for total in totals]
    elif automatic == "SAME_LOWER":
        begins = [total - total // 2 for total in totals]
    elif automatic == "VALID":
        begins = [0] * rank
    ends = [
        (count - 1) * stride + span - begin - side
        for count, stride, span, begin, side in zip(steps, strides, spans, begins, sides, strict=True)
    ]
    if min(begins) < 0 or min(ends) < 0:
        low, high = [max(-begin, 0) for begin in begins], [max(-end, 0) for end in ends]
        axes = [*range(2, 2 + rank)]
        length = [b.build.integers(*items) for items in (low, [s - h for s, h in zip(sides, high, strict=True)], axes)]
        g = b.op("Slice", [g, *length])
        begins, ends = [max(begin, 0) for begin in begins], [max(end, 0) for end in ends]
    group = node.attributes.get_int("group", 1)
    pads = [*begins, *ends]
    return [b.op("Conv", [g, b.primal(weight)], strides=strides, dilations=dilations, group=group, pads=pads)]


def _check_weights(b: Backward, node: ir.Node) -> None:
    if any(b.wants(value) for value in node.inputs[1:]):
        raise b.refusal("has weights that depend on the input")
