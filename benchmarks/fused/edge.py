"""A fused explainer on a small device: one thread, the smallest memory settings, onnxruntime and numpy alone.

The shipped classifier is exported with int8 scorers, fused, and every file is run in a process of its own that knows
nothing of ortcam (on Linux, which tells a process its peak memory). Time is the median of the repeats; memory is the
largest resident size of the process less that of one that only imports. Results go to benchmarks/results/edge.md and
.json. Run as `python -m benchmarks.fused.edge`.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from benchmarks.common.arguments import add_output, say, whole_number
from benchmarks.common.figures import Figure, median, table
from benchmarks.common.machine import describe_run, run_in_words
from benchmarks.common.results import ROOT, write_results, write_text

MODELS: Final = ROOT / "models"
IMAGE: Final = MODELS / "shapes" / "samples" / "mug-umbrella.png"

# What a user of the file would write, on a device with little memory.
PROCESS: Final = """
import json, pathlib, re, sys, time
import numpy, onnxruntime

def resident():  # getrusage would remember the process that this one was forked from
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]) / 1024

before = resident()
path, image, repeats = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
options.enable_cpu_mem_arena = options.enable_mem_pattern = False
clock = time.perf_counter()
session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
opened = time.perf_counter() - clock
inputs = {"image": numpy.load(image)}
seconds = []
for _ in range(int(repeats)):
    clock = time.perf_counter()
    saliency, targets = session.run(["saliency", "targets"], inputs)
    seconds.append(time.perf_counter() - clock)
print(json.dumps({"opened": opened, "seconds": seconds, "memory": resident() - before, "import": before,
                  "target": int(targets[0]), "saliency": saliency[0, ::8, ::8].ravel().tolist()}))
"""

REPORT: Final = """\
# A fused explainer on one thread

The shipped classifier (ShuffleNetV2 x0.5, 1024 channels), fused with `--uint8-input`, ScoreCAM++, for one class of
[the image](../../models/shapes/samples/mug-umbrella.png), 320 x 240 pixels; one thread, memory arena and memory
patterns off, a process of its own with onnxruntime and numpy alone. Seconds are medians of {repeats} runs; memory is
the peak beyond the {imported:.0f} MB that a process has which only imports the two.

{table}

int8 is calibrated on the drawings that ship with ortcam. Pearson is that of the map with the first row's.

{run}
"""


@dataclasses.dataclass(frozen=True)
class Setting:
    """A file: what is fused, and how."""

    title: str
    precision: str
    budget: float | None
    batch_size: int


SETTINGS: Final = tuple(
    Setting(
        f"{precision}, {'all channels' if budget is None else f'{budget:.0%} of the channels'}, {size} at a time",
        precision,
        budget,
        size,
    )
    for precision in ("float32", "int8")
    for budget, size in ((None, 1), (None, 8), (0.25, 1))
)


def measure(repeats: int) -> list[dict[str, Any]]:
    """Run every setting; one dictionary each."""
    from ortcam.images.reading import read_image
    from ortcam_export import export, fuse

    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "image.npy", read_image(IMAGE))
        say("exporting with int8")
        bundle = export(
            "shufflenet_v2_x0_5",
            folder / "shapes.ortcam",
            checkpoint=MODELS / "shapes" / "shapes.pth",
            labels=MODELS / "shapes" / "labels.txt",
            resize=224,
            precision=["int8"],
        )
        for setting in SETTINGS:
            say(setting.title)
            fused = fuse(
                bundle,
                folder / "explainer.onnx",
                uint8_input=True,
                precision=setting.precision,
                budget=setting.budget,
                batch_size=setting.batch_size,
                verify=False,
                force=True,
            )
            command = [sys.executable, "-c", PROCESS, str(fused.path), str(folder / "image.npy"), str(repeats)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found.append(dataclasses.asdict(setting) | {"size": fused.size} | json.loads(done.stdout))
    return found


def main(arguments: Sequence[str]) -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=whole_number, default=5, metavar="N")
    add_output(parser, "edge")
    options = parser.parse_args(arguments)
    run = describe_run("benchmarks.fused.edge", arguments)
    found = measure(options.repeats)
    rows = [
        [
            item["title"],
            f"{item['size'] / 1e6:.1f}",
            f"{item['opened']:.2f}",
            f"{median(item['seconds']):.2f}",
            f"{item['memory']:.0f}",
            f"{np.corrcoef(item['saliency'], found[0]['saliency'])[0, 1]:.4f}",
        ]
        for item in found
    ]
    text = REPORT.format(
        repeats=options.repeats,
        imported=median([item["import"] for item in found]),
        table=table(["file", "MB", "opened, s", "explained, s", "peak memory, MB", "Pearson"], rows),
        run=run_in_words(run, "CPU, 1 thread"),
    )
    figures = [
        figure
        for item in found
        for figure in (
            Figure(f"{item['title']} / explained", "s", tuple(item["seconds"]), "lower"),
            Figure(f"{item['title']} / peak memory", "MB", (item["memory"],), "lower"),
        )
    ]
    write_results(options.output, run=run, raw={"files": found}, figures=figures)
    write_text(options.output.with_suffix(".md"), text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
