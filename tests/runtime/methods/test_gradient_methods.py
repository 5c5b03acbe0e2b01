"""Gradient methods on a bundle: what they give and cost, the layers they take, and what is refused."""

import dataclasses
import json
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.common.engines import Call, Outputs, recorded
from tests.common.tolerances import maps_apart
from tests.conftest import reseal

import ortcam
from ortcam.bundle import MANIFEST_NAME, Cut
from ortcam.cli import main
from ortcam.engine.features import all_maps, from_maps
from ortcam.engine.model import Model
from ortcam.errors import OutOfMemoryError
from ortcam.methods import GRADIENT_METHODS, METHODS, Derivative, Layer, one_hot, register, resolve_method
from ortcam.methods.gradient import layer_places

NAMES = ("grad-cam", "grad-cam++", "xgrad-cam", "layer-cam", "hires-cam", "smooth-grad-cam++", "finer-cam")
# Two classes are called "crane", so the classes are named by their index.
SEVERAL = [4, 0, 2]


@pytest.fixture(scope="module")
def explainer(tiny_bundle: Path) -> ortcam.Explainer:
    return ortcam.load(tiny_bundle, providers=["CPUExecutionProvider"])


@pytest.fixture
def no_gradient(bundle_copy: Path) -> Path:
    """The tiny bundle as it would be if its head could not be differentiated."""
    (bundle_copy / "gradient.onnx").unlink()
    manifest = json.loads((bundle_copy / MANIFEST_NAME).read_text("utf-8"))
    changes = {"gradient": None, "no_gradient": "its operator ArgMax has no derivative"}
    (bundle_copy / MANIFEST_NAME).write_text(json.dumps(manifest | changes))
    reseal(bundle_copy)
    return bundle_copy


def apart(explainer: ortcam.Explainer, photograph: Path) -> float:
    """How far two finished maps of the tiny classifier may be apart by rounding: gradients are sums like its logits."""
    logits = explainer.logits(1, lambda _: explainer.preprocess(photograph))
    return maps_apart(logits, explainer.bundle.manifest.cut.channels)


# What they give -------------------------------------------------------------------------------------------------------


def test_the_rows_are_those_of_the_reference() -> None:
    assert tuple(method.name for method in GRADIENT_METHODS) == NAMES
    first = tuple(METHODS).index(GRADIENT_METHODS[0])
    assert tuple(METHODS)[first : first + len(NAMES)] == GRADIENT_METHODS
    assert not any(method.masks_image or method.needs_head for method in GRADIENT_METHODS)
    assert [method.name for method in METHODS if method.needs_gradient] == [*NAMES, "grad-attention"]


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("gradcam", "grad-cam"),
        ("Grad-CAM", "grad-cam"),
        ("gradcam++", "grad-cam++"),
        ("GradCAMpp", "grad-cam++"),
        ("XGradCAM", "xgrad-cam"),
        ("layercam", "layer-cam"),
        ("HiResCAM", "hires-cam"),
        ("SmoothGradCAMpp", "smooth-grad-cam++"),
        ("smooth-grad-cam++", "smooth-grad-cam++"),
        ("FinerCAM", "finer-cam"),
    ],
)
def test_they_have_the_names_people_type(typed: str, name: str) -> None:
    assert resolve_method(typed, {}).method.name == name


@pytest.mark.parametrize("method", NAMES)
def test_an_explanation_has_the_documented_shapes_types_and_counts(
    explainer: ortcam.Explainer, photograph: Path, method: str
) -> None:
    seen: list[tuple[int, int]] = []
    e = explainer.explain(photograph, method=method, top_k=3, progress=lambda *counts: seen.append(counts))
    assert e.maps.shape == (3, 32, 48)
    assert e.raw_maps.shape == (3, 8, 12)
    assert e.weights.shape == (3, 10)
    assert e.maps.dtype == e.raw_maps.dtype == e.weights.dtype == np.float32
    assert [float(m.max()) for m in e.maps[~e.flat]] == [1.0] * int((~e.flat).sum())
    assert e.maps.min() == 0
    samples = 4 if method == "smooth-grad-cam++" else 1
    assert (e.stats.passes, e.stats.head_passes, e.stats.gradient_passes) == (0, 0, 3 * samples)
    assert e.stats.runs == samples
    assert seen == [(3 * samples, 3 * samples)]
    assert f"{3 * samples} backward passes" in repr(e)
    assert e.summary()["layers"] == [explainer.bundle.manifest.cut.module]
    json.dumps(e.summary())


