"""The head as the methods ask it: runs of one shape, and whether it is average pooling and one linear layer."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.runtime.methods.heads import head_of

import ortcam
from ortcam.methods import LinearHead
from ortcam.methods.head_only import cam


@pytest.mark.parametrize(("count", "batch_size", "shapes"), [(49, 32, [25, 25]), (49, 64, [49]), (5, 2, [2, 2, 2])])
def test_all_runs_of_the_head_have_one_shape(count: int, batch_size: int, shapes: list[int]) -> None:
    seen: list[int] = []
    made: list[tuple[int, int]] = []

    def run(features: NDArray[np.float32]) -> NDArray[np.float32]:
        seen.append(len(features))
        return features

    head = head_of(run, batch_size=batch_size)
    head.progress = lambda *counts: made.append(counts)
    kept = head.on(count, lambda indices: indices[:, None].astype(np.float32), lambda logits: logits)
    np.testing.assert_array_equal(kept[:, 0], np.arange(count))
    assert seen == shapes
    assert (head.passes, head.runs) == (count, len(shapes))
    assert made[-1] == (count, count)


def test_a_run_of_the_head_that_does_not_fit_into_memory_is_halved() -> None:
    seen: list[int] = []

    def run(features: NDArray[np.float32]) -> NDArray[np.float32]:
        if len(features) > 3:
            raise ortcam.OutOfMemoryError("too large")
        seen.append(len(features))
        return features

    head = head_of(run, batch_size=8)
    for _ in range(2):  # the second time the size that fits is known
        kept = head.on(7, lambda indices: indices[:, None].astype(np.float32), lambda logits: logits)
        np.testing.assert_array_equal(kept[:, 0], np.arange(7))
    assert seen == [3, 3, 3] * 2
    assert (head.passes, head.runs) == (14, 6)
    with pytest.raises(ortcam.OutOfMemoryError, match="not even a single masked image fits"):
        head_of(lambda _: run(np.zeros((9, 1), np.float32))).on(3, lambda i: i[:, None], lambda logits: logits)


def test_a_head_of_fixed_shapes_is_not_tried_with_fewer_rows_where_memory_is_short() -> None:
    seen: list[int] = []

    def run(features: NDArray[np.float32]) -> NDArray[np.float32]:
        seen.append(len(features))
        raise ortcam.OutOfMemoryError("too large")

    head = head_of(run, batch_size=8)
    head.least = 8
    with pytest.raises(ortcam.OutOfMemoryError, match="not even 8 masked images, the bundle's batch, fit into memory"):
        head.on(5, lambda indices: indices[:, None].astype(np.float32), lambda logits: logits)
    assert seen == [5]  # which the graph pads to 8


# CAM: which heads are average pooling and one linear layer ------------------------------------------------------------

GENERATOR = np.random.default_rng(3)
CHANNELS, CLASSES = 12, 5
W = GENERATOR.standard_normal((CLASSES, CHANNELS)).astype(np.float32)
W_POSITION = GENERATOR.standard_normal((CLASSES, CHANNELS * 6)).astype(np.float32)
b = GENERATOR.standard_normal(CLASSES).astype(np.float32)


def pooled(features: NDArray[np.float32]) -> NDArray[np.float32]:
    return features.mean(axis=(2, 3))


def relu(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.maximum(values, 0)


NOT_LINEAR = {
    "relu before the pooling": lambda f: pooled(relu(f)) @ W.T + b,
    "relu behind the pooling": lambda f: relu(pooled(f)) @ W.T + b,
    "relu behind the linear layer": lambda f: relu(pooled(f) @ W.T + b),
    "a ceiling far above one": lambda f: np.minimum(pooled(f), 40) @ W.T + b,
    "a soft ceiling": lambda f: 30 * np.tanh((pooled(f) @ W.T + b) / 30),
    "a norm": lambda f: pooled(f) / np.linalg.norm(pooled(f) + 1e-6, axis=1, keepdims=True) @ W.T + b,
    "max pooling": lambda f: f.max(axis=(2, 3)) @ W.T + b,
    "weights by position": lambda f: f.reshape(len(f), -1) @ W_POSITION.T + b,
    "not finite": lambda f: np.log(pooled(f)) @ W.T,
}


def recovered(run: Callable[[NDArray[np.float32]], NDArray[np.float32]], **cut: object) -> LinearHead:
    with np.errstate(all="ignore"):
        return LinearHead.recover(head_of(lambda f: run(f).astype(np.float32), shape=(CHANNELS, 2, 3), **cut))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_linear_layer_is_recovered_from_passes_of_the_head_alone(scale: float) -> None:
    linear = recovered(lambda f: pooled(f) @ (scale * W).T + b)
    assert linear.is_exact
    assert linear.difference < 3e-6
    np.testing.assert_allclose(linear.weights, scale * W, rtol=1e-4, atol=1e-6 * max(scale, 1))
    np.testing.assert_allclose(linear.bias, b, rtol=1e-6)
    result = cam(np.ones((CHANNELS, 2, 3), np.float32), linear, targets=np.array([2, 0]))
    np.testing.assert_array_equal(result.weights, linear.weights[[2, 0]].astype(np.float64))


@pytest.mark.parametrize("name", NOT_LINEAR)
def test_a_head_of_another_make_is_seen(name: str) -> None:
    linear = recovered(NOT_LINEAR[name])
    assert not linear.is_exact
    assert linear.difference > 5e-3


def test_a_head_that_reads_a_class_token_is_seen() -> None:
    def patches(f: NDArray[np.float32]) -> NDArray[np.float32]:
        return f[:, 1:].mean(axis=1) @ W.T + b

    assert recovered(patches, layout="tokens", prefix=1).is_exact
    assert not recovered(lambda f: patches(f) + f[:, 0] @ W.T, layout="tokens", prefix=1).is_exact
