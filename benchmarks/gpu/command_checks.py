"""The commands on a GPU, each in a process of its own, and the file that `fuse` writes."""

import contextlib
import json
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any, Final

import numpy as np
from benchmarks.gpu.bench import Bench, in_words
from benchmarks.gpu.judging import Case, apart

import ortcam
from ortcam.bundle.shipped import bundle_path, demo_image

__all__ = ["COMMANDS"]

# docs/explanation/exactness.md: maps are this close to float64.
EXACT: Final = 1e-4
FUSED: Final[dict[str, dict[str, Any]]] = {
    "grad-cam": {},
    "scorecam": {"budget": 64},
    "scorecam++": {"budget": 64},
}
BATCH: Final = 8


def _explain(bench: Bench) -> str:
    with tempfile.TemporaryDirectory() as folder:
        printed = _ortcam(
            bench, "explain", str(demo_image()), "--strict-provider", "-m", "scorecam,grad-cam", "-o", folder
        )
    found = json.loads(printed)["explanations"]
    _ran(bench, *(item["stats"]["providers"] for item in found))
    return ", ".join(f"{item['method']} in {item['stats']['seconds']:.2f} s" for item in found)


def _benchmark(bench: Bench) -> str:
    printed = _ortcam(bench, "benchmark", "-m", "scorecam,grad-cam", "--runs", "2", "--seconds", "20")
    rows = json.loads(printed)["rows"]
    _ran(bench, *(row["providers"] for row in rows))
    return ", ".join(f"{row['method']} {1e3 * row['median']:.0f} ms" for row in rows)


def _benchmark_with_graphs(bench: Bench) -> str:
    option = ("--provider-option", "enable_cuda_graph=1")
    printed = _ortcam(bench, "benchmark", "-m", "scorecam", "--runs", "2", "--seconds", "20", *option)
    rows = json.loads(printed)["rows"]
    _ran(bench, *(row["providers"] for row in rows))
    return ", ".join(f"{row['method']} {1e3 * row['median']:.0f} ms" for row in rows)


def _serve(bench: Bench) -> str:
    """One image explained over HTTP, and the same by the library."""
    from benchmarks.serving.server import serving

    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        server = stack.enter_context(serving({"shapes": bundle_path()}, Path(folder), "--provider", bench.provider))
        address = f"http://127.0.0.1:{server.port}/v1/models/shapes:explain?method=scorecam"
        request = urllib.request.Request(address, demo_image().read_bytes(), {"Content-Type": "image/png"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            (explanation,) = json.load(answer)["explanations"]
    _ran(bench, explanation["stats"]["providers"])
    return f"status {answer.status}, {explanation['stats']['seconds']:.2f} s"


def _fuse(bench: Bench) -> str:
    """Through ONNX Runtime alone, without TF32, beside the map of the runtime on the CPU."""
    import onnxruntime as ort

    import ortcam_export

    name, options = ("CUDAExecutionProvider", {"use_tf32": "0"}) if bench.provider == "cuda" else (None, {})
    providers: list[Any] = [(name, options)] if name else []
    words = []
    with tempfile.TemporaryDirectory() as folder, ortcam.load(bundle_path(), providers=["cpu"]) as explainer:
        image = explainer.read(demo_image())
        for method, more in FUSED.items():
            path = Path(folder) / f"{method}.onnx"
            ortcam_export.fuse(bundle_path(), path, method=method, batch_size=BATCH, verify=False, **more)
            session = ort.InferenceSession(str(path), providers=[*providers, "CPUExecutionProvider"])
            assert name is None or session.get_providers()[0] == name, f"{session.get_providers()} run"
            (saliency,) = session.run(["saliency"], {"image": image.model_input})
            limits: dict[str, Any] = {"completion": "none"} if more else {}
            expected = explainer.explain(image, method=method, batch_size=BATCH, **more, **limits)
            far = apart(np.asarray(saliency), expected.maps)
            words.append(f"{method} {far:.1e}")
            assert far <= EXACT, f"{words[-1]} apart"
    return f"at most apart: {', '.join(words)}"


def _ortcam(bench: Bench, command: str, *arguments: str) -> str:
    """What a command of the shipped classifier prints as JSON."""
    start = [sys.executable, "-m", "ortcam", command, str(bundle_path())]
    return in_words([*start, *arguments, "--provider", bench.provider, "--json"])


def _ran(bench: Bench, *providers: list[str]) -> None:
    for names in providers:
        assert names[0].lower().startswith(bench.provider), f"{names} ran"


COMMANDS: Final[tuple[Case, ...]] = (
    ("`ortcam explain`", None, _explain),
    ("`ortcam benchmark`", None, _benchmark),
    ("`ortcam benchmark` with CUDA graphs", "cuda", _benchmark_with_graphs),
    ("`ortcam serve` answers an explanation", None, _serve),
    ("a fused file in ONNX Runtime alone gives the map of the CPU", None, _fuse),
)
