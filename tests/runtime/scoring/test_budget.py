"""Budget, deadline, tolerance and previews: what they stop, what they promise, and that exact results stay exact."""

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.common.engines import Call, Outputs, recorded
from tests.common.tolerances import PROMISED

import ortcam
from ortcam.bundle.gates import GATE_FUNCTIONS
from ortcam.bundle.shipped import bundle_path, demo_image
from ortcam.engine.batching import BatchSizer
from ortcam.errors import OutOfMemoryError
from ortcam.methods import resolve_method
from ortcam.scoring.budget import score
from ortcam.scoring.limits import Limits
from ortcam.scoring.loop import Scoring
from ortcam.scoring.masks import prepare_masks
from ortcam.scoring.upsampling import upsample

METHODS = ("scorecam", "scorecam++", "sscam", "iscam")
SAMPLES = {"sscam": 2, "iscam": 2}
# One size for all runs of a test: other sizes round differently.
SETTLED = {"batch_size": 8}


@pytest.fixture(scope="module")
def explainer() -> ortcam.Explainer:
    return ortcam.load(bundle_path(), providers=["cpu"])


@pytest.fixture(scope="module")
def photograph(explainer: ortcam.Explainer) -> ortcam.Photograph:
    return explainer.read(demo_image())


def options_of(method: str) -> dict[str, Any]:
    return {"method": method, **({"num_samples": SAMPLES[method]} if method in SAMPLES else {}), **SETTLED}


class Exact(dict[str, ortcam.Explanation]):
    """Explanations of two classes by method, each made when it is first asked for."""

    def __init__(self, explainer: ortcam.Explainer, photograph: ortcam.Photograph) -> None:
        self._explainer, self._photograph = explainer, photograph

    def __missing__(self, method: str) -> ortcam.Explanation:
        self[method] = self._explainer.explain(self._photograph, top_k=2, **options_of(method))
        return self[method]


@pytest.fixture(scope="module")
def exact(explainer: ortcam.Explainer, photograph: ortcam.Photograph) -> Exact:
    return Exact(explainer, photograph)


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_budget_is_kept_and_what_is_scored_is_exact(
    method: str, explainer: ortcam.Explainer, photograph: ortcam.Photograph, exact: Exact
) -> None:
    e, whole = explainer.explain(photograph, top_k=2, budget=0.1, **options_of(method)), exact[method]
    live = whole.stats.live_channels
    assert e.stats.scored_channels == math.ceil(0.1 * live) == e.scored.sum()
    assert e.stats.passes == e.stats.scored_channels * SAMPLES.get(method, 1)
    np.testing.assert_allclose(e.weights[:, e.scored], whole.weights[:, e.scored], rtol=1e-4, atol=1e-9)
    assert 0.1 < e.stats.energy_covered < 1
    assert e.stats.estimated_error is not None
    for k in range(2):
        assert pearson(e.maps[k], whole.maps[k]) > 0.95
        # The estimate is a high quantile, so a bound for these two maps.
        assert np.abs(e.maps[k] - whole.maps[k]).max() <= e.stats.estimated_error[k] < 1


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("weighting", ["probability", "logit-softmax"])
def test_completion_is_nearer_to_the_exact_map_than_the_plain_sum(
    method: str, weighting: str, explainer: ortcam.Explainer, photograph: ortcam.Photograph
) -> None:
    def explain(**limits: Any) -> ortcam.Explanation:
        return explainer.explain(photograph, weighting=weighting, **options_of(method), **limits)

    whole, errors = explain(), []
    for budget in (0.04, 0.25):
        completed, plain = explain(budget=budget), explain(budget=budget, completion="none")
        assert plain.stats.passes == completed.stats.passes
        assert (plain.weights[:, ~plain.scored] == 0).all()
        assert plain.stats.estimated_error is None
        if weighting == "logit-softmax":
            np.testing.assert_allclose([completed.weights.sum(), plain.weights.sum()], 1, rtol=1e-5)
        errors.append([np.abs(e.maps - whole.maps).max() for e in (completed, plain)])
    assert sum(completed for completed, _ in errors) < 0.6 * sum(plain for _, plain in errors)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("budget", [1.0, 10**6])
