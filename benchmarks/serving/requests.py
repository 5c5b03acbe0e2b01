"""What the clients ask: the kinds of requests, how often each comes, and what a right answer is."""

import dataclasses
import json
import random
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["DIFFERENCE", "KINDS", "Kind", "Request", "Verdict", "judged", "mixed"]

# The most that a map of the server may differ from one of `Explainer.explain`: it is rounded to four decimals, and what
# processors and threads may change is 1e-5 (docs/explanation/exactness.md).
DIFFERENCE: Final = 0.5e-4 + 1e-5
_PROBABILITY: Final = 1e-5


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of request.

    Attributes:
        name: in the tables.
        options: of `Explainer.explain`, the same as parameters of the request; None: a prediction.
        often: how many of them are in one turn of the mix, per bundle.
    """

    name: str
    options: Mapping[str, Any] | None
    often: int


# With a fixed batch size, so that server and library score the same channels in the same order.
KINDS: Final = (
    Kind("predict", None, 16),
    Kind("grad-cam", {"method": "grad-cam"}, 8),
    Kind("Score-CAM, 12 %", {"method": "scorecam", "budget": 0.12, "batch_size": 8}, 3),
    Kind("Score-CAM, exact", {"method": "scorecam", "batch_size": 8}, 1),
)


@dataclasses.dataclass(frozen=True)
class Request:
    """One request: a photograph, raw, to one bundle.

    Attributes:
        model: name of the bundle.
        kind: name of one of KINDS.
        photograph: file.
    """

    model: str
    kind: str
    photograph: Path

    @property
    def key(self) -> str:
        """Names the right answer."""
        return f"{self.model}|{self.kind}|{self.photograph.name}"

    @property
    def options(self) -> Mapping[str, Any] | None:
        """Of the kind."""
        return next(kind.options for kind in KINDS if kind.name == self.kind)

    @property
    def path(self) -> str:
        """Where it is sent, with the query string."""
        if self.options is None:
            return f"/v1/models/{self.model}:predict"
        return f"/v1/models/{self.model}:explain?{urllib.parse.urlencode(self.options)}"


def mixed(models: Sequence[str], photographs: Sequence[Path], *, turns: int = 1, seed: int = 0) -> list[Request]:
    """All kinds for all bundles, shuffled; the same for the same seed.

    Args:
        models: names of the bundles.
        photographs: of which each request takes one after the other.
        turns: how many times the numbers in KINDS.
        seed: of the order.
    """
    found = []
    for model in models:
        for kind in KINDS:
            chosen = (photographs[number % len(photographs)] for number in range(kind.often * turns))
            found += [Request(model, kind.name, photograph) for photograph in chosen]
    random.Random(seed).shuffle(found)
    return found


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Of one answer.

    Attributes:
        words: what is wrong; empty where it is right.
        furthest: the largest difference of its maps from the right ones.
    """

    words: str = ""
    furthest: float = 0.0


def judged(request: Request, answer: bytes, expected: Mapping[str, NDArray[np.float64]]) -> Verdict:
    """Compare an answer with the library's.

    Args:
        request: that was answered.
        answer: body.
        expected: "probabilities" of all classes; of an explanation also "classes", the indices of those that are
            explained, and "map" [classes,h,w].
    """
    document = json.loads(answer)
    maps = None
    try:
        if request.options is None:
            classes = document["predictions"][0]["classes"]
        else:
            classes = document["explanations"][0]["targets"]
            maps = [item["map"]["data"] for item in classes]
        indices = [item["index"] for item in classes]
        probabilities = [item["probability"] for item in classes]
    except (KeyError, IndexError, TypeError) as error:
        return Verdict(f"{request.key}: no {error} in {answer[:200]!r}")
    most = np.sort(expected["probabilities"])[::-1][: len(indices)]
    if not indices or _apart(probabilities, most) > _PROBABILITY:
        return Verdict(f"{request.key}: probabilities {probabilities} instead of {most.tolist()}")
    if (apart := _apart(probabilities, expected["probabilities"][indices])) > _PROBABILITY:
        return Verdict(f"{request.key}: probabilities of {indices} differ by {apart:.1e}")
    if maps is None:
        return Verdict()
    if indices != expected["classes"].tolist():
        return Verdict(f"{request.key}: classes {indices} instead of {expected['classes'].tolist()}")
    apart = _apart(maps, expected["map"])
    return Verdict(f"{request.key}: maps differ by {apart:.1e}" if apart > DIFFERENCE else "", apart)


def _apart(found: object, expected: NDArray[np.float64]) -> float:
    values = np.asarray(found, np.float64)
    return float(np.abs(values - expected).max()) if values.shape == expected.shape else float("inf")
