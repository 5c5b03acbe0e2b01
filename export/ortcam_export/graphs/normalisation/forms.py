"""Forms: tensors as functions of the image, y = a x + b per pixel or per colour, read off from responses."""

import dataclasses
from typing import Final, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

__all__ = ["BENT", "EXACT", "Form", "Layout", "Order", "as_channels", "follows", "order_of", "pixel_form", "unordered"]

Layout = Literal["nchw", "nhwc"]
# Which channel of the image each channel of a tensor is.
Order = tuple[int, ...]

# Float32 sums of a few terms: their rounding, relative to the largest of them, and some room.
EXACT: Final = 2.0**-18
# How far a step of 8-bit integers, or a few of them, may bend a line, relative to the way from black to white.
BENT: Final = 2.0**-6


@dataclasses.dataclass(frozen=True)
class Form:
    """A tensor as a function of the image: channel j of it is gain[j] * x[order[j]] + offset[j].

    Attributes:
        value: the tensor.
        layout: of its dimensions.
        order: which channel of the image each of its channels is.
        gain: float64 [C,H,W], or [C,1,1] where only colours are known.
        offset: the same.
    """

    value: ir.Value
    layout: Layout
    order: Order
    gain: NDArray[np.float64]
    offset: NDArray[np.float64]

    @property
    def mean_gain(self) -> NDArray[np.float64]:
        """float64 [C], of the channels of the image."""
        return unordered(np.abs(self.gain).mean(axis=(1, 2)), self.order)

    @property
    def zero(self) -> NDArray[np.float64]:
        """The colour of the image that becomes 0: float64 [C], of the channels of the image."""
        return unordered((-self.offset / self.gain).mean(axis=(1, 2)), self.order)

    @property
    def trivial(self) -> bool:
        """Whether it is the image itself, its channels in any order."""
        return bool(np.abs(self.gain - 1).max() <= EXACT and np.abs(self.offset).max() <= EXACT)


def pixel_form(value: ir.Value, layout: Layout, slopes: NDArray[np.float64], zero: NDArray[np.float64]) -> Form | None:
    """A form from slopes [C of the tensor, C of the image, H, W] and the response [C,H,W] to zeros."""
    order = order_of(np.abs(slopes).max(axis=(2, 3)), EXACT)
    if order is None:
        return None
    gain = slopes[range(len(order)), order]
    if np.abs(gain).min() <= EXACT * np.abs(gain).max():
        return None
    constant = (gain.mean(axis=(1, 2), keepdims=True), zero.mean(axis=(1, 2), keepdims=True))
    if np.ptp(gain, axis=(1, 2)).max() <= EXACT * np.abs(gain).max():
        gain = np.broadcast_to(constant[0], gain.shape)
    if np.ptp(zero, axis=(1, 2)).max() <= EXACT * np.abs(zero).max():
        zero = np.broadcast_to(constant[1], zero.shape)
    return Form(value, layout, order, gain, zero)


def follows(form: Form, image: NDArray[np.float32], response: NDArray[np.float64]) -> bool:
    """Whether a tensor is what its form says, for another image."""
    expected = form.gain * image[list(form.order)].astype(np.float64) + form.offset
    largest = max(float(np.abs(form.gain).max() * np.abs(image).max()), float(np.abs(form.offset).max()))
    return bool(np.abs(response - expected).max() <= EXACT * largest)


def order_of(weights: NDArray[np.float64], tolerance: float) -> Order | None:
    """Which channel of the image each channel depends on, by |slopes| [C,C]. None if it is not exactly one each."""
    if not np.isfinite(weights).all():
        return None
    order = tuple(int(index) for index in weights.argmax(axis=1))
    each = range(len(order))
    rest = weights.copy()
    rest[each, order] = 0
    if sorted(order) != list(each) or (rest > tolerance * weights.max()).any() or not weights[each, order].all():
        return None
    return order


def as_channels(
    responses: list[NDArray[np.float64]], channels: int, size: tuple[int, int] | None
) -> tuple[Layout, list[NDArray[np.float64]]] | None:
    """Responses as [C,H,W], with the layout they have. None for other shapes or another size."""
    shape = responses[0].shape
    if len(shape) != 4 or shape[0] != 1:
        return None
    if shape[1] == channels and size in (None, shape[2:]):
        return "nchw", [response[0] for response in responses]
    if shape[3] == channels and size in (None, shape[1:3]):
        return "nhwc", [response[0].transpose(2, 0, 1) for response in responses]
    return None


def unordered(values: NDArray[np.float64], order: Order) -> NDArray[np.float64]:
    """Values of a tensor's channels as those of the image's."""
    result = np.empty(len(order))
    result[list(order)] = values
    return result
