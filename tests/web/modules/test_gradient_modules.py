"""The page's formulas of the gradient methods, of Recipro-CAM and of "auto" without a browser, against Python's."""

import dataclasses
import json

import numpy as np
import pytest
from tests.web.conftest import SHIPPED, WEB

from ortcam.bundle import Gradient, GradientParity, read_bundle
from ortcam.methods.auto import AUTO, kind_of, row_of
from ortcam.methods.gradient_formulas import (
    SmoothGradCamPlusPlus,
    finer_seeds,
    grad_cam,
    grad_cam_plus_plus,
    hires_cam,
    layer_cam,
    xgrad_cam,
)
from ortcam.methods.head_only import recipro_cam
from ortcam.methods.masked import MASKED_METHODS
from ortcam.scoring.maps import fuse


@pytest.fixture
def slope():
    """Maps of a layer with a channel that is zero and gradients with zeros: float32 [9,4,6] twice."""
    rng = np.random.default_rng(0)
    maps = np.maximum(rng.standard_normal((9, 4, 6), np.float32), 0)
    maps[2] = 0
    gradients = rng.standard_normal((9, 4, 6), np.float32)
    gradients[3] = 0
    return maps, gradients


SLOPE = """
  const size = { count: 9, height: 4, width: 6 };
  const slope = { maps: { data: given.maps, ...size }, gradient: { data: given.gradients, ...size } };
"""
FORMULAS = {
    "grad-cam": grad_cam,
    "grad-cam++": grad_cam_plus_plus,
    "xgrad-cam": xgrad_cam,
    "layer-cam": layer_cam,
    "hires-cam": hires_cam,
    "finer-cam": grad_cam,
}


@pytest.mark.sample(every=6)
@pytest.mark.whole
@pytest.mark.parametrize("signed", [False, True], ids=["relu", "signed"])
@pytest.mark.parametrize("method", FORMULAS)
def test_maps_by_gradients_are_those_of_python(call, slope, method, signed):
    maps, gradients = slope
    if signed:
        maps = maps - np.float32(0.4)
    body = f"{SLOPE} return own.gradientMap({json.dumps(method)}, slope);"
    found = call(
        "gradient", body.replace("return", "const { data } =") + "return { data };", maps=maps, gradients=gradients
    )
    expected, _ = FORMULAS[method](maps, gradients[None])
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(found["data"], expected.ravel(), rtol=1e-9, atol=1e-9 * np.abs(expected).max())


def test_a_map_that_cancels_is_zero_as_in_python(call, slope):
    maps, gradients = slope
    maps, gradients = np.concatenate([maps, -maps]), np.concatenate([gradients, gradients * np.float32(1 + 1e-7)])
    body = SLOPE.replace("count: 9", "count: 18") + "return { data: own.gradientMap('hires-cam', slope).data };"
    found = call("gradient", body, maps=maps, gradients=gradients)
    assert not hires_cam(maps, gradients[None])[0].any()
    assert not found["data"].any()


def test_gradients_of_noisy_images_are_averaged_as_in_python(call, slope):
    maps, gradients = slope
    others = [gradients, gradients[::-1].copy(), np.abs(gradients)]
    body = f"""{SLOPE}
      const sums = new own.SmoothSums(slope.maps);
      for (const data of [given.gradients, given.second, given.third]) sums.add({{ gradient: {{ data }} }});
      return {{ data: sums.map().data }};
    """
    found = call("gradient", body, maps=maps, gradients=gradients, second=others[1], third=others[2])
    smooth = SmoothGradCamPlusPlus()
    for item in others:
        smooth.add(item[None])
    expected, _ = smooth.weighed(maps)
    np.testing.assert_allclose(found["data"], expected.ravel(), rtol=1e-9, atol=1e-9 * np.abs(expected).max())


