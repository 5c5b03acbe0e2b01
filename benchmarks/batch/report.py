"""Tables and figures of batches beside bare loops."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from benchmarks.batch.memory import growth, in_words
from benchmarks.common.figures import Figure, median, table, with_quartiles

__all__ = ["best_ratios", "figures", "ratios", "text_of"]

_AIM: Final = 0.97

_REPORT: Final = """\
# Batches beside a bare loop

`ortcam batch` against bare loops: as many processes with as many threads, each of which calls `Explainer.explain` with
one file after the other, keeps nothing and writes nothing. Both read the same photographs from the same disk, with the
same batch size. What a million images cost is [a page of its own](batch-costs.md), and so are
[drivers with millions of ids](batch-scale.md).
{parts}
{run}
"""
_THROUGHPUT: Final = """
## Throughput, and how to share the cores

`a x b` is a processes of b threads each. Images per second are of the time from the first tenth of the images to the
last. Each round runs all rows in turn, and a ratio is of one round: median [quartiles]. "Whole command" is the ratio of
the seconds from the start of the first process to the end of the last, loading included. The ratio per second of a core
counts the time that all processes had on the cores, so that other work on the machine hardly changes it.
Aim: at least {aim} of the bare loops.

{throughput}

{best}
"""
_RAY: Final = """
## Ray on the same machine

`--engine ray` starts Ray on this machine, runs, and stops it. Ray's own processes share the cores with those that
score. The last column is the process that writes the parts: what it has on the cores per image bounds how many images
per second a cluster of any size can deliver to it.

{ray}
"""
_MEMORY: Final = """
## Memory

{memory}
"""
_DRIVER: Final = """
## What one driver can feed

The processes of this table pretend to score: they talk to the driver as those that score do, and send rows of the usual
size. So this is the driver alone: listing INPUT, handing out, taking rows, writing parts. Its reach is how many images
per second keep one core busy with that.

{driver}
"""


def ratios(kind: Mapping[str, Any], way: str, key: str) -> list[float]:
    """How well a batch did by bare loops, per round; above 1: better.

    Args:
        kind: what was measured of it.
        way: how the cores were shared.
        key: "rate", "seconds" or "processor_seconds".
    """
    pairs = [(batch[key], loop[key]) for batch, loop in zip(kind["batch"][way], kind["loop"][way], strict=True)]
    return [batch / loop if key == "rate" else loop / batch for batch, loop in pairs]


def best_ratios(kind: Mapping[str, Any]) -> list[float]:
    """The rate of a batch with its defaults by that of the fastest bare loops of the same round."""
    batches = kind["batch"][kind["default"]]
    loops = zip(*kind["loop"].values(), strict=True)
    return [batch["rate"] / max(loop["rate"] for loop in of) for batch, of in zip(batches, loops, strict=True)]


def text_of(raw: Mapping[str, Any], run: str) -> str:
    """The page.

    Args:
        raw: what was measured: "throughput", "ray", "memory", "driver", as far as they were.
        run: the lines about machine and command.
    """
    parts = []
    if kinds := raw.get("throughput"):
        parts.append(_THROUGHPUT.format(aim=_AIM, throughput=_throughput_table(kinds), best=_best_table(kinds)))
    if kinds := raw.get("ray"):
        parts.append(_RAY.format(ray=_ray_table(kinds)))
    if memory := raw.get("memory"):
        parts.append(_MEMORY.format(memory=in_words(memory)))
    if situations := raw.get("driver"):
        parts.append(_DRIVER.format(driver=_driver_table(situations)))
    return _REPORT.format(parts="".join(parts), run=run)


def figures(raw: Mapping[str, Any]) -> list[Figure]:
    """What the committed result keeps."""
    found = []
    for kind in raw.get("throughput", ()):
        for what, title in (("batch", "batch"), ("loop", "bare loops")):
            for way, timings in kind[what].items():
                rates = tuple(timing["rate"] for timing in timings)
                found.append(Figure(f"{kind['name']} / {way} / {title}", "1/s", rates, "higher"))
        for way in kind["batch"]:
            for key, title in (("rate", "rate"), ("seconds", "whole command"), ("processor_seconds", "per core")):
                values = tuple(ratios(kind, way, key))
                found.append(Figure(f"{kind['name']} / {way} / ratio, {title}", "x", values, "higher"))
        found.append(Figure(f"{kind['name']} / default by the best loop", "x", tuple(best_ratios(kind)), "higher"))
    for kind in raw.get("ray", ()):
        for engine in ("local", "ray"):
            title, timing = f"{kind['name']} / {engine}", kind[engine]
            found.append(Figure(f"{title} / rate", "1/s", (timing["rate"],), "higher"))
            found += [Figure(f"{title} / {key}", "s", (timing[key],)) for key in ("seconds", "driver")]
    if memory := raw.get("memory"):
        for column, name in ((1, "driver"), (2, "scoring processes")):
            found.append(Figure(f"memory / {name} / growth", "B", (growth(memory["samples"], column),)))
            most = float(max(sample[column] for sample in memory["samples"]))
            found.append(Figure(f"memory / {name} / most", "B", (most,)))
    for item in raw.get("driver", ()):
        title = f"driver / {item['processes']} processes"
        found.append(Figure(f"{title} / rate", "1/s", (item["rate"],), "higher"))
        found.append(Figure(f"{title} / processor time per image", "s", (item["seconds_per_image"],)))
    return found


def _throughput_table(kinds: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for kind in kinds:
        for way, timings in kind["batch"].items():
            rows.append(
                [
                    kind["name"],
                    str(kind["images"]),
                    f"{way}, default" if way == kind["default"] else way,
                    with_quartiles([timing["rate"] for timing in kind["loop"][way]], 1),
                    with_quartiles([timing["rate"] for timing in timings], 1),
                    *(with_quartiles(ratios(kind, way, key), 3) for key in ("rate", "seconds", "processor_seconds")),
                ]
            )
    head = ["what", "images", "cores", "bare loops, images/s", "batch, images/s", "ratio", "whole command", "per core"]
    return table(head, rows)


def _best_table(kinds: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for kind in kinds:
        values = best_ratios(kind)
        rows.append([kind["name"], with_quartiles(values, 3), "yes" if median(values) >= _AIM else "no"])
    return table(["what", "batch with its defaults by the fastest bare loops", "aim held"], rows)


def _ray_table(kinds: Sequence[Mapping[str, Any]]) -> str:
    return table(
        ["what", "images", "engine", "images/s", "whole command, s", "driver, us per image"],
        (
            [
                kind["name"],
                str(kind["images"]),
                engine,
                f"{kind[engine]['rate']:.1f}",
                f"{kind[engine]['seconds']:.1f}",
                f"{1e6 * kind[engine]['driver']:.0f}",
            ]
            for kind in kinds
            for engine in ("local", "ray")
        ),
    )


def _driver_table(situations: Sequence[Mapping[str, Any]]) -> str:
    return table(
        ["processes", "images", "offered, images/s", "images/s", "driver, us per image", "reach, images/s"],
        (
            [
                str(item["processes"]),
                f"{item['images']:,}",
                "as fast as they can" if item["offered"] is None else f"{item['offered']:.0f}",
                f"{item['rate']:,.0f}",
                f"{1e6 * item['seconds_per_image']:.0f}",
                f"{1 / item['seconds_per_image']:,.0f}",
            ]
            for item in situations
        ),
    )
