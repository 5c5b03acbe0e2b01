"""Small classifiers on one thread: what they take on a disk, in memory and in time, as bundle and as fused file.

Each model is exported, with random weights unless it is the shipped one, and fused with Score-CAM in each precision, as
ONNX and in ORT format. Each file runs in a process of its own: a bundle with ortcam's `low_memory`, a fused file with
onnxruntime and numpy alone. Seconds are those of the processor, which on one thread are those of an idle machine; other
work disturbs them little. Results go to benchmarks/results/edge-models.md and .json. Run as
`python -m benchmarks.fused.models`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from benchmarks.common.arguments import add_keep, add_output, say, whole_number
from benchmarks.common.figures import Figure, median, table
from benchmarks.common.machine import describe_run, run_in_words
from benchmarks.common.results import ROOT, earlier_models, write_results, write_text

if TYPE_CHECKING:
    from ortcam.bundle import Bundle

SHIPPED: Final = "shapes"
MODELS: Final = (SHIPPED, "squeezenet1_1", "mobilenet_v3_small", "efficientnet_b0")
PRECISIONS: Final = ("float32", "int8")
IMAGE: Final = ROOT / "models" / "shapes" / "samples" / "mug-umbrella.png"
BUDGET: Final = 0.1
ROUNDS: Final = 5

# What both scripts need; getrusage would remember the process that they were forked from.
_RESIDENT: Final = """
import json, pathlib, re, sys, time
def resident():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]) * 1024 / 1e6
path, image, repeats, budget = sys.argv[1:]
seconds = []
"""
RUNTIME: Final = (
    _RESIDENT
    + """
import ortcam
before = resident()
explainer = ortcam.load(path, threads=1, low_memory=True)
for _ in range(int(repeats) + 1):
    clock = time.process_time()
    found = explainer.explain(image, method="scorecam", budget=float(budget), completion="none")
    seconds.append(time.process_time() - clock)
print(json.dumps({"seconds": seconds[1:], "peak": resident(), "import": before, "passes": found.stats.passes}))
"""
)
FUSED: Final = (
    _RESIDENT
    + """
import numpy, onnxruntime
before = resident()
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
options.enable_cpu_mem_arena = options.enable_mem_pattern = False
session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
inputs = {"image": numpy.load(image)}
for _ in range(int(repeats) + 1):
    clock = time.process_time()
    session.run(["saliency"], inputs)
    seconds.append(time.process_time() - clock)
print(json.dumps({"seconds": seconds[1:], "peak": resident(), "import": before}))
"""
)

REPORT: Final = """\
# Small models on one thread

Score-CAM of one image of 320 x 240 pixels for one class, {budget:.0%} of the channels, one masked image at a time, one
thread, without ONNX Runtime's memory arena. Seconds are those of the processor, medians of {repeats} explanations after
the first in each of {rounds} processes, the forms of a model in turn; peak memory is that of the whole process, of
which {runtime:.0f} MB are there once ortcam is imported, and {fused:.0f} MB once onnxruntime and numpy alone are. A
megabyte is a million bytes.

{table}

`bundle` is the folder, with the scorers of all methods. The shipped model is `shapes`; the others have random weights,
which take the same time and memory. {notes}

{run}
"""
INT8: Final = """\
A bundle in int8 has both scorers, in float32 and in int8, which is calibrated on the shipped drawings. A fused file in
int8 is larger than one in float32: it has both, since the image that is not masked goes through it in float32."""


def bundle_of(model: str, folder: Path, precisions: Sequence[str]) -> Path:
    """The bundle of a model, with scorers in int8 where they are measured; exported where the folder has none."""
    from ortcam.bundle.shipped import bundle_path
    from ortcam_export import export

    others = [name for name in precisions if name != "float32"]
    if model == SHIPPED and not others:
        return bundle_path()
    bundle = folder / "-".join(["random", *others]) / f"{model}.ortcam"
    if bundle.is_dir():
        return bundle
    say(f"{model}: exporting")
    bundle.parent.mkdir(parents=True, exist_ok=True)
    if model != SHIPPED:
        return export(model, bundle, weights="none", precision=others).path
    shapes = ROOT / "models" / SHIPPED
    made = export(
        "shufflenet_v2_x0_5",
        bundle,
        checkpoint=shapes / "shapes.pth",
        labels=shapes / "labels.txt",
        resize=224,
        precision=others,
    )
    return made.path


def bundle_size(bundle: "Bundle", precision: str) -> int:
    """Bytes of the bundle's folder, without the scorers in other precisions than float32 and this one."""
    left_out = {file for other in bundle.precisions for file in bundle.files_of(other)}
    left_out -= {*bundle.files_of("float32"), *bundle.files_of(precision)}
    return sum(path.stat().st_size for path in bundle.path.iterdir() if path.name not in left_out)


