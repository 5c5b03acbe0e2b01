"""Images as numbers: arrays that a program holds, and those in .npy and .npz files."""

from ortcam.images.arrays.pixels import (
    ACCEPTED_ARRAYS,
    BLOCK,
    ArrayLike,
    PillowImage,
    as_array,
    described,
    float_to_rgb,
    is_array,
    is_pillow,
    layout,
    pillow_pixels,
    row_blocks,
    uint8_to_rgb,
)

__all__ = [
    "ACCEPTED_ARRAYS",
    "BLOCK",
    "ArrayLike",
    "PillowImage",
    "as_array",
    "described",
    "float_to_rgb",
    "is_array",
    "is_pillow",
    "layout",
    "pillow_pixels",
    "row_blocks",
    "uint8_to_rgb",
]
