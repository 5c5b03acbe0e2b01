"""Budget, deadline, tolerance and previews: what they stop, what they promise, and that exact results stay exact."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ortcam
from ortcam.errors import OutOfMemoryError
from ortcam.gates import GATE_FUNCTIONS
from ortcam.session import Bound
from ortcam.shipped import bundle_path, demo_picture
from ortcam.upsampling import upsample

METHODS = ("scorecam", "scorecam++", "sscam", "iscam")
SAMPLES = {"sscam": 2, "iscam": 2}
# One size for all runs of a test: other sizes round differently.
SETTLED = {"batch_size": 8}


@pytest.fixture(scope="module")
def explainer() -> ortcam.Explainer:
    return ortcam.load(bundle_path(), providers=["cpu"])


@pytest.fixture(scope="module")
def photograph(explainer: ortcam.Explainer) -> ortcam.Photograph:
    return explainer.read(demo_picture())


def options_of(method: str) -> dict[str, Any]:
    return {"method": method, **({"num_samples": SAMPLES[method]} if method in SAMPLES else {}), **SETTLED}


@pytest.fixture(scope="module")
def exact(explainer: ortcam.Explainer, photograph: ortcam.Photograph) -> dict[str, ortcam.Explanation]:
    return {method: explainer.explain(photograph, top_k=2, **options_of(method)) for method in METHODS}


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


@pytest.mark.parametrize("method", METHODS)
def test_a_budget_is_kept_and_what_is_scored_is_exact(
    method: str, explainer: ortcam.Explainer, photograph: ortcam.Photograph, exact: dict[str, ortcam.Explanation]
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


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("budget", [1.0, 10**6])
def test_where_every_channel_is_scored_nothing_is_completed(
    method: str,
    budget: float,
    explainer: ortcam.Explainer,
    photograph: ortcam.Photograph,
    exact: dict[str, ortcam.Explanation],
) -> None:
    e, whole = explainer.explain(photograph, top_k=2, budget=budget, **options_of(method)), exact[method]
    assert e.stats.estimated_error == whole.stats.estimated_error == (0, 0)
    assert e.stats.energy_covered == 1
    np.testing.assert_allclose(e.maps, whole.maps, rtol=0, atol=2e-6)  # the channels come in another order


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


@pytest.mark.parametrize("gate", ["tanh", "sigmoid", "mish"])
def test_the_predicted_part_of_a_gated_sum_is_that_of_gated_maps(
    gate: str, explainer: ortcam.Explainer, photograph: ortcam.Photograph
) -> None:
    e = explainer.explain(photograph, gate=gate, budget=0.1, **SETTLED)
    maps = explainer._clean_pass(photograph).maps
    expected = np.tensordot(e.weights, GATE_FUNCTIONS[gate](upsample(maps, 224, 224)), axes=1)
    assert np.abs(e.raw_maps - expected).max() < 1e-2 * np.abs(expected).max()


def test_gates_outside_the_graph_are_those_inside(explainer: ortcam.Explainer, photograph: ortcam.Photograph) -> None:
    for gate, function in GATE_FUNCTIONS.items():
        e = explainer.explain(photograph, gate=gate, **SETTLED)
        maps = explainer._clean_pass(photograph).maps
        expected = np.tensordot(e.weights, function(upsample(maps, 224, 224)), axes=1)
        np.testing.assert_allclose(e.raw_maps, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("method", ["scorecam", "scorecam++"])
def test_a_tolerance_is_met_or_all_is_scored(
    method: str, explainer: ortcam.Explainer, photograph: ortcam.Photograph, exact: dict[str, ortcam.Explanation]
) -> None:
    passes = []
    for tolerance in (0.3, 0.1, 0.02):
        e = explainer.explain(photograph, top_k=2, tolerance=tolerance, **options_of(method))
        assert e.stats.estimated_error is not None
        assert max(e.stats.estimated_error) <= tolerance
        assert np.abs(e.maps - exact[method].maps).max() <= tolerance
        passes.append(e.stats.passes)
    assert passes[0] <= passes[1] < passes[2] <= exact[method].stats.passes


def test_no_time_at_all_still_gives_a_map(explainer: ortcam.Explainer, photograph: ortcam.Photograph) -> None:
    for method in METHODS:
        e = explainer.explain(photograph, deadline=1e-3, **options_of(method))
        assert e.stats.runs == 1
        assert e.stats.scored_channels == 8
        assert not e.flat[0]


@pytest.mark.parametrize("method", METHODS)
def test_previews_grow_into_the_exact_map(
    method: str, explainer: ortcam.Explainer, photograph: ortcam.Photograph, exact: dict[str, ortcam.Explanation]
) -> None:
    previews = list(explainer.explain_iter(photograph, top_k=2, **options_of(method)))
    passes = [e.stats.passes for e in previews]
    assert passes == sorted(set(passes))
    assert passes[0] < exact[method].stats.passes / 10
    np.testing.assert_allclose(previews[-1].maps, exact[method].maps, rtol=0, atol=2e-6)
    distances = [np.abs(e.maps - exact[method].maps).max() for e in previews]
    assert distances[-1] < distances[len(distances) // 2] < distances[0]


def test_previews_without_completion_grow_too(
    explainer: ortcam.Explainer, photograph: ortcam.Photograph, exact: dict[str, ortcam.Explanation]
) -> None:
    previews = list(explainer.explain_iter(photograph, top_k=2, completion="none", **options_of("scorecam")))
    assert len(previews) > 3
    np.testing.assert_allclose(previews[-1].maps, exact["scorecam"].maps, rtol=0, atol=2e-6)


def test_the_last_preview_of_a_budget_is_what_explain_gives(
    explainer: ortcam.Explainer, photograph: ortcam.Photograph
) -> None:
    *_, last = explainer.explain_iter(photograph, budget=0.1, **options_of("scorecam++"))
    e = explainer.explain(photograph, budget=0.1, **options_of("scorecam++"))
    np.testing.assert_array_equal(last.maps, e.maps)


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
        ({"tolerance": 1}, "tolerance=1: accepted is a number between 0 and 1"),
        ({"tolerance": -0.1}, r"tolerance=-0\.1"),
        ({"tolerance": 0.1, "completion": "none"}, "tolerance with completion='none'"),
        ({"completion": "linear"}, "completion='linear': accepted is gaussian-process or none"),
        ({"batch_size": 0}, "batch_size=0: accepted is a whole number from 1, or 'auto'"),
        ({"batch_size": "big"}, "batch_size='big'"),
        ({"sampling_error": 0.1}, r"sampling_error with scorecam\+\+: goes with methods that take a mean"),
        ({"method": "iscam", "sampling_error": 0}, "sampling_error=0: accepted is a number above 0"),
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


@pytest.mark.parametrize("method", ["sscam", "iscam"])
def test_sampling_stops_where_a_mean_is_known_well_enough(
    method: str, explainer: ortcam.Explainer, photograph: ortcam.Photograph
) -> None:
    settings = {"method": method, "num_samples": 12, "target": 2, "budget": 64, **SETTLED}
    whole = explainer.explain(photograph, **settings)
    some = explainer.explain(photograph, sampling_error=0.1, **settings)
    assert whole.stats.standard_error is None
    assert some.stats.passes < whole.stats.passes == 64 * 12
    assert some.stats.standard_error is not None
    assert some.stats.standard_error[0] <= 0.12  # of the mean weight when a channel was left, which has moved since
    both = whole.scored & some.scored
    weights = whole.weights[0, both]
    within = np.abs(some.weights[0, both] - weights) <= 3 * 0.1 * np.maximum(weights, weights.mean())
    assert within.mean() >= 0.9


def test_no_sampling_error_is_small_enough_to_change_the_mean(
    explainer: ortcam.Explainer, photograph: ortcam.Photograph
) -> None:
    settings = {"method": "iscam", "num_samples": 6, "target": 2, "budget": 16, **SETTLED}
    whole = explainer.explain(photograph, **settings)
    all_samples = explainer.explain(photograph, sampling_error=1e-9, **settings)
    assert all_samples.stats.standard_error == (0,)
    np.testing.assert_allclose(all_samples.weights, whole.weights, rtol=1e-4)


@pytest.mark.parametrize("method", ["scorecam++", "sscam"])
def test_a_chunk_that_does_not_fit_is_halved_and_nothing_is_lost(
    method: str,
    explainer: ortcam.Explainer,
    photograph: ortcam.Photograph,
    exact: dict[str, ortcam.Explanation],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, put = Bound.run, Bound.put
    sizes: dict[Bound, int] = {}

    def remember_size(self: Bound, name: str, value: np.ndarray) -> None:
        if name == "channels":
            sizes[self] = len(value)
        put(self, name, value)

    def run_small(self: Bound) -> tuple[np.ndarray, ...]:
        if sizes.get(self, 0) > 8:
            raise OutOfMemoryError("out of memory")
        return run(self)

    monkeypatch.setattr(Bound, "put", remember_size)
    monkeypatch.setattr(Bound, "run", run_small)
    e = explainer.explain(photograph, top_k=2, **options_of(method) | {"batch_size": 32})
    assert e.stats.batch_size == 8
    assert e.stats.passes == exact[method].stats.passes
    np.testing.assert_allclose(e.maps, exact[method].maps, rtol=0, atol=2e-6)


def test_many_images_are_explained_as_one_is(explainer: ortcam.Explainer, photograph: ortcam.Photograph) -> None:
    one = explainer.explain(photograph, budget=32, **SETTLED)
    for e in explainer.explain_many([demo_picture(), photograph.pixels, photograph], budget=32, **SETTLED):
        np.testing.assert_array_equal(e.maps, one.maps)


def test_many_images_are_read_at_most_a_few_ahead(explainer: ortcam.Explainer) -> None:
    taken = []

    def images() -> Iterator[Path]:
        for index in range(100):
            taken.append(index)
            yield demo_picture()

    generator = explainer.explain_many(images(), budget=1)
    assert not taken
    next(generator)
    assert len(taken) <= 4
    generator.close()


def test_an_image_that_cannot_be_read_is_skipped_or_raised(explainer: ortcam.Explainer, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    images = [demo_picture(), broken, demo_picture()]
    failed = []
    done = list(explainer.explain_many(images, on_error=lambda image, _: failed.append(image), budget=1))
    assert (len(done), failed) == (2, [broken])
    with pytest.raises(ortcam.ImageError, match=r"broken\.png"):
        list(explainer.explain_many(images, budget=1))
