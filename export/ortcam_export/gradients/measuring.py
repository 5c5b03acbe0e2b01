"""Measure a gradient graph at the features of the probe: against central differences, and against autograd."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ortcam.bundle import GradientParity
from ortcam.engine import open_session
from ortcam.errors import OrtcamError
from ortcam_export.errors import ExportError, first_line
from ortcam_export.gradients.attention import OUTPUT, TokenAttention
from ortcam_export.gradients.differences import Array, relative_gap, sample_differences
from ortcam_export.gradients.relevance import RelevanceDifferences
from ortcam_export.graphs.gradient import Float64Graph
from ortcam_export.graphs.layers import count_macs
from ortcam_export.graphs.running import cpu_options
from ortcam_export.graphs.surgery import extract

__all__ = ["TOLERANCE", "Autograd", "Measured", "measure_gradient"]

# What both measurements have to stay within.
TOLERANCE: Final = 1e-4

Features = Mapping[str, NDArray[np.float32]]
# Index of the image, features of it, features to go on with, seeds, logits -> gradients [K,...], one of which is right.
Autograd = Callable[
    [int, NDArray[np.float32], NDArray[np.float32], Array, NDArray[np.float32]], Iterable[NDArray[np.float32]]
]

# Multiply-adds in float64 that the differences of one bundle may take, and how many elements are moved.
_MOST_MACS: Final = 2e10
_ELEMENTS: Final = (6, 32)
# In float32 a ReLU or a maximum near its kink may go either way. Then the features are moved a little, and the gradient
# is measured there: a wrong one is wrong everywhere.
_POINTS: Final = 4
_MOVE: Final = 1e-3
# Behind an early layer there are so many ReLUs that some are near their kink at every point. Then the graph is measured
# in float64, and in float32 this share of the elements has to agree with that, and with autograd.
_ALIKE: Final = 0.9


@dataclasses.dataclass(frozen=True)
class Measured:
    """A gradient graph, and what it is measured on.

    Attributes:
        path: of its file, in the folder of its weights.
        inputs: beside the seed.
        model: image -> logits in floating numbers, of which it is the derivative.
        tensors: name of an output of the features graph -> tensor of the model; the primary layer comes first.
        features: the same names -> float32 [N,...], of the images.
        images: float32 [N,C,H,W], preprocessed.
        autograd: computes gradients with PyTorch; None where the model is not PyTorch's.
        attention: behind the primary layer, if the graph has what each token gives through it.
    """

    path: Path
    inputs: tuple[str, ...]
    model: ir.Model
    tensors: Mapping[str, str]
    features: Features
    images: NDArray[np.float32]
    autograd: Autograd | None
    attention: TokenAttention | None


def measure_gradient(what: Measured) -> GradientParity:
    """Measure the gradient at each image's features.

    Raises:
        ExportError: the graph, or a part of the model in float64, does not run.
    """
    try:
        measuring = _Measuring(what)
        gaps = [measuring.at_image(index) for index in range(len(what.images))]
    except (OrtcamError, MemoryError):
        raise
    except Exception as error:  # ONNX Runtime, onnx and PyTorch raise their own types
        raise ExportError(first_line(error)) from error
    known = [gap.autograd for gap in gaps if gap.autograd is not None]
    return GradientParity(
        len(gaps),
        max(gap.differences for gap in gaps),
        max(known) if len(known) == len(gaps) else None,
        TOLERANCE,
    )


@dataclasses.dataclass(frozen=True)
class _Gaps:
    """How far gradients are from central differences, and from autograd where that is known."""

    differences: float
    autograd: float | None

    @property
    def largest(self) -> float:
        return max(self.differences, self.autograd or 0.0)


class _Measuring:
    """Sessions and float64 graphs, opened once for all images."""

    def __init__(self, what: Measured) -> None:
        self._what = what
        self._session = open_session(what.path, cpu_options())
        self._behind = functools.cache(self._open_behind)
        self._relevance = None
        if what.attention is not None:
            own = what.tensors["features"], "image"
            self._relevance = RelevanceDifferences(what.model, own, what.attention)
        total = max(count_macs(what.model.graph) or 0, 1)
        budget = _MOST_MACS / (2 * total * len(what.tensors) * len(what.images))
        self._elements = int(np.clip(budget, *_ELEMENTS))

    def _open_behind(self, name: str, *outputs: str) -> Float64Graph:
        """From the features of a name, and the image, to the logits or other tensors, in float64."""
        tensor = self._what.tensors[name]
        return Float64Graph(extract(self._what.model, [tensor, "image"], outputs or ["logits"]))

    def _logits(self, index: int, name: str, features: Array) -> Array:
        what = self._what
        image = np.repeat(what.images[index : index + 1].astype(np.float64), len(features), axis=0)
        (logits,) = self._behind(name).run({what.tensors[name]: features, "image": image})
        return logits

    def at_image(self, index: int) -> _Gaps:
        """The smallest gaps at some points near the features of an image; the first that is small enough counts."""
        best: _Gaps | None = None
        for attempt in range(_POINTS):
            gaps = self._at_point(index, self._point(index, attempt))
            if best is None or gaps.largest < best.largest:
                best = gaps
            if best.largest <= TOLERANCE:
                break
        assert best is not None
        if best.largest > TOLERANCE:
            exact = self._at_point(index, self._point(index, 0), exact=True)
            best = min(best, exact, key=lambda gaps: gaps.largest)
        return best

    def _point(self, index: int, attempt: int) -> Features:
        """The features of an image; after the first attempt with the shallowest layer moved a little."""
        what = self._what
        own = {name: values[index : index + 1] for name, values in what.features.items()}
        if not attempt:
            return own
        first, *others = [*list(own)[1:], "features"]
        noise = np.random.default_rng(attempt).standard_normal(own[first].shape)
        moved = own[first] + _MOVE * float(np.sqrt(np.mean(own[first] ** 2))) * noise
        point = {first: moved.astype(np.float32)}
        if others:
            feeds = {what.tensors[first]: moved, "image": what.images[index : index + 1].astype(np.float64)}
            found = self._behind(first, *(what.tensors[name] for name in others)).run(feeds)
            point |= {name: values.astype(np.float32) for name, values in zip(others, found, strict=True)}
        return {name: point[name] for name in own}

    def _at_point(self, index: int, point: Features, *, exact: bool = False) -> _Gaps:
        what, share = self._what, _ALIKE if exact else 1.0
        logits = self._logits(index, "features", point["features"].astype(np.float64))
        seeds = _seeds(logits[0])
        gradients = self._gradients(index, point, seeds)
        differences, by_autograd = [self._gap_of_rows(index, point, seeds, gradients, share)], []
        if exact:
            in_float32, gradients = gradients, self._exact_gradients(index, point, seeds)
            pairs = zip(in_float32, gradients, strict=True)
            differences += [relative_gap(found, expected, share) for found, expected in pairs]
        for name, found in zip(what.tensors, gradients, strict=True):
            behind = functools.partial(self._logits, index, name)
            differences.append(sample_differences(behind, point[name], [*found], seeds, self._elements))
            by_autograd.append(self._gap_of_autograd(index, name, point[name], found, seeds, logits, share))
        if self._relevance is not None:
            differences.append(self._gap_of_relevance(self._relevance, index, point, seeds))
        known = [gap for gap in by_autograd if gap is not None]
        return _Gaps(max(differences), max(known) if len(known) == len(by_autograd) else None)

    def _gap_of_autograd(
        self,
        index: int,
        name: str,
        point: NDArray[np.float32],
        found: NDArray[np.float32],
        seeds: Array,
        logits: Array,
        share: float,
    ) -> float | None:
        """How far gradients are from PyTorch's, at the tensor where they are nearest; None if it knows none."""
        if self._what.autograd is None:
            return None
        features, nearest = self._what.features[name][index : index + 1], None
        for expected in self._what.autograd(index, features, point, seeds, logits.astype(np.float32)):
            if not np.isfinite(expected).all():  # as of a root of 0
                continue
            gap = relative_gap(found, expected, share)
            nearest = gap if nearest is None else min(gap, nearest)
            if nearest <= TOLERANCE:
                break
        return nearest

    def _gradients(self, index: int, point: Features, seeds: Array) -> list[NDArray[np.float32]]:
        """Float32 [K,...] of every layer, at one point for all seeds."""
        what = self._what
        feeds = {**point, "image": what.images[index : index + 1], "seed": seeds.astype(np.float32)}
        found = [*self._session.run(feeds, [name.replace("features", "gradient") for name in what.tensors])]
        _check_finite(*found)
        return found

    def _exact_gradients(self, index: int, point: Features, seeds: Array) -> list[NDArray[np.float32]]:
        """The same by the gradient graph in float64, rounded at the end."""
        what = self._what
        graph = Float64Graph(ir.load(what.path))
        feeds = {**point, "image": what.images[index : index + 1], "seed": seeds.astype(np.float32)}
        found = graph.run({name: feeds[name] for name in ("seed", *what.inputs)})
        return [values.astype(np.float32) for values in found[: len(what.tensors)]]

    def _gap_of_relevance(self, differences: RelevanceDifferences, index: int, point: Features, seeds: Array) -> float:
        """How far what tokens give through attention is from differences, and from that with a point for each seed."""
        what = self._what
        image, seed = what.images[index : index + 1], seeds.astype(np.float32)
        (found,) = self._session.run({**point, "image": image, "seed": seed}, [OUTPUT])
        _check_finite(found)
        rows = {name: np.repeat(value, len(seed), axis=0) for name, value in {**point, "image": image}.items()}
        (by_rows,) = self._session.run({**rows, "seed": seed}, [OUTPUT])
        feeds = {what.tensors["features"]: point["features"], "image": image}
        return max(differences.gap(feeds, [*found], seeds), relative_gap(by_rows, found))

    def _gap_of_rows(
        self, index: int, point: Features, seeds: Array, gradients: list[NDArray[np.float32]], share: float
    ) -> float:
        """How far the gradients are from those with a point for each seed, which are the same."""
        rows = {name: np.repeat(values, len(seeds), axis=0) for name, values in point.items()}
        what = self._what
        feeds = {**rows, "image": np.repeat(what.images[index : index + 1], len(seeds), axis=0)}
        outputs = [name.replace("features", "gradient") for name in what.tensors]
        found = self._session.run({**feeds, "seed": seeds.astype(np.float32)}, outputs)
        return max(relative_gap(row, wanted, share) for row, wanted in zip(found, gradients, strict=True))


def _check_finite(*values: NDArray[np.float32]) -> None:
    if not all(np.isfinite(item).all() for item in values):
        raise ExportError("it is infinite or not a number at the features of the probe")


def _seeds(logits: Array) -> Array:
    """One class, and a difference of two: float64 [2,classes]. Few classes mean few ReLUs near their kinks."""
    order = np.argsort(-logits, kind="stable")
    seeds = np.zeros((2, len(logits)))
    seeds[0, order[0]] = 1
    seeds[1, order[-1]] = 1
    seeds[1, order[len(order) // 2]] -= 0.5
    return seeds
