"""The matrix of a score: its derivative against differences, its rows, and values at the ends of float64."""

import numpy as np
import pytest

from ortcam.engine.score import TERMS, ScoreMatrix, score_terms, term_sizes
from ortcam.errors import BundleError

D = 7
STEP = 1e-5  # a central difference of a smooth function of size 1 is right to its square, and rounding over it


def drawn(activation: str) -> ScoreMatrix:
    generator = np.random.default_rng(3)
    sizes = dict(zip(TERMS, term_sizes(TERMS, D), strict=True))
    return ScoreMatrix({term: generator.standard_normal((2, sizes[term])) for term in TERMS}, activation, D, 2)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_the_derivative_is_that_of_the_value(activation: str) -> None:
    matrix, z = drawn(activation), np.random.default_rng(4).standard_normal(D)
    steps = STEP * np.eye(D)
    differences = (matrix.value(z + steps) - matrix.value(z - steps)).T / (2 * STEP)
    assert np.abs(matrix.derivative(z) - differences).max() < 1e-8


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_rows_times_terms_are_the_value(activation: str) -> None:
    matrix, z = drawn(activation), np.random.default_rng(5).standard_normal((3, D))
    each = [
        ScoreMatrix({term: np.eye(size)}, activation, D, size).value(z)
        for term, size in zip(TERMS, term_sizes(TERMS, D), strict=True)
    ]
    found = np.concatenate(each, axis=1) @ matrix.rows(TERMS).astype(np.float64).T
    assert np.allclose(found, matrix.value(z), rtol=1e-6, atol=1e-6)


def test_a_nearly_certain_class_keeps_its_derivative() -> None:
    z = np.array([100.0, 0, 0])
    matrix = ScoreMatrix({"probabilities": np.array([[1.0, 0, 0]])}, "softmax", 3)
    assert matrix.derivative(z)[0] == pytest.approx([2 * np.exp(-100), -np.exp(-100), -np.exp(-100)], rel=1e-12)
    sigmoid = ScoreMatrix({"probabilities": np.array([[1.0, 0, 0]])}, "sigmoid", 3)
    assert sigmoid.derivative(z)[0, 0] == pytest.approx(np.exp(-100), rel=1e-12)


def test_extreme_logits_have_finite_entropies() -> None:
    z = np.array([[3e38, -3e38, 0], [0, 0, 0]], np.float32)
    softmax = ScoreMatrix({"entropy": np.ones((1, 1))}, "softmax", 3)
    sigmoid = ScoreMatrix({"entropy": np.ones((1, 1))}, "sigmoid", 3)
    assert softmax.value(z)[:, 0] == pytest.approx([0, np.log(3)])
    assert sigmoid.value(z)[:, 0] == pytest.approx([np.log(2), 3 * np.log(2)])


def test_zeros_have_no_direction() -> None:
    matrix = ScoreMatrix({"direction": np.ones((1, 3))}, "identity", 3)
    assert matrix.value(np.zeros(3, np.float32)).tolist() == [0]
    assert np.isfinite(matrix.derivative(np.zeros(3, np.float32))).all()


def test_what_a_score_is_follows_from_its_terms() -> None:
    def matrix(activation: str = "softmax", **weights: list[float]) -> ScoreMatrix:
        return ScoreMatrix({term: np.array([row]) for term, row in weights.items()}, activation, 3)

    assert matrix(probabilities=[1, 0, 1]).is_probability
    assert not matrix("sigmoid", probabilities=[1, 0, 1]).is_probability
    assert matrix("sigmoid", probabilities=[1, 0, 1]).is_positive
    assert not matrix(probabilities=[1, -1, 0]).is_positive
    assert not matrix(logits=[1, 0, 0]).is_positive
    assert matrix(entropy=[1]).is_positive
    assert not matrix(entropy=[1]).is_probability
    assert not matrix(entropy=[-1]).is_positive
    assert not matrix(probabilities=[1, 0, 0], one=[-1]).is_positive


def test_scorers_without_a_term_are_refused() -> None:
    matrix = ScoreMatrix({"entropy": np.ones((1, 1))}, "softmax", 3)
    with pytest.raises(BundleError, match="entropy"):
        matrix.rows(("logits", "one"))
    assert matrix.rows(score_terms("softmax")).shape == (1, 3 * 3 + 2)
    assert score_terms("identity") == ("logits", "direction", "one")
    assert score_terms("identity", vectors=False) == ("logits", "one")
