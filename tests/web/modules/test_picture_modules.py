"""Pictures of any channels on the page, without a browser: its modules against the Python that they mirror."""

import dataclasses
import io
import json

import cv2
import numpy as np
import pytest
from tests.web.conftest import SHIPPED

from ortcam.images.preprocessing import Preprocessing
from ortcam.images.samples import read_samples
from ortcam.scoring.gaussian_process import MaskModel

BASE = Preprocessing(48, 40, 56, (0.1307,), (0.3081,), channel_order="grey")
BANDS = Preprocessing(
    48, 40, 56, (0.1, 0.2, 0.3, 0.4), (0.5, 1.0, 2.0, 3.0), channel_order="bands", value_range=(-100.0, 3000.0)
)
HUGE = dataclasses.replace(BANDS, scale=1e5)
DEEP = dataclasses.replace(BASE, value_range=(0.0, 65535.0))


def text(preprocessing):
    return json.dumps(dataclasses.asdict(preprocessing))


@pytest.mark.sample(every=6)
@pytest.mark.parametrize("size", [(90, 121), (333, 60), (31, 29)], ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"channel_order": "grey-opencv", "interpolation": "bicubic"},
        {"channel_order": "grey-opencv", "resize": 33},
        {"antialias": False},
    ],
    ids=str,
)
def test_grey_is_pythons_bit_for_bit(call, size, options):
    preprocessing = dataclasses.replace(BASE, **options)
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    rgba = np.dstack([picture, np.full(size, 255, np.uint8)])
    height, width = size
    body = f"""
      const photograph = {{ data: given.rgba, height: {height}, width: {width} }};
      return {{ input: own.preprocess({text(preprocessing)}, photograph) }};
    """
    found = call("preprocessing", body, rgba=rgba)["input"]
    np.testing.assert_array_equal(found, preprocessing(picture).ravel())


@pytest.mark.slow
@pytest.mark.parametrize("size", [(90, 121), (31, 29), (48, 40)], ids=str)
@pytest.mark.parametrize(
    "options",
    [{}, {"interpolation": "bicubic", "resize": 33}, {"antialias": False}, {"resize": None, "scale": 255.0}],
    ids=str,
)
def test_samples_are_resampled_as_in_python(call, size, options):
    preprocessing = dataclasses.replace(BANDS, **options)
    samples = np.random.default_rng(0).uniform(-300, 3000, (*size, 4)).astype(np.float32)
    height, width = size
    body = f"""
      const samples = {{ data: given.samples, height: {height}, width: {width}, channels: 4 }};
      return {{ input: own.preprocessSamples({text(preprocessing)}, samples) }};
    """
    found = call("preprocessing", body, samples=samples)["input"]
    expected = preprocessing(samples).ravel()
    # Sums in float64 in another order: the last bit may round to the neighbour, before the mean and after it.
    largest = np.abs(expected).max() + np.abs(np.array(preprocessing.mean) / preprocessing.std).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=4 * 2**-24 * largest)


# The pieces run in a function that is not asynchronous itself.
READ = """return (async () => {
  const file = new Blob([new Uint8Array(given.file.buffer)]);
  const { pixels, input } = await own.readPicture(%s, file, "picture");
  return { input, pixels: Uint8Array.from(pixels.data), size: [pixels.height, pixels.width] };
})();"""


