"""The study as Markdown, as a plot, and as figures."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.common.figures import Figure, median, table, with_quartiles
from benchmarks.common.machine import run_in_words

REPORT: Final = """\
# ortcam on a GPU

![Time of an explanation, and masked images a second](gpu.png)

Exact Score-CAM of one image with {model}, {channels} channels ({live} of them not flat), side {side}. Medians, in
brackets the quartiles, of {repeats} interleaved runs after two to warm up. Precisions are of the masked passes; float32
convolutions may use TF32, which is what PyTorch and ONNX Runtime do by default.

{run}
- GPU: {gpu}
- Not installed here: {missing}

## Checks

{checks}

## Aims

{aims}

## Time of an explanation

× is the time by that of ortcam in float32 with its automatic batch size.

{times}

## Images a second

Bare: the classifier alone, features and head through ONNX Runtime with nothing copied between them, or the module in
PyTorch. Explanation: masked images that were scored, by the time of the whole explanation.

{throughput}
"""


def aims(seconds: Mapping[str, Sequence[float]], live: int) -> Iterator[list[str]]:
    """What the project aims at on a GPU, beside what was measured."""
    ours = median(seconds["ortcam fp32"])
    fastest = min(median(values) for name, values in seconds.items() if name.startswith("ortcam fp"))
    for peer in ("torch-cam", "pytorch-grad-cam"):
        plain = f"{peer}, batch 32"
        if plain in seconds:
            theirs = median(seconds[plain])
            yield [f"× over {peer} as its README shows it, fp32", "at least 10", f"{theirs / ours:.1f}"]
            yield [f"× over {peer} as its README shows it, fastest precision", "-", f"{theirs / fastest:.1f}"]
        best = [median(values) for name, values in seconds.items() if name.startswith(peer) and "best" in name]
        if best:
            yield [f"× over {peer} at its best settings, fp32", "-", f"{min(best) / ours:.1f}"]
    half = [median(values) for name, values in seconds.items() if name.startswith("bare PyTorch fp16")]
    if half:
        share = live * min(half) / fastest
        yield ["masked images a second by the bare fp16 model's at its best batch", "at least 0.5", f"{share:.2f}"]
    single = [median(values) for name, values in seconds.items() if name.startswith("bare ONNX Runtime")]
    yield ["explanation by bare passes, fp32", "at most 1.10", f"{ours / (live * min(single)):.3f}"]
    if "ortcam fp32, ten classes" in seconds:
        yield ["ten classes by one", "at most 1.02", f"{median(seconds['ortcam fp32, ten classes']) / ours:.3f}"]


def report(raw: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    seconds, live = raw["seconds"], raw["live"]
    base = median(seconds["ortcam fp32"])
    explanations = [name for name in seconds if not name.startswith("bare")]
    times = [
        [name, with_quartiles([1e3 * s for s in seconds[name]], 1), f"{median(seconds[name]) / base:.2f}"]
        for name in explanations
    ]
    times += [[failure.partition(": ")[0], failure.partition(": ")[2], "-"] for failure in raw["failed"]]
    throughput = [[name, f"{1 / median(values):.0f}"] for name, values in seconds.items() if name.startswith("bare")]
    throughput += [[name, f"{live / median(seconds[name]):.0f}"] for name in explanations if name.startswith("ortcam")]
    return REPORT.format(
        **{key: raw[key] for key in ("model", "channels", "live", "side", "gpu")},
        repeats=raw["repeats"],
        missing=", ".join(raw["missing"]) or "nothing",
        run=run_in_words(run, f"provider {raw['provider']}, precisions {', '.join(raw['precisions'])}"),
        checks=table(["check", "outcome", ""], [[c["name"], c["outcome"], c["detail"]] for c in raw["checks"]]),
        aims=table(["what", "target", "measured"], aims(seconds, live)),
        times=table(["what", "ms", "×"], times),
        throughput=table(["what", "images a second"], throughput),
    )


def plot(raw: Mapping[str, Any], path: Path) -> None:
    """Left: times of explanations at the automatic or default batch; right: images a second by batch size."""
    from benchmarks.common.plots import COLOURS, panels, plain_numbers, save, style

    seconds, live = raw["seconds"], raw["live"]
    figure, (left, right) = panels(2, columns=2, size=(6.4, 4.6))
    shown = [
        name
        for name in seconds
        if not name.startswith("bare") and (", batch" not in name or not name.startswith("ortcam"))
    ]
    left.scatter(
        [1e3 * median(seconds[name]) for name in shown],
        range(len(shown)),
        color=[COLOURS[0] if name.startswith("ortcam") else COLOURS[1] for name in shown],
    )
    left.set_yticks(range(len(shown)), shown, fontsize=8)
    left.set_ylim(len(shown) - 0.5, -0.5)
    left.set_xscale("log")
    plain_numbers(left.xaxis)
    left.set_xlabel("time of an explanation, ms (logarithmic)")
    series: dict[str, dict[int, float]] = {}
    for name, values in seconds.items():
        label, found, size = name.partition(", batch ")
        if found and size.isdecimal() and label.startswith(("bare", "ortcam")):
            images = 1 if label.startswith("bare") else live
            series.setdefault(label, {})[int(size)] = images / median(values)
    for index, (label, points) in enumerate(series.items()):
        right.plot(list(points), list(points.values()), label=label, linewidth=1.4, **style(index))
    sizes = sorted({size for points in series.values() for size in points})
    right.set_xscale("log")
    right.set_xticks(sizes, [str(size) for size in sizes])
    right.minorticks_off()
    right.set_ylim(bottom=0)
    right.set_xlabel("batch size")
    right.set_ylabel("images a second")
    right.legend(frameon=False, fontsize=8)
    save(figure, path)


def figures(seconds: Mapping[str, Sequence[float]]) -> Iterable[Figure]:
    """What is compared between commits."""
    for name, values in seconds.items():
        unit = "s an image" if name.startswith("bare") else "s"
        yield Figure(name, unit, tuple(values))
