"""Channels other than 8-bit RGB against Pillow, OpenCV and PyTorch: grey, samples at their depth, what is shown."""

import dataclasses
import hashlib
import itertools

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests.common.channels import KINDS, drawn_samples
from tests.common.images import photograph

from ortcam.errors import ImageError, OptionError
from ortcam.images.photograph import of_levels, read_photograph, read_preprocessed
from ortcam.images.preprocessing import Preprocessing
from ortcam.images.samples import read_samples

UNIT = 2.0**-24  # half the spacing of float32 numbers from 1 to 2: what one rounding changes, relative
PLAIN = Preprocessing(24, 20, 28, (0.0,), (1.0,), channel_order="grey")
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
# The weights of a bicubic kernel with a = -0.5 add up to 1, and their sizes to at most 1.25, along each axis.
SIZE_OF_WEIGHTS = 1.25**2


def grey_crop(preprocessing: Preprocessing, grey: NDArray[np.uint8], interpolation: str) -> NDArray[np.uint8]:
    """What Pillow makes of a grey image: resized, and cropped at the centre."""
    at = preprocessing.geometry(*grey.shape)
    resized = Image.fromarray(grey).resize((at.resized_width, at.resized_height), FILTERS[interpolation])
    return np.asarray(resized)[at.top : at.top + at.crop_height, at.left : at.left + at.crop_width]


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(97, 131), (61, 28), (28, 61), (30, 300), (31, 29), (900, 40)])
def test_grey_is_what_pillow_converts_and_resizes(size: tuple[int, int], interpolation: str) -> None:
    image = photograph(*size)
    preprocessing = dataclasses.replace(PLAIN, interpolation=interpolation)
    grey = np.asarray(Image.fromarray(image).convert("L"))
    expected = grey_crop(preprocessing, grey, interpolation).astype(np.float32) / 255
    found = preprocessing(image)
    assert found.shape == (1, 1, 24, 20)
    if size == (900, 40):  # Pillow before 13 has another order of the axes for images this tall
        np.testing.assert_allclose(found[0, 0], expected, rtol=0, atol=1.01 / 255)
    else:
        np.testing.assert_array_equal(found[0, 0], expected)


def test_grey_of_every_colour_is_what_pillow_and_opencv_weigh() -> None:
    steps = np.arange(0, 256, 5, dtype=np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(52, -1, 3)
    for order, expected in (
        ("grey", np.asarray(Image.fromarray(colours).convert("L"))),
        ("grey-opencv", cv2.cvtColor(colours, cv2.COLOR_RGB2GRAY)),
    ):
        preprocessing = Preprocessing(*colours.shape[:2], None, (0,), (1,), channel_order=order, scale=255)
        np.testing.assert_array_equal(preprocessing(colours)[0, 0], expected)
        np.testing.assert_array_equal(preprocessing.render(colours), np.repeat(expected[..., None], 3, axis=2))


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("resize", [28, None])
def test_grey_of_grey_pixels_is_a_channel_of_rgb(resize: int | None, antialias: bool) -> None:
    image = np.repeat(photograph(97, 61)[..., :1], 3, axis=2)
    grey = dataclasses.replace(PLAIN, resize=resize, antialias=antialias, mean=(0.4,), std=(0.2,))
    rgb = dataclasses.replace(grey, channel_order="rgb", mean=(0.4,) * 3, std=(0.2,) * 3)
    np.testing.assert_array_equal(grey(image)[:, 0], rgb(image)[:, 1])


def samples_of(dtype: type, channels: int, height: int = 97, width: int = 131) -> NDArray:
    drawn = np.random.default_rng(channels).normal(0.5, 0.25, (height, width, channels))
    if dtype == np.float32:
        return (drawn * 3000 - 1000).astype(np.float32)
    limits = np.iinfo(dtype)
    return (limits.min + drawn * (limits.max - limits.min)).clip(limits.min, limits.max).astype(dtype)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
@pytest.mark.parametrize("channels", [1, 2, 4, 13])
def test_samples_are_resized_as_pillows_floats(channels: int, dtype: type, interpolation: str) -> None:
    """Pillow rounds to float32 behind each axis, ortcam once at the end: three roundings of the largest sample."""
    samples = samples_of(dtype, channels)
    preprocessing = Preprocessing(
        *(24, 20, 28, (0.0,) * channels, (1.0,) * channels, interpolation), channel_order="bands", value_range=(0, 1)
    )
    found = preprocessing(samples)
    assert found.shape == (1, channels, 24, 20)
    at = preprocessing.geometry(97, 131)
    atol = 3 * UNIT * SIZE_OF_WEIGHTS * float(np.abs(samples.astype(np.float64)).max())
    for channel in range(channels):
        plane = Image.fromarray(samples[..., channel].astype(np.float32))
        assert plane.mode == "F"
        resized = np.asarray(plane.resize((at.resized_width, at.resized_height), FILTERS[interpolation]))
        expected = resized[at.top : at.top + 24, at.left : at.left + 20]
        np.testing.assert_allclose(found[0, channel], expected, rtol=0, atol=atol)


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(60, 91), (8, 9), (97, 131), (20, 150)])
def test_samples_are_resized_as_torch_interpolates(size: tuple[int, int], interpolation: str, antialias: bool) -> None:
    torch = pytest.importorskip("torch")
    samples = samples_of(np.float32, 4, *size)
    preprocessing = Preprocessing(
        *(40, 50, None, (0.0,) * 4, (1.0,) * 4, interpolation), antialias, "bands", value_range=(0, 1)
    )
    planes = torch.from_numpy(samples.astype(np.float64)).permute(2, 0, 1)[None]
    expected = torch.nn.functional.interpolate(planes, (40, 50), mode=interpolation, antialias=antialias).numpy()
    # One rounding to float32 at the end; the float64 sums of either are a millionth of that apart.
    atol = 1.01 * UNIT * SIZE_OF_WEIGHTS * np.abs(samples).max()
    np.testing.assert_allclose(preprocessing(samples), expected, rtol=0, atol=atol)


