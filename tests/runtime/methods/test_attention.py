"""grad-attention: what it makes of the relevance of tokens, and which bundles it takes."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import ortcam
from ortcam.bundle import Cut, Gradient, GradientParity, Manifest, read_bundle
from ortcam.methods import ATTENTION_METHODS, Derivative, HeadInputs, Layer, fits, resolve_method
from ortcam.methods.attention import RELEVANCE, grad_attention
from ortcam.methods.fitting import check_fits

CUT = Cut("features", None, "tokens", 4, 2, 3, 1)
MAPS = np.zeros((4, 2, 3), np.float32)
# [K,heads,T]: class 0 and 1, two heads, a class token and 2 x 3 patches.
ROWS = np.arange(2 * 2 * 7, dtype=np.float32).reshape(2, 2, 7) - 9


def inputs_of(targets: list[int], *, batch_size: int = 8) -> tuple[HeadInputs, list[NDArray[np.float32]]]:
    """What the method gets of an image whose gradient graph gives `ROWS`, and the seeds that it asks with."""
    asked: list[NDArray[np.float32]] = []

    def run_output(seeds: NDArray[np.float32], features: object, name: str) -> NDArray[np.float32]:
        assert name == RELEVANCE
        asked.append(seeds)
        return np.tensordot(seeds, ROWS, 1)

    def none(*_: object) -> object:
        raise AssertionError

    derivative = Derivative(none, run_output, (Layer(CUT, MAPS),), {}, none, batch_size)  # type: ignore[arg-type]
    prefix = np.zeros((1, 4), np.float32)
    inputs = HeadInputs(MAPS, prefix, np.zeros(2, np.float32), np.array(targets), None, none, derivative)  # type: ignore[arg-type]
    return inputs, asked


def test_the_map_is_the_sum_over_the_heads_at_the_places_of_the_patches() -> None:
    inputs, asked = inputs_of([1, 0])
    scores = resolve_method("grad-attention", {}).compute(inputs)
    np.testing.assert_array_equal(scores.raw, ROWS[[1, 0], :, 1:].sum(axis=1).reshape(2, 2, 3))
    assert scores.raw.dtype == np.float64
    assert not scores.weights.any()
    assert scores.weights.shape == (2, 4)
    assert len(asked) == 1
    np.testing.assert_array_equal(asked[0], [[0, 1], [1, 0]])


def test_with_positive_heads_no_head_takes_away_from_another() -> None:
    inputs, _ = inputs_of([0])
    scores = resolve_method("gradattention", {"positive": "heads"}).compute(inputs)
    np.testing.assert_array_equal(scores.raw, np.maximum(ROWS[[0], :, 1:], 0).sum(axis=1).reshape(1, 2, 3))


def test_many_classes_come_in_batches_of_backward_passes() -> None:
    inputs, asked = inputs_of([0, 1, 0, 1, 1], batch_size=2)
    scores = resolve_method("grad-attention", {}).compute(inputs)
    assert scores.raw.shape == (5, 2, 3)
    assert [len(seeds) for seeds in asked] == [2, 2, 1]
    derivative = inputs.derivative
    assert derivative is not None
    assert (derivative.passes, derivative.runs) == (5, 3)


def test_sums_are_taken_in_float64() -> None:
    relevance = np.array([[[1e8], [1.0], [-1e8]]], np.float32)
    assert grad_attention(relevance).tolist() == [[1.0]]


def with_heads(manifest: Manifest, heads: int | None) -> Manifest:
    gradient = Gradient("gradient.onnx", ("features",), GradientParity(1, 0.0, None, 1e-4), heads)
    return dataclasses.replace(manifest, cut=CUT, gradient=gradient, no_gradient=None)


def test_only_bundles_with_attention_behind_the_layer_take_it(tiny_bundle: Path) -> None:
    (method,) = ATTENTION_METHODS
    manifest = read_bundle(tiny_bundle).manifest
    assert fits(method, with_heads(manifest, 3))
    check_fits(resolve_method("grad-attention", {}), with_heads(manifest, 3))
    without = dataclasses.replace(manifest, gradient=None, no_gradient="its operator ArgMax has no derivative")
    assert not fits(method, without)
    with pytest.raises(
        ortcam.OptionError, match=r"grad-attention: needs the gradient .*ArgMax.*methods that work here"
    ):
        check_fits(resolve_method("grad-attention", {}), without)
    message = r"grad-attention: needs attention .*layer 'features' .* has none; methods that work here: .*grad-cam"
    with pytest.raises(ortcam.OptionError, match=message) as error:
        check_fits(resolve_method("grad-attention", {}), with_heads(manifest, None))
    assert "grad-attention" not in str(error.value).partition("work here")[2]
