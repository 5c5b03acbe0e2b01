"""What the engine has to do on a GPU: the same map by each of its ways, in the memory that there is."""

import gc
import json
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final
from unittest import mock

import numpy as np
from benchmarks.gpu.bench import Bench, in_process
from benchmarks.gpu.judging import Case, apart, close

import ortcam
from ortcam.bundle.shipped import bundle_path, demo_image

__all__ = ["ENGINE"]

MEMORY_LIMIT: Final = 1 << 30
TOO_LARGE: Final = 2048
# Of a process that opens and closes explainers again and again.
LEAK: Final = 64 << 20
# On one device with one batch size the same kernels run.
SAME_DEVICE: Final = 1e-4


def _provider_ran(bench: Bench) -> str:
    providers = bench.explain(bench.load()).stats.providers
    assert providers[0].lower().startswith(bench.provider), f"{providers} ran"
    return ", ".join(providers)


def _same_classifier(bench: Bench) -> str:
    import torch

    explainer = bench.load()
    pixels = torch.from_numpy(explainer.preprocess(bench.image)).to(bench.device)
    with torch.inference_mode():
        theirs = bench.module(pixels).float().softmax(-1)[0].cpu().numpy()
    apart = float(np.abs(explainer.predict(bench.image) - theirs).max())
    assert apart < 1e-2, f"probabilities differ by {apart:.1e}"
    return f"probabilities at most {apart:.1e} apart"


def _same_map_as_cpu(bench: Bench) -> str:
    reference = bench.explain(ortcam.load(bench.bundle, providers=["cpu"]))
    return close(bench.explain(bench.load()), reference, pearson=0.999)


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
    return close(bench.explain(bench.load(precision="fp16")), bench.explain(bench.load()), pearson=0.99)


def _cuda_graphs(bench: Bench) -> str:
    """Replayed for another image, and in chunks of several sizes, each a graph of its own."""
    from ortcam.images.reading import read_image

    captured, plain = bench.load(enable_cuda_graph="1"), bench.load()
    image = read_image(bench.image)
    other = np.ascontiguousarray(image[:, ::-1])
    bench.explain(captured)  # captures
    for size in (16, 64, 16):
        found = captured.explain(other, method="scorecam", target=0, batch_size=size)
        words = close(found, plain.explain(other, method="scorecam", target=0, batch_size=size), pearson=0.9999)
    return words


def _out_of_memory(bench: Bench) -> str:
    tight = bench.load(gpu_mem_limit=str(MEMORY_LIMIT), arena_extend_strategy="kSameAsRequested")
    explanation = bench.explain(tight, batch_size=TOO_LARGE)
    size = explanation.stats.batch_size
    assert size < TOO_LARGE, f"batches of {size} fit into {MEMORY_LIMIT >> 20} MiB"
    return f"{TOO_LARGE} became {size}; {close(explanation, bench.explain(bench.load()), pearson=0.999)}"


def _falls_back(_: Bench) -> str:
    """Without a GPU that it can see: a process of its own, since CUDA looks for them once."""
    code = (
        "import json, sys, warnings, ortcam\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    found = ortcam.load(sys.argv[1], providers=['cuda']).explain(sys.argv[2], method='grad-cam')\n"
        "print(json.dumps([found.stats.providers, [str(item.message) for item in caught]]))"
    )
    providers, warned = json.loads(in_process(code, str(bundle_path()), str(demo_image()), CUDA_VISIBLE_DEVICES="-1"))
    assert providers == ["CPUExecutionProvider"], f"{providers} ran"
    assert len(warned) == 1, f"{len(warned)} warnings"
    return str(warned[0]).splitlines()[0]


def _forks(_: Bench) -> str:
    """A GPU does not survive a fork: the child warns and runs on the CPU."""
    code = (
        "import json, os, sys, warnings, ortcam\n"
        "explainer = ortcam.load(sys.argv[1], providers=['cuda'])\n"
        "parent = explainer.explain(sys.argv[2], method='scorecam', budget=32)\n"
        "if os.fork() == 0:\n"
        "    with warnings.catch_warnings(record=True) as caught:\n"
        "        warnings.simplefilter('always')\n"
        "        child = explainer.explain(sys.argv[2], method='scorecam', budget=32)\n"
        "    far = float(abs(child.maps - parent.maps).max())\n"
        "    print(json.dumps([child.stats.providers, [str(item.message) for item in caught], far]), flush=True)\n"
        "    os._exit(0)\n"
        "os.wait()"
    )
    providers, warned, far = json.loads(in_process(code, str(bundle_path()), str(demo_image())))
    assert providers == ["CPUExecutionProvider"], f"{providers} ran in the child"
    ours = [text for text in warned if "fork" in text and "runs instead" in text]
    assert len(ours) == 1, f"{warned}"
    return f"the child ran on the CPU with one warning; maps at most {far:.1e} apart"


def _wrong_device(bench: Bench) -> str:
    try:
        bench.explain(bench.load(device_id="99"))
    except ortcam.ProviderError as error:
        return str(error).splitlines()[0]
    raise AssertionError("no error")


