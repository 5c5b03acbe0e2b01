"""Make a graph begin behind its own normalisation, or behind the inverse of it."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ortcam.images.preprocessing import PLANES, Preprocessing
from ortcam_export.graphs.builder import add_constant
from ortcam_export.graphs.dataflow import TO_NHWC
from ortcam_export.graphs.normalisation.forms import EXACT, Form, Order, unordered
from ortcam_export.graphs.normalisation.front import Front
from ortcam_export.graphs.normalisation.operators import describe_operators

__all__ = ["Taken", "begin_at", "hide_to", "put_inverse"]

# A mean that is closer to a short number than float32 can tell pixels apart, relative to white, is taken for it.
_SHORT: Final = 2.0**-22
# Of one whole number: far above float32's error, and far below what a mask is worth. White in steps is a float16, too.
_STEPS: Final = 128
_EXCHANGED: Final[Order] = (2, 1, 0)


@dataclasses.dataclass(frozen=True)
class Taken:
    """What `take_normalisation` did.

    Attributes:
        preprocessing: from a photograph to the graph's new input.
        operators: of the normalisation, in words; "" where the graph has none.
        dropped: whether these operators are gone; they stay where their inverse was put in front of them.
        notes: what a user should know beyond that, a sentence each.
        normalised: the same preprocessing with the mean that was found, where masks hide to something else.
    """

    preprocessing: Preprocessing
    operators: str = ""
    dropped: bool = True
    notes: tuple[str, ...] = ()
    normalised: Preprocessing | None = None


def begin_at(front: Front, frontier: list[Form]) -> Taken:
    """Make the graph begin at these tensors, and drop the operators in front of them."""
    first = frontier[0]
    preprocessing = front.given if first.trivial else _preprocessing_to(front, first)
    base = front.straight
    if not first.trivial and first.order == _EXCHANGED and preprocessing.channel_order in PLANES:
        base = _EXCHANGED
        preprocessing = _reversed(preprocessing)
    words = describe_operators([form.value for form in frontier], front.data)
    image = _new_image(front)
    build = _FrontBuilder(front.graph, image)
    taken = {form.value for form in frontier}
    for form in reversed(frontier):
        new = _residual(build, front, form, preprocessing, base)
        if form.layout == "nhwc":
            new = build.channels_last(new)
        for user, index in list(form.value.uses()):
            user.replace_input_with(index, new)
        if form.value.is_graph_output():
            form.value.replace_all_uses_with(new, replace_graph_outputs=True)
    if front.image not in taken and list(front.image.uses()):
        # Only shapes are read of what is left, if anything.
        front.image.replace_all_uses_with(build.channels_last(image) if front.layout == "nhwc" else image)
    build.insert_in_front()
    return Taken(preprocessing, "" if first.trivial else words)


def put_inverse(front: Front, form: Form) -> Taken:
    """Put the inverse of a normalisation in front of the graph, which stays as it is."""
    preprocessing = _preprocessing_to(front, form)
    mean, std = (np.asarray(getattr(preprocessing, name)) for name in ("mean", "std"))
    gain = std / np.asarray(front.given.std)
    offset = (mean - np.asarray(front.given.mean)) / np.asarray(front.given.std)
    words = describe_operators([form.value], front.data)
    image = _new_image(front)
    build = _FrontBuilder(front.graph, image)
    values = build.op("Add", [build.op("Mul", [image, build.channels(gain)]), build.channels(offset)])
    if front.whole_numbers:  # float32's error would decide ties of what the graph rounds
        steps = build.op("Round", [build.op("Mul", [values, build.constant(np.float32(_STEPS))])])
        values = build.op("Mul", [steps, build.constant(np.float32(1 / _STEPS))])
    if front.layout == "nhwc":
        values = build.channels_last(values)
    front.image.replace_all_uses_with(values)
    build.insert_in_front()
    return Taken(preprocessing, words, dropped=False)


def hide_to(graph: ir.Graph, taken: Taken, values: Sequence[float] | NDArray[np.float64]) -> Taken:
    """Make masks hide to these values of pixels and not to the mean: they become 0 of the graph's input.

    Args:
        graph: whose input is the image, NCHW; changed in place, so that its outputs stay what they are.
        taken: how the image is made.
        values: one per channel, in units of the mean.
    """
    mean, std = np.asarray(taken.preprocessing.mean), np.asarray(taken.preprocessing.std)
    former = graph.inputs[0]
    image = _input_like(former, taken.preprocessing, "image_normalised")
    build = _FrontBuilder(graph, image)
    offset = build.channels((np.asarray(values) - mean) / std)
    former.replace_all_uses_with(build.op("Add", [image, offset]))
    build.insert_in_front()
    moved = dataclasses.replace(taken.preprocessing, mean=tuple(map(float, values)))
    return dataclasses.replace(taken, preprocessing=moved, normalised=taken.preprocessing)


def _new_image(front: Front) -> ir.Value:
    """The graph's new input, under the name that the old one gives up."""
    return _input_like(front.image, front.given, f"{front.image.name}_file")