@pytest.mark.parametrize("method", NAMES)
def test_classes_cost_one_forward_pass_and_one_batch_of_backward_passes(
    tiny_bundle: Path, photograph: Path, method: str
) -> None:
    explainer, engine = recorded(tiny_bundle)
    explainer.explain(photograph, method=method, top_k=5)
    manifest = explainer.bundle.manifest
    graphs, gradient = manifest.graphs, manifest.gradient
    assert gradient is not None
    samples = 4 if method == "smooth-grad-cam++" else 0
    runs = [(call.graph, call.rows) for call in engine.calls]
    forward = [(graphs.features, 1), (graphs.head, 1), *[(graphs.features, 1)] * samples]
    assert runs == [*forward, *[(gradient.graph, 5)] * max(samples, 1)]


@pytest.mark.parametrize("method", NAMES)
def test_several_targets_at_once_are_each_what_they_are_alone(
    explainer: ortcam.Explainer, photograph: Path, method: str
) -> None:
    together = explainer.explain(photograph, method=method, target=SEVERAL)
    for index, target in enumerate(SEVERAL):
        alone = explainer.explain(photograph, method=method, target=target)
        np.testing.assert_allclose(alone.maps[0], together.maps[index], rtol=0, atol=apart(explainer, photograph))


@pytest.mark.parametrize("batch_size", [1, 2, 200])
def test_the_batch_size_does_not_change_the_result(tiny_bundle: Path, photograph: Path, batch_size: int) -> None:
    explainer, engine = recorded(tiny_bundle)
    usual, other = (
        explainer.explain(photograph, method="grad-cam++", target=SEVERAL, batch_size=size) for size in (32, batch_size)
    )
    np.testing.assert_allclose(other.maps, usual.maps, rtol=0, atol=apart(explainer, photograph))
    assert other.stats.gradient_passes == usual.stats.gradient_passes == 3
    rows = [call.rows for call in engine.calls if call.graph == "gradient.onnx"]
    assert rows == {1: [3, 1, 1, 1], 2: [3, 2, 1], 200: [3, 3]}[batch_size]


def test_a_batch_that_does_not_fit_into_memory_is_halved(tiny_bundle: Path, photograph: Path) -> None:
    def answer(call: Call, run) -> Outputs:
        if call.graph == "gradient.onnx" and call.rows > 2:
            raise OutOfMemoryError("full")
        return run()

    small, _ = recorded(tiny_bundle, answer)
    usual, _ = recorded(tiny_bundle)
    halved, whole = (e.explain(photograph, method="grad-cam", top_k=5) for e in (small, usual))
    np.testing.assert_allclose(halved.maps, whole.maps, rtol=0, atol=apart(usual, photograph))
    assert halved.stats.batch_size == 2


def test_grad_cam_xgrad_cam_and_hires_cam_are_cam_where_the_head_is_linear(
    explainer: ortcam.Explainer, photograph: Path
) -> None:
    cut = explainer.bundle.manifest.cut
    expected = explainer.explain(photograph, method="cam", target=SEVERAL)
    for method in ("grad-cam", "xgrad-cam", "hires-cam"):
        e = explainer.explain(photograph, method=method, target=SEVERAL)
        np.testing.assert_allclose(e.maps, expected.maps, rtol=0, atol=1e-5)
        scale = np.abs(expected.raw_maps).max()
        np.testing.assert_allclose(cut.height * cut.width * e.raw_maps, expected.raw_maps, rtol=0, atol=1e-5 * scale)


def test_finer_cam_without_strength_is_grad_cam(explainer: ortcam.Explainer, photograph: Path) -> None:
    plain = explainer.explain(photograph, method="grad-cam")
    finer = explainer.explain(photograph, method="finer-cam", strength=0)
    np.testing.assert_array_equal(finer.maps, plain.maps)
    assert np.abs(explainer.explain(photograph, method="finer-cam").maps - plain.maps).max() > 0.01


def test_the_noise_of_smooth_grad_cam_plus_plus_is_that_of_its_seed(
    explainer: ortcam.Explainer, photograph: Path
) -> None:
    def explained(**options: object) -> NDArray[np.float32]:
        return explainer.explain(photograph, method="smooth-grad-cam++", target=0, epsilon=1e-4, **options).weights

    np.testing.assert_array_equal(explained(seed=1), explained(seed=1))
    plain = explainer.explain(photograph, method="grad-cam++", target=0, epsilon=1e-4)
    np.testing.assert_allclose(explained(std=0, num_samples=2), plain.weights, rtol=1e-5)