def _inputs_stay(bench: Bench) -> str:
    """The scorer's runs are bound, and what stays the same is placed on the device once."""
    import onnxruntime as ort

    place, run = ort.OrtValue.ortvalue_from_numpy, ort.InferenceSession.run_with_iobinding
    explainer = bench.load()
    bench.explain(explainer)
    devices: list[str] = []
    bound: list[object] = []

    def placing(value: Any, device: str = "cpu", number: int = 0) -> Any:
        devices.append(device)
        return place(value, device, number)

    def running(session: Any, binding: Any, options: Any = None) -> None:
        bound.append(session)
        run(session, binding, options)

    with (
        mock.patch.object(ort.OrtValue, "ortvalue_from_numpy", placing),
        mock.patch.object(ort.InferenceSession, "run_with_iobinding", running),
    ):
        first = bench.explain(explainer, batch_size=32)
        second = bench.explain(explainer, batch_size=32)
    assert len(bound) == first.stats.runs + second.stats.runs, f"{len(bound)} bound runs"
    assert set(devices) == {bench.device}, f"inputs were placed on {set(devices)}"
    if bench.device == "cuda":
        assert len(devices) < first.stats.runs, f"{len(devices)} placements in {len(bound)} runs"
    return f"{len(bound)} bound runs, {len(devices)} placements on {bench.device}"


def _many(bench: Bench) -> str:
    explainer = bench.load()
    alone = bench.explain(explainer)
    many = list(explainer.explain_many([bench.image] * 3, method="scorecam", target=0))
    assert len(many) == 3, f"{len(many)} explanations"
    return close(many[-1], alone, pearson=0.9999)


def _ten_classes(bench: Bench) -> str:
    explainer = bench.load()
    return close(bench.explain(explainer, target=list(range(10))), bench.explain(explainer), pearson=0.9999)


def _threads(bench: Bench) -> str:
    return _in_threads(bench, bench.load(), 8)


def _threads_with_graphs(bench: Bench) -> str:
    return _in_threads(bench, bench.load(enable_cuda_graph="1"), 6)


def _in_threads(bench: Bench, explainer: Any, count: int) -> str:
    """More at once than bound sessions are kept; each has an image of its own."""
    images = [np.ascontiguousarray(np.roll(bench.image, 8 * shift, axis=1)) for shift in range(count)]
    settings: dict[str, Any] = {"method": "scorecam", "target": 0, "batch_size": 32, "budget": 256}
    alone = [explainer.explain(image, **settings) for image in images]
    with ThreadPoolExecutor(count) as pool:
        together = list(pool.map(lambda image: explainer.explain(image, **settings), images))
    far = [apart(found.maps, expected.maps) for found, expected in zip(together, alone, strict=True)]
    assert max(far) <= SAME_DEVICE, f"maps of {count} threads are at most {max(far):.1e} apart from those of one"
    return f"{count} threads, maps at most {max(far):.1e} apart from those of one"


def _low_memory(bench: Bench) -> str:
    settings: dict[str, Any] = {"method": "scorecam", "target": 0, "budget": 128}
    with ortcam.load(bench.bundle, providers=[bench.provider], low_memory=True) as small, bench.load() as plain:
        found = small.explain(bench.image, **settings)
        assert found.stats.providers[0].lower().startswith(bench.provider), f"{found.stats.providers} ran"
        return close(found, plain.explain(bench.image, **settings), pearson=0.999)


def _memory_given_back(bench: Bench) -> str:
    """Of the device, after explainers are closed; the first one loads libraries and kernels, which stay."""
    import torch

    def free() -> int:
        gc.collect()
        torch.cuda.empty_cache()
        return int(torch.cuda.mem_get_info()[0])

    lefts = []
    for _ in range(4):
        with bench.load() as explainer:
            bench.explain(explainer, batch_size=64)
            held = free()
        lefts.append(free())
    lost, taken = (lefts[0] - lefts[-1]) >> 20, (lefts[-1] - held) >> 20
    assert taken > 0, "an open explainer takes no memory"
    assert lost <= LEAK >> 20, f"{lost} MiB are lost after three more explainers were closed"
    return f"an open explainer holds {taken} MiB; {lost} MiB are lost after three more were opened and closed"


ENGINE: Final[tuple[Case, ...]] = (
    ("the provider starts and is what ran", None, _provider_ran),
    ("the bundle and the PyTorch module are the same classifier", None, _same_classifier),
    ("the map is the CPU's", None, _same_map_as_cpu),
    ("the scorer copies nothing between host and device inside its graph", "cuda", _no_copies),
    ("inputs stay on the device between the runs of the scorer", None, _inputs_stay),
    ("float16 gives nearly the same map", "fp16", _half_precision),
    ("CUDA graphs give the same map", "cuda", _cuda_graphs),
    ("out of memory halves the chunk and goes on", "cuda", _out_of_memory),
    ("CUDA without a GPU falls back and says so", "cuda", _falls_back),
    ("a GPU that is not there is an error", "cuda", _wrong_device),
    ("a forked process falls back and says so", "cuda", _forks),
    ("explain_many gives the maps of explain", None, _many),
    ("ten classes give the map of the one", None, _ten_classes),
    ("threads share an explainer", None, _threads),
    ("threads share an explainer with CUDA graphs", "cuda", _threads_with_graphs),
    ("low memory gives the same map", None, _low_memory),
    ("closed explainers give the device's memory back", "cuda", _memory_given_back),
)
