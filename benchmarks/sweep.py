"""Export every torchvision classifier with random weights and no layer given; write one table of what came out.

    python -m benchmarks.sweep [--models NAME ...] [--output benchmarks/results/sweep]

Each model is exported in a process of its own. One that is in the table already, made by the same versions, is not
exported again, so a sweep that was stopped goes on where it was; `--again` exports what is named all the same.
"""

import argparse
import importlib.metadata
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torchvision
from benchmarks.common.figures import Figure
from benchmarks.common.machine import RAW, describe_run
from benchmarks.common.results import read_raw, write_results, write_text
from tqdm import tqdm

from ortcam.bundle import Bundle
from ortcam_export import export

TOOLS = ("torch", "torchvision", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "numpy")
SECONDS_A_MODEL = 3600


def main() -> None:
    """Run the sweep, or with --one export a single model and print what came out as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", metavar="NAME", help="default: all of torchvision's classifiers")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/sweep"), help="stem of .md and .json")
    parser.add_argument("--again", action="store_true", help="also models that are in the table already")
    parser.add_argument("--one", metavar="NAME", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one)))
        return
    names = options.models or torchvision.models.list_models(module=torchvision.models)
    results = _earlier(options.output)
    for name in tqdm([name for name in names if options.again or name not in results], unit="model"):
        results[name] = _in_a_process(name)
        _write(options.output, [results[key] for key in sorted(results)])


def measure(name: str) -> dict[str, Any]:
    """Export a model and say what came out: layer, maps, parity, time, size."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        bundle = export(name, Path(folder) / f"{name}.ortcam", weights="none")
        seconds = time.perf_counter() - started
        manifest = bundle.manifest
        cut = manifest.cut
        return {
            "model": name,
            "input": [manifest.preprocessing.height, manifest.preprocessing.width],
            "layer": cut.module,
            "tensor": cut.tensor,
            "layout": cut.layout,
            "maps": [cut.channels, cut.height, cut.width],
            "parity": manifest.parity.logits,
            "scorer_parity": manifest.parity.scorer,
            "seconds": round(seconds, 1),
            "bytes": sum(record.size for record in manifest.files.values()),
            "nodes": _nodes(bundle),
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }


def _nodes(bundle: Bundle) -> int:
    graphs = bundle.manifest.graphs
    halves = [name for name in (graphs.features, graphs.head) if name is not None]
    return sum(len(ir.load(bundle.file(name)).graph) for name in halves)


def _in_a_process(name: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.sweep", "--one", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_A_MODEL, check=False)
    except subprocess.TimeoutExpired:
        return {"model": name, "error": f"took longer than {SECONDS_A_MODEL} s"}
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"]
        return {"model": name, "error": lines[-1]}
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def _versions() -> dict[str, str]:
    return {tool: importlib.metadata.version(tool) for tool in TOOLS} | {"python": platform.python_version()}


def _earlier(stem: Path) -> dict[str, dict[str, Any]]:
    """The models of a table that the same versions made; those with an error are tried again."""
    table = read_raw(stem)
    if not table or table["versions"] != _versions():
        return {}
    return {entry["model"]: entry for entry in table["models"] if "error" not in entry}


def _write(stem: Path, entries: Sequence[dict[str, Any]]) -> None:
    run = describe_run("benchmarks.sweep", sys.argv[1:]) | {"versions": _versions()}
    write_results(stem, run=run, raw={"models": list(entries)}, figures=figures(entries))
    write_text(stem.with_suffix(".md"), _markdown(run, entries))


def figures(entries: Sequence[Mapping[str, Any]]) -> Iterator[Figure]:
    """What does not vary from run to run: the size of a bundle, and the nodes of its features and head."""
    for entry in entries:
        if "error" not in entry:
            yield Figure(f"{entry['model']} / bundle", "B", (entry["bytes"],))
            yield Figure(f"{entry['model']} / nodes", "nodes", (entry["nodes"],))


def _markdown(run: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> str:
    good = [entry for entry in entries if "error" not in entry]
    parity = (
        "Parity is max |difference| / max |logit| on two images: of head(features(x)) to the PyTorch model, and of "
        "the nine scorers to head(features(mask * x)). Nodes are those of features and head together."
    )
    machine = f"Machine: {run['machine']['cpu']}, {run['machine']['cores']} cores"
    machine += "; other work ran on it, so seconds say no more than the order."
    lines = [
        "# Every torchvision classifier, exported",
        "",
        f"{len(good)} of {len(entries)} models export, split and pass their parity check with no layer given.",
        "Random weights (also for the ViT heads that torchvision leaves at zero), input size of the default weights.",
        f"Written by `make sweep`. {RAW}.",
        "",
        f"Versions: {', '.join(f'{tool} {version}' for tool, version in run['versions'].items())}.",
        "",
        machine,
        "",
        parity,
        "",
        "In a random EfficientNet, MNASNet, MobileNet or small ShuffleNet the image fades on its way: where the parity",
        "of the scorers is below 1e-8, masked images give the same logits to that many digits, and it says little.",
        "",
        "| model | input | default layer | maps [C,h,w] | layout | parity | scorers | export s | bundle MB | nodes |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for entry in entries:
        if "error" in entry:
            lines.append(f"| {entry['model']} | | **fails:** {entry['error']} | | | | | | | |")
            continue
        height, width = entry["input"]
        layer = f"`{entry['layer']}`" if entry["layer"] else f"tensor `{entry['tensor']}`"
        maps = ",".join(map(str, entry["maps"]))
        cells = [
            entry["model"],
            f"{height} x {width}",
            layer,
            f"[{maps}]",
            entry["layout"],
            f"{entry['parity']:.1e}",
            f"{entry['scorer_parity']:.1e}",
            f"{entry['seconds']:.0f}",
            f"{entry['bytes'] / 1e6:.0f}",
            str(entry["nodes"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
