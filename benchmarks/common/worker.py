"""One library in one process, for the benchmarks: load, explain once, then explain again whenever a line on stdin asks.

A line of JSON in, a line of JSON out; a request may name another photograph and target. The first line out follows the
first heatmap without being asked for, so that the parent can read the time of a cold start off its clock, and this
process its peak memory. What is imported is imported where it is used: a library must not pay for another.

The peers come in two forms. As their README shows them: the model and the input as torchvision gives them. At their
best settings (`-best`): the model in channels last, everything in inference mode, and the batch size with the fastest
forward passes; these prepare themselves in place of the first explanation, and a cold start is not measured.
"""

import argparse
import contextlib
import functools
import itertools
import json
import math
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.common.subjects import SIDE, SUBJECTS, Subject, bundle_path

if TYPE_CHECKING:
    import torch

# What the files that `prepare` leaves in the folder are called.
STATE_DICT = "model.pth"
CLASSIFIER = "classifier.onnx"

# Batch sizes that the peers' best settings choose from.
CANDIDATES = (8, 16, 32, 64)

# The method that a peer needs gradients for; it explains in one pass, so that no batch size is to be found.
GRADIENT = "grad-cam"

# What a library answers: arrays to be saved where the request names a file, and figures for the parent.
Answer = tuple[dict[str, Any], dict[str, Any]]
Explain = Callable[[dict[str, Any]], Answer]


def prepare(task: argparse.Namespace) -> Explain:
    """Write the same weights for everyone: a bundle, a state dict, and the classifier as one plain ONNX file."""
    import torch

    subject = _subject(task)
    module = subject.module()
    torch.save(module.state_dict(), task.folder / STATE_DICT)
    subject.export(task.folder, module=module, **task.export)
    torch.onnx.export(
        module,
        (torch.zeros(2, 3, SIDE, SIDE),),
        task.folder / CLASSIFIER,
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        input_names=["image"],
        output_names=["logits"],
        external_data=False,
        verbose=False,
    )
    return lambda _: ({}, {})


def ortcam_library(task: argparse.Namespace, method: str, batch_size: int | str) -> Explain:
    """`Explainer.explain`, the sessions opened by the first call."""
    import ortcam

    explainer = ortcam.load(bundle_path(task.folder, task.model), providers=["cpu"], threads=task.threads)

    def explain(request: dict[str, Any]) -> Answer:
        options: dict[str, Any] = {"batch_size": batch_size, **request.get("options", {})}
        if "samples" in request:
            options["num_samples"] = request["samples"]
        explanation = explainer.explain(
            task.photograph, method=method, target=request.get("targets", task.target), **options
        )
        stats = explanation.stats
        return (
            {"map": explanation.maps[0], "raw_map": explanation.raw_maps[0]},
            {
                "channels": stats.channels,
                "live_channels": stats.live_channels,
                "passes": stats.passes,
                "batch_size": stats.batch_size,
                "stages": stats.seconds_by_stage,
            },
        )

    return explain


def torch_cam(task: argparse.Namespace, *, best: bool) -> Explain:
    """torch-cam as the examples in the docstrings of its classes, tokens through its own `reshape_transform`."""
    if task.method == GRADIENT:
        return _torch_cam_gradients(task, best=best)
    import torch
    from torchcam.methods import ISCAM, SSCAM, ScoreCAM

    method = {"scorecam": ScoreCAM, "sscam": SSCAM, "iscam": ISCAM}[task.method]
    model, read_input = _torch_model(task, best=best)
    batch_size, figures = _batch_size(task, model, read_input, best=best)
    tokens = {"reshape_transform": reshape} if (reshape := _tokens_to_maps(_subject(task))) else {}

    def explain(request: dict[str, Any]) -> Answer:
        samples = {"num_samples": request["samples"]} if "samples" in request else {}
        with torch.inference_mode() if best else contextlib.nullcontext():
            input_tensor = read_input()
            with method(model, task.layer, batch_size=batch_size, **samples, **tokens) as cam_extractor:
                with torch.inference_mode():
                    out = model(input_tensor)
                (cam,) = cam_extractor(task.target, out)
        return {"map": cam.squeeze(0).numpy()}, dict(figures)

    return explain


def _torch_cam_gradients(task: argparse.Namespace, *, best: bool) -> Explain:
    """torch-cam's Grad-CAM; at its best settings without gradients of the weights."""
    from torchcam.methods import GradCAM

    model, read_input = _torch_model(task, best=best)
    extractor = GradCAM(model, task.layer, reshape_transform=_tokens_to_maps(_subject(task)))
    model.requires_grad_(not best)

    def explain(_: dict[str, Any]) -> Answer:
        out = model(read_input().requires_grad_(best))
        (cam,) = extractor(task.target, out)
        return {"map": cam.squeeze(0).numpy()}, {}

    return explain


