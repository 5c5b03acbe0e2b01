"""How long health checks and predictions take while an exact explanation runs, and while nothing does."""

import contextlib
import http.client
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.serving.clients import ask, in_background
from benchmarks.serving.requests import Request
from benchmarks.serving.server import Server

__all__ = ["beside"]

_EXACT: Final = "Score-CAM, exact"
_PAUSE: Final = 0.05  # seconds between two requests, so that the explanation has the machine for the most part


def beside(server: Server, explained: str, predicted: str, photograph: Path, samples: int) -> dict[str, Any]:
    """Seconds of health checks and predictions, first alone, then while an exact explanation runs all the time.

    Args:
        server: that is asked.
        explained: model that is explained.
        predicted: model that predicts beside it; the explained one predicts, too.
        photograph: of all requests.
        samples: of each.
    """
    asked = {
        "health": ("/v2/health/live", None),
        **{
            f"predict {model}": (Request(model, "predict", photograph).path, photograph.read_bytes())
            for model in dict.fromkeys([predicted, explained])
        },
    }
    found = {"alone": _latencies(server, asked, samples)}
    with in_background(server.port, Request(explained, _EXACT, photograph)) as explanations:
        time.sleep(1)  # so that it runs
        found["beside"] = _latencies(server, asked, samples)
    return {"model": explained, "seconds": found, "explanations": explanations()}


def _latencies(server: Server, asked: dict[str, tuple[str, bytes | None]], samples: int) -> dict[str, list[float]]:
    """Seconds of each, taken in turn.

    Raises:
        SystemExit: an answer was no 200.
    """
    found: dict[str, list[float]] = {name: [] for name in asked}
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=300)) as connection:
        for _ in range(samples):
            for name, (path, body) in asked.items():
                time.sleep(_PAUSE)
                clock = time.perf_counter()
                status, answer, _ = ask(connection, path, body)
                found[name].append(time.perf_counter() - clock)
                if status != 200:
                    raise SystemExit(f"{name}: {status} {answer[:200]!r}")
    return found
