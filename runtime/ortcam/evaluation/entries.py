"""What an evaluation compares: methods with their options, and the baselines that each method must beat."""

import dataclasses
import zlib
from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from ortcam.bundle import Manifest
from ortcam.errors import OptionError
from ortcam.explainer import Explainer
from ortcam.images.photograph import Photograph
from ortcam.methods import AUTO_METHOD
from ortcam.request import ExplainRequest, Score, parse_entry
from ortcam.scoring import finish
from ortcam.support.ranges import shown

__all__ = ["BASELINES", "Baseline", "Entry", "for_bundle", "parse_entries"]

Maps = NDArray[np.float32]

_GAUSSIAN_SIGMA: Final = 0.25  # of a side


@dataclasses.dataclass(frozen=True)
class Entry:
    """A method as it is evaluated.

    Attributes:
        name: as the user wrote it, METHOD[:KEY=VALUE...]; unique.
        title: for tables.
        request: what makes the map, for a class that is chosen per image; None for a baseline.
        precision: of the masked passes; None takes the bundle's own.
        baseline: makes the map of a baseline; None for a method.
    """

    name: str
    title: str
    request: ExplainRequest | None = None
    precision: str | None = None
    baseline: "Baseline | None" = None

    @property
    def chosen(self) -> str | None:
        """What "auto" stands for here and why, where it is the method."""
        return None if self.request is None else self.request.chosen


def parse_entries(texts: Sequence[str], score: Score | None = None) -> list[Entry]:
    """Parse METHOD[:KEY=VALUE...] of each: `request.entries` has the keys.

    Args:
        texts: one per entry.
        score: that all of them explain; None: a class that is chosen per image.

    Raises:
        OptionError: an unknown method, key or value, an entry given twice, or a score of its own beside that of all.

    Example:
        >>> [entry.title for entry in parse_entries(["scorecam++", "iscam:budget=0.25"])]
        ['ScoreCAM++', 'IS-CAM (budget 0.25)']
    """
    found: dict[str, Entry] = {}
    for text in texts:
        entry = parse_entry(text)
        if entry.name in found:
            raise OptionError(f"{entry.name}: is named twice")
        title = f"{entry.method.title} ({entry.details})" if entry.details else entry.method.title
        request = entry.request
        if score is not None:
            if "score" in entry.arguments:
                raise OptionError(f"{entry.name}: has a score of its own, and score={shown(score.text)} is for all")
            request = ExplainRequest.of(**entry.arguments, score=score)
        found[entry.name] = Entry(entry.name, title, request, entry.precision)
    if not found:
        raise OptionError("no method to evaluate")
    return list(found.values())


def for_bundle(entries: Sequence[Entry], manifest: Manifest) -> list[Entry]:
    """The entries for one bundle: a method in place of "auto", whose title says which.

    Raises:
        OptionError: the bundle does not have what a method needs.
    """
    found = []
    for entry in entries:
        if entry.request is None:
            found.append(entry)
            continue
        request = entry.request.for_bundle(manifest)
        title = entry.title
        if request.chosen:
            both = f"{AUTO_METHOD.title}: {request.settings.method.title}"
            title = title.replace(AUTO_METHOD.title, both, 1)
        found.append(dataclasses.replace(entry, request=request, title=title))
    return found


@dataclasses.dataclass(frozen=True)
class Baseline:
    """A map that no method made.

    Attributes:
        kind: "random-weights": sum w_k U(A_k) with w_k uniform in [0,1), drawn once per image; "mean-activation": the
            same with equal w_k; "centred-gaussian": a Gaussian in the middle, the same for all images, with a sigma of
            a quarter of each side.
        seed: of the random weights.
    """

    kind: Literal["random-weights", "mean-activation", "centred-gaussian"]
    seed: int = 0

    def __call__(self, explainer: Explainer, photograph: Photograph, name: str) -> tuple[Maps, bool]:
        """Make the map, float32 [H,W] in [0,1], and tell whether it is flat.

        Args:
            explainer: of the model.
            photograph: clean or masked.
            name: of the image; it seeds the weights.
        """
        height, width = photograph.model_input.shape[2:]
        if self.kind == "centred-gaussian":
            x, y = ((np.arange(size) + 0.5) / size - 0.5 for size in (width, height))
            raw = np.exp(-(y[:, None] ** 2 + x**2) / (2 * _GAUSSIAN_SIGMA**2))
        else:
            features = explainer.features(photograph).astype(np.float64)
            weights = np.ones(len(features))
            if self.kind == "random-weights":
                weights = np.random.default_rng((self.seed, zlib.crc32(name.encode()))).random(len(features))
            raw = np.tensordot(weights, features, axes=1)
        maps, flat = finish(raw[None], height, width)
        return maps[0], bool(flat[0])


def baselines(seed: int) -> list[Entry]:
    """List the three baselines."""
    return [Entry(kind, title, baseline=Baseline(kind, seed)) for kind, title in BASELINES.items()]


BASELINES: Final[dict[Literal["random-weights", "mean-activation", "centred-gaussian"], str]] = {
    "random-weights": "Random weights",
    "mean-activation": "Mean activation",
    "centred-gaussian": "Centred Gaussian",
}
