"""Protocols: the conventions of published tables of metrics, as data."""

import dataclasses
from typing import Final, Literal

from ortcam.errors import OptionError
from ortcam.evaluation.metrics import METRICS

__all__ = ["PROTOCOLS", "Protocol", "resolve_protocol"]


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What is measured, and how.

    Attributes:
        name: in `--protocol`.
        confidence: what Y and O are: the probability of the class (by softmax or sigmoid, as the model has it), or its
            logit.
        ties_increase: whether O = Y counts as an increase.
        keep_half: whether the lower half of the map's pixels is set to zero before the map masks the image.
        metrics: measured by default.
        help: where the conventions come from.
    """

    name: str
    confidence: Literal["probability", "logit"]
    ties_increase: bool
    keep_half: bool
    metrics: tuple[str, ...]
    help: str

    @property
    def bounds_drop(self) -> bool:
        """Whether Average Drop and Increase in Confidence add up to at most 100."""
        return self.confidence == "probability" and not self.ties_increase


_ALL: Final = tuple(metric.name for metric in METRICS)

PROTOCOLS: Final = (
    Protocol(
        "soft-map",
        "probability",
        ties_increase=False,
        keep_half=False,
        metrics=_ALL,
        help="the image times the whole soft map; probabilities",
    ),
    Protocol(
        "adcc",
        "probability",
        ties_increase=False,
        keep_half=False,
        metrics=tuple(
            metric.name
            for metric in METRICS
            if metric.group in ("adcc", "insertion", "deletion") or metric.name in ("average-drop", "increase")
        ),
        help="Poppi et al. 2021: whole soft map, probabilities, ADCC of the means; their Score-CAM is "
        "scorecam:maps=normalized",
    ),
    Protocol(
        "scorecam-paper",
        "probability",
        ties_increase=False,
        keep_half=True,
        metrics=(
            *(metric.name for metric in METRICS if metric.group in ("insertion", "deletion", "pointing")),
            "average-drop",
            "increase",
        ),
        help="Wang et al. 2020: the lower half of the map's pixels is muted for Average Drop and Increase",
    ),
    Protocol(
        "scorecampp-notebook",
        "logit",
        ties_increase=True,
        keep_half=False,
        metrics=("average-drop", "increase", "win"),
        help="the ScoreCAM++ authors' notebook: logits, ties count as increases; only to be compared with it",
    ),
)


def resolve_protocol(name: str) -> Protocol:
    """Find the protocol of a name.

    Raises:
        OptionError: no protocol has this name.
    """
    for protocol in PROTOCOLS:
        if protocol.name == name:
            return protocol
    raise OptionError(f"protocol {name!r}: accepted is {', '.join(protocol.name for protocol in PROTOCOLS)}")