@pytest.mark.parametrize("channels", [1, 3, 13])
def test_bytes_as_bands_are_what_bytes_are_in_8_bit_images(channels: int) -> None:
    """Without a resize the two paths have one arithmetic."""
    samples = np.random.default_rng(3).integers(0, 256, (24, 20, channels), np.uint8)
    mean, std = tuple(np.linspace(0.2, 0.6, channels)), tuple(np.linspace(0.1, 0.3, channels))
    bands = Preprocessing(24, 20, None, mean, std, channel_order="bands")
    assert bands.value_range == (0, 255)
    expected = (samples.astype(np.float32) / np.float32(255) - np.float32(mean)) / np.float32(std)
    np.testing.assert_array_equal(bands(samples)[0], expected.transpose(2, 0, 1))
    np.testing.assert_array_equal(bands.of_levels(samples), bands(samples))
    if channels == 3:
        np.testing.assert_array_equal(
            dataclasses.replace(bands, channel_order="rgb", value_range=None)(samples), bands(samples)
        )


@pytest.mark.parametrize("mode", ["RGBA", "LA", "CMYK"])
def test_a_pillow_image_keeps_alpha_and_inks_where_the_model_has_as_many_bands(mode: str) -> None:
    picture = Image.fromarray(photograph(23, 31)).convert(mode)
    if mode != "CMYK":
        picture.putalpha(Image.fromarray(photograph(23, 31)[::-1, :, 1].copy()))
    bands = np.asarray(picture)
    count = bands.shape[2]
    model = Preprocessing(23, 31, None, (0.0,) * count, (1.0,) * count, channel_order="bands")
    np.testing.assert_array_equal(read_samples(picture, model, max_pixels=10_000), bands)
    fewer = dataclasses.replace(model, mean=(0.0,) * 3, std=(1.0,) * 3)  # a model of three bands takes what it took
    if mode != "LA":
        expected = np.asarray(picture.convert("RGB"))
        np.testing.assert_array_equal(read_samples(picture, fewer, max_pixels=10_000), expected)


def test_sixteen_bits_are_kept() -> None:
    """Two images that differ in their lower 8 bits alone are the same at 8 bits."""
    dark = np.full((24, 20, 1), 0x1200, np.uint16)
    light = dark + np.uint16(0xFF)
    preprocessing = dataclasses.replace(PLAIN, resize=None, value_range=(0, 65535))
    assert (preprocessing(dark) == np.float32(0x1200 / 65535)).all()
    assert (preprocessing(light) == np.float32(0x12FF / 65535)).all()


def test_a_range_around_zero_gives_the_values_themselves() -> None:
    """TorchXRayVision's input: 1 x H x W from -1024 to 1024, which mean .5 and std 1/2048 leave as it is."""
    samples = np.random.default_rng(0).integers(-1024, 1025, (24, 20, 1)).astype(np.int16)
    preprocessing = Preprocessing(24, 20, None, (0.5,), (1 / 2048,), channel_order="grey", value_range=(-1024, 1024))
    np.testing.assert_array_equal(preprocessing(samples)[0, 0], samples[..., 0])
    beyond = np.full((24, 20, 1), 3000, np.int16)
    assert (preprocessing(beyond) == 3000).all(), "nothing is clipped"


