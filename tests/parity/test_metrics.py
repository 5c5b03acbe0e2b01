"""The metrics against cases worked by hand, torch-cam's metrics and Quantus, on the same maps and model."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import nn
from torchcam.metrics import ClassificationMetric, DeletionInsertionMetric

import ortcam
from ortcam.errors import NotFiniteError
from ortcam.evaluation import metrics
from ortcam.evaluation.dataset import Example
from ortcam.evaluation.entries import Entry, parse_entries
from ortcam.evaluation.measuring import Clean, Measurement, Measuring
from ortcam.evaluation.metrics import METRICS
from ortcam.evaluation.protocols import resolve_protocol
from tests.common.stand_ins import GivenExtractor
from tests.common.tiny import TinyNet
from tests.common.tolerances import logits_apart, sums_apart

EVERY_METRIC = tuple(metric.name for metric in METRICS)
IMAGES = 6


class GivenMap:
    """A stand-in for a baseline: the same map for every image, without ties."""

    def __init__(self, saliency: np.ndarray) -> None:
        self.saliency = saliency

    def __call__(self, explainer: object, photograph: object, name: str) -> tuple[np.ndarray, bool]:
        return self.saliency, False


def picture(seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return np.kron(generator.integers(0, 256, (8, 12, 3)), np.ones((4, 4, 1))).astype(np.uint8)


def any_map(seed: int) -> np.ndarray:
    """Float32 [32,48] in [0,1], every value once."""
    values = np.random.default_rng(seed).permutation(32 * 48).reshape(32, 48) / (32 * 48 - 1)
    return (values**2).astype(np.float32)


def given(seed: int) -> Entry:
    return Entry("given", "Given", baseline=GivenMap(any_map(seed)))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def explainer(tiny_bundle: Path) -> ortcam.Explainer:
    return ortcam.load(tiny_bundle, providers=["cpu"])


def measuring(explainer: ortcam.Explainer, protocol: str = "soft-map", step: int | None = None) -> Measuring:
    return Measuring({None: explainer}, resolve_protocol(protocol), EVERY_METRIC, step=step, batch_size=7)


def clean_of(
    explainer: ortcam.Explainer, seed: int, step: int | None = None, **example: object
) -> tuple[Measuring, Clean]:
    asked = measuring(explainer, step=step)
    return asked, asked.clean(Example(f"{seed}.png", Path(), **example), explainer.read(picture(seed)))  # type: ignore[arg-type]


def softmax(logits: torch.Tensor) -> torch.Tensor:
    return logits.softmax(-1)


def test_drop_and_increase_are_torch_cams(explainer: ortcam.Explainer) -> None:
    model = TinyNet().eval()
    ours: list[Measurement] = []
    theirs = None
    for seed in range(IMAGES):
        asked, clean = clean_of(explainer, seed)
        ours.append(asked.measure(clean, given(seed)))
        metric = ClassificationMetric(GivenExtractor(model, any_map(seed)), softmax)
        if theirs is not None:  # one extractor a map, one sum over all
            metric.drop, metric.increase, metric.total = theirs.drop, theirs.increase, theirs.total
        metric.update(torch.from_numpy(clean.photograph.model_input))
        theirs = metric
    assert theirs is not None
    summary = theirs.summary()
    assert np.mean([item.scores["average-drop"] for item in ours]) == pytest.approx(100 * summary["avg_drop"], abs=1e-3)
    assert np.mean([item.scores["increase"] for item in ours]) == pytest.approx(100 * summary["conf_increase"])
    assert 0 < summary["avg_drop"] < 1


@pytest.mark.slow
@pytest.mark.parametrize("fill", ["zero", "blur"])
def test_insertion_and_deletion_are_torch_cams(explainer: ortcam.Explainer, fill: str) -> None:
    model = TinyNet().eval()
    for seed in range(IMAGES):
        asked, clean = clean_of(explainer, seed)
        image = clean.photograph.model_input
        found = asked.measure(clean, given(seed))
        baseline = torch.from_numpy(metrics.blurred(image[0]))[None] if fill == "blur" else None
        metric = DeletionInsertionMetric(GivenExtractor(model, any_map(seed)), softmax, steps=100, baseline=baseline)
        metric.update(torch.from_numpy(image))
        theirs = metric.summary()
        assert found.scores[f"insertion-{fill}"] / 100 == pytest.approx(theirs["insertion_auc"], abs=1e-5)
        assert found.scores[f"deletion-{fill}"] / 100 == pytest.approx(theirs["deletion_auc"], abs=1e-5)


@pytest.mark.long
def test_the_deletion_curve_is_that_of_quantus(explainer: ortcam.Explainer) -> None:
    quantus = pytest.importorskip("quantus", reason="quantus is not installed (make installs it)")
    asked, clean = clean_of(explainer, 0)
    image = clean.photograph.model_input
    found = asked.measure(clean, given(0))
    step = -(-any_map(0).size // 100)
    flipping = quantus.PixelFlipping(
        features_in_step=3 * step, perturb_baseline=0.0, normalise=False, disable_warnings=True
    )
    (curve,) = flipping(
        model=nn.Sequential(TinyNet().eval(), nn.Softmax(-1)).eval(),
        x_batch=image,
        y_batch=np.array([clean.target]),
        a_batch=any_map(0)[None, None],
        device="cpu",
    )
    np.testing.assert_allclose(found.curves["deletion-zero"][1:], curve, atol=1e-5)


@pytest.mark.slow
def test_the_pointing_games_are_those_of_quantus(explainer: ortcam.Explainer) -> None:
    quantus = pytest.importorskip("quantus", reason="quantus is not installed (make installs it)")
    box = (8.0, 6.0, 30.0, 25.0)
    for seed in range(IMAGES):
        asked, clean = clean_of(explainer, seed, boxes=(box,))
        found = asked.measure(clean, given(seed))
        inside = np.zeros((1, 1, 32, 48), bool)
        inside[..., 6:25, 8:30] = True
        arguments = {
            "model": TinyNet().eval(),
            "x_batch": clean.photograph.model_input,
            "y_batch": np.array([clean.target]),
            "a_batch": any_map(seed)[None, None],
            "s_batch": inside,
            "device": "cpu",
        }
        settings = {"normalise": False, "abs": False, "disable_warnings": True}
        (energy,) = quantus.AttributionLocalisation(**settings)(**arguments)
        (hit,) = quantus.PointingGame(**settings)(**arguments)
        assert found.scores["energy-pointing"] / 100 == pytest.approx(float(np.squeeze(energy)), abs=1e-5)
        assert found.scores["pointing"] == 100 * bool(hit)
        assert found.scores["box-area"] == pytest.approx(100 * 19 * 22 / (32 * 48))


def test_average_gain_by_hand() -> None:
    assert metrics.average_gain(0.5, 0.75) == pytest.approx(50)
    assert metrics.average_gain(0.5, 0.25) == 0
    assert metrics.average_gain(1.0, 1.0) == 0


def test_average_drop_by_hand() -> None:
    assert metrics.average_drop(0.8, 0.2) == pytest.approx(75)
    assert metrics.average_drop(0.2, 0.8) == 0
    assert metrics.average_drop(0.0, 0.0) == 0


def test_adcc_is_the_published_one_of_the_published_parts() -> None:
    # Poppi et al. 2021, Score-CAM: ResNet-18, ResNet-50, VGG-16; the parts are printed with two digits.
    assert metrics.adcc(98.35, 41.78, 12.81) == pytest.approx(77.30, abs=0.011)
    assert metrics.adcc(98.12, 42.05, 8.61) == pytest.approx(78.14, abs=0.011)
    assert metrics.adcc(93.83, 20.27, 26.13) == pytest.approx(81.66, abs=0.011)


def test_adcc_is_zero_where_a_part_is() -> None:
    assert metrics.adcc(0, 50, 50) == metrics.adcc(50, 100, 50) == metrics.adcc(50, 50, 100) == 0


def test_coherency_by_hand() -> None:
    first = np.array([[0, 1], [0.5, 0.25]], np.float32)
    assert metrics.coherency(first, first) == pytest.approx(100)
    assert metrics.coherency(first, 1 - first) == pytest.approx(0, abs=1e-5)
    flat = np.zeros_like(first)
    assert metrics.coherency(first, flat) == 50
    assert metrics.coherency(flat, flat) == 100


def test_the_area_under_a_curve_by_hand() -> None:
    counts = np.array([0, 4, 8, 10])
    assert metrics.area_under(np.array([0.0, 0.5, 1.0, 1.0]), counts) == pytest.approx(100 * (0.1 + 0.3 + 0.2))


def test_steps_are_a_hundredth_or_what_was_asked_for() -> None:
    assert len(metrics.shares(224 * 224, None)) == 101
    assert list(metrics.shares(10, 4)) == [0, 4, 8, 10]
    assert list(metrics.shares(8, 4)) == [0, 4, 8]


def test_the_upper_half_stays() -> None:
    found = metrics.top_half(np.array([[4, 1], [3, 2]], np.float32))
    np.testing.assert_array_equal(found, [[4, 0], [3, 0]])


def test_equal_pixels_rank_in_reading_order() -> None:
    np.testing.assert_array_equal(metrics.pixel_ranks(np.array([[1, 2], [2, 1]], np.float32)), [[2, 0], [1, 3]])


def test_a_flat_map_points_nowhere() -> None:
    flat, inside = np.zeros((2, 2), np.float32), np.ones((2, 2), bool)
    assert metrics.hits(flat, inside) == metrics.energy_in(flat, inside) == 0


def test_the_blur_is_that_of_rise() -> None:
    # As its authors' code makes it: a point in 11 x 11 pixels under scipy's Gaussian, a convolution with zero padding.
    point = np.zeros((11, 11))
    point[5, 5] = 1
    kernel = torch.from_numpy(gaussian_filter(point, 5).astype(np.float32)).expand(3, 1, 11, 11)
    image = np.random.default_rng(0).normal(size=(3, 32, 48)).astype(np.float32)
    expected = nn.functional.conv2d(torch.from_numpy(image)[None], kernel, padding=5, groups=3)[0].numpy()
    atol = sums_apart(11 * 11, metrics.blurred(np.abs(image)))
    np.testing.assert_allclose(metrics.blurred(image), expected, rtol=0, atol=atol)


def test_numbers_that_are_none_are_no_score(explainer: ortcam.Explainer, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, clean = clean_of(explainer, 0)
    monkeypatch.setattr(explainer, "logits", lambda count, inputs, **_: np.full((count, 6), np.nan, np.float32))
    with pytest.raises(NotFiniteError, match="not numbers"):
        asked.measure(clean, given(0))


def test_the_blur_keeps_a_plane_away_from_the_border() -> None:
    plane = np.full((3, 32, 48), 0.5, np.float32)
    blurred = metrics.blurred(plane)
    np.testing.assert_allclose(blurred[:, 5:-5, 5:-5], 0.5, rtol=0, atol=sums_apart(11 * 11, 0.5))
    assert (blurred[:, 0, 0] < 0.4).all()


def test_metrics_do_not_depend_on_the_batch_size(explainer: ortcam.Explainer) -> None:
    (variant,) = parse_entries(["scorecam"])
    found = []
    for batch_size in (1, 32):
        asked = Measuring({None: explainer}, resolve_protocol("soft-map"), EVERY_METRIC, batch_size=batch_size)
        clean = asked.clean(Example("a", Path()), explainer.read(picture(3)))
        found.append(asked.measure(clean, variant).scores)
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        assert value == pytest.approx(found[1][name], abs=1e-3), name


def test_what_was_not_asked_for_is_not_measured(explainer: ortcam.Explainer) -> None:
    asked = Measuring({None: explainer}, resolve_protocol("soft-map"), ["complexity", "deletion-blur"])
    clean = asked.clean(Example("a", Path()), explainer.read(picture(0)))
    found = asked.measure(clean, given(0))
    assert set(found.scores) == {"complexity", "deletion-blur"}
    assert set(found.curves) == {"deletion-blur"}
    assert found.masked is None


def test_coherency_explains_the_masked_image_for_the_same_class(explainer: ortcam.Explainer) -> None:
    (variant,) = parse_entries(["scorecam"])
    asked, clean = clean_of(explainer, 1)
    found = asked.measure(clean, variant)
    saliency = explainer.explain(clean.photograph, method="scorecam", target=clean.target).maps[0]
    x = clean.photograph.model_input * saliency
    again = TinyReference(x, clean.target).scorecam()
    expected = 50 * (np.corrcoef(saliency.ravel(), again.ravel())[0, 1] + 1)
    assert found.scores["coherency"] == pytest.approx(expected, abs=1e-3)


class TinyReference:
    """Score-CAM of a preprocessed input, in PyTorch, by the formula."""

    def __init__(self, x: np.ndarray, target: int) -> None:
        self.x = torch.from_numpy(x).double()
        self.target = target
        self.model = TinyNet().eval().double()

    @torch.inference_mode()
    def scorecam(self) -> np.ndarray:
        features = self.model.features(self.x)
        up = nn.functional.interpolate(features, self.x.shape[2:], mode="bilinear", align_corners=False)[0]
        total = torch.zeros(self.x.shape[2:], dtype=torch.float64)
        for channel in up:
            span = channel.max() - channel.min()
            if span > 0:
                masked = self.x * (channel - channel.min()) / span
                total += self.model(masked).softmax(-1)[0, self.target] * channel
        total = total.clamp(min=0)
        return ((total - total.min()) / (total.max() - total.min())).numpy()


def test_the_notebook_protocol_takes_logits_and_counts_ties(explainer: ortcam.Explainer) -> None:
    asked = Measuring({None: explainer}, resolve_protocol("scorecampp-notebook"), ["average-drop", "increase"])
    photograph = explainer.read(picture(0))
    clean = asked.clean(Example("a", Path()), photograph)
    logits = TinyNet().eval()(torch.from_numpy(photograph.model_input)).detach().numpy()[0]
    assert clean.confidence == pytest.approx(float(logits.max()), rel=1e-5)
    ones = Entry("ones", "Ones", baseline=GivenMap(np.ones((32, 48), np.float32)))  # type: ignore[arg-type]
    assert asked.measure(clean, ones).scores == {"average-drop": 0.0, "increase": 100.0}
    strict = measuring(explainer)
    assert strict.measure(strict.clean(Example("a", Path()), photograph), ones).scores["increase"] == 0


def test_the_paper_protocol_mutes_the_lower_half(explainer: ortcam.Explainer) -> None:
    asked = Measuring({None: explainer}, resolve_protocol("scorecam-paper"), ["average-drop"])
    photograph = explainer.read(picture(2))
    clean = asked.clean(Example("a", Path()), photograph)
    saliency = any_map(2)
    kept = np.where(saliency > np.median(saliency), saliency, 0)
    with torch.inference_mode():
        logits = TinyNet().eval()(torch.from_numpy(photograph.model_input * kept))
    expected = float(logits.softmax(-1)[0, clean.target])
    assert asked.measure(clean, given(2)).masked == pytest.approx(expected, abs=logits_apart(logits.numpy()) / 2)
