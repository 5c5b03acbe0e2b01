"""Everything that is timed: ortcam with its options, the peers, and the bare classifier."""

import contextlib
import functools
import importlib.util
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import numpy as np
from benchmarks.common.arguments import say
from benchmarks.common.figures import median
from benchmarks.gpu.bench import LAYER, Bench
from numpy.typing import NDArray

SEARCHES: Final = ("DEFAULT", "HEURISTIC", "EXHAUSTIVE")


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
    """The module and the preprocessed image on the device, for best settings in channels last."""
    import copy

    import torch

    layout = torch.channels_last if best else torch.contiguous_format
    pixels = torch.from_numpy(bench.load().preprocess(bench.image)).to(bench.device)
    return copy.deepcopy(bench.module).to(memory_format=layout), pixels.contiguous(memory_format=layout)


def bare(bench: Bench) -> dict[str, Callable[[], object]]:
    """Bare forward passes by name, one batch per call: ONNX Runtime in float32, PyTorch in float32 and float16."""
    import copy

    import torch

    from ortcam.benchmarking import BareModel
    from ortcam.bundle import read_bundle
    from ortcam.engine.opening import SessionOptions
    from ortcam.engine.providers import resolve_providers

    explainer = bench.load()
    image = explainer.preprocess(bench.image)
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