def test_beside_a_small_image_lies_the_low_end_of_its_range() -> None:
    samples = np.full((10, 10, 2), 7.5, np.float32)
    preprocessing = Preprocessing(20, 20, 10, (0.5, 0.25), (0.5, 0.25), channel_order="bands", value_range=(-20, 5))
    found = preprocessing(samples)
    at = preprocessing.geometry(10, 10)
    inside = found[0, :, -at.top : -at.top + 10, -at.left : -at.left + 10]
    # (7.5 + 20) / 25 = 1.1, and the low end becomes 0.
    np.testing.assert_allclose(inside, np.broadcast_to([[[1.2]], [[3.4]]], inside.shape), rtol=4 * UNIT)
    assert (found[0, :, 0, 0] == -1).all()


def test_bgr_of_samples_turns_the_channels_around() -> None:
    rgb16 = KINDS["rgb16"]
    samples = samples_of(np.uint16, 3)
    rgb = dataclasses.replace(rgb16, channel_order="rgb")
    np.testing.assert_array_equal(rgb16(samples)[:, ::-1], rgb(samples))


@pytest.mark.parametrize("kind", KINDS)
def test_levels_and_the_input_are_the_same_thing(kind: str) -> None:
    preprocessing = KINDS[kind]
    levels = np.random.default_rng(1).integers(0, 256, (32, 48, preprocessing.channels), np.uint8)
    levels[0, 0], levels[0, 1] = 0, 255
    model_input = preprocessing.of_levels(levels)
    np.testing.assert_array_equal(preprocessing.to_pixels(model_input), levels)
    mean, std = np.float32(preprocessing.mean), np.float32(preprocessing.std)
    np.testing.assert_array_equal(model_input[0, :, 0, 0], -mean / std)
    np.testing.assert_array_equal(model_input[0, :, 0, 1], (np.float32(preprocessing.scale) - mean) / std)


@pytest.mark.parametrize("kind", KINDS)
def test_an_input_goes_back_to_samples_that_give_it(kind: str) -> None:
    """The way back is rounded once more, to float32; the range is taken off, so its ends count."""
    preprocessing = KINDS[kind]
    model_input = preprocessing(drawn_samples(preprocessing))
    straight = dataclasses.replace(preprocessing, resize=None)
    again = straight(straight.to_samples(model_input))
    if not preprocessing.needs_samples and preprocessing.channels == 1:
        np.testing.assert_array_equal(again, model_input)
        return
    low, high = preprocessing.value_range or (0, 255)
    largest = (
        max(abs(low), abs(high)) / (high - low) * preprocessing.scale / min(preprocessing.std)
        + np.abs(model_input).max()
    )
    np.testing.assert_allclose(again, model_input, rtol=0, atol=8 * UNIT * largest)


def test_bands_are_shown_from_their_second_to_their_98th_percentile() -> None:
    samples = np.zeros((10, 101, 4), np.uint16)
    samples[..., 2] = 1000 + np.arange(101)[None] * 10  # percentile p is 1000 + 10 p
    samples[..., 3] = 5
    samples[0, 0, 3] = 65535  # one pixel that 2 of 100 do not see
    preprocessing = Preprocessing(
        8, 8, None, (0.5,) * 4, (0.5,) * 4, channel_order="bands", value_range=(0, 10_000), display=(2, 3, 0)
    )
    shown = preprocessing.render(samples)
    assert shown.dtype == np.uint8
    expected = np.rint((np.arange(101) - 2) / 96 * 255).clip(0, 255)
    np.testing.assert_array_equal(shown[5, :, 0], expected)
    assert (shown[..., 2] == 0).all(), "a flat band is black"
    assert shown[0, 0, 1] == 255
    assert (np.delete(shown[..., 1].ravel(), 0) == 0).all(), "a band with equal percentiles keeps its extremes"
    grey = dataclasses.replace(preprocessing, display=(2,)).render(samples)
    np.testing.assert_array_equal(grey, np.repeat(shown[..., :1], 3, axis=2))


@pytest.mark.parametrize(("dtype", "low", "high"), [(np.int16, -32768, 32767), (np.float32, -3e38, 3e38)])
@pytest.mark.filterwarnings("error")
def test_percentiles_between_the_ends_of_a_type_do_not_overflow(dtype: type, low: float, high: float) -> None:
    samples = np.full((10, 10, 1), high, dtype)
    samples.ravel()[:2] = low  # the 2nd percentile lies 2 of 100 from the higher end
    bands = Preprocessing(8, 8, None, (0.5,), (0.5,), channel_order="bands", value_range=(low, high))
    shown = bands.render(samples)[..., 0].ravel()
    assert (shown[:2] == 0).all()
    assert (shown[2:] == 255).all()


