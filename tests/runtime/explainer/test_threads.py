"""One explainer for any number of threads: each call gives what it gives alone, whatever runs beside it."""

import concurrent.futures
import itertools
import random
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ortcam

THREADS = 8
CALLS = 8
TOLERANCE = 1e-6
# One batch size for all: other sizes round differently.
SETTLED = {"batch_size": 4}
EXPLANATIONS: list[dict[str, Any]] = [
    {"method": "scorecam"},
    {"method": "scorecam", "target": [2, 0, 2], "baseline": "zeros"},
    {"method": "scorecam++", "top_k": 3},
    {"method": "scorecam++", "budget": 4, "gate": "sigmoid"},
    {"method": "scorecam", "budget": 0.5, "completion": "none", "normalize": "before-upsampling"},
    {"method": "scorecam", "tolerance": 0.2, "target": "dog"},
    {"method": "iscam", "num_samples": 3, "weighting": "logit-softmax"},
    {"method": "sscam", "num_samples": 2, "seed": 3},
    {"method": "recipro-cam", "top_k": 2},
    {"method": "ablation-cam"},
    {"method": "eigen-cam"},
    {"method": "cam", "target": [5]},
    {"method": "grad-cam++", "top_k": 2},
    {"method": "scorecam", "budget": 3, "augment": 3},
    {"target": [1], "augment": 4, "augment_combine": "max"},
]

Answer = list[np.ndarray]
Call = Callable[[ortcam.Explainer], Answer]


def images() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (*size, 3), np.uint8) for size in ((32, 48), (60, 80), (45, 33))]


def of(explanation: ortcam.Explanation) -> Answer:
    return [explanation.maps, explanation.weights, explanation.probabilities, explanation.scored]


def explain(image: object, given: dict[str, Any]) -> Call:
    return lambda explainer: of(explainer.explain(image, **SETTLED, **given))


def previews(image: object, given: dict[str, Any]) -> Call:
    return lambda explainer: [array for e in explainer.explain_iter(image, **SETTLED, **given) for array in of(e)]


def classes(image: object) -> Call:
    return lambda explainer: [np.array([[p.index, p.probability] for p in explainer.top(image, top_k=3)])]


def logits(image: object) -> Call:
    def call(explainer: ortcam.Explainer) -> Answer:
        inputs = np.repeat(explainer.preprocess(image), 7, axis=0) * np.arange(7, dtype=np.float32)[:, None, None, None]
        return [explainer.logits(7, lambda rows: inputs[rows], **SETTLED)]

    return call


