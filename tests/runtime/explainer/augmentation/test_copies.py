"""Augmented explanations: what is run for them, what they give, how copies share a deadline, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from tests.common.engines import recorded

import ortcam
from ortcam.bundle import Cut
from ortcam.cli import main
from ortcam.engine.batching import Progress
from ortcam.explainer.augmentation.copies import Copies
from ortcam.explainer.augmentation.warps import Warp, draw_warp
from ortcam.explainer.outcome import Outcome
from ortcam.methods import METHODS, Augmentation
from ortcam.methods.fitting import fits
from ortcam.results.explanation import Stats
from ortcam.scoring import Limits
from ortcam.scoring.pace import Pace

FEW = {"sscam": {"num_samples": 2, "budget": 3}, "iscam": {"num_samples": 2, "budget": 3}}


@pytest.fixture(scope="module")
def explainer(tiny_bundle: Path) -> ortcam.Explainer:
    return ortcam.load(tiny_bundle, providers=["CPUExecutionProvider"])


# What they give -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("method", [method.name for method in METHODS])
def test_every_method_explains_copies(method: str, explainer: ortcam.Explainer, photograph: Path) -> None:
    if not fits(next(item for item in METHODS if item.name == method), explainer.bundle.manifest):
        pytest.skip("the bundle has not what the method needs")
    given: dict[str, Any] = {"method": method, "top_k": 2, "batch_size": 4, **FEW.get(method, {})}
    plain = explainer.explain(photograph, **given)
    for combine in ("mean", "max", "tv"):
        e = explainer.explain(photograph, augment=3, augment_combine=combine, **given)
        assert e.maps.shape == e.raw_maps.shape == plain.maps.shape
        assert e.maps.dtype == e.raw_maps.dtype == np.float32
        assert e.maps.min() >= 0
        assert (e.maps[~e.flat].max(axis=(1, 2)) == 1).all()
        assert e.targets == plain.targets
        assert e.stats.copies == 3
        np.testing.assert_array_equal(e.probabilities, plain.probabilities)
        np.testing.assert_array_equal(e.weights, plain.weights)


@pytest.mark.parametrize("combine", ["mean", "max"])
@pytest.mark.parametrize("method", ["scorecam", "scorecam++", "recipro-cam"])
def test_one_copy_is_the_image_itself(method: str, combine: str, explainer: ortcam.Explainer, photograph: Path) -> None:
    given = {"method": method, "top_k": 3, "batch_size": 4}
    plain = explainer.explain(photograph, **given)
    one = explainer.explain(photograph, augment=1, augment_combine=combine, **given)
    # The same sums, upsampled with weights in float64 and in float32: a map in [0,1] is off by a few units in the last
    # place of the largest value of the raw map, relative to its range.
    scale = np.abs(plain.raw_maps).max(axis=(1, 2)) / np.maximum(plain.raw_maps, 0).max(axis=(1, 2))
    np.testing.assert_allclose(one.maps, plain.maps, rtol=0, atol=16 * np.finfo(np.float32).eps * scale.max())
    np.testing.assert_array_equal(one.flat, plain.flat)


def test_the_mean_is_that_of_maps_of_the_copies_laid_back(explainer: ortcam.Explainer, photograph: Path) -> None:
    """By another way: OpenCV warps the image, and the map back."""
    image = explainer.preprocess(photograph)
    height, width = image.shape[2:]
    asked = Augmentation(4, rotation=0.4, shift=0.1)
    total, count = np.zeros((height, width)), np.zeros((height, width))
    target = int(explainer.predict(photograph).argmax())
    for number in range(4):
        warp = draw_warp(asked, number, height, width)
        middle = np.array([width / 2 - 0.5, height / 2 - 0.5])
        matrix = np.column_stack([warp.matrix, warp.shift + middle - warp.matrix @ middle])
        planes = [cv2.warpAffine(plane, matrix, (width, height), flags=cv2.INTER_LINEAR) for plane in image[0]]
        raw = explainer.explain(preprocessed=np.stack(planes), method="recipro-cam", target=target).raw_maps[0]
        large = cv2.resize(raw, (width, height), interpolation=cv2.INTER_LINEAR)
        back = cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR
        shown = cv2.warpAffine(np.ones((height, width), np.float32), matrix, (width, height), flags=back)
        laid = cv2.warpAffine(large, matrix, (width, height), flags=back, borderMode=cv2.BORDER_REPLICATE)
        total += laid * (shown > 0.5)
        count += shown > 0.5
    mean = total / count
    given = {"augment": 4, "augment_rotation": 0.4, "augment_shift": 0.1}
    found = explainer.explain(photograph, method="recipro-cam", target=target, **given).raw_maps[0]
    # OpenCV rounds positions to 1/32 pixel, and interpolates what is interpolated already; at the edges of a copy the
    # two differ by whole pixels.
    assert np.corrcoef(found.ravel(), mean.ravel())[0, 1] > 0.97


def test_the_seed_decides_and_more_copies_begin_with_the_same(explainer: ortcam.Explainer, photograph: Path) -> None:
    def maps(**given: object) -> np.ndarray:
        return explainer.explain(photograph, method="recipro-cam", **given).maps

    first = maps(augment=5)
    np.testing.assert_array_equal(first, maps(augment=5))
    assert np.abs(first - maps(augment=5, augment_seed=1)).max() > 0.01
    *steps, last = explainer.explain_iter(photograph, method="recipro-cam", augment=5)
    np.testing.assert_array_equal(last.maps, first)
    np.testing.assert_array_equal(steps[2].maps, maps(augment=3))


def test_every_range_has_an_effect(explainer: ortcam.Explainer, photograph: Path) -> None:
    still = {"augment": 3, "augment_rotation": 0, "augment_shift": 0}
    plain = explainer.explain(photograph, method="recipro-cam", **still).maps
    alone = explainer.explain(photograph, method="recipro-cam").maps
    np.testing.assert_allclose(plain, alone, rtol=0, atol=1e-5)
    for option, value in (("rotation", 0.5), ("shift", 0.2), ("scale", 1), ("flip", True)):
        moved = explainer.explain(photograph, method="recipro-cam", **{**still, f"augment_{option}": value}).maps
        assert np.abs(moved - plain).max() > 0.01, option


# What is run ----------------------------------------------------------------------------------------------------------


def test_a_copy_costs_what_the_image_costs(tiny_bundle: Path, photograph: Path) -> None:
    explainer, engine = recorded(tiny_bundle)
    plain = explainer.explain(photograph, method="scorecam", batch_size=16)
    once = [call.graph for call in engine.calls]
    engine.calls.clear()
    told: list[tuple[int, int]] = []
    e = explainer.explain(
        photograph, method="scorecam", batch_size=16, augment=3, progress=lambda *made: told.append(made)
    )
    assert sorted(call.graph for call in engine.calls) == sorted(3 * once)
    assert plain.stats.passes < e.stats.passes <= 3 * plain.stats.channels
    assert (e.stats.runs, e.stats.channels) == (3 * plain.stats.runs, plain.stats.channels)
    assert e.stats.live_channels == plain.stats.live_channels
    assert [made for made, _ in told] == sorted(made for made, _ in told)
    assert told[-1][0] == told[-1][1]
    assert set(e.stats.seconds_by_stage) == set(plain.stats.seconds_by_stage)


def test_several_classes_cost_the_passes_of_one_and_are_each_the_same(tiny_bundle: Path, photograph: Path) -> None:
    explainer, engine = recorded(tiny_bundle)
    given = {"method": "scorecam", "batch_size": 4, "augment": 3, "augment_combine": "tv"}
    both = explainer.explain(photograph, target=[1, 4], **given)
    runs = len(engine.calls)
    alone = [explainer.explain(photograph, target=target, **given) for target in (1, 4)]
    assert len(engine.calls) == 3 * runs
    for index, one in enumerate(alone):
        np.testing.assert_allclose(both.maps[index], one.maps[0], rtol=0, atol=0.02)  # steps of Adam hang on rounding


def test_budget_and_estimate_are_per_copy(explainer: ortcam.Explainer, photograph: Path) -> None:
    e = explainer.explain(photograph, method="scorecam", budget=4, augment=3, batch_size=4)
    assert (e.stats.passes, e.stats.scored_channels, int(e.scored.sum())) == (12, 4, 4)
    plain = explainer.explain(photograph, method="scorecam", budget=4, batch_size=4)
    assert e.stats.estimated_error is not None
    assert e.stats.estimated_error >= (plain.stats.estimated_error or ())


# Deadlines ------------------------------------------------------------------------------------------------------------


class Ticking:
    """A clock that moves when somebody works."""

    def __init__(self) -> None:
        self.now, self.laps = 0.0, {"scoring": 0.0}

    def since_start(self) -> float:
        return self.now

    def total(self) -> float:
        return self.now

    def lap(self, name: str) -> None:
        self.laps[name] = self.now


def outcome() -> Outcome:
    cut = Cut("t", None, "nchw", 1, 2, 2, 0)
    stats = Stats(("CPU",), "float32", 1, 1, 1, 1, 1, 1, 0.0, {}, estimated_error=(0.0,))
    maps = np.ones((1, 8, 8), np.float32)
    return Outcome(maps, np.ones((1, 2, 2)), np.ones((1, 1)), np.zeros(1, bool), np.ones(1, bool), stats, (cut,))


def shared(seconds: Callable[[float], float], *, copies: int, deadline: float | None) -> tuple[Outcome, list[float]]:
    """Explain copies that take some seconds each, by the time they are given; and when each was due."""
    clock, due = Ticking(), []

    def explain(_: Warp, limits: Limits, __: Progress | None) -> Outcome:
        given = np.inf if limits.deadline is None else limits.deadline / 1000 - clock.now
        due.append(given)
        clock.now += seconds(given)
        return outcome()

    of_all = Copies(Augmentation(copies), Limits(deadline=deadline), (8, 8), clock, Pace(), None, previews=False)  # type: ignore[arg-type]
    *_, last = of_all.outcomes(explain)
    return last, due


def test_copies_share_the_deadline_equally() -> None:
    last, due = shared(lambda given: given, copies=4, deadline=1000)
    np.testing.assert_allclose(due, [0.25] * 4, rtol=1e-3)
    assert last.stats.copies == 4
    assert last.stats.simplified == ()


def test_what_a_copy_leaves_is_shared_by_the_others() -> None:
    _, due = shared(lambda given: given / 2, copies=4, deadline=1000)
    assert due == sorted(due)
    assert due[-1] > 0.5


def test_no_copy_is_begun_that_would_be_late_but_the_first() -> None:
    last, _ = shared(lambda _: 0.3, copies=10, deadline=1000)
    assert last.stats.copies == 3
    assert last.stats.seconds_late == 0
    assert last.stats.simplified == ("3 of 10 copies of the image are explained",)
    last, _ = shared(lambda _: 5.0, copies=10, deadline=1000)
    assert last.stats.copies == 1
    assert last.stats.seconds_late == pytest.approx(4)
    last, _ = shared(lambda _: 5.0, copies=10, deadline=None)
    assert last.stats.copies == 10


# What is refused, and what is recorded --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"augment": -1}, "augment=-1 is not accepted; accepted: a whole number from 0 to 1000"),
        ({"augment": 2.5}, r"augment=2\.5"),
        ({"augment": True}, "augment=True"),
        (
            {"augment": 2, "augment_combine": "median"},
            "augment_combine='median' is not accepted; accepted: mean",
        ),
        ({"augment": 2, "augment_rotation": 4}, "augment_rotation=4 is not accepted"),
        ({"augment_shift": 0.1}, "augment_shift without augment: goes with augment=N"),
        ({"augment": 0, "augment_flip": True}, "augment_flip without augment"),
        ({"augments": 3}, "unknown option 'augments'.*did you mean 'augment'"),
    ],
)
def test_a_wrong_option_names_itself_and_what_is_accepted(
    explainer: ortcam.Explainer, photograph: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ortcam.OptionError, match=message):
        explainer.explain(photograph, method="recipro-cam", **options)


def test_a_manifest_has_the_options_where_they_count(
    explainer: ortcam.Explainer, photograph: Path, tmp_path: Path
) -> None:
    plain = explainer.explain(photograph, method="eigen-cam")
    copies = explainer.explain(photograph, method="eigen-cam", augment="2")
    assert set(plain.options) == {"center"}
    assert copies.options == {"center": False, **Augmentation(2).record()}
    assert explainer.check(method="eigen-cam", augment=2)["options"] == copies.options
    plain.save(tmp_path / "out")
    with pytest.raises(ortcam.OutputError, match="explained with option augment none, now 2"):
        copies.save(tmp_path / "out")
    copies.save(tmp_path / "copies")
    manifest = json.loads((tmp_path / "copies" / "manifest.json").read_text())
    assert (manifest["options"]["augment"], manifest["stats"]["copies"]) == (2, 2)


def test_the_command_line_gives_them_to_every_method(
    tiny_bundle: Path, photograph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["-m", "eigen-cam,scorecam", "--option", "augment=2", "--option", "augment-combine=max"]
    assert main(["explain", str(tiny_bundle), str(photograph), *flags, "-o", str(tmp_path), "--json"]) == 0
    for explanation in json.loads(capsys.readouterr().out)["explanations"]:
        assert explanation["options"]["augment_combine"] == "max"
        assert explanation["stats"]["copies"] == 2
    assert main(["explain", str(tiny_bundle), str(photograph), *flags, "-o", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("2 copies of the image") == 2
