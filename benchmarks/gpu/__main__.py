"""ortcam on one NVIDIA GPU: every part of the engine checked and timed, beside the peers on the same GPU.

Needs Python 3.11 or newer, PyTorch, onnxruntime-gpu and NumPy; `ortcam[onnx]` to
export the classifier here, or `--bundle` with one that `--prepare` wrote elsewhere (its weights come from a seed, so
that PyTorch has the same). OpenCV, matplotlib, torch-cam and pytorch-grad-cam are used where they are installed, and
named as missing where they are not. The classifier is ResNet-50 with 2048 channels at 224 x 224. Results go to
benchmarks/results/gpu.md, .json and .png. Run as `python -m benchmarks.gpu`; `--provider cpu --quick` runs all that
needs no GPU, on a small classifier.
"""

import argparse
import dataclasses
import importlib.util
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.common.arguments import add_output, say, whole_number
from benchmarks.common.machine import describe_run
from benchmarks.common.results import write_results, write_text
from benchmarks.gpu.bench import Bench, do_without_opencv, make_image, make_module, prepare
from benchmarks.gpu.candidates import bare, candidates, time_all
from benchmarks.gpu.checks import checks
from benchmarks.gpu.report import figures, plot, report

BATCH_SIZES: Final = (16, 32, 64, 128, 256, 512)


def main(arguments: Sequence[str]) -> int:
    """Check, time, write; 1 where a check failed, 2 where there is nothing to run on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--provider", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="a small classifier and few runs: does every line run?")
    parser.add_argument("--bundle", type=Path, metavar="FOLDER", help="written by --prepare; else exported here")
    parser.add_argument("--prepare", type=Path, metavar="FOLDER", help="only export the classifier into this folder")
    parser.add_argument("--precisions", nargs="+", choices=("fp32", "fp16", "int8"), default=("fp32", "fp16"))
    parser.add_argument(
        "--only", metavar="WORD", help="only the checks with this in their name, nothing timed or written"
    )
    parser.add_argument("--no-checks", action="store_true", help="only what is timed")
    parser.add_argument("--repeats", type=whole_number, help="timed runs (default 7, quick 2)")
    add_output(parser, "gpu")
    options = parser.parse_args(arguments)
    os.environ.setdefault("TQDM_DISABLE", "1")  # pytorch-grad-cam's progress bars
    missing = ["OpenCV"] if do_without_opencv() else []
    missing += [name for name in ("torchcam", "pytorch_grad_cam", "matplotlib") if not importlib.util.find_spec(name)]
    if options.prepare:
        options.prepare.mkdir(parents=True, exist_ok=True)
        print(prepare(options.prepare, quick=options.quick, precisions=options.precisions))
        return 0
    import torch

    if options.provider == "cuda" and not torch.cuda.is_available():
        say("PyTorch finds no CUDA device here; `--provider cpu --quick` runs what needs none")
        return 2
    run = describe_run("benchmarks.gpu", arguments)
    with tempfile.TemporaryDirectory(prefix="ortcam-gpu-") as folder:
        try:
            bundle = options.bundle or prepare(Path(folder), quick=options.quick, precisions=options.precisions)
        except ImportError as error:
            say(f"{error}; exporting needs `ortcam[onnx]`, or --bundle with one that --prepare wrote elsewhere")
            return 2
        raw = measure(bundle, options, missing)
    failed = any(check["outcome"] == "failed" for check in raw["checks"])
    if options.only:
        return int(failed)
    write_results(options.output, run=run, raw=raw, figures=figures(raw["seconds"]))
    text = report(raw, run)
    write_text(options.output.with_suffix(".md"), text)
    if "matplotlib" not in missing:
        plot(raw, options.output.with_suffix(".png"))
    print(text)
    return int(failed)


def measure(bundle: Path, options: argparse.Namespace, missing: Sequence[str]) -> dict[str, Any]:
    """All checks and times."""
    from ortcam.bundle import read_bundle

    manifest = read_bundle(bundle).manifest
    bench = Bench(
        bundle=bundle,
        module=make_module(quick=options.quick).to(options.provider),
        image=make_image(manifest.preprocessing.height),
        provider=options.provider,
        precisions=tuple(options.precisions),
        repeats=options.repeats or (2 if options.quick else 7),
        batch_sizes=BATCH_SIZES[:2] if options.quick else BATCH_SIZES,
    )
    done = []
    for check in () if options.no_checks else checks(bench, options.only or ""):
        say(f"{check.outcome} ({check.seconds:.1f} s): {check.name}: {check.detail}")
        done.append(dataclasses.asdict(check))
    if options.only:
        return {"checks": done}
    runs, failed = candidates(bench)
    seconds = time_all(bench, {**runs, **bare(bench)})
    return {
        "model": "a small ResNet" if options.quick else "ResNet-50",
        "channels": manifest.cut.channels,
        "live": bench.explain(bench.load()).stats.live_channels,
        "side": manifest.preprocessing.height,
        "provider": bench.provider,
        "precisions": list(bench.precisions),
        "repeats": bench.repeats,
        "gpu": _gpu(),
        "missing": list(missing),
        "checks": done,
        "failed": failed,
        "seconds": seconds,
    }


def _gpu() -> str:
    import torch

    if not torch.cuda.is_available():
        return "none"
    properties = torch.cuda.get_device_properties(0)
    cuda, cudnn = torch.version.cuda, torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB; PyTorch's CUDA {cuda}, cuDNN {cudnn}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