@pytest.fixture(autouse=True)
def _threads_switch_often() -> Iterator[None]:
    """Between any two steps of the interpreter, so that a race of a few of them is met."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


@pytest.fixture(scope="module")
def explainer(tiny_bundle: Path) -> Iterator[ortcam.Explainer]:
    with ortcam.load(tiny_bundle, providers=["cpu"], threads=1) as explainer:
        yield explainer


@pytest.fixture(scope="module")
def calls(explainer: ortcam.Explainer) -> list[tuple[Call, Answer]]:
    """Calls, and what each gives alone."""
    found: list[Call] = []
    for image in (*images(), *(explainer.read(image) for image in images()[:2])):  # read once: threads share these
        found += [explain(image, given) for given in EXPLANATIONS]
        found += [previews(image, {"method": "scorecam"}), classes(image), logits(image)]
        found += [lambda explainer, image=image: [explainer.predict(image)]]
        found += [lambda explainer, image=image: [explainer.features(image)]]
    return [(call, call(explainer)) for call in found]


def assert_same(found: Answer, expected: Answer) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("count", [CALLS, 10 * CALLS])
def test_mixed_calls_of_many_threads_give_what_each_gives_alone(
    explainer: ortcam.Explainer, calls: list[tuple[Call, Answer]], count: int
) -> None:
    together = threading.Barrier(THREADS)

    def work(seed: int) -> int:
        chosen = random.Random(seed).choices(calls, k=count)
        together.wait(60)
        for call, expected in chosen:
            assert_same(call(explainer), expected)
        return len(chosen)

    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        assert sum(pool.map(work, range(THREADS))) == THREADS * count


@pytest.mark.slow
def test_generators_are_stepped_in_turns_with_other_calls_between(
    explainer: ortcam.Explainer, calls: list[tuple[Call, Answer]]
) -> None:
    given = [{"method": method, **SETTLED} for method in ("scorecam", "scorecam++")]
    pairs = list(itertools.product(images(), given))
    alone = [[of(e) for e in explainer.explain_iter(image, **arguments)] for image, arguments in pairs]
    others = itertools.cycle(calls)
    running = [explainer.explain_iter(image, **arguments) for image, arguments in pairs]
    for steps in itertools.zip_longest(*alone):
        for generator, expected in zip(running, steps, strict=True):
            call, answer = next(others)
            assert_same(call(explainer), answer)
            if expected is not None:
                assert_same(of(next(generator)), expected)
    assert [next(generator, None) for generator in running] == [None] * len(running)


def test_a_progress_callback_may_wait_for_another_thread_that_explains(explainer: ortcam.Explainer) -> None:
    """No lock is held while the user's code runs."""
    image = images()[0]
    expected = of(explainer.explain(image, **SETTLED))
    found: list[Answer] = []
    with concurrent.futures.ThreadPoolExecutor(1) as pool:

        def progress(*_: int) -> None:
            found.append(pool.submit(lambda: of(explainer.explain(image, **SETTLED))).result(timeout=60))

        for method in ("scorecam++", "recipro-cam", "cam"):
            explainer.explain(image, method=method, progress=progress, batch_size=64)
    assert len(found) >= 2
    for answer in found:
        assert_same(answer, expected)


@pytest.mark.slow
def test_the_batch_size_is_searched_by_several_threads_at_once(
    tiny_bundle: Path, calls: list[tuple[Call, Answer]]
) -> None:
    del calls  # made before: the search is this test's own
    image = images()[1]
    with ortcam.load(tiny_bundle, providers=["cpu"], threads=1) as searching:
        expected = searching.explain(image, method="iscam", num_samples=8, batch_size=8)

        def work(_: int) -> ortcam.Explanation:
            return searching.explain(image, method="iscam", num_samples=8)

        with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
            found = list(pool.map(work, range(4 * THREADS)))
        for e in found:
            assert e.stats.passes == expected.stats.passes
            np.testing.assert_allclose(e.maps, expected.maps, rtol=0, atol=1e-5)  # other batch sizes round differently


@pytest.mark.slow
def test_a_deadline_beside_other_threads_still_gives_a_map(explainer: ortcam.Explainer) -> None:
    def work(index: int) -> ortcam.Explanation:
        return explainer.explain(images()[index % 3], deadline=50, **SETTLED)

    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        for e in pool.map(work, range(2 * THREADS)):
            assert e.stats.passes > 0
            assert np.isfinite(e.maps).all()


def test_closing_beside_threads_that_explain_is_an_error_with_a_name(tiny_bundle: Path) -> None:
    explainer = ortcam.load(tiny_bundle, providers=["cpu"], threads=1)
    image = images()[0]
    expected = of(explainer.explain(image, **SETTLED))
    started = threading.Semaphore(0)

    def work(_: int) -> int:
        for done in range(10_000):
            try:
                assert_same(of(explainer.explain(image, **SETTLED)), expected)
            except ortcam.ClosedError:
                return done
            started.release()
        raise AssertionError("it was never closed")

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        working = [pool.submit(work, index) for index in range(4)]
        for _ in range(8):
            assert started.acquire(timeout=60)
        explainer.close()
        assert all(item.result(timeout=60) >= 0 for item in working)