def test_where_every_channel_is_scored_nothing_is_completed(
    method: str,
    budget: float,
    explainer: ortcam.Explainer,
    photograph: ortcam.Photograph,
    exact: Exact,
) -> None:
    e, whole = explainer.explain(photograph, top_k=2, budget=budget, **options_of(method)), exact[method]
    assert e.stats.estimated_error == whole.stats.estimated_error == (0, 0)
    assert e.stats.energy_covered == 1
    np.testing.assert_allclose(e.maps, whole.maps, rtol=0, atol=PROMISED)  # the channels come in another order


@pytest.mark.slow
def test_the_baseline_is_subtracted_from_predicted_weights_too(
    explainer: ortcam.Explainer, photograph: ortcam.Photograph
) -> None:
    settings = {"method": "scorecam", "budget": 0.1, "target": 2, **SETTLED}
    plain = explainer.explain(photograph, **settings)
    lower = explainer.explain(photograph, baseline="zeros", **settings)
    np.testing.assert_array_equal(plain.scored, lower.scored)
    live = plain.weights[0] != 0
    difference = (plain.weights - lower.weights)[0, live]
    assert difference.min() == pytest.approx(difference.max(), rel=1e-3)
    assert difference.min() > 0


@pytest.mark.slow
@pytest.mark.parametrize("gate", ["tanh", "sigmoid", "mish"])
def test_the_predicted_part_of_a_gated_sum_is_that_of_gated_maps(
    gate: str, explainer: ortcam.Explainer, photograph: ortcam.Photograph
) -> None:
    e = explainer.explain(photograph, gate=gate, budget=0.1, **options_of("scorecam++"))
    maps = explainer.features(photograph)
    expected = np.tensordot(e.weights, GATE_FUNCTIONS[gate](upsample(maps, 224, 224)), axes=1)
    assert np.abs(e.raw_maps - expected).max() < 1e-2 * np.abs(expected).max()


