"""TIFF files of bands are read sample by sample as they were written, by GDAL, tifffile and Pillow; damage is told."""

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image
from tests.common.images import tiff
from tests.runtime.images.formats import gdal_files as given

from ortcam.errors import ImageError
from ortcam.images.formats.header import DamagedError, RefusedError
from ortcam.images.formats.tiff import bands
from ortcam.images.formats.tiff.bands import check_bands, check_nodata, decode_bands, read_bands
from ortcam.images.formats.tiff.bands_header import read_bands_header, walk_bands
from ortcam.images.formats.tiff.parts import decompressed, parts_at_once


def read(data):
    header = walk_bands(data)
    return read_bands(data, header, header.dtype.newbyteorder("="))


def written(array, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, array, metadata=None, **options)
    return file.getvalue()


def samples(dtype, shape, seed=0):
    """Numbers that use all bytes of their type."""
    random = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return random.normal(0, 1000, shape).astype(dtype)
    return random.integers(0, 256, (*shape, np.dtype(dtype).itemsize), np.uint8).view(dtype)[..., 0]


def same(found, wanted):
    return found.dtype == wanted.dtype and found.shape == wanted.shape and found.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("name", [name for name in given.FILES if "zstd" not in name])
def test_a_file_of_gdal_holds_what_was_given_to_it(name):
    assert same(read((given.FOLDER / name).read_bytes()), given.values(name))


@pytest.mark.sample(every=2)
@pytest.mark.whole
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        ("uint8", {"compression": "zlib", "predictor": 2, "tile": (16, 16)}),
        ("int8", {"rowsperstrip": 4}),
        ("uint16", {"compression": "zlib", "predictor": 2, "rowsperstrip": 4}),
        ("int16", {"tile": (32, 16), "bigtiff": True}),
        ("uint32", {"compression": "zlib", "predictor": 2}),
        ("int32", {"rowsperstrip": 1, "bigtiff": True}),
        ("float16", {"compression": "zlib"}),
        ("float32", {"compression": "zlib", "tile": (16, 32)}),
        ("float64", {"rowsperstrip": 5, "compression": "zlib"}),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_file_of_tifffile_is_read_as_tifffile_reads_it(dtype, options, planar, order):
    bands = samples(dtype, (21, 37, 5))
    data = written(
        bands if planar == "contig" else bands.transpose(2, 0, 1),
        planarconfig=planar,
        photometric="minisblack",
        byteorder=order,
        **options,
    )
    found = read(data)
    assert same(found, bands)
    again = tifffile.imread(io.BytesIO(data)).reshape((21, 37, 5) if planar == "contig" else (5, 21, 37))
    assert np.array_equal(found, again if planar == "contig" else again.transpose(1, 2, 0))


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_adobe_deflate"])
@pytest.mark.parametrize(("mode", "dtype", "shape"), [("RGB", "uint8", (33, 21, 3)), ("F", "float32", (33, 21))])
def test_a_file_of_pillow_is_read_as_pillow_reads_it(mode, dtype, shape, compression):
    picture = samples(dtype, shape)
    file = io.BytesIO()
    Image.fromarray(picture, mode).save(file, "TIFF", compression=compression)
    found = read(file.getvalue())
    assert same(found.reshape(shape), np.asarray(Image.open(file)))
    assert same(found.reshape(shape), picture)


@pytest.mark.parametrize("bits", [1, 2, 4, 10, 12, 14])
def test_samples_that_fill_no_bytes_are_unpacked(bits):
    picture = (samples("uint16", (7, 11)) >> 16 - bits).astype(np.uint8 if bits < 8 else np.uint16)
    assert same(read(tiff(picture, bits, 1))[..., 0], picture)


def test_where_zero_is_white_samples_are_turned_round():
    picture = samples("uint16", (7, 11))
    assert same(read(tiff(picture, 16, 0))[..., 0], 65535 - picture)


def test_the_header_says_what_bands_are():
    data = written(samples("uint8", (9, 9, 4)), photometric="rgb", extrasamples=["unassalpha"])
    header = walk_bands(data)
    assert (header.bands, header.alpha, header.colours) == (4, True, True)
    plain = walk_bands(written(samples("uint8", (9, 9, 4)), photometric="minisblack", planarconfig="contig"))
    assert (plain.bands, plain.alpha, plain.colours) == (4, False, False)