def pytorch_grad_cam(task: argparse.Namespace, *, best: bool) -> Explain:
    """pytorch-grad-cam as its README: the object is made once and called for many images.

    Grad-CAM at its best settings goes without gradients of the weights.
    """
    import torch
    from pytorch_grad_cam import GradCAM, ScoreCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    has_gradients = task.method == GRADIENT
    model, read_input = _torch_model(task, best=best)
    model.requires_grad_(not (best and has_gradients))
    cam = (GradCAM if has_gradients else ScoreCAM)(
        model=model,
        target_layers=[model.get_submodule(task.layer)],
        reshape_transform=_tokens_to_maps(_subject(task)),
    )
    figures: dict[str, Any] = {}
    if not has_gradients:
        cam.batch_size, figures = _batch_size(task, model, read_input, best=best)

    def explain(_: dict[str, Any]) -> Answer:
        with torch.inference_mode() if best and not has_gradients else contextlib.nullcontext():
            image = read_input().requires_grad_(best and has_gradients)
            grayscale_cam = cam(input_tensor=image, targets=[ClassifierOutputTarget(task.target)])
        return {"map": grayscale_cam[0]}, dict(figures)

    return explain


def onnxruntime_forward(task: argparse.Namespace) -> Explain:
    """Bare forward passes of the classifier's ONNX file, on copies of the photograph, at the batch sizes asked for."""
    import numpy as np

    from ortcam.bundle import read_bundle
    from ortcam.engine.opening import SessionOptions
    from ortcam.engine.providers import resolve_providers
    from ortcam.engine.session import open_session
    from ortcam.images.reading import read_image

    session = open_session(task.folder / CLASSIFIER, SessionOptions(resolve_providers(["cpu"]), task.threads))
    image = read_bundle(bundle_path(task.folder, task.model)).manifest.preprocessing(read_image(task.photograph))

    def explain(request: dict[str, Any]) -> Answer:
        seconds = {}
        for size in request.get("batch_sizes", ()):
            batch = np.repeat(image, size, axis=0)
            run = functools.partial(session.run, {"image": batch}, ["logits"])
            seconds[size] = _seconds_an_image(run, size, images=request["images"])
        return {}, {"seconds_an_image": seconds}

    return explain


def head_and_gradient(task: argparse.Namespace) -> Explain:
    """Bare runs of the bundle's head and of its gradient graph, in turn, for one class of the photograph.

    On one thread, and timed by what that computed, which holds on a machine that does other things as well.
    """
    import numpy as np

    from ortcam.bundle import read_bundle
    from ortcam.engine.opening import SessionOptions
    from ortcam.engine.providers import resolve_providers
    from ortcam.engine.session import open_session
    from ortcam.images.reading import read_image

    bundle = read_bundle(bundle_path(task.folder, task.model))
    manifest = bundle.manifest
    gradient = manifest.gradient
    if gradient is None or manifest.graphs.head is None:
        raise SystemExit(f"{task.model}: {manifest.no_gradient or 'it has no head'}")
    options = SessionOptions(resolve_providers(["cpu"]), 1)
    head, backward, features = (
        open_session(bundle.path / name, options)
        for name in (manifest.graphs.head, gradient.graph, manifest.graphs.features)
    )
    image = manifest.preprocessing(read_image(task.photograph))
    values = {"image": image, "features": features.run({"image": image}, ["features"])[0]}
    seed = np.zeros_like(head.run(values, ["logits"])[0])
    seed[0, task.target] = 1

    def explain(request: dict[str, Any]) -> Answer:
        seconds: dict[str, list[float]] = {"head": [], "gradient": []}
        wanted = {
            "head": (head, {"features": values["features"]}, "logits"),
            "gradient": (backward, {"seed": seed, **{name: values[name] for name in gradient.inputs}}, "gradient"),
        }
        for _ in range(request.get("pairs", 1)):
            for name, (session, inputs, output) in wanted.items():
                start = time.thread_time()
                session.run(inputs, [output])
                seconds[name].append(time.thread_time() - start)
        return {}, {"graphs": {name: statistics.median(column) for name, column in seconds.items()}}

    return explain


def _subject(task: argparse.Namespace) -> Subject:
    return SUBJECTS[task.model]


def _torch_model(task: argparse.Namespace, *, best: bool) -> "tuple[Any, Callable[[], torch.Tensor]]":
    """The PyTorch model with its weights, and what reads the photograph with torchvision's transforms."""
    import torch
    from torchvision.io import decode_image
    from torchvision.models import ResNet18_Weights

    torch.set_num_threads(task.threads)
    layout = torch.channels_last if best else torch.preserve_format
    model = _subject(task).empty_module()
    model.load_state_dict(torch.load(task.folder / STATE_DICT, weights_only=True))
    model = model.to(memory_format=layout)
    preprocess = ResNet18_Weights.IMAGENET1K_V1.transforms()  # the recipe of all subjects

    def read_input() -> torch.Tensor:
        image: torch.Tensor = preprocess(decode_image(task.photograph)).unsqueeze(0)
        return image.to(memory_format=layout)

    return model, read_input


