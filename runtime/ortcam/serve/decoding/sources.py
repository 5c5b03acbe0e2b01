"""What a request may give as an image: encoded bytes, pixels or samples, or a model input."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Encoded", "Pixels", "Preprocessed", "Source"]


@dataclass(frozen=True)
class Encoded:
    """The bytes of an image file, or of an array's (.npy), as they came.

    Attributes:
        content: of the file. Its first bytes tell the format.
        name: of the image, as messages have it, say "instances[2]". None: "image of 1234 bytes".
    """

    content: bytes
    name: str | None = None


@dataclass(frozen=True, eq=False)
class Pixels:
    """Pixels or samples that need no decoder.

    Attributes:
        array: uint8 [h,w,3], RGB, upright; or, for a model that needs samples, what `read_samples` takes.
        name: of the image, as messages have it; None: they call it by its type and shape.
    """

    array: NDArray[Any]
    name: str | None = None


@dataclass(frozen=True, eq=False)
class Preprocessed:
    """A model input that the client has made itself.

    Attributes:
        array: float32 [1,C,H,W], of the model's size.
    """

    array: NDArray[np.float32]


Source = Encoded | Pixels | Preprocessed
