"""What a warm start saves, in words and tables."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np
from benchmarks.common.figures import Figure, table
from benchmarks.frontier.scenes import NOISE, SIDE, STEP, STILL

__all__ = ["BUDGETS", "TOLERANCES", "Found", "Settings", "figures", "passes_for", "saved", "study"]

BUDGETS: Final = (0.03, 0.06, 0.12, 0.25)
TOLERANCES: Final = (0.02, 0.05)
ERRORS: Final = (0.1, 0.05, 0.02, 0.01)  # at which passes are compared

STUDY: Final = """\
## Passes at equal error

The share of the exact map's passes that a frame needs for a median error, cold and warm: from the budgets below, with
straight lines between their logarithms. A dash: no budget that was tried comes to this error. "At most": the smallest
budget does, and fewer passes may do, so two such shares say nothing of what is saved.

{equal}

## A pan

{budgets}

{tolerances}

## A thing enters a still scene

{still} frames are the same. Then a second of what they show appears in a corner, and {still} frames are the same again.

{entering}
"""


@dataclasses.dataclass(frozen=True)
class Found:
    """What some limit gave for a frame."""

    share: float  # of the passes of the exact map
    error: float
    estimate: float


Settings = tuple[str, float, bool]  # "budget" or "tolerance", its value, warm
Results = Mapping[str, Mapping[Settings, Sequence[Found]]]
PREAMBLE: Final = f"""\
A window pans over a photograph by {STEP:g} pixels of {SIDE} per frame, with camera noise (standard deviation {NOISE:g}
of 255) and light that rises and falls by 3 %. scorecam, for the class of the first frame. Each frame is explained cold,
like a single image, and warm, after the frame before it (`explain_stream`). The error is the largest |difference| from
the exact map in [0,1], over all frames but the first; "within" is the share of frames whose error is at most the
estimate, or the tolerance."""


def study(pans: Results, scenes: Results) -> str:
    """The tables of pans, and of scenes that a thing enters."""
    return STUDY.format(
        equal=_equal(pans),
        budgets=_budgets(pans),
        tolerances=_tolerances(pans),
        still=STILL,
        entering=_entering(scenes),
    )


def passes_for(error: float, by_setting: Mapping[Settings, Sequence[Found]], *, warm: bool) -> float | None:
    """The share of the passes at which the median error of budgets comes down to this; None: at none that was tried.

    Args:
        error: of the map.
        by_setting: what budgets gave.
        warm: which of them.
    """
    shares = [float(np.mean([item.share for item in by_setting["budget", value, warm]])) for value in BUDGETS]
    errors = [float(np.median([item.error for item in by_setting["budget", value, warm]])) for value in BUDGETS]
    errors = np.minimum.accumulate(np.maximum(errors, 1e-6)).tolist()
    if errors[0] <= error:
        return shares[0]
    for place in range(1, len(errors)):
        if errors[place] <= error:
            part = np.log(errors[place - 1] / error) / np.log(errors[place - 1] / errors[place])
            return float(shares[place - 1] * (shares[place] / shares[place - 1]) ** part)
    return None


def saved(by_setting: Mapping[Settings, Sequence[Found]], error: float) -> str:
    """How many of the cold passes a warm start saves at this error, in words."""
    cold, warm = (passes_for(error, by_setting, warm=warm) for warm in (False, True))
    bounds = _is_bound(cold, by_setting, warm=False), _is_bound(warm, by_setting, warm=True)
    if cold is None or warm is None or all(bounds):
        return "-"
    found = f"{1 - warm / cold:.0%}"
    return f"{found} or less" if bounds[0] else f"at least {found}" if bounds[1] else found


def _is_bound(share: float | None, by_setting: Mapping[Settings, Sequence[Found]], *, warm: bool) -> bool:
    """Whether the smallest budget came to the error, so that fewer passes may do."""
    smallest = by_setting["budget", BUDGETS[0], warm]
    return share is not None and share <= 1.001 * float(np.mean([item.share for item in smallest]))


def _equal(pans: Results) -> str:
    rows = []
    for name, by_setting in pans.items():
        for error in ERRORS:
            row = [name, f"{error:g}"]
            for warm in (False, True):
                share = passes_for(error, by_setting, warm=warm)
                bound = "at most " if _is_bound(share, by_setting, warm=warm) else ""
                row.append("-" if share is None else f"{bound}{share:.1%}")
            rows.append([*row, saved(by_setting, error)])
    return table(["model, photograph, frames", "median error", "cold: passes", "warm: passes", "saved"], rows)


def _budgets(pans: Results) -> str:
    rows = []
    for name, by_setting in pans.items():
        for value in BUDGETS:
            row = [name, f"{value:.0%}"]
            for warm in (False, True):
                errors = [item.error for item in by_setting["budget", value, warm]]
                row += [f"{np.median(errors):.4f}", f"{np.percentile(errors, 90):.4f}"]
                row += [_within(by_setting["budget", value, warm], None)]
            rows.append(row)
    named = [f"{start}: {what}" for start in ("cold", "warm") for what in ("median error", "90th percentile", "within")]
    return table(["model, photograph, frames", "budget", *named], rows)


def _tolerances(pans: Results) -> str:
    rows = []
    for name, by_setting in pans.items():
        for value in TOLERANCES:
            row = [name, f"{value:g}"]
            for warm in (False, True):
                found = by_setting["tolerance", value, warm]
                row += [f"{np.mean([item.share for item in found]):.1%}", _within(found, value)]
                row += [f"{np.median([item.error for item in found]):.4f}"]
            rows.append(row)
    named = [f"{start}: {what}" for start in ("cold", "warm") for what in ("passes", "within", "median error")]
    return table(["model, photograph, frames", "tolerance", *named], rows)


def _entering(scenes: Results) -> str:
    rows = []
    for name, by_setting in scenes.items():
        for (_, channels, warm), found in by_setting.items():
            errors = [item.error for item in found][STILL - 1 :]  # of all frames but the first
            cells = [f"{error:.2f}" for error in errors]
            rows.append([name, f"{channels:g} channels", "warm" if warm else "cold", " ".join(cells)])
    return table(["model, photograph", "budget", "start", "errors from when it enters"], rows)


def _within(found: Sequence[Found], tolerance: float | None) -> str:
    good = [item.error <= (item.estimate if tolerance is None else tolerance) for item in found]
    return f"{np.mean(good):.0%}"


def figures(results: Results) -> Iterator[Figure]:
    """The series of every limit."""
    for name, by_setting in results.items():
        for (limit, value, warm), found in by_setting.items():
            label = f"{name} / {limit} {value:g} / {'warm' if warm else 'cold'}"
            yield Figure(f"{label} / error", "map", tuple(item.error for item in found))
            yield Figure(f"{label} / passes", "share", tuple(item.share for item in found))
