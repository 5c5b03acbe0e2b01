"""A budget or a tolerance gives the same map at any batch size and thread count; only a deadline may not.

The scores that the Gaussian process sees are made the same with other last bits, as another processor makes them.
"""

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.common.engines import Call, Outputs, recorded
from tests.common.tolerances import PROMISED

import ortcam
from ortcam.bundle.shipped import bundle_path, demo_image
from ortcam.engine.batching import BatchSizer
from ortcam.errors import OutOfMemoryError
from ortcam.methods import resolve_method
from ortcam.scoring import chooser
from ortcam.scoring.budget import parts_of, rounds_of, score
from ortcam.scoring.gaussian_process import MaskModel
from ortcam.scoring.limits import Limits
from ortcam.scoring.loop import Scoring
from ortcam.scoring.masks import prepare_masks
from ortcam.scoring.scores import Scores
from ortcam.scoring.tally import fade

BATCH_SIZES = (1, 2, 3, 8, 32)
LIMITS: list[dict[str, Any]] = [
    {"budget": 20},
    {"budget": 70},
    {"budget": 0.12, "top_k": 3},
    {"tolerance": 0.3, "top_k": 2},
    {"method": "scorecam", "tolerance": 0.2},
    {"method": "sscam", "num_samples": 2, "budget": 24},
    {"method": "sscam", "num_samples": 7, "budget": 24, "sampling_error": 0.2},
    {"method": "iscam", "num_samples": 7, "budget": 24, "sampling_error": 0.1, "top_k": 2},
    {"method": "iscam", "num_samples": 3, "budget": 24, "weighting": "logit-softmax"},
    {"method": "scorecam++", "weighting": "logit-softmax", "budget": 40},
]
each_limit = pytest.mark.parametrize(
    "limits", LIMITS, ids=lambda limits: " ".join(f"{name}={value}" for name, value in limits.items())
)


def assert_same(one: ortcam.Explanation, other: ortcam.Explanation) -> None:
    np.testing.assert_array_equal(one.scored, other.scored)
    assert one.stats.passes == other.stats.passes
    np.testing.assert_allclose(one.maps, other.maps, rtol=0, atol=PROMISED)
    np.testing.assert_allclose(one.weights, other.weights, rtol=0, atol=PROMISED)
    np.testing.assert_allclose(
        np.array(one.stats.estimated_error, float), np.array(other.stats.estimated_error, float), rtol=0, atol=1e-3
    )


@pytest.fixture(scope="module")
def explainer() -> ortcam.Explainer:
    return ortcam.load(bundle_path(), providers=["cpu"], threads=1)


@pytest.fixture(scope="module")
def photograph(explainer: ortcam.Explainer) -> ortcam.Photograph:
    return explainer.read(demo_image())


@pytest.mark.slow
@each_limit
def test_the_batch_size_does_not_change_the_map(
    limits: dict[str, Any], explainer: ortcam.Explainer, photograph: ortcam.Photograph
) -> None:
    first, *others = (explainer.explain(photograph, batch_size=size, **limits) for size in BATCH_SIZES)
    for other in others:
        assert_same(first, other)


@pytest.mark.slow
def test_threads_do_not_change_the_map(explainer: ortcam.Explainer, photograph: ortcam.Photograph) -> None:
    two = ortcam.load(bundle_path(), providers=["cpu"], threads=2)
    for limits in ({"budget": 40}, {"method": "scorecam", "tolerance": 0.3}):
        assert_same(explainer.explain(photograph, **limits), two.explain(photograph, **limits))


