"""Streams: frames explained one after the other, warm or as `explain` explains each, with limits that hold."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import ortcam
from ortcam.bundle.shipped import bundle_path, demo_image

# One size for all runs of a test: other sizes round differently.
SETTLED = {"method": "scorecam", "batch_size": 8}
FRAMES = 3
Frames = list[np.ndarray]


@pytest.fixture(scope="module")
def explainer() -> ortcam.Explainer:
    return ortcam.load(bundle_path(), providers=["cpu"])


@pytest.fixture(scope="module")
def frames(explainer: ortcam.Explainer) -> Frames:
    """A pan over the demo's photograph, two pixels per frame."""
    pixels = explainer.read(demo_image()).pixels
    side = min(pixels.shape[:2]) - 2 * FRAMES
    return [np.ascontiguousarray(pixels[index : index + side, 2 * index : 2 * index + side]) for index in range(FRAMES)]


@pytest.mark.slow
def test_a_cold_stream_gives_the_bits_of_explain(explainer: ortcam.Explainer, frames: Frames) -> None:
    streamed = explainer.explain_stream(frames, warm=False, budget=24, **SETTLED)
    for e, frame in zip(streamed, frames, strict=True):
        alone = explainer.explain(frame, budget=24, **SETTLED)
        np.testing.assert_array_equal(e.maps, alone.maps)
        np.testing.assert_array_equal(e.weights, alone.weights)


@pytest.mark.slow
def test_the_first_frame_is_cold_and_the_next_takes_from_it(explainer: ortcam.Explainer, frames: Frames) -> None:
    first, second = explainer.explain_stream(frames[:2], budget=24, target=6, **SETTLED)
    alone = [explainer.explain(frame, budget=24, target=6, **SETTLED) for frame in frames[:2]]
    np.testing.assert_array_equal(first.maps, alone[0].maps)
    assert second.stats.scored_channels == alone[1].stats.scored_channels == 24
    assert not np.array_equal(second.scored, alone[1].scored)
    np.testing.assert_allclose(  # what was scored is what it is, whoever chose it
        second.weights[:, second.scored & alone[1].scored],
        alone[1].weights[:, second.scored & alone[1].scored],
        rtol=1e-3,
        atol=1e-6,
    )


def test_a_cut_starts_cold(explainer: ortcam.Explainer, frames: Frames) -> None:
    noise = np.random.default_rng(0).integers(0, 256, frames[0].shape, np.uint8)
    *_, last = explainer.explain_stream([frames[0], noise], budget=24, target=6, **SETTLED)
    np.testing.assert_array_equal(last.maps, explainer.explain(noise, budget=24, target=6, **SETTLED).maps)


def test_another_class_starts_cold(explainer: ortcam.Explainer, frames: Frames) -> None:
    def changing() -> Iterator[np.ndarray]:
        yield frames[0]
        yield 255 - frames[0]

    most_probable = [explainer.explain(frame, budget=24, **SETTLED) for frame in changing()]
    streamed = list(explainer.explain_stream(changing(), budget=24, **SETTLED))
    assert [e.targets for e in streamed] == [e.targets for e in most_probable]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["scorecam", "recipro-cam"])
def test_without_limits_every_map_is_exact(explainer: ortcam.Explainer, frames: Frames, method: str) -> None:
    if method == "scorecam":  # all of its passes take a while
        frames = [frames[0][:40, :40], frames[1][:40, :40]]
    for e, frame in zip(explainer.explain_stream(frames, method=method), frames, strict=True):
        np.testing.assert_allclose(e.maps, explainer.explain(frame, method=method).maps, atol=1e-4)


def test_frames_are_taken_one_by_one(explainer: ortcam.Explainer, frames: Frames) -> None:
    taken = []

    def camera() -> Iterator[np.ndarray]:
        for index, frame in enumerate(frames):
            taken.append(index)
            yield frame

    stream = explainer.explain_stream(camera(), budget=8, **SETTLED)
    assert taken == []
    next(stream)
    assert taken == [0]
    stream.close()


def test_a_deadline_holds_per_frame(explainer: ortcam.Explainer, frames: Frames) -> None:
    for e in explainer.explain_stream(frames, deadline=1, **SETTLED):
        assert 0 < e.stats.passes < e.stats.live_channels  # at least one run, and not all
        assert e.stats.seconds_late > 0


def test_what_is_wrong_is_said_before_a_frame_is_taken(explainer: ortcam.Explainer, frames: Frames) -> None:
    with pytest.raises(ortcam.OptionError, match="warm='yes': accepted is True or False"):
        explainer.explain_stream(frames, warm="yes")  # type: ignore[arg-type]
    with pytest.raises(ortcam.OptionError, match=r"frames='pan.mp4': accepted is an iterable of images"):
        explainer.explain_stream("pan.mp4")
    with pytest.raises(ortcam.OptionError, match="budget"):
        explainer.explain_stream(frames, budget=2.0)


@pytest.mark.parametrize("one", [np.zeros((6, 8, 3), np.uint8), np.zeros((6, 8), np.uint8), 3, {"a": 1}, None])
def test_what_is_not_several_frames_is_refused(explainer: ortcam.Explainer, one: Any) -> None:
    for several in (explainer.explain_stream, explainer.explain_many):
        with pytest.raises(ortcam.ImageError, match="give a list of images"):
            several(one)


def test_a_frame_that_a_camera_could_not_take_is_named(explainer: ortcam.Explainer, frames: Frames) -> None:
    with pytest.raises(ortcam.ImageError, match="frame 2 is None"):
        list(explainer.explain_stream([frames[0], None], method="grad-cam"))
