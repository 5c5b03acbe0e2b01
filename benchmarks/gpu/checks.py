"""What has to hold on a GPU: the same map by every way of the engine."""

import dataclasses
import gc
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from benchmarks.gpu.bench import Bench

MEMORY_LIMIT: Final = 1 << 30
TOO_LARGE: Final = 2048


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
    pixels = torch.from_numpy(explainer.preprocess(bench.image)).to(bench.device)
    with torch.inference_mode():
        theirs = bench.module(pixels).float().softmax(-1)[0].cpu().numpy()
    apart = float(np.abs(explainer.predict(bench.image) - theirs).max())
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
    """Replayed for another image, and in chunks of several sizes, each a graph of its own."""
    from ortcam.images.reading import read_image

    captured, plain = bench.load(enable_cuda_graph="1"), bench.load()
    image = read_image(bench.image)
    other = np.ascontiguousarray(image[:, ::-1])
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
    many = list(explainer.explain_many([bench.image] * 3, method="scorecam", target=0))
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