@pytest.mark.slow
def test_a_search_for_the_batch_size_does_not_change_the_map(
    explainer: ortcam.Explainer, photograph: ortcam.Photograph, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORTCAM_CACHE", "off")
    settled = explainer.explain(photograph, budget=60, batch_size=8)
    searching = ortcam.load(bundle_path(), providers=["cpu"])
    for _ in range(3):
        assert_same(searching.explain(photograph, budget=60), settled)


@pytest.mark.slow
def test_the_last_preview_is_the_same_at_any_batch_size(
    explainer: ortcam.Explainer, photograph: ortcam.Photograph
) -> None:
    usual = explainer.explain(photograph, budget=50, batch_size=8)
    for size in (1, 7, 32):
        previews = list(explainer.explain_iter(photograph, budget=50, batch_size=size))
        assert len(previews) >= 2
        assert_same(previews[-1], usual)


@pytest.mark.slow
def test_a_lack_of_memory_does_not_change_the_map(explainer: ortcam.Explainer, photograph: ortcam.Photograph) -> None:
    def answer(call: Call, run: Callable[[], Outputs]) -> Outputs:
        if call.bound and call.rows > 4:
            raise OutOfMemoryError("out of memory")
        return run()

    usual = explainer.explain(photograph, budget=50, batch_size=8)
    tight, engine = recorded(bundle_path(), answer, threads=1)
    halved = tight.explain(photograph, budget=50, batch_size=33)
    assert max(call.rows for call in engine.calls) == 20  # of the first round
    assert halved.stats.batch_size <= 4
    assert_same(halved, usual)


class OtherLastBits:
    """In the place of a scorer: weights that are given, with last bits that depend on how long a run is."""

    def __init__(self, weights: np.ndarray, *, fixed_shape: bool = False) -> None:
        self.fixed_shape = fixed_shape
        self._weights = weights
        self._channels = np.zeros(0, np.int64)

    def put(self, name: str, value: np.ndarray) -> None:
        if name == "channels":
            self._channels = value.copy()

    def run(self) -> tuple[np.ndarray, np.ndarray]:
        count = len(self._channels)
        turned = np.random.default_rng(count).uniform(-1, 1, (len(self._weights), 1))
        scores = (self._weights * (1 + 4e-7 * turned))[self._channels].astype(np.float32)
        return scores, np.log(scores)


def problem(seed: int, channels: int = 160) -> tuple[np.ndarray, np.ndarray]:
    """Features, float32 [C,7,7], every fourth a twin of the one before, and smooth weights, float64 [C,2]."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:7, :7]
    centre, spread = generator.uniform(0, 6, (2, channels, 1, 1)), generator.uniform(0.8, 2.5, (channels, 1, 1))
    features = np.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / (2 * spread**2)).astype(np.float32)
    features *= generator.uniform(0.2, 2, (channels, 1, 1)).astype(np.float32)
    features[3::4] = features[2::4]
    shown = np.stack([features[:, 2:4, 2:4].mean(axis=(1, 2)), features[:, 4:6, 1:4].mean(axis=(1, 2))], axis=1)
    weights = 1 / (1 + np.exp(5 - 6 * shown - generator.normal(0, 0.2, shown.shape)))
    weights[3::4] = weights[2::4]
    return features, weights


def scores_of(features: np.ndarray, weights: np.ndarray, batch_size: int, limits: Limits) -> Scores:
    plan = resolve_method("scorecam", {}).plan
    scoring = Scoring(
        OtherLastBits(weights),  # type: ignore[arg-type]
        image=np.zeros((1, 3, 28, 28), np.float32),
        masks=prepare_masks(features, plan, height=28, width=28),
        plan=plan,
        targets=np.array([0, 1]),
        baseline=np.zeros(2, np.float32),
        sizer=BatchSizer([batch_size], fixed_shape=False),
    )
    *_, last = score(scoring, limits, started=time.perf_counter())
    return last


def finished(scores: Scores, features: np.ndarray) -> np.ndarray:
    raw = np.maximum(np.tensordot(scores.weights, features, axes=1), 0)
    low = raw.min(axis=(1, 2), keepdims=True)
    return (raw - low) / (raw.max(axis=(1, 2), keepdims=True) - low)


@pytest.mark.sample(every=3)
@pytest.mark.parametrize("limits", [Limits(budget=0.12), Limits(budget=60), Limits(tolerance=0.1)], ids=str)
def test_scores_with_other_last_bits_give_the_same_map(limits: Limits) -> None:
    """Twins among the channels are wanted equally: rounding must not decide which is scored."""
    for seed in range(8):
        features, weights = problem(seed)
        first, *others = (scores_of(features, weights, size, limits) for size in BATCH_SIZES)
        for other in others:
            np.testing.assert_array_equal(first.scored, other.scored)
            np.testing.assert_allclose(finished(first, features), finished(other, features), rtol=0, atol=PROMISED)
            assert first.error is not None
            np.testing.assert_allclose(first.error, other.error, rtol=1e-3)


def test_rounds_follow_from_the_numbers_of_channels_alone() -> None:
    for limits, channels in itertools.product(
        (Limits(budget=8), Limits(budget=0.12), Limits(budget=100, tolerance=0.1), Limits(tolerance=0.1)),
        (8, 17, 512, 1280),
    ):
        limit = limits.channels(channels)
        rounds = rounds_of(limits, channels)
        assert sum(rounds) == limit
        assert min(rounds) >= 1
        for size, before in zip(rounds[1:], np.cumsum(rounds), strict=False):
            assert size < before, "a round is smaller than all before it, so that the process is asked often enough"


@pytest.mark.parametrize(("size", "done"), [(1, 0), (5, 16), (300, 20)])
def test_previews_cut_a_round_and_leave_nothing_out(size: int, done: int) -> None:
    group = np.arange(size)
    np.testing.assert_array_equal(np.concatenate(parts_of(group, done)), group)
    assert all(len(part) for part in parts_of(group, done))


@pytest.mark.long
def test_length_and_noise_move_little_with_the_scores() -> None:
    """On a grid whose best point is taken they would jump; a mean over it does not."""
    features, weights = problem(3)
    scored = np.arange(0, 160, 4)
    model = MaskModel(features)
    jumps = []
    for factor in np.linspace(0.98, 1.02, 81):
        tilted = weights[scored] ** factor
        posterior = model.condition(scored, tilted).posterior
        jumps.append((np.log(posterior.length), np.log(posterior.noise)))
    assert np.abs(np.diff(jumps, axis=0)).max() < 0.02


def test_a_decision_fades_in() -> None:
    np.testing.assert_allclose(fade(np.array([0.5, 1, 1.05, 1.1, 9, np.inf]), 1, 0.1), [0, 0, 0.5, 1, 1, 1], atol=1e-12)
    np.testing.assert_array_equal(fade(np.array([0.0, 2]), 0, 0.1), [1, 1])


EVERY_CHANNEL = [Limits(), Limits(budget=1.0), Limits(budget=160), Limits(budget=10**6), Limits(deadline=1e9)]


@pytest.mark.parametrize("limits", EVERY_CHANNEL, ids=str)
def test_where_every_channel_is_scored_the_process_is_never_set_up(
    limits: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a Gaussian process")

    monkeypatch.setattr(chooser, "MaskModel", refuse)
    features, weights = problem(0)
    last = scores_of(features, weights, 8, limits)
    assert last.scored.all()
    np.testing.assert_array_equal(last.error, 0)
    with pytest.raises(AssertionError, match="a Gaussian process"):
        scores_of(features, weights, 8, Limits(budget=0.5))


@pytest.mark.parametrize("limits", [{}, {"budget": 1.0}, {"budget": 10**6}, {"deadline": 1e9}])
def test_nor_is_it_by_the_explainer(
    limits: dict[str, Any], tiny_bundle: Path, photograph: ortcam.Photograph, monkeypatch: pytest.MonkeyPatch
) -> None:
    explainer = ortcam.load(tiny_bundle, providers=["cpu"])
    *_, last = explainer.explain_iter(photograph.pixels, method="scorecam++", budget=1.0)
    assert last.scored.sum() == last.stats.live_channels
    monkeypatch.setattr(chooser, "MaskModel", None)
    e = explainer.explain(photograph.pixels, method="scorecam++", **limits)
    assert e.scored.sum() == e.stats.live_channels
    np.testing.assert_allclose(e.maps, last.maps, rtol=0, atol=PROMISED)