@pytest.mark.slow
@pytest.mark.parametrize("gate", GATE_FUNCTIONS)
def test_a_gate_outside_the_graph_is_the_one_inside(
    gate: str, explainer: ortcam.Explainer, photograph: ortcam.Photograph
) -> None:
    e = explainer.explain(photograph, gate=gate, **options_of("scorecam++"))
    maps = explainer.features(photograph)
    expected = np.tensordot(e.weights, GATE_FUNCTIONS[gate](upsample(maps, 224, 224)), axes=1)
    np.testing.assert_allclose(e.raw_maps, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize("method", ["scorecam", "scorecam++"])
def test_a_tolerance_is_met_or_all_is_scored(
    method: str, explainer: ortcam.Explainer, photograph: ortcam.Photograph, exact: Exact
) -> None:
    passes = []
    for tolerance in (0.3, 0.1, 0.02):
        e = explainer.explain(photograph, top_k=2, tolerance=tolerance, **options_of(method))
        assert e.stats.estimated_error is not None
        assert max(e.stats.estimated_error) <= tolerance
        assert np.abs(e.maps - exact[method].maps).max() <= tolerance
        passes.append(e.stats.passes)
    assert passes[0] <= passes[1] < passes[2] <= exact[method].stats.passes


class GivenWeights:
    """In the place of a scorer: answers with weights that are given."""

    fixed_shape = False

    def __init__(self, weights: np.ndarray) -> None:
        self._weights = weights.astype(np.float32)
        self._channels = np.zeros(0, np.int64)

    def put(self, name: str, value: np.ndarray) -> None:
        if name == "channels":
            self._channels = value.copy()

    def run(self) -> tuple[np.ndarray, np.ndarray]:
        scores = self._weights[self._channels, None]
        return scores, np.log(scores)


def test_channels_of_much_energy_do_not_speak_for_the_others() -> None:
    # Forty bright channels that all weigh the same, and 460 dim ones of the same shape that weigh next to nothing.
    generator = np.random.default_rng(0)
    features = generator.uniform(0, 1, (500, 7, 7)).astype(np.float32)
    features[:40] *= 1.5
    weights = np.where(np.arange(500) < 40, 0.9, 0.02) + generator.uniform(0, 0.01, 500)
    plan = resolve_method("scorecam", {}).plan
    scoring = Scoring(
        GivenWeights(weights),  # type: ignore[arg-type]
        image=np.zeros((1, 3, 28, 28), np.float32),
        masks=prepare_masks(features, plan, height=28, width=28),
        plan=plan,
        targets=np.array([0]),
        baseline=np.zeros(1, np.float32),
        sizer=BatchSizer([4], fixed_shape=False),
    )
    *_, last = score(scoring, Limits(tolerance=0.05), started=time.perf_counter())
    maps = [np.maximum(np.tensordot(w, features, axes=1), 0) for w in (last.weights[0], weights)]
    first, second = ((m - m.min()) / np.ptp(m) for m in maps)
    assert np.abs(first - second).max() <= 0.05


@pytest.mark.slow
def test_no_time_at_all_still_gives_a_map(explainer: ortcam.Explainer, photograph: ortcam.Photograph) -> None:
    for method in METHODS:
        e = explainer.explain(photograph, deadline=1e-3, **options_of(method))
        assert e.stats.runs == 1
        assert e.stats.scored_channels == 8
        assert not e.flat[0]


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_previews_grow_into_the_exact_map(
    method: str, explainer: ortcam.Explainer, photograph: ortcam.Photograph, exact: Exact
) -> None:
    previews = list(explainer.explain_iter(photograph, top_k=2, **options_of(method)))
    passes = [e.stats.passes for e in previews]
    assert passes == sorted(set(passes))
    assert passes[0] < exact[method].stats.passes / 10
    np.testing.assert_allclose(previews[-1].maps, exact[method].maps, rtol=0, atol=PROMISED)
    distances = [np.abs(e.maps - exact[method].maps).max() for e in previews]
    assert distances[-1] < distances[len(distances) // 2] < distances[0]


@pytest.mark.long
def test_previews_without_completion_grow_too(
    explainer: ortcam.Explainer, photograph: ortcam.Photograph, exact: Exact
) -> None:
    previews = list(explainer.explain_iter(photograph, top_k=2, completion="none", **options_of("scorecam")))
    assert len(previews) > 3
    np.testing.assert_allclose(previews[-1].maps, exact["scorecam"].maps, rtol=0, atol=PROMISED)


@pytest.mark.slow
def test_the_last_preview_of_a_budget_is_what_explain_gives(
    explainer: ortcam.Explainer, photograph: ortcam.Photograph
) -> None:
    *_, last = explainer.explain_iter(photograph, budget=0.1, **options_of("scorecam++"))
    e = explainer.explain(photograph, budget=0.1, **options_of("scorecam++"))
    np.testing.assert_array_equal(last.maps, e.maps)


@pytest.mark.slow
def test_any_number_of_classes_costs_the_same_passes(
    explainer: ortcam.Explainer, photograph: ortcam.Photograph
) -> None:
    e = explainer.explain(photograph, top_k=7, budget=0.1, **options_of("scorecam"))
    assert e.stats.scored_channels == math.ceil(0.1 * e.stats.live_channels)
    assert len(e.stats.estimated_error or ()) == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"budget": 0}, "budget=0: accepted is a share"),
        ({"budget": 0.0}, r"budget=0\.0: accepted is a share"),
        ({"budget": 1.5}, r"budget=1\.5"),
        ({"budget": -3}, "budget=-3"),
        ({"budget": True}, "budget=True"),
        ({"budget": "12%"}, "budget='12%'"),
        ({"budget": math.nan}, "budget=nan"),
        ({"deadline": 0}, "deadline=0: accepted is milliseconds above 0"),
        ({"deadline": math.nan}, "deadline=nan"),
        ({"deadline": 10**400}, r"deadline=10+\.\.\. \(401 digits\): accepted is milliseconds above 0"),
        ({"tolerance": 1}, "tolerance=1: accepted is a number between 0 and 1"),
        ({"tolerance": -0.1}, r"tolerance=-0\.1"),
        ({"tolerance": 0.1, "completion": "none"}, "tolerance with completion='none'"),
        ({"completion": "linear"}, "completion='linear': accepted is gaussian-process or none"),
        ({"batch_size": 0}, "batch_size=0: accepted is a whole number from 1 to 65536, or 'auto'"),
        ({"batch_size": "big"}, "batch_size='big'"),
        ({"method": "scorecam++", "sampling_error": 0.1}, r"sampling_error with scorecam\+\+: goes with methods"),
        ({"method": "iscam", "sampling_error": 0}, "sampling_error=0: accepted is a number above 0"),
        ({"method": "eigen-cam", "completion": "none"}, "completion='none' with eigen-cam"),
        ({"method": "eigen-cam", "budget": 0.5}, "budget with eigen-cam: goes with methods that mask the image"),
    ],
)
def test_bad_limits_are_refused_with_what_is_accepted(
    arguments: dict[str, Any], message: str, explainer: ortcam.Explainer, photograph: ortcam.Photograph
) -> None:
    with pytest.raises(ortcam.OptionError, match=message):
        explainer.explain(photograph, **arguments)
    with pytest.raises(ortcam.OptionError, match=message):
        next(explainer.explain_iter(photograph, **arguments))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["scorecam++", "sscam"])
