"""Deadlines by a clock that only the work moves: what is late, what is simplified, and that both are said.

The clock is the test's, so that nothing here depends on the machine: a run takes a given time per row, the process and
the gating a given time per call or channel, and everything else takes none.
"""

import dataclasses
import re
import time
from typing import Any

import numpy as np
import pytest

import ortcam
from ortcam.bundle.shipped import bundle_path, demo_image
from ortcam.cli import main
from ortcam.engine.binding import OnnxBoundSession
from ortcam.engine.features import CleanPass
from ortcam.engine.model import Model
from ortcam.scoring import loop
from ortcam.scoring.gaussian_process import MaskModel
from ortcam.scoring.pace import Pace

METHODS = ("scorecam", "scorecam++", "iscam")


@dataclasses.dataclass
class Costs:
    """Seconds that each piece of work takes, and the time that it is."""

    row: float = 0.010
    clean: float = 0.020
    set_up: float = 0.010
    predict: float = 0.010
    estimate: float = 0.020
    gate: float = 1e-4  # a channel at every pixel
    now: float = 100.0
    longest_run: float = 0.0


@pytest.fixture
def costs(monkeypatch: pytest.MonkeyPatch) -> Costs:
    costs = Costs()
    rows: dict[OnnxBoundSession, int] = {}
    run, put = OnnxBoundSession.run, OnnxBoundSession.put
    set_up, condition = MaskModel.__init__, MaskModel.condition
    map_error, gated_sum, clean_pass = MaskModel.map_error, loop.gated_sum, Model.clean_pass

    def put_rows(self: OnnxBoundSession, name: str, value: np.ndarray) -> None:
        if name == "channels":
            rows[self] = len(value)
        put(self, name, value)

    def timed_run(self: OnnxBoundSession) -> tuple[np.ndarray, ...]:
        seconds = costs.row * rows.get(self, 0)
        costs.longest_run = max(costs.longest_run, seconds)
        costs.now += seconds
        return run(self)

    def timed_clean_pass(self: Model, model_input: np.ndarray) -> CleanPass:
        costs.now += costs.clean
        return clean_pass(self, model_input)

    def timed_set_up(self: MaskModel, *arguments: Any) -> None:
        costs.now += costs.set_up
        set_up(self, *arguments)

    def timed_condition(self: MaskModel, *arguments: Any, **more: Any) -> Any:
        costs.now += costs.predict
        return condition(self, *arguments, **more)

    def timed_error(self: MaskModel, *arguments: Any) -> Any:
        costs.now += costs.estimate
        return map_error(self, *arguments)

    def timed_gating(maps: np.ndarray, *arguments: Any, step: int, **sides: int) -> np.ndarray:
        costs.now += costs.gate * len(maps) / step**2
        return gated_sum(maps, *arguments, step=step, **sides)

    monkeypatch.setattr(time, "perf_counter", lambda: costs.now)
    monkeypatch.setattr(OnnxBoundSession, "put", put_rows)
    monkeypatch.setattr(OnnxBoundSession, "run", timed_run)
    monkeypatch.setattr(Model, "clean_pass", timed_clean_pass)
    monkeypatch.setattr(MaskModel, "__init__", timed_set_up)
    monkeypatch.setattr(MaskModel, "condition", timed_condition)
    monkeypatch.setattr(MaskModel, "map_error", timed_error)
    monkeypatch.setattr(loop, "gated_sum", timed_gating)
    return costs


@pytest.fixture
def explainer() -> ortcam.Explainer:
    return ortcam.load(bundle_path(), providers=["cpu"])


def options_of(method: str) -> dict[str, Any]:
    return {"method": method, "batch_size": 32, **({"num_samples": 3} if method == "iscam" else {})}


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_deadline_is_met_once_the_pace_is_known(method: str, explainer: ortcam.Explainer, costs: Costs) -> None:
    photograph = explainer.read(demo_image())
    explainer.explain(photograph, budget=40, **options_of(method))
    passes = []
    for deadline in (450, 700, 1500):
        e = explainer.explain(photograph, deadline=deadline, **options_of(method))
        assert e.stats.seconds_late == 0
        assert e.stats.seconds <= deadline / 1000
        assert e.stats.simplified == ()
        passes.append(e.stats.passes)
    assert passes[0] < passes[1] < passes[2]
    # Most of the time goes into passes: what is kept free is what the rest takes, and a run cut too short.
    rest = costs.clean + costs.set_up + 5 * costs.predict + costs.estimate + 1024 * costs.gate
    assert passes[2] * costs.row >= 1.5 - rest - 4 * costs.row - 0.01


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_first_explanation_is_late_by_one_run_at_most(method: str, explainer: ortcam.Explainer, costs: Costs) -> None:
    costs.estimate = costs.predict = costs.set_up = 0.001
    e = explainer.explain(demo_image(), deadline=100, **options_of(method))
    assert e.stats.seconds_late <= costs.longest_run == 32 * costs.row
    assert e.stats.passes == 32
    assert e.stats.simplified


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_without_time_a_few_channels_are_scored_and_the_others_weigh_their_mean(
    method: str, explainer: ortcam.Explainer, costs: Costs
) -> None:
    photograph = explainer.read(demo_image())
    explainer.explain(photograph, budget=40, **options_of(method))
    before = costs.now
    e = explainer.explain(photograph, deadline=30, **options_of(method))
    assert e.stats.passes == 8
    assert costs.now - before <= costs.clean + 8 * costs.row + 1024 * costs.gate / 8**2 + 1e-9
    assert any("mean" in what for what in e.stats.simplified)
    assert e.stats.estimated_error == (1,)
    others = e.weights[0, ~e.scored & (e.weights[0] != 0)]
    np.testing.assert_allclose(others, e.weights[0, e.scored].mean(), rtol=1e-5)
    assert not e.flat[0]


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_process_that_takes_longer_than_ever_before_ends_the_passes(
    method: str, explainer: ortcam.Explainer, costs: Costs
) -> None:
    photograph = explainer.read(demo_image())
    explainer.explain(photograph, budget=40, **options_of(method))
    costs.predict = 2.0
    e = explainer.explain(photograph, deadline=1500, **options_of(method))
    assert 0 < e.stats.passes < 150
    assert e.stats.seconds_late > 0
    assert any("mean" in what for what in e.stats.simplified)


