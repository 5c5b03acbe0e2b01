"""One image and one method: the map, and all its metrics."""

import dataclasses
import time
from collections.abc import Callable, Collection, Mapping
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ortcam.engine.batching import BatchSize
from ortcam.engine.features import check_finite, exact_probabilities
from ortcam.engine.score import ScoreMatrix
from ortcam.evaluation import metrics
from ortcam.evaluation.dataset import Example, inside_boxes
from ortcam.evaluation.entries import Entry
from ortcam.evaluation.metrics import FILLS, Fill
from ortcam.evaluation.protocols import Protocol
from ortcam.explainer import Explainer
from ortcam.images.photograph import Photograph

__all__ = ["NO_CLASS", "Clean", "Explained", "Measurement", "Measuring", "explain"]

THUMBNAIL: Final = 28
NO_CLASS: Final = -1  # the target where a score is explained, as in `Explanation.targets`

# Metrics of the confidence under the map.
_OF_MASKED: Final = frozenset({"average-drop", "increase", "average-gain", "win", "adcc"})


@dataclasses.dataclass(frozen=True)
class Clean:
    """What is known about an image before any map is made.

    Attributes:
        example: the image, its class and boxes.
        photograph: decoded and preprocessed.
        target: the class with the largest logit, which is the one explained; `NO_CLASS` where a score is explained.
        probability: of the target; its value, where values are no probabilities; the value of the score.
        confidence: Y: the same, or the logit of the target, as the protocol says.
        inside: bool [H,W], pixels inside the boxes; None without boxes, or where they belong to another class.
        emptied: the image without any pixel, float32 [C,H,W], and the probability of the target then, by fill; filled
            in when a curve needs it, since it is the same for all methods.
    """

    example: Example
    photograph: Photograph
    target: int
    probability: float
    confidence: float
    inside: NDArray[np.bool_] | None
    emptied: dict[Fill, tuple[NDArray[np.float32], float]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Explained:
    """A map, float32 [H,W] in [0,1], whether it is flat, and how many masked passes it took."""

    saliency: NDArray[np.float32]
    flat: bool
    passes: int


@dataclasses.dataclass(frozen=True)
class Measurement:
    """The metrics of one map.

    Attributes:
        image: name of the example.
        variant: name of the entry.
        label: class of the image; None if unknown.
        target: class explained; `NO_CLASS` where a score is.
        probability: of the target on the clean image; the value of the score.
        clean: Y.
        masked: O; None if no metric needs it.
        flat: whether the map is flat.
        seconds: time of the explanation.
        passes: masked forward passes of the explanation.
        scores: values by metric, in its unit. Win is added later, because it needs all methods.
        curves: confidences by metric, from no pixel to all pixels.
        thumbnail: uint8 [28,28], a small copy of the map.
    """

    image: str
    variant: str
    label: int | None
    target: int
    probability: float
    clean: float
    masked: float | None
    flat: bool
    seconds: float
    passes: int
    scores: dict[str, float]
    curves: dict[str, list[float]]
    thumbnail: NDArray[np.uint8]


class Measuring:
    """Measures the metrics of a protocol on one model."""

    def __init__(
        self,
        explainers: Mapping[str | None, Explainer],
        protocol: Protocol,
        wanted: Collection[str],
        *,
        step: int | None = None,
        batch_size: BatchSize = "auto",
        score: ScoreMatrix | None = None,
    ) -> None:
        """Keep what is the same for all images.

        Args:
            explainers: of one bundle, by precision. The one under None does everything but the masked passes.
            protocol: the conventions.
            wanted: names of metrics.
            step: pixels per step of insertion and deletion; None: a hundredth of the image.
            batch_size: masked or altered images per run.
            score: what is explained of every image; None: the class that the model gives it.
        """
        self._score = score
        self._explainers = explainers
        self._explainer = explainers[None]
        self._protocol = protocol
        self._wanted = frozenset(wanted)
        self._step = step
        self._batch_size = batch_size

    def clean(self, example: Example, photograph: Photograph) -> Clean:
        """Classify an image, and place its boxes in the model's input.

        Raises:
            NotFiniteError: a logit is infinite or not a number.
            DatasetError: the boxes are given for an image of another shape.
        """
        logits = self._logits(1, lambda _: photograph.model_input)[0]
        target = int(np.argmax(logits)) if self._score is None else NO_CLASS
        inside = None
        # The boxes are those of what the image shows. Whether a score is about that is for the user to know.
        if example.boxes and (example.label in (None, target) or self._score is not None):
            inside = inside_boxes(example, self._explainer.bundle.manifest.preprocessing, *photograph.pixels.shape[:2])
            inside = inside if inside.any() else None
        probability = float(self._of_target(target, logits))
        confidence = float(logits[target]) if self._protocol.confidence == "logit" else probability
        return Clean(example, photograph, target, probability, confidence, inside)

    def measure(self, clean: Clean, entry: Entry) -> Measurement:
        """Explain an image, and measure the map.

        Raises:
            OrtcamError: as `Explainer.explain`.
        """
        # A copy, so that no method profits from features that another one has computed.
        photograph = dataclasses.replace(clean.photograph, model_input=clean.photograph.model_input.copy())
        clock = time.perf_counter()
        found = self.explain(clean, photograph, entry)
        seconds = time.perf_counter() - clock
        masked = self._masked_confidence(clean, found.saliency) if self._wanted & _OF_MASKED else None
        scores = {} if masked is None else self._confidence_scores(clean, masked)
        scores |= self._map_scores(clean, entry, found.saliency, scores.get("average-drop"))
        curves = self._curves(clean, found.saliency)
        counts = metrics.shares(found.saliency.size, self._step)
        whole = 100 if self._protocol.confidence == "value" else 1  # of values the area is their mean, not a share
        scores |= {name: metrics.area_under(curve, counts) / whole for name, curve in curves.items()}
        return Measurement(
            image=clean.example.name,
            variant=entry.name,
            label=clean.example.label if self._score is None else None,
            target=clean.target,
            probability=clean.probability,
            clean=clean.confidence,
            masked=masked,
            flat=found.flat,
            seconds=seconds,
            passes=found.passes,
            scores={name: value for name, value in scores.items() if name in self._wanted},
            curves={name: curve.tolist() for name, curve in curves.items()},
            thumbnail=_thumbnail(found.saliency),
        )

    def explain(self, clean: Clean, photograph: Photograph, entry: Entry) -> Explained:
        """Explain a photograph, clean or altered, for the class of the clean one.

        Raises:
            OrtcamError: as `Explainer.explain`.
        """
        explainer = self._explainers[entry.precision]
        return explain(explainer, photograph, clean.target, entry, clean.example.name, self._batch_size)

    def _masked_confidence(self, clean: Clean, saliency: NDArray[np.float32]) -> float:
        mask = metrics.top_half(saliency) if self._protocol.keep_half else saliency
        logits = self._logits(1, lambda _: clean.photograph.model_input * mask)[0]
        return float(
            logits[clean.target] if self._protocol.confidence == "logit" else self._of_target(clean.target, logits)
        )

    def _confidence_scores(self, clean: Clean, masked: float) -> dict[str, float]:
        """What the map keeps of the confidence, from O = `masked`."""
        increased = masked > clean.confidence or (self._protocol.ties_increase and masked == clean.confidence)
        drop = metrics.average_drop(clean.confidence, masked)
        if self._protocol.bounds_drop and increased and drop > 0:
            raise AssertionError(f"{clean.example.name}: a drop and an increase, so they could add up to over 100")
        gain = metrics.average_gain(clean.confidence, masked)
        return {"average-drop": drop, "increase": 100.0 * increased, "average-gain": gain}

    def _map_scores(
        self, clean: Clean, entry: Entry, saliency: NDArray[np.float32], drop: float | None
    ) -> dict[str, float]:
        """What the map itself is like: ADCC and its parts, and how much of it lies in the boxes."""
        scores: dict[str, float] = {}
        if self._wanted & {"coherency", "adcc"}:
            again = dataclasses.replace(clean.photograph, model_input=clean.photograph.model_input * saliency)
            scores["coherency"] = metrics.coherency(saliency, self.explain(clean, again, entry).saliency)
        scores["complexity"] = 100 * float(saliency.mean(dtype=np.float64))
        if "adcc" in self._wanted and drop is not None:
            scores["adcc"] = metrics.adcc(scores["coherency"], scores["complexity"], drop)
        if clean.inside is not None:
            scores["energy-pointing"] = metrics.energy_in(saliency, clean.inside)
            scores["pointing"] = metrics.hits(saliency, clean.inside)
            scores["box-area"] = 100 * float(clean.inside.mean())
        return scores

    def _curves(self, clean: Clean, saliency: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
        """Probabilities of the target while pixels appear or vanish, by metric."""
        ranks = metrics.pixel_ranks(saliency)
        counts = metrics.shares(saliency.size, self._step)
        curves: dict[str, NDArray[np.float64]] = {}
        for fill in FILLS:
            for kind in ("insertion", "deletion"):
                name = f"{kind}-{fill}"
                if name in self._wanted:
                    curves[name] = self._curve(clean, ranks, counts, fill, inserts=kind == "insertion")
        return curves

    def _curve(
        self, clean: Clean, ranks: NDArray[np.int64], counts: NDArray[np.int64], fill: Fill, *, inserts: bool
    ) -> NDArray[np.float64]:
        """Probabilities of the target, float64 [n], after each of the `counts` [n] of pixels, from none to all."""
        empty, empty_probability = self._emptied(clean, fill)
        shown = clean.photograph.model_input[0]
        front, behind = (shown, empty) if inserts else (empty, shown)

        def changed(part: slice) -> NDArray[np.float32]:
            done = ranks < counts[1:-1][part, None, None]
            mixed: NDArray[np.float32] = np.where(done[:, None], front, behind)
            return mixed

        between = self._of_target(clean.target, self._logits(len(counts) - 2, changed))
        ends = (empty_probability, clean.probability)
        start, end = ends if inserts else ends[::-1]
        return np.concatenate([[start], between, [end]])

    def _emptied(self, clean: Clean, fill: Fill) -> tuple[NDArray[np.float32], float]:
        if fill not in clean.emptied:
            image = clean.photograph.model_input[0]
            empty = np.zeros_like(image) if fill == "zero" else metrics.blurred(image)
            logits = self._logits(1, lambda _: empty[None])[0]
            clean.emptied[fill] = empty, float(self._of_target(clean.target, logits))
        return clean.emptied[fill]

    def _logits(self, count: int, inputs: Callable[[slice], NDArray[np.float32]]) -> NDArray[np.float32]:
        logits = self._explainer.logits(count, inputs, batch_size=self._batch_size)
        check_finite("logits of the image or of altered ones", logits)
        return logits

    def _of_target(self, target: int, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """Probability of the target, or value of the score, from logits [...,D]."""
        if self._score is not None:
            return np.asarray(self._score.value(logits)[..., 0])
        activation = self._explainer.bundle.manifest.activation
        return np.asarray(exact_probabilities(logits, activation)[..., target])


def explain(
    explainer: Explainer,
    photograph: Photograph,
    target: int,
    entry: Entry,
    name: str,
    batch_size: BatchSize,
) -> Explained:
    """Make the map of an entry.

    Args:
        explainer: of the model.
        photograph: to explain.
        target: class index; `NO_CLASS` where the request of the entry has a score.
        entry: method or baseline.
        name: of the image; it seeds random weights.
        batch_size: masked images per run.

    Raises:
        OrtcamError: as `Explainer.explain`.
    """
    if entry.baseline is not None:
        return Explained(*entry.baseline(explainer, photograph, name), 0)
    assert entry.request is not None  # an entry is a method or a baseline
    targets = None if target == NO_CLASS else (target,)
    request = dataclasses.replace(entry.request, target=targets, batch_size=batch_size)
    explanation = explainer.explain_request(request, photograph)
    return Explained(explanation.maps[0], bool(explanation.flat[0]), explanation.stats.passes)


def _thumbnail(saliency: NDArray[np.float32]) -> NDArray[np.uint8]:
    small = cv2.resize(saliency, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    return np.rint(np.clip(small, 0, 1) * 255).astype(np.uint8)