def test_layers_are_fused_as_in_python(call):
    rng = np.random.default_rng(0)
    coarse, fine, dark = rng.standard_normal((1, 3, 4)), rng.standard_normal((1, 6, 8)), -rng.random((1, 6, 8))
    body = """
      const raws = [
        { data: given.coarse, height: 3, width: 4 },
        { data: given.fine, height: 6, width: 8 },
        { data: given.dark, height: 6, width: 8 },
      ];
      return { data: own.fuse(raws, { height: 48, width: 64 }).data };
    """
    found = call("gradient", body, coarse=coarse, fine=fine, dark=dark)
    np.testing.assert_allclose(found["data"], fuse([coarse, fine, dark], 48, 64).ravel(), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("references", [1, 3, 20])
def test_finer_cam_differentiates_what_it_does_in_python(call, references):
    logits = np.random.default_rng(0).standard_normal(9, np.float32)
    logits[4] = logits[7]  # a tie
    body = f"return {{ seed: own.finerSeed(given.logits, 2, {{ strength: 0.6, references: {references} }}) }};"
    found = call("gradient", body, logits=logits)
    expected = finer_seeds(logits, np.array([2]), strength=0.6, references=references, weighting="mean")
    np.testing.assert_allclose(found["seed"], expected[0], atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["single", "gaussian", "gaussian-spread"])
def test_recipro_cam_alters_the_features_as_in_python(call, kernel):
    maps = np.random.default_rng(0).standard_normal((5, 3, 4), np.float32)
    altered = []

    class Recorder:
        def scores(self, count, left, **_):
            altered.extend(left(np.arange(count)))
            return np.zeros((count, 1))

    recipro_cam(maps, np.zeros((0, 5)), Recorder(), targets=np.array([0]), kernel=kernel, score="probability")
    body = f"""
      const maps = {{ data: given.maps, count: 5, height: 3, width: 4 }};
      const all = Array.from({{ length: 12 }}, (_, at) => [...own.onlyAt(maps, at, {json.dumps(kernel)})]);
      return {{ all: Float32Array.from(all.flat()) }};
    """
    found = call("recipro", body, maps=maps)
    np.testing.assert_allclose(found["all"].reshape(12, 5, 3, 4), np.stack(altered), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["nchw", "nhwc", "tokens"])
def test_altered_maps_go_back_into_features_of_every_layout(call, layout):
    shape = {"nchw": (1, 5, 2, 3), "nhwc": (1, 2, 3, 5), "tokens": (1, 1 + 6, 5)}[layout]
    features = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    cut = {"layout": layout, "channels": 5, "height": 2, "width": 3, "prefix_tokens": int(layout == "tokens")}
    body = f"""
      const cut = {json.dumps(cut)};
      const altered = own.asMaps(given.features, cut).data.map((value) => -value);
      return {{ features: own.fromMaps(altered, given.features, cut) }};
    """
    found = call("cut", body, features=features)["features"].reshape(shape)
    expected = -features
    if layout == "tokens":
        expected[:, 0] = features[:, 0]
    np.testing.assert_array_equal(found, expected)


def test_the_table_of_auto_is_that_of_python():
    found = json.loads((WEB / "src" / "methods" / "auto.json").read_text("utf-8"))
    expected = [dataclasses.asdict(row) for row in AUTO]
    assert found == expected, json.dumps(expected, indent=1)


def _manifests():
    """Manifests of every kind of bundle."""
    shipped = read_bundle(SHIPPED).manifest
    parity = GradientParity(inputs=1, differences=0.0, autograd=None, tolerance=1e-4)
    gradients = [
        None,
        Gradient("g.onnx", (), parity),
        Gradient("g.onnx", ("features",), parity),
        Gradient("g.onnx", ("features",), parity, attention_heads=3),
    ]
    for gradient in gradients:
        for layout in ("nchw", "nhwc", "tokens"):
            for head in (shipped.graphs.head, None):
                yield dataclasses.replace(
                    shipped,
                    gradient=gradient,
                    cut=dataclasses.replace(shipped.cut, layout=layout),
                    graphs=dataclasses.replace(shipped.graphs, head=head),
                )


def test_auto_takes_the_method_of_python_for_every_kind_of_bundle(call):
    manifests = list(_manifests())
    facts = [{key: dataclasses.asdict(item)[key] for key in ("gradient", "graphs", "cut")} for item in manifests]
    body = f"""
      const all = {json.dumps(facts)};
      const kinds = (facts) => [own.kindOf(facts, false), own.kindOf(facts, true)];
      const said = all.map((facts) => [...kinds(facts), own.chooseMethod(facts).line]);
      return {{ said: new TextEncoder().encode(JSON.stringify(said)) }};
    """
    found = json.loads(call("auto", body)["said"].tobytes())
    masked = {method.name for method in MASKED_METHODS}
    for (kind, limited, line), manifest in zip(found, manifests, strict=True):
        assert (kind, limited) == (kind_of(manifest), kind_of(manifest, limited=True))
        row = row_of(manifest)
        # The page refines maps of masks while one watches, so that they always have limits.
        assert line == (row_of(manifest, limited=True) if row.method in masked else row).line
    assert len({kind for kind, _, _ in found}) == 8
