"""Where the time of a scoring run goes, by operator, from ONNX Runtime's profiler: masking front and classifier.

A run of a scorer graph is the classifier with a front that makes the masked images and an end that reads the scores.
The profiler says what each operator took; whatever `ortcam/` is in the name of is front or end. Results go to
benchmarks/results/operators.md and .json. Run as `python -m benchmarks.operators`.
"""

import argparse
import collections
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from benchmarks.common.arguments import add_output, add_threads, say, whole_number
from benchmarks.common.figures import Figure, median, table
from benchmarks.common.machine import describe_run, run_in_words
from benchmarks.common.results import write_results, write_text
from benchmarks.common.subjects import SUBJECTS, WITH_WEIGHTS, missing_data, photograph

MODELS: Final = ("squeezenet1_1", "mobilenet_v2", "resnet18")
PHOTOGRAPH: Final = "val_0012.jpg"
KINDS: Final = {"Score-CAM": "linear", "ScoreCAM++": "tanh"}
OURS: Final = "front and end"
SHOWN: Final = 4

REPORT: Final = """\
# Where the time of a scoring run goes

Milliseconds a masked image, by operator, median of {settings[runs]} runs at batch {settings[batch_size]}. Front and end
are what a scorer adds to the classifier: pick channels, upsample, gate, multiply the image; read and sum the scores.

{run}
- Weights: described in the data folder's README.md; those of resnet18 are for non-commercial research

{details}
"""

# Milliseconds an image of each operator, a list over the runs.
Times = dict[str, list[float]]


def measure(name: str, kind: str, settings: Mapping[str, Any]) -> Times:
    """Profile one scorer on a photograph's own masks."""
    import ortcam
    from ortcam.methods import resolve_method
    from ortcam.scoring.masks import prepare_masks

    with tempfile.TemporaryDirectory(prefix="ortcam-operators-") as folder:
        bundle = SUBJECTS[name].export(Path(folder))
        explainer = ortcam.load(bundle, providers=["cpu"], threads=settings["threads"])
        shot = explainer.read(photograph(PHOTOGRAPH).path)
        plan = resolve_method("scorecam" if kind == "linear" else "scorecam++", {}).plan
        assert plan is not None  # both mask the image
        size = shot.model_input.shape[2:]
        masks = prepare_masks(explainer.features(shot), plan, height=size[0], width=size[1])
        count = settings["batch_size"]
        inputs = {
            "image": shot.model_input,
            "maps": masks.maps[None],
            "channels": masks.order[:count],
            "targets": np.array([photograph(PHOTOGRAPH).target]),
            "scale": np.ones(count, np.float32),
            "keep": np.ones(count, np.float32),
            "baseline": np.zeros(1, np.float32),
            "logit_softmax": np.array(False),
        }
        import onnxruntime as ort  # behind ortcam, which turns its telemetry off

        options = ort.SessionOptions()
        options.intra_op_num_threads = settings["threads"]
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = ort.InferenceSession(explainer.bundle.scorer(kind), options, providers=["CPUExecutionProvider"])
        taken = {item.name for item in session.get_inputs()}
        for _ in range(settings["runs"] + 1):
            session.run(None, {key: value for key, value in inputs.items() if key in taken})
        events = json.loads(Path(session.end_profiling()).read_text())
    return _by_operator(events, count)


def _by_operator(events: list[dict[str, Any]], count: int) -> Times:
    """Sum what the profiler recorded; the first run, which plans, is left out."""
    runs: list[collections.Counter[str]] = []
    current: collections.Counter[str] = collections.Counter()
    for event in sorted(events, key=lambda event: event["ts"] + event["dur"]):
        name = event["name"]
        if event.get("cat") == "Node" and name.endswith("_kernel_time"):
            current[OURS if name.startswith("ortcam/") else event["args"]["op_name"]] += event["dur"]
        elif name == "model_run":
            runs.append(current)
            current = collections.Counter()
    kept = runs[1:]
    operators = {operator for run in kept for operator in run}
    return {operator: [run[operator] / 1000 / count for run in kept] for operator in sorted(operators)}


def report(models: Mapping[str, Mapping[str, Times]], settings: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    """The page of results."""
    rows = []
    for name, methods in models.items():
        for method, times in methods.items():
            total = sum(median(values) for values in times.values())
            largest = sorted(times, key=lambda operator: -median(times[operator]))
            shown = [operator for operator in largest if operator != OURS][:SHOWN]
            parts = ", ".join(f"{operator} {median(times[operator]) / total:.1%}" for operator in shown)
            ours = median(times[OURS])
            rows.append((name, method, f"{total:.2f}", f"{ours:.3f} ({ours / total:.1%})", parts))
    words = f"photograph {PHOTOGRAPH}, float32, CPU provider, threads {settings['threads']}"
    return REPORT.format(
        settings=settings,
        run=run_in_words(run, words),
        details=table(("model", "method", "ms an image", OURS, "largest of the classifier"), rows),
    )


def main() -> int:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=WITH_WEIGHTS, default=MODELS, metavar="NAME")
    parser.add_argument("--batch-size", type=whole_number, default=4, help="masked images per run (%(default)s)")
    parser.add_argument("--runs", type=whole_number, default=30, help="of each scorer (default %(default)s)")
    add_threads(parser)
    add_output(parser, "operators")
    options = parser.parse_args()
    if missing := missing_data(options.models, real=True):
        print(missing, file=sys.stderr)
        return 2
    settings = {"batch_size": options.batch_size, "runs": options.runs, "threads": options.threads}
    run = describe_run("benchmarks.operators", sys.argv[1:])
    models: dict[str, dict[str, Times]] = {}
    for name in options.models:
        say(name)
        models[name] = {method: measure(name, kind, settings) for method, kind in KINDS.items()}
    figures = [
        Figure(f"{name} / {method} / {operator}", "s", tuple(value / 1000 for value in values))
        for name, methods in models.items()
        for method, times in methods.items()
        for operator, values in times.items()
        if operator in (OURS, "Conv")
    ]
    write_results(options.output, run=run, raw={"settings": settings, "models": models}, figures=figures)
    write_text(options.output.with_suffix(".md"), report(models, settings, run))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
