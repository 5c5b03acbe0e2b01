"""What a request may give as an image: encoded bytes, pixels, or a model input."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Encoded", "Pixels", "Preprocessed", "Source"]


@dataclass(frozen=True)
class Encoded:
    """The bytes of an image file, as they came.

    Attributes:
        content: of the file. Its first bytes tell the format.
        name: of the image, as messages have it, say "instances[2]". None: "image of 1234 bytes".
    """

    content: bytes
    name: str | None = None


@dataclass(frozen=True, eq=False)
class Pixels:
    """Pixels that need no decoder.

    Attributes:
        array: uint8 [h,w,3], RGB, upright.
    """

    array: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Preprocessed:
    """A model input that the client has made itself.

    Attributes:
        array: float32 [1,3,H,W], of the model's size.
    """

    array: NDArray[np.float32]


Source = Encoded | Pixels | Preprocessed