@pytest.mark.parametrize("name", [name for name in given.FILES if "zstd" not in name])
def test_a_file_without_its_last_bytes_is_refused(name):
    data = (given.FOLDER / name).read_bytes()
    for keep in (len(data) // 2, len(data) - 20):
        with pytest.raises(ImageError, match=r"truncated|damaged"):
            _decoded(data[:keep])


def _decoded(data):
    header = read_bands_header(data, "x")
    return decode_bands(data, header, header.dtype.newbyteorder("="), "x")


@pytest.mark.parametrize("compression", [5, 8, 32773])
@pytest.mark.parametrize("size", [255, 256, 1 << 12])
def test_a_part_that_decompresses_to_fewer_bytes_is_no_part(compression, size):
    part = {5: b"\x80\x00\x40\x40", 8: zlib.compress(bytes(size - 1)), 32773: b"\x02abc"}[compression]
    with pytest.raises(DamagedError, match=r"a strip or tile .*ends before"):
        decompressed([memoryview(part)], size, compression)


def test_bytes_of_every_value_come_out_of_libtiff_as_they_went_in():
    for size in (256, 257):  # of 16 bits and of 8 bits per pixel
        raw = bytes(range(256)) + bytes(size - 256)
        packed = b"".join(bytes([len(raw[at : at + 128]) - 1]) + raw[at : at + 128] for at in range(0, size, 128))
        assert decompressed([memoryview(packed)] * 3, size, 32773).tobytes() == 3 * raw


@pytest.mark.parametrize(
    ("tag", "said"),
    [
        ((259, 3, [50000]), "a TIFF file of compression 50000"),
        ((262, 3, [8]), "colours of its own"),
        ((258, 3, [24]), "unsigned integers of 24 bits"),
        ((258, 3, [8, 16]), "bands have different types"),
        ((339, 3, [6]), "complex numbers"),
        ((339, 3, [9]), "samples of format 9"),
        ((277, 3, [1000]), "1000 bands"),
    ],
)
def test_what_is_not_accepted_is_called_by_its_name(tag, said):
    with pytest.raises(RefusedError, match=said):
        walk_bands(tiff(samples("uint8", (7, 11)), 8, 1, tags=[tag]))
    with pytest.raises(ImageError, match=r"save its bands as a \.npy array"):
        read_bands_header(tiff(samples("uint8", (7, 11)), 8, 1, tags=[tag]), "x")


def test_a_predictor_that_does_not_go_with_the_samples_is_refused():
    data = written(samples("uint16", (8, 8)), compression="zlib", predictor=2)
    at = data.index(struct.pack("<HHIH", 317, 3, 1, 2))
    with pytest.raises(RefusedError, match="predictor 3 with unsigned integers"):
        walk_bands(data[: at + 8] + b"\3" + data[at + 9 :])


@pytest.mark.parametrize("picture", ["jpeg", "palette", "group4"])
def test_pictures_of_8_bits_are_left_to_the_decoder_of_pictures(picture):
    file, image = io.BytesIO(), Image.fromarray(samples("uint8", (16, 16, 3)))
    if picture == "jpeg":
        image.save(file, "TIFF", compression="jpeg")
    elif picture == "palette":
        image.quantize(16).save(file, "TIFF")
    else:
        image.convert("1").save(file, "TIFF", compression="group4")
    assert walk_bands(file.getvalue()) is None


def test_memory_is_known_before_anything_is_decoded():
    header = walk_bands(written(np.zeros((500, 500, 13), np.float64), photometric="minisblack", planarconfig="contig"))
    check_bands(header, 10**6, np.dtype(np.float32), "x", 10**8)
    with pytest.raises(ImageError, match="x has 500 x 500 = 250000 pixels, more than the limit of 1000"):
        check_bands(header, 10**6, np.dtype(np.float32), "x", 1000)
    with pytest.raises(
        ImageError, match=r"500 x 500 pixels and 13 bands that may take \d+ MB .*max_pixels=\d+"
    ) as said:
        check_bands(header, 10**6, np.dtype(np.float32), "x", 250_000)
    enough = int(str(said.value).rpartition("--max-pixels ")[2].split(")")[0])
    check_bands(header, 10**6, np.dtype(np.float32), "x", enough)
    with pytest.raises(ImageError):
        check_bands(header, 10**6, np.dtype(np.float32), "x", enough - 1)


def test_samples_of_no_data_are_refused_where_the_model_takes_no_such_value():
    name = "int16-1-band-nodata.tif"
    header = walk_bands((given.FOLDER / name).read_bytes())
    assert header.nodata == -99
    found = given.values(name)
    with pytest.raises(ImageError, match="x has 3 samples of -99, which it declares as no data"):
        check_nodata(found, header.nodata, (0, 5000), "x")
    check_nodata(found, header.nodata, (-100, 5000), "x")
    check_nodata(found[1:], header.nodata, (0, 5000), "x")
    check_nodata(found.astype(np.uint8), -3.4e38, (0, 5000), "x")


def test_small_tiles_one_below_the_other_are_decompressed_together(monkeypatch):
    array = samples(np.uint16, (2, 200, 40))
    tiled = {"tile": (16, 16), "photometric": "minisblack", "planarconfig": "separate"}
    data = written(array, compression="zlib", **tiled)
    calls = []

    def counted(parts, *arguments, **options):
        calls.append(len(parts))
        return decompressed(parts, *arguments, **options)

    monkeypatch.setattr(bands, "decompressed", counted)
    assert same(read(data), array.transpose(1, 2, 0))
    assert calls == [3 * 13, 3 * 13], "a call for each row of tiles takes a minute where there are 2**18"
    for most in (1, 2, 7):
        monkeypatch.setattr(bands, "parts_at_once", lambda *_, most=most: most)
        assert same(read(data), array.transpose(1, 2, 0))


@pytest.mark.parametrize("size", [5, 255, 1499 * 1499, 2 * 1_299_709], ids=lambda size: f"{size} bytes")
def test_parts_of_any_size_are_decompressed_several_at_a_time(size):
    whole, rest = divmod(size, 128)
    packed = b"\x81\7" * whole + (bytes([rest - 1]) + b"\7" * rest if rest else b"")
    count = min(3, parts_at_once(size, 32773))
    found = decompressed([memoryview(packed)] * count, size, 32773)
    assert found.shape == (count, size)
    assert (found == 7).all()
    with pytest.raises(DamagedError):
        decompressed([memoryview(packed[: len(packed) // 2])] * count, size, 32773)
