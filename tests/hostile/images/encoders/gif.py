"""GIF: frames, and LZW of zeros."""

import struct
from collections.abc import Sequence

from tests.hostile.images.bomb import LIMIT


def lzw_of_zeros(count: int, *, end: bool = True) -> bytes:
    """GIF's codes of 8 bits for zeros: each code stands for one zero more than the one before."""
    codes: list[tuple[int, int]] = []
    left, following = count, 4096

    def add(code: int) -> None:
        codes.append((code, min(12, max(9, following.bit_length()))))

    while left:
        length = following - 256
        if following == 4096:  # the table is full
            codes += [(256, 12 if codes else 9), (0, 9)]
            left, following = left - 1, 258
            continue
        add(following if left >= length else 256 + left if left > 1 else 0)
        left, following = max(0, left - length), following + 1
    if end:
        add(257)
    text = "".join(format(code, f"0{width}b") for code, width in reversed(codes))
    return int(text, 2).to_bytes(-(-len(text) // 8), "little")


def gif_blocks(data: bytes, size: int = 255) -> bytes:
    """Data in blocks, and the empty one."""
    return (
        b"".join(bytes([len(part)]) + part for part in (data[at : at + size] for at in range(0, len(data), size)))
        + b"\0"
    )


def gif_frame(
    width: int, height: int, *, left: int = 0, top: int = 0, flags: int = 0, data: bytes | None = None, block: int = 255
) -> bytes:
    """A frame of zeros."""
    blocks = gif_blocks(lzw_of_zeros(min(width * height, LIMIT)) if data is None else data, block)
    return b"\x2c" + struct.pack("<HHHHB", left, top, width, height, flags) + b"\x08" + blocks


def gif(width: int, height: int, parts: Sequence[bytes]) -> bytes:
    """A screen with a palette of two, and its blocks."""
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6) + b"".join(parts) + b"\x3b"