def npy(array, version=None):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version)
    return np.frombuffer(file.getvalue(), np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("array", "version"),
    [
        (np.random.default_rng(0).uniform(-300, 3000, (60, 70, 4)).astype("<f4"), None),
        (np.random.default_rng(0).uniform(-300, 3000, (4, 60, 70)).astype(">f8"), (2, 0)),
        (np.asfortranarray(np.random.default_rng(0).integers(-300, 3000, (60, 70, 4)).astype(">i2")), None),
        (np.random.default_rng(0).uniform(-300, 2000, (60, 70, 4)).astype("<f2"), (3, 0)),
        (np.random.default_rng(0).integers(0, 255, (60, 70, 4), np.uint8), None),
    ],
    ids=["float32", "float64 with its channels first", "int16 in Fortran's order", "float16", "uint8"],
)
def test_an_array_of_bands_is_the_picture_that_python_reads(call, array, version):
    found = call("picture", READ % text(BANDS), file=npy(array, version))
    samples = read_samples(array, BANDS, max_pixels=10**6)
    largest = np.abs(BANDS(samples)).max() + 0.4
    np.testing.assert_allclose(found["input"], BANDS(samples).ravel(), rtol=0, atol=4 * 2**-24 * largest)
    shown = found["pixels"].reshape(*found["size"].astype(int), 4)
    # A level between two may go either way: the percentiles are sums in float64.
    np.testing.assert_allclose(shown[..., :3].astype(int), BANDS.render(samples).astype(int), atol=1)
    assert (shown[..., 3] == 255).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "preprocessing", "message"),
    [
        (npy(np.zeros((60, 70, 3), np.float32)), BANDS, "picture has the shape [60, 70, 3]; accepted: [H, W, C]"),
        (npy(np.zeros((4, 60, 4), np.float32)), BANDS, "with its channels first or last"),
        (npy(np.full((60, 70, 4), np.nan, np.float32)), BANDS, "infinite or not a number"),
        (
            npy(np.full((60, 70, 4), 3e38, np.float32)),
            dataclasses.replace(BANDS, scale=1e5),
            "accepted are samples of the order of -100 to 3000",
        ),
        (npy(np.zeros((60, 70, 4), np.complex64)), BANDS, "samples of the type <c8"),
        (npy(np.zeros((60, 70, 4), np.float32))[:-1], BANDS, "picture is truncated"),
        (npy(np.zeros((60, 70, 3), np.float32)), BASE, "this model takes levels of 8 bits (uint8)"),
        (np.frombuffer(b"II*\0" + bytes(20), np.uint8), BANDS, "picture is a TIFF file, which browsers do not read"),
        (np.frombuffer(b"PK\3\4" + bytes(20), np.uint8), DEEP, "picture is an archive"),
    ],
    ids=["bands", "axes", "nan", "large", "complex", "truncated", "levels", "tiff", "npz"],
)
def test_what_a_model_does_not_take_is_said_in_a_sentence(call, file, preprocessing, message):
    body = READ % text(preprocessing)
    failed = "catch (error) { return { said: new TextEncoder().encode(error.message) }; }"
    wrapped = body.replace("=> {", "=> { try {", 1).replace("})();", f"}} {failed} }})();")
    said = call("picture", wrapped, file=file)["said"].tobytes().decode()
    assert message in said


def test_an_array_of_levels_is_a_picture_of_a_model_of_levels(call):
    levels = np.random.default_rng(0).integers(0, 256, (60, 70, 3), np.uint8)
    found = call("picture", READ % text(BASE), file=npy(levels))
    np.testing.assert_array_equal(found["input"], BASE(levels).ravel())
    shown = found["pixels"].reshape(60, 70, 4)
    np.testing.assert_array_equal(shown[..., :3], BASE.render(levels))


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_png_of_16_bits_keeps_them(call, channels):
    samples = np.random.default_rng(0).integers(0, 65536, (21, 17, channels), np.uint16)
    stored = samples[..., [2, 1, 0, 3][:channels]] if channels > 1 else samples
    _, encoded = cv2.imencode(".png", stored)
    body = """
      return own.decodePngSamples(new Uint8Array(given.file.buffer)).then(({ data }) => ({ data }));
    """
    np.testing.assert_array_equal(call("png", body, file=encoded)["data"], samples.ravel())


def test_percentiles_stretch_bands_as_in_python(call):
    samples = np.random.default_rng(0).normal(0, 1000, (50, 33, 4)).astype(np.float32)
    samples[..., 2] = 7  # flat: black
    shown = dataclasses.replace(BANDS, display=(3, 2, 0))
    body = """
      const samples = { data: given.samples, height: 50, width: 33, channels: 4 };
      return { data: Uint8Array.from(own.stretched(samples, [3, 2, 0]).data) };
    """
    found = call("stretching", body, samples=samples)["data"].reshape(50, 33, 4)[..., :3].astype(int)
    np.testing.assert_allclose(found, shown.render(samples).astype(int), atol=1)
    assert found[..., 1].max() == 0


def manifest(**changes):
    raw = json.loads((SHIPPED / "bundle.json").read_text("utf-8"))
    return {**raw, **changes}


