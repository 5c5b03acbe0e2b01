"""How like float32's the maps of a variant are: Score-CAM and ScoreCAM++ with both, on a few pictures."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ortcam.bundle import Cut, Fidelity, Graphs, Likeness
from ortcam.engine.base import Session
from ortcam.engine.features import as_maps
from ortcam.engine.model import classify
from ortcam.engine.providers import resolve_providers
from ortcam.engine.session import SessionOptions, open_session
from ortcam.methods import resolve_method
from ortcam.parity import run_scorer
from ortcam.scoring.masks import prepare_masks
from ortcam.scoring.upsampling import upsample

__all__ = ["Budget", "Explained", "compare", "explain_all", "plan_passes"]

# Method -> kind of scorer.
_METHODS: Final = {"scorecam": "linear", "scorecam++": "tanh"}
_BATCH: Final = 16
# Multiply-adds that one precision may take: of ResNet-18's passes those of 4 pictures, 2 methods and 69 channels.
_MACS: Final = 1e12
_FEWEST_CHANNELS, _MOST_CHANNELS = 64, 256
_FEWEST_PICTURES, _MOST_PICTURES = 4, 8


@dataclasses.dataclass(frozen=True)
class Budget:
    """How many pictures are measured, and how many channels of each are scored, those of the highest energy."""

    pictures: int
    channels: int


@dataclasses.dataclass(frozen=True)
class Explained:
    """What one precision makes of one picture.

    Attributes:
        maps: method -> float64 [H,W] in [0,1].
        best: int64 [passes], the most probable class in each pass.
    """

    maps: dict[str, NDArray[np.float64]]
    best: NDArray[np.int64]


def plan_passes(macs: int | None) -> Budget:
    """As many passes as a classifier of so many multiply-adds allows; few where the number is not known."""
    if macs is None:
        return Budget(_FEWEST_PICTURES, _FEWEST_CHANNELS)
    passes = _MACS / max(macs, 1) / len(_METHODS)
    pictures = _MOST_PICTURES if passes >= _MOST_PICTURES * _FEWEST_CHANNELS else _FEWEST_PICTURES
    return Budget(pictures, int(np.clip(passes / pictures, _FEWEST_CHANNELS, _MOST_CHANNELS)))


def explain_all(
    folder: Path,
    graphs: Graphs,
    scorers: Mapping[str, str],
    cut: Cut,
    images: Sequence[NDArray[np.float32]],
    budget: Budget,
) -> Iterator[Explained]:
    """Explain pictures with the scorers of one precision, by plain loops.

    Args:
        folder: of the graphs.
        graphs: the bundle's own, for features and the class.
        scorers: kind -> file name, in the precision asked for.
        cut: where the maps come from.
        images: float32 [1,3,H,W] each, preprocessed.
        budget: how many of them, and of their channels.
    """
    options = SessionOptions(resolve_providers(["CPUExecutionProvider"]))
    own = {
        name: open_session(folder / name, options) for name in (graphs.features, graphs.head or graphs.classifier or "")
    }
    opened = {method: open_session(folder / scorers[kind], options) for method, kind in _METHODS.items()}
    for image in images[: budget.pictures]:
        features, logits = classify(graphs, own.__getitem__, image)
        maps, target, classes = as_maps(features, cut), int(logits[0].argmax()), logits.shape[1]
        clean, _ = run_scorer(
            opened["scorecam"], image, np.ones_like(maps), np.zeros(1, np.int64), classes=classes
        )  # a mask of ones
        energy = np.maximum(maps, 0).sum(axis=(1, 2), dtype=np.float64)
        channels = np.argsort(-energy, kind="stable")[: budget.channels].astype(np.int64)
        drawn, best = {}, [clean.argmax(axis=1)]
        for method, scorer in opened.items():
            drawn[method], classes_of_passes = _explain(method, scorer, image, maps, channels, target, classes)
            best.append(classes_of_passes)
        yield Explained(drawn, np.concatenate(best))


def compare(expected: Sequence[Explained], found: Sequence[Explained], *, held_out: bool, channels: int) -> Fidelity:
    """What a variant does to explanations.

    Args:
        expected: in float32, a picture each.
        found: in the variant, for the same pictures.
        held_out: whether the pictures were kept out of calibration.
        channels: how many were scored at most.
    """
    maps = {}
    for method in _METHODS:
        pairs = [(a.maps[method].ravel(), b.maps[method].ravel()) for a, b in zip(expected, found, strict=True)]
        pearson = [_correlation(a, b) for a, b in pairs]
        spearman = [_correlation(_ranks(a), _ranks(b)) for a, b in pairs]
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
    classes: int,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Map of a class, float64 [H,W] in [0,1], from some channels, and the most probable class of each pass, int64."""
    size = image.shape[2:]
    gated = method == "scorecam++"
    plan = resolve_method(method, {}).plan
    assert plan is not None
    masks = prepare_masks(maps, plan, height=size[0], width=size[1]).maps
    total = np.zeros(size if gated else maps.shape[1:])
    best = []
    for start in range(0, len(channels), _BATCH):
        chunk = channels[start : start + _BATCH]
        logits, probabilities = run_scorer(scorer, image, masks, chunk, classes=classes)
        summed = np.tanh(upsample(maps[chunk], *size)) if gated else maps[chunk]
        total += np.tensordot(probabilities[:, target].astype(np.float64), summed, axes=1)
        best.append(logits.argmax(axis=1))
    positive = np.maximum(total if gated else upsample(total, *size), 0)
    span = float(np.ptp(positive))
    return (positive - positive.min()) / span if span > 0 else np.zeros(size), np.concatenate(best)


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Pearson's; of two flat maps 1, of one flat map and another 0."""
    a, b = a - a.mean(), b - b.mean()
    norms = float(np.sqrt((a * a).sum())), float(np.sqrt((b * b).sum()))
    if 0 in norms:
        return float(norms == (0, 0))
    return float((a * b).sum() / (norms[0] * norms[1]))


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 0, equal values sharing the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last - (counts + 1) / 2)[inverse]
    return ranks
