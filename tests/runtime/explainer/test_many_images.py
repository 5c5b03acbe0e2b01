"""Many images: read ahead in a thread, explained as one is, and what becomes of those that cannot be read."""

import dataclasses
import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

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
def test_many_images_are_explained_as_one_is(explainer: ortcam.Explainer, photograph: ortcam.Photograph) -> None:
    one = explainer.explain(photograph, budget=32, **SETTLED)
    for e in explainer.explain_many([demo_image(), photograph.pixels, photograph], budget=32, **SETTLED):
        np.testing.assert_array_equal(e.maps, one.maps)


def test_many_images_are_read_at_most_a_few_ahead(explainer: ortcam.Explainer) -> None:
    taken = []

    def images() -> Iterator[Path]:
        for index in range(100):
            taken.append(index)
            yield demo_image()

    generator = explainer.explain_many(images(), budget=1)
    assert not taken
    next(generator)
    assert len(taken) <= 4
    generator.close()


def test_an_image_that_cannot_be_read_is_skipped_or_raised(explainer: ortcam.Explainer, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    images = [demo_image(), broken, demo_image()]
    failed = []
    done = list(explainer.explain_many(images, on_error=lambda image, _: failed.append(image), budget=1))
    assert (len(done), failed) == (2, [broken])
    with pytest.raises(ortcam.ImageError, match=r"broken\.png"):
        list(explainer.explain_many(images, budget=1))


def test_many_images_with_a_target_that_can_be_looked_at_once(
    explainer: ortcam.Explainer, photograph: ortcam.Photograph
) -> None:
    done = explainer.explain_many([photograph, photograph], target=(index for index in (1, 2)), budget=1)
    assert [e.targets for e in done] == [(1, 2), (1, 2)]
    with pytest.raises(ortcam.OptionError, match="budget=0"):
        explainer.explain_many([], budget=0)


def test_an_image_may_be_made_of_the_explanation_before(
    explainer: ortcam.Explainer, photograph: ortcam.Photograph
) -> None:
    results: queue.Queue[ortcam.Explanation] = queue.Queue()

    def images() -> Iterator[np.ndarray]:
        yield photograph.pixels
        yield results.get(timeout=60).overlay()

    seen = []
    for e in explainer.explain_many(images(), budget=1):
        results.put(e)
        seen.append(e)
    np.testing.assert_array_equal(seen[1].image, seen[0].overlay())


def test_a_source_that_fails_fails_after_what_it_gave(
    explainer: ortcam.Explainer, photograph: ortcam.Photograph
) -> None:
    def images() -> Iterator[ortcam.Photograph]:
        yield photograph
        yield photograph
        raise RuntimeError("the camera is gone")

    done: list[ortcam.Explanation] = []
    with pytest.raises(RuntimeError, match="the camera is gone"):
        done.extend(explainer.explain_many(images(), budget=1))
    assert len(done) == 2


def test_a_buffer_used_again_does_not_change_what_was_read(
    explainer: ortcam.Explainer, photograph: ortcam.Photograph
) -> None:
    buffer = np.zeros_like(photograph.pixels)

    def frames() -> Iterator[np.ndarray]:
        for value in (10, 20, 30):
            buffer[:] = value
            yield buffer

    assert [int(frame.pixels.mean()) for frame in explainer.read_many(frames())] == [10, 20, 30]


@pytest.mark.slow
def test_a_photograph_read_for_another_model_is_preprocessed_again(
    explainer: ortcam.Explainer, photograph: ortcam.Photograph
) -> None:
    other = dataclasses.replace(photograph.preprocessing, mean=(0.1, 0.2, 0.3))
    foreign = dataclasses.replace(photograph, preprocessing=other, model_input=other(photograph.pixels))
    settings: dict[str, Any] = {"budget": 8, "method": "scorecam", **SETTLED}
    e = explainer.explain(foreign, **settings)
    np.testing.assert_array_equal(e.maps, explainer.explain(photograph, **settings).maps)
