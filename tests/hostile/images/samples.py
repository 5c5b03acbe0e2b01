"""Arrays and TIFF files of bands that cost far more than their bytes, read by a model that takes so many bands."""

import functools
import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from tests.hostile.images.bomb import BROKEN, MB, SIDE, TOO_LARGE, Bomb, cut_bombs, deflated
from tests.hostile.images.encoders.tiff import PACKBITS, Tag, tiff, tiff_strips, tiff_tags, tiff_tiles

_MEMORY = "may take .* to decode, more than"


def samples_bombs() -> Iterator[Bomb]:
    """Arrays, archives of them, and TIFF files of bands."""
    yield from npy_bombs()
    yield from npz_bombs()
    yield from bands_bombs()
    yield from _with_bands(3, cut_bombs("npy", npy(b"|u1", (9, 9, 3), bytes(243)), range(0, 300, 40)))
    whole = tiff_strips(16, 16, 4, shared=False, samples=5)
    yield from _with_bands(5, cut_bombs("tiff", whole, range(8, len(whole), 60), f"{BROKEN}|not an image"))


def _with_bands(bands: int, bombs: Iterator[Bomb]) -> Iterator[Bomb]:
    for bomb in bombs:
        form = bomb.name.rpartition(".")[2]
        yield Bomb(
            name=f"bands-{bomb.name}", kind=bomb.kind, make=bomb.make, refused=f"{bomb.refused}|empty|cannot be read",
            bands=bands, given=form == "npy",
        )  # fmt: skip


def npy(descr: bytes, shape: tuple[int, ...], body: bytes = b"", *, order: bytes = b"False") -> bytes:
    """A .npy file with any header."""
    header = b"{'descr': '%s', 'fortran_order': %s, 'shape': %s, }\n" % (descr, order, str(shape).encode())
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + body


def npy_bombs() -> Iterator[Bomb]:
    """Shapes that lie, and arrays at the limit."""
    for name, shape, refused in (
        ("1e12-pixels", (10**6, 10**6, 4), TOO_LARGE),
        ("2e62-high", (2**62, 1, 4), "shape of no image"),
        ("1e40-wide", (1, 10**40, 4), "shape of no image"),
        ("a-row-above", (SIDE + 1, SIDE, 4), TOO_LARGE),
        ("no-bytes", (SIDE, SIDE, 4), "may take|truncated"),
        ("a-million-axes", (1,) * 300, "no image|none that NumPy writes"),
        ("side-0", (0, 4, 4), "shape of no image"),
    ):
        make = functools.partial(npy, b"<f8", shape, bytes(8))
        yield Bomb(name=f"npy-{name}.npy", kind="lying shape", make=make, refused=refused, bands=4)
    for name, descr, size in (("uint8", b"|u1", 1), ("uint8-big", b">u1", 1)):
        for first in (False, True):
            shape = (4, SIDE, SIDE) if first else (SIDE, SIDE, 4)
            yield Bomb(
                name=f"npy-5000sq-{name}-{'first' if first else 'last'}.npy",
                kind="just below the limit",
                make=lambda descr=descr, shape=shape, size=size: npy(descr, shape, bytes(size * SIDE * SIDE * 4)),
                shape=(SIDE, SIDE, 4),
                bands=4,
                slow=first or descr != b"|u1",
            )
    yield Bomb(
        name="npy-4400sq-float64.npy",
        kind="just below the limit",
        make=lambda: npy(b"<f8", (4400, 4400), bytes(8 * 4400 * 4400), order=b"True"),
        shape=(4400, 4400, 1),
        bands=1,
        slow=True,
    )
    yield Bomb(
        name="npy-nested-header.npy",
        kind="header that costs",
        make=lambda: b"\x93NUMPY\1\0" + struct.pack("<H", 9000) + b"{'descr': " + b"(" * 8990,
        refused="none that NumPy writes",
        bands=4,
    )
    yield Bomb(
        name="npy-header-of-4-gb.npy",
        kind="header that costs",
        make=lambda: b"\x93NUMPY\2\0" + struct.pack("<I", 2**32 - 1) + b"{" * 100_000,
        refused="header of 4294967295 bytes",
        bands=4,
    )


