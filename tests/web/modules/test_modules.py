"""The page's arithmetic without a browser: its modules, bundled for Node, against the Python that they mirror."""

import json

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from tests.web.conftest import SHIPPED

from ortcam.bundle import GATES, Cut
from ortcam.bundle.gates import GATE_FUNCTIONS
from ortcam.engine.features import as_maps
from ortcam.images.preprocessing import Preprocessing
from ortcam.images.rendering import COLORMAPS, smoothed
from ortcam.methods import Plan
from ortcam.scoring.gaussian_process import MaskModel
from ortcam.scoring.masks import prepare_masks
from ortcam.scoring.noise import draw_noise
from ortcam.scoring.upsampling import upsample, upsampled_range

BASE = {"height": 48, "width": 40, "resize": 56, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["nchw", "nhwc", "tokens"])
def test_maps_are_taken_from_features_of_every_layout_as_in_python(call, layout):
    shape = {"nchw": (1, 5, 2, 3), "nhwc": (1, 2, 3, 5), "tokens": (1, 1 + 6, 5)}[layout]
    features = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    cut = {"layout": layout, "channels": 5, "height": 2, "width": 3, "prefix_tokens": int(layout == "tokens")}
    found = call("cut", f"return own.asMaps(given.features, {json.dumps(cut)})", features=features)
    expected = as_maps(features, Cut(tensor="x", module=None, **cut))
    np.testing.assert_array_equal(found["data"], expected.ravel())


@pytest.mark.slow
@pytest.mark.parametrize("name", COLORMAPS)
def test_colormaps_are_those_of_opencv(call, name):
    table = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[None], getattr(cv2, f"COLORMAP_{name.upper()}"))
    found = call("colormaps", f"return {{ table: own.colours({json.dumps(name)}) }};")["table"]
    np.testing.assert_array_equal(found.reshape(256, 3), table[0, :, ::-1])


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "sample"), [(0, 0), (3, 1), (2**32 - 1, 34), (2**40 + 5, 2)])
def test_the_noise_is_pythons(call, seed, sample):
    drawn = call("noise", f"return {{ noise: own.drawNoise(150001, {seed}, {sample}) }};")["noise"]
    np.testing.assert_allclose(drawn, draw_noise(seed, sample, (150001,)), atol=2e-6)


def test_shuffling_loses_nothing(call):
    order = call("noise", "return { order: Float64Array.from(own.shuffled([...Array(50).keys()])) };")["order"]
    assert sorted(order) == list(range(50))
    assert abs(np.corrcoef(order, np.arange(50))[0, 1]) < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("name", GATE_FUNCTIONS)
def test_gates_are_those_of_python(call, name):
    values = np.linspace(-12, 12, 4001, dtype=np.float32)
    found = call("gates", f"return {{ out: given.values.map(own.gateFunction({json.dumps(name)})) }};", values=values)
    np.testing.assert_allclose(found["out"], GATE_FUNCTIONS[name](values), atol=2e-6)  # up to 12, in float32


