"""WebP: chunks, frames, and black VP8L streams."""

import functools
import io
import struct

import numpy as np
from PIL import Image


class _Bits:
    """Numbers of any width, the lowest bit first."""

    def __init__(self) -> None:
        self.number = self.position = 0

    def put(self, value: int, width: int) -> None:
        self.number |= value << self.position
        self.position += width

    def bytes(self) -> bytes:
        return self.number.to_bytes(-(-self.position // 8), "little")


_ONE_SYMBOL = 0b0001, 4  # a code of the symbol 0 alone, which takes no bits


def vp8l(width: int, height: int, *, groups: int = 0, block_bits: int = 4, cache_bits: int = 0) -> bytes:
    """A black lossless picture; with so many groups of Huffman codes, dealt out to blocks of 2**block_bits pixels."""
    write = _Bits()
    for value, size in ((0x2F, 8), (width - 1, 14), (height - 1, 14), (0, 1), (0, 3), (0, 1)):
        write.put(value, size)
    write.put(bool(cache_bits), 1)
    if cache_bits:
        write.put(cache_bits, 4)
    write.put(bool(groups), 1)
    if groups:
        write.put(block_bits - 2, 3)
        write.put(0, 1)  # no colour cache in the picture of groups
        for alphabet in (280, 256):  # green and red: 256 codes of 8 bits
            _eight_bits_each(write, alphabet)
        for _ in range(3):
            write.put(*_ONE_SYMBOL)
        blocks = (
            -(-width >> block_bits) * -(-height >> block_bits)
            if False
            else (-(-width // (1 << block_bits)) * -(-height // (1 << block_bits)))
        )
        numbers = np.arange(blocks) % groups
        raw = numbers.astype("<u2").tobytes()
        write.put(int.from_bytes(raw, "little"), 8 * len(raw))
    codes = 5 * max(1, groups)
    write.put(int("1" * codes, 16), 4 * codes)
    write.put(0, 64)
    return write.bytes()


def _eight_bits_each(write: _Bits, alphabet: int) -> None:
    """A code of 256 symbols of 8 bits; the rest of the alphabet has none."""
    write.put(0, 1)  # not a code of one or two symbols
    write.put(8, 4)  # twelve lengths of the code of lengths follow, in the order of the format: 17, 18, 0, ..., 8
    for index in range(12):
        write.put(index in {2, 11}, 3)
    write.put(0, 1)  # the lengths of the whole alphabet
    write.put((1 << 256) - 1, alphabet)


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    """A WebP file of chunks."""
    body = b"WEBP" + b"".join(
        kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for kind, data in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


def vp8x(width: int, height: int, flags: int = 0) -> tuple[bytes, bytes]:
    """The chunk that gives the canvas."""
    return b"VP8X", struct.pack("<I", flags) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")


def webp_frame(left: int, top: int, width: int, height: int, content: bytes) -> tuple[bytes, bytes]:
    """A frame of an animation."""
    sides = b"".join(value.to_bytes(3, "little") for value in (left // 2, top // 2, width - 1, height - 1))
    return b"ANMF", sides + bytes(4) + content


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a WebP."""
    return kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)


@functools.cache
def lossy_webp(side: int) -> bytes:
    """The VP8 stream of a flat picture."""
    file = io.BytesIO()
    Image.new("RGB", (side, side), (9, 9, 9)).save(file, "WEBP", quality=1, method=0)
    return file.getvalue()[20:]
