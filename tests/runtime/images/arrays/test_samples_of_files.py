"""What a model that takes samples gets of files and arrays: their depth, their bands, grey and RGB by one rule."""

import io

import numpy as np
import pytest
import tifffile
from PIL import Image
from tests.common.images import encoded, exif, photograph, png, tiff
from tests.runtime.images.formats import gdal_files

from ortcam.errors import ImageError, OptionError
from ortcam.images.preprocessing import Preprocessing
from ortcam.images.reading import read_image
from ortcam.images.samples import read_samples


def model(channels, order="bands", span=(0, 65535)):
    ones = (1.0,) * channels
    return Preprocessing(8, 8, None, mean=ones, std=ones, channel_order=order, value_range=span)


def read(source, preprocessing, max_pixels=10**6, **options):
    return read_samples(source, preprocessing, max_pixels=max_pixels, **options)


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def of_tifffile(array, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, array, metadata=None, **options)
    return file.getvalue()


def weighed(rgb):
    red, green, blue = (rgb[..., channel].astype(np.float64) for channel in range(3))
    return ((19595 * red + 38470 * green + 7471 * blue) / 65536).astype(np.float32)[..., None]


BANDS = np.random.default_rng(0).integers(0, 1 << 16, (12, 15, 13), np.uint16)
DEEP = np.random.default_rng(1).integers(0, 1 << 16, (12, 15, 3), np.uint16)


@pytest.mark.parametrize(
    "source",
    [
        BANDS,
        BANDS.transpose(2, 0, 1),
        BANDS.byteswap().view(BANDS.dtype.newbyteorder()),
        npy(BANDS),
        npy(BANDS.transpose(2, 0, 1)),
        npy(np.asfortranarray(BANDS)),
        npy(BANDS.astype(">u2")),
        io.BytesIO(npy(BANDS)),
        of_tifffile(BANDS, photometric="minisblack", planarconfig="contig"),
        of_tifffile(BANDS.transpose(2, 0, 1), photometric="minisblack", planarconfig="separate", byteorder=">"),
    ],
    ids=["array", "first", "swapped", "npy", "npy-first", "npy-fortran", "npy-big-endian", "stream", "tiff", "planes"],
)
def test_bands_are_the_same_from_wherever_they_come(source):
    found = read(source, model(13))
    assert found.dtype == np.uint16
    assert found.flags.c_contiguous
    assert np.array_equal(found, BANDS)


@pytest.mark.parametrize(
    ("stored", "kept"),
    [
        ("uint8", "uint8"),
        ("bool", "uint8"),
        ("int16", "int16"),
        ("float32", "float32"),
        *((stored, "float32") for stored in ("int8", "uint32", "int32", "int64", "uint64", "float16", "float64")),
    ],
)
def test_samples_keep_their_values_in_one_of_four_types(stored, kept):
    values = np.arange(2 * 3 * 5).reshape(5, 3, 2).astype(stored)
    for source in (values, npy(values)):
        found = read(source, model(2))
        assert found.dtype == np.dtype(kept)
        assert np.array_equal(found, values)


@pytest.mark.parametrize("name", [name for name in gdal_files.FILES if "nodata" not in name and "zstd" not in name])
def test_a_tiff_file_keeps_its_samples(name):
    wanted = gdal_files.values(name)
    found = read(str(gdal_files.FOLDER / name), model(wanted.shape[2], span=(-1e9, 1e9)))
    assert np.array_equal(found, wanted.astype(found.dtype))
    assert found.dtype == (wanted.dtype if wanted.dtype.itemsize < 4 else np.float32)


def test_a_model_with_a_range_refuses_what_a_file_declares_as_no_data():
    path = gdal_files.FOLDER / "int16-1-band-nodata.tif"
    with pytest.raises(ImageError, match="3 samples of -99, which it declares as no data"):
        read(path, model(1))
    assert np.array_equal(read(path, model(1, span=(-100, 5000))), gdal_files.values(path.name))
    with pytest.raises(ImageError, match="compression 50000"):
        read(gdal_files.FOLDER / "uint16-3-bands-zstd.tif", model(3))


