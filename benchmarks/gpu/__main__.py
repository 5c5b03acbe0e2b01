"""ortcam on one NVIDIA GPU: every part of the engine checked and timed, beside the peers on the same GPU.

Needs Python 3.11 or newer, PyTorch, onnxruntime-gpu and NumPy; `ortcam[onnx]` to
export the classifier here, or `--bundle` with one that `--prepare` wrote elsewhere (its weights come from a seed, so
that PyTorch has the same). OpenCV, matplotlib, torch-cam and pytorch-grad-cam are used where they are installed, and
named as missing where they are not. The classifier is ResNet-50 with 2048 channels at 224 x 224. Results go to
benchmarks/results/gpu.md, .json and .png. Run as `python -m benchmarks.gpu`; `--provider cpu --quick` runs all that
needs no GPU, on a small classifier.
"""

import argparse
import contextlib
import dataclasses
import functools
import gc
import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from unittest import mock

import numpy as np
from benchmarks.common.measuring import (
    Figure,
    add_output,
    describe_run,
    median,
    run_in_words,
    say,
    table,
    whole_number,
    with_quartiles,
    write_results,
    write_text,
)
from numpy.typing import NDArray

LAYER: Final = "layer4"
BATCH_SIZES: Final = (16, 32, 64, 128, 256, 512)
SEARCHES: Final = ("DEFAULT", "HEURISTIC", "EXHAUSTIVE")
MEMORY_LIMIT: Final = 1 << 30
TOO_LARGE: Final = 2048
MEAN: Final = (0.485, 0.456, 0.406)
STD: Final = (0.229, 0.224, 0.225)

REPORT: Final = """\
# ortcam on a GPU

![Time of an explanation, and masked images a second](gpu.png)

Exact Score-CAM of one picture with {model}, {channels} channels ({live} of them not flat), side {side}. Medians, in
brackets the quartiles, of {repeats} interleaved runs after two to warm up. Precisions are of the masked passes; float32
convolutions may use TF32, which is what PyTorch and ONNX Runtime do by default.

{run}
- GPU: {gpu}
- Not installed here: {missing}

## Checks

{checks}

## Aims

{aims}

## Time of an explanation

× is the time by that of ortcam in float32 with its automatic batch size.

{times}

## Images a second

Bare: the classifier alone, features and head through ONNX Runtime with nothing copied between them, or the module in
PyTorch. Explanation: masked images that were scored, by the time of the whole explanation.

{throughput}
"""


@dataclasses.dataclass(frozen=True)
class Check:
    """Something that has to hold.

    Attributes:
        name: what.
        outcome: "passed", "failed" or "skipped".
        detail: what was seen.
    """

    name: str
    outcome: str
    detail: str


@dataclasses.dataclass(frozen=True)
class Bench:
    """What all parts work with.

    Attributes:
        bundle: folder.
        module: the same classifier in PyTorch, on the device.
        picture: uint8 RGB.
        provider: "cuda" or "cpu".
        precisions: that the bundle has.
        repeats: timed runs.
        batch_sizes: that are tried.
    """

    bundle: Path
    module: Any
    picture: NDArray[np.uint8]
    provider: str
    precisions: tuple[str, ...]
    repeats: int
    batch_sizes: tuple[int, ...]

    @property
    def device(self) -> str:
        """The device as PyTorch calls it."""
        return self.provider

    def load(self, *, precision: str | None = None, **options: object) -> Any:
        """An explainer on the provider, with options of that provider; without a bundle's variants as it comes."""
        import ortcam

        more: dict[str, Any] = {} if precision in (None, "fp32") else {"precision": precision}
        return ortcam.load(self.bundle, providers=[(self.provider, options)], **more)

    def explain(self, explainer: Any, **options: object) -> Any:
        """Score-CAM of the picture for class 0; the batch size is the automatic one."""
        return explainer.explain(self.picture, **{"method": "scorecam", "target": 0, **options})


# --- checks ----------------------------------------------------------------------------------------------------------


