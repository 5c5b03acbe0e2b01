"""Preprocessing against torchvision's preset, and where its crop lies in the photograph."""

import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image

from ortcam.errors import ImageError, OptionError
from ortcam.images.preprocessing import Preprocessing
from ortcam.images.resampling.crop import CropGeometry

torch = pytest.importorskip("torch")
transforms = pytest.importorskip("torchvision.transforms")
functional, InterpolationMode = transforms.functional, transforms.InterpolationMode
ImageClassification = pytest.importorskip("torchvision.transforms._presets").ImageClassification

DATA = Path(os.environ.get("ORTCAM_TEST_DATA", Path(__file__).parents[3].parent / "shared" / "data"))
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MODES = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}
# Pillow 13 resizes the height first where it shrinks by far more than the width; before, the width always came first.
TALL = pytest.mark.skipif(int(PIL.__version__.split(".")[0]) < 13, reason="tall images: the order of Pillow 13")
SIZES = [
    (1, 1),
    (1, 17),
    (33, 1),
    (2, 2),
    (100, 90),
    (255, 257),
    (256, 256),
    (224, 224),
    (256, 341),
    (375, 500),
    (500, 375),
    (37, 911),
    pytest.param((911, 37), marks=TALL),
    (701, 1003),
]


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def ours(image, crop, resize, interpolation):
    return Preprocessing(*crop, resize, MEAN, STD, interpolation)(image)


@pytest.mark.sample(every=6)
@pytest.mark.whole
@pytest.mark.parametrize("interpolation", MODES)
@pytest.mark.parametrize(("crop", "resize"), [(224, 256), (224, 224), (64, 48), (7, 5), (99, 61)])
@pytest.mark.parametrize("size", SIZES)
def test_the_tensor_is_torchvisions_bit_for_bit(size, crop, resize, interpolation):
    image = noise(*size)
    preset = ImageClassification(crop_size=crop, resize_size=resize, interpolation=MODES[interpolation])
    expected = preset(Image.fromarray(image)).numpy()[None]
    result = ours(image, (crop, crop), resize, interpolation)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("interpolation", MODES)
@pytest.mark.parametrize("crop", [(61, 90), (60, 91), (301, 30)])
@pytest.mark.parametrize(
    "size", [(50, 70), (200, 251), pytest.param((75, 70), marks=TALL), pytest.param((200, 40), marks=TALL)]
)
def test_a_crop_that_is_no_square_and_a_resize_without_crop_are_torchvisions(size, crop, interpolation):
    image = noise(*size)
    for resize in (None, 80):
        target = list(crop) if resize is None else resize
        picture = functional.resize(Image.fromarray(image), target, MODES[interpolation])
        picture = functional.to_tensor(functional.center_crop(picture, list(crop)))
        expected = functional.normalize(picture, MEAN, STD).numpy()[None]
        np.testing.assert_array_equal(ours(image, crop, resize, interpolation), expected)


@pytest.mark.parametrize("interpolation", MODES)
@pytest.mark.parametrize("size", [(50, 70), (201, 200), (97, 340)])
def test_a_squash_before_the_crop_is_torchvisions_resize_to_a_square(size, interpolation):
    image = noise(*size)
    picture = functional.resize(Image.fromarray(image), [81, 81], MODES[interpolation])
    picture = functional.to_tensor(functional.center_crop(picture, [70, 64]))
    expected = functional.normalize(picture, MEAN, STD).numpy()[None]
    result = Preprocessing(70, 64, 81, MEAN, STD, interpolation, keep_aspect=False)(image)
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    ("margin", "down", "half_even"), [(0, 0, 0), (1, 0, 0), (2, 1, 1), (3, 1, 2), (5, 2, 2), (7, 3, 4)]
)
def test_a_crop_begins_at_a_whole_pixel_however_it_rounds(margin, down, half_even):
    image = noise(20 + margin, 20)
    for rounding, top in (("down", down), ("half-even", half_even)):
        whole = Preprocessing(20 + margin, 20, None, MEAN, STD)(image)
        crop = Preprocessing(20, 20, 20, MEAN, STD, crop_rounding=rounding)
        assert crop.geometry(20 + margin, 20).top == top
        np.testing.assert_array_equal(crop(image), whole[:, :, top : top + 20])


@pytest.mark.parametrize("rounding", ["down", "half-even"])
def test_padding_does_not_depend_on_how_a_crop_rounds(rounding):
    assert Preprocessing(13, 14, 10, MEAN, STD, crop_rounding=rounding).geometry(10, 10).top == -1