def _input_like(former: ir.Value, given: Preprocessing, renamed: str) -> ir.Value:
    """A new input, under the name that the former one gives up for another."""
    former.name = renamed
    return ir.Value(
        name="image",
        shape=ir.Shape(("N", given.channels, given.height, given.width)),
        type=ir.TensorType(ir.DataType.FLOAT),
    )


def _preprocessing_to(front: Front, form: Form) -> Preprocessing:
    """The preprocessing to a tensor, up to the sign and the order of its channels."""
    given_mean, given_std = np.asarray(front.given.mean), np.asarray(front.given.std)
    mean = given_mean + given_std * form.zero
    std = given_std / form.mean_gain
    return dataclasses.replace(
        front.given,
        mean=tuple(_shortened(float(value), _SHORT * front.given.scale) for value in mean),
        std=tuple(_shortened(float(value), _SHORT * float(value)) for value in std),
    )


def _residual(build: "_FrontBuilder", front: Front, form: Form, preprocessing: Preprocessing, base: Order) -> ir.Value:
    """A tensor, NCHW, made of the new image: the channels in its order, and what is left of its gain and offset."""
    mean, std = (
        unordered(np.asarray(getattr(preprocessing, name)), base)[list(form.order)] for name in ("mean", "std")
    )
    given_mean, given_std = (np.asarray(getattr(front.given, name))[list(form.order)] for name in ("mean", "std"))
    gain = form.gain * (std / given_std)[:, None, None]
    offset = form.gain * ((mean - given_mean) / given_std)[:, None, None] + form.offset
    new = build.image
    indices = [base.index(channel) for channel in form.order]
    if indices != list(front.straight):
        new = build.op("Gather", [new, build.constant(np.array(indices, np.int64))], {"axis": 1})
    if np.abs(gain - 1).max() > EXACT:
        new = build.op("Mul", [new, build.channels(gain)])
    reach = np.abs(form.gain).max() * max(np.abs(front.white).max(), np.abs(front.black).max())
    if np.abs(offset).max() > EXACT * max(reach, float(np.abs(form.offset).max())):
        new = build.op("Add", [new, build.channels(offset)])
    return new


class _FrontBuilder:
    """Makes nodes to be put in front of a graph, behind a new input.

    Args:
        graph: whose input is replaced.
        image: the new input, [N,C,H,W].

    Attributes:
        image: the same.
    """

    def __init__(self, graph: ir.Graph, image: ir.Value) -> None:
        self.image = image
        self._graph = graph
        self._nodes: list[ir.Node] = []
        self._image_channels_last: ir.Value | None = None

    def op(self, op_type: str, inputs: Sequence[ir.Value], attributes: dict[str, Any] | None = None) -> ir.Value:
        """Add a node; returns its output."""
        name = f"ortcam/front_{op_type.lower()}_{len(self._nodes)}"
        node = ir.node(op_type, list(inputs), attributes, name=name)
        node.outputs[0].name = name
        node.outputs[0].dtype = ir.DataType.FLOAT
        self._nodes.append(node)
        return node.outputs[0]

    def channels_last(self, value: ir.Value) -> ir.Value:
        """Transpose [N,C,H,W] to [N,H,W,C]. The image is transposed once."""
        if value is not self.image:
            return self.op("Transpose", [value], {"perm": TO_NHWC})
        if self._image_channels_last is None:
            self._image_channels_last = self.op("Transpose", [value], {"perm": TO_NHWC})
        return self._image_channels_last

    def constant(self, numbers: NDArray[Any] | np.generic) -> ir.Value:
        """Add an initializer."""
        return add_constant(self._graph, numbers, "ortcam/front_constant")

    def channels(self, values: NDArray[np.float64]) -> ir.Value:
        """Add a constant [1,C,1,1] of one value per channel [C], or of [C,H,W], smaller where all pixels agree."""
        values = values.reshape(-1, 1, 1) if values.ndim == 1 else values
        if values.shape[1:] != (1, 1) and np.ptp(values, axis=(1, 2)).max() <= EXACT * np.abs(values).max():
            values = values.mean(axis=(1, 2), keepdims=True)
        return self.constant(values[None].astype(np.float32))

    def insert_in_front(self) -> None:
        """Put the nodes in front of all others, and the new input in the place of the old."""
        first = next(iter(self._graph), None)
        if first is None:
            self._graph.extend(self._nodes)
        else:
            self._graph.insert_before(first, self._nodes)
        self._graph.inputs[:] = [self.image]


def _reversed(preprocessing: Preprocessing) -> Preprocessing:
    """The same colours with the channels in the other order."""
    order: Literal["rgb", "bgr"] = "bgr" if preprocessing.channel_order == "rgb" else "rgb"
    assert PLANES[order] == PLANES[preprocessing.channel_order][::-1]
    return dataclasses.replace(
        preprocessing,
        mean=preprocessing.mean[::-1],
        std=preprocessing.std[::-1],
        channel_order=order,
    )


def _shortened(value: float, tolerance: float) -> float:
    """The number with the fewest digits within a tolerance: what its author wrote before float32 rounded it."""
    for digits in range(1, 16):
        short = float(f"{value:.{digits}g}")
        if abs(short - value) <= tolerance:
            return short
    return value