@pytest.mark.parametrize("name", ["mean", "std", "scale", "value_range"])
def test_numbers_beyond_floats_are_refused(name: str) -> None:
    given = {"mean": (0.5,), "std": (0.5,)} | {name: 10**400 if name == "scale" else (10**400,)}
    with pytest.raises(OptionError, match=f"^preprocessing {name}="):
        Preprocessing(8, 8, None, channel_order="grey", **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(("channels", "displayed"), [(1, (0,)), (2, (0,)), (3, (0, 1, 2)), (13, (0, 1, 2))])
def test_the_first_bands_are_shown_unless_others_are_named(channels: int, displayed: tuple[int, ...]) -> None:
    bands = Preprocessing(8, 8, None, (0.5,) * channels, (0.5,) * channels, channel_order="bands")
    assert bands.displayed == displayed


def test_rgb_of_8_bits_is_shown_as_it_is() -> None:
    image = photograph(9, 7)
    assert Preprocessing(8, 8, None, (0.5,) * 3, (0.5,) * 3).render(image) is image


BASE = {"height": 8, "width": 8, "resize": None, "mean": (0.5,), "std": (0.5,), "channel_order": "bands"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channel_order": "rgb"}, "mean=(0.5,): expected three finite numbers, one per channel"),
        ({"channel_order": "grey", "mean": (0.5, 0.5)}, "mean=(0.5, 0.5): expected one finite number, one per channel"),
        ({"std": (0.5, 0.5)}, "std=(0.5, 0.5): expected one positive number, one per channel"),
        ({"mean": (0.5,) * 4}, "std=(0.5,): expected 4 positive numbers, one per channel"),
        ({"mean": ()}, "mean=(): expected 1 to 64 finite numbers, one per channel"),
        ({"mean": (0.5,) * 65, "std": (0.5,) * 65}, "expected 1 to 64 finite numbers, one per channel"),
        ({"value_range": (1, 1)}, "value_range=(1, 1): expected two finite numbers, the lower one first"),
        ({"value_range": (2, 1)}, "value_range=(2, 1): expected two"),
        ({"value_range": 255}, "value_range=255: expected two"),
        ({"value_range": (0, float("inf"))}, "value_range=(0, inf): expected two"),
        ({"value_range": (-1.7e308, 1.7e308)}, "value_range=(-1.7e+308, 1.7e+308): expected two"),
        ({"display": (1,)}, "display=(1,): expected one or three of the bands 0 to 0"),
        ({"display": (0, 0)}, "display=(0, 0): expected one or three"),
        ({"display": (True,)}, "display=(True,): expected one or three"),
        ({"display": 0}, "display=0: expected one or three"),
        ({"channel_order": "grey", "display": (0,)}, "display=(0,): expected none, since images of 8 bits"),
        ({"height": 16_384, "width": 4096, "mean": (0.5,) * 6, "std": (0.5,) * 6}, "expected at most 33554432 pixels"),
    ],
)
def test_a_value_that_does_not_fit_the_channels_is_named(change: dict, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        Preprocessing(**(BASE | change))
    assert message in str(caught.value)


def test_what_json_made_lists_of_is_the_same_preprocessing() -> None:
    fields = dataclasses.asdict(KINDS["thirteen"])
    lists = {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
    made = Preprocessing(**lists)
    assert made == KINDS["thirteen"]
    assert hash(made) == hash(KINDS["thirteen"])
    assert repr(made) == repr(KINDS["thirteen"])
    assert eval(repr(made)) == made


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros((8, 8), np.uint16),
        np.zeros((8, 8, 3), np.uint16),
        np.zeros((8, 8, 1), np.int64),
        np.zeros((8, 0, 1), np.uint16),
    ],
)
def test_samples_of_another_form_are_refused(samples: NDArray) -> None:
    with pytest.raises(ImageError, match=r"uint8, uint16, int16 or float32 \[H, W, 1\]"):
        Preprocessing(**BASE)(samples)


def test_samples_that_overflow_in_the_models_input_are_refused() -> None:
    samples = np.full((8, 8, 1), 3e38, np.float32)
    with pytest.raises(ImageError, match=r"infinite .* of the order of 0 to 0\.001, the range"):
        Preprocessing(**(BASE | {"value_range": (0, 0.001)}))(samples)


