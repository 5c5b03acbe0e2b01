"""What an evaluation compares: methods with their options, and the baselines that each method must beat."""

import argparse
import dataclasses
import zlib
from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from ortcam.errors import OptionError
from ortcam.explainer import Explainer
from ortcam.images.photograph import Photograph
from ortcam.methods import resolve_method
from ortcam.request import LIMITS, ExplainRequest
from ortcam.scoring import finish
from ortcam.support.ranges import shown

__all__ = ["BASELINES", "Baseline", "Entry", "parse_entries"]

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


def parse_entries(texts: Sequence[str]) -> list[Entry]:
    """Parse METHOD[:KEY=VALUE...], where a key is an option of the method, a limit or `precision`.

    Raises:
        OptionError: an unknown method, key or value, or an entry given twice.

    Example:
        >>> [entry.title for entry in parse_entries(["scorecam++", "iscam:budget=0.25"])]
        ['ScoreCAM++', 'IS-CAM (budget 0.25)']
    """
    found: dict[str, Entry] = {}
    for text in texts:
        entry = _parse(text.strip())
        if entry.name in found:
            raise OptionError(f"{entry.name}: is named twice")
        found[entry.name] = entry
    if not found:
        raise OptionError("no method to evaluate")
    return list(found.values())


def _parse(text: str) -> Entry:
    name, *pairs = text.split(":")
    method = resolve_method(name, {}).method
    arguments: dict[str, Any] = {"method": method.name}
    precision = None
    given: set[str] = set()
    for pair in pairs:
        key, equals, value = (part.strip() for part in pair.partition("="))
        key = key.replace("-", "_")
        if not equals:
            raise OptionError(f"{text!r}: accepted is METHOD or METHOD:KEY=VALUE[:KEY=VALUE...]")
        if key in given:
            raise OptionError(f"{text!r}: {key} is given twice")
        given.add(key)
        if key == "precision":
            precision = value
        elif key in LIMITS:
            try:
                arguments[key] = LIMITS[key](value)
            except (ValueError, argparse.ArgumentTypeError):
                raise OptionError(f"{text!r}: {key}={shown(value)} is not a number") from None
        else:
            resolve_method(method.name, {key: value})
            arguments[key] = value
    request = ExplainRequest.of(**arguments)
    if precision is not None and not method.masks_image:
        raise OptionError(f"{text!r}: precision goes with methods that mask the image")
    details = ", ".join(pair.strip().replace("_", " ").replace("=", " ") for pair in pairs)
    canonical = ":".join([method.name, *(pair.strip() for pair in pairs)])
    return Entry(canonical, f"{method.title} ({details})" if details else method.title, request, precision)


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
