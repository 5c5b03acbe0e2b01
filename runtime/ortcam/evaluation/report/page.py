"""`report.html`: verdict, means, curves, differences and images of an evaluation, on one self-contained page."""

import base64
import datetime as dt
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import jinja2

from ortcam.evaluation.journal import Journal
from ortcam.evaluation.metrics import Metric
from ortcam.evaluation.report import numbers
from ortcam.evaluation.report.gallery import Photographs, cards_of, choose, values_of
from ortcam.evaluation.report.looks import MARKS, looks_of
from ortcam.evaluation.report.plots import BANDS_AT_ONCE, VIEW, apart, panel
from ortcam.evaluation.report.table import places_of, rows_of
from ortcam.evaluation.report.verdict import MEANING, Verdict
from ortcam.evaluation.results import Results, Summary
from ortcam.evaluation.statistics import FEWEST
from ortcam.support.files import write_whole

__all__ = ["write_report"]

_TEMPLATE: Final = "report.html.j2"

_FAILURES: Final = 500  # listed at most; summary.json has all

# The gallery is chosen by the first of these that is measured. The first three are printed below each image.
_TELLING: Final = ("adcc", "insertion-zero", "average-drop", "deletion-zero")
_BELOW_IMAGES: Final = 3


def write_report(
    path: Path,
    results: Results,
    summary: Summary,
    verdict: Verdict,
    journal: Journal,
    photographs: Photographs,
    more: Mapping[str, Any],
) -> None:
    """Write the page. Images that can no longer be read are left out of the gallery.

    Args:
        path: of the page, which is replaced as a whole.
        results: every number.
        summary: means, intervals and differences.
        verdict: the findings in sentences.
        journal: has the thumbnails of the maps.
        photographs: where the images are, and how they are read.
        more: what summary.json has beside results and summary: settings, protocol, model, providers, versions,
            failures, and randomized where that was checked.

    Raises:
        OSError: the page cannot be written.
    """
    context = _findings(results, summary, verdict) | _gallery(results, summary, journal, photographs)
    page = _template().render(
        **context,
        fewest=FEWEST,
        listed_failures=more["failures"][:_FAILURES],
        more=more,
        written=dt.datetime.now(dt.UTC),
    )
    # The name of a file need not be Unicode; other bytes become question marks.
    write_whole(path, page.encode(errors="replace"), durable=True)


def _measured(results: Results, summary: Summary) -> list[Metric]:
    return [metric for metric in results.metrics if any(metric.name in row for row in summary.table.values())]


def _telling(metrics: Sequence[Metric]) -> list[Metric]:
    """The metrics that say most, the first of them first; all where none of these is measured."""
    return [metric for name in _TELLING for metric in metrics if metric.name == name] or list(metrics)


def _findings(results: Results, summary: Summary, verdict: Verdict) -> dict[str, Any]:
    """What the template takes for verdict, table and plots."""
    looks = {look.name: look for look in looks_of(results)}
    metrics = _measured(results, summary)
    primary = next(iter(_telling(metrics)), None)
    return {
        "results": results,
        "looks": list(looks.values()),
        "marks": MARKS,
        "metrics": metrics,
        "measured": {name: item.n for row in summary.table.values() for name, item in row.items()},
        "verdict": verdict,
        "meaning": MEANING,
        "places": places_of(verdict, metrics, looks),
        "rows": rows_of(results, summary, verdict, metrics, looks),
        "panels": [
            panel(metric, results.bands[metric.name], summary, looks)
            for metric in metrics
            if metric.name in results.bands
        ],
        "view": VIEW,
        "bands": sum(not look.baseline for look in looks.values()) <= BANDS_AT_ONCE,
        "disagreements": any(item.disagrees for items in summary.differences.values() for item in items),
        "apart": [
            apart(metric, summary.differences[metric.name], looks, primary=metric == primary)
            for metric in metrics
            if summary.differences.get(metric.name)
        ],
        "primary": primary,
        "counts": _counts(results),
    }


def _gallery(results: Results, summary: Summary, journal: Journal, photographs: Photographs) -> dict[str, Any]:
    """What the template takes for the gallery."""
    metrics = _measured(results, summary)
    telling = _telling(metrics)
    chosen = choose(results, telling[0]) if telling else []
    cards = list(cards_of(chosen, results, journal, photographs))
    return {"below": telling[:_BELOW_IMAGES], "cards": cards, "values": values_of(cards, results, metrics)}


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "sha256": _sha256,
        "number": numbers.number,
        "signed": numbers.signed,
        "seconds": numbers.seconds,
        "p_value": numbers.p_value,
    }
    return environment.get_template(_TEMPLATE)


def _sha256(script: str) -> str:
    """A script as a Content-Security-Policy names it."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def _counts(results: Results) -> dict[str, int]:
    labelled = results.label >= 0
    return {
        "images": len(results.images),
        "labelled": int(labelled.sum()),
        "agreeing": int((results.label == results.target)[labelled].sum()),
    }
