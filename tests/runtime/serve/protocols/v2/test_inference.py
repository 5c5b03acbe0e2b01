"""Several images of one request: they are explained in turn, and share the time that is left."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from tests.common.loops import run_async

from ortcam.explainer import Explainer, load
from ortcam.results.explanation import Explanation
from ortcam.serve.decoding.sources import Pixels, Source
from ortcam.serve.models.served import ServedModel
from ortcam.serve.protocols.asked import Asked
from ortcam.serve.protocols.v2.inference import Plan, explain
from ortcam.serve.scheduling.calls import Call
from ortcam.serve.service import Service
from ortcam.serve.settings import RequestLimits

PHOTOGRAPHS = [np.full((40, 50, 3), value, np.uint8) for value in (10, 90, 200)]


@pytest.fixture(scope="module")
def explainer(tiny_bundle: Path) -> Iterator[Explainer]:
    with load(tiny_bundle) as opened:
        yield opened


class Recorder:
    """Explains at once, and keeps what it was asked."""

    def __init__(self, explainer: Explainer) -> None:
        self.explainer = explainer
        self.asked: list[tuple[Source, float | None]] = []

    async def explain(
        self, model: ServedModel, source: Source, asked: Asked, call: Call, show: Any = None
    ) -> Explanation:
        self.asked.append((source, asked.deadline_ms))
        found = self.explainer.explain(cast("Pixels", source).array, method="scorecam", budget=1)
        if show is not None:
            show(found)
        return found

    def grown(self, _: Call, size: int, more: int) -> int:
        return size + more


def test_images_are_explained_in_turn_and_share_the_deadline(explainer: Explainer) -> None:
    recorder, shown = Recorder(explainer), []
    sources = tuple(map(Pixels, PHOTOGRAPHS))
    parameters = {"method": "scorecam", "deadline_ms": 400_000}
    asked = Asked.of(parameters, RequestLimits(), explainer.bundle.manifest)
    plan = Plan(cast("ServedModel", explainer), "tiny-explain", None, sources, asked, ())
    call = Call(arrived=time.monotonic() - 100)  # it has waited for 100 seconds
    run_async(explain(cast("Service", recorder), plan, call, lambda place, _: shown.append(place)))
    assert [source for source, _ in recorder.asked] == list(sources)
    assert shown == [0, 1, 2]
    first, second, last = (deadline for _, deadline in recorder.asked if deadline is not None)
    # A third of the 300 seconds that are left; later images get what earlier ones did not need.
    assert 200_000 <= first < 400_000
    assert first < second < last
    assert last == pytest.approx(400_000)
