"""Every method on a GPU beside the CPU, with the shipped classifier, whose weights are trained."""

import functools
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.judging import Case, apart

import ortcam
from ortcam.bundle.shipped import bundle_path, demo_image

__all__ = ["METHOD_CASES"]

# docs/explanation/exactness.md: apart from exceptions, results do not depend on the provider beyond rounding, and maps
# are this close to float64.
EXACT: Final = 1e-4
# The gates that have no bound: masked logits reach thousands, and float32 itself is up to this far off.
UNBOUNDED: Final = ("relu", "mish", "swish")
UNBOUNDED_APART: Final = 5e-4
BOUNDED: Final = ("tanh", "sigmoid", "sigmoid-relu", "softsign", "minmax")
# Of TF32, which has 11 bits of each factor, and of float16, which has no more.
SAME_SHAPE: Final = 0.99
# A CPU makes these passes, too: fewer samples than usual, and fewer channels.
BUDGET: Final[Mapping[str, Any]] = {"budget": 128, "completion": "none"}
FEWER: Final[Mapping[str, Mapping[str, Any]]] = {
    "scorecam++": BUDGET,
    "sscam": {"num_samples": 3, **BUDGET},
    "iscam": {"num_samples": 3, **BUDGET},
}
TO_CALIBRATE: Final = 8

_Settings = Mapping[str, Mapping[str, Any]]


def _exactly(bench: Bench) -> str:
    """In float32 without TF32."""
    found = _differences(bench, _every_method(), use_tf32="0")
    return _judged({name: far for name, (far, _) in found.items()}, EXACT)


def _as_it_comes(bench: Bench) -> str:
    found = _differences(bench, _every_method())
    worst = min(found, key=lambda name: found[name][1])
    words = f"Pearson at least {found[worst][1]:.6f} ({worst})"
    assert found[worst][1] >= SAME_SHAPE, words
    furthest = max(found, key=lambda name: found[name][0])
    return f"{words}; at most {found[furthest][0]:.1e} apart ({furthest})"


def _gates(bench: Bench) -> str:
    found = _differences(bench, _every_gate((*BOUNDED, *UNBOUNDED)), use_tf32="0")
    bounded = _judged({gate: found[gate][0] for gate in BOUNDED}, EXACT)
    return f"{bounded}; without a bound: {_judged({gate: found[gate][0] for gate in UNBOUNDED}, UNBOUNDED_APART)}"


def _gates_replayed(bench: Bench) -> str:
    found = _differences(bench, _every_gate(BOUNDED), use_tf32="0", enable_cuda_graph="1")
    return _judged({gate: far for gate, (far, _) in found.items()}, EXACT)


def _precisions(bench: Bench) -> str:
    """The variants of the shipped classifier, made from its PyTorch file here, on both."""
    from torchvision.models import shufflenet_v2_x0_5

    import ortcam_export

    models, words = bundle_path().parent, []
    with tempfile.TemporaryDirectory() as folder, ortcam.load(bundle_path(), providers=["cpu"]) as plain:
        pictures = Path(folder) / "pictures"
        pictures.mkdir()
        for file in sorted((models / "shapes" / "samples").glob("*.png"))[:TO_CALIBRATE]:
            (pictures / file.name).write_bytes(file.read_bytes())
        bundle = ortcam_export.export(
            shufflenet_v2_x0_5(weights=None, num_classes=len(plain.labels)),
            Path(folder) / "shapes.ortcam",
            checkpoint=models / "shapes" / "shapes.pth",
            layer="conv5",
            preset="imagenet",
            input_size=224,
            precision=["fp32", "fp16", "int8"],
            calibration=pictures,
        )
        for precision in ("fp16", "int8"):
            with (
                ortcam.load(bundle, providers=["cpu"], precision=precision) as cpu,
                ortcam.load(bundle, providers=[bench.provider], precision=precision) as device,
            ):
                expected = cpu.explain(demo_image(), method="scorecam")
                found = device.explain(demo_image(), method="scorecam")
            _ran(bench, found)
            alike = _pearson(found, expected)
            words.append(f"{precision} {found.stats.providers[0]}: Pearson {alike:.6f}")
            assert alike >= SAME_SHAPE, words[-1]
    return "; ".join(words)


def _every_method() -> _Settings:
    from ortcam.methods.fitting import fitting_methods

    manifest = ortcam.read_bundle(bundle_path()).manifest
    return {name: {"method": name, **FEWER.get(name, {})} for name in fitting_methods(manifest)}


def _every_gate(gates: tuple[str, ...]) -> _Settings:
    return {gate: {"method": "scorecam++", "gate": gate, **BUDGET} for gate in gates}


def _differences(bench: Bench, settings: _Settings, **options: str) -> dict[str, tuple[float, float]]:
    """By name: how far the maps are from the CPU's at most, and their correlation."""
    found = {}
    options = options if bench.provider == "cuda" else {}
    with ortcam.load(bundle_path(), providers=[(bench.provider, options)]) as device:
        for name, arguments in settings.items():
            expected = _on_cpu(tuple(arguments.items()))
            there = device.explain(demo_image(), **arguments)
            _ran(bench, there)
            found[name] = apart(there.maps, expected.maps), _pearson(there, expected)
    return found


@functools.cache
def _on_cpu(arguments: tuple[tuple[str, Any], ...]) -> Any:
    with ortcam.load(bundle_path(), providers=["cpu"]) as cpu:
        return cpu.explain(demo_image(), **dict(arguments))


def _ran(bench: Bench, explanation: Any) -> None:
    providers = explanation.stats.providers
    assert providers[0].lower().startswith(bench.provider), f"{providers} ran"


def _pearson(explanation: Any, reference: Any) -> float:
    return float(np.corrcoef(explanation.maps[0].ravel(), reference.maps[0].ravel())[0, 1])


def _judged(differences: Mapping[str, float], limit: float) -> str:
    """The largest difference in words.

    Raises:
        AssertionError: some are too large; names them.
    """
    wrong = ", ".join(f"{name} {far:.1e}" for name, far in differences.items() if not far <= limit)
    assert not wrong, f"more than {limit:.0e} apart: {wrong}"
    furthest = max(differences, key=lambda name: differences[name])
    return f"{len(differences)} maps, at most {differences[furthest]:.1e} apart ({furthest})"


METHOD_CASES: Final[tuple[Case, ...]] = (
    ("every method without TF32 gives the map of the CPU", None, _exactly),
    ("every method as it comes gives nearly the map of the CPU", None, _as_it_comes),
    ("every gate of ScoreCAM++ gives the map of the CPU", None, _gates),
    ("every gate of ScoreCAM++ with CUDA graphs", "cuda", _gates_replayed),
    ("float16 and int8 of a trained classifier", None, _precisions),
)