@pytest.mark.slow
def test_slow_runs_for_many_classes_do_not_shorten_those_for_one(explainer: ortcam.Explainer, costs: Costs) -> None:
    photograph = explainer.read(demo_image())
    explainer.explain(photograph, budget=40, **options_of("scorecam++"))
    before = explainer.explain(photograph, deadline=700, **options_of("scorecam++"))
    costs.row = 0.3
    explainer.explain(photograph, budget=8, top_k=7, **options_of("scorecam++"))
    costs.row = Costs.row
    after = explainer.explain(photograph, deadline=700, **options_of("scorecam++"))
    assert after.stats.passes == before.stats.passes > 8


@pytest.mark.slow
def test_gating_that_does_not_fit_is_coarser(explainer: ortcam.Explainer, costs: Costs) -> None:
    photograph = explainer.read(demo_image())
    whole = explainer.explain(photograph, budget=40, **options_of("scorecam++"))
    costs.gate = 0.002  # two seconds for all channels
    explainer.explain(photograph, budget=40, **options_of("scorecam++"))
    e = explainer.explain(photograph, deadline=1000, **options_of("scorecam++"))
    assert e.stats.seconds_late == 0
    assert any("gated at one in" in what for what in e.stats.simplified)
    assert np.corrcoef(e.maps.ravel(), whole.maps.ravel())[0, 1] > 0.9


@pytest.mark.long
def test_an_estimate_that_does_not_fit_is_left_out(explainer: ortcam.Explainer, costs: Costs) -> None:
    photograph = explainer.read(demo_image())
    costs.row = 1e-4
    explainer.explain(photograph, budget=200, **options_of("scorecam"))
    costs.estimate = 5.0
    explainer.explain(photograph, budget=200, **options_of("scorecam"))
    costs.row = 0.010
    explainer.explain(photograph, deadline=1500, **options_of("scorecam"))
    e = explainer.explain(photograph, deadline=1500, **options_of("scorecam"))
    assert e.stats.seconds_late == 0
    assert e.stats.estimated_error == (1,)


@pytest.mark.long
def test_a_deadline_that_all_channels_meet_gives_the_exact_map(explainer: ortcam.Explainer, costs: Costs) -> None:
    costs.row = 1e-5
    photograph = explainer.read(demo_image())
    exact = explainer.explain(photograph, **options_of("scorecam++"))
    e = explainer.explain(photograph, deadline=2000, **options_of("scorecam++"))
    assert e.stats.estimated_error == (0,)
    assert e.scored.sum() == e.stats.live_channels
    np.testing.assert_allclose(e.maps, exact.maps, rtol=0, atol=1e-5)


def test_a_missed_deadline_is_said(costs: Costs, capsys: pytest.CaptureFixture[str], tmp_path: Any) -> None:
    costs.clean = 2.0
    arguments = ["explain", str(bundle_path()), str(demo_image()), "-o", str(tmp_path), "--deadline", "100"]
    assert main([*arguments, "--batch-size", "8"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert re.search(r"19\d\d ms after the deadline", printed)  # 1.9 seconds, and the run
    assert "simplified to meet the deadline: weights that were not scored" in printed
    assert printed.count("simplified to meet the deadline") == 1


@pytest.mark.slow
def test_without_a_deadline_nothing_is_late_or_simplified(explainer: ortcam.Explainer, costs: Costs) -> None:
    costs.gate = costs.predict = 10.0
    e = explainer.explain(demo_image(), budget=20, **options_of("scorecam++"))
    assert e.stats.seconds_late == 0
    assert e.stats.simplified == ()


def test_a_pace_rises_at_once_and_falls_by_half() -> None:
    pace = Pace()
    assert not pace.knows("rows")
    pace.took("rows", 10, 1.0)
    assert pace.knows("rows")
    assert pace.seconds("rows", 3) == pytest.approx(0.3)
    pace.took("rows", 10, 2.0)
    assert pace.seconds("rows", 1) == pytest.approx(0.2)
    pace.took("rows", 10, 1.0)
    assert pace.seconds("rows", 1) == pytest.approx(0.15)


@pytest.mark.slow
def test_without_completion_all_the_time_is_for_passes(explainer: ortcam.Explainer, costs: Costs) -> None:
    photograph = explainer.read(demo_image())
    explainer.explain(photograph, budget=40, **options_of("scorecam++"))
    e = explainer.explain(photograph, deadline=500, completion="none", **options_of("scorecam++"))
    assert e.stats.seconds_late == 0
    assert e.stats.simplified == ()
    assert e.stats.passes * costs.row >= 0.5 - costs.clean - 4 * costs.row - 0.01
    assert e.stats.estimated_error is None
