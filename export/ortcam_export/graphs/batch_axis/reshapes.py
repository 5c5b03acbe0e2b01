"""Where the batch goes in a reshape that was recorded for one image."""

import math

from ortcam_export.graphs.batch_axis.extent import Shape

__all__ = ["batch_axis_after_reshape"]


def batch_axis_after_reshape(before: Shape, axis: int, inner: int, after: Shape) -> tuple[int, int] | None:
    """Where the batch goes in a reshape that was recorded for one image.

    The elements of one image that lie together, `inner` times what lies behind `axis`, are a stride in the flat order;
    the batch goes to the dimension of `after` where that stride falls. Where it falls between two dimensions, the batch
    joins the one before if the dimensions behind stay as they are or only one, the features, is left behind; else it
    leads the one behind, as in [T, N, heads * d] -> [T, N * heads, d].

    Args:
        before: shape of the input for one image.
        axis: of `before` with the batch.
        inner: see `Extent`.
        after: shape of the output for one image.

    Returns:
        The axis of `after` that holds the batch, and its `inner`; None where the batch does not fit in.
    """
    behind = (*((inner,) if inner > 1 else ()), *before[axis + 1 :])
    stride = math.prod(behind)
    strides = [math.prod(after[index + 1 :]) for index in range(len(after))]
    free = [index for index, side in enumerate(after) if side == 1 and strides[index] == stride]
    if free:
        return (axis if axis in free else free[0]), 1
    for index, (side, step) in enumerate(zip(after, strides, strict=True)):
        if step < stride < step * side and stride % step == 0 and (step * side) % stride == 0:
            return index, stride // step
    left = [index for index, (side, step) in enumerate(zip(after, strides, strict=True)) if step == stride and side > 1]
    right = [index for index, (side, step) in enumerate(zip(after, strides, strict=True)) if step * side == stride]
    right = [index for index in right if after[index] > 1]
    if left and right:
        kept = tuple(side for side in after[right[0] :] if side > 1) == tuple(side for side in behind if side > 1)
        if kept or right[0] == len(after) - 1:
            return left[-1], 1
    if right:
        return right[0], after[right[0]]
    return (left[-1], 1) if left else None
