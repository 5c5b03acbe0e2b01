"""Protocols: the conventions of published tables of metrics, as data."""

import dataclasses
from collections.abc import Sequence
from typing import Final, Literal

from ortcam.errors import OptionError
from ortcam.evaluation.metrics import METRICS, chosen
from ortcam.support.suggestions import did_you_mean

__all__ = ["PROTOCOLS", "Protocol", "resolve_metrics", "resolve_protocol"]

# Metrics that are measured too: ADCC needs the means of its parts, and the pointing games mean nothing without chance.
_NEEDED: Final = {
    "adcc": ("coherency", "complexity", "average-drop"),
    "energy-pointing": ("box-area",),
    "pointing": ("box-area",),
}
_NOT_OF_LOGITS: Final = {"average-gain", "adcc"}  # both need a confidence in [0,1]
# They compare Y with O by their quotient, or with 1; Increase and Win are read beside them.
_OF_CONFIDENCE: Final = ("average-drop", "increase", "average-gain", "win", "adcc")
_NO_PROBABILITY: Final = "what is explained here is none: it may be negative, or above 1"


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What is measured, and how.

    Attributes:
        name: in `--protocol`.
        confidence: what Y and O are: the probability of the class (by softmax or sigmoid, as the model has it), or its
            logit. "value": any number, of a score or of a model whose outputs are values.
        ties_increase: whether O = Y counts as an increase.
        keep_half: whether the lower half of the map's pixels is set to zero before the map masks the image.
        metrics: measured by default.
        help: where the conventions come from.
    """

    name: str
    confidence: Literal["probability", "logit", "value"]
    ties_increase: bool
    keep_half: bool
    metrics: tuple[str, ...]
    help: str

    @property
    def bounds_drop(self) -> bool:
        """Whether Average Drop and Increase in Confidence add up to at most 100."""
        return self.confidence == "probability" and not self.ties_increase

    @property
    def left_out(self) -> tuple[str, ...]:
        """Metrics that mean nothing here, by their names."""
        return _OF_CONFIDENCE if self.confidence == "value" else ()

    def of_values(self) -> "Protocol":
        """The same for values that are no probabilities: without the metrics that need a confidence in (0,1]."""
        kept = tuple(name for name in self.metrics if name not in _OF_CONFIDENCE)
        return dataclasses.replace(self, confidence="value", metrics=kept)

    def note(self, metrics: Sequence[str] | None) -> str | None:
        """What was left out of the metrics and why, one sentence; None where nothing was.

        Args:
            metrics: as the user named them; None: those of the protocol.
        """
        if metrics is not None or self.confidence != "value":
            return None
        return f"left out are {', '.join(_OF_CONFIDENCE)}: they need a confidence in (0, 1], and {_NO_PROBABILITY}"


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


def resolve_metrics(names: Sequence[str] | None, protocol: Protocol) -> tuple[str, ...]:
    """Find the metrics to measure, in the order of `METRICS`, with those that they need.

    Args:
        names: of metrics or groups; None takes those of the protocol.
        protocol: the conventions.

    Raises:
        OptionError: an unknown name, no metric, or one that there are no probabilities for.
    """
    if names is None:
        if not protocol.metrics:
            raise OptionError(f"protocol {protocol.name}: has only metrics of a class, and {_NO_PROBABILITY}")
        return tuple(metric.name for metric in METRICS if metric.name in protocol.metrics)
    known = {metric.name for metric in METRICS} | {metric.group for metric in METRICS}
    for name in names:
        if name not in known:
            groups = ", ".join(dict.fromkeys(metric.group for metric in METRICS))
            accepted = ", ".join(metric.name for metric in METRICS)
            raise OptionError(
                f"metric {name!r}: accepted is {accepted}, or a group: {groups}{did_you_mean(name, sorted(known))}"
            )
    wanted = tuple(metric.name for metric in chosen(names))
    if senseless := [name for name in wanted if name in protocol.left_out]:
        accepted = ", ".join(metric.name for metric in METRICS if metric.name not in protocol.left_out)
        need = "needs" if len(senseless) == 1 else "need"
        raise OptionError(
            f"{', '.join(senseless)}: {need} a confidence in (0, 1], and {_NO_PROBABILITY}; accepted: {accepted}"
        )
    needed = [part for name in wanted for part in _NEEDED.get(name, ())]
    wanted = tuple(metric.name for metric in chosen([*names, *needed]))
    if not wanted:
        raise OptionError("no metric to measure")
    if protocol.confidence == "logit" and (odd := _NOT_OF_LOGITS & set(wanted)):
        raise OptionError(
            f"{', '.join(sorted(odd))} with protocol {protocol.name}: needs probabilities, but it takes logits"
        )
    return wanted