@pytest.mark.parametrize("form", ["png", "tiff", "ppm", "array", "npy"])
def test_colour_of_16_bits_is_kept_as_rgb_as_bands_and_weighed_as_grey(form):
    source = {
        "png": lambda: png(DEEP, 16, 2),
        "tiff": lambda: tiff(DEEP, 16, 2),
        "ppm": lambda: b"P6 15 12 65535\n" + DEEP.astype(">u2").tobytes(),
        "array": lambda: DEEP,
        "npy": lambda: npy(DEEP),
    }[form]()
    for order in ("rgb", "bgr", "bands"):  # preprocessing swaps the channels of bgr
        assert np.array_equal(read(source, model(3, order)), DEEP)
    for order in ("grey", "grey-opencv"):
        found = read(source, model(1, order))
        assert found.dtype == np.float32
        assert np.allclose(found, weighed(DEEP), rtol=2**-23)
    with pytest.raises(ImageError, match=r"3 bands|number of bands"):
        read(source, model(1))


@pytest.mark.parametrize("form", ["png", "tiff", "pgm", "plain", "array", "npy", "pillow"])
def test_grey_of_16_bits_is_kept_and_is_grey_of_any_model(form):
    grey = DEEP[..., 0]
    source = {
        "png": lambda: png(grey, 16, 0),
        "tiff": lambda: tiff(grey, 16, 1),
        "pgm": lambda: b"P5 15 12 65535\n" + grey.astype(">u2").tobytes(),
        "plain": lambda: b"P2 15 12 65535\n" + " ".join(map(str, grey.ravel())).encode(),
        "array": lambda: grey,
        "npy": lambda: npy(grey),
        "pillow": lambda: Image.fromarray(grey),
    }[form]()
    for order in ("grey", "bands"):
        found = read(source, model(1, order))
        assert found.dtype == np.uint16
        assert np.array_equal(found[..., 0], grey)
    assert np.array_equal(read(source, model(3, "rgb")), np.repeat(grey[..., None], 3, axis=2))


def test_a_white_below_65535_in_a_pnm_file_changes_no_sample():
    assert read(b"P5 2 1 1023\n\0\1\3\xff", model(1)).ravel().tolist() == [1, 1023]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_a_picture_of_8_bits_gives_the_pixels_of_read_image(form):
    data = encoded(photograph(12, 18), form)
    assert np.array_equal(read(data, model(3, "rgb", (0, 255))), read_image(data))
    assert np.array_equal(read(data, model(3, "bands", (0, 255))), read_image(data))


@pytest.mark.parametrize("compression", ["jpeg", "group4"])
def test_a_tiff_file_that_only_a_decoder_of_pictures_knows_gives_its_pixels(compression):
    image = Image.fromarray(photograph(16, 24))
    data = encoded(image if compression == "jpeg" else image.convert("1"), "TIFF", compression=compression)
    assert np.array_equal(read(data, model(3, "rgb", (0, 255))), read_image(data))