def test_levels_of_another_form_are_refused() -> None:
    with pytest.raises(ImageError, match=r"levels are uint8 \[32, 48, 4\], not uint8 \[32, 48, 3\]"):
        KINDS["four"].of_levels(np.zeros((32, 48, 3), np.uint8))


def test_a_photograph_keeps_the_samples_and_shows_them() -> None:
    preprocessing = KINDS["thirteen"]
    samples = drawn_samples(preprocessing)
    found = read_photograph(samples, preprocessing, max_pixels=10_000)
    np.testing.assert_array_equal(found.samples, samples)
    assert found.samples is not samples, "a buffer may change while its image is explained"
    np.testing.assert_array_equal(found.pixels, preprocessing.render(samples))
    assert found.model_input.shape == (1, 13, 32, 48)
    assert found.nbytes == found.samples.nbytes + found.pixels.nbytes + found.model_input.nbytes
    rgb = Preprocessing(8, 8, None, (0.5,) * 3, (0.5,) * 3)
    plain = read_photograph(photograph(9, 9), rgb, max_pixels=100)
    assert plain.samples is plain.pixels


@pytest.mark.parametrize("kind", KINDS)
def test_an_input_that_came_preprocessed_is_taken_in_both_shapes(kind: str) -> None:
    preprocessing = KINDS[kind]
    model_input = preprocessing(drawn_samples(preprocessing))
    for values in (model_input, model_input[0]):
        found = read_preprocessed(values, preprocessing)
        np.testing.assert_array_equal(found.model_input, model_input)
        assert found.pixels.shape == (32, 48, 3)
        assert found.samples.shape == (32, 48, preprocessing.channels if preprocessing.needs_samples else 3)
    with pytest.raises(ImageError, match=rf"accepted: floats as \[1, {preprocessing.channels}, 32, 48\]"):
        read_preprocessed(model_input[:, :, 1:], preprocessing)


def test_a_photograph_goes_to_a_model_that_takes_the_same_samples_alone() -> None:
    grey, xray, thirteen = KINDS["grey"], KINDS["xray"], KINDS["thirteen"]
    image = photograph(40, 60)
    read = read_photograph(image, grey, max_pixels=10_000)
    rgb = Preprocessing(8, 8, None, (0.5,) * 3, (0.5,) * 3)
    other = read_photograph(read, rgb, max_pixels=10_000)
    np.testing.assert_array_equal(other.model_input, rgb(image))
    np.testing.assert_array_equal(other.pixels, image)
    deep = read_photograph(drawn_samples(xray), xray, max_pixels=10_000)
    wider = dataclasses.replace(xray, value_range=(0, 4095))
    np.testing.assert_array_equal(
        read_photograph(deep, wider, max_pixels=10_000).model_input, wider(drawn_samples(xray))
    )
    for photo, preprocessing in ((read, xray), (deep, grey), (deep, thirteen)):
        with pytest.raises(ImageError, match="was read for another model, which takes other samples"):
            read_photograph(photo, preprocessing, max_pixels=10_000)


@pytest.mark.parametrize("kind", KINDS)
def test_a_drawn_image_is_its_levels(kind: str) -> None:
    preprocessing = KINDS[kind]
    levels = np.random.default_rng(2).integers(0, 256, (32, 48, preprocessing.channels), np.uint8)
    np.testing.assert_array_equal(of_levels(levels, preprocessing).model_input, preprocessing.of_levels(levels))


def pattern(height: int, width: int) -> NDArray[np.uint8]:
    """An image of whole numbers alone, the same on every machine."""
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    return ((7 * y + 13 * x + 29 * c + x * y // 5) % 256).astype(np.uint8)


@pytest.mark.slow
def test_no_bit_of_an_8_bit_models_input_has_changed_since_schema_4() -> None:
    """The hash was computed with ortcam as it was before models had other channels than RGB."""
    found = hashlib.sha256()
    for size, resize, interpolation, order, scale in itertools.product(
        [(97, 131), (300, 20), (5, 5), (28, 61), (200, 400)],
        (28, None),
        ("bilinear", "bicubic"),
        ("rgb", "bgr"),
        (1.0, 255.0),
    ):
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        preprocessing = Preprocessing(24, 20, resize, mean, std, interpolation, True, order, scale)
        model_input = preprocessing(pattern(*size))
        found.update(model_input.tobytes())
        found.update(preprocessing.to_pixels(model_input).tobytes())
    assert found.hexdigest() == "3b2c9cd0aa4ef164c628dd336f7da93b7c5bdda0a6d8d3b7cced3bcae9d6f241"
