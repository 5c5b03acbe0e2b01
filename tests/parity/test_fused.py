"""Fused explainers: the maps of `Explainer.explain` with the same settings, for every kind of model and option."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from ortcam.methods import GRADIENT_METHODS, METHODS
from ortcam_export import fuse
from tests.parity.cases import Case, PooledNet, small_case

CASES = ("small", "small_signed", "small_transformer", "small_branch", "small_multilabel", "small_binary")
SETTINGS: dict[str, dict[str, Any]] = {
    "scorecam": {"method": "scorecam"},
    "scorecam, other options": {
        "method": "scorecam",
        "normalize": "before-upsampling",
        "maps": "normalized",
        "baseline": "zeros",
    },
    "scorecam, logits": {"method": "scorecam", "weighting": "logit-softmax"},
    **{f"scorecam++, {gate}": {"method": "scorecam++", "gate": gate} for gate in ("tanh", "relu", "mish", "minmax")},
    "scorecam++, logits": {"method": "scorecam++", "weighting": "logit-softmax"},
    "scorecam++, raw maps": {"method": "scorecam++", "gate": "sigmoid-relu", "gate_sum": False, "baseline": "zeros"},
    "sscam": {"method": "sscam", "num_samples": 3},
    "sscam, a standard deviation": {"method": "sscam", "num_samples": 2, "std": 0.3, "seed": 2**40},
    "sscam, on the activation": {"method": "sscam", "num_samples": 2, "noise": "activation"},
    "iscam": {"method": "iscam", "num_samples": 4},
    "iscam, logits": {"method": "iscam", "num_samples": 3, "path": "linear", "weighting": "logit-softmax"},
}
GRADIENTS: dict[str, dict[str, Any]] = {
    **{method.name: {"method": method.name} for method in GRADIENT_METHODS},
    "grad-cam++, pytorch-grad-cam's": {"method": "grad-cam++", "epsilon": 1e-6},
    "smooth-grad-cam++, more noise": {"method": "smooth-grad-cam++", "num_samples": 3, "std": 1, "seed": 2**40},
    "finer-cam, pytorch-grad-cam's": {"method": "finer-cam", "strength": 1, "weighting": "probability"},
}
# Their weights have denominators, which may vanish where features are of either sign.
DIVIDING = ("grad-cam++", "xgrad-cam", "smooth-grad-cam++")
METHODS_BY_NAME = {method.name: method for method in METHODS}


def largest_difference(case: Case, image: Any, folder: Path, batch_size: int = 3, **settings: Any) -> float:
    """Between the maps of a fused file and the runtime's, with a budget if there is one."""
    fused = fuse(case.explainer.bundle, folder / "e.onnx", batch_size=batch_size, verify=False, force=True, **settings)
    session = ort.InferenceSession(fused.path, providers=["CPUExecutionProvider"])
    targets, saliency = session.run(["targets", "saliency"], {"image": case.explainer.preprocess(image)})
    limits = {"completion": "none"} if METHODS_BY_NAME[settings["method"]].masks_image else {}
    expected = case.explainer.explain(image, batch_size=batch_size, **limits, **settings)
    assert tuple(targets) == expected.targets
    return float(np.abs(saliency - expected.maps).max())


def moved_by_rounding(case: Case, image: Any, **settings: Any) -> float:
    """How far the runtime's own maps move when the last digit of each input value does."""
    values = case.explainer.preprocess(image)
    maps = case.explainer.explain(preprocessed=values, **settings).maps
    differences = []
    for seed in range(4):
        up = np.random.default_rng(seed).random(values.shape) < 0.5
        moved = np.nextafter(values, np.where(up, np.inf, -np.inf).astype(np.float32))
        differences.append(np.abs(case.explainer.explain(preprocessed=moved, **settings).maps - maps).max())
    return float(max(differences))


