"""How like float32's the maps of a variant are: Score-CAM and ScoreCAM++ with both, on a few images."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ortcam.bundle import Fidelity, Likeness
from ortcam.bundle.gates import GATE_FUNCTIONS
from ortcam.engine import Session
from ortcam.methods import resolve_method
from ortcam.parity import no_score, run_scorer
from ortcam.scoring import correlation, prepare_masks, ranks, relu_min_max, upsample
from ortcam_export.precision.float32 import Float32Graphs

__all__ = ["CHANNELS", "IMAGES", "ImageMaps", "Sample", "compare", "explain_all", "plan_sample"]

# Method -> kind of scorer.
_METHODS: Final = {"scorecam": "linear", "scorecam++": "tanh"}
_BATCH: Final = 16
# Multiply-adds that one precision may take: of ResNet-18's passes those of 4 images, 2 methods and 69 channels.
_MACS: Final = 1e12
# How many images may be measured, and how many channels of each: fewest and most.
IMAGES = (4, 8)
CHANNELS = (64, 256)


@dataclasses.dataclass(frozen=True)
class Sample:
    """How many images are measured, and how many channels of each: those of the highest energy."""

    images: int
    channels: int


@dataclasses.dataclass(frozen=True)
class ImageMaps:
    """What one precision makes of one image.

    Attributes:
        maps: method -> float64 [H,W] in [0,1].
        best: int64 [passes], the most probable class in each pass.
    """

    maps: dict[str, NDArray[np.float64]]
    best: NDArray[np.int64]


def plan_sample(macs: int | None) -> Sample:
    """Plan as many passes as a classifier of so many multiply-adds allows; few if the number is not known."""
    (fewest_images, most_images), (fewest, most) = IMAGES, CHANNELS
    if macs is None:
        return Sample(fewest_images, fewest)
    passes = _MACS / max(macs, 1) / len(_METHODS)
    images = most_images if passes >= most_images * fewest else fewest_images
    return Sample(images, int(np.clip(passes / images, fewest, most)))


def explain_all(
    float32: Float32Graphs, scorers: Mapping[str, str], images: Sequence[NDArray[np.float32]], sample: Sample
) -> Iterator[ImageMaps]:
    """Explain images with the scorers of one precision, by plain loops.

    Args:
        float32: the bundle's own graphs, for the features and the class.
        scorers: kind -> file name, in the precision asked for.
        images: float32 [1,C,H,W] each, preprocessed.
        sample: how many of them, and of their channels.
    """
    opened = {method: float32.open(scorers[kind]) for method, kind in _METHODS.items()}
    for image in images[: sample.images]:
        maps, logits = float32.maps_and_logits(image)
        target, classes = int(logits.argmax()), len(logits)
        score = no_score(float32.graphs, classes)
        clean, _ = run_scorer(
            opened["scorecam"],
            image,
            np.ones_like(maps),
            np.zeros(1, np.int64),
            columns=np.arange(classes),
            score=score,
        )  # a mask of ones
        energy = np.maximum(maps, 0).sum(axis=(1, 2), dtype=np.float64)
        channels = np.argsort(-energy, kind="stable")[: sample.channels].astype(np.int64)
        drawn, best = {}, [clean.argmax(axis=1)]
        for method, scorer in opened.items():
            drawn[method], classes_of_passes = _explain(method, scorer, image, maps, channels, target, score, classes)
            best.append(classes_of_passes)
        yield ImageMaps(drawn, np.concatenate(best))


def compare(expected: Sequence[ImageMaps], found: Sequence[ImageMaps], *, held_out: bool, channels: int) -> Fidelity:
    """Compare the explanations of a variant with those in float32.

    Args:
        expected: in float32, one per image.
        found: in the variant, for the same images.
        held_out: whether the images were kept out of calibration.
        channels: how many were scored at most.
    """
    maps = {}
    for method in _METHODS:
        pairs = [(a.maps[method].ravel(), b.maps[method].ravel()) for a, b in zip(expected, found, strict=True)]
        pearson = [correlation(a, b, _cosine_of_deviations) for a, b in pairs]
        spearman = [correlation(ranks(a), ranks(b), _cosine_of_deviations) for a, b in pairs]
        maps[method] = Likeness(
            float(np.mean(pearson)), float(np.min(pearson)), float(np.mean(spearman)), float(np.min(spearman))
        )
    agreeing = np.concatenate([a.best == b.best for a, b in zip(expected, found, strict=True)])
    return Fidelity(len(expected), held_out, channels, float(agreeing.mean()), maps)


def _explain(
    method: str,
    scorer: Session,
    image: NDArray[np.float32],
    maps: NDArray[np.float32],
    channels: NDArray[np.int64],
    target: int,
    score: NDArray[np.float32],
    classes: int,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Map of a class, float64 [H,W] in [0,1], from some channels, and the most probable class of each pass, int64."""
    size = image.shape[2:]
    plan = resolve_method(method, {}).plan
    assert plan is not None
    gate = None if plan.gate is None else GATE_FUNCTIONS[plan.gate]
    masks = prepare_masks(maps, plan, height=size[0], width=size[1]).maps
    total = np.zeros(maps.shape[1:] if gate is None else size)
    best = []
    for start in range(0, len(channels), _BATCH):
        chunk = channels[start : start + _BATCH]
        logits, probabilities = run_scorer(scorer, image, masks, chunk, columns=np.arange(classes), score=score)
        summed = maps[chunk] if gate is None else gate(upsample(maps[chunk], *size))
        total += np.tensordot(probabilities[:, target].astype(np.float64), summed, axes=1)
        best.append(logits.argmax(axis=1))
    finished, _ = relu_min_max((upsample(total, *size) if gate is None else total)[None])
    return finished[0], np.concatenate(best)


def _cosine_of_deviations(a: NDArray[np.floating[Any]], b: NDArray[np.floating[Any]]) -> float:
    """Pearson's correlation. Its last digits are those in the bundles written so far, unlike np.corrcoef's."""
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / (float(np.sqrt((a * a).sum())) * float(np.sqrt((b * b).sum()))))
