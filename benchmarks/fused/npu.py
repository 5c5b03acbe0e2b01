"""Maps of bundles with fixed shapes on Qualcomm's NPU, which `onnxruntime-qnn` emulates, beside the CPU's in float32.

The shipped model is explained on drawings that training never saw; SqueezeNet, where its weights are, on photographs.
Without `onnxruntime-qnn` the precisions are compared on the CPU alone. Results go to benchmarks/results/npu.md and
.json. Run as `python -m benchmarks.fused.npu`.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.common.arguments import add_keep, add_output, say, whole_number
from benchmarks.common.fidelity import calibration_folder, pearson
from benchmarks.common.figures import Figure, median, table
from benchmarks.common.machine import describe_run, run_in_words
from benchmarks.common.results import ROOT, earlier_models, write_results, write_text
from benchmarks.common.subjects import SUBJECTS, bundle_path, photographs

SHAPES, SQUEEZENET = "shapes", "squeezenet1_1"
MODELS: Final = (SHAPES, SQUEEZENET)
PRECISIONS: Final = ("int8", "qnn")
BATCH: Final = 8
CHIP: Final = "57"  # a Snapdragon 8 Gen 3, whose NPU is of the generation v75
CALIBRATION: Final = 12
PICTURES_AT_MOST: Final = 4  # none of which is among those that integers are calibrated on
IMAGES: Final = f"pictures, at most {PICTURES_AT_MOST} (default: 1)"
FLOAT32: Final = "float32"
GRADIENT: Final = "grad-cam"
METHODS: Final = ("scorecam", "scorecam++", GRADIENT)
# Graphs that are opened to see what the provider takes; the other scorers differ from these in their gate alone.
GRAPHS: Final = ("features", "head", "gradient", "scorer-linear", "scorer-softsign", "scorer-linear-qnn")

# Which nodes a provider takes, as ONNX Runtime itself says; in a process of its own.
ASSIGNED: Final = """
import json, sys
import onnxruntime, onnxruntime_qnn
name = "QNNExecutionProvider"
onnxruntime.register_execution_provider_library(name, onnxruntime_qnn.get_library_path())
devices = [item for item in onnxruntime.get_ep_devices() if item.ep_name == name]
options = onnxruntime.SessionOptions()
options.log_severity_level = 3
options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
options.add_provider_for_devices(
    devices[:1], {"backend_path": onnxruntime_qnn.get_qnn_htp_path(), "soc_model": sys.argv[2]}
)
session = onnxruntime.InferenceSession(sys.argv[1], options)
parts = [(part.ep_name, [n.op_type for n in part.get_nodes()]) for part in session.get_provider_graph_assignment_info()]
taken = [operators for provider, operators in parts if provider == name]
left = [operator for provider, operators in parts if provider != name for operator in operators]
print(json.dumps({"partitions": len(taken), "left": left}))
"""

REPORT: Final = """\
# Qualcomm's NPU, emulated

Bundles of `ortcam export --static-batch {batch} --precision fp32,int8,qnn`, calibrated on {calibration} pictures.
Each map is of the most probable class. Those of masked methods are from the {budget} channels of the highest energy.
It is compared with the CPU's in float32, over {images}; a map's values are 0 to 1.{npu}

{maps}
{nodes}
{pictures}

{run}
"""
NODES: Final = """
What the provider takes, as `ortcam inspect --provider qnn` predicts it and as ONNX Runtime says once it is there:

{table}

"""
PICTURES: Final = {
    SHAPES: "The pictures of shapes, the shipped model, are drawings that its training never saw.",
    SQUEEZENET: "The pictures of squeezenet1_1 are photographs.",
}
WITH_NPU: Final = f"""\
 The NPU is that of
`soc_model={CHIP}`. The library of `onnxruntime-qnn` emulates it on this machine's CPU, so nothing here says how fast a
chip is."""
NO_NPU: Final = "\n`onnxruntime-qnn` was not installed: all of this ran on the CPU."


def bundle_of(model: str, folder: Path) -> Path:
    """The bundle of a model with fixed shapes; exported where the folder has none."""
    from ortcam_export import export

    folder = folder / f"static-{BATCH}"
    path = folder / f"{SHAPES}.ortcam" if model == SHAPES else bundle_path(folder, model)
    if path.is_dir():
        return path
    say(f"{model}: exporting")
    folder.mkdir(parents=True, exist_ok=True)
    if model == SHAPES:
        source = ROOT / "models" / SHAPES
        return export(
            "shufflenet_v2_x0_5",
            path,
            checkpoint=source / "shapes.pth",
            labels=source / "labels.txt",
            resize=224,
            precision=PRECISIONS,
            static_batch=BATCH,
        ).path
    with tempfile.TemporaryDirectory() as name:
        calibration = str(calibration_folder(Path(name), photographs(PICTURES_AT_MOST), count=CALIBRATION))
        return SUBJECTS[model].export(folder, precision=PRECISIONS, static_batch=BATCH, calibration=calibration)


def pictures(model: str, count: int) -> list[Any]:
    """What a model is explained on."""
    if model != SHAPES:
        return [item.path for item in photographs(PICTURES_AT_MOST)][:count]
    sys.path.append(str(ROOT / "models"))
    from shapes.evaluate import single_scenes

    return [scene.image for scene in single_scenes(count)]


def explained(explainer: Any, images: Sequence[Any], method: str, budget: int) -> list[Any]:
    """The map of each picture."""
    more = {} if method == GRADIENT else {"budget": budget, "completion": "none"}
    return [explainer.explain(image, method=method, **more).maps[0] for image in images]


def measure_maps(model: str, bundle: Path, settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Maps of each place, precision and method beside those of the CPU in float32."""
    import ortcam

    images, budget = pictures(model, settings["images"]), settings["budget"]
    reference = ortcam.load(bundle, providers=["cpu"])
    expected = {method: explained(reference, images, method, budget) for method in METHODS}
    places: dict[str, tuple[list[Any], tuple[str, ...]]] = {"CPU": (["cpu"], PRECISIONS)}
    if settings["npu"]:
        places["NPU"] = [("qnn", {"soc_model": CHIP}), "cpu"], (FLOAT32, "qnn")
    for place, (providers, precisions) in places.items():
        for precision in precisions:
            explainer = ortcam.load(bundle, providers=providers, precision=precision, strict_providers=True)
            for method in METHODS:
                if method == GRADIENT and precision != FLOAT32:
                    continue  # it runs no scorer
                say(f"{model}: {method}, {place}, {precision}")
                found = explained(explainer, images, method, budget)
                pairs = [*zip(found, expected[method], strict=True)]
                yield {
                    "model": model,
                    "what": f"{method}, {place}, {precision}",
                    "pearson": [pearson(a, b) for a, b in pairs],
                    "apart": [float(abs(a - b).max()) for a, b in pairs],
                }