@pytest.mark.sample(every=108)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("name", CASES)
def test_small_models(
    request: pytest.FixtureRequest,
    name: str,
    settings: dict[str, Any],
    small_picture: NDArray[np.uint8],
    tmp_path: Path,
) -> None:
    case: Case = request.getfixturevalue(name)
    top_k = 1 if name == "small_binary" else 2
    assert largest_difference(case, small_picture, tmp_path, top_k=top_k, **settings) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("settings", GRADIENTS.values(), ids=GRADIENTS)
@pytest.mark.parametrize("name", CASES)
def test_gradients_of_small_models(
    request: pytest.FixtureRequest,
    name: str,
    settings: dict[str, Any],
    small_picture: NDArray[np.uint8],
    tmp_path: Path,
) -> None:
    case: Case = request.getfixturevalue(name)
    settings = settings | {"top_k": 1 if name == "small_binary" else 2}
    rounding = moved_by_rounding(case, small_picture, **settings) if settings["method"] in DIVIDING else 0
    assert largest_difference(case, small_picture, tmp_path, **settings) <= max(1e-5, 8 * rounding)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["layer-cam", "smooth-grad-cam++"])
@pytest.mark.parametrize("layout", ["nhwc", "tokens"])
def test_gradients_of_other_layouts(
    shared: Path, small_picture: NDArray[np.uint8], tmp_path: Path, layout: str, method: str
) -> None:
    case = small_case(PooledNet(layout, hidden=True), shared / f"pooled_{layout}", size=(64, 64))
    rounding = moved_by_rounding(case, small_picture, method=method) if method in DIVIDING else 0
    assert largest_difference(case, small_picture, tmp_path, method=method) <= max(1e-5, 8 * rounding)


@pytest.mark.slow
@pytest.mark.parametrize("positive", ["sum", "heads"])
def test_attention_of_a_small_transformer(
    small_transformer: Case, small_picture: NDArray[np.uint8], tmp_path: Path, positive: str
) -> None:
    settings = {"method": "grad-attention", "positive": positive, "top_k": 2}
    assert largest_difference(small_transformer, small_picture, tmp_path, **settings) <= 1e-5


@pytest.mark.long
@pytest.mark.parametrize("settings", GRADIENTS.values(), ids=GRADIENTS)
def test_gradients_of_real_weights_on_photographs(
    squeezenet: Case, data: Path, settings: dict[str, Any], tmp_path: Path
) -> None:
    photographs = sorted((data / "images").iterdir())[:2]
    assert photographs
    for photograph in photographs:
        assert largest_difference(squeezenet, photograph, tmp_path, 8, top_k=2, **settings) <= 1e-5


@pytest.mark.long
@pytest.mark.parametrize(
    "settings",
    [
        {"method": "scorecam"},
        {"method": "scorecam++", "top_k": 3},
        {"method": "sscam", "num_samples": 3, "budget": 60},
        {"method": "iscam", "budget": 60},
    ],
    ids=lambda settings: settings["method"],
)
def test_real_weights_on_photographs(squeezenet: Case, data: Path, settings: dict[str, Any], tmp_path: Path) -> None:
    photographs = sorted((data / "images").iterdir())[:2]
    assert photographs
    for photograph in photographs:
        assert largest_difference(squeezenet, photograph, tmp_path, 8, **settings) <= 1e-5


@pytest.mark.long
def test_real_photographs_as_they_were_decoded(squeezenet: Case, data: Path, tmp_path: Path) -> None:
    fused = fuse(squeezenet.explainer.bundle, tmp_path / "e.onnx", uint8_input=True, budget=24)
    session = ort.InferenceSession(fused.path, providers=["CPUExecutionProvider"])
    photographs = sorted((data / "originals").iterdir())[:4]
    assert photographs
    for photograph in photographs:
        pixels = squeezenet.explainer.read(photograph).pixels
        (saliency,) = session.run(["saliency"], {"image": pixels})
        expected = squeezenet.explainer.explain(photograph, budget=24, completion="none")
        assert np.abs(saliency - expected.maps).max() <= 1e-5
