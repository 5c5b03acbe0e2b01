"""Pictures that cost far more than their bytes, made by code: `python -m tests.hostile.images FOLDER` writes all.

The encoders write only what the bombs need, mostly constant pictures, and can therefore lie anywhere.
"""

from pathlib import Path
from typing import Final

import cv2
import numpy as np
from PIL import features
from tests.hostile.images.avif import avif_bombs
from tests.hostile.images.bmp import bmp_bombs
from tests.hostile.images.bomb import LIMIT, MB, Bomb
from tests.hostile.images.encoders import gif as gif_encoder
from tests.hostile.images.encoders.avif import AvifItem, avif_file, flat_av1
from tests.hostile.images.gif import gif_bombs
from tests.hostile.images.jpeg import jpeg_bombs
from tests.hostile.images.others import refused_bombs
from tests.hostile.images.png import png_bombs
from tests.hostile.images.pnm import pnm_bombs
from tests.hostile.images.samples import samples_bombs
from tests.hostile.images.tiff import tiff_bombs
from tests.hostile.images.webp import webp_bombs

__all__ = ["BOMBS", "LIMIT", "MB", "Bomb", "made", "plain_images", "write"]


def plain_images() -> list[bytes]:
    """A small picture of each format, for what the first one of each loads."""
    pixels = np.full((64, 64, 3), 90, np.uint8)
    encoded = [cv2.imencode(f".{kind}", pixels)[1].tobytes() for kind in ("png", "jpg", "webp", "bmp", "tiff", "ppm")]
    encoded += [cv2.imencode(".png", pixels.astype(np.uint16))[1].tobytes()]
    encoded += [gif_encoder.gif(64, 64, [gif_encoder.gif_frame(64, 64)])]
    return [*encoded, avif_file([AvifItem(flat_av1(64, 64))])] if _ENCODES_AVIF else encoded


_FORMATS: Final = (
    png_bombs,
    jpeg_bombs,
    gif_bombs,
    bmp_bombs,
    tiff_bombs,
    webp_bombs,
    avif_bombs,
    pnm_bombs,
    refused_bombs,
    samples_bombs,
)
# Old versions of OpenCV and Pillow know nothing of AVIF.
_ENCODES_AVIF: Final = cv2.haveImageWriter(".avif") and features.check("avif")
BOMBS: Final = tuple(bomb for bombs in _FORMATS if _ENCODES_AVIF or bombs is not avif_bombs for bomb in bombs())


def made(name: str) -> bytes:
    """The bytes of the bomb of that name."""
    return next(bomb for bomb in BOMBS if bomb.name == name).make()


def write(bomb: Bomb, folder: Path) -> Path:
    """Write the file of a bomb; the zeros behind it take no room on the disk."""
    path = folder / bomb.name
    with path.open("wb") as file:
        file.write(bomb.make())
        if bomb.tail:
            file.truncate(file.tell() + bomb.tail)
    return path