def test_the_noise_is_on_what_the_model_sees(tiny_bundle: Path, photograph: Path) -> None:
    explainer, engine = recorded(tiny_bundle)
    explainer.explain(photograph, method="smooth-grad-cam++", num_samples=3, std=0.25, seed=7)
    clean, *noisy = [call.inputs["image"] for call in engine.calls if call.graph == "features.onnx"]
    noises = [image - clean for image in noisy]
    assert len(noises) == 3
    for noise in noises:
        assert noise.std() == pytest.approx(0.25, rel=0.1)  # of 4608 values: 0.01 is a standard deviation
    assert np.abs(noises[0] - noises[1]).max() > 0.1


# Layers ---------------------------------------------------------------------------------------------------------------


def cut(module: str | None, tensor: str, layout: str = "nchw", prefix: int = 0) -> Cut:
    return Cut(tensor, module, layout, 2, 3, 4, prefix)  # type: ignore[arg-type]


def test_layers_go_by_module_or_tensor() -> None:
    cuts = [cut("layer4", "relu_9"), cut("layer2", "relu_3"), cut(None, "add_7")]
    assert layer_places("primary", cuts) == (0,)
    assert layer_places("all", cuts) == (0, 1, 2)
    assert layer_places("layer4", cuts) == (0,)
    assert layer_places("relu_3", cuts) == (1,)
    assert layer_places("add_7", cuts) == (2,)
    assert layer_places("layer3", cuts) == ()


def test_the_only_layer_goes_by_any_of_its_names(explainer: ortcam.Explainer, photograph: Path) -> None:
    own = explainer.bundle.manifest.cut
    usual = explainer.explain(photograph, method="layer-cam")
    for name in ("primary", "all", own.module, own.tensor):
        np.testing.assert_array_equal(explainer.explain(photograph, method="layer-cam", layer=name).maps, usual.maps)


@pytest.mark.parametrize("layout", ["nchw", "nhwc", "tokens"])
def test_gradients_come_as_maps_in_every_layout(layout: str) -> None:
    place = cut(None, "a", layout, 2 if layout == "tokens" else 0)
    expected = np.random.default_rng(0).standard_normal((5, 2, 3, 4)).astype(np.float32)
    prefix = np.full((place.prefix_tokens, 2), 9, np.float32)
    raw = from_maps(expected, prefix, place)
    asked: list[tuple[int, ...]] = []

    def run(seeds: NDArray[np.float32], features: object, layers: object) -> tuple[NDArray[np.float32], ...]:
        asked.append(seeds.shape)
        return (raw,)

    derivative = Derivative(run, lambda *_: raw, (Layer(place, expected[0]),), {}, lambda *_: {}, batch_size=32)
    (found,) = derivative.at(one_hot(np.arange(5), 7))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(all_maps(raw, place), expected)
    assert asked == [(5, 7)]
    assert (derivative.passes, derivative.runs) == (5, 1)


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", NAMES)
def test_a_bundle_without_a_gradient_says_why_and_what_works(no_gradient: Path, photograph: Path, method: str) -> None:
    explainer = ortcam.load(no_gradient, providers=["CPUExecutionProvider"])
    message = (
        rf"{method.replace('+', '[+]')}: needs the gradient of the logits, and this bundle has none, since its "
        r"operator ArgMax has no derivative; methods that work here: scorecam, .*recipro-cam, ablation-cam, "
        r"eigen-cam, cam$"
    )
    with pytest.raises(ortcam.OptionError, match=message):
        explainer.explain(photograph, method=method)
    assert explainer.explain(photograph, method="recipro-cam").maps.shape == (1, 32, 48)