def _batch_size(
    task: argparse.Namespace, model: Any, read_input: "Callable[[], torch.Tensor]", *, best: bool
) -> tuple[int, dict[str, Any]]:
    """The batch size a peer runs with, and figures that say how it was found: the fastest of CANDIDATES, if `best`."""
    import torch

    if not best:
        return task.batch_size, {"batch_size": task.batch_size}
    seconds = {}
    with torch.inference_mode():
        for size in CANDIDATES:
            batch = read_input().expand(size, -1, -1, -1).contiguous(memory_format=torch.channels_last)
            seconds[size] = _seconds_an_image(functools.partial(model, batch), size, images=max(CANDIDATES))
    fastest = min(seconds, key=seconds.__getitem__)
    return fastest, {"batch_size": fastest, "seconds_an_image": seconds}


def _seconds_an_image(run: Callable[[], object], batch_size: int, *, images: int) -> float:
    """The mean over as many whole batches as the images need, after one to warm up.

    The mean, since the time of an explanation, to which it is held, is a sum.
    """
    run()
    batches = math.ceil(images / batch_size)
    start = time.perf_counter()
    for _ in range(batches):
        run()
    return (time.perf_counter() - start) / (batches * batch_size)


def _tokens_to_maps(subject: Subject) -> "Callable[[torch.Tensor], torch.Tensor] | None":
    """The `reshape_transform` of both peers, tokens [N,1+T,C] to maps [N,C,h,w], as in pytorch-grad-cam's README."""
    grid = subject.grid
    if grid is None:
        return None
    return lambda tokens: tokens[:, 1:].reshape(len(tokens), grid, grid, -1).permute(0, 3, 1, 2)


LIBRARIES: dict[str, Callable[[argparse.Namespace], Explain]] = {
    "prepare": prepare,
    "ortcam": lambda task: ortcam_library(task, task.method, task.batch_size),
    "ortcam-auto": lambda task: ortcam_library(task, task.method, "auto"),
    "ortcam-scorecam++": lambda task: ortcam_library(task, "scorecam++", task.batch_size),
    "torch-cam": lambda task: torch_cam(task, best=False),
    "torch-cam-best": lambda task: torch_cam(task, best=True),
    "pytorch-grad-cam": lambda task: pytorch_grad_cam(task, best=False),
    "pytorch-grad-cam-best": lambda task: pytorch_grad_cam(task, best=True),
    "onnxruntime-forward": onnxruntime_forward,
    "head-and-gradient": head_and_gradient,
}


def _peak_bytes() -> int:
    """The most of this process that was resident.

    Linux says it in /proc; its ru_maxrss would count the parent, whose memory a new process has until it executes.
    """
    with contextlib.suppress(OSError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    """Serve requests until stdin ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", choices=LIBRARIES)
    parser.add_argument("--model", required=True, choices=SUBJECTS)
    parser.add_argument("--layer", required=True, help="module path")
    parser.add_argument("--method", default="scorecam", choices=("scorecam", "sscam", "iscam", GRADIENT))
    parser.add_argument("--folder", type=Path, required=True, help="what prepare writes and the others read")
    parser.add_argument("--export", type=json.loads, default={}, help="more options of the export, as JSON")
    parser.add_argument("--photograph", required=True)
    parser.add_argument("--target", type=int, required=True, help="class index")
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    task = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is not an answer
    explain = LIBRARIES[task.library](task)
    # The methods that sample warm up with one sample: with all of them, a peer takes minutes to hours.
    first: dict[str, Any] = {"samples": 1} if task.method in ("sscam", "iscam") else {}
    is_warm = task.library.endswith("-best") and task.method != GRADIENT
    for request in itertools.chain([first], map(json.loads, sys.stdin)):
        task.photograph = request.get("photograph", task.photograph)
        task.target = request.get("target", task.target)
        # The best settings warmed up when they chose their batch size.
        seconds, cpu_seconds = [], []
        for _ in range(request.get("runs", 1)):
            start, cpu_start = time.perf_counter(), time.process_time()
            arrays, figures = ({}, {}) if request is first and is_warm else explain(request)
            seconds.append(time.perf_counter() - start)
            cpu_seconds.append(time.process_time() - cpu_start)
        figures["seconds"] = statistics.median(seconds)
        figures["cpu_seconds"] = statistics.median(cpu_seconds)
        figures["peak_bytes"] = _peak_bytes()
        if "save" in request:
            import numpy as np

            np.savez(request["save"], **arrays)
        print(json.dumps(figures), file=answers, flush=True)


if __name__ == "__main__":
    main()
