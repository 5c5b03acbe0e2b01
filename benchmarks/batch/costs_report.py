"""The arithmetic and the page of what a million images cost."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Final

from benchmarks.common.figures import Figure, table

__all__ = ["BUDGETS", "Pace", "figures", "million_hours", "passes", "text_of"]

# Shares of the live channels; 1 is the exact map.
BUDGETS: Final = (1.0, 0.12, 0.04)
_MILLION: Final = 1_000_000
_HOUR: Final = 3600

_REPORT: Final = """\
# What a million images cost

Score-CAM of one class per image under three budgets, and the method that `auto` takes, which needs no masked pass.
Everything is measured with bare loops on this machine, which has {cores}. `ortcam batch` adds what
[the page about its throughput](batch.md) says.

    seconds per image = rest + passes x seconds per pass
    passes = ceil(budget x live channels)

## Hours of one such machine per million images

In brackets: the price at {price:.2f} per machine and hour. That is a round number to scale from, not an offer.
Divide the hours by the number of machines: images do not depend on each other.

{hours}

No GPU was measured, so this page gives no figure per GPU hour. `make bench-gpu` measures seconds per pass on one; the
formula above holds there as well.

## What was measured

`a x b` is a processes of b threads each. Milliseconds are of the machine: what a process took, divided by the processes
that worked beside each other. Rest: reading and decoding the file, the clean pass, masks, the estimate's map.

{paces}

## Does the formula hold?

The exact map of other photographs, measured, beside what the formula says from the passes of a small budget.

{checks}

{run}
- Weights: described in the data folder's README.md; those of resnet18 are for non-commercial research; those marked \
random have none there
"""


@dataclasses.dataclass(frozen=True)
class Pace:
    """What the machine needs with one grouping of its cores; seconds are divided by the processes.

    Attributes:
        pass_seconds: of a masked pass.
        rest_seconds: of an image beside its passes: decoding, the clean pass, masks, the map.
        cheap_seconds: of an image with the method that `auto` takes.
        batch_size: that `auto` found.
    """

    pass_seconds: float
    rest_seconds: float
    cheap_seconds: float
    batch_size: int

    def image_seconds(self, passes: float) -> float:
        """Of one image with so many passes."""
        return self.rest_seconds + passes * self.pass_seconds


def passes(channels: int, budget: float) -> int:
    """How many passes a budget allows for an image with so many live channels."""
    return math.ceil(budget * channels)


def million_hours(model: Mapping[str, Any], budget: float | None) -> float:
    """Hours of the machine per million images, with the best grouping for exact maps.

    Args:
        model: what was measured of it.
        budget: share of the live channels; None: the method that `auto` takes.
    """
    if budget is None:  # this method has a best grouping of its own
        return min(Pace(**pace).cheap_seconds for pace in model["paces"].values()) * _MILLION / _HOUR
    pace = Pace(**model["paces"][model["best"]])
    return pace.image_seconds(passes(model["channels"], budget)) * _MILLION / _HOUR


def text_of(raw: Mapping[str, Any], run: str, price: float, cores: int) -> str:
    """The page.

    Args:
        raw: what was measured.
        run: the lines about machine and command.
        price: of an hour of the machine.
        cores: of the machine.
    """
    models = raw["models"]
    return _REPORT.format(
        cores=f"{cores} cores",
        price=price,
        hours=table(
            ["model", "live channels", *map(_budget_title, BUDGETS), "`auto`"],
            (
                [
                    _title(name, model),
                    str(model["channels"]),
                    *(_hours(million_hours(model, budget), price) for budget in BUDGETS),
                    f"{_hours(million_hours(model, None), price)}, {model['method']}",
                ]
                for name, model in models.items()
            ),
        ),
        paces=table(
            ["model", "cores", "batch", "ms per pass", "rest, ms", "`auto`, ms per image"],
            (
                [
                    _title(name, model),
                    f"{way}, best" if way == model["best"] else way,
                    str(pace["batch_size"]),
                    *(f"{1e3 * pace[key]:.2f}" for key in ("pass_seconds", "rest_seconds", "cheap_seconds")),
                ]
                for name, model in models.items()
                for way, pace in model["paces"].items()
            ),
        ),
        checks=table(
            ["model", "measured, s per image", "formula", "formula by measured"],
            (
                [
                    _title(name, model),
                    f"{exact['measured']:.3f}",
                    f"{exact['predicted']:.3f}",
                    f"{exact['predicted'] / exact['measured']:.3f}",
                ]
                for name, model in models.items()
                if (exact := model.get("exact"))
            ),
        ),
        run=run,
    )


def figures(raw: Mapping[str, Any]) -> list[Figure]:
    """What the committed result keeps."""
    found = []
    for name, model in raw["models"].items():
        for budget in (*BUDGETS, None):
            title = "auto" if budget is None else f"budget {budget:g}"
            found.append(Figure(f"{name} / {title} / per million images", "h", (million_hours(model, budget),)))
        for way, pace in model["paces"].items():
            found += [
                Figure(f"{name} / {way} / {words}", "s", (pace[key],))
                for words, key in (("pass", "pass_seconds"), ("rest", "rest_seconds"), ("auto", "cheap_seconds"))
            ]
        if exact := model.get("exact"):
            found.append(Figure(f"{name} / formula by measured", "x", (exact["predicted"] / exact["measured"],)))
    return found


def _title(name: str, model: Mapping[str, Any]) -> str:
    return f"{name} (random)" if model["random"] else name


def _budget_title(budget: float) -> str:
    return "exact" if budget == 1 else f"budget {budget:g}"


def _hours(hours: float, price: float) -> str:
    """Hours and their price, three digits each."""
    return f"{_rounded(hours)} h ({_rounded(hours * price)})"


def _rounded(value: float) -> str:
    digits = max(0, 2 - math.floor(math.log10(value))) if value > 0 else 0
    return f"{value:,.{min(digits, 3)}f}"