def _npz(content: bytes, size: int, *, name: bytes = b"image.npy", count: int = 1, checksum: int = 0) -> bytes:
    """An archive of one deflated file, which its directory lists so often."""
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 8, 0, 0, checksum, len(content), size, len(name), 0) + name
    entry = struct.pack(
        "<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 8, 0, 0, checksum, len(content), size, len(name), 0, 0, 0, 0, 0, 0
    )
    listed = (entry + name) * count
    start = len(local) + len(content)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count & 0xFFFF, count & 0xFFFF, len(listed), start, 0)
    return local + content + listed + end


def _zeros(descr: bytes, shape: tuple[int, ...], itemsize: int) -> bytes:
    """An archive with an array of zeros, 1000 times smaller than they are."""
    head = npy(descr, shape)
    count = int(np.prod(shape)) * itemsize
    checksum = zlib.crc32(head)
    for _ in range(count >> 20):
        checksum = zlib.crc32(bytes(1 << 20), checksum)
    checksum = zlib.crc32(bytes(count & (1 << 20) - 1), checksum)
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = squeeze.compress(head) + squeeze.flush(zlib.Z_FULL_FLUSH)
    return _npz(packed + deflated(bytes(1 << 10), count >> 10)[2:-4], len(head) + count, checksum=checksum)


_SMALL: Final = npy(b"|u1", (9, 9, 4))  # without its 324 bytes of numbers


def npz_bombs() -> Iterator[Bomb]:
    """Archives that inflate, lie, or list millions of files."""
    for name, shape, itemsize, refused in (
        ("5000sq-13-bands-float64", (13, 5000, 5000), 8, _MEMORY),
        ("5000sq-13-bands-uint16", (13, 5000, 5000), 2, _MEMORY),
        ("20000sq", (4, 20_000, 20_000), 2, "bands|pixels"),
    ):
        head = npy(b"<f8" if itemsize == 8 else b"<u2", shape)
        squeezed = zlib.compress(head, 9)[2:-4]
        make = functools.partial(_npz, squeezed, len(head) + int(np.prod(shape)) * itemsize)
        yield Bomb(name=f"npz-{name}.npz", kind="decompression bomb", make=make, refused=f"{refused}|4 GB", bands=13)
    yield Bomb(
        name="npz-5000sq-4-bands.npz",
        kind="just below the limit",
        make=lambda: _zeros(b"|u1", (SIDE - 8, SIDE - 8, 4), 1),
        shape=(SIDE - 8, SIDE - 8, 4),
        bands=4,
    )
    yield Bomb(
        name="npz-surplus.npz",
        kind="decompression bomb",
        make=lambda: _npz(
            zlib.compress(npy(b"|u1", (9, 9, 4)) + bytes(10**8), 9)[2:-4], len(npy(b"|u1", (9, 9, 4))) + 324
        ),
        refused="checksum",
        bands=4,
    )
    yield Bomb(
        name="npz-600000-files.npz",
        kind="many files",
        make=lambda: _npz(b"", 0, count=600_000),
        refused="archive of \\d+ files|damaged|arrays",
        memory=90 * MB,
        bands=4,
    )
    yield Bomb(name="npz-100-files.npz", kind="many files", make=_of_100_files, refused="100 arrays", bands=4)


def _of_100_files() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for number in range(100):
            archive.writestr("\n\x1b[31m" * 20 + f"{number}.npy", "")
    return file.getvalue()


def _packbits(size: int) -> bytes:
    """Zeros in runs of 128."""
    runs, rest = divmod(size, 128)
    return b"\x81\0" * runs + (bytes([257 - rest & 255, 0]) if rest > 1 else b"\0\0" * rest)


def _planes(width: int, height: int, planes: int, part: bytes, **options: Any) -> bytes:
    """A TIFF of planes of one strip each."""
    strips = [(8 + index * len(part), len(part)) for index in range(planes)]
    tags = tiff_tags(width, height, strips, samples=planes, photometric=1, **options)
    return tiff(part * planes, [*tags, (284, 3, [2])])