def test_alpha_is_a_band_only_where_the_model_has_one_for_it():
    rgba = np.dstack([photograph(12, 18), np.arange(12 * 18, dtype=np.uint8).reshape(12, 18)])
    data = encoded(rgba, "PNG")
    assert np.array_equal(read(data, model(4)), rgba)
    assert np.array_equal(read(data, model(3)), rgba[..., :3])
    assert np.array_equal(read(data, model(3, "rgb")), rgba[..., :3])
    grey = encoded(Image.fromarray(rgba[..., [0, 3]], "LA"), "PNG")
    assert np.array_equal(read(grey, model(2)), rgba[..., [0, 3]])
    assert np.array_equal(read(grey, model(1)), rgba[..., :1])
    of_tiff = of_tifffile(rgba, photometric="rgb", extrasamples=["unassalpha"])
    assert np.array_equal(read(of_tiff, model(4)), rgba)
    assert np.array_equal(read(of_tiff, model(3)), rgba[..., :3])
    assert np.array_equal(read(of_tiff, model(3, "rgb")), rgba[..., :3])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_samples_come_upright(orientation):
    colour = encoded(photograph(12, 18), "PNG", exif=exif(orientation))
    assert np.array_equal(read(colour, model(3, "rgb")), read_image(colour))
    of_tiff = encoded(photograph(12, 18), "TIFF", tiffinfo={274: orientation})
    assert np.array_equal(read(of_tiff, model(3, "rgb")), read_image(of_tiff))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (npy(BANDS[..., :4]), r"uint16 \[12, 15, 4\]\) has another number of bands"),
        (BANDS[..., :4], "has another number of bands; accepted: .* is 13"),
        (npy(BANDS[..., 0]), "has one band"),
        (npy(np.zeros((13, 9, 13))), "may have its bands first or last"),
        (npy(np.zeros((2, 12, 15, 13))), "is a batch"),
        (npy(np.zeros((0, 15, 13))), "the shape of no image"),
        (npy(np.full((12, 15, 13), np.nan)), "2340 of 2340 samples that are infinite or not a number"),
        (np.full((12, 15, 13), 1e300), "infinite or not a number"),
        (npy(BANDS.astype(complex)), "complex numbers"),
        (npy(BANDS.astype(object)), "Python objects, which are never loaded"),
        (BANDS.astype(object), "samples of object"),
        (of_tifffile(BANDS[..., :4], photometric="minisblack", planarconfig="contig"), "4 bands.*takes 13"),
        (encoded(photograph(), "JPEG"), "3 bands.*takes 13"),
        (encoded(photograph()[..., 0], "JPEG"), "1 band, and this model takes 13"),
        (Image.fromarray(photograph()), "3 bands.*takes 13"),
        (b"", "is empty"),
        (7, "cannot be read from int"),
    ],
)
def test_what_a_model_of_13_bands_does_not_take_is_refused_in_one_line(source, said):
    with pytest.raises(ImageError, match=said) as refused:
        read(source, model(13))
    assert "\n" not in str(refused.value)


def test_an_image_above_the_limit_is_refused_from_its_header():
    for source in (npy(BANDS), BANDS, of_tifffile(BANDS, photometric="minisblack", planarconfig="contig")):
        with pytest.raises(ImageError, match="15 x 12 = 180 pixels, more than the limit of 100"):
            read(source, model(13), max_pixels=100)


def test_white_is_refused_where_samples_are_taken_as_they_are():
    with pytest.raises(OptionError, match="white=4095"):
        read(npy(BANDS), model(13), white=4095)


def test_an_array_in_a_file_is_a_picture_for_a_model_of_pictures():
    colour = photograph(12, 18)
    for array in (colour, colour.transpose(2, 0, 1), colour[..., 0], (colour / 255).astype(np.float32)):
        assert np.array_equal(read_image(npy(array)), read_image(array))
    assert np.array_equal(read_image(npy(DEEP), white=4095), read_image(DEEP, white=4095))
    for array, said in ((DEEP, "white=4095 for 12 bits"), (BANDS, "shape of no image"), (colour / 3.0, "divide it")):
        with pytest.raises(ImageError, match=said):
            read_image(npy(array))


@pytest.mark.parametrize("order", ["rgb", "grey"])
def test_inks_become_rgb_as_in_a_picture_unless_the_model_takes_them(order):
    inks = np.zeros((6, 7, 4), np.uint8)
    inks[..., 0] = 255  # cyan
    file = of_tifffile(inks, photometric="separated")
    rgb = read_image(file)
    assert rgb[0, 0].tolist() == [0, 255, 255]
    found = read(file, model(3 if order == "rgb" else 1, order, (0, 255)))
    np.testing.assert_array_equal(found, rgb if order == "rgb" else weighed(rgb).round())
    np.testing.assert_array_equal(read(file, model(4)), inks)