def parsed(call, raw, what):
    body = f"""
      try {{
        const manifest = own.parseManifest({json.dumps(raw)}, "bundle.json");
        return {{ said: new TextEncoder().encode(JSON.stringify({what})) }};
      }} catch (error) {{ return {{ said: new TextEncoder().encode(error.message) }}; }}
    """
    return call("manifest", body)["said"].tobytes().decode()


def of_schema_5(**changes):
    raw = manifest(schema=5, output_shape=[7], inputs={})
    raw["preprocessing"] = raw["preprocessing"] | {"value_range": None, "display": None}
    raw["graphs"] = raw["graphs"] | {"score_terms": ["logits", "probabilities", "direction", "entropy", "one"]}
    return raw | changes


def test_an_older_manifest_is_brought_up_to_schema_5(call):
    raw = manifest(schema=4)
    raw["preprocessing"] = {
        name: value for name, value in raw["preprocessing"].items() if name not in ("value_range", "display")
    }
    raw["graphs"] = {name: value for name, value in raw["graphs"].items() if name != "score_terms"}
    raw = {name: value for name, value in raw.items() if name not in ("output_shape", "inputs")}
    told = parsed(call, raw, "[manifest.output_shape, manifest.preprocessing.value_range, own.scoreLength(manifest)]")
    assert json.loads(told) == [[7], None, 0]


def test_the_length_of_a_score_follows_from_its_terms(call):
    assert json.loads(parsed(call, of_schema_5(), "own.scoreLength(manifest)")) == 3 * 7 + 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output_shape": [8]}, "labels is"),
        ({"output_shape": []}, "bundle.json.output_shape is []: accepted is whole numbers from 1"),
        ({"labels": [], "output_shape": [84, 2]}, '"identity"'),
    ],
    ids=["labels", "empty", "tensor"],
)
def test_outputs_and_labels_have_to_fit(call, changes, message):
    raw = of_schema_5(**changes) | ({"activation": "identity"} if "labels" in changes else {})
    assert message in parsed(call, raw, "manifest.activation")


@pytest.mark.parametrize(("value", "said"), [(0.123456, "12.3 %"), (1.0, "100.0 %")])
def test_probabilities_are_said_as_percents(call, value, said):
    assert in_words(call, value, probability=True) == said


@pytest.mark.sample(every=3)
@pytest.mark.whole
@pytest.mark.parametrize(
    ("value", "said"), [(-3.14159, "-3.142"), (1234.56, "1235"), (0.0, "0"), (1.5e-7, "1.5e-7"), (2.0, "2")]
)
def test_values_are_said_in_four_digits(call, value, said):
    assert in_words(call, value, probability=False) == said


def in_words(call, value, *, probability):
    body = f"return {{ said: new TextEncoder().encode(own.valueInWords({value}, {json.dumps(probability)})) }};"
    return call("words", body)["said"].tobytes().decode()


@pytest.mark.slow
def test_the_process_over_values_of_either_sign_is_pythons(call):
    rng = np.random.default_rng(0)
    channels, size = 60, (7, 7)
    masks = cv2.GaussianBlur(rng.random((channels * size[0], size[1])), (0, 0), 1).reshape(channels, *size)
    masks = ((masks - masks.min()) / np.ptp(masks)).astype(np.float32)
    values = masks.reshape(channels, -1) @ rng.standard_normal(49) + 0.1 * rng.standard_normal(channels)
    given = np.sort(rng.choice(channels, 20, replace=False))
    model = MaskModel(masks)
    prediction = model.condition(given, values[given, None], signed=True)
    assert (prediction.weights < 0).any()
    body = f"""
      const model = new own.MaskModel({{ data: given.masks, count: {channels}, height: 7, width: 7 }}, true);
      const {{ weights, deviation }} = model.condition([...given.scored], given.values);
      return {{ weights, deviation }};
    """
    found = call("gaussian_process", body, masks=masks, scored=given.astype(np.float32), values=values)
    # As of positive weights: Python's distances and kernels are float32.
    largest = np.abs(values).max()
    np.testing.assert_allclose(found["weights"], prediction.weights[:, 0], rtol=1e-3, atol=1e-3 * largest)
    np.testing.assert_allclose(found["deviation"], prediction.deviation[:, 0], rtol=5e-3, atol=1e-3 * largest)
