"""`stop` of `explain_request`: asked after every run, it ends an explanation with the best map so far, and says so."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ortcam
from ortcam.methods import METHODS
from ortcam.request import ExplainRequest


@pytest.fixture(scope="module")
def explainer(tiny_bundle: Path) -> Iterator[ortcam.Explainer]:
    with ortcam.load(tiny_bundle, providers=["cpu"], threads=1) as found:
        yield found


def after(runs: int) -> Callable[[], bool]:
    """Says yes once so many runs of a graph were made: it is asked once before the first."""
    asked = iter(range(1_000_000))
    return lambda: next(asked) >= runs


def request(**arguments: Any) -> ExplainRequest:
    given: dict[str, Any] = {"method": "scorecam", "batch_size": 2} | arguments
    return ExplainRequest.of(**given)


def test_what_is_not_stopped_is_the_same_to_the_last_bit(explainer: ortcam.Explainer, picture: np.ndarray) -> None:
    for asked in (request(), request(budget=4), request(tolerance=0.2), ExplainRequest.of(method="recipro-cam")):
        alone = explainer.explain_request(asked, picture)
        with_stop = explainer.explain_request(asked, picture, stop=lambda: False)
        np.testing.assert_array_equal(with_stop.maps, alone.maps)
        assert (with_stop.stats.simplified, with_stop.stats.passes) == ((), alone.stats.passes)


def test_it_stops_after_the_run_at_which_it_is_told_to(explainer: ortcam.Explainer, picture: np.ndarray) -> None:
    whole = explainer.explain_request(request(), picture)
    for runs in (1, 2, 3):
        e = explainer.explain_request(request(), picture, stop=after(runs))
        assert e.stats.runs == runs
        assert e.stats.passes == 2 * runs
        assert e.stats.simplified == (f"stopped after {2 * runs} of {whole.stats.passes} forward passes",)


def test_the_weights_that_are_missing_are_predicted_and_the_error_is_unknown(
    explainer: ortcam.Explainer, picture: np.ndarray
) -> None:
    e = explainer.explain_request(request(), picture, stop=after(2))
    assert e.stats.scored_channels == 4
    live = e.weights[0] != 0
    assert live.sum() == e.stats.live_channels > 4
    assert e.stats.estimated_error == (1.0,)
    bare = explainer.explain_request(request(completion="none"), picture, stop=after(2))
    assert (bare.weights[0] != 0).sum() == 4
    assert bare.stats.estimated_error is None
    np.testing.assert_array_equal(bare.weights[0][bare.scored], e.weights[0][e.scored])


def test_one_run_is_made_also_by_who_is_late(explainer: ortcam.Explainer, picture: np.ndarray) -> None:
    e = explainer.explain_request(request(batch_size=32), picture, stop=lambda: True)
    assert e.stats.runs == 1
    assert 0 < e.stats.passes <= 8
    assert np.isfinite(e.maps).all()


def test_to_be_stopped_after_the_last_run_changes_nothing(explainer: ortcam.Explainer, picture: np.ndarray) -> None:
    whole = explainer.explain_request(request(), picture)
    e = explainer.explain_request(request(), picture, stop=after(whole.stats.runs))
    np.testing.assert_array_equal(e.maps, whole.maps)
    assert (e.stats.simplified, e.stats.estimated_error) == ((), (0.0,))


def test_it_does_not_change_the_method(explainer: ortcam.Explainer, picture: np.ndarray) -> None:
    e = explainer.explain_request(ExplainRequest.of(), picture, stop=lambda: True)
    assert e.chosen == explainer.explain(picture).chosen
    assert e.stats.simplified == ()


def test_a_stop_within_the_samples_of_a_channel_says_how_far_it_came(
    explainer: ortcam.Explainer, picture: np.ndarray
) -> None:
    asked = request(method="iscam", num_samples=3)
    whole = explainer.explain_request(asked, picture)
    runs = whole.stats.runs - 1
    e = explainer.explain_request(asked, picture, stop=after(runs))
    assert e.stats.runs == runs
    assert e.stats.standard_error is not None
    assert e.stats.estimated_error is not None
    assert "stopped after" in e.stats.simplified[-1]


def test_copies_that_are_done_are_combined(explainer: ortcam.Explainer, picture: np.ndarray) -> None:
    asked = request(augment=4)
    one = explainer.explain_request(request(augment=1), picture)
    # It is asked before the first run of each copy and between two copies, too: yes comes within the second copy.
    e = explainer.explain_request(asked, picture, stop=after(one.stats.runs + 4))
    assert e.stats.copies == 2
    assert f"{e.stats.copies} of 4 copies of the image are explained" in e.stats.simplified


def test_maps_on_the_way_end_with_the_one_that_was_stopped(explainer: ortcam.Explainer, picture: np.ndarray) -> None:
    steps = list(explainer.explain_iter_request(request(), picture, stop=after(4)))
    assert steps[-1].stats.simplified
    assert all(not step.stats.simplified for step in steps[:-1])
    whole = list(explainer.explain_iter_request(request(), picture))
    of_arguments = list(explainer.explain_iter(picture, method="scorecam", batch_size=2))
    assert [step.stats.passes for step in whole] == [step.stats.passes for step in of_arguments]
    np.testing.assert_array_equal(whole[-1].maps, of_arguments[-1].maps)


@pytest.mark.long
@pytest.mark.parametrize("name", [method.name for method in METHODS if method.masks_image])
@pytest.mark.parametrize("limits", [{}, {"budget": 0.5}, {"tolerance": 0.05}, {"completion": "none"}])
def test_every_masked_method_stops_at_any_run(
    explainer: ortcam.Explainer, picture: np.ndarray, name: str, limits: dict[str, object]
) -> None:
    asked = request(method=name, **limits)
    whole = explainer.explain_request(asked, picture)
    for runs in range(1, min(whole.stats.runs, 6)):
        e = explainer.explain_request(asked, picture, stop=after(runs))
        assert e.stats.runs == runs
        assert np.isfinite(e.maps).all()
        assert "stopped after" in e.stats.simplified[-1]
    e = explainer.explain_request(asked, picture, stop=after(whole.stats.runs + 1))
    np.testing.assert_array_equal(e.maps, whole.maps)
