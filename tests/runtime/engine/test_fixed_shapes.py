"""Inputs of any length through a graph that takes one: split, padded, run and joined again."""

import numpy as np
import pytest

from ortcam.engine.binding import FixedShapes
from ortcam.errors import BundleError

HEAD = FixedShapes({"features": (4, 3, 2)})
GRADIENT = FixedShapes({"seed": (1, 5), "features": (1, 3, 2)})
SCORER = FixedShapes(
    {"image": (1, 3, 8, 8), "channels": (4,), "scale": (4,), "keep": (4,), "targets": (2,), "baseline": (2,)}
)


class Runs:
    """A graph in numpy that checks the shapes of its inputs."""

    def __init__(self, shapes: FixedShapes) -> None:
        self.shapes = shapes
        self.count = 0

    def head(self, inputs: dict) -> list:
        self.check(inputs)
        return [inputs["features"].sum(axis=(1, 2))[:, None]]

    def gradient(self, inputs: dict) -> list:
        self.check(inputs)
        return [inputs["seed"].sum() * inputs["features"]]

    def scorer(self, inputs: dict) -> list:
        self.check(inputs)
        scores = (inputs["channels"] * inputs["scale"])[:, None] * 10.0 + inputs["targets"] - inputs["baseline"]
        return [scores, (scores * inputs["keep"][:, None]).sum(axis=0)[:, None, None] * np.ones((8, 8))]

    def check(self, inputs: dict) -> None:
        self.count += 1
        assert {name: value.shape for name, value in inputs.items()} == self.shapes.inputs


def asked_of_scorer(rows: int, targets: int) -> dict:
    return {
        "image": np.zeros((1, 3, 8, 8)),
        "channels": np.arange(rows),
        "scale": np.linspace(1, 2, rows),
        "keep": np.ones(rows),
        "targets": np.arange(targets)[::-1].copy(),
        "baseline": np.linspace(0, 1, targets),
    }


def test_graphs_with_an_open_dimension_are_left_alone() -> None:
    assert FixedShapes.of({"image": ["N", 3, 8, 8]}) is None
    assert FixedShapes.of({"image": [None, 3, 8, 8]}) is None
    assert FixedShapes.of({}) is None
    assert FixedShapes.of({"image": [1, 3, 8, 8]}) == FixedShapes({"image": (1, 3, 8, 8)})


@pytest.mark.parametrize(("rows", "runs"), [(1, 1), (4, 1), (5, 2), (9, 3)])
def test_rows_are_split_padded_and_joined(rows: int, runs: int) -> None:
    graph, features = Runs(HEAD), np.random.default_rng(0).standard_normal((rows, 3, 2))
    (found,) = HEAD.run({"features": features}, ["logits"], graph.head)
    assert graph.count == runs
    np.testing.assert_array_equal(found, features.sum(axis=(1, 2))[:, None])


def test_an_input_with_one_row_goes_with_every_row_of_the_others() -> None:
    graph, seeds, one = Runs(GRADIENT), np.arange(15.0).reshape(3, 5), np.ones((1, 3, 2))
    (found,) = GRADIENT.run({"seed": seeds, "features": one}, ["gradient"], graph.gradient)
    np.testing.assert_array_equal(found, seeds.sum(axis=1)[:, None, None] * one)
    several = np.arange(18.0).reshape(3, 3, 2)
    (found,) = GRADIENT.run({"seed": seeds, "features": several}, ["gradient"], graph.gradient)
    np.testing.assert_array_equal(found, seeds.sum(axis=1)[:, None, None] * several)


@pytest.mark.parametrize(("rows", "targets", "runs"), [(1, 1, 1), (4, 2, 1), (6, 3, 4), (3, 5, 3)])
def test_a_scorer_is_split_by_rows_and_by_targets_and_padding_counts_nowhere(
    rows: int, targets: int, runs: int
) -> None:
    graph, given = Runs(SCORER), asked_of_scorer(rows, targets)
    scores, maps = SCORER.run(given, ["probabilities", "partial_maps"], graph.scorer)
    assert graph.count == runs
    expected = (given["channels"] * given["scale"])[:, None] * 10.0 + given["targets"] - given["baseline"]
    np.testing.assert_array_equal(scores, expected)
    np.testing.assert_allclose(maps, expected.sum(axis=0)[:, None, None] * np.ones((8, 8)), rtol=1e-12)


def test_an_input_of_another_shape_is_refused_by_its_name() -> None:
    with pytest.raises(BundleError, match=r"'image' as \[1, 3, 8, 8\] alone; it is \[1, 3, 9, 9\]"):
        SCORER.run(asked_of_scorer(4, 2) | {"image": np.zeros((1, 3, 9, 9))}, ["probabilities"], Runs(SCORER).scorer)
