"""Tables and figures of the load."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from benchmarks.common.figures import Figure, median, table, with_quartiles
from benchmarks.serving.requests import DIFFERENCE, KINDS

__all__ = ["figures", "growth", "ratios", "text_of"]

_AIM_RATIO: Final = 0.95
_AIM_SECONDS: Final = 0.1
_PERCENTILES: Final = (50, 95, 99)
_ALONE: Final = "0"

_REPORT: Final = """\
# Load on a server

`ortcam serve` against the same calls of `Explainer.explain` and `predict`, one after the other, in one process that has
the same bundles. The clients, the server and that process share this machine.

## Throughput

{requests} requests per round. Per bundle: {mix}.
The clients send the bytes of JPEG files, and get maps at the resolution of the layer.
Each of {rounds} rounds runs all rows in turn, and a ratio is of one round: median [quartiles].
Aim: at least {aim}. The ratio per second of a core counts the time that the processes had on the cores, so that other
work on the machine hardly changes it.

{throughput}

{checked} answers were compared with those of the library: {wrong} wrong, {errors} errors, {refused} times 429. The
largest difference of a map was {furthest:.1e}; rounding to four decimals and the order of sums allow {allowed:.1e}.

## Seconds of a request

p50 / p95 / p99, time in the queue included. With 16 clients, explanations with masks wait in the queue for most of it.

{latency}

## Beside an exact explanation

Milliseconds, p50 / p95 / p99: alone, and while exact Score-CAM of {beside} runs all the time ({runs} explanations,
{each:.1f} s each). Aim: p99 below 100 ms.

{latencies}

## Memory

{memory}

{run}
"""


def ratios(throughput: Mapping[str, Any], clients: str, key: str = "seconds") -> list[float]:
    """Throughput of each round with so many clients, by that without a server in the same round.

    Args:
        throughput: what was measured.
        clients: how many there were.
        key: "seconds", or "processor" for the requests per second of a core.
    """
    alone, served = throughput[_ALONE][key], throughput[clients][key]
    return [before / now for before, now in zip(alone, served, strict=True)]


def growth(memory: Mapping[str, Sequence[float]]) -> float:
    """Bytes by which the median of the last third of the samples is above that of the second third."""
    values = memory["bytes"]
    third = len(values) // 3
    return median(values[-third:]) - median(values[third : 2 * third])


def text_of(raw: Mapping[str, Any], run: str) -> str:
    """The page.

    Args:
        raw: what was measured.
        run: the lines about machine and command.
    """
    throughput, around, memory = raw["throughput"], raw["beside"], raw["memory"]
    return _REPORT.format(
        requests=throughput[_ALONE]["requests"],
        mix="; ".join(f"{kind.often} x {kind.name}" for kind in KINDS),
        rounds=len(throughput[_ALONE]["seconds"]),
        aim=_AIM_RATIO,
        throughput=_throughput_table(throughput),
        checked=raw["checked"],
        wrong=len(raw["wrong"]),
        errors=len(raw["errors"]),
        refused=raw["refused"],
        furthest=raw["furthest"],
        allowed=DIFFERENCE,
        latency=_latency_table(throughput),
        beside=around["model"],
        runs=len(around["explanations"]),
        each=median(around["explanations"]),
        latencies=_beside_table(around["seconds"]),
        memory=_memory_words(memory),
        run=run,
    )


def figures(raw: Mapping[str, Any]) -> list[Figure]:
    """What the committed result keeps."""
    throughput = raw["throughput"]
    found = []
    for clients in throughput:
        title = _clients(clients)
        if clients != _ALONE:
            for key, name in (("seconds", "throughput"), ("processor", "throughput per core")):
                values = tuple(ratios(throughput, clients, key))
                found.append(Figure(f"{title} / ratio of {name}", "x", values, "higher"))
        for kind, seconds in throughput[clients]["each"].items():
            found += [Figure(f"{title} / {kind} / p{p}", "s", (_percentile(seconds, p),)) for p in _PERCENTILES]
    for situation, latencies in raw["beside"]["seconds"].items():
        for name, seconds in latencies.items():
            found += [Figure(f"{situation} / {name} / p{p}", "s", (_percentile(seconds, p),)) for p in _PERCENTILES]
    found.append(Figure("memory / growth", "B", (growth(raw["memory"]),)))
    found += [Figure(name, "", (float(len(raw[name])),)) for name in ("wrong", "errors")]
    return found


def _clients(count: str) -> str:
    if count == _ALONE:
        return "no server"
    return f"{count} client" if count == "1" else f"{count} clients"


def _percentile(values: Sequence[float], percent: int) -> float:
    return float(np.percentile(values, percent))


def _throughput_table(throughput: Mapping[str, Any]) -> str:
    rows = []
    for clients, entry in throughput.items():
        rates = [entry["requests"] / seconds for seconds in entry["seconds"]]
        both = [with_quartiles(ratios(throughput, clients, key), 3) for key in ("seconds", "processor")]
        rows.append([_clients(clients), with_quartiles(rates, 2), *(["", ""] if clients == _ALONE else both)])
    return table(["", "requests per second", "ratio", "ratio per second of a core"], rows)


def _latency_table(throughput: Mapping[str, Any]) -> str:
    rows = [
        [kind.name, *(_percentiles(entry["each"][kind.name], 1, 3) for entry in throughput.values())] for kind in KINDS
    ]
    return table(["", *map(_clients, throughput)], rows)


def _beside_table(seconds: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    alone, around = seconds["alone"], seconds["beside"]
    rows = []
    for name in alone:
        held = "yes" if _percentile(around[name], 99) < _AIM_SECONDS else "no"
        rows.append([name, _percentiles(alone[name], 1e3, 1), _percentiles(around[name], 1e3, 1), held])
    return table(["", "alone", "beside", "aim held"], rows)


def _percentiles(seconds: Sequence[float], factor: float, digits: int) -> str:
    return " / ".join(f"{factor * _percentile(seconds, percent):.{digits}f}" for percent in _PERCENTILES)


def _memory_words(memory: Mapping[str, Sequence[float]]) -> str:
    values = [value / 1e6 for value in memory["bytes"]]
    third = len(values) // 3
    middle, last = median(values[third : 2 * third]), median(values[-third:])
    return (
        f"Resident memory of the server with its decoders, {len(values)} samples over {memory['requests'][-1]:.0f} "
        f"requests of four clients: {values[0]:.0f} MB before; median {middle:.1f} MB in the second third of them, "
        f"{last:.1f} MB in the last: {last - middle:+.1f} MB."
    )