def _weights(masks, rng):
    """Weights that are a smooth function of the masks, with a little noise: float64 [L]."""
    direction = rng.standard_normal(masks[0].size)
    slope = masks.reshape(len(masks), -1) @ direction
    return np.exp(slope / np.abs(slope).max() * 4 - 4 + 0.1 * rng.standard_normal(len(masks)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("channels", "size", "scored"),
    [(60, (7, 7), 20), (300, (6, 9), 90), (40, (16, 20), 8), (700, (7, 7), 560)],
    ids=["few", "oblong", "fine", "many"],  # of the last more are scored than the others are predicted from
)
def test_the_gaussian_process_predicts_and_doubts_as_in_python(call, channels, size, scored):
    rng = np.random.default_rng(0)
    masks = cv2.GaussianBlur(rng.random((channels * size[0], size[1])), (0, 0), 1).reshape(channels, *size)
    masks = (masks - masks.min()) / np.ptp(masks)
    masks = masks.astype(np.float32)
    weights = _weights(masks, rng)
    given = np.sort(rng.choice(channels, scored, replace=False))
    model = MaskModel(masks)
    prediction = model.condition(given, weights[given, None])
    summands = (masks * rng.random((channels, 1, 1))).astype(np.float32)
    error = model.map_error(prediction, summands, np.zeros(1))
    cells = min(size[0], 7) * min(size[1], 7)
    body = f"""
      const shape = {{ count: {channels}, height: {size[0]}, width: {size[1]} }};
      const model = new own.MaskModel({{ data: given.masks, ...shape }});
      const prediction = model.condition([...given.scored], given.weights);
      const error = model.mapError(prediction, {{ data: given.summands, ...shape }}, given.normals);
      const drawn = model.mapError(prediction, {{ data: given.summands, ...shape }});
      const {{ weights, deviation }} = prediction;
      return {{ weights, deviation, error: [error], drawn: [drawn] }};
    """
    found = call(
        "gaussian_process",
        body,
        masks=masks,
        summands=summands,
        scored=given.astype(np.float32),
        weights=weights,
        normals=np.random.default_rng(0).standard_normal((96, cells)),
    )
    # Python's distances and kernels are float32. A variance is what such a sum leaves of 1: its root is known to 1e-3.
    np.testing.assert_allclose(found["weights"], prediction.weights[:, 0], rtol=1e-3, atol=1e-4 * weights.max())
    np.testing.assert_allclose(found["deviation"], prediction.deviation[:, 0], rtol=5e-3, atol=1e-3 * weights.max())
    assert found["error"] == pytest.approx(error, rel=0.02)
    assert found["drawn"] == pytest.approx(error, rel=0.5)  # other draws: the tail of 96


def test_the_root_of_a_symmetric_matrix_is_found(call):
    rng = np.random.default_rng(0)
    square = rng.standard_normal((30, 12))
    square = square.T @ square
    body = """
      const { values, vectors } = own.symmetricEigen({ data: given.square, rows: 12, columns: 12 });
      return { values, vectors: vectors.data };
    """
    found = call("linear_algebra", body, square=square)
    vectors = found["vectors"].reshape(12, 12)
    np.testing.assert_allclose(np.sort(found["values"]), np.linalg.eigvalsh(square), rtol=1e-10)
    np.testing.assert_allclose(vectors * found["values"] @ vectors.T, square, atol=1e-10 * np.abs(square).max())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["scorer-tanh.onnx", "scorer-linear.onnx"])
def test_a_scorer_loses_its_sum_and_gives_the_same_probabilities(call, name):
    model = np.frombuffer((SHIPPED / name).read_bytes(), np.uint8)
    body = """
      const model = new Uint8Array(given.model.buffer);
      return { pruned: own.withoutOutput(model, "partial_maps") };
    """
    pruned = call("onnx_outputs", body, model=model)["pruned"].tobytes()
    outputs = ["probabilities", "logits"]
    weights = {"weights.bin": (SHIPPED / "weights.bin").read_bytes()}
    found, whole = (_scores(content, weights, outputs) for content in (pruned, model.tobytes()))
    np.testing.assert_array_equal(found, whole)
    assert (pruned == model.tobytes()) == (name == "scorer-linear.onnx")
    graph = onnx.load_model_from_string(pruned).graph
    assert [value.name for value in graph.output] == outputs
    read = {text for node in graph.node for text in node.input} | set(outputs)
    assert all(read & set(node.output) for node in graph.node)  # nothing is computed that nobody reads


def _scores(model, weights, outputs):
    settings = onnxruntime.SessionOptions()
    names, values = list(weights), list(weights.values())
    settings.add_external_initializers_from_files_in_memory(names, values, [len(value) for value in values])
    session = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    feeds = {
        "image": rng.standard_normal((1, 3, 224, 224), np.float32),
        "maps": rng.random((1, 1024, 7, 7), np.float32),
        "channels": np.array([3, 900]),
        "targets": np.arange(7),
        "scale": np.ones(2, np.float32),
        "keep": np.ones(2, np.float32),
        "baseline": np.zeros(7, np.float32),
        "logit_softmax": np.array(False),
    }
    scores = [value for value in session.get_inputs() if value.name == "score"]
    feeds |= {value.name: np.zeros((1, value.shape[1]), np.float32) for value in scores}
    return session.run(outputs, {value.name: feeds[value.name] for value in session.get_inputs()})[0]


def test_maps_are_smoothed_as_in_python(call):
    saliency = cv2.resize(np.random.default_rng(0).random((5, 7), np.float32), (56, 40))
    body = """
      const map = { data: given.saliency, height: 40, width: 56 };
      return own.smoothed(map, { height: 5, width: 7 });
    """
    found = call(
        "rendering", body.replace("return own", "const { data } = own") + "return { data };", saliency=saliency
    )
    np.testing.assert_allclose(found["data"].reshape(40, 56), smoothed(saliency, (8, 8)), atol=1e-5)
