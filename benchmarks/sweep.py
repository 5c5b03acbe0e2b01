"""Export every torchvision classifier with random weights and no layer given; write one table of what came out.

    python -m benchmarks.sweep [--models NAME ...] [--output benchmarks/results/sweep]
    python -m benchmarks.sweep --gradients [--models NAME ...]

With --gradients nothing is exported: each model is cut at its default layer, its head is differentiated, and the
gradient is measured, all in one process. These cells of the table are filled in, and the others stay as they are; the
raw numbers of the exports are not needed.

Otherwise each model is exported in a process of its own. One that is in the table already, made by the same versions,
is not measured again, so a sweep that was stopped goes on where it was. `--again` measures what is named all the same.
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

from ortcam.bundle import Bundle, Gradient
from ortcam_export import export
from ortcam_export.errors import ExportError
from ortcam_export.gradients import try_gradient

TOOLS = ("torch", "torchvision", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "numpy")
SECONDS_A_MODEL = 3600
ABOUT_GRADIENTS = "Gradients:"
COLUMNS = (
    *("model", "input", "default layer", "maps [C,h,w]", "layout", "parity", "scorers"),
    *("gradient", "autograd", "gradient takes", "export s", "bundle MB", "nodes"),
)
GRADIENT = slice(COLUMNS.index("gradient"), COLUMNS.index("export s"))


def main() -> None:
    """Run the sweep, or with --one export a single model and print what came out as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", metavar="NAME", help="default: all of torchvision's classifiers")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/sweep"), help="stem of .md and .json")
    parser.add_argument("--again", action="store_true", help="also models that are in the table already")
    parser.add_argument("--gradients", action="store_true", help="measure the gradients alone; exports nothing")
    parser.add_argument("--one", metavar="NAME", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one)))
        return
    names = options.models or torchvision.models.list_models(module=torchvision.models)
    run = describe_run("benchmarks.sweep", sys.argv[1:]) | {"versions": tool_versions()}
    if options.gradients:
        _fill_in_gradients(options.output.with_suffix(".md"), names, run, again=options.again)
        return
    results = _earlier(options.output)
    for name in tqdm([name for name in names if options.again or name not in results], unit="model"):
        results[name] = _in_a_process(name)
        _write(options.output, run, [results[key] for key in sorted(results)])


def _fill_in_gradients(path: Path, names: Sequence[str], run: Mapping[str, Any], *, again: bool) -> None:
    """Measure gradients, and write each into its row of a table, which begins empty where there is none.

    Gradients that other versions gave are taken out first.
    """
    text = path.read_text("utf-8") if path.is_file() else _markdown(run, [])
    rows = {row[0]: row for row in map(_cells, text.splitlines()) if len(row) == len(COLUMNS)}
    heading, rule = rows.pop(COLUMNS[0]), rows.pop("---")
    before = text[: text.index("| " + " | ".join(heading))].rstrip().splitlines()
    about = next(place for place, line in enumerate(before) if line.startswith(ABOUT_GRADIENTS))
    if _measured_by(run["versions"]) not in before:
        for row in rows.values():
            row[GRADIENT] = ["", "", ""]
    for name in tqdm([name for name in names if again or not rows.get(name, [""] * len(COLUMNS))[GRADIENT][0]]):
        rows.setdefault(name, [name, *[""] * (len(COLUMNS) - 1)])[GRADIENT] = _gradient_cells(measure_gradient(name))
        lines = [*before[:about], *_about_gradients([row[GRADIENT][0] for row in rows.values()], run["versions"])]
        table = [f"| {' | '.join(row)} |" for row in (heading, *(rows[key] for key in sorted(rows)))]
        write_text(path, "\n".join([*lines, "", table[0], f"|{'---|' * len(rule)}", *table[1:]]) + "\n")


def _cells(line: str) -> list[str]:
    """Of a line of a Markdown table; of other lines something of another length."""
    return [cell.strip() for cell in line.strip("|").split("|")]


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
            "gradient": _gradient(manifest.gradient, manifest.no_gradient),
            "seconds": round(seconds, 1),
            "bytes": sum(record.size for record in manifest.files.values()),
            "nodes": _nodes(bundle),
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }


def measure_gradient(name: str) -> dict[str, Any]:
    """Differentiate a model's head and say how far its gradient is from central differences and from autograd."""
    try:
        trial = try_gradient(name)
    except ExportError as error:
        return {"error": str(error)}
    return _gradient(trial.gradient, trial.no_gradient)


def _gradient(gradient: Gradient | None, why: str | None) -> dict[str, Any]:
    if gradient is None:
        return {"error": why}
    parity = gradient.parity
    return {"inputs": list(gradient.inputs), "differences": parity.differences, "autograd": parity.autograd}


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


def tool_versions() -> dict[str, str]:
    """What a table depends on, and its version."""
    return {tool: importlib.metadata.version(tool) for tool in TOOLS} | {"python": platform.python_version()}


def _earlier(stem: Path) -> dict[str, dict[str, Any]]:
    """The models of a table made by the same versions; those with an error are tried again."""
    table = read_raw(stem)
    if not table or table["versions"] != tool_versions():
        return {}
    return {entry["model"]: entry for entry in table["models"] if "error" not in entry}


def _write(stem: Path, run: Mapping[str, Any], entries: Sequence[dict[str, Any]]) -> None:
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
        *_about_gradients([_gradient_cells(entry.get("gradient"))[0] for entry in good], run["versions"]),
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"|{'---|' * len(COLUMNS)}",
    ]
    for entry in entries:
        if "error" in entry:
            lines.append(f"| {entry['model']} | | **fails:** {entry['error']} {'| ' * (len(COLUMNS) - 3)}|")
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
            *_gradient_cells(entry.get("gradient")),
            f"{entry['seconds']:.0f}",
            f"{entry['bytes'] / 1e6:.0f}",
            str(entry["nodes"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _about_gradients(cells: Sequence[str], versions: Mapping[str, str]) -> list[str]:
    """What the columns on gradients mean, and how many models have one: a cell says how far it is off, or why none."""
    found = [cell for cell in cells if cell]
    good = sum(not cell.startswith("none") for cell in found)
    about = (
        "Gradient is max |g - d| / max |g| at the features of two images, for one class and for a difference of two, "
        "with d by central differences of the head in float64 at up to 32 elements each; autograd is the same at all "
        "elements, with PyTorch's gradient for d. Up to 1e-4 is accepted. Where the gradient takes nothing, the logits "
        "are affine in the features."
    )
    said = f"{good} of {len(found)} heads that were tried have a gradient graph that passes its check."
    return [f"{ABOUT_GRADIENTS} {said} {about}", _measured_by(versions)]


def _measured_by(versions: Mapping[str, str]) -> str:
    words = ", ".join(f"{tool} {version}" for tool, version in versions.items())
    return f"Measured by `python -m benchmarks.sweep --gradients` with {words}."


def _gradient_cells(gradient: Mapping[str, Any] | None) -> list[str]:
    if gradient is None:
        return ["", "", ""]
    if "error" in gradient:
        return [f"none: {gradient['error']}", "", ""]
    autograd = "" if gradient["autograd"] is None else f"{gradient['autograd']:.1e}"
    return [f"{gradient['differences']:.1e}", autograd, ", ".join(gradient["inputs"]) or "nothing"]


if __name__ == "__main__":
    main()