def test_a_layer_that_the_bundle_lacks_is_refused(explainer: ortcam.Explainer, photograph: Path) -> None:
    own = explainer.bundle.manifest.cut.module
    with pytest.raises(
        ortcam.OptionError, match=rf"layer='layer3' is no layer of this bundle; accepted: primary, all, {own}"
    ):
        explainer.explain(photograph, method="grad-cam", layer="layer3")
    with pytest.raises(
        ortcam.OptionError, match="grad-cam: layer=3 is not accepted; accepted: primary, all, or a layer"
    ):
        explainer.explain(photograph, method="grad-cam", layer=3)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("grad-cam", {"epsilon": 1}, "unknown option 'epsilon'; accepted: layer"),
        ("grad-cam++", {"epsilon": -1}, "epsilon=-1 is not accepted; accepted: a number from 0 to 1"),
        ("smooth-grad-cam++", {"num_samples": 0}, "num_samples=0 is not accepted; accepted: a whole number from 1"),
        ("smooth-grad-cam++", {"std": "nan"}, "std='nan'"),
        ("smooth-grad-cam++", {"seed": -1}, "seed=-1"),
        ("finer-cam", {"references": 0}, "references=0 is not accepted"),
        ("finer-cam", {"weighting": "softmax"}, "accepted: mean, probability"),
        ("finer-cam", {"strength": 11}, "strength=11 is not accepted; accepted: a number from 0 to 10"),
        ("gradcam-", {}, "did you mean 'grad-cam'"),
    ],
)
def test_an_option_that_is_not_accepted_is_named(method: str, options: dict, message: str) -> None:
    with pytest.raises(ortcam.OptionError, match=message):
        resolve_method(method, options)


def test_limits_of_masked_passes_are_refused(explainer: ortcam.Explainer, photograph: Path) -> None:
    with pytest.raises(ortcam.OptionError, match="budget with grad-cam: goes with methods that mask the image"):
        explainer.explain(photograph, method="grad-cam", budget=0.5)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda g: g[:, :, :-1], ortcam.BundleError, r"gradients are float32 \[1, 10, 7, 12\]; accepted is .*8, 12\]"),
        (lambda g: g.astype(np.float64), ortcam.BundleError, "gradients are float64"),
        (lambda g: g * np.float32("nan"), ortcam.NotFiniteError, "960 of 960 gradients of the logits are infinite"),
    ],
)
def test_gradients_that_are_none_become_no_map(tiny_bundle: Path, photograph: Path, wrong, error, message: str) -> None:
    def answer(call: Call, run) -> Outputs:
        found = run()
        return (wrong(found[0]),) if call.graph == "gradient.onnx" else found

    explainer, _ = recorded(tiny_bundle, answer)
    with pytest.raises(error, match=message):
        explainer.explain(photograph, method="grad-cam")


# The command line -----------------------------------------------------------------------------------------------------


def test_the_command_line_takes_them_like_any_other(
    tiny_bundle: Path, photograph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["explain", str(tiny_bundle), str(photograph), "-o", str(tmp_path), "-m", "gradcam,grad-cam++"]
    assert main([*arguments, "--option", "epsilon=1e-6"]) == 0
    assert "1 backward pass" in capsys.readouterr().out
    manifest = json.loads((tmp_path / "photo" / "grad-cam++" / "manifest.json").read_text("utf-8"))
    assert manifest["options"] == {"layer": "primary", "epsilon": 1e-6}
    assert manifest["stats"]["gradient_passes"] == 1


def test_the_command_line_refuses_in_one_line(
    no_gradient: Path, photograph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", str(no_gradient), str(photograph), "-o", str(tmp_path), "-m", "grad-cam"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("ortcam: grad-cam: needs the gradient of the logits")


def test_the_gradients_at_many_noisy_images_are_not_in_memory_together(
    tiny_bundle: Path, photograph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[weakref.ref] = []
    alive: list[int] = []
    run = Model.gradient_outputs

    def watched(*args: Any) -> tuple[NDArray[np.float32], ...]:
        alive.append(sum(one() is not None for one in given))
        found = run(*args)
        given.extend(map(weakref.ref, found))
        return found

    monkeypatch.setattr(Model, "gradient_outputs", watched)
    ortcam.load(tiny_bundle).explain(photograph, method="smooth-grad-cam++", num_samples=9)
    assert len(alive) == 9
    assert max(alive) <= 1  # the one before


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        ("scorecam", {"needs_gradient": True}, "needs_gradient goes with compute="),
        ("eigen-cam", {"needs_attention": True}, "needs_attention goes with needs_gradient=True"),
    ],
)
def test_a_method_that_asks_for_what_it_would_not_get_is_refused(name: str, changed: dict, message: str) -> None:
    method = dataclasses.replace(resolve_method(name, {}).method, name="new", aliases=(), **changed)
    with pytest.raises(ortcam.OptionError, match=message):
        register(method)
    assert METHODS.find("new") is None