def measure_nodes(model: str, bundle: Path) -> Iterator[dict[str, Any]]:
    """What the provider takes of each graph: predicted, and found."""
    from ortcam.bundle import read_bundle
    from ortcam_export import inspect_provider

    support = {Path(graph.graph).stem: graph for graph in inspect_provider(read_bundle(bundle), "qnn").graphs}
    for name in GRAPHS:
        if name not in support:
            continue
        say(f"{model}: opening {name}.onnx on the NPU")
        command = [sys.executable, "-c", ASSIGNED, str(bundle / f"{name}.onnx"), CHIP]
        told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        found = json.loads(told.splitlines()[-1])
        refused = [operator for (operator, _), count in support[name].refused.items() for _ in range(count)]
        yield {
            "model": model,
            "graph": name,
            "predicted": {"partitions": support[name].partitions, "left": refused},
            "found": found,
        }


def in_words(taken: dict[str, Any]) -> str:
    """Partitions, and the nodes that are left for the CPU."""
    left = ", ".join(f"{name} ({count})" for name, count in sorted(Counter(taken["left"]).items()))
    return f"{taken['partitions']}, without {left}" if left else f"{taken['partitions']}, all nodes"


def figures(models: dict[str, Any]) -> Iterator[Figure]:
    """What a committed result keeps."""
    for found in models.values():
        for item in found["maps"]:
            yield Figure(f"{item['model']} / {item['what']} / Pearson", "Pearson", tuple(item["pearson"]), "higher")
            yield Figure(f"{item['model']} / {item['what']} / difference", "", tuple(item["apart"]))


def render(models: dict[str, Any], settings: dict[str, Any], run: dict[str, Any]) -> str:
    """The page."""
    ordered = [models[name] for name in MODELS if name in models]
    maps = []
    for item in (item for found in ordered for item in found["maps"]):
        likeness = [f"{figure(item['pearson']):.5f}" for figure in (median, min)]
        maps.append([item["model"], item["what"], *likeness, f"{max(item['apart']):.4f}"])
    nodes = [
        [item["model"], item["graph"], in_words(item["predicted"]), in_words(item["found"])]
        for found in ordered
        for item in found["nodes"]
    ]
    partitions = table(["model", "graph", "partitions, predicted", "found"], nodes)
    return REPORT.format(
        batch=BATCH,
        calibration=CALIBRATION,
        npu=WITH_NPU if settings["npu"] else NO_NPU,
        budget=settings["budget"],
        images=f"{settings['images']} picture{'' if settings['images'] == 1 else 's'}",
        maps=table(["model", "map", "Pearson, median", "least", "largest difference"], maps),
        nodes=NODES.format(table=partitions) if nodes else "",
        pictures=" ".join(PICTURES[name] if name in models else f"Not measured: {name}." for name in MODELS),
        run=run_in_words(
            run, f"CPU, and the NPU as onnxruntime-qnn {settings['npu']} emulates it" if settings["npu"] else "CPU"
        ),
    )


def main(arguments: Sequence[str]) -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, metavar="NAME", help=", ".join(MODELS))
    parser.add_argument(
        "--images", type=whole_number, choices=range(1, PICTURES_AT_MOST + 1), default=1, metavar="N", help=IMAGES
    )
    parser.add_argument("--budget", type=whole_number, default=8, metavar="N", help="channels (default: 8)")
    parser.add_argument("--bundles", type=Path, metavar="FOLDER", help="keep the exported bundles here, and use them")
    add_keep(parser)
    add_output(parser, "npu")
    options = parser.parse_args(arguments)
    run = describe_run("benchmarks.fused.npu", arguments)
    there = importlib.util.find_spec("onnxruntime_qnn") is not None
    npu = importlib.metadata.version("onnxruntime-qnn") if there else None
    settings = {"images": options.images, "budget": options.budget, "npu": npu}
    measured = {}
    with tempfile.TemporaryDirectory() as name:
        for model in options.models:
            bundle = bundle_of(model, options.bundles or Path(name))
            maps = [*measure_maps(model, bundle, settings)]
            measured[model] = {"maps": maps, "nodes": [*measure_nodes(model, bundle)] if npu else []}
    models = (earlier_models(options.output, run, settings) if options.keep else {}) | measured
    text = render(models, settings, run)
    write_results(options.output, run=run, raw={"settings": settings, "models": models}, figures=list(figures(models)))
    write_text(options.output.with_suffix(".md"), text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
