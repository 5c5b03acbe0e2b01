"""Models of 1, 2, 4 and 13 channels through every path of the runtime; tests/parity has their formulas in float64."""

import dataclasses
import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from tests.common.channels import KINDS, drawn_samples, with_channels
from tests.common.tolerances import PROMISED, logits_apart
from tests.conftest import reseal

import ortcam
from ortcam.bundle import MANIFEST_NAME, read_bundle
from ortcam.bundle.manifest import __file__ as manifest_module
from ortcam.evaluation.metrics import blurred
from ortcam.explainer.augmentation.warps import draw_warp
from ortcam.images.preprocessing import Preprocessing
from ortcam.methods import METHODS, Augmentation
from ortcam.parity import parity_failure, verify, verify_gradient

QUICK = ["grey", "two", "thirteen"]
ALL_KINDS = [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
OPTIONS = {"scorecam": {"batch_size": 4}, "sscam": {"batch_size": 4, "num_samples": 2}, "grad-cam": {}}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Kind -> its bundle, made when it is first asked for."""
    folder = tmp_path_factory.mktemp("channels")

    class Made(dict):
        def __missing__(self, kind: str) -> Path:
            self[kind] = with_channels(folder / kind, KINDS[kind])
            return self[kind]

    return Made()


@pytest.fixture(scope="module")
def explainers(bundles: dict[str, Path]) -> dict[str, ortcam.Explainer]:
    """Kind -> its explainer."""

    class Opened(dict):
        def __missing__(self, kind: str) -> ortcam.Explainer:
            self[kind] = ortcam.load(bundles[kind], threads=1)
            return self[kind]

    return Opened()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_parity_is_measured_on_probes_of_its_channels(kind: str, bundles: dict[str, Path]) -> None:
    bundle = read_bundle(bundles[kind])
    assert parity_failure(verify(bundle), bundle.manifest.graphs) is None
    assert verify_gradient(bundle) is not None


@pytest.mark.sample(every=4)
@pytest.mark.whole
@pytest.mark.parametrize("method", OPTIONS)
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_every_way_to_give_an_image_gives_the_same_map(
    kind: str, method: str, explainers: dict[str, ortcam.Explainer]
) -> None:
    explainer, preprocessing = explainers[kind], KINDS[kind]
    samples = drawn_samples(preprocessing)
    read = explainer.read(samples)
    options = OPTIONS[method]
    expected = explainer.explain(read, method=method, **options)
    assert expected.maps.shape == (1, 32, 48)
    assert expected.image.shape == (50, 70, 3)
    assert expected.overlay().shape == (50, 70, 3)
    assert not expected.flat[0]
    for image in (samples, samples.transpose(2, 0, 1)):
        np.testing.assert_array_equal(explainer.explain(image, method=method, **options).maps, expected.maps)
    given = explainer.explain(preprocessed=read.model_input, method=method, **options)
    np.testing.assert_array_equal(given.maps, expected.maps)
    assert given.image.shape == (32, 48, 3)


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_every_method_explains_it(kind: str, explainers: dict[str, ortcam.Explainer]) -> None:
    explainer = explainers[kind]
    read = explainer.read(drawn_samples(KINDS[kind]))
    for name in (method.name for method in METHODS):
        if name == "grad-attention":  # of heads with attention alone
            continue
        options = {"num_samples": 2} if name in ("sscam", "iscam", "smooth-grad-cam++") else {}
        found = explainer.explain(read, method=name, top_k=2, **options)
        assert np.isfinite(found.maps).all(), name


@pytest.mark.parametrize("method", ["scorecam", "sscam"])
def test_batches_change_nothing_but_roundings(method: str, explainers: dict[str, ortcam.Explainer]) -> None:
    explainer = explainers["thirteen"]
    read = explainer.read(drawn_samples(KINDS["thirteen"]))
    options = {"num_samples": 2, "seed": 1} if method == "sscam" else {}
    one, many = (explainer.explain(read, method=method, batch_size=size, **options) for size in (1, 7))
    np.testing.assert_allclose(one.maps, many.maps, rtol=0, atol=PROMISED)


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_what_is_hidden_is_the_mean(kind: str, explainers: dict[str, ortcam.Explainer]) -> None:
    """An image of the mean everywhere is the model's input of zeros, to which masks hide."""
    preprocessing = KINDS[kind]
    if not preprocessing.needs_samples:
        mean = round(preprocessing.mean[0] / preprocessing.scale * 255)
        preprocessing = dataclasses.replace(preprocessing, mean=(float(np.float32(mean * preprocessing.scale / 255)),))
        image = np.full((32, 48, 3), mean, np.uint8)
        assert (preprocessing(image) == 0).all()
        return
    assert preprocessing.value_range is not None
    low, high = preprocessing.value_range
    mean = low + (high - low) * np.array(preprocessing.mean) / preprocessing.scale
    order = slice(None, None, -1) if preprocessing.channel_order == "bgr" else slice(None)
    image = np.broadcast_to(mean[order], (32, 48, preprocessing.channels)).astype(np.float32)
    explainer = explainers[kind]
    zeros = np.zeros((1, preprocessing.channels, 32, 48), np.float32)
    # A sample rounded to float32 is that of its size off, in units of std; the first convolution sums nine of each.
    off = 2.0**-23 * max(abs(low), abs(high)) / (high - low) * preprocessing.scale / min(preprocessing.std)
    assert np.abs(explainer.preprocess(image)).max() <= off
    np.testing.assert_allclose(
        explainer.predict(image), explainer.predict(preprocessed=zeros), rtol=0, atol=1000 * off + logits_apart(10)
    )


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_augmented_copies_turn_all_channels_alike(kind: str, explainers: dict[str, ortcam.Explainer]) -> None:
    model_input = explainers[kind].preprocess(drawn_samples(KINDS[kind]))
    warp = draw_warp(Augmentation(copies=3, flip=True), 1, 32, 48)
    warped = warp.copy(model_input)
    assert warped.shape == model_input.shape
    alone = [warp.copy(model_input[:, channel : channel + 1]) for channel in range(model_input.shape[1])]
    np.testing.assert_array_equal(warped, np.concatenate(alone, axis=1))
    found = explainers[kind].explain(preprocessed=model_input, method="grad-cam", augment=3)
    assert found.maps.shape == (1, 32, 48)


def test_a_blurred_image_is_its_blurred_channels() -> None:
    image = np.random.default_rng(0).normal(size=(13, 32, 48)).astype(np.float32)
    np.testing.assert_array_equal(blurred(image)[5:6], blurred(image[5:6]))


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_what_is_saved_says_how_the_image_became_the_input(
    kind: str, explainers: dict[str, ortcam.Explainer], tmp_path: Path
) -> None:
    explanation = explainers[kind].explain(drawn_samples(KINDS[kind]), method="grad-cam")
    explanation.save(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "manifest.json").read_text("utf-8"))
    assert Preprocessing(**saved["preprocessing"]) == KINDS[kind]
    assert (tmp_path / "saved" / f"class-{explanation.targets[0]}-overlay.png").is_file()