def forms(model: str, bundles: Path, precisions: Sequence[str], folder: Path) -> Iterator[dict[str, Any]]:
    """Every form of a model, made in the folder: its words, its bytes, and the script, file and image that run it."""
    from ortcam.bundle import read_bundle
    from ortcam.images.reading import read_image
    from ortcam_export import fuse

    bundle = read_bundle(bundle_of(model, bundles, precisions))
    pixels = folder / "image.npy"
    np.save(pixels, read_image(IMAGE))
    for precision in precisions:
        script = RUNTIME.replace("low_memory=True", f"low_memory=True, precision={precision!r}")
        size = bundle_size(bundle, precision)
        yield {"form": f"bundle, {precision}", "size": size, "command": [script, str(bundle.path), str(IMAGE)]}
        for suffix in (".onnx", ".ort"):
            say(f"{model}: fusing {suffix}, {precision}")
            path = fuse(
                bundle,
                folder / f"{precision}{suffix}",
                method="scorecam",
                uint8_input=True,
                precision=precision,
                budget=BUDGET,
                batch_size=1,
                ort=suffix == ".ort",
                verify=False,
            ).path
            size = path.stat().st_size
            yield {"form": f"fused {suffix}, {precision}", "size": size, "command": [FUSED, str(path), str(pixels)]}


def measure(model: str, bundles: Path, precisions: Sequence[str], repeats: int) -> list[dict[str, Any]]:
    """Every form of a model, in turn, a process of its own in each round."""
    from ortcam.bundle import read_bundle

    channels = read_bundle(bundle_of(model, bundles, precisions)).manifest.cut.channels
    with tempfile.TemporaryDirectory() as name:
        made = [*forms(model, bundles, precisions, Path(name))]
        runs: list[list[dict[str, Any]]] = [[] for _ in made]
        for turn in range(ROUNDS):
            say(f"{model}: round {turn + 1} of {ROUNDS}")
            for form, found in zip(made, runs, strict=True):
                command = [sys.executable, "-c", *form["command"], str(repeats), str(BUDGET)]
                told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                found.append(json.loads(told))
    return [
        {"model": model, "channels": channels, "form": form["form"], "size": form["size"]}
        | {"seconds": [second for run in found for second in run["seconds"]]}
        | {name: median([run[name] for run in found]) for name in ("peak", "import")}
        for form, found in zip(made, runs, strict=True)
    ]


def rows(found: Sequence[dict[str, Any]]) -> Iterator[list[str]]:
    """Of the table."""
    for item in found:
        yield [
            f"{item['model']}, {item['channels']} channels",
            item["form"],
            f"{item['size'] / 1e6:.1f}",
            f"{item['peak']:.0f}",
            f"{median(item['seconds']):.2f}",
        ]


def figures(found: Sequence[dict[str, Any]]) -> Iterator[Figure]:
    """What a committed result keeps."""
    for item in found:
        name = f"{item['model']} / {item['form']}"
        yield Figure(f"{name} / size", "B", (item["size"],))
        yield Figure(f"{name} / peak memory", "MB", (item["peak"],))
        yield Figure(f"{name} / explained", "s", tuple(item["seconds"]))


def render(found: Sequence[dict[str, Any]], settings: dict[str, Any], run: dict[str, Any]) -> str:
    """The page."""
    measured = {item["model"] for item in found}
    missing = [name for name in MODELS if name not in measured]
    missing += [f"scorers in {name}" for name in PRECISIONS if name not in settings["precisions"]]
    notes = [f"Not measured: {', '.join(missing)}."] if missing else []
    notes += [INT8] if "int8" in settings["precisions"] else []
    return REPORT.format(
        budget=BUDGET,
        repeats=settings["repeats"],
        rounds=settings["rounds"],
        runtime=median([item["import"] for item in found if "bundle" in item["form"]]),
        fused=median([item["import"] for item in found if "fused" in item["form"]]),
        table=table(["model", "form", "MB", "peak memory, MB", "explained, s"], list(rows(found))),
        notes=" ".join(notes),
        run=run_in_words(run, "CPU, 1 thread"),
    )


def main(arguments: Sequence[str]) -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, metavar="NAME", help=", ".join(MODELS))
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS, help="(default: both)")
    parser.add_argument("--repeats", type=whole_number, default=3, metavar="N", help="explanations (default: 3)")
    parser.add_argument("--bundles", type=Path, metavar="FOLDER", help="keep the exported bundles here, and use them")
    add_keep(parser)
    add_output(parser, "edge-models")
    options = parser.parse_args(arguments)
    run = describe_run("benchmarks.fused.models", arguments)
    settings = {"precisions": options.precisions, "repeats": options.repeats, "rounds": ROUNDS, "budget": BUDGET}
    measured = {}
    with tempfile.TemporaryDirectory() as name:
        for model in options.models:
            measured[model] = measure(model, options.bundles or Path(name), options.precisions, options.repeats)
    models = earlier_models(options.output, run, settings) if options.keep else {}
    models |= measured
    found = [item for model in MODELS for item in models.get(model, ())]
    text = render(found, settings, run)
    write_results(options.output, run=run, raw={"settings": settings, "models": models}, figures=list(figures(found)))
    write_text(options.output.with_suffix(".md"), text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