def checks(bench: Bench) -> Iterator[Check]:
    """All checks; one that fails or raises does not keep the others from running."""
    every: tuple[tuple[str, str | None, Callable[[Bench], str]], ...] = (
        ("the provider starts and is what ran", None, _provider_ran),
        ("the bundle and the PyTorch module are the same classifier", None, _same_classifier),
        ("the map is the CPU's", None, _same_map_as_cpu),
        ("the scorer copies nothing between host and device inside its graph", "cuda", _no_copies),
        ("float16 gives nearly the same map", "fp16", _half_precision),
        ("CUDA graphs give the same map", "cuda", _cuda_graphs),
        ("out of memory halves the chunk and goes on", "cuda", _out_of_memory),
        ("a CUDA provider that cannot start falls back and says so", "cuda", _falls_back),
        ("explain_many gives the maps of explain", None, _many),
        ("ten classes give the map of the one", None, _ten_classes),
    )
    for name, needed, check in every:
        if needed not in (None, bench.provider, *bench.precisions):
            yield Check(name, "skipped", f"needs {needed}")
            continue
        try:
            yield Check(name, "passed", check(bench))
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs into the table
            yield Check(name, "failed", f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
        gc.collect()


def _provider_ran(bench: Bench) -> str:
    providers = bench.explain(bench.load()).stats.providers
    assert providers[0].lower().startswith(bench.provider), f"{providers} ran"
    return ", ".join(providers)


def _same_classifier(bench: Bench) -> str:
    import torch

    explainer = bench.load()
    pixels = torch.from_numpy(explainer.preprocess(bench.picture)).to(bench.device)
    with torch.inference_mode():
        theirs = bench.module(pixels).float().softmax(-1)[0].cpu().numpy()
    apart = float(np.abs(explainer.predict(bench.picture) - theirs).max())
    assert apart < 1e-2, f"probabilities differ by {apart:.1e}"
    return f"probabilities at most {apart:.1e} apart"


def _same_map_as_cpu(bench: Bench) -> str:
    import ortcam

    reference = bench.explain(ortcam.load(bench.bundle, providers=["cpu"]))
    return _close(bench.explain(bench.load()), reference, pearson=0.999)


def _no_copies(bench: Bench) -> str:
    import onnxruntime as ort

    from ortcam.bundle import read_bundle

    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        ort.InferenceSession(
            str(read_bundle(bench.bundle).scorer("linear")), options, providers=["CUDAExecutionProvider"]
        )
        graph = Path(options.optimized_model_filepath).read_bytes()
    copies = sum(graph.count(name) for name in (b"MemcpyToHost", b"MemcpyFromHost"))
    assert copies == 0, f"{copies} copies"
    return "no Memcpy in the optimised graph"


def _half_precision(bench: Bench) -> str:
    return _close(bench.explain(bench.load(precision="fp16")), bench.explain(bench.load()), pearson=0.99)


def _cuda_graphs(bench: Bench) -> str:
    """Replayed for another picture, and in chunks of several sizes, each a graph of its own."""
    from ortcam.images.decoding import read_image

    captured, plain = bench.load(enable_cuda_graph="1"), bench.load()
    picture = read_image(bench.picture)
    other = np.ascontiguousarray(picture[:, ::-1])
    bench.explain(captured)  # captures
    for size in (16, 64, 16):
        found = captured.explain(other, method="scorecam", target=0, batch_size=size)
        words = _close(found, plain.explain(other, method="scorecam", target=0, batch_size=size), pearson=0.9999)
    return words


def _out_of_memory(bench: Bench) -> str:
    tight = bench.load(gpu_mem_limit=str(MEMORY_LIMIT), arena_extend_strategy="kSameAsRequested")
    explanation = bench.explain(tight, batch_size=TOO_LARGE)
    size = explanation.stats.batch_size
    assert size < TOO_LARGE, f"batches of {size} fit into {MEMORY_LIMIT >> 20} MiB"
    return f"{TOO_LARGE} became {size}; {_close(explanation, bench.explain(bench.load()), pearson=0.999)}"


def _falls_back(bench: Bench) -> str:
    import warnings

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        explanation = bench.explain(bench.load(device_id="99"))
    assert explanation.stats.providers[0] == "CPUExecutionProvider", f"{explanation.stats.providers} ran"
    assert len(caught) == 1, f"{len(caught)} warnings"
    return str(caught[0].message).splitlines()[0]


def _many(bench: Bench) -> str:
    explainer = bench.load()
    alone = bench.explain(explainer)
    many = list(explainer.explain_many([bench.picture] * 3, method="scorecam", target=0))
    assert len(many) == 3, f"{len(many)} explanations"
    return _close(many[-1], alone, pearson=0.9999)


def _ten_classes(bench: Bench) -> str:
    explainer = bench.load()
    return _close(bench.explain(explainer, target=list(range(10))), bench.explain(explainer), pearson=0.9999)


def _close(explanation: Any, reference: Any, *, pearson: float) -> str:
    """How far two maps are from each other, in words."""
    first, second = explanation.maps[0].ravel(), reference.maps[0].ravel()
    correlation = float(np.corrcoef(first, second)[0, 1])
    words = f"Pearson {correlation:.6f}, at most {np.abs(first - second).max():.1e} apart"
    assert correlation >= pearson, words
    return words


# --- times -----------------------------------------------------------------------------------------------------------


def candidates(bench: Bench) -> tuple[dict[str, Callable[[], object]], list[str]]:
    """Everything that is timed by name, and what could not be set up and why."""
    found: dict[str, Callable[[], object]] = {}
    failed = []
    for name, make in _makers(bench):
        try:
            run = make()
            run()
            run()  # an automatic batch size may not be found at once
        except Exception as error:  # noqa: BLE001 - an option that this build lacks must not end the rest
            failed.append(f"{name}: {(str(error).splitlines() or [type(error).__name__])[0]}")
            continue
        found[name] = run
    return found, failed


def _makers(bench: Bench) -> Iterator[tuple[str, Callable[[], Callable[[], object]]]]:
    def ours(precision: str, **options: object) -> Callable[[], Callable[[], object]]:
        of_call = {key: options.pop(key) for key in ("batch_size", "target") if key in options}

        def make() -> Callable[[], object]:
            explainer = bench.load(precision=precision, **options)
            return lambda: bench.explain(explainer, **of_call)

        return make

    for precision in bench.precisions:
        yield f"ortcam {precision}", ours(precision)
        for size in bench.batch_sizes:
            yield f"ortcam {precision}, batch {size}", ours(precision, batch_size=size)
    yield "ortcam fp32, ten classes", ours("fp32", target=list(range(10)))
    if bench.provider == "cuda":
        for precision in bench.precisions:
            yield f"ortcam {precision}, CUDA graphs", ours(precision, enable_cuda_graph="1")
        for search in SEARCHES:
            yield f"ortcam fp32, cudnn_conv_algo_search {search}", ours("fp32", cudnn_conv_algo_search=search)
    for size in (32, max(bench.batch_sizes)):
        for best in (False, True):
            kind = ", best settings" if best else ""
            if importlib.util.find_spec("torchcam"):
                yield f"torch-cam, batch {size}{kind}", functools.partial(_torch_cam, bench, size, best=best)
            if importlib.util.find_spec("pytorch_grad_cam"):
                yield (
                    f"pytorch-grad-cam, batch {size}{kind}",
                    functools.partial(_pytorch_grad_cam, bench, size, best=best),
                )


def _torch_cam(bench: Bench, batch_size: int, *, best: bool) -> Callable[[], object]:
    import torch
    from torchcam.methods import ScoreCAM

    module, pixels = _torch_input(bench, best=best)

    def run() -> object:
        with (
            torch.inference_mode() if best else contextlib.nullcontext(),
            ScoreCAM(module, LAYER, batch_size=batch_size) as cam,
        ):
            with torch.inference_mode():
                out = module(pixels)
            return cam(0, out)[0].cpu().numpy()

    return run


def _pytorch_grad_cam(bench: Bench, batch_size: int, *, best: bool) -> Callable[[], object]:
    import torch
    from pytorch_grad_cam import ScoreCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    module, pixels = _torch_input(bench, best=best)
    cam = ScoreCAM(model=module, target_layers=[module.get_submodule(LAYER)])
    cam.batch_size = batch_size

    def run() -> object:
        with torch.inference_mode() if best else contextlib.nullcontext():
            return cam(input_tensor=pixels, targets=[ClassifierOutputTarget(0)])

    return run


def _torch_input(bench: Bench, *, best: bool) -> tuple[Any, Any]:
    """The module and the preprocessed picture on the device, for best settings in channels last."""
    import copy

    import torch

    layout = torch.channels_last if best else torch.contiguous_format
    pixels = torch.from_numpy(bench.load().preprocess(bench.picture)).to(bench.device)
    return copy.deepcopy(bench.module).to(memory_format=layout), pixels.contiguous(memory_format=layout)


def bare(bench: Bench) -> dict[str, Callable[[], object]]:
    """Bare forward passes by name, a batch a call: ONNX Runtime in float32, PyTorch in float32 and float16."""
    import copy

    import torch

    from ortcam.benchmarking import BareModel
    from ortcam.bundle import read_bundle
    from ortcam.engine.session import SessionOptions, resolve_providers

    explainer = bench.load()
    image = explainer.preprocess(bench.picture)
    graphs = BareModel(read_bundle(bench.bundle), SessionOptions(resolve_providers([bench.provider])), image)
    # On a CPU, PyTorch's half precision shows nothing but that the line runs.
    halves = copy.deepcopy(bench.module).half().to(memory_format=torch.channels_last)
    singles = copy.deepcopy(bench.module).to(memory_format=torch.channels_last)
    found: dict[str, Callable[[], object]] = {}
    for size in bench.batch_sizes:
        found[f"bare ONNX Runtime fp32, batch {size}"] = functools.partial(graphs.seconds_an_image, size)
        for name, module, kind in (("fp32", singles, torch.float32), ("fp16", halves, torch.float16)):
            found[f"bare PyTorch {name}, batch {size}"] = functools.partial(
                _torch_pass, bench, module, image, size, kind
            )
    return found


def _torch_pass(bench: Bench, module: Any, image: NDArray[np.float32], size: int, kind: Any) -> float:
    """Seconds an image, the median of three passes after one to warm up."""
    import torch

    pixels = torch.from_numpy(image).to(bench.device, kind).expand(size, -1, -1, -1)
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    times = []
    with torch.inference_mode():
        for _ in range(4):
            start = time.perf_counter()
            module(pixels)
            _synchronize(bench)
            times.append(time.perf_counter() - start)
    return median(times[1:]) / size


def _synchronize(bench: Bench) -> None:
    import torch

    if bench.provider == "cuda":
        torch.cuda.synchronize()


def time_all(bench: Bench, runs: Mapping[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Seconds of every candidate, one after the other, run after run; bare passes say seconds an image themselves."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(bench.repeats):
        for name, run in runs.items():
            _synchronize(bench)
            start = time.perf_counter()
            result = run()
            _synchronize(bench)
            elapsed = time.perf_counter() - start
            seconds[name].append(result if isinstance(result, float) else elapsed)
        say(f"run {repeat + 1}/{bench.repeats} of {len(runs)} candidates")
    return seconds


# --- results ---------------------------------------------------------------------------------------------------------


def aims(seconds: Mapping[str, Sequence[float]], live: int) -> Iterator[list[str]]:
    """What the project aims at on a GPU, beside what was measured."""
    ours = median(seconds["ortcam fp32"])
    fastest = min(median(values) for name, values in seconds.items() if name.startswith("ortcam fp"))
    for peer in ("torch-cam", "pytorch-grad-cam"):
        plain = f"{peer}, batch 32"
        if plain in seconds:
            theirs = median(seconds[plain])
            yield [f"× over {peer} as its README shows it, fp32", "at least 10", f"{theirs / ours:.1f}"]
            yield [f"× over {peer} as its README shows it, fastest precision", "-", f"{theirs / fastest:.1f}"]
        best = [median(values) for name, values in seconds.items() if name.startswith(peer) and "best" in name]
        if best:
            yield [f"× over {peer} at its best settings, fp32", "-", f"{min(best) / ours:.1f}"]
    half = [median(values) for name, values in seconds.items() if name.startswith("bare PyTorch fp16")]
    if half:
        share = live * min(half) / fastest
        yield ["masked images a second by the bare fp16 model's at its best batch", "at least 0.5", f"{share:.2f}"]
    single = [median(values) for name, values in seconds.items() if name.startswith("bare ONNX Runtime")]
    yield ["explanation by bare passes, fp32", "at most 1.10", f"{ours / (live * min(single)):.3f}"]
    if "ortcam fp32, ten classes" in seconds:
        yield ["ten classes by one", "at most 1.02", f"{median(seconds['ortcam fp32, ten classes']) / ours:.3f}"]


def report(raw: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    seconds, live = raw["seconds"], raw["live"]
    base = median(seconds["ortcam fp32"])
    explanations = [name for name in seconds if not name.startswith("bare")]
    times = [
        [name, with_quartiles([1e3 * s for s in seconds[name]], 1), f"{median(seconds[name]) / base:.2f}"]
        for name in explanations
    ]
    times += [[failure.partition(": ")[0], failure.partition(": ")[2], "-"] for failure in raw["failed"]]
    throughput = [[name, f"{1 / median(values):.0f}"] for name, values in seconds.items() if name.startswith("bare")]
    throughput += [[name, f"{live / median(seconds[name]):.0f}"] for name in explanations if name.startswith("ortcam")]
    return REPORT.format(
        **{key: raw[key] for key in ("model", "channels", "live", "side", "gpu")},
        repeats=raw["repeats"],
        missing=", ".join(raw["missing"]) or "nothing",
        run=run_in_words(run, f"provider {raw['provider']}, precisions {', '.join(raw['precisions'])}"),
        checks=table(["check", "outcome", ""], [[c["name"], c["outcome"], c["detail"]] for c in raw["checks"]]),
        aims=table(["what", "target", "measured"], aims(seconds, live)),
        times=table(["what", "ms", "×"], times),
        throughput=table(["what", "images a second"], throughput),
    )


def plot(raw: Mapping[str, Any], path: Path) -> None:
    """Left: times of explanations at the automatic or default batch; right: images a second by batch size."""
    from benchmarks.common.plots import COLOURS, panels, plain_numbers, save, style

    seconds, live = raw["seconds"], raw["live"]
    figure, (left, right) = panels(2, columns=2, size=(6.4, 4.6))
    shown = [
        name
        for name in seconds
        if not name.startswith("bare") and (", batch" not in name or not name.startswith("ortcam"))
    ]
    left.scatter(
        [1e3 * median(seconds[name]) for name in shown],
        range(len(shown)),
        color=[COLOURS[0] if name.startswith("ortcam") else COLOURS[1] for name in shown],
    )
    left.set_yticks(range(len(shown)), shown, fontsize=8)
    left.set_ylim(len(shown) - 0.5, -0.5)
    left.set_xscale("log")
    plain_numbers(left.xaxis)
    left.set_xlabel("time of an explanation, ms (logarithmic)")
    series: dict[str, dict[int, float]] = {}
    for name, values in seconds.items():
        label, found, size = name.partition(", batch ")
        if found and size.isdecimal() and label.startswith(("bare", "ortcam")):
            images = 1 if label.startswith("bare") else live
            series.setdefault(label, {})[int(size)] = images / median(values)
    for index, (label, points) in enumerate(series.items()):
        right.plot(list(points), list(points.values()), label=label, linewidth=1.4, **style(index))
    sizes = sorted({size for points in series.values() for size in points})
    right.set_xscale("log")
    right.set_xticks(sizes, [str(size) for size in sizes])
    right.minorticks_off()
    right.set_ylim(bottom=0)
    right.set_xlabel("batch size")
    right.set_ylabel("images a second")
    right.legend(frameon=False, fontsize=8)
    save(figure, path)


def picture(side: int) -> NDArray[np.uint8]:
    """A picture that needs no file: coarse coloured blocks under fine grain, uint8 RGB [side,side,3]."""
    generator = np.random.default_rng(1)
    coarse = generator.integers(0, 200, (-(-side // 16), -(-side // 16), 3)).repeat(16, axis=0).repeat(16, axis=1)
    return (coarse[:side, :side] + generator.integers(0, 56, (side, side, 3))).astype(np.uint8)


def do_without_opencv() -> bool:
    """Stand in for OpenCV where it is missing: preprocessing asks it for one copy, decoding and drawing are not needed.

    Returns:
        Whether it is missing.
    """
    if importlib.util.find_spec("cv2"):
        return False
    stand_in = mock.MagicMock(name="cv2")

    def extract_channel(source: NDArray[Any], channel: int, destination: NDArray[Any]) -> None:
        np.copyto(destination, source[..., channel])

    stand_in.extractChannel = extract_channel
    sys.modules["cv2"] = stand_in
    return True


def make_module(*, quick: bool) -> Any:
    """ResNet-50 with random weights, or a small relative of it."""
    from benchmarks.common.resnet import ResNet

    return ResNet((1, 1, 1, 1), width=4) if quick else ResNet()


def prepare(folder: Path, *, quick: bool, precisions: Sequence[str]) -> Path:
    """Export the classifier."""
    import ortcam_export

    side = 64 if quick else 224
    more: dict[str, Any] = {"precision": list(precisions)} if len(precisions) > 1 else {}
    bundle = ortcam_export.export(
        make_module(quick=quick),
        folder / "resnet.ortcam",
        layer=LAYER,
        input_size=(side, side),
        mean=MEAN,
        std=STD,
        labels=[str(index) for index in range(1000)],
        **more,
    )
    return bundle.path


def _gpu() -> str:
    import torch

    if not torch.cuda.is_available():
        return "none"
    properties = torch.cuda.get_device_properties(0)
    cuda, cudnn = torch.version.cuda, torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB; PyTorch's CUDA {cuda}, cuDNN {cudnn}"


def main(arguments: Sequence[str]) -> int:
    """Check, time, write; 1 where a check failed, 2 where there is nothing to run on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--provider", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="a small classifier and few runs: does every line run?")
    parser.add_argument("--bundle", type=Path, metavar="FOLDER", help="written by --prepare; else exported here")
    parser.add_argument("--prepare", type=Path, metavar="FOLDER", help="only export the classifier into this folder")
    parser.add_argument("--precisions", nargs="+", choices=("fp32", "fp16", "int8"), default=("fp32", "fp16"))
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
    write_results(options.output, run=run, raw=raw, figures=_figures(raw["seconds"]))
    text = report(raw, run)
    write_text(options.output.with_suffix(".md"), text)
    if "matplotlib" not in missing:
        plot(raw, options.output.with_suffix(".png"))
    print(text)
    return 1 if any(check["outcome"] == "failed" for check in raw["checks"]) else 0


def measure(bundle: Path, options: argparse.Namespace, missing: Sequence[str]) -> dict[str, Any]:
    """All checks and times."""
    from ortcam.bundle import read_bundle

    manifest = read_bundle(bundle).manifest
    bench = Bench(
        bundle=bundle,
        module=make_module(quick=options.quick).to(options.provider),
        picture=picture(manifest.preprocessing.height),
        provider=options.provider,
        precisions=tuple(options.precisions),
        repeats=options.repeats or (2 if options.quick else 7),
        batch_sizes=BATCH_SIZES[:2] if options.quick else BATCH_SIZES,
    )
    done = []
    for check in checks(bench):
        say(f"{check.outcome}: {check.name}: {check.detail}")
        done.append(dataclasses.asdict(check))
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


def _figures(seconds: Mapping[str, Sequence[float]]) -> Iterable[Figure]:
    for name, values in seconds.items():
        unit = "s an image" if name.startswith("bare") else "s"
        yield Figure(name, unit, tuple(values))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
