"""Decodes and encodes for the stand-in for SkiaSharp: standard input to standard output.

python images.py decode     an image -> "WIDTH HEIGHT ORIENTATION", a line's end, RGBA; nothing where it is no image
python images.py encode     "WIDTH HEIGHT", a line's end, grey levels -> PNG
"""

import io
import sys

import cv2
import numpy as np
from PIL import Image

_ORIENTATION = 0x0112  # of EXIF


def decode(content: bytes) -> bytes:
    """The pixels as stored; no pixels where the file is cut."""
    try:
        opened = Image.open(io.BytesIO(content))
    except OSError:
        return b""
    orientation = opened.getexif().get(_ORIENTATION, 1)
    orientation = orientation if orientation in range(1, 9) else 1  # as Skia does
    header = f"{opened.width} {opened.height} {orientation}\n".encode()
    try:
        opened.load()
    except OSError:
        return header
    how = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), how)
    return header + cv2.cvtColor(pixels, cv2.COLOR_BGR2RGBA).tobytes()


def encode(content: bytes) -> bytes:
    """A grey PNG."""
    header, levels = content.split(b"\n", 1)
    width, height = map(int, header.split())
    return cv2.imencode(".png", np.frombuffer(levels, np.uint8).reshape(height, width))[1].tobytes()


if __name__ == "__main__":
    work = {"decode": decode, "encode": encode}[sys.argv[1]]
    sys.stdout.buffer.write(work(sys.stdin.buffer.read()))