@pytest.mark.parametrize("interpolation", MODES)
def test_real_photographs_give_torchvisions_tensors(interpolation):
    files = sorted((DATA / "originals").glob("*.jpg"))
    if not files:
        pytest.skip(f"no photographs in {DATA / 'originals'}; ORTCAM_TEST_DATA names the data folder")
    preset = ImageClassification(crop_size=224, resize_size=256, interpolation=MODES[interpolation])
    for file in files:
        picture = Image.open(file).convert("RGB")
        if picture.height > 2 * picture.width and int(PIL.__version__.split(".")[0]) < 13:
            continue
        expected = preset(picture).numpy()[None]
        result = ours(np.asarray(picture), (224, 224), 256, interpolation)
        np.testing.assert_array_equal(result, expected, err_msg=str(file))


@pytest.mark.parametrize("interpolation", MODES)
@pytest.mark.parametrize("size", [(33, 1), (100, 90), (375, 500), (911, 37)])
def test_without_antialiasing_the_resize_is_that_of_torchvision_on_tensors(size, interpolation):
    image = noise(*size)
    result = Preprocessing(60, 91, None, (0, 0, 0), (1, 1, 1), interpolation, antialias=False)(image)
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    expected = functional.resize(tensor, [60, 91], MODES[interpolation], antialias=False).numpy()
    difference = np.abs(np.rint(result[0] * 255) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.02  # sums that lie half-way between two levels


def test_a_view_of_an_image_gives_the_tensor_of_its_copy():
    image = noise(120, 150)[::-1, 5:, ::-1]
    np.testing.assert_array_equal(ours(image, (32, 32), 40, "bilinear"), ours(image.copy(), (32, 32), 40, "bilinear"))


def grey_ramp():
    """uint8 [16,16,3]: every level once, the same in all channels."""
    return np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)


def levels(**options):
    """What the model sees of the levels 0 to 255, float32 [3,256], mean and std left out."""
    return Preprocessing(16, 16, None, (0, 0, 0), (1, 1, 1), **options)(grey_ramp()).reshape(3, 256)


def test_at_scale_1_every_level_is_torchs():
    expected = torch.arange(256, dtype=torch.uint8).to(torch.float32).div(255).numpy()
    for channel in levels():
        np.testing.assert_array_equal(channel, expected)


def test_at_scale_255_every_level_is_itself():
    for channel in levels(scale=255):
        np.testing.assert_array_equal(channel, np.arange(256, dtype=np.float32))


@pytest.mark.parametrize("scale", [1, 2, 127.5, 255, 256, 1 / 3, 65535])
def test_at_any_scale_a_level_is_the_nearest_float32(scale):
    exact = [Fraction(level) * Fraction(scale) / 255 for level in range(256)]
    nearest = np.array([float(value) for value in exact]).astype(np.float32)
    for channel in levels(scale=scale):
        np.testing.assert_array_equal(channel, nearest)


def test_mean_and_std_are_in_units_of_the_scale_and_in_the_models_channel_order():
    image, mean, std = noise(40, 50), (104.0, 117.0, 123.0), (1.0, 2.0, 4.0)
    result = Preprocessing(40, 50, None, mean, std, channel_order="bgr", scale=255)(image)
    blue, green, red = (image[..., plane].astype(np.float32) for plane in (2, 1, 0))
    np.testing.assert_array_equal(result[0], [blue - 104, (green - 117) / 2, (red - 123) / 4])


@pytest.mark.parametrize("resize", [None, 30])
def test_bgr_is_the_picture_with_its_channels_turned_round(resize):
    image = noise(60, 80)
    bgr = Preprocessing(32, 33, resize, MEAN, STD, channel_order="bgr")(image)
    rgb_of_turned = Preprocessing(32, 33, resize, MEAN, STD)(image[..., ::-1])
    np.testing.assert_array_equal(bgr, rgb_of_turned)


def test_padding_is_black_before_normalisation():
    result = ours(np.full((10, 10, 3), 255, np.uint8), (14, 15), 10, "bilinear")
    black = -np.array(MEAN, np.float32) / np.array(STD, np.float32)
    np.testing.assert_array_equal(result[0, :, 0, 0], black)
    assert (result[0, 0, 2:12, 2:12] > 0).all()


@pytest.mark.parametrize(
    "change",
    [
        {"height": 0},
        {"width": 2.5},
        {"width": True},
        {"resize": 0},
        {"mean": (0.5, 0.5)},
        {"mean": (0.5, 0.5, float("nan"))},
        {"std": (0.2, 0, 0.2)},
        {"std": 0.2},
        {"interpolation": "lanczos"},
        {"interpolation": ["bilinear"]},
        {"antialias": None},
        {"channel_order": "gbr"},
        {"channel_order": ["rgb"]},
        {"scale": 0},
        {"scale": -255},
        {"scale": float("inf")},
        {"scale": "255"},
        {"scale": True},
        {"keep_aspect": 1},
        {"crop_rounding": "up"},
    ],
)
def test_a_value_that_a_field_does_not_take_is_named(change):
    fields = {"height": 224, "width": 224, "resize": 256, "mean": MEAN, "std": STD}
    (name, value), *_ = change.items()
    with pytest.raises(OptionError) as caught:
        Preprocessing(**(fields | change))
    assert f"{name}={value!r}: expected" in str(caught.value)


