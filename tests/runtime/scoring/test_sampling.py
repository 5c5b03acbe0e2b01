"""Methods that take means over samples: when sampling stops, and what a mean of some of them is worth."""

import json
import math
from typing import Any

import numpy as np
import pytest
from tests.common.tolerances import PROMISED

import ortcam
from ortcam.bundle.shipped import bundle_path, demo_image

# One size for all runs of a test: other sizes round differently.
SETTLED = {"batch_size": 8}


@pytest.fixture(scope="module")
def explainer() -> ortcam.Explainer:
    return ortcam.load(bundle_path(), providers=["cpu"])


@pytest.fixture(scope="module")
def photograph(explainer: ortcam.Explainer) -> ortcam.Photograph:
    return explainer.read(demo_image())


@pytest.mark.slow
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
    assert all_samples.stats.standard_error is None
    np.testing.assert_allclose(all_samples.weights, whole.weights, rtol=1e-4)


@pytest.mark.long
def test_samples_cut_off_by_a_deadline_are_no_exact_map(
    explainer: ortcam.Explainer, photograph: ortcam.Photograph
) -> None:
    """Whatever is left of a path is a random part of it, and the result says what it is worth."""
    settings: dict[str, Any] = {"method": "iscam", "target": 2, "num_samples": 4, "batch_size": 256}
    whole = explainer.explain(photograph, **settings)
    for completion in ("gaussian-process", "none"):
        e = explainer.explain(photograph, deadline=1e-3, completion=completion, **settings)
        assert 0 < e.stats.passes < whole.stats.passes
        assert e.stats.standard_error is not None
        assert 0 < e.stats.standard_error[0] < math.inf
        assert (e.stats.estimated_error is None) == (completion == "none")
        assert e.stats.estimated_error != (0,)
        json.dumps(e.summary(), allow_nan=False)
    every = explainer.explain(photograph, deadline=1e9, **settings)
    assert every.stats.estimated_error == (0,)
    assert every.stats.standard_error is None
    np.testing.assert_allclose(every.maps, whole.maps, rtol=0, atol=PROMISED)
