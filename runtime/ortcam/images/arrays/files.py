"""Array files, .npy and .npz, as images: known by their first bytes, read within the bounds of all images."""

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from ortcam.images.arrays.bands import memory_of_samples
from ortcam.images.arrays.npy import LONGEST_HEADER, MAGIC, NpyHeader, npy_header, values_of
from ortcam.images.arrays.npz import is_npz, read_npz
from ortcam.images.limits import SPARE, check_memory, check_pixels

__all__ = ["is_array_file", "read_array_file"]


def is_array_file(head: bytes) -> bool:
    """Whether a file that begins so is a .npy file, or an archive as `np.savez` writes it."""
    return head.startswith(MAGIC) or is_npz(head)


def read_array_file(
    data: bytes, name: str, max_pixels: int, check_shape: Callable[[tuple[int, ...], str], tuple[int, int]]
) -> tuple[NDArray[Any], str]:
    """The array of a file.

    Args:
        data: of a file for which `is_array_file` holds.
        name: of it, for messages.
        max_pixels: as of `read_image`.
        check_shape: gives the height and width of an image of this shape, or raises an `ImageError` that begins with
            the name that it is given. It is called before anything is inflated.

    Returns:
        The array, which may be a view of `data`, and its name with type and shape, for messages.

    Raises:
        ImageError: truncated, damaged, of a type that no image has, too large; or as `check_shape` does.
    """
    said = name

    def check(header: NpyHeader, named: str) -> None:
        nonlocal said
        said = f"{named} ({header.dtype.newbyteorder('=').name} {list(header.shape)})"
        height, width = check_shape(header.shape, said)
        inflated = 0 if data.startswith(MAGIC) else header.size
        check_pixels(height, width, said, max_pixels)
        check_memory(SPARE + len(data) + inflated + memory_of_samples(header.dtype, header.shape), said, max_pixels)

    if not data.startswith(MAGIC):
        return read_npz(data, name, check)[0], said
    header = npy_header(data[:LONGEST_HEADER], name)
    check(header, name)
    return values_of(data, header, name), said
