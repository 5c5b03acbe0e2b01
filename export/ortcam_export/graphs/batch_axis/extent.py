"""What is known of a tensor: its type, its shape for one and for three images, and its values if it is a shape."""

import dataclasses
from typing import Any, Final

import onnx_ir as ir
from numpy.typing import NDArray

__all__ = ["BATCHES", "MOST_VALUES", "Extent", "Shape", "extent_of_constant", "sides_for_one", "symbolic_shape"]

Shape = tuple[int, ...]

# The batch sizes at which every shape is known.
BATCHES: Final = (1, 3)
# Tensors up to this many elements are computed where all that they depend on is known: shapes, not data.
MOST_VALUES: Final = 4096


@dataclasses.dataclass(frozen=True)
class Extent:
    """What is known of a tensor.

    Attributes:
        dtype: of its elements.
        shapes: at batch size 1 and at batch size 3.
        inner: if a dimension holds the batch and something else: how many neighbouring elements belong to one image,
            such as 3 in [N * 3 heads, T, d] and 1 in [T * N, d].
        values: if it is shape arithmetic: its values at both batch sizes.
    """

    dtype: ir.DataType
    shapes: tuple[Shape, Shape]
    inner: int = 1
    values: tuple[NDArray[Any], NDArray[Any]] | None = None

    @property
    def batch_axis(self) -> int | None:
        """The dimension that grows with the batch, or None."""
        one, three = self.shapes
        if len(one) != len(three):
            return None
        grown = [axis for axis, (a, b) in enumerate(zip(one, three, strict=True)) if a != b]
        return grown[0] if len(grown) == 1 and three[grown[0]] == 3 * one[grown[0]] else None

    @property
    def per_image(self) -> bool:
        """Whether it depends on the batch size at all."""
        return self.shapes[0] != self.shapes[1]


def extent_of_constant(value: ir.Value) -> Extent:
    """Of an initializer."""
    tensor = value.const_value
    assert tensor is not None
    shape = tuple(side for side in tensor.shape if isinstance(side, int))
    values = None
    if tensor.size <= MOST_VALUES:
        array = tensor.numpy()
        values = (array, array)
    return Extent(tensor.dtype, (shape, shape), values=values)


def sides_for_one(value: ir.Value) -> Shape | None:
    """The shape of a traced tensor for one image; None where it is not known."""
    if value.shape is None:
        return None
    sides = []
    for side in value.shape:
        if isinstance(side, int):
            sides.append(side)
        elif (text := str(side)) == "N":
            sides.append(1)
        elif text.endswith("*N"):
            sides.append(int(text.removesuffix("*N")))
        else:
            return None
    return tuple(sides)


def symbolic_shape(extent: Extent) -> ir.Shape:
    """The shape with N for the batch: ["N", 3, 224, 224], or ["16*N", 64] where the batch joined another dimension."""
    sides: list[int | str | None] = []
    for one, three in zip(*extent.shapes, strict=True):
        if one == three:
            sides.append(one)
        else:
            sides.append("N" if one == 1 else f"{one}*N")
    return ir.Shape(sides)
