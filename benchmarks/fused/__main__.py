"""A fused file against `Explainer.explain` with the same settings: time, and how far apart the maps are.

Both are run in turn in one process, with the same batch size and threads, on a photograph after the other; the ratio is
the median over the pairs. Results go to benchmarks/results/fused.md and .json. Run as `python -m benchmarks.fused`;
needs $ORTCAM_TEST_DATA.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from benchmarks.common.arguments import add_output, add_threads, say, whole_number
from benchmarks.common.figures import Figure, median, table
from benchmarks.common.machine import describe_run, run_in_words
from benchmarks.common.results import write_results, write_text
from benchmarks.common.subjects import SUBJECTS, WITH_WEIGHTS, missing_data, photographs

SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "scorecam": {"method": "scorecam"},
    "scorecam++": {"method": "scorecam++"},
    "iscam, 12 %": {"method": "iscam", "budget": 0.12},
    "sscam, 5 samples, 12 %": {"method": "sscam", "num_samples": 5, "budget": 0.12},
    "grad-cam": {"method": "grad-cam"},
    "grad-cam++": {"method": "grad-cam++"},
    "smooth-grad-cam++": {"method": "smooth-grad-cam++"},
}

REPORT: Final = """\
# A fused file against the runtime

Seconds of one explanation, preprocessed image in, for one class; medians, and the median of the ratios of the {repeats}
pairs. Difference: the largest of any pixel of any map. Budgets as `completion="none"` has them.
Beside the file's size that of what it takes the place of: features, head, one scorer and the weights of the bundle.

{table}

{run}
"""


def measure(model: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Time both on some photographs, method by method."""
    import onnxruntime

    import ortcam
    from ortcam.methods import METHODS
    from ortcam_export import fuse

    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        say(f"{model}: exporting")
        bundle = SUBJECTS[model].export(folder)
        explainer = ortcam.load(bundle, threads=options.threads, providers=["cpu"])
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = options.threads
        images = [explainer.read(item.path) for item in photographs()[: options.repeats]]
        for title, arguments in SETTINGS.items():
            say(f"{model}: {title}")
            masks = next(method for method in METHODS if method.name == arguments["method"]).masks_image
            limits: dict[str, Any] = {"completion": "none"} if masks else {}
            fused = fuse(
                bundle, folder / "e.onnx", batch_size=options.batch_size, verify=False, force=True, **arguments
            )
            session = onnxruntime.InferenceSession(fused.path, settings, providers=["CPUExecutionProvider"])
            seconds: dict[str, list[float]] = {"runtime": [], "fused": []}
            differences = []
            for place, image in enumerate([images[0], *images]):
                clock = time.perf_counter()
                explained = explainer.explain(image, batch_size=options.batch_size, **limits, **arguments)
                middle = time.perf_counter()
                (saliency,) = session.run(["saliency"], {"image": image.model_input})
                end = time.perf_counter()
                if place:  # the first warms both up
                    seconds["runtime"].append(middle - clock)
                    seconds["fused"].append(end - middle)
                    differences.append(float(np.abs(saliency - explained.maps).max()))
            row = {"model": model, "title": title, "size": fused.size, "seconds": seconds}
            found.append(row | {"bundle": _graphs_size(explainer), "difference": max(differences)})
    return found


def _graphs_size(explainer: Any) -> int:
    """Bytes of the bundle's features, head and one scorer with their weights, which one file takes the place of."""
    files = explainer.bundle.manifest.files
    return int(sum(files[name].size for name in ("features.onnx", "head.onnx", "scorer-linear.onnx", "weights.bin")))


def main(arguments: Sequence[str]) -> int:
    """Measure and write; 2 where the data are not there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--models", nargs="+", choices=WITH_WEIGHTS, default=["squeezenet1_1", "mobilenet_v2"], metavar="NAME"
    )
    parser.add_argument("--repeats", type=whole_number, default=5, metavar="N", help="photographs (default 5)")
    parser.add_argument("--batch-size", type=whole_number, default=8, metavar="N", help="default 8")
    add_output(parser, "fused")
    add_threads(parser)
    options = parser.parse_args(arguments)
    if missing := missing_data(options.models, real=True):
        say(missing)
        return 2
    run = describe_run("benchmarks.fused", arguments)
    found = [row for model in options.models for row in measure(model, options)]
    rows = [
        [
            row["model"],
            row["title"],
            *(f"{median(row['seconds'][side]):.3g}" for side in ("runtime", "fused")),
            f"{_ratio(row):.3f}",
            f"{row['difference']:.1e}",
            f"{row['size'] / 1e6:.1f}",
            f"{row['bundle'] / 1e6:.1f}",
        ]
        for row in found
    ]
    head = [
        "model",
        "method",
        "explain, s",
        "fused, s",
        "ratio",
        "difference",
        "file, MB",
        "of the bundle, MB",
    ]
    words = f"CPU, {options.threads} threads, {options.batch_size} masked images at a time"
    text = REPORT.format(repeats=options.repeats, table=table(head, rows), run=run_in_words(run, words))
    figures = [Figure(f"{row['model']} / {row['title']} / ratio", "", (_ratio(row),), "lower") for row in found]
    write_results(options.output, run=run, raw={"rows": found}, figures=figures)
    write_text(options.output.with_suffix(".md"), text)
    print(text)
    return 0


def _ratio(row: dict[str, Any]) -> float:
    seconds = row["seconds"]
    return median([fused / runtime for fused, runtime in zip(seconds["fused"], seconds["runtime"], strict=True)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