def test_fields_read_from_json_make_the_same_preprocessing():
    assert Preprocessing(224, 224, 256, list(MEAN), list(STD)) == Preprocessing(224, 224, 256, MEAN, STD)
    assert hash(Preprocessing(224, 224, 256, list(MEAN), list(STD))) is not None


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)])
def test_only_rgb_bytes_are_preprocessed(image):
    with pytest.raises(ImageError, match=r"uint8 \[H, W, 3\]"):
        ours(image, (8, 8), 8, "bilinear")


PLACES = [(375, 500), (500, 375), (40, 30), (600, 600), (224, 1000)]


@pytest.mark.parametrize("resize", [256, 180, None])
@pytest.mark.parametrize("size", PLACES)
def test_a_spot_that_the_model_sees_is_laid_back_to_where_it_is(size, resize):
    # Preprocess a photograph of one soft spot, take the tensor as the map, and lay it back.
    height, width = size
    at = np.array([0.55 * height, 0.47 * width])
    rows, columns = np.mgrid[:height, :width] + 0.5
    spread = 0.05 * min(size)
    spot = np.exp(-((rows - at[0]) ** 2 + (columns - at[1]) ** 2) / (2 * spread**2))
    preprocessing = Preprocessing(224, 224, resize, (0, 0, 0), (1, 1, 1))
    seen = preprocessing(np.repeat((255 * spot).round().astype(np.uint8)[..., None], 3, axis=2))[0, 0]
    laid, covered = preprocessing.geometry(height, width).to_original(seen)
    assert laid.dtype == np.float32
    assert laid.shape == covered.shape == size
    laid = np.where(covered, laid, 0)
    centroid = np.array([(laid * rows).sum(), (laid * columns).sum()]) / laid.sum()
    # A tenth of a pixel of the coarser of photograph and input.
    tolerance = 0.1 * max(1, height / 224, width / 224)
    np.testing.assert_allclose(centroid, at, atol=tolerance)
    np.testing.assert_allclose(laid.max(), 1, atol=0.12)


def test_the_geometry_of_a_landscape_photograph_is_torchvisions():
    geometry = Preprocessing(224, 224, 256, MEAN, STD).geometry(375, 500)
    assert geometry == CropGeometry(375, 500, 256, 341, 16, 58, 224, 224)


@pytest.mark.slow
@pytest.mark.whole
@pytest.mark.parametrize("size", [*PLACES, (1, 1), (1, 9)])
def test_covered_pixels_are_those_with_their_centre_in_the_crop(size):
    geometry = Preprocessing(224, 200, 256, MEAN, STD).geometry(*size)
    _, covered = geometry.to_original(np.zeros((224, 200), np.float32))
    for (y, x), inside in list(np.ndenumerate(covered))[:: max(1, covered.size // 5000)]:
        row = (y + 0.5) * geometry.resized_height / size[0] - geometry.top
        column = (x + 0.5) * geometry.resized_width / size[1] - geometry.left
        assert inside == (0 <= row < 224 and 0 <= column < 200)


def test_a_padded_photograph_is_covered_whole_and_takes_the_middle_of_the_map():
    geometry = Preprocessing(20, 20, 10, MEAN, STD).geometry(10, 10)
    saliency = np.random.default_rng(0).random((20, 20), np.float32)
    laid, covered = geometry.to_original(saliency)
    assert covered.all()
    np.testing.assert_array_equal(laid, saliency[5:15, 5:15])


def test_laying_back_is_bilinear_between_half_pixel_centres():
    geometry = Preprocessing(4, 4, None, MEAN, STD).geometry(9, 14)
    saliency = np.random.default_rng(0).random((4, 4), np.float32)
    laid, covered = geometry.to_original(saliency)
    expected = torch.nn.functional.interpolate(torch.from_numpy(saliency)[None, None], (9, 14), mode="bilinear")
    np.testing.assert_allclose(laid, expected[0, 0].numpy(), atol=1e-6)
    assert covered.all()


@pytest.mark.parametrize("shape", [(1, 1), (7, 7), (224, 224)])
def test_a_map_in_the_unit_interval_stays_there_on_the_photograph(shape):
    geometry = Preprocessing(224, 224, 256, MEAN, STD).geometry(375, 500)
    laid, _ = geometry.to_original(np.random.default_rng(0).integers(0, 2, shape).astype(np.float32))
    assert laid.min() >= 0
    assert laid.max() <= 1
    np.testing.assert_array_equal(geometry.to_original(np.ones(shape, np.float32))[0], 1)


def test_a_map_that_is_no_matrix_is_refused():
    with pytest.raises(ImageError, match=r"\[1, 7, 7\]"):
        Preprocessing(224, 224, 256, MEAN, STD).geometry(10, 10).to_original(np.zeros((1, 7, 7), np.float32))
