"""One library in one process, for compare.py: load, explain once, then explain again whenever a line on stdin asks.

A line of JSON in, a line of JSON out. The first line out follows the first heatmap without being asked for, so that the
parent can read the time of a cold start off its clock, and this process its peak memory. What is imported is imported
where it is used: a library must not pay for another.
"""

import argparse
import itertools
import json
import math
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# What the files that `prepare` leaves in the folder are called.
BUNDLE = "model.ortcam"
STATE_DICT = "model.pth"
CLASSIFIER = "classifier.onnx"

# ru_maxrss counts KiB on Linux, bytes on macOS.
_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024

# What a library answers: arrays to be saved where the request names a file, and figures for the parent.
Answer = tuple[dict[str, Any], dict[str, Any]]
Explain = Callable[[dict[str, Any]], Answer]


def prepare(task: argparse.Namespace) -> Explain:
    """Write the same weights for everyone: a bundle, a state dict, and the classifier as one plain ONNX file."""
    import torch

    import ortcam_export
    from ortcam_export.sources import open_source

    module = open_source(task.model, checkpoint=task.weights).classifier
    assert isinstance(module, torch.nn.Module)
    torch.save(module.state_dict(), task.folder / STATE_DICT)
    bundle = ortcam_export.export(
        task.model, task.folder / BUNDLE, checkpoint=task.folder / STATE_DICT, layer=task.layer
    )
    size = bundle.manifest.preprocessing
    torch.onnx.export(
        module,
        (torch.zeros(2, 3, size.height, size.width),),
        task.folder / CLASSIFIER,
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        input_names=["image"],
        output_names=["logits"],
        external_data=False,
        verbose=False,
    )
    return lambda _: ({}, {})


def ortcam_library(task: argparse.Namespace, method: str) -> Explain:
    """`Explainer.explain`, the sessions opened by the first call."""
    import ortcam

    explainer = ortcam.load(task.folder / BUNDLE, providers=["cpu"], threads=task.threads)

    def explain(request: dict[str, Any]) -> Answer:
        explanation = explainer.explain(
            task.photograph,
            method=method,
            target=task.target,
            batch_size=task.batch_size,
            **request.get("options", {}),
        )
        stats = explanation.stats
        return (
            {"map": explanation.maps[0], "raw_map": explanation.raw_maps[0]},
            {"channels": stats.channels, "passes": stats.passes, "stages": stats.seconds_by_stage},
        )

    return explain


def torch_cam(task: argparse.Namespace) -> Explain:
    """torch-cam as the example in the docstring of its ScoreCAM."""
    import torch
    from torchcam.methods import ScoreCAM

    model, read_input = _torch_model(task)

    def explain(_: dict[str, Any]) -> Answer:
        input_tensor = read_input()
        with ScoreCAM(model, task.layer, batch_size=task.batch_size) as cam_extractor:
            with torch.inference_mode():
                out = model(input_tensor)
            (cam,) = cam_extractor(task.target, out)
        return {"map": cam.squeeze(0).numpy()}, {}

    return explain


def pytorch_grad_cam(task: argparse.Namespace) -> Explain:
    """pytorch-grad-cam as its README: the object is made once and called for many images."""
    from pytorch_grad_cam import ScoreCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model, read_input = _torch_model(task)
    cam = ScoreCAM(model=model, target_layers=[model.get_submodule(task.layer)])
    cam.batch_size = task.batch_size

    def explain(_: dict[str, Any]) -> Answer:
        grayscale_cam = cam(input_tensor=read_input(), targets=[ClassifierOutputTarget(task.target)])
        return {"map": grayscale_cam[0]}, {}

    return explain


def onnxruntime_forward(task: argparse.Namespace) -> Explain:
    """Bare forward passes of the classifier's ONNX file, on copies of the photograph."""
    import numpy as np

    from ortcam.bundle import read_bundle
    from ortcam.image import read_image
    from ortcam.session import SessionOptions, open_session, resolve_providers

    session = open_session(task.folder / CLASSIFIER, SessionOptions(resolve_providers(["cpu"]), task.threads))
    image = read_bundle(task.folder / BUNDLE).manifest.preprocessing(read_image(task.photograph))
    batch = np.repeat(image, task.batch_size, axis=0)
    return _forward(task, lambda: session.run(["logits"], {"image": batch}))


def torch_forward(task: argparse.Namespace) -> Explain:
    """Bare forward passes of the PyTorch model, on copies of the photograph in channels last, its faster layout."""
    import torch

    model, read_input = _torch_model(task)
    batch = read_input().repeat(task.batch_size, 1, 1, 1).contiguous(memory_format=torch.channels_last)
    return _forward(task, torch.inference_mode()(lambda: model(batch)))


def _forward(task: argparse.Namespace, run: Callable[[], object]) -> Explain:
    """As many whole batches as the images that are asked for need; one without a request."""

    def explain(request: dict[str, Any]) -> Answer:
        runs = math.ceil(request.get("images", 1) / task.batch_size)
        for _ in range(runs):
            run()
        return {}, {"images": runs * task.batch_size}

    return explain


def _torch_model(task: argparse.Namespace) -> tuple[Any, Callable[[], Any]]:
    """A torchvision model with its weights, and what reads the photograph with the transforms of its weights."""
    import torch
    from torchvision.io import decode_image
    from torchvision.models import get_model, get_model_weights

    torch.set_num_threads(task.threads)
    model = get_model(task.model, weights=None)
    model.load_state_dict(torch.load(task.folder / STATE_DICT, weights_only=True))
    model.eval()
    # The first entry is the model's original recipe, the one that the bundle takes.
    preprocess = next(iter(get_model_weights(task.model))).transforms()
    return model, lambda: preprocess(decode_image(task.photograph)).unsqueeze(0)


LIBRARIES: dict[str, Callable[[argparse.Namespace], Explain]] = {
    "prepare": prepare,
    "ortcam": lambda task: ortcam_library(task, "scorecam"),
    "ortcam-scorecam++": lambda task: ortcam_library(task, "scorecam++"),
    "torch-cam": torch_cam,
    "pytorch-grad-cam": pytorch_grad_cam,
    "onnxruntime-forward": onnxruntime_forward,
    "torch-forward": torch_forward,
}


def main() -> None:
    """Serve requests until stdin ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", choices=LIBRARIES)
    parser.add_argument("--model", required=True, help="torchvision name")
    parser.add_argument("--layer", required=True, help="module path")
    parser.add_argument("--weights", type=Path, help="checkpoint, for prepare")
    parser.add_argument("--folder", type=Path, required=True, help="what prepare writes and the others read")
    parser.add_argument("--photograph", required=True)
    parser.add_argument("--target", type=int, required=True, help="class index")
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    task = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is not an answer
    explain = LIBRARIES[task.library](task)
    first: dict[str, Any] = {}
    for request in itertools.chain([first], map(json.loads, sys.stdin)):
        start = time.perf_counter()
        arrays, figures = explain(request)
        figures["seconds"] = time.perf_counter() - start
        figures["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_UNIT
        if "save" in request:
            import numpy as np

            np.savez(request["save"], **arrays)
        print(json.dumps(figures), file=answers, flush=True)


if __name__ == "__main__":
    main()