def test_many_images_are_read_one_by_one(explainers: dict[str, ortcam.Explainer]) -> None:
    explainer, preprocessing = explainers["two"], KINDS["two"]
    images = [drawn_samples(preprocessing, 40 + side, 60) for side in range(3)]
    found = list(explainer.explain_many(images, method="recipro-cam"))
    for image, explanation in zip(images, found, strict=True):
        np.testing.assert_array_equal(explanation.maps, explainer.explain(image, method="recipro-cam").maps)


@pytest.mark.parametrize(
    ("kind", "shape", "message"),
    [
        ("thirteen", (40, 60, 12), "13"),
        ("thirteen", (40, 60), "13"),
        ("thirteen", (13, 40, 13), "first or last"),
        ("two", (40, 60, 3), "2"),
        ("grey", (40, 60, 2), "1"),
    ],
)
def test_an_image_with_other_bands_is_refused_with_both_numbers(
    kind: str, shape: tuple[int, ...], message: str, explainers: dict[str, ortcam.Explainer]
) -> None:
    with pytest.raises(ortcam.ImageError, match=message) as raised:
        explainers[kind].explain(np.zeros(shape, np.uint8 if kind == "grey" else np.uint16))
    assert "\n" not in str(raised.value)


def test_white_is_an_error_where_samples_are_taken_as_they_are(bundles: dict[str, Path]) -> None:
    explainer = ortcam.load(bundles["two"], white=4095)
    with pytest.raises(ortcam.OptionError, match=r"white=4095: this model takes samples as they are, from -20 to 5"):
        explainer.read(drawn_samples(KINDS["two"]))


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_its_manifest_obeys_the_schema(kind: str, bundles: dict[str, Path]) -> None:
    schema = json.loads(Path(manifest_module).with_name("bundle.schema.json").read_text("utf-8"))
    manifest = json.loads((bundles[kind] / MANIFEST_NAME).read_text("utf-8"))
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(manifest)
    preprocessing = manifest["preprocessing"]
    channels = len(preprocessing["mean"])
    for wrong in (
        {"mean": [0.5] * 65},
        {"channel_order": "rgb" if channels != 3 else "grey"},
        {"channel_order": "bands", "value_range": None},
        {"value_range": [1]},
        {"value_range": None, "display": [0]},
        {"display": []},
    ):
        assert not validator.is_valid(manifest | {"preprocessing": preprocessing | wrong}), wrong


def test_graphs_and_probes_of_other_channels_are_refused(bundles: dict[str, Path], tmp_path: Path) -> None:
    """A manifest that says one channel more than the graphs have, and a probe of three."""
    four = with_channels(tmp_path / "four", KINDS["four"])
    manifest = json.loads((four / MANIFEST_NAME).read_text("utf-8"))
    more = {"mean": [0.4] * 5, "std": [0.2] * 5}
    changed = manifest | {"preprocessing": manifest["preprocessing"] | more}
    (four / MANIFEST_NAME).write_text(json.dumps(changed))
    with pytest.raises(ortcam.BundleError, match=r"its input 'image' is float32 \[\?,4,32,48\]; by bundle.json it is "):
        read_bundle(four)
    (four / MANIFEST_NAME).write_text(json.dumps(manifest))
    np.save(four / "probe.npy", np.load(four / "probe.npy")[..., :3])
    reseal(four)
    with pytest.raises(ortcam.BundleError, match=r"uint8 \[\d+, 32, 48, 3\]; accepted is uint8 \[\d+, 32, 48, 4\]"):
        verify(read_bundle(four))