def _tiled_planes(planes: int, side: int) -> bytes:
    """A TIFF of one pixel, each of whose planes is a large tile."""
    part = deflated(bytes(side), side)
    places: list[Tag] = [(324, 4, [8 + index * len(part) for index in range(planes)]), (325, 4, [len(part)] * planes)]
    replaced: list[Tag] = [(273, 4, []), (278, 4, []), (279, 4, []), (322, 4, [side]), (323, 4, [side]), *places]
    tags = tiff_tags(1, 1, [], samples=planes, photometric=1, replaced=replaced)
    return tiff(part * planes, [*tags, (284, 3, [2])])


def bands_bombs() -> Iterator[Bomb]:
    """TIFF files of bands: many, large, in odd parts."""
    for name, make, bands, refused in (
        ("64-bands-5000sq", functools.partial(tiff_strips, SIDE, SIDE, 100, samples=64, shared=False), 64, _MEMORY),
        ("one-strip", functools.partial(tiff_strips, SIDE, SIDE, SIDE, samples=4, bits=16), 4, _MEMORY),
        ("30000sq", functools.partial(tiff_strips, 30_000, 30_000, 30_000, samples=5), 5, TOO_LARGE),
        ("huge-tile", functools.partial(tiff_tiles, 1, 1, (30_000, 30_000), samples=5), 5, f"{TOO_LARGE}|decodes to"),
        (
            "64-planes-of-huge-tiles",
            functools.partial(_tiled_planes, 64, 5000),
            64,
            _MEMORY,
        ),
        ("wrong-bands", functools.partial(tiff_strips, 100, 100, 100, samples=500), 4, "500 bands"),
        ("overlap", functools.partial(tiff_strips, 5000, 5000, 5, samples=4), 4, "overlap"),
        ("bits-64", functools.partial(tiff_strips, 8, 8, 8, samples=4, bits=64), 4, "64 bits"),
        ("packbits-nothing", lambda: _planes(999, 999, 4, b"\x80" * 10**6, compression=PACKBITS), 4, BROKEN),
        ("packbits-short", lambda: _planes(4999, 4999, 4, _packbits(10**6), compression=PACKBITS), 4, BROKEN),
        ("lzw-random", lambda: _planes(4000, 4000, 4, bytes(range(256)) * 1000, compression=5), 4, BROKEN),
    ):
        yield Bomb(
            name=f"bands-{name}.tiff",
            kind="bands",
            make=make,
            refused=refused,
            bands=bands,
            memory=260 * MB if "packbits" in name or "lzw" in name else None,
        )
    yield from large_bands_bombs()


def large_bands_bombs() -> Iterator[Bomb]:
    """TIFF files of bands that are just small enough, in many parts or large ones."""
    for name, make, shape, slow in (
        (
            "5000sq-4-bands-16-bits",
            functools.partial(tiff_strips, SIDE, SIDE, 8, samples=4, bits=16, shared=False),
            (SIDE, SIDE, 4),
            False,
        ),
        ("tiles", functools.partial(tiff_tiles, 4096, 4096, (16, 16), samples=5), (4096, 4096, 5), False),
        (
            "200000-strips",
            functools.partial(tiff_strips, 5, 200_000, 1, samples=4, shared=False),
            (200_000, 5, 4),
            False,
        ),
        (
            "packbits-planes",
            lambda: _planes(4999, 4999, 4, _packbits(4999 * 4999), compression=PACKBITS),
            (4999, 4999, 4),
            True,
        ),
        (
            "one-bit",
            lambda: _planes(SIDE, SIDE, 4, deflated(bytes(SIDE // 8), SIDE), bits=1),
            (SIDE, SIDE, 4),
            True,
        ),
    ):
        yield Bomb(
            name=f"bands-{name}.tiff",
            kind="bands, just below the limit",
            make=make,
            shape=shape,
            bands=shape[2],
            slow=slow,
        )