def test_a_chunk_that_does_not_fit_is_halved_and_nothing_is_lost(
    method: str,
    photograph: ortcam.Photograph,
    exact: Exact,
) -> None:
    def answer(call: Call, run: Callable[[], Outputs]) -> Outputs:
        if call.bound and call.rows > 8:
            raise OutOfMemoryError("out of memory")
        return run()

    tight, engine = recorded(bundle_path(), answer)
    e = tight.explain(photograph, top_k=2, **options_of(method) | {"batch_size": 32})
    assert max(call.rows for call in engine.calls) == 32
    assert e.stats.batch_size == 8
    assert e.stats.passes == exact[method].stats.passes
    np.testing.assert_allclose(e.maps, exact[method].maps, rtol=0, atol=PROMISED)


@pytest.mark.parametrize("limits", [{"budget": 1}, {"budget": 5}, {"deadline": 1e-3, "batch_size": 1}])
def test_next_to_nothing_scored_is_next_to_nothing_known(
    limits: dict[str, Any], explainer: ortcam.Explainer, photograph: ortcam.Photograph
) -> None:
    e = explainer.explain(photograph, **{"batch_size": 4, **limits})
    assert e.stats.estimated_error == (1,)


def answering(change: Callable[[np.ndarray], np.ndarray]) -> ortcam.Explainer:
    """An explainer whose scorers answer with something else than what they found."""

    def answer(call: Call, run: Callable[[], Outputs]) -> Outputs:
        return tuple(change(value) for value in run()) if call.bound else run()

    return recorded(bundle_path(), answer)[0]


@pytest.mark.parametrize("limits", [{}, {"budget": 0.75}, {"tolerance": 0.1}])
def test_scores_that_are_not_numbers_are_an_error(limits: dict[str, Any], photograph: ortcam.Photograph) -> None:
    nowhere = answering(lambda value: np.full_like(value, np.nan))
    with pytest.raises(ortcam.NotFiniteError, match="the score of a masked image is not a number"):
        nowhere.explain(photograph, method="scorecam", **limits)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["scorecam", "scorecam++"])
def test_a_class_without_any_score_has_no_map_with_a_budget_either(method: str, photograph: ortcam.Photograph) -> None:
    e = answering(np.zeros_like).explain(photograph, budget=0.2, **options_of(method))
    assert e.flat.all()
    assert (e.maps == 0).all()
    assert e.stats.estimated_error == (1,)


@pytest.mark.slow
def test_time_between_previews_is_the_callers(explainer: ortcam.Explainer, photograph: ortcam.Photograph) -> None:
    pause = 0.2
    started = time.perf_counter()
    previews = []
    for preview in explainer.explain_iter(photograph, budget=64, **options_of("scorecam")):
        previews.append(preview)
        time.sleep(pause)
    elapsed = time.perf_counter() - started
    stats = previews[-1].stats
    assert len(previews) >= 2
    assert stats.seconds <= elapsed - pause * len(previews)
    assert sum(stats.seconds_by_stage.values()) <= stats.seconds + 1e-3
