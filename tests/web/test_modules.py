"""The page's arithmetic without a browser: its modules, bundled for Node, against the Python that they mirror."""

import base64
import json
import subprocess

import cv2
import numpy as np
import pytest
from tests.web.conftest import WEB

from ortcam.bundle import Cut
from ortcam.classifier import as_maps
from ortcam.methods import GATES, Plan
from ortcam.noise import draw_noise
from ortcam.preprocessing import Preprocessing
from ortcam.rendering import COLORMAPS
from ortcam.scoring import prepare_masks
from ortcam.upsampling import upsample, upsampled_range

NAMES = ("preprocessing", "upsampling", "masks", "colormaps", "noise", "cut")
TYPES = {"Float32Array": np.float32, "Float64Array": np.float64, "Uint8Array": np.uint8}
RUN = """
import { readFileSync } from "node:fs";
const { module, body, given } = JSON.parse(readFileSync(0, "utf8"));
const own = await import(module);
const arrays = Object.fromEntries(Object.entries(given).map(([name, { type, data }]) => {
  const bytes = Uint8Array.from(Buffer.from(data, "base64"));
  return [name, new globalThis[type](bytes.buffer)];
}));
const out = new Function("own", "given", body)(own, arrays);
console.log(JSON.stringify(Object.entries(out).map(([name, array]) => {
  const typed = ArrayBuffer.isView(array) ? array : Float64Array.from(array);
  const bytes = Buffer.from(typed.buffer, typed.byteOffset, typed.byteLength);
  return [name, typed.constructor.name, bytes.toString("base64")];
})));
"""


@pytest.fixture(scope="module")
def call(node_modules, tmp_path_factory):
    """A function that runs a piece of JavaScript with a module (`own`) and arrays (`given`), and returns its arrays."""
    folder = tmp_path_factory.mktemp("modules")
    entries = [f"src/{name}.ts" for name in NAMES]
    bundle = ["node", node_modules / "rolldown" / "bin" / "cli.mjs", *entries, "--dir", folder, "--platform", "node"]
    subprocess.run(bundle, cwd=WEB, check=True, capture_output=True)
    (folder / "package.json").write_text('{"type": "module"}', "utf-8")
    script = folder / "run.mjs"
    script.write_text(RUN, "utf-8")

    def run(module, body, **given):
        names = {np.dtype(np.uint8): "Uint8ClampedArray", np.dtype(np.float32): "Float32Array"}
        arrays = {
            name: {"type": names[array.dtype], "data": base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()}
            for name, array in given.items()
        }
        asked = json.dumps({"module": str(folder / f"{module}.js"), "body": body, "given": arrays})
        done = subprocess.run(["node", script], input=asked, capture_output=True, text=True, check=True)
        return {
            name: np.frombuffer(base64.b64decode(data), TYPES[kind]) for name, kind, data in json.loads(done.stdout)
        }

    return run


BASE = {"height": 48, "width": 40, "resize": 56, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@pytest.mark.parametrize("size", [(90, 121), (333, 60), (31, 29), (56, 56), (400, 64)], ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"interpolation": "bicubic"},
        {"resize": None, "interpolation": "bicubic"},
        {"channel_order": "bgr", "scale": 255.0, "mean": (104.0, 117.0, 123.0), "std": (1.0, 57.0, 58.0)},
        {"keep_aspect": False, "crop_rounding": "down"},
        {"resize": 33, "crop_rounding": "down"},
        {"antialias": False},
    ],
    ids=str,
)
def test_preprocessing_is_that_of_python_bit_for_bit(call, size, options):
    preprocessing = Preprocessing(**BASE | options)
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    rgba = np.dstack([picture, np.full(size, 255, np.uint8)])
    values = json.dumps(preprocessing.__dict__)
    height, width = size
    body = f"return {{ input: own.preprocess({values}, {{ data: given.rgba, height: {height}, width: {width} }}) }};"
    found = call("preprocessing", body, rgba=rgba)["input"]
    np.testing.assert_array_equal(found, preprocessing(picture).ravel())


