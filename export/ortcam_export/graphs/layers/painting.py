"""Find where in the image the parts of a tensor lie: paint bands of the image and see which positions answer."""

import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ortcam_export.graphs.builder import Builder
from ortcam_export.graphs.names import taken_names
from ortcam_export.graphs.running import run_each
from ortcam_export.graphs.surgery import extract

__all__ = ["Answers", "paint"]

# Where the bands of an axis begin and end. The outer ones are narrow, to see whether the border counts.
_EDGES: Final = (0, 1 / 8, 1 / 2, 7 / 8, 1)
_SEED: Final = 0
_IMAGES: Final = 2


@dataclasses.dataclass(frozen=True)
class Answers:
    """Where in the image each position of a tensor answers, from -1 (first row or column) to 1 (last).

    Attributes:
        rows: float64 [...], the centroid of the horizontal bands that a position answers to; NaN where it answers to
            none.
        columns: likewise of the vertical bands.
        unseen: the share of the image's rows at one of its borders, and of its columns, that nothing answers to.
    """

    rows: NDArray[np.float64]
    columns: NDArray[np.float64]
    unseen: tuple[float, float] = (0.0, 0.0)


def paint(
    model: ir.Model,
    wanted: Mapping[str, tuple[tuple[int, ...] | None, frozenset[int]]],
    folder: Path,
    probe: NDArray[np.float32],
) -> dict[tuple[str, int], Answers]:
    """Paint bands of images and measure which positions of tensors answer.

    The image is cut into four horizontal and four vertical bands. Each in turn is painted with noise. A position's
    answer is the centroid of the bands, each weighted by how much the position changes: relative to its changes for all
    bands, and to the changes of all positions for this band. Even a position that everything reaches, as behind an
    attention, answers most to what lies under it. The noise is the same in every run.

    Args:
        model: image -> logits, weights in a file of `folder`.
        wanted: name of a tensor -> the permutation of its axes that brings the images first, None where they are, and
            the axes that may then be its channels.
        folder: where the model's external data is.
        probe: float32 [N,C,H,W], preprocessed.

    Returns:
        (tensor, channel axis) -> answers of the positions: the shape without the images and the channels.
    """
    wanted = {name: asked for name, asked in wanted.items() if asked[1]}
    if not wanted:
        return {}
    part = extract(model, ["image"], list(wanted))
    graph = part.graph
    build = Builder(taken_names(graph))
    keys, changes = [], []
    for value, (name, (perm, axes)) in zip(list(graph.outputs), wanted.items(), strict=True):
        floating = build.cast(value, ir.DataType.FLOAT)
        if perm is not None:
            floating = build.op("Transpose", [floating], {"perm": list(perm)})
        clean = build.slice(floating, build.integers(0), build.integers(1), 0)
        change = build.op("Abs", [build.op("Sub", [floating, clean])])
        for axis in sorted(axes):
            keys.append((name, axis))
            changes.append(build.op("ReduceSum", [change, build.integers(axis)], {"keepdims": 0}))
    graph.extend(build.take_nodes())
    for value in build.initializers:
        graph.register_initializer(value)
    for value in changes:
        value.dtype = ir.DataType.FLOAT
    graph.outputs[:] = changes
    batches = [batch for image in probe[:_IMAGES] for batch in _painted(image)]
    runs = run_each(part, folder, [{"image": batch} for batch in batches])
    found = {}
    for number, key in enumerate(keys):
        down, across = ([run[number][1:] for run in runs[axis::2]] for axis in (0, 1))
        unseen = max(map(_unseen, down)), max(map(_unseen, across))
        found[key] = Answers(_mean(list(map(_centroids, down))), _mean(list(map(_centroids, across))), unseen)
    return found


def _painted(image: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """An image [C,H,W] and its copies with one band of noise each: two batches [1+K,C,H,W], of rows and of columns."""
    generator = np.random.default_rng(_SEED)
    low, high = image.min(axis=(1, 2), keepdims=True), image.max(axis=(1, 2), keepdims=True)
    noise = low + (high - low) * _blocks(generator, *image.shape)
    batches = []
    for axis in (1, 2):
        side = image.shape[axis]
        edges = [round(edge * side) for edge in _EDGES]
        copies = [image]
        for start, end in itertools.pairwise(edges):
            inside = (np.arange(side) >= start) & (np.arange(side) < end)
            copies.append(np.where(inside[:, None] if axis == 1 else inside, noise, image))
        batches.append(np.stack(copies).astype(np.float32))
    return batches


def _blocks(generator: np.random.Generator, channels: int, height: int, width: int) -> NDArray[np.float64]:
    """Noise in [0,1], half of it in single pixels and half in blocks that pooling does not average out."""
    fine = generator.uniform(size=(channels, height, width))
    side = max(2, min(height, width) // 16)
    coarse = generator.uniform(size=(channels, -(-height // side), -(-width // side)))
    coarse = coarse.repeat(side, axis=1).repeat(side, axis=2)[:, :height, :width]
    return (fine + 2 * coarse) / 3


def _centroids(change: NDArray[np.float32]) -> NDArray[np.float64]:
    """The centroid over bands of each position's change, [K,...] -> [...]; NaN where it does not change."""
    share = change.reshape(len(change), -1).astype(np.float64)
    bands = np.add(_EDGES[:-1], _EDGES[1:]) - 1
    with np.errstate(invalid="ignore", divide="ignore"):
        share /= share.sum(axis=0)  # whatever a position's scale
        share /= np.nansum(share, axis=1, keepdims=True)  # whatever a band's
        share[np.isnan(share).all(axis=1)] = 0  # a band that changes nothing
        centroid: NDArray[np.float64] = bands @ share / share.sum(axis=0)
    return centroid.reshape(change.shape[1:])


def _mean(found: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The mean over the images in which a position answers."""
    known = np.isfinite(found)
    total = np.where(known, found, 0).sum(axis=0)
    return np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)


def _unseen(change: NDArray[np.float32]) -> float:
    """The share of an axis, at the worse of its two ends, whose bands [K,...] nothing answers to."""
    silent = change.reshape(len(change), -1).max(axis=1) <= 0
    widths = np.diff(_EDGES)
    ends = (np.cumprod(side) @ width for side, width in ((silent, widths), (silent[::-1], widths[::-1])))
    return max(float(end) for end in ends)