def test_upsampling_and_its_exact_range_are_those_of_python(call):
    maps = np.random.default_rng(0).standard_normal((6, 5, 7), np.float32)
    body = """
      const size = { height: 5, width: 7 };
      const range = own.upsampledRange({ data: given.maps, count: 6, ...size }, 32, 48);
      return { ...range, first: own.upsample(given.maps.subarray(0, 35), size, { height: 32, width: 48 }) };
    """
    found = call("upsampling", body, maps=maps)
    low, high = upsampled_range(maps, 32, 48)
    np.testing.assert_allclose(found["low"], low, rtol=1e-6)
    np.testing.assert_allclose(found["high"], high, rtol=1e-6)
    np.testing.assert_allclose(found["first"], upsample(maps[0].astype(float), 32, 48).ravel(), atol=1e-12)


@pytest.mark.parametrize("gate", [None, *GATES])
def test_masks_are_those_of_python(call, gate):
    rng = np.random.default_rng(0)
    features = np.maximum(rng.standard_normal((9, 4, 6), np.float32), 0)
    features[2] = 0
    features[4] = 0.5
    features[5] = -rng.random((4, 6), np.float32)
    plan = Plan(normalize=None, gate=gate) if gate else Plan(normalize="after-upsampling")
    expected = prepare_masks(features, plan, height=32, width=48)
    body = f"""
      const maps = {{ data: given.features, count: 9, height: 4, width: 6 }};
      const masks = own.prepareMasks(maps, {{ gate: {json.dumps(gate)} }}, 32, 48);
      return {{ maps: masks.maps.data, order: masks.order, energy: masks.energy }};
    """
    found = call("masks", body, features=features)
    np.testing.assert_array_equal(found["order"], expected.order)
    np.testing.assert_allclose(found["maps"], expected.maps.ravel(), atol=1e-6)
    np.testing.assert_allclose(found["energy"], expected.energy, rtol=1e-12)


@pytest.mark.parametrize("layout", ["nchw", "nhwc", "tokens"])
def test_maps_are_taken_from_features_of_every_layout_as_in_python(call, layout):
    shape = {"nchw": (1, 5, 2, 3), "nhwc": (1, 2, 3, 5), "tokens": (1, 1 + 6, 5)}[layout]
    features = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    cut = {"layout": layout, "channels": 5, "height": 2, "width": 3, "prefix_tokens": int(layout == "tokens")}
    found = call("cut", f"return own.asMaps(given.features, {json.dumps(cut)})", features=features)
    expected = as_maps(features, Cut(tensor="x", module=None, **cut))
    np.testing.assert_array_equal(found["data"], expected.ravel())


@pytest.mark.parametrize("name", COLORMAPS)
def test_colormaps_are_those_of_opencv(call, name):
    table = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[None], getattr(cv2, f"COLORMAP_{name.upper()}"))
    found = call("colormaps", f"return {{ table: own.colours({json.dumps(name)}) }};")["table"]
    np.testing.assert_array_equal(found.reshape(256, 3), table[0, :, ::-1])


@pytest.mark.parametrize(("seed", "sample"), [(0, 0), (3, 1), (2**32 - 1, 34), (2**40 + 5, 2)])
def test_the_noise_is_pythons(call, seed, sample):
    drawn = call("noise", f"return {{ noise: own.drawNoise(150001, {seed}, {sample}) }};")["noise"]
    np.testing.assert_allclose(drawn, draw_noise(seed, sample, (150001,)), atol=2e-6)


def test_shuffling_loses_nothing(call):
    order = call("noise", "return { order: Float64Array.from(own.shuffled([...Array(50).keys()])) };")["order"]
    assert sorted(order) == list(range(50))
    assert abs(np.corrcoef(order, np.arange(50))[0, 1]) < 0.5
